//! Signals are the program's: a thread of ours takes none, so that it interrupts whom the program means it for, and one
//! that the program waits for with `sigwait` ends nobody.

use std::mem::zeroed;
use std::ptr::null_mut;

/// What a thread does to itself, and what a profiler counts by.
const OWN: [i32; 8] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS, libc::SIGPROF];

fn with_mask<T>(blocked: bool, body: impl FnOnce() -> T) -> T {
    // SAFETY: zeroes are a valid set for these calls to fill in, and all pointers are to such.
    let before = unsafe {
        let (mut set, mut before): (libc::sigset_t, libc::sigset_t) = (zeroed(), zeroed());
        libc::sigemptyset(&mut set);
        if blocked {
            libc::sigfillset(&mut set);
            OWN.iter().for_each(|signal| _ = libc::sigdelset(&mut set, *signal));
        }
        libc::pthread_sigmask(if blocked { libc::SIG_BLOCK } else { libc::SIG_SETMASK }, &set, &mut before);
        before
    };
    let result = body();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, null_mut()) };
    result
}

/// Begins a thread that takes none, and whose own threads take none.
pub fn away<T>(begin: impl FnOnce() -> T) -> T {
    with_mask(true, begin)
}

/// Runs what belongs to the program on such a thread: what it starts takes signals as any other.
pub fn back<T>(body: impl FnOnce() -> T) -> T {
    with_mask(false, body)
}
