//! What an event loop awaits for the next piece of a stream: nothing at all if the piece is there.

use super::stream::Stream;
use crate::python::awaiting::{Resume, advance};
use crate::python::event_loop;
use crate::python::generator::thrown;
use crate::python::protocol::{Awaitable, yielded};
use crate::python::running::Turn;
use crate::python::slots;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

enum State {
    Fresh,
    /// It is this one's turn to read, and it waits for this.
    Waiting(Py<PyAny>),
    /// The piece, or the end, is there. In trio every await is a checkpoint, and this is it.
    Passing(Py<PyAny>, Box<PyResult<Py<PyAny>>>),
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
                self.begin(py)
            }
            (State::Waiting(ready), input) => match advance(ready.bind(py), input) {
                Ok(Turn::Yield(value)) => self.wait(State::Waiting(ready), value),
                Ok(_) => self.look(py),
                Err(error) => Err(error),
            },
            (State::Passing(checkpoint, next), input) => match advance(checkpoint.bind(py), input) {
                Ok(Turn::Yield(value)) => self.wait(State::Passing(checkpoint, next), value),
                Ok(_) => (*next).map(Turn::Return),
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

    fn wait(&self, state: State, value: Py<PyAny>) -> PyResult<Turn> {
        *self.lock() = state;
        Ok(Turn::Yield(value))
    }

    fn begin(&self, py: Python<'_>) -> PyResult<Turn> {
        let Some(trio) = event_loop::trio(py)? else { return self.look(py) };
        let Some(next) = self.stream.get().next_now(py) else { return self.look(py) };
        let lowlevel = trio.getattr(intern!(py, "lowlevel"))?;
        let checkpoint = lowlevel.call_method0(intern!(py, "checkpoint"))?.call_method0(intern!(py, "__await__"))?;
        match advance(&checkpoint, Resume::Send(py.None()))? {
            Turn::Yield(value) => self.wait(State::Passing(checkpoint.unbind(), Box::new(next)), value),
            _ => next.map(Turn::Return),
        }
    }

    /// The piece if there is one, else the wait for it.
    fn look(&self, py: Python<'_>) -> PyResult<Turn> {
        loop {
            if let Some(next) = self.stream.get().next_now(py) {
                return next.map(Turn::Return);
            }
            let ready = self.stream.get().future(py)?.bind(py).call_method0(intern!(py, "__await__"))?;
            if let Turn::Yield(value) = advance(&ready, Resume::Send(py.None()))? {
                return self.wait(State::Waiting(ready.unbind()), value);
            }
        }
    }
}

impl Awaitable for Piece {
    fn send_value(&self, _py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Turn> {
        slots::attached(|py| self.resume(py, Resume::Send(value.clone().unbind())))
    }
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.stream)?;
        // Locked only while it is being changed, by somebody who holds it: then it is no garbage.
        match self.state.try_lock().as_deref() {
            Ok(State::Waiting(awaited) | State::Passing(awaited, _)) => visit.call(awaited),
            _ => Ok(()),
        }
    }

    /// Whoever stops awaiting in the middle gives the stream up.
    fn close(&self) {
        // The lock is given back first: what is awaited is let go, and the stream's end told, in Python.
        let state = std::mem::replace(&mut *self.lock(), State::Done);
        if let State::Waiting(_) | State::Passing(..) = state {
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.stream)
    }
}
