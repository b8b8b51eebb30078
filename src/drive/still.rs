//! Calls that wait while time is moved by hand: it moves to the end of the first wait, once nothing is under way that takes none.

use super::clock;
use crate::engine::Instant;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So often a wait looks in vain before it goes by what is under way: that may hang, as tests have it.
const LOOKS: u32 = 20;

/// Attempts under way.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
/// Those that wait, and until when.
static WAITS: Mutex<Vec<(u64, Instant)>> = Mutex::new(Vec::new());

fn waits() -> MutexGuard<'static, Vec<(u64, Instant)>> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An attempt begins.
pub fn begun() {
    UNDER_WAY.fetch_add(1, Ordering::AcqRel);
}

/// So many have ended, or were given up.
pub fn ended(attempts: usize) {
    UNDER_WAY.fetch_sub(attempts, Ordering::AcqRel);
}

/// One that waits.
pub struct Still {
    number: u64,
    looks: u32,
}

impl Default for Still {
    fn default() -> Still {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Still { number: NEXT.fetch_add(1, Ordering::Relaxed), looks: 0 }
    }
}

impl Still {
    /// Moves the time there, if nobody waits for an earlier time and no attempt is under way. Else it is to be asked again.
    pub fn pass(&mut self, until: Instant) {
        let mut waits = waits();
        match waits.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, known)) => *known = until,
            None => waits.push((self.number, until)),
        }
        let is_first = waits.iter().all(|(_, other)| until <= *other);
        drop(waits);
        self.looks += 1;
        if is_first && (UNDER_WAY.load(Ordering::Acquire) == 0 || self.looks >= LOOKS) {
            clock::advance_to(until);
        }
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        waits().retain(|(number, _)| *number != self.number);
    }
}
