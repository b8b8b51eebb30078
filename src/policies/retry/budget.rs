//! A cap on retries as a share of traffic: a token bucket that calls fill and retries empty.

use crate::engine::Instant;
use std::sync::Mutex;
use std::time::Duration;

/// Shared by all pipelines of one name.
#[derive(Debug)]
pub struct Budget {
    ratio: f64,
    floor_per_second: f64,
    capacity: f64,
    state: Mutex<(f64, Instant)>,
}

impl Budget {
    /// Retries up to `ratio` of the calls, plus `floor_per_second` so that rare calls are retried too; at most
    /// `capacity` saved up.
    pub fn new(ratio: f64, floor_per_second: f64, capacity: f64) -> Budget {
        Budget { ratio, floor_per_second, capacity, state: Mutex::new((capacity, Instant(0))) }
    }

    /// A call began.
    pub fn deposit(&self, now: Instant) {
        self.change(now, |tokens| (tokens + self.ratio, true));
    }

    /// A retry is wanted: whether there is room for it.
    pub fn withdraw(&self, now: Instant) -> bool {
        self.change(now, |tokens| if tokens >= 1.0 { (tokens - 1.0, true) } else { (tokens, false) })
    }

    fn change(&self, now: Instant, step: impl FnOnce(f64) -> (f64, bool)) -> bool {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let passed: Duration = now.since(state.1);
        let filled = state.0 + passed.as_secs_f64() * self.floor_per_second;
        let (tokens, granted) = step(filled.min(self.capacity));
        *state = (tokens.clamp(0.0, self.capacity), now.max(state.1));
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_calls() {
        let budget = Budget::new(0.2, 0.0, 10.0);
        while budget.withdraw(Instant(0)) {}
        let mut granted = 0;
        for _ in 0..1000 {
            budget.deposit(Instant(0));
            granted += u32::from(budget.withdraw(Instant(0)));
        }
        assert!((198..=200).contains(&granted), "{granted}");
    }
}
