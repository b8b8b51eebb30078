//! Waiting for another call's signal: on the caller's thread, and in a task of asyncio's or trio's.

use super::errors::ours;
use super::event_loop;
use super::llm::bridge::{self, Sender};
use super::virtual_time;
use crate::drive::inline::Wait;
use crate::drive::{clock, pause};
use crate::engine::{Instant, Signal};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

/// Where time is moved by hand, other threads work on while it stands: so long somebody is waited for who may give the signal,
/// before the limit of that wait is taken to have come.
const GRACE: Duration = Duration::from_secs(1);
/// So long is slept between looks at a clock that a test moves.
const LOOK: Duration = Duration::from_millis(5);

/// Waits on this thread as it is said, with the GIL released; gives what time it is then. A signal's exception ends it.
pub fn listen(py: Python<'_>, signal: &Signal, wait: &Wait) -> PyResult<Instant> {
    let parker = bridge::parker()?;
    let waker = Waker::from(parker.clone());
    let mut stood = Duration::ZERO;
    let now = loop {
        py.check_signals()?;
        let now = clock::now();
        if now >= wait.until || signal.listen(&waker) {
            break now;
        }
        let left = now.until(wait.until).unwrap_or(Duration::MAX);
        if !clock::is_by_hand() {
            // The place to park counts in milliseconds.
            let sleep = || if left < Duration::from_millis(1) { pause::pause(left) } else { parker.park_for(left) };
            py.detach(sleep);
            continue;
        }
        if wait.until != Instant::NEVER && (wait.passes_time || stood >= GRACE) {
            virtual_time::advance_to(py, wait.until)?;
        } else {
            py.detach(|| parker.park_for(LOOK));
            stood += LOOK;
        }
    };
    drop(waker);
    bridge::put_back(parker);
    Ok(now)
}

type Hung = Mutex<Option<(Py<PyAny>, Sender)>>;

fn lock(hung: &Hung) -> MutexGuard<'_, Option<(Py<PyAny>, Sender)>> {
    hung.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a task waits at: a future of its loop, completed by the signal. Whoever gives that holds it weakly, so that the garbage
/// collector sees all of it from the task.
pub struct Bell(Arc<Hung>);

/// The rope that is handed out.
struct Rope(Weak<Hung>);

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        let hung = self.0.upgrade().and_then(|hung| lock(&hung).take());
        if let Some((future, sender)) = hung {
            drop(sender.complete(future, |py| Ok(py.None())));
        }
    }
}

impl Bell {
    /// A bell for the running task, and what it awaits; `None` if the signal was given already.
    pub fn hang<'py>(py: Python<'py>, signal: &Signal, wait: &Wait) -> PyResult<Option<(Bell, Bound<'py, PyAny>)>> {
        static WAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static WAIT_IN_TRIO: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (future, sender) = bridge::future(py)?;
        let bell = Bell(Arc::new(Mutex::new(Some((future.clone_ref(py), sender)))));
        if signal.listen(&Waker::from(Arc::new(Rope(Arc::downgrade(&bell.0))))) {
            return Ok(None);
        }
        let until = (wait.until != Instant::NEVER).then_some(wait.until.0);
        let (cell, name) = if event_loop::trio(py)?.is_some() { (&WAIT_IN_TRIO, "wait_in_trio") } else { (&WAIT, "wait") };
        let coroutine = ours(py, cell, "seawall._signals", name)?.call1((future, until, wait.passes_time))?;
        Ok(Some((bell, coroutine.call_method0("__await__")?)))
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.try_lock().as_deref() {
            Ok(Some((future, _))) => visit.call(future),
            _ => Ok(()),
        }
    }
}
