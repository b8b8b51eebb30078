//! What a breaker remembers of the calls it has seen: totals over the last N calls or the last T seconds, O(1) each.

use crate::engine::Instant;
use std::time::Duration;

/// How far back a rate looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Span {
    /// The last so many calls.
    Calls(u32),
    /// The last so much time.
    Time(Duration),
}

/// Sums over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls seen.
    pub calls: u32,
    /// Of these, failed.
    pub failed: u32,
    /// Of these, slower than the limit.
    pub slow: u32,
}

impl Totals {
    fn add(&mut self, other: Totals) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.slow += other.slow;
    }

    fn remove(&mut self, other: Totals) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }
}

const BUCKETS: u64 = 10;

/// Totals over a [`Span`]; memory is taken at the first record.
#[derive(Clone, Debug)]
pub enum Window {
    /// A ring of two bits per call.
    Calls { size: u32, ring: Vec<u8>, next: usize, totals: Totals },
    /// Ten buckets of a tenth of the span each; `newest` is the number of the last one written to, which ends at `until`
    /// (0: none is being written to).
    Time { width: u64, buckets: Vec<(u64, Totals)>, newest: u64, until: u64, totals: Totals },
}

impl Window {
    /// An empty window over `span`.
    pub fn new(span: Span) -> Window {
        match span {
            Span::Calls(size) => Window::Calls { size: size.max(1), ring: Vec::new(), next: 0, totals: Totals::default() },
            Span::Time(time) => {
                let width = (u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / BUCKETS).max(1);
                Window::Time { width, buckets: Vec::new(), newest: 0, until: 0, totals: Totals::default() }
            }
        }
    }

    /// The totals as of the last call added.
    pub fn seen(&self) -> Totals {
        match self {
            Window::Calls { totals, .. } | Window::Time { totals, .. } => *totals,
        }
    }

    /// Adds a call.
    #[inline]
    pub fn add(&mut self, now: Instant, failed: bool, slow: bool) {
        let one = Totals { calls: 1, failed: u32::from(failed), slow: u32::from(slow) };
        match self {
            Window::Calls { size, ring, next, totals } => {
                let bits = u8::from(failed) | (u8::from(slow) << 1);
                if ring.len() < *size as usize {
                    ring.push(bits);
                    totals.add(one);
                    return;
                }
                let old = std::mem::replace(&mut ring[*next], bits);
                *next = if *next + 1 == ring.len() { 0 } else { *next + 1 };
                // One that leaves for one of its kind, as most do, changes no sum.
                if old != bits {
                    totals.remove(Totals { calls: 1, failed: u32::from(old & 1), slow: u32::from(old >> 1) });
                    totals.add(one);
                }
            }
            Window::Time { width, buckets, newest, until, totals } => {
                // A caller that read its clock long ago counts among the newest: its own bucket may be another's by now.
                if now.0 >= *until {
                    buckets.resize(BUCKETS as usize, (u64::MAX, Totals::default()));
                    *newest = (now.0 / *width).max(*newest);
                    *until = newest.saturating_add(1).saturating_mul(*width);
                    forget_old(buckets, totals, *newest);
                    let bucket = &mut buckets[(*newest % BUCKETS) as usize];
                    if bucket.0 != *newest {
                        *bucket = (*newest, Totals::default());
                    }
                }
                buckets[(*newest % BUCKETS) as usize].1.add(one);
                totals.add(one);
            }
        }
    }

    /// The totals at `now`.
    pub fn totals(&mut self, now: Instant) -> Totals {
        match self {
            Window::Calls { totals, .. } => *totals,
            Window::Time { width, buckets, newest, until, totals } => {
                forget_old(buckets, totals, now.0 / *width);
                if buckets.get((*newest % BUCKETS) as usize).is_some_and(|(at, _)| at != newest) {
                    *until = 0;
                }
                *totals
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        match self {
            Window::Calls { ring, next, totals, .. } => {
                ring.clear();
                *next = 0;
                *totals = Totals::default();
            }
            Window::Time { buckets, newest, until, totals, .. } => {
                buckets.clear();
                *newest = 0;
                *until = 0;
                *totals = Totals::default();
            }
        }
    }
}

fn forget_old(buckets: &mut [(u64, Totals)], totals: &mut Totals, epoch: u64) {
    for (at, sums) in buckets {
        // A clock read on another core may lie a bucket ahead: only what is older than the span goes.
        if *at != u64::MAX && at.saturating_add(BUCKETS) <= epoch {
            totals.remove(*sums);
            *at = u64::MAX;
            *sums = Totals::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_that_was_read_long_ago_leaves_the_totals_true() {
        let mut window = Window::new(Span::Time(Duration::from_nanos(100)));
        window.add(Instant(1000), true, false);
        // The same bucket, eras ago: it was read before a long pause of the thread.
        window.add(Instant(0), true, false);
        assert_eq!(window.totals(Instant(1000)), Totals { calls: 2, failed: 2, slow: 0 });
        assert_eq!(window.totals(Instant(2000)), Totals::default());
    }

    proptest! {
        #[test]
        fn count_window_equals_recount(calls in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..200), size in 1u32..40) {
            let mut window = Window::new(Span::Calls(size));
            for (i, (failed, slow)) in calls.iter().enumerate() {
                window.add(Instant(0), *failed, *slow);
                let got = window.seen();
                let seen = &calls[(i + 1).saturating_sub(size as usize)..=i];
                let want = Totals {
                    calls: seen.len() as u32,
                    failed: seen.iter().filter(|c| c.0).count() as u32,
                    slow: seen.iter().filter(|c| c.1).count() as u32,
                };
                prop_assert_eq!(got, want);
            }
        }

        #[test]
        fn time_window_forgets_by_tenths(steps in proptest::collection::vec((0u64..30, any::<bool>()), 0..200)) {
            let mut window = Window::new(Span::Time(Duration::from_nanos(100)));
            let mut now = 0;
            let mut all: Vec<(u64, bool)> = Vec::new();
            for (step, failed) in steps {
                now += step;
                all.push((now, failed));
                window.add(Instant(now), failed, false);
                let got = window.seen();
                let seen: Vec<_> = all.iter().filter(|(at, _)| at / 10 + 10 > now / 10).collect();
                prop_assert_eq!(got.calls as usize, seen.len());
                prop_assert_eq!(got.failed as usize, seen.iter().filter(|c| c.1).count());
            }
            prop_assert_eq!(window.totals(Instant(now + 1000)), Totals::default());
        }
    }
}
