//! The asynchronous generator driver: each item is awaited in the caller's own task, and the machine sees the stream's
//! end, not its beginning.
//!
//! Until the first item has come, a failure is tried again as for a plain call; after it every failure is final. Closing
//! early is neutral.

use super::awaiting::{Resume, anext, awaitable, send};
use super::flight::{Flight, Way};
use super::generator::thrown;
use super::protocol::{Awaitable, yielded};
use super::railed::restoring;
use super::recycled::{Bin, Recycled};
use super::running::{Awaited, Items, Running, Turn};
use super::sdk_stream::Desk;
use super::slots::{self, Held};
use super::stack;
use super::turnstile::Turnstile;
use crate::engine::{CallId, Execution};
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use std::ptr::null_mut;

enum State {
    Waiting(Box<Running>),
    /// One of its items is being awaited.
    Busy,
    Done,
}

/// A guarded call that gives items to `async for`. Whoever runs it right now has it.
#[pyclass(frozen, module = "seawall", weakref)]
pub struct AsyncGenerator(Turnstile<State>);

/// What is asked of the generator.
enum Ask {
    Next,
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
pub struct Item {
    generator: Held,
    stage: Turnstile<Stage>,
}

impl Recycled for Item {
    fn bin() -> &'static Bin {
        static BIN: Bin = Bin::new();
        &BIN
    }
}

impl AsyncGenerator {
    /// A call that begins with its first item.
    pub fn new(flight: Flight) -> AsyncGenerator {
        AsyncGenerator(Turnstile::new(State::Waiting(Box::new(Running::new(flight, Way::AsyncItems)))))
    }

    /// A call whose first attempt has given an iterator that nothing was taken from yet.
    pub fn under_way(flight: Flight, execution: Execution, call: CallId, source: Py<PyAny>) -> AsyncGenerator {
        let mut running = Running::resumed(flight, Some(execution), Way::AsyncItems);
        running.items = Some(Items { source, call, open: false });
        AsyncGenerator(Turnstile::new(State::Waiting(Box::new(running))))
    }

    /// The same of a call whose first attempt has given a stream of an SDK: what the caller gets in its place.
    pub fn at_a_desk<'py>(py: Python<'py>, mut running: Box<Running>, call: CallId, stream: &Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (desk, pieces) = match Desk::of(stream.bind(py), running.flight.rails(py)) {
            Ok(opened) => opened,
            Err(error) => {
                running.abandon(py);
                return Err(error);
            }
        };
        let holder = running.flight.holds(py)?;
        running.gives_items(Items { source: pieces, call, open: false }, desk.clone_ref(py));
        let generator = Bound::new(py, AsyncGenerator(Turnstile::new(State::Waiting(running))))?;
        desk.wrap(restoring(holder, generator.into_any(), true)?)
    }

    /// What becomes of it once an item's await has ended or suspended.
    fn becomes(&self, state: State) {
        if let Some(mut entered) = self.0.enter() {
            *entered = state;
        }
    }
}

fn ask(generator: &Bound<'_, AsyncGenerator>, ask: Ask) -> Item {
    Item { generator: Held::new(generator.clone().into_any()), stage: Turnstile::new(Stage::Asked(ask)) }
}

#[pymethods]
impl AsyncGenerator {
    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: &Bound<'_, Self>) -> Item {
        ask(slf, Ask::Next)
    }

    fn asend(slf: &Bound<'_, Self>, value: Py<PyAny>) -> Item {
        ask(slf, if value.is_none(slf.py()) { Ask::Next } else { Ask::Send(value) })
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
        match self.0.enter().as_deref().unwrap_or(&State::Busy) {
            State::Waiting(running) if running.execution.is_none() => "<guarded async generator, not begun>",
            State::Waiting(_) => "<guarded async generator, waiting>",
            State::Busy => "<guarded async generator, running>",
            State::Done => "<guarded async generator, done>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What runs right now is no garbage.
        match self.0.enter().as_deref() {
            Some(State::Waiting(running)) => running.traverse(&visit),
            _ => Ok(()),
        }
    }
}

