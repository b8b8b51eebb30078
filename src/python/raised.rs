//! An exception as it came out of a call: taken from the interpreter as it is, without the state that pyo3 keeps around one that may
//! have yet to be made.

use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr::null_mut;

/// An exception, with its traceback.
pub struct Raised<'py>(Bound<'py, PyAny>);

impl<'py> Raised<'py> {
    /// Takes what is set.
    #[allow(deprecated)] // since 3.12, where it does the same
    pub fn take(py: Python<'py>) -> Raised<'py> {
        let (mut kind, mut value, mut traceback) = (null_mut(), null_mut(), null_mut());
        // SAFETY: what the interpreter says is to be done to have an exception as an object: three references of our own, which are made
        // into one.
        let value = unsafe {
            ffi::PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut traceback);
            // An object of that very class, as whoever writes `raise` makes it, is as it is to be.
            if value.is_null() || ffi::Py_TYPE(value).cast() != kind {
                ffi::PyErr_NormalizeException(&raw mut kind, &raw mut value, &raw mut traceback);
            }
            if !traceback.is_null() && !value.is_null() {
                ffi::PyException_SetTraceback(value, traceback);
            }
            ffi::Py_XDECREF(traceback);
            ffi::Py_XDECREF(kind);
            Bound::from_owned_ptr_or_opt(py, value)
        };
        match value {
            Some(value) => Raised(value),
            None => Raised::of(py, PySystemError::new_err("a call failed without saying why")),
        }
    }

    /// What came by way of pyo3.
    pub fn of(py: Python<'py>, error: PyErr) -> Raised<'py> {
        Raised(error.into_value(py).into_bound(py).into_any())
    }

    /// What was called: an object of its own, or null with an exception set.
    ///
    /// # Safety
    ///
    /// `given` is that.
    pub unsafe fn or(py: Python<'py>, given: *mut ffi::PyObject) -> Result<Bound<'py, PyAny>, Raised<'py>> {
        // SAFETY: the caller's promise.
        unsafe { Bound::from_owned_ptr_or_opt(py, given) }.ok_or_else(|| Raised::take(py))
    }

    /// The exception.
    pub fn value(&self) -> &Bound<'py, PyAny> {
        &self.0
    }

    /// The exception.
    pub fn into_value(self) -> Bound<'py, PyAny> {
        self.0
    }
}

impl From<Raised<'_>> for PyErr {
    fn from(raised: Raised<'_>) -> PyErr {
        PyErr::from_value(raised.0)
    }
}
