//! What the coroutine driver needs of asyncio: a sleep, an alarm, and what a cancellation looks like.

use super::errors::ours;
use super::virtual_time;
use crate::drive::clock;
use crate::engine::Instant;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The module `trio`, if the caller is one of its tasks.
pub fn trio(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let modules = ours(py, &MODULES, "sys", "modules")?.cast_into::<PyDict>()?;
    let Some(trio) = modules.get_item(intern!(py, "trio"))? else { return Ok(None) };
    // Without it, it is still being imported.
    let Some(lowlevel) = trio.getattr_opt(intern!(py, "lowlevel"))? else { return Ok(None) };
    Ok(lowlevel.call_method0(intern!(py, "in_trio_task"))?.is_truthy()?.then_some(trio))
}

/// The iterator of a sleep on the running loop.
pub fn sleep(py: Python<'_>, until: Instant) -> PyResult<Bound<'_, PyAny>> {
    static SLEEP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let seconds = || until.since(clock::now()).as_secs_f64();
    let coroutine = match trio(py)? {
        Some(trio) if clock::is_by_hand() => {
            virtual_time::advance_to(py, until)?;
            trio.getattr("lowlevel")?.call_method0("checkpoint")?
        }
        None if clock::is_by_hand() => virtual_time::sleep(py, until)?,
        Some(trio) => trio.call_method1("sleep", (seconds(),))?,
        None => ours(py, &SLEEP, "asyncio", "sleep")?.call1((seconds(),))?,
    };
    coroutine.call_method0("__await__")
}

/// Whether a value is a coroutine of an `async def`.
pub fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reads the type of a live object.
    unsafe { pyo3::ffi::PyCoro_CheckExact(value.as_ptr()) != 0 }
}

/// Whether it is a generator of a function that `types.coroutine` has marked.
pub fn is_marked(value: &Bound<'_, PyAny>) -> bool {
    let flags = || -> PyResult<i32> { value.getattr(intern!(value.py(), "gi_code"))?.getattr(intern!(value.py(), "co_flags"))?.extract() };
    // SAFETY: reads the type of a live object.
    let is_generator = unsafe { pyo3::ffi::PyGen_CheckExact(value.as_ptr()) != 0 };
    is_generator && flags().is_ok_and(|flags| flags & pyo3::ffi::CO_ITERABLE_COROUTINE != 0)
}

/// Whether a value is something to await.
pub fn is_awaitable(value: &Bound<'_, PyAny>) -> bool {
    is_coroutine(value) || is_marked(value) || matches!(value.get_type().getattr_opt(intern!(value.py(), "__await__")), Ok(Some(_)))
}

fn cancelled_error(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static CANCELLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &CANCELLED, "asyncio", "CancelledError")
}

/// A fresh `CancelledError`.
pub fn cancellation(py: Python<'_>) -> PyResult<PyErr> {
    Ok(PyErr::from_value(cancelled_error(py)?.call0()?))
}

/// Whether an exception is asyncio's cancellation.
pub fn is_cancellation(py: Python<'_>, error: &PyErr) -> bool {
    cancelled_error(py).is_ok_and(|class| error.is_instance(py, &class))
}

/// How often the current task was asked to stop (Python 3.11 on; 0 before).
fn cancelling(py: Python<'_>) -> i64 {
    static CURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let count = || -> PyResult<i64> { ours(py, &CURRENT, "asyncio", "current_task")?.call0()?.call_method0("cancelling")?.extract() };
    count().unwrap_or(0)
}

struct Alarm {
    expired: AtomicBool,
    waiting_for: Mutex<Option<Py<PyAny>>>,
}

/// An alarm on the running loop that ends what the task is waiting for.
pub struct Timer {
    alarm: Arc<Alarm>,
    handle: Py<PyAny>,
    cancelling_before: i64,
}

/// The callback that the loop calls.
#[pyclass(frozen, module = "seawall")]
struct Ring(Arc<Alarm>);

