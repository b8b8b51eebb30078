//! The last N calls: every record costs the same, whatever N is.

use super::{Record, Ring, Tally};

/// One call in a window.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// When it was recorded.
    pub at_ns: u64,
    /// What was recorded.
    pub record: Record,
    /// The latency in seconds exactly as it was given; NaN where it was given in nanoseconds.
    pub given_seconds: f64,
}

impl Entry {
    /// The latency in seconds: what was given, or the nanoseconds converted.
    pub fn seconds(&self) -> f64 {
        if self.given_seconds.is_nan() { self.record.latency_ns as f64 / 1e9 } else { self.given_seconds }
    }
}

/// The newest calls and their sums.
#[derive(Clone, Debug)]
pub struct CountWindow {
    entries: Ring<Entry>,
    tally: Tally,
}

impl CountWindow {
    /// An empty window over the last `size` calls.
    pub fn new(size: usize) -> Self {
        CountWindow { entries: Ring::new(size), tally: Tally::default() }
    }

    /// Takes a call in and lets the oldest go when the window is full. An entry that is handed over as a value is written twice,
    /// and the processor waits to read the first.
    #[inline(always)] // where most of an entry is known, most of this is nothing
    pub fn push(&mut self, made: impl Fn() -> Entry) {
        let tally = &mut self.tally;
        self.entries.push(&made, |left| match left {
            Some(left) => tally.exchange(|| made().record, &left.record),
            None => tally.add(&made().record),
        });
    }

    /// How many calls the window holds at most.
    pub fn size(&self) -> usize {
        self.entries.capacity()
    }

    /// The sums over the window.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The calls, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}
