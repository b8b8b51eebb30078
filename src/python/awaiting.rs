//! Awaitables and asynchronous iterators, as the interpreter drives them.

use super::coroutine::Coroutine;
use super::event_loop;
use super::running::Turn;
use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use std::ptr::null_mut;

/// What the event loop hands in.
pub enum Resume {
    Send(Py<PyAny>),
    Throw(PyErr),
}

/// What an awaitable is driven by: itself if it is a coroutine, else its iterator; `None` if the value is none.
pub fn awaitable<'py>(value: &Bound<'py, PyAny>) -> Option<PyResult<Bound<'py, PyAny>>> {
    if value.is_exact_instance_of::<Coroutine>() || event_loop::is_coroutine(value) || event_loop::is_marked(value) {
        return Some(Ok(value.clone()));
    }
    // SAFETY: reads the slots of a live object's type, and calls the one for this with it.
    unsafe {
        let methods = (*ffi::Py_TYPE(value.as_ptr())).tp_as_async;
        let method = methods.as_ref().and_then(|methods| methods.am_await)?;
        Some(Bound::from_owned_ptr_or_err(value.py(), method(value.as_ptr())))
    }
}

/// What an asynchronous iterator's next item is driven by.
pub fn anext<'py>(source: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: reads the slots of a live object's type, and calls the one for this with it.
    let next = unsafe {
        let methods = (*ffi::Py_TYPE(source.as_ptr())).tp_as_async;
        match methods.as_ref().and_then(|methods| methods.am_anext) {
            Some(anext) => Bound::from_owned_ptr_or_err(source.py(), anext(source.as_ptr()))?,
            None => source.call_method0(intern!(source.py(), "__anext__"))?,
        }
    };
    // SAFETY: reads the type of a live object. What the interpreter's own generators give is its own iterator.
    if unsafe { ffi::PyAsyncGen_CheckExact(source.as_ptr()) } != 0 {
        return Ok(next);
    }
    awaitable(&next).unwrap_or(Ok(next))
}

/// Sends a value into what is awaited.
pub fn send(awaitable: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Turn> {
    let py = awaitable.py();
    let mut result = null_mut();
    // SAFETY: both are live; the result is a new reference, or null with the exception set.
    unsafe {
        match ffi::PyIter_Send(awaitable.as_ptr(), value.as_ptr(), &raw mut result) {
            ffi::PySendResult::PYGEN_NEXT => Ok(Turn::Yield(Bound::from_owned_ptr(py, result).unbind())),
            ffi::PySendResult::PYGEN_RETURN => Ok(Turn::Return(Bound::from_owned_ptr(py, result).unbind())),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

/// Sends a value in, or throws an exception.
pub fn advance(awaitable: &Bound<'_, PyAny>, input: Resume) -> PyResult<Turn> {
    let py = awaitable.py();
    let error = match input {
        Resume::Send(value) => return send(awaitable, value.bind(py)),
        Resume::Throw(error) => error,
    };
    let Ok(throw) = awaitable.getattr(intern!(py, "throw")) else { return Err(error) };
    match throw.call1((error.into_value(py),)) {
        Ok(value) => Ok(Turn::Yield(value.unbind())),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(Turn::Return(error.value(py).getattr("value")?.unbind())),
        Err(error) => Err(error),
    }
}
