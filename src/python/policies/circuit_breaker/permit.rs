//! Permits in Python's hands: taken by `acquire`, or by entering the breaker as a context manager.

use super::CircuitBreaker;
use crate::drive::clock;
use crate::engine::Verdict;
use crate::policies::circuit_breaker::{self as core, Evidence};
use crate::python::bare;
use crate::python::convert;
use crate::python::errors::ours;
use crate::python::judge::Happened;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::{Mutex, MutexGuard};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The right to make one call, taken by hand from `CircuitBreaker.acquire()` or `try_acquire()`.
///
/// Say once how the call came out: `on_success()`, `on_failure(exception)`, or `release()` if it told nothing. What is
/// said first counts; what is said later changes nothing, and neither does anything said after the circuit has changed
/// its state. A permit dropped without a word is released.
///
/// As a context manager (`with` or `async with`) it judges what the block raises by the breaker's `expected_exception`
/// and `ignore`; a block that ends well is a success, an interrupt or a cancellation tells nothing.
#[pyclass(frozen, module = "seawall", weakref)]
pub struct Permit {
    breaker: Py<CircuitBreaker>,
    permit: Mutex<Option<core::Permit>>,
    probe: bool,
}

impl Permit {
    pub fn new(breaker: &Bound<'_, CircuitBreaker>, permit: core::Permit) -> Permit {
        Permit { breaker: breaker.clone().unbind(), permit: Mutex::new(Some(permit)), probe: permit.is_probe() }
    }

    fn settle(&self, py: Python<'_>, evidence: Evidence) -> PyResult<()> {
        match lock(&self.permit).take() {
            Some(permit) => CircuitBreaker::settle(self.breaker.bind(py), permit, evidence),
            None => Ok(()),
        }
    }
}

#[pymethods]
impl Permit {
    /// The breaker that gave it.
    #[getter]
    fn breaker(&self, py: Python<'_>) -> Py<CircuitBreaker> {
        self.breaker.clone_ref(py)
    }

    /// Whether it was given, in a half open circuit, to find out if the callee works again.
    #[getter]
    fn probe(&self) -> bool {
        self.probe
    }

    /// The call worked.
    fn on_success(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py, Evidence::Success)
    }

    /// The call failed. The exception, if there is one, is kept as `last_failure`; it is not judged.
    #[pyo3(signature = (exception=None))]
    fn on_failure(&self, py: Python<'_>, exception: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let exception = exception.filter(|e| !e.is_none());
        exception.as_ref().map(|error| convert::exception("exception", error)).transpose()?;
        let Some(permit) = lock(&self.permit).take() else { return Ok(()) };
        if let Some(error) = exception {
            self.breaker.get().remember(py, error.unbind());
        }
        CircuitBreaker::settle(self.breaker.bind(py), permit, Evidence::Failure)
    }

    /// The call told nothing: it was cancelled, or not made at all.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py, Evidence::None)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (_kind=None, value=None, _traceback=None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: Option<Bound<'_, PyAny>>,
        value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let Some(permit) = lock(&self.permit).take() else { return Ok(false) };
        CircuitBreaker::left(self.breaker.bind(py), permit, value.as_ref())?;
        Ok(false)
    }

    fn __aenter__(slf: Bound<'_, Self>) -> Ready {
        Ready::with(slf.into_any().unbind())
    }

    #[pyo3(signature = (kind=None, value=None, traceback=None))]
    fn __aexit__(
        &self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyAny>>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Ready> {
        self.__exit__(py, kind, value, traceback)?;
        Ok(Ready::nothing())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let settled = if lock(&self.permit).is_some() { "out" } else { "settled" };
        format!("<Permit of {}, {settled}>", self.breaker.bind(py).get().__repr__(py))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // No evidence never changes the state, so there is nobody to tell.
        if let Some(permit) = self.permit.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            self.breaker.get().core.settle(permit, Evidence::None, clock::now(), &mut || 0.0);
        }
    }
}

/// An awaitable that is done.
#[pyclass(frozen, module = "seawall._seawall")]
pub struct Ready(Mutex<Option<Py<PyAny>>>);

impl Ready {
    pub fn nothing() -> Ready {
        Ready(Mutex::new(None))
    }

    pub fn with(value: Py<PyAny>) -> Ready {
        Ready(Mutex::new(Some(value)))
    }
}

