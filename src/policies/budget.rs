//! A cap on further requests as a share of traffic: a token bucket that calls fill, and retries or hedges empty.

use crate::engine::Instant;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
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

    /// The budget that all pipelines of that name share which ask for that share of their traffic.
    pub fn shared(name: &str, ratio: f64) -> Arc<Budget> {
        /// By name and share.
        type Known = HashMap<(String, u64), Weak<Budget>>;
        static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        known.retain(|_, budget| budget.strong_count() > 0);
        let place = known.entry((name.to_owned(), ratio.to_bits())).or_default();
        place.upgrade().unwrap_or_else(|| {
            let budget = Arc::new(Budget::share(ratio));
            *place = Arc::downgrade(&budget);
            budget
        })
    }

    /// Retries up to `ratio` of the calls, and one a second so that rare calls are retried too; at most ten saved up.
    pub fn share(ratio: f64) -> Budget {
        Budget::new(ratio, 1.0, 10.0)
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
    fn one_name_is_one_budget_as_long_as_somebody_has_it() {
        let budget = Budget::shared("a pipeline", 0.2);
        assert!(Arc::ptr_eq(&budget, &Budget::shared("a pipeline", 0.2)));
        assert!(!Arc::ptr_eq(&budget, &Budget::shared("a pipeline", 0.3)));
        assert!(!Arc::ptr_eq(&budget, &Budget::shared("another", 0.2)));
        while budget.withdraw(Instant(0)) {}
        drop(budget);
        assert!(Budget::shared("a pipeline", 0.2).withdraw(Instant(0)), "a new one is full");
    }

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
