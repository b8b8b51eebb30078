//! A fork takes a server's sockets along, and not its thread: what listens is closed in the child, where nobody would ever
//! accept, and nobody is forked while a server's thread holds a lock of what it looks at.

use std::cell::RefCell;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// The sockets that listen. Whoever holds this keeps forks away.
static LISTENING: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

fn listening() -> MutexGuard<'static, Vec<RawFd>> {
    LISTENING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what takes locks of the process's (breakers, ledgers) on a server's thread: a fork waits until it is through, so that
/// the child finds none of them taken. It has to be short, and must not fork.
pub fn apart<T>(look: impl FnOnce() -> T) -> T {
    let _nobody_forks = listening();
    look()
}

/// A socket that listens, until it is ended.
pub struct Listening(RawFd);

impl Listening {
    /// Notes that this one does.
    pub fn at(listener: &TcpListener) -> Listening {
        static HANDLERS: Once = Once::new();
        // SAFETY: the handlers live as long as the process. They fail only for want of memory.
        HANDLERS.call_once(|| _ = unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) });
        listening().push(listener.as_raw_fd());
        Listening(listener.as_raw_fd())
    }

    /// It is about to be closed. Of a parent's sockets none is noted in a child.
    pub fn end(&self) {
        listening().retain(|each| *each != self.0);
    }
}

thread_local! {
    // From before the fork to after it.
    static FORKING: RefCell<Option<MutexGuard<'static, Vec<RawFd>>>> = const { RefCell::new(None) };
}

extern "C" fn before() {
    // A thread that forks in its very end does so unguarded: it could not give the lock back.
    let _ = FORKING.try_with(|forking| *forking.borrow_mut() = Some(listening()));
}

extern "C" fn after_in_parent() {
    let _ = FORKING.try_with(|forking| forking.borrow_mut().take());
}

extern "C" fn after_in_child() {
    let _ = FORKING.try_with(|forking| {
        if let Some(mut parents) = forking.borrow_mut().take() {
            for socket in parents.drain(..) {
                // SAFETY: whoever owned it is a thread that is not here, and so are those who could use it.
                _ = unsafe { libc::close(socket) };
            }
        }
    });
}
