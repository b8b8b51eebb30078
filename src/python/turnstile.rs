//! A value that one frame at a time may have, for as long as it likes: what a coroutine or a generator is made of.
//!
//! A lock would be held while Python code runs; here whoever comes second is told so.

use super::threads;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// The value and whether somebody has it.
pub struct Turnstile<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is touched only by whoever has set `taken`, and may go from thread to thread.
unsafe impl<T: Send> Sync for Turnstile<T> {}

/// The right to the value.
pub struct Entered<'a, T>(&'a Turnstile<T>);

impl<T> Turnstile<T> {
    /// A value that nobody has.
    pub fn new(value: T) -> Turnstile<T> {
        Turnstile { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The right to the value, unless somebody has it.
    #[inline]
    pub fn enter(&self) -> Option<Entered<'_, T>> {
        // Lazily: the right that is not given must not be given back.
        (!threads::take(&self.taken)).then(|| Entered(self))
    }

    /// The value of a turnstile that nobody else knows any more.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: there is one of these at a time.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: there is one of these at a time.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}
