//! What there is in this process to look at, weakly held, for those who look without asking Python.

use crate::monitor::Monitor;
use crate::policies::circuit_breaker::CircuitBreaker;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// The name that something has, or will have once it is used.
pub type Name = Arc<OnceLock<Box<str>>>;

/// The breakers that have a name or guard something.
pub static BREAKERS: Known<CircuitBreaker> = Known::new();
/// The monitors.
pub static MONITORS: Known<Monitor> = Known::new();

/// One that is there.
pub struct Living<T> {
    /// Its number, which no other has in this process.
    pub number: u64,
    /// Itself.
    pub it: Arc<T>,
    /// Its name; empty while it has none.
    pub name: Name,
}

/// Things of one kind.
pub struct Known<T>(Mutex<Entries<T>>);

/// In the order in which they came, and the number of the last one.
struct Entries<T>(Vec<(u64, Weak<T>, Name)>, u64);

impl<T> Known<T> {
    const fn new() -> Self {
        Known(Mutex::new(Entries(Vec::new(), 0)))
    }

    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; those that nobody has any more are taken out whenever there would be no room.
    pub fn add(&self, one: &Arc<T>, name: &Name) {
        let mut guard = self.entries();
        let Entries(entries, last) = &mut *guard;
        if entries.len() == entries.capacity() {
            entries.retain(|(_, one, _)| one.strong_count() > 0);
            // As much room again, or what is full of living ones would be searched at each.
            let living = entries.len();
            entries.reserve(living.max(8));
        }
        *last += 1;
        entries.push((*last, Arc::downgrade(one), name.clone()));
    }

    /// All that somebody has, the oldest first.
    pub fn living(&self) -> Vec<Living<T>> {
        let found = |(number, one, name): &(u64, Weak<T>, Name)| Some(Living { number: *number, it: one.upgrade()?, name: name.clone() });
        self.entries().0.iter().filter_map(found).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_found_by_name_and_the_dead_are_taken_out() {
        let known = Known::new();
        let (kept, name) = (Arc::new("kept"), Name::default());
        known.add(&kept, &name);
        for _ in 0..1000 {
            known.add(&Arc::new("dropped"), &Name::default());
        }
        let _ = name.set("its name".into());
        let found: Vec<_> = known.living().iter().map(|one| (one.number, *one.it, one.name.get().cloned())).collect();
        assert_eq!(found, [(1, "kept", Some("its name".into()))]);
        assert!(known.entries().0.len() < 20, "{}", known.entries().0.len());
        known.add(&kept, &name);
        assert_eq!(known.living()[1].number, 1002, "no number is given twice");
    }
}