impl Drop for AsyncGenerator {
    fn drop(&mut self) {
        if let State::Waiting(running) = self.0.get_mut() {
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
    #[inline]
    fn generator(&self, py: Python<'_>) -> &AsyncGenerator {
        // SAFETY: made of one, which lives as long as this holds it.
        unsafe { &*std::ptr::from_ref(self.generator.bind(py).cast_unchecked::<AsyncGenerator>().get()) }
    }

    /// The next item of a stream that is open and has no time limit: without the machine, if it comes. `None`: nothing
    /// was begun, and the machine has to.
    #[inline]
    fn next_item(&self, py: Python<'_>) -> Option<PyResult<Turn>> {
        let mut stage = self.stage.enter()?;
        let Stage::Asked(Ask::Next) = &*stage else { return None };
        let mut state = self.generator(py).0.enter()?;
        let State::Waiting(running) = &mut *state else { return None };
        let (source, call) = running.passes_items()?;
        let (awaited, turn) = match anext(source.bind(py)) {
            Ok(awaited) => {
                let turn = send(&awaited, &py.None().into_bound(py));
                (Some(awaited), turn)
            }
            Err(error) => (None, Err(error)),
        };
        if let Ok(Turn::Return(item)) = turn {
            *stage = Stage::Done;
            return Some(Ok(Turn::Item(item)));
        }
        let State::Waiting(mut running) = std::mem::replace(&mut *state, State::Busy) else { return None };
        drop(state);
        if let (Ok(Turn::Yield(_)), Some(awaited)) = (&turn, awaited) {
            running.current = Some((awaited.unbind(), Awaited::begun(call)));
            *stage = Stage::Awaiting { running, closing: false };
            return Some(turn);
        }
        *stage = Stage::Done;
        drop(stage);
        Some(slots::attached(|py| {
            let ended = running.ended(py, Awaited::begun(call), turn.map(|_| py.None()));
            let turn = ended.and_then(|turn| turn.map_or_else(|| running.run(py, Resume::Send(py.None())), Ok));
            self.settle(py, running, false, turn)
        }))
    }

    fn begin(&self, py: Python<'_>, ask: Ask) -> PyResult<Begun> {
        let mut running = {
            let busy = || PyRuntimeError::new_err("this asynchronous generator is already running");
            let mut state = self.generator(py).0.enter().ok_or_else(busy)?;
            match std::mem::replace(&mut *state, State::Busy) {
                State::Waiting(running) => running,
                State::Busy => return Err(busy()),
                State::Done => {
                    *state = State::Done;
                    return Ok(Begun::Over(match ask {
                        Ask::Next | Ask::Send(_) => Err(PyStopAsyncIteration::new_err(())),
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
                self.generator(py).becomes(State::Done);
                Err(error)
            }
        }
    }

    fn resume(&self, py: Python<'_>, input: Resume) -> PyResult<Turn> {
        let stage = self.stage.enter().map_or(Stage::Done, |mut stage| std::mem::replace(&mut *stage, Stage::Done));
        let (mut running, closing, input) = match (stage, input) {
            (Stage::Done, _) => return Err(PyRuntimeError::new_err("cannot reuse already awaited item")),
            (Stage::Asked(_), Resume::Throw(error)) => return Err(error),
            (Stage::Asked(ask), Resume::Send(_)) => match self.begin(py, ask)? {
                Begun::Run(running, closing, input) => (running, closing, input),
                Begun::Over(end) => return end.map(Turn::Return),
            },
            (Stage::Awaiting { running, closing }, input) => (running, closing, input),
        };
        let turn = if closing { running.run_out(py, input) } else { running.run(py, input) };
        self.settle(py, running, closing, turn)
    }

    /// Keeps what is left of the call after a turn; what that is to whoever awaits the item.
    fn settle(&self, py: Python<'_>, mut running: Box<Running>, closing: bool, turn: PyResult<Turn>) -> PyResult<Turn> {
        match turn {
            Ok(Turn::Yield(value)) => {
                if let Some(mut stage) = self.stage.enter() {
                    *stage = Stage::Awaiting { running, closing };
                }
                Ok(Turn::Yield(value))
            }
            Ok(Turn::Item(item)) => {
                self.generator(py).becomes(State::Waiting(running));
                Ok(Turn::Item(item))
            }
            Ok(Turn::Return(value) | Turn::Stream(value, _)) => {
                self.generator(py).becomes(State::Done);
                if closing {
                    running.abandon(py);
                    return Ok(Turn::Return(value));
                }
                Err(PyStopAsyncIteration::new_err(()))
            }
            Err(error) => {
                self.generator(py).becomes(State::Done);
                running.abandon(py);
                Err(error)
            }
        }
    }
}

impl Awaitable for Item {
    fn send_value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Turn> {
        if stack::is_used_up() {
            return Err(stack::used_up());
        }
        match self.next_item(py) {
            Some(turn) => turn,
            None => slots::attached(|py| self.resume(py, Resume::Send(value.clone().unbind()))),
        }
    }
}

/// The slot that `async for` uses.
pub unsafe extern "C" fn am_anext(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slots::guarded(null_mut(), || {
        // SAFETY: the interpreter calls this slot with its lock held and an instance of the type.
        let generator = unsafe { Bound::from_borrowed_ptr(Python::assume_attached(), slf).cast_into_unchecked::<AsyncGenerator>() };
        Bound::new(generator.py(), ask(&generator, Ask::Next)).map_or_else(
            |error| {
                slots::raise(error);
                null_mut()
            },
            Bound::into_ptr,
        )
    })
}

/// What the asked-for means for the call: whether it closes it, and what to begin with.
fn prepared(py: Python<'_>, running: &mut Running, ask: Ask) -> PyResult<(bool, Resume)> {
    let none = || Resume::Send(py.None());
    if running.execution.is_none() {
        return match ask {
            Ask::Send(_) => Err(PyTypeError::new_err("can't send non-None value to a just-started async generator")),
            Ask::Next => Ok((false, none())),
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
    if matches!(ask, Ask::Send(_) | Ask::Throw(_)) {
        running.flight.is_steered();
    }
    let Some(items) = &running.items else { return Ok((false, none())) };
    let (source, call) = (items.source.bind(py), items.call);
    let next = match ask {
        // The first item is one that others may be asked for beside it.
        Ask::Next if running.flight.compiled.hedged && !items.open => return Ok((false, none())),
        Ask::Next => match anext(source) {
            Ok(awaited) => {
                running.current = Some((awaited.unbind(), Awaited::call(call)));
                return Ok((false, none()));
            }
            // The callee's own, as if its item had been awaited.
            Err(error) => {
                running.ended(py, Awaited::begun(call), Err(error))?;
                return Ok((false, none()));
            }
        },
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
        self.send_value(py, &py.None().into_bound(py)).and_then(yielded)
    }

    fn send(&self, py: Python<'_>, value: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.send_value(py, &value).and_then(yielded)
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
        self.generator.traverse(&visit)?;
        // What runs right now is no garbage.
        match self.stage.enter().as_deref() {
            Some(Stage::Awaiting { running, .. }) => running.traverse(&visit),
            Some(Stage::Asked(Ask::Send(value))) => visit.call(value),
            _ => Ok(()),
        }
    }

    /// Closes what is awaited for the item, and ends the call: nothing is tried again, as nobody waits for it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let stage = self.stage.enter().map_or(Stage::Done, |mut stage| std::mem::replace(&mut *stage, Stage::Done));
        let Stage::Awaiting { mut running, .. } = stage else { return Ok(()) };
        let closed = running.close(py);
        self.generator(py).becomes(State::Done);
        closed
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        // All of it goes in here: outside, pyo3 does not know that the interpreter is attached.
        match std::mem::replace(self.stage.get_mut(), Stage::Done) {
            // Dropped in the middle: nobody will ever tell how it came out.
            Stage::Awaiting { mut running, .. } => slots::at_the_end(|py| {
                running.abandon(py);
                self.generator(py).becomes(State::Done);
                drop(running);
            }),
            Stage::Asked(asked @ (Ask::Send(_) | Ask::Throw(_))) => slots::attached(|_| drop(asked)),
            Stage::Asked(Ask::Next | Ask::Close) | Stage::Done => {}
        }
    }
}
