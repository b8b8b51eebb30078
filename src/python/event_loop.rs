//! What the coroutine driver needs of asyncio: a sleep, an alarm, and what a cancellation looks like.

use super::errors::ours;
use super::virtual_time;
use crate::drive::clock;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn in_trio(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let modules = py.import("sys")?.getattr("modules")?;
    let Ok(trio) = modules.get_item("trio") else { return Ok(None) };
    Ok(trio.getattr("lowlevel")?.call_method0("in_trio_task")?.is_truthy()?.then_some(trio))
}

/// The iterator of a sleep on the running loop.
pub fn sleep(py: Python<'_>, span: Duration) -> PyResult<Bound<'_, PyAny>> {
    static SLEEP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let coroutine = match in_trio(py)? {
        Some(trio) if clock::is_by_hand() => {
            virtual_time::advance_to(py, clock::now().after(span))?;
            trio.getattr("lowlevel")?.call_method0("checkpoint")?
        }
        None if clock::is_by_hand() => virtual_time::sleep(py, span)?,
        Some(trio) => trio.call_method1("sleep", (span.as_secs_f64(),))?,
        None => ours(py, &SLEEP, "asyncio", "sleep")?.call1((span.as_secs_f64(),))?,
    };
    coroutine.call_method0("__await__")
}

/// Whether a value is a coroutine of an `async def`.
pub fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reads the type of a live object.
    unsafe { pyo3::ffi::PyCoro_CheckExact(value.as_ptr()) != 0 }
}

/// Whether a value is something to await.
pub fn is_awaitable(value: &Bound<'_, PyAny>) -> bool {
    is_coroutine(value) || matches!(value.get_type().getattr_opt(intern!(value.py(), "__await__")), Ok(Some(_)))
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
}

impl Timer {
    /// Rings after `span`, ending the wait for `future`.
    pub fn set(py: Python<'_>, span: Duration, future: &Py<PyAny>) -> PyResult<Timer> {
        static LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let alarm = Arc::new(Alarm { expired: AtomicBool::new(false), waiting_for: Mutex::new(Some(future.clone_ref(py))) });
        let event_loop = ours(py, &LOOP, "asyncio", "get_running_loop")?.call0()?;
        let ring = Ring(alarm.clone());
        let handle = if clock::is_by_hand() {
            virtual_time::call_later(&event_loop, span, Bound::new(py, ring)?.into_any())?
        } else {
            event_loop.call_method1("call_later", (span.as_secs_f64(), ring))?
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
