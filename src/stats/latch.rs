//! A lock for a few nanoseconds of work.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// A lock that is given back by a plain store, where a mutex needs a second atomic exchange to find out who waits: half the
/// price, and every guarded call pays it. Who finds it held looks again, lets others run, and at last sleeps in turns; nothing
/// but arithmetic may happen under it. A panic under it gives it back.
#[derive(Debug)]
pub struct Latch<T> {
    held: kind::AtomicBool,
    value: kind::Cell<T>,
}

// SAFETY: only the holder reaches the value, and holders follow one another by release and acquire.
unsafe impl<T: Send> Send for Latch<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Latch<T> {}

impl<T> Latch<T> {
    /// A latch around a value, held by nobody.
    pub fn new(value: T) -> Self {
        Latch { held: kind::AtomicBool::new(false), value: kind::Cell::new(value) }
    }

    /// Takes it, waiting until it is free.
    #[inline]
    pub fn hold(&self) -> Held<'_, T> {
        if !self.take() {
            self.wait();
        }
        Held { latch: self, value: ManuallyDrop::new(self.value.get()) }
    }

    /// Takes it, if it is free just now.
    #[inline]
    pub fn try_hold(&self) -> Option<Held<'_, T>> {
        self.take().then(|| Held { latch: self, value: ManuallyDrop::new(self.value.get()) })
    }

    // An exchange that fails stores nothing: loom cannot tell the order of stores that no one has read.
    #[inline]
    fn take(&self) -> bool {
        if kind::is_alone() {
            // Nobody else is there who could come between the two, and nobody can come while it is held: nothing under it begins a thread.
            let is_free = !self.held.load(kind::Ordering::Relaxed);
            self.held.store(true, kind::Ordering::Relaxed);
            return is_free;
        }
        self.held.compare_exchange(false, true, kind::Ordering::Acquire, kind::Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn wait(&self) {
        let mut looks = 0_u32;
        while !self.take() {
            kind::pause(looks);
            looks = looks.saturating_add(1);
        }
    }
}

/// The value of a latch, until this is dropped.
pub struct Held<'a, T> {
    latch: &'a Latch<T>,
    value: ManuallyDrop<kind::Pointer<T>>,
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the latch is held, and whoever changes the value borrows this mutably.
        unsafe { kind::value(&self.value) }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the latch is held, and this borrow is the only one.
        unsafe { kind::value(&self.value) }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped once, here; before the latch is given back, so that loom sees where the use of the value ends.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        self.latch.held.store(false, kind::Ordering::Release);
    }
}

/// Where the C library says whether this is the process's only thread (glibc's `__libc_single_threaded`, "Single-Threaded Optimizations" in
/// its manual). A latch then takes no exchange, which is most of its price.
///
/// # Safety
///
/// What is there is not zero only while no other thread is, and it is there for the life of the process.
#[cfg(not(loom))]
pub unsafe fn ask_whether_alone(at: *mut u8) {
    kind::ALONE.store(at, kind::Ordering::Release);
}

#[cfg(not(loom))]
mod kind {
    pub use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::atomic::{AtomicPtr, AtomicU8};

    /// Null where nobody says.
    pub static ALONE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

    #[inline]
    pub fn is_alone() -> bool {
        let at = ALONE.load(Ordering::Relaxed);
        // SAFETY: the promise of `ask_whether_alone`; it is set by who begins a thread, before that runs.
        !at.is_null() && unsafe { AtomicU8::from_ptr(at) }.load(Ordering::Relaxed) != 0
    }

    pub type Pointer<T> = *mut T;

    #[derive(Debug)]
    pub struct Cell<T>(std::cell::UnsafeCell<T>);

    impl<T> Cell<T> {
        pub fn new(value: T) -> Self {
            Cell(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub fn get(&self) -> Pointer<T> {
            self.0.get()
        }
    }

    #[inline]
    #[allow(clippy::mut_from_ref)] // the pointer stands for the right to the value
    pub unsafe fn value<T>(pointer: &Pointer<T>) -> &mut T {
        // SAFETY: the caller holds the latch.
        unsafe { &mut **pointer }
    }

    pub fn pause(looks: u32) {
        match looks {
            0..64 => std::hint::spin_loop(),
            64..256 => std::thread::yield_now(),
            // Whoever holds it may be of a lower priority: it has to get a processor.
            _ => std::thread::sleep(std::time::Duration::from_micros(50)),
        }
    }
}

/// Under `--cfg loom`, loom's, which try every order of steps.
#[cfg(loom)]
mod kind {
    pub use loom::cell::{MutPtr as Pointer, UnsafeCell};
    pub use loom::sync::atomic::{AtomicBool, Ordering};

    pub fn is_alone() -> bool {
        false
    }

    #[derive(Debug)]
    pub struct Cell<T>(UnsafeCell<T>);

    impl<T> Cell<T> {
        pub fn new(value: T) -> Self {
            Cell(UnsafeCell::new(value))
        }

        pub fn get(&self) -> Pointer<T> {
            self.0.get_mut()
        }
    }

    #[allow(clippy::mut_from_ref)]
    pub unsafe fn value<T>(pointer: &Pointer<T>) -> &mut T {
        // SAFETY: the caller holds the latch.
        unsafe { pointer.deref() }
    }

    pub fn pause(_: u32) {
        loom::thread::yield_now();
    }
}
