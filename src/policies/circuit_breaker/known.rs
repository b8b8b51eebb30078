//! The breakers of this process, weakly held, for those who look without asking Python.

use super::CircuitBreaker;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// The name that a breaker has, or will have once it guards something.
pub type Name = Arc<OnceLock<String>>;

/// In the order in which they came.
struct Known {
    breakers: Vec<(u64, Weak<CircuitBreaker>, Name)>,
    next: u64,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { breakers: Vec::new(), next: 1 });

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a breaker; those that nobody has any more are taken out whenever there would be no room.
pub fn add(breaker: &Arc<CircuitBreaker>, name: &Name) {
    let mut known = known();
    if known.breakers.len() == known.breakers.capacity() {
        known.breakers.retain(|(_, breaker, _)| breaker.strong_count() > 0);
        // As much room again, or what is full of living ones would be searched at each.
        let living = known.breakers.len();
        known.breakers.reserve(living.max(8));
    }
    let number = known.next;
    known.next += 1;
    known.breakers.push((number, Arc::downgrade(breaker), name.clone()));
}

/// All that somebody has, the oldest first: a number that stays, the breaker, its name.
pub fn living() -> Vec<(u64, Arc<CircuitBreaker>, Name)> {
    let known = known();
    known.breakers.iter().filter_map(|(number, breaker, name)| Some((*number, breaker.upgrade()?, name.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Span};
    use super::*;
    use std::time::Duration;

    fn made() -> Arc<CircuitBreaker> {
        Arc::new(CircuitBreaker::new(Config {
            consecutive: Some(5),
            rate: None,
            slow: None,
            span: Span::Calls(100),
            minimum_calls: 10,
            recovery: Duration::from_secs(30),
            recovery_backoff: None,
            half_open_max_calls: 1,
            success_threshold: 1,
            max_half_open_time: Duration::from_secs(60),
            lenient: false,
        }))
    }

    #[test]
    fn the_living_are_found_by_name_and_the_dead_are_taken_out() {
        let (kept, name) = (made(), Name::default());
        add(&kept, &name);
        for _ in 0..1000 {
            add(&made(), &Name::default());
        }
        let _ = name.set("kept".to_owned());
        let found = living();
        assert_eq!(found.iter().filter(|(_, breaker, name)| Arc::ptr_eq(breaker, &kept) && name.get().is_some()).count(), 1);
        assert!(known().breakers.len() < 100, "{}", known().breakers.len());
    }
}
