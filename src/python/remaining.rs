//! The deadline of the call around: a context variable that guarded calls with a limit set for what runs inside of them.
//!
//! It is set for as long as a frame of the guarded function runs, so that whoever awaits or iterates never sees it, and
//! what that function starts (calls, tasks, threads with its context) inherits it.

use crate::drive::clock;
use crate::engine::Instant;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether any call ever had a deadline: before that nobody has to look.
static EVER: AtomicBool = AtomicBool::new(false);

fn variable(py: Python<'_>) -> Option<*mut ffi::PyObject> {
    static VARIABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // SAFETY: a name that ends with a zero, and no default; the result is a new reference or null.
    let made =
        || unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContextVar_New(c"seawall_deadline".as_ptr(), null_mut())) }.map(Bound::unbind);
    VARIABLE.get_or_try_init(py, made).ok().map(Py::as_ptr)
}

/// By when the call around has to be over.
pub fn inherited(py: Python<'_>) -> Instant {
    if !EVER.load(Ordering::Relaxed) {
        return Instant::NEVER;
    }
    let Some(variable) = variable(py) else { return Instant::NEVER };
    let mut value = null_mut();
    // SAFETY: our own variable; the value is a new reference, or null where nothing was set.
    let found = unsafe {
        ffi::PyContextVar_Get(variable, null_mut(), &raw mut value);
        Bound::from_owned_ptr_or_opt(py, value)
    };
    found.and_then(|value| value.extract().ok()).map_or(Instant::NEVER, Instant)
}

/// Runs `body`, whose calls inherit the deadline. `body` may leave an exception set.
pub fn within<T>(py: Python<'_>, deadline: Instant, body: impl FnOnce() -> T) -> T {
    if deadline == Instant::NEVER {
        return body();
    }
    EVER.store(true, Ordering::Relaxed);
    let Some(variable) = variable(py) else { return body() };
    // SAFETY: our own variable and a number. References are given back by hand, for on the fast lane pyo3 would put that off.
    let token = unsafe {
        let number = ffi::PyLong_FromUnsignedLongLong(deadline.0);
        let token = if number.is_null() { null_mut() } else { ffi::PyContextVar_Set(variable, number) };
        ffi::Py_XDECREF(number);
        if token.is_null() {
            ffi::PyErr_Clear();
        }
        token
    };
    let given = body();
    if !token.is_null() {
        // SAFETY: set by this frame, in this context. An exception of the body has to be out of the way meanwhile.
        unsafe {
            let raised = PyErr::take(py);
            if ffi::PyContextVar_Reset(variable, token) < 0 {
                ffi::PyErr_Clear();
            }
            ffi::Py_DECREF(token);
            if let Some(raised) = raised {
                raised.restore(py);
            }
        }
    }
    given
}

/// Seconds left of the tightest time limit around the current call: of a `Timeout`, a `Retry(timeout=)` or a guard's
/// `deadline`, of this pipeline or of one around it. `None` outside of them; 0 when it has passed. Coroutines, tasks
/// and whatever else copies the context see it too; other threads only if they run in a copy of it.
#[pyfunction]
pub fn remaining(py: Python<'_>) -> Option<f64> {
    clock::now().until(inherited(py)).map(|span| span.as_secs_f64())
}
