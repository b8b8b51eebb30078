//! Functions of the user's around the attempts of a retry, each called with a retry state, as in tenacity.

use super::errors::configuration;
use super::event_loop::is_awaitable;
use super::log;
use crate::engine::Event;
use crate::events;
use crate::policies::retry::reason;
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::time::Duration;

/// The hooks of one retry.
pub struct Hooks {
    pub before: Option<Py<PyAny>>,
    pub after: Option<Py<PyAny>>,
    pub before_sleep: Option<Py<PyAny>>,
}

impl Hooks {
    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.before, &self.after, &self.before_sleep].into_iter().try_for_each(|hook| visit.call(hook))
    }

    /// Calls the hooks that an event is for, by `call(hook, wait)`.
    pub fn told<E>(&self, event: &Event, mut call: impl FnMut(&Py<PyAny>, Option<Duration>) -> Result<(), E>) -> Result<(), E> {
        let mut each = |hook: &Option<Py<PyAny>>, wait| hook.as_ref().map_or(Ok(()), |hook| call(hook, wait));
        match event.name {
            events::ATTEMPT_STARTED => each(&self.before, None),
            events::RETRY_SCHEDULED => {
                each(&self.after, None)?;
                each(&self.before_sleep, Some(event.span))
            }
            events::RETRY_EXHAUSTED if event.reason != reason::FINAL => each(&self.after, None),
            _ => Ok(()),
        }
    }
}

/// Calls a hook; what it gives to await, where that can be done. Its errors are logged, interrupts passed on.
pub fn call<'py>(
    py: Python<'py>,
    hook: &Py<PyAny>,
    state: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    awaits: bool,
) -> PyResult<Option<Py<PyAny>>> {
    let hook = hook.bind(py);
    match state().and_then(|state| hook.call1((state,))) {
        Ok(given) if !is_awaitable(&given) => Ok(None),
        Ok(given) if awaits => Ok(Some(given.unbind())),
        Ok(given) => log::hook_failed(py, hook, &unawaited("the hook", &given)).map(|()| None),
        Err(error) => failed(py, hook, error).map(|()| None),
    }
}

/// What becomes of an error that a hook raised.
pub fn failed(py: Python<'_>, hook: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
    if error.is_instance_of::<PyException>(py) { log::hook_failed(py, hook, &error) } else { Err(error) }
}

/// The error of something to await where nobody can; it is closed, so that nobody is warned of it besides.
pub fn unawaited(what: &str, given: &Bound<'_, PyAny>) -> PyErr {
    if let Ok(close) = given.getattr("close") {
        // It has not begun: there is nothing in it that could fail.
        let _ = close.call0();
    }
    let message = format!("{what} gave something to await, and the call is not asynchronous: nobody can await it");
    configuration(given.py(), &message)
}
