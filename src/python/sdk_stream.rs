//! Streams of SDKs (openai's, anthropic's) that a guarded function gives: how they are recognised, and the Python side
//! that reads them. That knows what in them is content and where they end; the machine sees pieces.

use super::errors::ours;
use super::guarded::Given;
use super::slots;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// Whether an object is such a stream.
///
/// # Safety
/// A live object, and the interpreter's lock held.
#[inline]
pub unsafe fn given(value: *mut ffi::PyObject) -> Option<Given> {
    // SAFETY: the caller's promise. What has no next item is most of what functions give, models among them.
    unsafe {
        let kind = ffi::Py_TYPE(value);
        let is_async = (*kind).tp_as_async.as_ref().is_some_and(|methods| methods.am_anext.is_some());
        if !is_async && ffi::PyIter_Check(value) == 0 {
            return None;
        }
        looks_like_one(value).then_some(if is_async { Given::AsyncStream } else { Given::Stream })
    }
}

/// Whether an object is such a stream, to be read with `async for`.
#[inline]
pub fn is_async(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { given(value.as_ptr()) == Some(Given::AsyncStream) }
}

/// By its interface: it can be closed, is a context manager and tells its HTTP response. What puts streams together to an
/// answer by itself (`until_done`) reads one that is judged where it was made.
///
/// # Safety
/// A live object, and the interpreter's lock held.
#[cold]
unsafe fn looks_like_one(value: *mut ffi::PyObject) -> bool {
    slots::attached(|py| {
        // SAFETY: the caller's promise.
        let value = unsafe { Bound::from_borrowed_ptr(py, value) };
        let kind = value.get_type();
        let of_class = |name| kind.hasattr(name).unwrap_or(false);
        of_class(intern!(py, "close"))
            && (of_class(intern!(py, "__enter__")) || of_class(intern!(py, "__aenter__")))
            && !of_class(intern!(py, "until_done"))
            && value.hasattr(intern!(py, "response")).unwrap_or(false)
    })
}

/// Where one call's streams are read, one after the other: `seawall._sdk_stream.Desk`.
pub struct Desk(Py<PyAny>);

impl Desk {
    /// A desk for a call that has given this stream, and the stream's pieces. `rails`: what they have to pass.
    pub fn of(stream: &Bound<'_, PyAny>, rails: PyResult<Bound<'_, PyTuple>>) -> PyResult<(Desk, Py<PyAny>)> {
        static DESK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = stream.py();
        let desk = Desk(ours(py, &DESK, "seawall._sdk_stream", "Desk")?.call1((stream, rails?))?.unbind());
        let pieces = desk.open(stream, true)?;
        Ok((desk, pieces))
    }

    /// The pieces of what an attempt has given; `is_looked_at`: whether they have to pass guardrails, if there are any.
    pub fn open(&self, given: &Bound<'_, PyAny>, is_looked_at: bool) -> PyResult<Py<PyAny>> {
        self.0.bind(given.py()).call_method1(intern!(given.py(), "open"), (given, is_looked_at)).map(Bound::unbind)
    }

    /// What the caller gets: the guarded pieces, looking like the stream.
    pub fn wrap<'py>(&self, pieces: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(pieces.py()).call_method1(intern!(pieces.py(), "wrap"), (pieces,))
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Desk {
        Desk(self.0.clone_ref(py))
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}
