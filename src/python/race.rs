//! Attempts of one call that run beside each other: each in a task, or on a thread, of its own. Whoever drives the call hears of
//! their ends by the execution's signal.

use super::errors::ours;
use super::generator;
use super::guarded;
use super::railed;
use super::sdk_stream::Desk;
use crate::engine::{CallId, Signal};
use pyo3::exceptions::PyBaseException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How an attempt came out.
pub struct Landed {
    pub call: CallId,
    /// What it gave: of one whose first item was asked for, that.
    pub result: PyResult<Py<PyAny>>,
    /// Where the further items are.
    pub source: Option<Py<PyAny>>,
}

#[derive(Default)]
struct Held {
    /// Those that somebody waits for.
    wanted: Vec<CallId>,
    landed: VecDeque<Landed>,
}

struct Shared {
    signal: Arc<Signal>,
    held: Mutex<Held>,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What runs. Dropped, nobody hears of it any more; what can be stopped has to be stopped before.
pub struct Race {
    shared: Arc<Shared>,
    /// What stops each; nothing stops a thread.
    runners: Vec<(CallId, Option<Py<PyAny>>)>,
}

/// What items pass: the desk that looks after them, or guardrails.
type Passed<'a> = (Option<&'a Desk>, Option<Py<PyTuple>>);

/// A function's arguments.
pub struct Given<'a, 'py> {
    pub function: Bound<'py, PyAny>,
    pub args: Bound<'py, PyTuple>,
    pub kwargs: Option<&'a Bound<'py, PyDict>>,
}

impl Race {
    /// Nothing runs yet. `signal`: the execution's.
    pub fn new(signal: Arc<Signal>) -> Race {
        Race { shared: Arc::new(Shared { signal, held: Mutex::default() }), runners: Vec::with_capacity(2) }
    }

    /// What is given when one has ended.
    pub fn signal(&self) -> &Arc<Signal> {
        &self.shared.signal
    }

    /// Whether nothing runs.
    pub fn is_empty(&self) -> bool {
        self.runners.is_empty()
    }

    /// Whether that one runs.
    pub fn has(&self, call: CallId) -> bool {
        self.runners.iter().any(|(running, _)| *running == call)
    }

    fn finish(&self, py: Python<'_>, call: CallId, (desk, rails): Passed<'_>) -> PyResult<Py<Finish>> {
        self.shared.held().wanted.push(call);
        Py::new(py, Finish { race: Arc::downgrade(&self.shared), call, desk: desk.map(|desk| desk.clone_ref(py)), rails })
    }

    /// Awaits it, or the next item of `source`, in a task of its own, with a copy of this context.
    pub fn in_a_task(
        &mut self,
        py: Python<'_>,
        call: CallId,
        awaitable: Option<&Bound<'_, PyAny>>,
        source: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        static BEGIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let finish = self.finish(py, call, (None, None))?;
        let cancel = ours(py, &BEGIN, "seawall._races", "begin")?.call1((awaitable, finish, source))?;
        self.runners.push((call, Some(cancel.unbind())));
        Ok(())
    }

    /// Calls it on a thread of its own, in a copy of this context; `items`: what counts is the first item of what it gives.
    pub fn on_a_thread(&mut self, py: Python<'_>, call: CallId, given: Given<'_, '_>, items: bool, passed: Passed<'_>) -> PyResult<()> {
        static BESIDE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let finish = self.finish(py, call, passed)?;
        ours(py, &BESIDE, "seawall._threads", "beside")?.call1((given.function, given.args, given.kwargs, finish, items))?;
        self.runners.push((call, None));
        Ok(())
    }

    /// Asks for the first item of `source` on a thread of its own.
    pub fn first_item(&mut self, py: Python<'_>, call: CallId, source: &Bound<'_, PyAny>) -> PyResult<()> {
        static FIRST: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let finish = self.finish(py, call, (None, None))?;
        ours(py, &FIRST, "seawall._threads", "first_item")?.call1((source, finish))?;
        self.runners.push((call, None));
        Ok(())
    }

