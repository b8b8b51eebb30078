//! Whether threads of the interpreter may run at the same time. Where its lock is held they do not, and what would have
//! to be one step for safety's sake may be two: that costs a tenth.

use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static FREE: AtomicBool = AtomicBool::new(false);

/// Asks the interpreter once.
pub fn look(py: Python<'_>) -> PyResult<()> {
    if let Some(enabled) = py.import("sys")?.getattr_opt("_is_gil_enabled")? {
        FREE.store(!enabled.call0()?.is_truthy()?, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether there is no lock that everybody holds who runs.
#[inline]
pub fn are_free() -> bool {
    FREE.load(Ordering::Relaxed)
}

/// Adds one.
#[inline]
pub fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Adds so many. All who do hold the interpreter's lock, where there is one.
#[inline]
pub fn add(counter: &AtomicU64, more: u64) {
    if are_free() {
        counter.fetch_add(more, Ordering::Relaxed);
    } else {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
}

/// Sets a flag; whether it was set already.
#[inline]
pub fn take(flag: &AtomicBool) -> bool {
    if are_free() {
        flag.swap(true, Ordering::Acquire)
    } else {
        let taken = flag.load(Ordering::Acquire);
        flag.store(true, Ordering::Relaxed);
        taken
    }
}
