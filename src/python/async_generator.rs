//! The asynchronous generator driver: each item is awaited in the caller's own task, and the machine sees the stream's
//! end, not its beginning.
//!
//! Until the first item has come, a failure is tried again as for a plain call; after it every failure is final. Closing
//! early is neutral.

use super::flight::{Flight, Way};
use super::generator::thrown;
use super::running::{Awaited, Items, Resume, Running, Turn, awaitable};
use super::slots;
use super::stack;
use crate::engine::{CallId, Execution};
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

enum State {
    Waiting(Box<Running>),
    /// One of its items is being awaited.
    Busy,
    Done,
}

/// A guarded call that gives items to `async for`.
#[pyclass(frozen, module = "seawall", weakref)]
pub struct AsyncGenerator {
    state: Mutex<State>,
}

/// What is asked of the generator.
enum Ask {
    Send(Py<PyAny>),
    Throw(PyErr),
    Close,
}

enum Stage {
    Asked(Ask),
    Awaiting { running: Box<Running>, closing: bool },
    Done,
}

/// What awaits one item, or the end.
#[pyclass(frozen, module = "seawall")]
struct Item {
    generator: Py<AsyncGenerator>,
    stage: Mutex<Stage>,
}

impl AsyncGenerator {
    /// A call that begins with its first item.
    pub fn new(flight: Flight) -> AsyncGenerator {
        AsyncGenerator { state: Mutex::new(State::Waiting(Box::new(Running::new(flight, Way::AsyncItems)))) }
    }

