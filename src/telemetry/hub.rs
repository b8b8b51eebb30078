//! Where finished calls are told, and to whom. While nobody wants to know, that costs one look at a number.

use super::ledger;
use crate::events::Name;
use crate::stats::{Record, Source, Word};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// One attempt: a call of the function, or a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Where it went.
    pub source: Source,
    /// Nanoseconds after the call's beginning.
    pub started_ns: u64,
    /// How long it took; `None`: nobody waited for its end.
    pub took_ns: Option<u64>,
    /// The class of the error that it ended with; `NONE` where it went well.
    pub error: Word,
    /// HTTP status of a failure.
    pub status: Option<u16>,
    /// The provider's id.
    pub request_id: Option<String>,
    /// The wait that followed.
    pub waited_ns: Option<u64>,
}

impl Request {
    /// Whether it gave a result.
    pub fn is_ok(&self) -> bool {
        !self.error.is_some()
    }
}

/// One thing that a policy did in the course of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Nanoseconds after the call's beginning.
    pub at_ns: u64,
    /// What.
    pub name: Name,
    /// The pipeline, breaker or model where it happened.
    pub place: Word,
    /// Attempts made, or the alternative tried.
    pub number: u32,
    /// The wait, or the time taken, in nanoseconds.
    pub span_ns: u64,
    /// Why, where there are several reasons.
    pub reason: &'static str,
    /// The class of the error that it was about.
    pub error: Word,
}

/// A call that is over.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// What was asked for: `call` of a function, or `chat`, `embeddings`, `models` of an API.
    pub operation: &'static str,
    /// Whether the answer came in pieces.
    pub is_stream: bool,
    /// Unix time of its beginning, in nanoseconds.
    pub begun_ns: u64,
    /// Its numbers.
    pub record: Record,
    /// The model that says it answered, where that was said.
    pub answered_by: Option<String>,
    /// Its attempts, in order.
    pub requests: Vec<Request>,
    /// What policies did, in order.
    pub notes: Vec<Note>,
}

impl Call {
    /// Unix time of its end, in nanoseconds.
    pub fn ended_ns(&self) -> u64 {
        self.begun_ns.saturating_add(self.record.latency_ns)
    }
}

/// Whoever wants every finished call. Told on the thread that ends it, which must not be kept.
pub trait Listener: Send + Sync {
    /// A call is over.
    fn ended(&self, call: &Call);
    /// A call was given up: what was sent is told, nothing else counts.
    fn abandoned(&self, _operation: &'static str, _begun_ns: u64, _requests: &[Request]) {}
}

static WATCHERS: AtomicUsize = AtomicUsize::new(0);
static LISTENERS: RwLock<Vec<Arc<dyn Listener>>> = RwLock::new(Vec::new());

/// Whether calls are to be told.
#[inline]
pub fn is_on() -> bool {
    WATCHERS.load(Ordering::Relaxed) > 0
}

/// As long as it lives, calls are counted in the ledger and told to listeners.
#[derive(Debug)]
pub struct Watching(());

/// Has calls counted from now on.
pub fn watch() -> Watching {
    WATCHERS.fetch_add(1, Ordering::Release);
    Watching(())
}

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHERS.fetch_sub(1, Ordering::Release);
    }
}

/// As long as it lives, a listener is told.
pub struct Listening {
    listener: Arc<dyn Listener>,
    _watching: Watching,
}

/// Has calls told to a listener from now on.
pub fn listen(listener: Arc<dyn Listener>) -> Listening {
    LISTENERS.write().unwrap_or_else(PoisonError::into_inner).push(listener.clone());
    Listening { listener, _watching: watch() }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = LISTENERS.write().unwrap_or_else(PoisonError::into_inner);
        let at = listeners.iter().position(|listener| Arc::ptr_eq(listener, &self.listener));
        let dropped = at.map(|at| listeners.remove(at));
        drop(listeners);
        drop(dropped);
    }
}

fn listeners() -> Vec<Arc<dyn Listener>> {
    LISTENERS.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A call is over.
pub fn ended(call: &Call) {
    if !is_on() {
        return;
    }
    ledger::ended(call);
    listeners().iter().for_each(|listener| listener.ended(call));
}

/// A call passed without trouble: one attempt, nothing else to tell.
#[cold]
pub fn passed(begun_ns: u64, latency_ns: u64, source: Source) {
    let request = Request { source, took_ns: Some(latency_ns), ..Request::default() };
    let record = Record::passed(latency_ns, source);
    ended(&Call { operation: "call", begun_ns, record, requests: vec![request], ..Call::default() });
}

/// A call was given up.
pub fn abandoned(operation: &'static str, begun_ns: u64, requests: &[Request]) {
    if !is_on() || requests.is_empty() {
        return;
    }
    ledger::requested(requests);
    listeners().iter().for_each(|listener| listener.abandoned(operation, begun_ns, requests));
}
