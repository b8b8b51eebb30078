//! Which process this is, known without asking the kernel: what a fork has copied is asked for it at every piece of a stream.

use std::mem::ManuallyDrop;

/// A process, as told apart from those that it was forked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u32);

impl Process {
    /// This one.
    #[cfg(unix)]
    pub fn here() -> Process {
        use std::sync::Once;
        use std::sync::atomic::{AtomicU32, Ordering};

        static FORKS: AtomicU32 = AtomicU32::new(0);
        static HANDLER: Once = Once::new();
        extern "C" fn in_child() {
            FORKS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the handler lives as long as the process. It is refused only for want of memory.
        HANDLER.call_once(|| _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) });
        Process(FORKS.load(Ordering::Relaxed))
    }

    /// This one: there is no other where nothing forks.
    #[cfg(not(unix))]
    pub fn here() -> Process {
        Process(0)
    }

    /// Whether it is this one.
    pub fn is_here(self) -> bool {
        self == Process::here()
    }
}

/// What is its process's alone. A forked child has a copy of it, which may have been in the middle of something: it neither uses nor drops that.
#[derive(Debug)]
pub struct Own<T> {
    process: Process,
    what: ManuallyDrop<T>,
}

impl<T> Own<T> {
    /// This process's.
    pub fn new(what: T) -> Own<T> {
        Own { process: Process::here(), what: ManuallyDrop::new(what) }
    }

    /// It, if it is this process's.
    pub fn here(&self) -> Option<&T> {
        self.process.is_here().then_some(&*self.what)
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.process.is_here() {
            // SAFETY: nobody has it after this.
            unsafe { ManuallyDrop::drop(&mut self.what) };
        }
    }
}
