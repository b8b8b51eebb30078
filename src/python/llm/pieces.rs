//! What an event loop awaits for the next piece of a stream: nothing at all if the piece is there.

use super::stream::Stream;
use crate::python::generator::thrown;
use crate::python::running::{Resume, Turn, advance, next, sent, yielded};
use crate::python::slots;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

enum State {
    Fresh,
    /// It is this one's turn to read, and it waits for this.
    Waiting(Py<PyAny>),
    Done,
}

/// The awaitable of one piece.
#[pyclass(frozen, module = "seawall.llm")]
pub struct Piece {
    stream: Py<Stream>,
    state: Mutex<State>,
}

impl Piece {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resume(&self, py: Python<'_>, input: Resume) -> PyResult<Turn> {
        let stream = self.stream.get();
        let state = std::mem::replace(&mut *self.lock(), State::Done);
        let end = match (state, input) {
            (State::Done, _) => return Err(PyRuntimeError::new_err("cannot reuse already awaited piece")),
            (State::Fresh, Resume::Throw(error)) => return Err(error),
            (State::Fresh, Resume::Send(_)) => {
                if !stream.enter(py)? {
                    return Err(PyRuntimeError::new_err("the stream is being read by another task: read it in one"));
                }
                self.look(py)
            }
            (State::Waiting(ready), input) => match advance(ready.bind(py), input) {
                Ok(Turn::Yield(value)) => self.wait(ready, value),
                Ok(_) => self.look(py),
                Err(error) => Err(error),
            },
        };
        if matches!(end, Ok(Turn::Yield(_))) {
            return end;
        }
        stream.leave();
        end.map_err(|error| {
            if error.is_instance_of::<PyStopIteration>(py) {
                return PyStopAsyncIteration::new_err(());
            }
            stream.close();
            error
        })
    }

    fn wait(&self, ready: Py<PyAny>, value: Py<PyAny>) -> PyResult<Turn> {
        *self.lock() = State::Waiting(ready);
        Ok(Turn::Yield(value))
    }

    /// The piece if there is one, else the wait for it.
    fn look(&self, py: Python<'_>) -> PyResult<Turn> {
        loop {
            if let Some(next) = self.stream.get().next_now(py) {
                return Ok(Turn::Return(Py::new(py, next?)?.into_any()));
            }
            let ready = self.stream.get().future(py)?.bind(py).call_method0(intern!(py, "__await__"))?;
            if let Turn::Yield(value) = advance(&ready, Resume::Send(py.None()))? {
                return self.wait(ready.unbind(), value);
            }
        }
    }
}

fn drive(slf: *mut ffi::PyObject, value: *mut ffi::PyObject) -> PyResult<Turn> {
    // SAFETY: the interpreter calls these slots with its lock held, with instances of their type and live values.
    unsafe {
        let py = Python::assume_attached();
        slots::contents::<Piece>(slf).resume(py, Resume::Send(Bound::from_borrowed_ptr(py, value).unbind()))
    }
}

/// The slot that `await` uses.
pub unsafe extern "C" fn am_send(slf: *mut ffi::PyObject, value: *mut ffi::PyObject, result: *mut *mut ffi::PyObject) -> ffi::PySendResult {
    // SAFETY: the interpreter's own variable.
    unsafe { sent(|| drive(slf, value), result) }
}

/// The slot that `await` uses from Python 3.12 on.
pub unsafe extern "C" fn iternext(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: None outlives everybody.
    next(|| drive(slf, unsafe { ffi::Py_None() }))
}

#[pymethods]
impl Piece {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.resume(py, Resume::Send(py.None())).and_then(yielded)
    }

    fn send(&self, py: Python<'_>, value: Py<PyAny>) -> PyResult<Py<PyAny>> {
        self.resume(py, Resume::Send(value)).and_then(yielded)
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.resume(py, Resume::Throw(thrown(kind, value, traceback)?)).and_then(yielded)
    }

    /// Whoever stops awaiting in the middle gives the stream up.
    fn close(&self) {
        if let State::Waiting(_) = std::mem::replace(&mut *self.lock(), State::Done) {
            self.stream.get().leave();
            self.stream.get().close();
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.close();
    }
}

/// A streamed answer for an event loop: what `seawall.llm.AsyncStream` builds on.
#[pyclass(frozen, subclass, module = "seawall.llm")]
pub struct AsyncPieces {
    #[pyo3(get, name = "_stream")]
    stream: Py<Stream>,
}

#[pymethods]
impl AsyncPieces {
    #[new]
    fn new(stream: Py<Stream>) -> AsyncPieces {
        AsyncPieces { stream }
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(&self, py: Python<'_>) -> Piece {
        Piece { stream: self.stream.clone_ref(py), state: Mutex::new(State::Fresh) }
    }
}
