//! Whether threads of the interpreter may run at the same time. Where its lock is held they do not, and what would have
//! to be one step for safety's sake may be two: that costs a tenth.

use crate::stats::Latch;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use crate::stats::ask_whether_alone;
use pyo3::prelude::*;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static FREE: AtomicBool = AtomicBool::new(false);

/// Asks the interpreter once, and where the C library says whether there are any others.
pub fn look(py: Python<'_>) -> PyResult<()> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: looks a name up; what is found is glibc's own byte, which is there as long as it is (since 2.32).
    unsafe {
        let at = libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr());
        ask_whether_alone(at.cast());
    }
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

/// A value that threads of the interpreter look at in turn.
pub struct Shared<T> {
    /// Held where they may run at the same time.
    latch: Latch<()>,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time reaches the value: it holds the latch or, where there is one, the interpreter's lock.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T: Default> Default for Shared<T> {
    fn default() -> Self {
        Shared::new(T::default())
    }
}

impl<T> Shared<T> {
    /// A value that nobody looks at yet.
    pub fn new(value: T) -> Self {
        Shared { latch: Latch::new(()), value: UnsafeCell::new(value) }
    }

    /// Looks at it, or changes it. Nothing in there may run code of Python's, not even by letting an object go.
    #[inline]
    pub fn with<R>(&self, _py: Python<'_>, look: impl FnOnce(&mut T) -> R) -> R {
        let _held = are_free().then(|| self.latch.hold());
        // SAFETY: as above; and nothing that `look` does comes back here.
        look(unsafe { &mut *self.value.get() })
    }

    /// As [`Shared::with`], for the collector, which waits for nobody and is somewhere in the interpreter already.
    pub fn collected<R>(&self, look: impl FnOnce(&mut T) -> R) -> Option<R> {
        let _held = if are_free() { Some(self.latch.try_hold()?) } else { None };
        // SAFETY: as above. The collector comes while objects are made, which `look` does not do.
        Some(look(unsafe { &mut *self.value.get() }))
    }
}
