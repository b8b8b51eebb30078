//! A latch in a process of one thread, and once there are more. In a binary of its own: the threads of other tests would be told that they are
//! alone.

#![cfg(not(loom))]

use seawall::stats::{Latch, ask_whether_alone};
use std::sync::atomic::{AtomicU8, Ordering};

/// As glibc's.
static ALONE: AtomicU8 = AtomicU8::new(1);

fn holds_one(latch: &Latch<u64>) {
    let held = latch.hold();
    assert!(latch.try_hold().is_none(), "it is held");
    drop(held);
    assert!(latch.try_hold().is_some(), "it was given back");
}

#[test]
fn a_latch_is_one_s_at_a_time_whoever_else_there_is() {
    // SAFETY: it is one only where no other thread uses a latch.
    unsafe { ask_whether_alone(ALONE.as_ptr()) };
    let latch = Latch::new(0);
    holds_one(&latch);
    *latch.hold() += 1;

    ALONE.store(0, Ordering::Relaxed);
    let add = || (0..200_000).for_each(|_| *latch.hold() += 1);
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(add))));
    holds_one(&latch);

    ALONE.store(1, Ordering::Relaxed);
    holds_one(&latch);
    assert_eq!(*latch.hold(), 800_001);
}