    /// The next one that has ended.
    pub fn take(&mut self) -> Option<Landed> {
        let landed = {
            let mut held = self.shared.held();
            let landed = held.landed.pop_front()?;
            held.wanted.retain(|call| *call != landed.call);
            landed
        };
        self.runners.retain(|(call, _)| *call != landed.call);
        Some(landed)
    }

    /// Gives one up: it is stopped where it can be, and its result is dropped when it comes.
    pub fn cancel(&mut self, py: Python<'_>, call: CallId) {
        let landed = {
            let mut held = self.shared.held();
            held.wanted.retain(|wanted| *wanted != call);
            let at = held.landed.iter().position(|landed| landed.call == call);
            at.and_then(|at| held.landed.remove(at))
        };
        if let Some(at) = self.runners.iter().position(|(running, _)| *running == call)
            && let (_, Some(cancel)) = self.runners.swap_remove(at)
            && let Err(error) = cancel.bind(py).call0()
        {
            error.write_unraisable(py, None);
        }
        if let Some(Landed { result: Ok(value), source, .. }) = landed {
            let open = source.or_else(|| guarded::has_to_run(value.bind(py)).map(|_| value));
            if let Some(Err(error)) = open.map(|open| dispose(py, &open)) {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Gives all up but that one; which they were.
    pub fn cancel_others(&mut self, py: Python<'_>, but: Option<CallId>) -> Vec<CallId> {
        let others: Vec<CallId> = self.runners.iter().map(|(call, _)| *call).filter(|call| Some(*call) != but).collect();
        others.iter().for_each(|call| self.cancel(py, *call));
        others
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.runners.iter().try_for_each(|(_, cancel)| visit.call(cancel))?;
        // Held for moments only: a busy lock is another thread's.
        let Ok(held) = self.shared.held.try_lock() else { return Ok(()) };
        held.landed.iter().try_for_each(|landed| {
            visit.call(&landed.source)?;
            match &landed.result {
                Ok(value) => visit.call(value),
                Err(_) => Ok(()),
            }
        })
    }
}

/// Closes what nobody will read.
fn dispose(py: Python<'_>, open: &Py<PyAny>) -> PyResult<()> {
    static DISPOSE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &DISPOSE, "seawall._races", "dispose")?.call1((open,)).map(drop)
}

/// What an attempt tells its end by, from its own task or thread. `True`: somebody waits for it.
#[pyclass(frozen, module = "seawall")]
pub struct Finish {
    race: Weak<Shared>,
    call: CallId,
    desk: Option<Desk>,
    rails: Option<Py<PyTuple>>,
}

#[pymethods]
impl Finish {
    #[pyo3(signature = (value, error=None, source=None))]
    fn __call__(&self, value: Py<PyAny>, error: Option<Bound<'_, PyBaseException>>, source: Option<Py<PyAny>>) -> bool {
        let Some(race) = self.race.upgrade() else { return false };
        let result = error.map_or(Ok(value), |error| Err(PyErr::from_value(error.into_any())));
        {
            let mut held = race.held();
            if !held.wanted.contains(&self.call) {
                return false;
            }
            held.landed.push_back(Landed { call: self.call, result, source });
        }
        race.signal.give();
        true
    }

    /// Whether a result has still to be run: then it has to be closed if nobody does.
    #[staticmethod]
    fn is_open(value: &Bound<'_, PyAny>) -> bool {
        guarded::has_to_run(value).is_some()
    }

    /// What the items of a result are taken from.
    fn items<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match &self.desk {
            Some(desk) => desk.open(value, self.rails.is_some()).map(|pieces| pieces.into_bound(value.py())),
            None => match &self.rails {
                Some(rails) => railed::screened(rails.bind(value.py()), &generator::items(value)?, false),
                None => generator::items(value),
            },
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.rails)?;
        self.desk.as_ref().map_or(Ok(()), |desk| desk.traverse(&visit))
    }
}