#[pymethods]
impl Ready {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let value = lock(&self.0).take().unwrap_or_else(|| py.None());
        Err(PyStopIteration::new_err((value,)))
    }

    fn close(&self) {}
}

/// One entrance into a breaker's `with` block. A frame leaves the blocks that it has entered, whatever thread, task or
/// generator runs it; where enter and exit are called from different frames (`ExitStack`, a subclass), the context says
/// which entrance is meant.
#[pyclass(frozen, module = "seawall._seawall")]
pub struct Entrance {
    breaker: usize,
    inside: Mutex<Option<Inside>>,
    /// The entrance before it in the same context.
    outer: Option<Py<Entrance>>,
}

struct Inside {
    permit: core::Permit,
    /// Held until it is left, so that no other frame can take its address; `None` without one.
    frame: Option<Py<PyAny>>,
}

impl Entrance {
    fn is_over(&self) -> bool {
        lock(&self.inside).is_none()
    }

    fn is_in(&self, frame: &Option<Py<PyAny>>) -> bool {
        match (lock(&self.inside).as_ref().and_then(|inside| inside.frame.as_ref()), frame) {
            (Some(entered), Some(here)) => entered.is(here),
            _ => false,
        }
    }
}

fn frame(py: Python<'_>) -> Option<Py<PyAny>> {
    // SAFETY: the interpreter is attached; the reference is borrowed from the running frame and counted here at once.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, pyo3::ffi::PyEval_GetFrame().cast()) }.map(Bound::unbind)
}

fn variable(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static ENTERED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &ENTERED, "seawall._circuits", "entered")
}

/// The newest entrance of this context that is not over.
fn innermost(variable: &Bound<'_, PyAny>) -> PyResult<Option<Py<Entrance>>> {
    let py = variable.py();
    let mut at: Option<Py<Entrance>> = variable.call_method0("get")?.extract()?;
    while let Some(entrance) = &at
        && entrance.get().is_over()
    {
        at = entrance.get().outer.as_ref().map(|e| e.clone_ref(py));
    }
    Ok(at)
}

/// The entrances of one breaker that are not over.
#[derive(Default)]
pub struct Entrances(Mutex<Vec<Py<Entrance>>>);

impl Entrances {
    pub fn enter(&self, py: Python<'_>, breaker: usize, permit: core::Permit) -> PyResult<()> {
        let variable = variable(py)?;
        let outer = innermost(&variable)?;
        let entrance = Py::new(py, Entrance { breaker, inside: Mutex::new(Some(Inside { permit, frame: frame(py) })), outer })?;
        variable.call_method1("set", (&entrance,))?;
        lock(&self.0).push(entrance);
        Ok(())
    }

    pub fn leave(&self, py: Python<'_>, breaker: usize) -> PyResult<core::Permit> {
        let variable = variable(py)?;
        let here = frame(py);
        let meant = lock(&self.0).iter().rfind(|e| e.get().is_in(&here)).map(|e| e.clone_ref(py));
        let meant = match meant {
            Some(entrance) => Some(entrance),
            None => {
                let mut at = innermost(&variable)?;
                while let Some(entrance) = &at
                    && (entrance.get().breaker != breaker || entrance.get().is_over())
                {
                    at = entrance.get().outer.as_ref().map(|e| e.clone_ref(py));
                }
                at
            }
        };
        let entrance = meant.ok_or_else(|| PyRuntimeError::new_err("the breaker was left without having been entered here"))?;
        let inside = lock(&entrance.get().inside).take();
        lock(&self.0).retain(|e| !e.is(&entrance));
        variable.call_method1("set", (innermost(&variable)?,))?;
        inside.map(|inside| inside.permit).ok_or_else(|| PyRuntimeError::new_err("the breaker was left twice"))
    }
}

/// What a block that raised `value` tells.
pub fn evidence(breaker: &Bound<'_, CircuitBreaker>, value: Option<&Bound<'_, PyAny>>) -> PyResult<Evidence> {
    let this = breaker.get();
    match value.filter(|v| !v.is_none()) {
        None => Ok(Evidence::Success),
        // An interrupt is no outcome.
        Some(error) if bare::is_interrupt(error)? => Ok(Evidence::None),
        Some(error) => match this.rules.judge(&Happened::Error(error))? {
            Verdict::Failure { .. } => {
                this.remember(error.py(), error.clone().unbind());
                Ok(Evidence::Failure)
            }
            _ => Ok(Evidence::None),
        },
    }
}
