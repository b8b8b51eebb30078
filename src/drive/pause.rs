//! Waiting on the caller's thread so that a signal ends it at once.

use std::time::Duration;

/// A signal that came just before the sleep, or to another thread, is noticed this late at the most.
#[cfg(unix)]
const SLICE: Duration = Duration::from_millis(50);

/// Sleeps for `span`, a slice, or until a signal arrives, whichever is first.
#[cfg(unix)]
pub fn pause(span: Duration) {
    let span = span.min(SLICE);
    let wanted = libc::timespec {
        tv_sec: libc::time_t::try_from(span.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(span.subsec_nanos() as i32),
    };
    // SAFETY: both pointers are valid for the call; the remainder is not wanted. EINTR is the point.
    unsafe { libc::nanosleep(&wanted, std::ptr::null_mut()) };
}

/// Sleeps in slices, since no signal ends a sleep here.
#[cfg(not(unix))]
pub fn pause(span: Duration) {
    std::thread::sleep(span.min(Duration::from_millis(10)));
}
