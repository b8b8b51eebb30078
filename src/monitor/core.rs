//! The monitor: one latch around a window, its sums and the state of the incident.

use std::collections::VecDeque;

use super::alert::Alert;
use super::incident::{Incident, Moment};
use super::level::{Level, Metric};
use super::rules::Rules;
use super::window::{Span, Window};
use crate::stats::{Entry, Held, Latch, Record, Slot, Source, Tally};

/// How many past alerts are kept.
const KEPT_ALERTS: usize = 100;

/// Counts calls and tells when something is wrong. Recording takes the same time at every window size.
#[derive(Debug)]
pub struct Monitor {
    state: Latch<State>,
}

#[derive(Debug)]
struct State {
    window: Window,
    lifetime: Tally,
    failures_in_a_row: u64,
    rules: Rules,
    incident: Incident,
    alerts: VecDeque<Alert>,
}

/// The numbers at one moment. Rates are shares from 0 to 1, times are seconds; `None` while the window is empty.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Sums over the window.
    pub window: Tally,
    /// Sums over all calls ever recorded.
    pub lifetime: Tally,
    /// What the window holds at most.
    pub span: Span,
    /// How bad it is.
    pub level: Level,
    /// Calls failed since the last success.
    pub failures_in_a_row: u64,
}

impl State {
    fn new(span: Span, rules: Rules) -> Self {
        State {
            window: Window::new(span),
            lifetime: Tally::default(),
            failures_in_a_row: 0,
            rules,
            incident: Incident::default(),
            alerts: VecDeque::new(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            window: *self.window.tally(),
            lifetime: self.lifetime,
            span: self.window.span(),
            level: self.incident.level(),
            failures_in_a_row: self.failures_in_a_row,
        }
    }

    fn keep(&mut self, alert: &Alert) {
        if self.alerts.len() == KEPT_ALERTS {
            self.alerts.pop_front();
        }
        self.alerts.push_back(alert.clone());
    }
}

impl Monitor {
    /// A monitor over a window, with the usual rules.
    pub fn new(window: impl Into<Span>) -> Self {
        Monitor::with_rules(window, Rules::default())
    }

    /// A monitor with rules of one's own.
    pub fn with_rules(window: impl Into<Span>, rules: Rules) -> Self {
        Monitor { state: Latch::new(State::new(window.into(), rules)) }
    }

    #[inline]
    fn state(&self) -> Held<'_, State> {
        self.state.hold()
    }

    /// Counts one finished call; `now_ns` is the Unix time in nanoseconds and only labels what it stamps. An alert is
    /// returned, not published: that is for the caller to do, and no lock is held any more.
    pub fn record(&self, now_ns: u64, record: Record) -> Option<Alert> {
        self.record_entry(Entry { at_ns: now_ns, record, given_seconds: f64::NAN })
    }

    /// As [`Monitor::record`], for a call whose latency was measured as a float that is to be shown again unchanged.
    // Always inlined: where most of an entry is known, most of this is nothing.
    #[inline(always)]
    pub fn record_entry(&self, entry: Entry) -> Option<Alert> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.window.push(entry);
        state.lifetime.add(&entry.record);
        state.failures_in_a_row = if entry.record.ok { 0 } else { state.failures_in_a_row + 1 };
        let alert = state.incident.observe(&Moment {
            rules: &state.rules,
            window: state.window.tally(),
            window_size: state.window.calls_at_most(state.rules.minimum),
            failures_in_a_row: state.failures_in_a_row,
            now_ns: entry.at_ns,
        })?;
        state.keep(&alert);
        Some(alert)
    }

    /// As [`Monitor::record`], for a success at once with nothing else to tell.
    pub fn passed(&self, now_ns: u64, latency_ns: u64, source: Source) -> Option<Alert> {
        self.record_entry(Entry { at_ns: now_ns, record: Record::passed(latency_ns, source), given_seconds: f64::NAN })
    }

    /// The numbers at that time, all of one moment.
    pub fn snapshot(&self, now_ns: u64) -> Snapshot {
        let mut state = self.state();
        state.window.advance(now_ns);
        state.snapshot()
    }

    /// The same, and all that is known of the window's calls: distributions (nanoseconds, within 1.6 %), and whose they were. It
    /// is made for whoever asks, since those who look are fewer than those who record; they wait while it is copied, not while
    /// it is sorted.
    pub fn whole(&self, now_ns: u64) -> (Snapshot, Slot) {
        let mut state = self.state();
        state.window.advance(now_ns);
        let (seen, copied) = (state.snapshot(), state.window.copied());
        drop(state);
        (seen, copied.into_slot())
    }

    /// The window's calls by time, oldest first: at most `most` equal slots, each with the Unix time at which it begins.
    pub fn timeline(&self, now_ns: u64, most: usize) -> Vec<(u64, Slot)> {
        let mut state = self.state();
        state.window.advance(now_ns);
        let copied = state.window.copied();
        drop(state);
        copied.into_slots(now_ns, most)
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        self.state().incident.level()
    }

    /// The calls in the window, oldest first: a copy. A window over a time has none: it keeps sums.
    pub fn entries(&self) -> Vec<Entry> {
        self.state().window.entries()
    }

    /// What the window holds at most.
    pub fn span(&self) -> Span {
        self.state().window.span()
    }

    /// The last `most` calls of those, oldest first.
    pub fn recent(&self, most: usize) -> Vec<Entry> {
        self.state().window.recent(most)
    }

    /// The last alerts (at most 100), oldest first: a copy.
    pub fn alerts(&self) -> Vec<Alert> {
        self.state().alerts.iter().cloned().collect()
    }

    /// The rules in force: a copy.
    pub fn rules(&self) -> Rules {
        self.state().rules.clone()
    }

    /// Moves a limit, as [`Rules::set_limit`] says; the next record is judged by it.
    pub fn set_limit(&self, metric: Metric, critical: f64) {
        self.state().rules.set_limit(metric, critical);
    }

    /// Forgets everything but the rules and begins again with such a window.
    pub fn restart(&self, window: impl Into<Span>) {
        let mut state = self.state();
        let fresh = State::new(window.into(), state.rules.clone());
        let dropped = std::mem::replace(&mut *state, fresh);
        drop(state);
        drop(dropped);
    }
}
