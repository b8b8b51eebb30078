//! What the core says through `tracing`, for whoever wants to read it: events of its own, and of nobody else's, since what other crates
//! say may hold what goes over the wire.

use crate::drive::clock;
use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// One event.
#[derive(Debug)]
pub struct Line {
    /// How loud it is.
    pub level: Level,
    /// Which part of the core says it: `seawall::client`.
    pub target: &'static str,
    /// What, with its fields as `name=value`.
    pub text: String,
    /// Unix time in nanoseconds.
    pub at_ns: u64,
}

/// Takes the lines, on the thread that says them, which must not be kept.
type Listener = fn(Line);

/// How loud something has to be: 0 nothing is heard, 5 everything.
static HEARD: AtomicU8 = AtomicU8::new(0);
static LISTENER: OnceLock<Listener> = OnceLock::new();

fn loudness(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

struct Speech;

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.target().split("::").next() == Some("seawall")
}

impl Subscriber for Speech {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_ours(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        loudness(*metadata.level()) <= HEARD.load(Ordering::Relaxed) && is_ours(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
        levels.get(usize::from(HEARD.load(Ordering::Relaxed))).copied()
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if let Some(listener) = LISTENER.get() {
            let text = said.message + &said.fields;
            let (level, target) = (*event.metadata().level(), event.metadata().target());
            listener(Line { level, target, text, at_ns: clock::unix(clock::now()) });
        }
    }

    // There are no spans of ours.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// From now on what is at least so loud goes to the listener, the same one always; `None`: nothing is heard.
pub fn listen(level: Option<Level>, listener: Listener) {
    HEARD.store(level.map_or(0, loudness), Ordering::Relaxed);
    let first = LISTENER.set(listener).is_ok();
    // Another subscriber can only be of a program that this is a library of, and then hears it all itself.
    if first {
        let _ = tracing::subscriber::set_global_default(Speech);
    }
    tracing::callsite::rebuild_interest_cache();
}
