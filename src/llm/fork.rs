//! What a fork must not find in the middle of something: the thread that carries the calls stands still, between two
//! tasks and holding no lock, until the child is there. The child forgets the runtime, whose thread it does not have.

use super::runtime::{self, Live};
use crate::sqlite;
use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;
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
}

impl Gate {
    pub fn new() -> Arc<Gate> {
        static HANDLERS: Once = Once::new();
        // Before ours, so that its turn at a fork is after: the runtime's thread may have to wait for whoever is inside SQLite.
        sqlite::attend_forks();
        // SAFETY: the handlers live as long as the process. They fail only for want of memory.
        HANDLERS.call_once(|| _ = unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) });
        Arc::new(Gate { phase: Mutex::new(Phase::Runs), changed: Condvar::new(), called: Notify::new() })
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
    // A thread that forks in its very end does so unguarded: it could not tell the other to go on.
    let _ = FORKING.try_with(|forking| {
        let live = runtime::live();
        if let Some(live) = &*live {
            live.gate.stop();
        }
        *forking.borrow_mut() = Some(live);
    });
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
        // Whatever its end does would be done on the parent's connections.
        std::mem::forget(parents);
    }
}