    /// A call whose first attempt has given an iterator that nothing was taken from yet.
    pub fn under_way(flight: Flight, execution: Execution, call: CallId, source: Py<PyAny>) -> AsyncGenerator {
        let mut running = Running::resumed(flight, Some(execution), Way::AsyncItems);
        running.items = Some(Items { source, call, open: false });
        AsyncGenerator { state: Mutex::new(State::Waiting(Box::new(running))) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(generator: &Bound<'_, AsyncGenerator>, ask: Ask) -> Item {
    Item { generator: generator.clone().unbind(), stage: Mutex::new(Stage::Asked(ask)) }
}

#[pymethods]
impl AsyncGenerator {
    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: &Bound<'_, Self>) -> Item {
        ask(slf, Ask::Send(slf.py().None()))
    }

    fn asend(slf: &Bound<'_, Self>, value: Py<PyAny>) -> Item {
        ask(slf, Ask::Send(value))
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn athrow(
        slf: &Bound<'_, Self>,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Item> {
        Ok(ask(slf, Ask::Throw(thrown(kind, value, traceback)?)))
    }

    /// Closes what is inside. Neutral: closing early says nothing of the callee.
    fn aclose(slf: &Bound<'_, Self>) -> Item {
        ask(slf, Ask::Close)
    }

    fn __repr__(&self) -> &'static str {
        match &*self.lock() {
            State::Waiting(running) if running.execution.is_none() => "<guarded async generator, not begun>",
            State::Waiting(_) => "<guarded async generator, waiting>",
            State::Busy => "<guarded async generator, running>",
            State::Done => "<guarded async generator, done>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Locked only while it is being changed, by somebody who holds it: then it is no garbage.
        match self.state.try_lock().as_deref() {
            Ok(State::Waiting(running)) => running.traverse(&visit),
            _ => Ok(()),
        }
    }
}

impl Drop for AsyncGenerator {
    fn drop(&mut self) {
        if let State::Waiting(running) = self.state.get_mut().unwrap_or_else(PoisonError::into_inner) {
            slots::at_the_end(|py| running.abandon(py));
        }
    }
}

/// How an item's await goes on.
enum Begun {
    Run(Box<Running>, bool, Resume),
    /// It has ended already: for `aclose` with nothing, else with the end of the items.
    Over(PyResult<Py<PyAny>>),
}

impl Item {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, py: Python<'_>, ask: Ask) -> PyResult<Begun> {
        let mut running = {
            let mut state = self.generator.get().lock();
            match std::mem::replace(&mut *state, State::Busy) {
                State::Waiting(running) => running,
                State::Busy => return Err(PyRuntimeError::new_err("this asynchronous generator is already running")),
                State::Done => {
                    *state = State::Done;
                    return Ok(Begun::Over(match ask {
                        Ask::Send(_) => Err(PyStopAsyncIteration::new_err(())),
                        Ask::Throw(error) => Err(error),
                        Ask::Close => Ok(py.None()),
                    }));
                }
            }
        };
        match prepared(py, &mut running, ask) {
            Ok((closing, input)) => Ok(Begun::Run(running, closing, input)),
            Err(error) => {
                running.abandon(py);
                *self.generator.get().lock() = State::Done;
                Err(error)
            }
        }
    }

    fn resume(&self, py: Python<'_>, input: Resume) -> PyResult<Py<PyAny>> {
        if stack::is_used_up() {
            return Err(stack::used_up());
        }
        let stage = std::mem::replace(&mut *self.lock(), Stage::Done);
        let (mut running, closing, input) = match (stage, input) {
            (Stage::Done, _) => return Err(PyRuntimeError::new_err("cannot reuse already awaited item")),
            (Stage::Asked(_), Resume::Throw(error)) => return Err(error),
            (Stage::Asked(ask), Resume::Send(_)) => match self.begin(py, ask)? {
                Begun::Run(running, closing, input) => (running, closing, input),
                Begun::Over(Ok(value)) => return Err(PyStopIteration::new_err((value,))),
                Begun::Over(Err(error)) => return Err(error),
            },
            (Stage::Awaiting { running, closing }, input) => (running, closing, input),
        };
        let turn = if closing { running.run_out(py, input) } else { running.run(py, input) };
        match turn {
            Ok(Turn::Yield(value)) => {
                *self.lock() = Stage::Awaiting { running, closing };
                Ok(value)
            }
            Ok(Turn::Item(item)) => {
                *self.generator.get().lock() = State::Waiting(running);
                Err(PyStopIteration::new_err((item,)))
            }
            Ok(Turn::Return(value)) => {
                *self.generator.get().lock() = State::Done;
                if closing {
                    running.abandon(py);
                    return Err(PyStopIteration::new_err((value,)));
                }
                Err(PyStopAsyncIteration::new_err(()))
            }
            Err(error) => {
                *self.generator.get().lock() = State::Done;
                running.abandon(py);
                Err(error)
            }
        }
    }
}

/// What the asked-for means for the call: whether it closes it, and what to begin with.
fn prepared(py: Python<'_>, running: &mut Running, ask: Ask) -> PyResult<(bool, Resume)> {
    let none = || Resume::Send(py.None());
    if running.execution.is_none() {
        return match ask {
            Ask::Send(value) if !value.is_none(py) => {
                Err(PyTypeError::new_err("can't send non-None value to a just-started async generator"))
            }
            Ask::Send(_) => Ok((false, none())),
            Ask::Throw(error) => Err(error),
            Ask::Close => Ok((true, none())),
        };
    }
    if let Ask::Close = ask {
        running.close_items(py)?;
        return Ok((true, none()));
    }
    if running.look_at_the_clock(py)? {
        return Ok((false, none()));
    }
    let Some(items) = &running.items else { return Ok((false, none())) };
    let (source, call) = (items.source.bind(py), items.call);
    let next = match ask {
        Ask::Send(value) if value.is_none(py) => source.call_method0(intern!(py, "__anext__"))?,
        Ask::Send(value) => source.call_method1(intern!(py, "asend"), (value,))?,
        Ask::Throw(error) => {
            let error = error.into_value(py);
            running.thrown = Some(error.clone_ref(py).into_any());
            source.call_method1(intern!(py, "athrow"), (error,))?
        }
        Ask::Close => return Ok((true, none())),
    };
    let next = awaitable(&next).unwrap_or_else(|| Ok(next.clone()))?;
    running.current = Some((next.unbind(), Awaited::call(call)));
    Ok((false, none()))
}

#[pymethods]
impl Item {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.resume(py, Resume::Send(py.None()))
    }

    fn send(&self, py: Python<'_>, value: Py<PyAny>) -> PyResult<Py<PyAny>> {
        self.resume(py, Resume::Send(value))
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.resume(py, Resume::Throw(thrown(kind, value, traceback)?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.generator)?;
        // Locked only while it is being changed, by somebody who holds it: then it is no garbage.
        match self.stage.try_lock().as_deref() {
            Ok(Stage::Awaiting { running, .. }) => running.traverse(&visit),
            Ok(Stage::Asked(Ask::Send(value))) => visit.call(value),
            _ => Ok(()),
        }
    }

    /// Closes what is awaited for the item, and ends the call: nothing is tried again, as nobody waits for it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let stage = std::mem::replace(&mut *self.lock(), Stage::Done);
        let Stage::Awaiting { mut running, .. } = stage else { return Ok(()) };
        let closed = running.close(py);
        *self.generator.get().lock() = State::Done;
        closed
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if let Stage::Awaiting { running, .. } = self.stage.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // Dropped in the middle: nobody will ever tell how it came out.
            slots::at_the_end(|py| {
                running.abandon(py);
                *self.generator.get().lock() = State::Done;
            });
        }
    }
}
