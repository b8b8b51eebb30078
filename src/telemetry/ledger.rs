//! The ledger: sums since the first watcher came, and the last quarter of an hour, of every pipeline, model and endpoint.

use super::hub::{Call, Note, Request};
use crate::stats::{Histogram, Record, Slot, Source, Timeline, Word};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// How long a slot of a timeline is, and how many there are.
const SLOT_NS: u64 = 10_000_000_000;
const SLOTS: usize = 90;
/// Failed calls that are kept with their stories.
const KEPT: usize = 50;

/// What one source has been through.
#[derive(Clone, Debug)]
pub struct Series {
    /// Whose.
    pub source: Source,
    /// Calls, since the ledger was begun.
    pub calls: Slot,
    /// Requests or calls of the function by the error that they ended with; `NONE`: they went well.
    pub requests: Vec<(Word, u64)>,
    /// How long those took that somebody waited for, in nanoseconds.
    pub request_latencies: Histogram,
    /// The same, all told.
    pub request_ns: u128,
    /// Calls that were given up after something was sent; they count nowhere else.
    pub abandoned: u64,
    /// Calls, in slots of ten seconds.
    pub timeline: Timeline,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Unix time of its end, in nanoseconds.
    pub at_ns: u64,
    /// What was asked for.
    pub operation: &'static str,
    /// Its numbers.
    pub record: Record,
    /// Its attempts.
    pub requests: Vec<Request>,
    /// What policies did.
    pub notes: Vec<Note>,
}

impl Series {
    fn new(source: Source) -> Series {
        Series {
            source,
            calls: Slot::default(),
            requests: Vec::new(),
            request_latencies: Histogram::default(),
            request_ns: 0,
            abandoned: 0,
            timeline: Timeline::new(SLOT_NS, SLOTS),
        }
    }

    fn request(&mut self, request: &Request) {
        let at = self.requests.iter().position(|(error, _)| *error == request.error).unwrap_or_else(|| {
            self.requests.push((request.error, 0));
            self.requests.len() - 1
        });
        self.requests[at].1 += 1;
        if let Some(took_ns) = request.took_ns {
            self.request_latencies.add(took_ns);
            self.request_ns += u128::from(took_ns);
        }
    }
}

/// By the number of the source.
static LEDGER: RwLock<Vec<Option<Arc<Mutex<Series>>>>> = RwLock::new(Vec::new());
static FAILURES: Mutex<VecDeque<Failed>> = Mutex::new(VecDeque::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn series(source: Source) -> Arc<Mutex<Series>> {
    let at = source.number();
    if let Some(Some(found)) = LEDGER.read().unwrap_or_else(PoisonError::into_inner).get(at) {
        return found.clone();
    }
    let mut ledger = LEDGER.write().unwrap_or_else(PoisonError::into_inner);
    if ledger.len() <= at {
        ledger.resize(at + 1, None);
    }
    ledger[at].get_or_insert_with(|| Arc::new(Mutex::new(Series::new(source)))).clone()
}

pub(super) fn ended(call: &Call) {
    let record = &call.record;
    {
        let found = series(record.source);
        let mut series = locked(&found);
        series.calls.add(record);
        series.timeline.add(call.ended_ns(), record);
    }
    requested(&call.requests);
    if !record.ok {
        let (at_ns, requests, notes) = (call.ended_ns(), call.requests.clone(), call.notes.clone());
        let failed = Failed { at_ns, operation: call.operation, record: *record, requests, notes };
        let mut failures = locked(&FAILURES);
        let dropped = if failures.len() == KEPT { failures.pop_front() } else { None };
        failures.push_back(failed);
        drop(failures);
        drop(dropped);
    }
}

fn requested(requests: &[Request]) {
    for request in requests {
        locked(&series(request.source)).request(request);
    }
}

/// A call was given up: it is counted where it began.
pub(super) fn abandoned(requests: &[Request]) {
    if let Some(first) = requests.first() {
        locked(&series(first.source)).abandoned += 1;
    }
    requested(requests);
}

/// Begins anew.
pub(super) fn forget() {
    let series = std::mem::take(&mut *LEDGER.write().unwrap_or_else(PoisonError::into_inner));
    let failures = std::mem::take(&mut *locked(&FAILURES));
    drop((series, failures));
}

/// Looks at all series that anything is known of, one after another, each as it is: short, for calls wait meanwhile.
pub(super) fn each(mut look: impl FnMut(&Series)) {
    let found: Vec<_> = LEDGER.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().cloned().collect();
    found.iter().for_each(|series| look(&locked(series)));
}

/// All series that anything is known of, at that Unix time: copies.
pub fn snapshot(now_ns: u64) -> Vec<Series> {
    let found: Vec<_> = LEDGER.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().cloned().collect();
    let copied = |series: &Arc<Mutex<Series>>| {
        let mut series = locked(series);
        series.timeline.advance(now_ns);
        series.clone()
    };
    found.iter().map(copied).collect()
}

/// The last 50 calls that failed, oldest first: copies.
pub fn failures() -> Vec<Failed> {
    locked(&FAILURES).iter().cloned().collect()
}