#[pymethods]
impl Ring {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.0.expired.store(true, Ordering::Relaxed);
        let waiting_for = self.0.waiting_for.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(future) = waiting_for
            && let Ok(cancel) = future.bind(py).getattr("cancel")
        {
            cancel.call0()?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The timer holds this callback by its handle: what it waits for is told of once, here.
        match self.0.waiting_for.try_lock().as_deref() {
            Ok(waiting_for) => visit.call(waiting_for),
            Err(_) => Ok(()),
        }
    }
}

impl Timer {
    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.handle)
    }

    /// Rings at `until`, ending the wait for `future`.
    pub fn set(py: Python<'_>, until: Instant, future: &Py<PyAny>) -> PyResult<Timer> {
        static LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let alarm = Arc::new(Alarm { expired: AtomicBool::new(false), waiting_for: Mutex::new(Some(future.clone_ref(py))) });
        let event_loop = ours(py, &LOOP, "asyncio", "get_running_loop")?.call0()?;
        let ring = Ring(alarm.clone());
        let handle = if clock::is_by_hand() {
            virtual_time::call_at(&event_loop, until, Bound::new(py, ring)?.into_any())?
        } else {
            event_loop.call_method1("call_later", (until.since(clock::now()).as_secs_f64(), ring))?
        };
        Ok(Timer { alarm, handle: handle.unbind(), cancelling_before: cancelling(py) })
    }

    /// The task waits for something else now.
    pub fn waits_for(&self, py: Python<'_>, future: &Py<PyAny>) {
        let old = self.alarm.waiting_for.lock().unwrap_or_else(|p| p.into_inner()).replace(future.clone_ref(py));
        drop(old);
    }

    /// Whether it has rung.
    pub fn expired(&self) -> bool {
        self.alarm.expired.load(Ordering::Relaxed)
    }

    /// Whether somebody else asked the task to stop as well: that goes first.
    pub fn cancelled_from_outside(&self, py: Python<'_>) -> bool {
        cancelling(py) > self.cancelling_before
    }

    /// Takes the alarm back.
    pub fn cancel(&self, py: Python<'_>) {
        // A loop that is closed has no alarms left to take back.
        let _ = self.handle.bind(py).call_method0("cancel");
    }
}

/// A cancel scope of trio around one attempt, in the caller's own task. A cancellation from outside stays visible: trio
/// itself tells whose it is.
pub struct Scope(Py<PyAny>);

impl Scope {
    /// Ends what is awaited inside after `span`; `None` if the caller is no task of trio's.
    pub fn open(py: Python<'_>, span: Duration) -> PyResult<Option<Scope>> {
        let Some(trio) = trio(py)? else { return Ok(None) };
        let deadline = trio.call_method0(intern!(py, "current_time"))?.extract::<f64>()? + span.as_secs_f64();
        let scope = trio.getattr(intern!(py, "CancelScope"))?.call0()?;
        scope.setattr(intern!(py, "deadline"), deadline)?;
        scope.call_method0(intern!(py, "__enter__"))?;
        Ok(Some(Scope(scope.unbind())))
    }

    /// Leaves it with what came out; `None` if that was its own cancellation.
    pub fn close(self, py: Python<'_>, result: PyResult<Py<PyAny>>) -> Option<PyResult<Py<PyAny>>> {
        // A call that is closed when its loop is gone has no scope left to leave.
        if !trio(py).is_ok_and(|trio| trio.is_some()) {
            return Some(result);
        }
        let exit = |error: Option<&PyErr>| -> PyResult<bool> {
            let (kind, value) = (error.map(|e| e.get_type(py)), error.map(|e| e.value(py)));
            let traceback = error.and_then(|e| e.traceback(py));
            self.0.bind(py).call_method1(intern!(py, "__exit__"), (kind, value, traceback))?.is_truthy()
        };
        match result {
            Ok(value) => Some(exit(None).map(|_| value)),
            Err(error) => match exit(Some(&error)) {
                Ok(true) => None,
                Ok(false) => Some(Err(error)),
                Err(other) => Some(Err(other)),
            },
        }
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}
