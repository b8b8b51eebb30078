//! What a retry policy has done so far, over all its calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters; read one by one, so a reading in the middle of a call may be a little uneven.
#[derive(Debug, Default)]
pub struct Counts {
    calls: AtomicU64,
    /// Failed attempts and the retries after them, told together: one exchange between processors where two would be most of the cost.
    pairs: AtomicU64,
    attempts: AtomicU64,
    retries: AtomicU64,
    exhausted: AtomicU64,
    waited_ns: AtomicU64,
}

/// A reading of [`Counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that came to the policy.
    pub calls: u64,
    /// Attempts, of all of them.
    pub attempts: u64,
    /// Attempts decided on after a failed one.
    pub retries: u64,
    /// Calls given up although their last failure was one to try again.
    pub exhausted: u64,
    /// All waits decided on.
    pub waited: Duration,
}

impl Counts {
    /// So many calls came, and passed or were given up, with one attempt each.
    pub fn passed(&self, calls: u64) {
        self.calls.fetch_add(calls, Ordering::Relaxed);
        self.attempts.fetch_add(calls, Ordering::Relaxed);
    }

    /// Adds what a passage has counted since it last told.
    pub(crate) fn add(&self, passage: &Totals) {
        let add = |counter: &AtomicU64, n: u64| {
            if n != 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        };
        let pairs = passage.attempts.min(passage.retries);
        add(&self.pairs, pairs);
        add(&self.calls, passage.calls);
        add(&self.attempts, passage.attempts - pairs);
        add(&self.retries, passage.retries - pairs);
        add(&self.exhausted, passage.exhausted);
        add(&self.waited_ns, u64::try_from(passage.waited.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What has been counted.
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let pairs = read(&self.pairs);
        Totals {
            calls: read(&self.calls),
            attempts: pairs + read(&self.attempts),
            retries: pairs + read(&self.retries),
            exhausted: read(&self.exhausted),
            waited: Duration::from_nanos(read(&self.waited_ns)),
        }
    }
}
