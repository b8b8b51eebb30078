//! What a retry policy has done so far, over all its calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters; read one by one, so a reading in the middle of a call may be a little uneven.
#[derive(Debug, Default)]
pub struct Counts {
    shared: Row,
    /// Failed attempts and the retries after them, told together: one exchange between processors where two would be most of the cost.
    pairs: AtomicU64,
    /// Of those who count in turn, and so without an exchange.
    in_turn: Row,
}

#[derive(Debug, Default)]
struct Row {
    calls: AtomicU64,
    attempts: AtomicU64,
    retries: AtomicU64,
    exhausted: AtomicU64,
    waited_ns: AtomicU64,
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
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
        self.shared.calls.fetch_add(calls, Ordering::Relaxed);
        self.shared.attempts.fetch_add(calls, Ordering::Relaxed);
    }

    /// Adds what a passage has counted since it last told. `in_turn`: all who say so hold one lock.
    #[inline]
    pub(crate) fn add(&self, passage: &Totals, in_turn: bool) {
        if in_turn {
            let add = |counter: &AtomicU64, n: u64| counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
            let row = &self.in_turn;
            add(&row.calls, passage.calls);
            add(&row.attempts, passage.attempts);
            add(&row.retries, passage.retries);
            add(&row.exhausted, passage.exhausted);
            if !passage.waited.is_zero() {
                add(&row.waited_ns, nanos(passage.waited));
            }
        } else {
            self.add_shared(passage);
        }
    }

    fn add_shared(&self, passage: &Totals) {
        let add = |counter: &AtomicU64, n: u64| {
            if n != 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        };
        let pairs = passage.attempts.min(passage.retries);
        add(&self.pairs, pairs);
        let row = &self.shared;
        add(&row.calls, passage.calls);
        add(&row.attempts, passage.attempts - pairs);
        add(&row.retries, passage.retries - pairs);
        add(&row.exhausted, passage.exhausted);
        add(&row.waited_ns, nanos(passage.waited));
    }

    /// What has been counted.
    pub fn totals(&self) -> Totals {
        let pairs = self.pairs.load(Ordering::Relaxed);
        let read = |of: fn(&Row) -> &AtomicU64| of(&self.shared).load(Ordering::Relaxed) + of(&self.in_turn).load(Ordering::Relaxed);
        Totals {
            calls: read(|row| &row.calls),
            attempts: pairs + read(|row| &row.attempts),
            retries: pairs + read(|row| &row.retries),
            exhausted: read(|row| &row.exhausted),
            waited: Duration::from_nanos(read(|row| &row.waited_ns)),
        }
    }
}
