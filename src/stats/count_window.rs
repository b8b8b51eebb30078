//! The last N calls: every record costs the same, whatever N is.

use super::{Histogram, Record, Ring, Tally};

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

/// The newest calls, their sums and the distribution of their latencies.
#[derive(Clone, Debug)]
pub struct CountWindow {
    entries: Ring<Entry>,
    tally: Tally,
    latencies: Histogram,
}

impl CountWindow {
    /// An empty window over the last `size` calls.
    pub fn new(size: usize) -> Self {
        CountWindow { entries: Ring::new(size), tally: Tally::default(), latencies: Histogram::default() }
    }

    /// Takes a call in and lets the oldest go when the window is full.
    pub fn push(&mut self, entry: Entry) {
        self.tally.add(&entry.record);
        self.latencies.add(entry.record.latency_ns);
        if let Some(left) = self.entries.push(entry) {
            self.tally.subtract(&left.record);
            self.latencies.remove(left.record.latency_ns);
        }
    }

    /// How many calls the window holds at most.
    pub fn size(&self) -> usize {
        self.entries.capacity()
    }

    /// The sums over the window.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The distribution of the latencies in the window, in nanoseconds.
    pub fn latencies(&self) -> &Histogram {
        &self.latencies
    }

    /// The calls, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}
