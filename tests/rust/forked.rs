//! A child of this process, for tests of what it finds.

/// Forks; the child ends with what `child` gives. Of one that a signal ended, its number below zero.
pub fn forked(child: impl FnOnce() -> i32) -> i32 {
    ended(begun(child))
}

/// The number of a child that does this and ends with what it gives.
pub fn begun(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls nothing but `child` and ends at once.
    match unsafe { libc::fork() } {
        0 => unsafe { libc::_exit(child()) },
        child => child,
    }
}

/// How that child ends.
pub fn ended(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: waits for a child of ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}
