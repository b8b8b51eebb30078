//! What tests ask of all calls of the process: to be recorded, not to wait, to make few attempts.

use crate::engine::Execution;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

static RECORDED: AtomicBool = AtomicBool::new(false);
static HURRIED: AtomicBool = AtomicBool::new(false);
/// 0: no cap.
static CAP: AtomicU32 = AtomicU32::new(0);

/// Sets all three: whether events are recorded, whether retries wait, and the most attempts of one retry (0: its own).
pub fn set(recorded: bool, hurried: bool, cap: u32) {
    RECORDED.store(recorded, Ordering::Release);
    HURRIED.store(hurried, Ordering::Release);
    CAP.store(cap, Ordering::Release);
}

/// Whether every call has to tell what happens to it, and so to go by the machine.
#[inline]
pub fn is_recorded() -> bool {
    RECORDED.load(Ordering::Relaxed)
}

/// Puts an execution under these rules.
pub fn dress(execution: &mut Execution) {
    if is_recorded() {
        execution.announce();
    }
    if HURRIED.load(Ordering::Acquire) {
        execution.hurry();
    }
    match CAP.load(Ordering::Acquire) {
        0 => {}
        cap => execution.cap(cap),
    }
}
