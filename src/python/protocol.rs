//! What coroutines, asynchronous items and a stream's pieces are to the interpreter: objects that a value is sent into.

use super::running::Turn;
use super::slots;
use pyo3::PyClass;
use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr::null_mut;

/// Something that can be awaited.
pub trait Awaitable: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync {
    /// One send. Called by slots too, where pyo3 does not know that the interpreter is attached: what lets a reference go
    /// attaches first.
    fn send_value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Turn>;
}

fn sent<T: Awaitable>(object: *mut ffi::PyObject, value: *mut ffi::PyObject) -> PyResult<Turn> {
    // SAFETY: the interpreter calls these slots with its lock held, with instances of their type and live values.
    let (py, awaitable) = unsafe { (Python::assume_attached(), slots::contents::<T>(object)) };
    // SAFETY: as above.
    awaitable.send_value(py, &unsafe { Bound::from_borrowed_ptr(py, value) })
}

/// The slot that `await` uses.
unsafe extern "C" fn am_send<T: Awaitable>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let (status, given) = slots::guarded((ffi::PySendResult::PYGEN_ERROR, null_mut()), || match sent::<T>(object, value) {
        Ok(Turn::Yield(value)) => (ffi::PySendResult::PYGEN_NEXT, value.into_ptr()),
        Ok(Turn::Return(value) | Turn::Item(value) | Turn::Stream(value, _)) => (ffi::PySendResult::PYGEN_RETURN, value.into_ptr()),
        Err(error) => {
            slots::raise(error);
            (ffi::PySendResult::PYGEN_ERROR, null_mut())
        }
    });
    // SAFETY: the interpreter's own variable.
    unsafe { *result = given };
    status
}

/// The slot that `await` uses from Python 3.12 on: null without an exception is the end with `None`.
unsafe extern "C" fn iternext<T: Awaitable>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slots::guarded(null_mut(), || {
        // SAFETY: None outlives everybody.
        let ended = match sent::<T>(object, unsafe { ffi::Py_None() }) {
            Ok(Turn::Yield(value)) => return value.into_ptr(),
            // SAFETY: the interpreter calls with its lock held.
            Ok(Turn::Return(value) | Turn::Item(value) | Turn::Stream(value, _)) if value.is_none(unsafe { Python::assume_attached() }) => {
                // SAFETY: the reference was ours.
                unsafe { ffi::Py_DECREF(value.into_ptr()) };
                return null_mut();
            }
            Ok(Turn::Return(value) | Turn::Item(value) | Turn::Stream(value, _)) => PyStopIteration::new_err((value,)),
            Err(error) => error,
        };
        slots::raise(ended);
        null_mut()
    })
}

/// An awaitable that is its own iterator.
pub unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter hands in a live object.
    unsafe { ffi::Py_NewRef(object) }
}

/// Sets the slots of a type that has no subclasses and no instances yet; `awaited` gives what drives an instance.
pub fn set<T: Awaitable>(py: Python<'_>, awaited: ffi::unaryfunc) {
    let kind = py.get_type::<T>().as_type_ptr();
    // SAFETY: the type is ours and in nobody else's hands yet.
    unsafe {
        (*kind).tp_iternext = Some(iternext::<T>);
        if let Some(methods) = (*kind).tp_as_async.as_mut() {
            methods.am_await = Some(awaited);
            methods.am_send = Some(am_send::<T>);
        }
        ffi::PyType_Modified(kind);
    }
}

/// What the methods `send`, `throw` and `__next__` give: the value, or `StopIteration` at the end.
pub fn yielded(turn: Turn) -> PyResult<Py<PyAny>> {
    match turn {
        Turn::Yield(value) => Ok(value),
        Turn::Return(value) | Turn::Item(value) | Turn::Stream(value, _) => Err(PyStopIteration::new_err((value,))),
    }
}
