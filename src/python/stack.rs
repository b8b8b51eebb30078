//! How much of the thread's stack is left. A guarded function that calls itself without end is stopped with an error, as
//! without a guard; the interpreter's own limit counts its frames and knows nothing of ours.

use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls stop so far before the end: what a call and the functions behind its policies may need.
const RESERVE: usize = 256 * 1024;

thread_local! {
    /// The lowest address of this thread's stack and the reserve that begins there; zeros until that is known.
    static STACK: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Where the main thread's stack is safe, and how much of it: it is there as long as the process, so that nobody else can
/// be on it, and looking here is cheaper than asking whose thread this is. Zeros until the main thread has asked.
static MAIN_FROM: AtomicUsize = AtomicUsize::new(0);
static MAIN_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Whether a further call would reach into the reserve.
#[inline]
pub fn is_used_up() -> bool {
    let here = 0_u8;
    let here = (&raw const here).addr();
    // The size is published last; before that nothing is safe.
    let size = MAIN_SIZE.load(Ordering::Acquire);
    here.wrapping_sub(MAIN_FROM.load(Ordering::Relaxed)) >= size && is_used_up_in_this_thread(here)
}

fn is_used_up_in_this_thread(here: usize) -> bool {
    let (lowest, reserve) = STACK.get();
    // Outside of the thread's own stack, as a fiber's is, nothing is known.
    if lowest == 0 { is_used_up_at(here) } else { here.wrapping_sub(lowest) < reserve }
}

#[cold]
fn is_used_up_at(here: usize) -> bool {
    let (lowest, size) = of_this_thread().filter(|(lowest, _)| *lowest != 0).unwrap_or((1, 0));
    let reserve = RESERVE.min(size / 4);
    STACK.set((lowest, reserve));
    if is_main() {
        MAIN_FROM.store(lowest + reserve, Ordering::Relaxed);
        MAIN_SIZE.store(size - reserve, Ordering::Release);
    }
    here.wrapping_sub(lowest) < reserve
}

/// What a call that may not be made raises.
#[cold]
pub fn used_up() -> PyErr {
    PyRecursionError::new_err("maximum recursion depth exceeded: guarded calls have used the thread's stack up")
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_main() -> bool {
    // SAFETY: both only ask.
    unsafe { libc::gettid() == libc::getpid() }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_main() -> bool {
    false
}

/// The lowest address and the size of this thread's stack. musl tells of the main thread's what is in use, not what may be.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(target_env = "musl")))]
fn of_this_thread() -> Option<(usize, usize)> {
    let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are filled before they are read, and given back once.
    unsafe {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let found = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        (found == 0).then_some((lowest.addr(), size))
    }
}

#[cfg(target_vendor = "apple")]
fn of_this_thread() -> Option<(usize, usize)> {
    // SAFETY: asks about the thread that asks.
    let (highest, size) =
        unsafe { (libc::pthread_get_stackaddr_np(libc::pthread_self()), libc::pthread_get_stacksize_np(libc::pthread_self())) };
    Some((highest.addr().checked_sub(size)?, size))
}

#[cfg(not(any(all(any(target_os = "linux", target_os = "android"), not(target_env = "musl")), target_vendor = "apple")))]
fn of_this_thread() -> Option<(usize, usize)> {
    None
}
