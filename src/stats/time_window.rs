//! Sums over the last T nanoseconds, in buckets: constant memory, and a price per record that no amount of traffic raises.

/// Sums that can be added up and taken apart again.
pub trait Sums: Clone + Default {
    /// Adds `other`.
    fn merge(&mut self, other: &Self);
    /// Takes away `other`, which was added before.
    fn remove(&mut self, other: &Self);
}

/// The last `span`, split into equal buckets. The oldest bucket leaves as a whole, so what is seen is the span, less
/// at most one bucket's width.
#[derive(Clone, Debug)]
pub struct TimeWindow<S> {
    buckets: Vec<S>,
    sum: S,
    width_ns: u64,
    /// Number of the newest bucket, counted from time 0.
    newest: u64,
}

impl<S: Sums> TimeWindow<S> {
    /// An empty window over `span_ns` nanoseconds in `buckets` buckets; a 0 in either is taken as 1.
    pub fn new(span_ns: u64, buckets: usize) -> Self {
        let buckets = buckets.max(1);
        TimeWindow { buckets: vec![S::default(); buckets], sum: S::default(), width_ns: span_ns.div_ceil(buckets as u64).max(1), newest: 0 }
    }

    /// Adds to the bucket of `now_ns`. A time before the newest bucket (threads that read the clock and then waited, a
    /// clock set back) counts as the newest: nothing recorded is lost.
    pub fn add(&mut self, now_ns: u64, value: &S) {
        self.advance(now_ns);
        let slot = self.slot(self.newest);
        self.buckets[slot].merge(value);
        self.sum.merge(value);
    }

    /// The sums over the span that ends at `now_ns`.
    pub fn sum(&mut self, now_ns: u64) -> &S {
        self.advance(now_ns);
        &self.sum
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.buckets.len() as u64) as usize
    }

    fn advance(&mut self, now_ns: u64) {
        let number = now_ns / self.width_ns;
        let stale = number.saturating_sub(self.newest).min(self.buckets.len() as u64);
        for step in 0..stale {
            let slot = self.slot(number - step);
            let left = std::mem::take(&mut self.buckets[slot]);
            self.sum.remove(&left);
        }
        self.newest = self.newest.max(number);
    }
}
