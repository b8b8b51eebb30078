//! What a fork must not find in the middle of something: the thread that carries the calls stands still, between two
//! tasks and holding no lock, until the child is there. The child lets go of its parent's connections, so that closing
//! one closes it, and forgets the runtime, whose thread it does not have.

use super::runtime::{self, Live};
use std::cell::RefCell;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

/// A thread that does not come to a stand by then is stuck, and cannot be waited for.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(PartialEq)]
enum Phase {
    Runs,
    Asked,
    Stands,
}

/// Where a runtime's thread stands while its process is forked.
pub struct Gate {
    phase: Mutex<Phase>,
    changed: Condvar,
    called: Notify,
    /// Watched by the runtime's poll, and nothing comes: by it the child knows which poll was ours.
    marker: pipe::Receiver,
    _silent: pipe::Sender,
}

impl Gate {
    /// Made inside the runtime.
    pub fn new() -> std::io::Result<Arc<Gate>> {
        static HANDLERS: Once = Once::new();
        // SAFETY: the handlers live as long as the process. They fail only for want of memory.
        HANDLERS.call_once(|| _ = unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) });
        let (silent, marker) = pipe::pipe()?;
        let (phase, changed, called) = (Mutex::new(Phase::Runs), Condvar::new(), Notify::new());
        Ok(Arc::new(Gate { phase, changed, called, marker, _silent: silent }))
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the runtime's thread runs beside its calls, for ever.
    pub async fn attend(&self) {
        loop {
            self.called.notified().await;
            let mut phase = self.phase();
            if *phase == Phase::Asked {
                *phase = Phase::Stands;
                self.changed.notify_all();
            }
            let stands = |phase: &mut Phase| *phase == Phase::Stands;
            drop(self.changed.wait_while(phase, stands));
        }
    }

    fn stop(&self) {
        *self.phase() = Phase::Asked;
        self.called.notify_one();
        let asked = |phase: &mut Phase| *phase == Phase::Asked;
        drop(self.changed.wait_timeout_while(self.phase(), PATIENCE, asked));
    }

    fn go_on(&self) {
        *self.phase() = Phase::Runs;
        self.changed.notify_all();
    }
}

thread_local! {
    // From before the fork to after it: nobody makes a runtime meanwhile.
    static FORKING: RefCell<Option<MutexGuard<'static, Option<Live>>>> = const { RefCell::new(None) };
}

extern "C" fn before() {
    let live = runtime::live();
    if let Some(live) = &*live {
        live.gate.stop();
    }
    // A thread that forks in its very end does so unguarded.
    let _ = FORKING.try_with(|forking| *forking.borrow_mut() = Some(live));
}

fn held() -> Option<MutexGuard<'static, Option<Live>>> {
    FORKING.try_with(|forking| forking.borrow_mut().take()).ok().flatten()
}

extern "C" fn after_in_parent() {
    if let Some(live) = held()
        && let Some(live) = &*live
    {
        live.gate.go_on();
    }
}

extern "C" fn after_in_child() {
    if let Some(mut live) = held()
        && let Some(parents) = live.take()
    {
        let_go_of_sockets(parents.gate.marker.as_raw_fd());
        // Whatever its end does would be done on the parent's connections.
        std::mem::forget(parents);
    }
}

/// Puts nothing in the place of each socket that the poll with this marker watches: what still knows one by its number
/// finds no other file there.
#[cfg(target_os = "linux")]
fn let_go_of_sockets(marker: RawFd) {
    let Ok(nothing) = std::fs::File::open("/dev/null") else { return };
    for watched in watched_with(marker).into_iter().filter(|fd| is_socket(*fd)) {
        // SAFETY: both are open descriptors; the old one's owner is the parent's runtime, which nobody runs here.
        unsafe { libc::dup3(nothing.as_raw_fd(), watched, libc::O_CLOEXEC) };
    }
}

#[cfg(not(target_os = "linux"))]
fn let_go_of_sockets(_marker: RawFd) {}

#[cfg(target_os = "linux")]
fn watched_with(marker: RawFd) -> Vec<RawFd> {
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let polls = descriptors.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventpoll]"));
    let watched = polls.filter_map(|poll| {
        let info = std::fs::read_to_string(std::path::Path::new("/proc/self/fdinfo").join(poll.file_name())).ok()?;
        let targets = info.lines().filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok());
        let targets: Vec<RawFd> = targets.collect();
        targets.contains(&marker).then_some(targets)
    });
    watched.flatten().collect()
}

#[cfg(target_os = "linux")]
fn is_socket(fd: RawFd) -> bool {
    // SAFETY: zeroes are a valid stat, which the call fills in.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &mut status) == 0 && status.st_mode & libc::S_IFMT == libc::S_IFSOCK
    }
}
