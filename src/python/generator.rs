//! The generator driver: items pass through, and the machine sees the stream's end, not its beginning.
//!
//! Until the first item has come, a failure is tried again as for a plain call; after it every failure is final. Closing
//! early is neutral.

use super::flight::{Flight, Way};
use super::inline::Inline;
use super::race::{Landed, Race};
use super::raised::Raised;
use super::sdk_stream::Desk;
use super::slots;
use super::stack;
use super::turnstile::{Entered, Turnstile};
use crate::drive::clock;
use crate::drive::inline::{Host, Wait};
use crate::engine::{CallId, Execution, Instant, Step};
use pyo3::exceptions::{PyStopIteration, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple, PyType};
use std::ptr::null_mut;

/// What is handed to the generator inside.
pub enum Input {
    Send(Py<PyAny>),
    Throw(PyErr),
}

/// What came out.
pub enum Turn {
    Item(Py<PyAny>),
    End(Py<PyAny>),
}

/// The attempt that runs: its iterator, and whether its first item has been handed out.
struct Current {
    items: Py<PyAny>,
    call: CallId,
    open: bool,
}

struct Running {
    flight: Flight,
    execution: Option<Execution>,
    current: Option<Current>,
    /// How the source ended when an item was passed straight on.
    last: Option<PyResult<Turn>>,
    /// Where streams of an SDK are looked after.
    desk: Option<Desk>,
    /// Where attempts run beside each other until the first item of one has come, what runs.
    race: Option<Race>,
}

enum State {
    Waiting(Box<Running>),
    Done,
}

/// A guarded call that gives items.
#[pyclass(frozen, module = "seawall", weakref)]
pub struct Generator(Turnstile<State>);

/// The iterator that a target's result is driven by: an iterator itself, a list's items, or the one value that it is.
pub fn items<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if value.hasattr("__next__")? {
        return Ok(value.clone());
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        return Ok(value.try_iter()?.into_any());
    }
    Ok(PyTuple::new(value.py(), [value])?.try_iter()?.into_any())
}

impl Running {
    /// Hands the input in and runs until an item comes out or the call ends.
    fn run(&mut self, py: Python<'_>, input: Input) -> PyResult<Turn> {
        let mut input = Some(input);
        if self.execution.is_none() {
            if let Some(Input::Throw(error)) = input {
                return Err(error);
            }
            self.execution = Some(self.flight.execution(py, Way::Items, clock::now())?);
        } else {
            self.look_at_the_clock(py)?;
        }
        if self.flight.compiled.hedged && self.race.is_none() {
            self.race = self.execution.as_mut().map(|execution| Race::new(execution.bell()));
            // The first item of what was given already is one to wait for, too.
            if let (Some(race), Some(current)) = (&mut self.race, self.current.take_if(|current| !current.open)) {
                race.first_item(py, current.call, current.items.bind(py))?;
                self.flight.diary.aside(current.call, clock::now());
            }
        }
        loop {
            if let (Some(current), Some(given)) = (&mut self.current, input.take()) {
                let (call, open) = (current.call, current.open);
                let thrown = match &given {
                    Input::Throw(error) => Some(error.value(py).clone().unbind()),
                    Input::Send(_) => None,
                };
                if open && (thrown.is_some() || matches!(&given, Input::Send(value) if !value.is_none(py))) {
                    self.flight.is_steered();
                }
                let deadline = self.flight.compiled.told(|| self.execution.as_ref().map_or(Instant::NEVER, |e| e.deadline_of(call)));
                let turn = match self.last.take() {
                    Some(turn) => turn,
                    None => self.flight.within(py, deadline, || advance(current.items.bind(py), given)),
                };
                match turn {
                    Ok(Turn::Item(item)) if open => {
                        self.flight.records(item.bind(py))?;
                        return Ok(Turn::Item(item));
                    }
                    Ok(Turn::Item(item)) => {
                        current.open = true;
                        self.opened(py, call, item)?;
                    }
                    Ok(Turn::End(value)) => self.ended(py, call, Ok(value))?,
                    // What the consumer threw in and what came out unchanged says nothing of the callee.
                    Err(error) if thrown.is_some_and(|thrown| thrown.is(error.value(py))) => return Err(error),
                    Err(error) => self.ended(py, call, Err(error))?,
                }
            }
            if let Some(turn) = self.step(py, &mut input)? {
                return Ok(turn);
            }
        }
    }

    fn opened(&mut self, py: Python<'_>, call: CallId, item: Py<PyAny>) -> PyResult<()> {
        let ticket = self.flight.keep_item(py, item)?;
        if let Some(execution) = &mut self.execution {
            execution.opened(call, ticket);
        }
        Ok(())
    }

    /// The first item of one that ran beside others has come, or it has ended without.
    fn landed(&mut self, py: Python<'_>, landed: Landed) -> PyResult<()> {
        let call = landed.call;
        self.flight.diary.is_back(call);
        match (landed.result, landed.source) {
            (Ok(item), Some(items)) => {
                self.current = Some(Current { items, call, open: true });
                self.opened(py, call, item)
            }
            (Ok(value), None) => self.ended(py, call, Ok(value)),
            (Err(end), _) if end.is_instance_of::<PyStopIteration>(py) => {
                let value = end.value(py).getattr("value")?.unbind();
                self.ended(py, call, Ok(value))
            }
            (Err(error), _) => self.ended(py, call, Err(error)),
        }
    }

    fn ended(&mut self, py: Python<'_>, call: CallId, result: PyResult<Py<PyAny>>) -> PyResult<()> {
        if let Some(current) = self.current.take() {
            self.flight.has_passed(current.items);
        }
        let (outcome, _) = self.flight.keep(result.map_err(|error| Raised::of(py, error)))?;
        if let Some(execution) = &mut self.execution {
            execution.ended(call, outcome);
        }
        Ok(())
    }

    /// A limit that passed while the items were being used ends the stream now.
    fn look_at_the_clock(&mut self, py: Python<'_>) -> PyResult<()> {
        if !self.flight.compiled.has_limits {
            return Ok(());
        }
        let (Some(execution), Some(current)) = (&mut self.execution, &self.current) else { return Ok(()) };
        execution.wake(clock::now());
        if execution.is_over(current.call)
            && let Some(current) = self.current.take()
        {
            close(current.items.bind(py))?;
        }
        Ok(())
    }

    /// One step of the machine; a turn if an item or the end comes of it.
    fn step(&mut self, py: Python<'_>, input: &mut Option<Input>) -> PyResult<Option<Turn>> {
        let Some(execution) = &mut self.execution else { return Ok(None) };
        let step = execution.step_answered(clock::now(), |ask| self.flight.answer(py, ask));
        if execution.has_events() {
            let events = execution.take_events();
            self.flight.publish(py, events)?;
        }
        match step {
            Step::Start { call, target, deadline } if let Some(race) = &mut self.race => {
                let deadline = self.flight.compiled.told(|| deadline);
                let desk = Some(self.desk.as_ref());
                if let Some(value) = self.flight.start_beside(py, race, call, target, deadline, desk).transpose() {
                    let items = value.and_then(|value| items(value.bind(py)).map(Bound::unbind));
                    match items {
                        Ok(items) => {
                            self.current = Some(Current { items, call, open: false });
                            *input = Some(Input::Send(py.None()));
                        }
                        Err(error) => self.ended(py, call, Err(error))?,
                    }
                }
            }
            Step::Start { call, target, deadline } => {
                let deadline = self.flight.compiled.told(|| deadline);
                let started = self.flight.within(py, deadline, || self.flight.start(py, target, Way::Items)).map_err(PyErr::from);
                match started.and_then(|value| match &self.desk {
                    Some(desk) => desk.open(value.bind(py), self.flight.rails_of(py, target)?.is_some()),
                    None => items(value.bind(py)).and_then(|items| self.flight.screened(&items, Some(target), false)),
                }) {
                    Ok(items) => {
                        self.current = Some(Current { items, call, open: false });
                        *input = Some(Input::Send(py.None()));
                    }
                    Err(error) => self.ended(py, call, Err(error))?,
                }
            }
            Step::Judge(ask) => {
                let verdict = self.flight.judge(py, ask)?;
                execution.verdict(verdict, clock::now());
            }
            Step::Wait { until } => {
                if let Some(landed) = self.race.as_mut().and_then(Race::take) {
                    return self.landed(py, landed).map(|()| None);
                }
                let wait = Wait::of(execution, until);
                let mut host = Inline { py, flight: &mut self.flight, race: self.race.take() };
                let waited = host.wait(&wait);
                self.race = host.race;
                waited?;
            }
            Step::Deliver(ticket) => return Ok(Some(Turn::Item(self.flight.hand_out(py, ticket)))),
            Step::Cancel { call, beaten } if self.race.is_some() && self.current.as_ref().is_none_or(|current| current.call != call) => {
                if let Some(race) = &mut self.race {
                    race.cancel(py, call);
                    self.flight.diary.is_left(call, beaten, clock::now());
                }
            }
            Step::Cancel { .. } => {
                self.flight.diary.cut(clock::now());
                if let Some(current) = self.current.take() {
                    close(current.items.bind(py))?;
                }
            }
            Step::Done(outcome) => {
                let Some(execution) = self.execution.take() else { return Ok(None) };
                let given = self.flight.finish(py, outcome, &execution, clock::now());
                self.flight.compiled.is_over(py, execution);
                return given.map(|value| Some(Turn::End(value)));
            }
        }
        Ok(None)
    }

    fn abandon(&mut self) {
        self.race = None;
        if let Some(execution) = &mut self.execution {
            execution.abandon(clock::now());
        }
    }
}

fn close(items: &Bound<'_, PyAny>) -> PyResult<()> {
    match items.getattr_opt("close")? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}

/// What a send gave.
///
/// # Safety
/// Both are as `PyIter_Send` left them: a new reference, or null with the exception set.
unsafe fn sent(py: Python<'_>, status: ffi::PySendResult, result: *mut ffi::PyObject) -> PyResult<Turn> {
    // SAFETY: the caller's promise.
    unsafe {
        match status {
            ffi::PySendResult::PYGEN_NEXT => Ok(Turn::Item(Bound::from_owned_ptr(py, result).unbind())),
            ffi::PySendResult::PYGEN_RETURN => Ok(Turn::End(Bound::from_owned_ptr(py, result).unbind())),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

/// Hands an input to an iterator.
fn advance(items: &Bound<'_, PyAny>, input: Input) -> PyResult<Turn> {
    let py = items.py();
    match input {
        Input::Send(value) => {
            let mut result = null_mut();
            // SAFETY: both are live.
            unsafe { sent(py, ffi::PyIter_Send(items.as_ptr(), value.as_ptr(), &raw mut result), result) }
        }
        Input::Throw(error) => {
            let Some(throw) = items.getattr_opt("throw")? else { return Err(error) };
            match throw.call1((error.into_value(py),)) {
                Ok(item) => Ok(Turn::Item(item.unbind())),
                Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(Turn::End(error.value(py).getattr("value")?.unbind())),
                Err(error) => Err(error),
            }
        }
    }
}

/// What `throw` was given, as an exception.
pub fn thrown(kind: Bound<'_, PyAny>, value: Option<Bound<'_, PyAny>>, traceback: Option<Bound<'_, PyAny>>) -> PyResult<PyErr> {
    let exception = match (kind.cast::<PyType>(), value.filter(|v| !v.is_none())) {
        (Ok(_), Some(value)) if value.is_instance(&kind)? => value,
        (Ok(_), Some(value)) => kind.call1((value,))?,
        (Ok(_), None) => kind.call0()?,
        (Err(_), _) => kind,
    };
    if exception.cast::<pyo3::exceptions::PyBaseException>().is_err() {
        return Err(PyTypeError::new_err("exceptions must be classes or instances deriving from BaseException"));
    }
    if let Some(traceback) = traceback.filter(|t| !t.is_none()) {
        exception.setattr("__traceback__", traceback)?;
    }
    Ok(PyErr::from_value(exception))
}

impl Generator {
    fn of(running: Running) -> Generator {
        Generator(Turnstile::new(State::Waiting(Box::new(running))))
    }

    /// A call that begins with its first item.
    pub fn new(flight: Flight) -> Generator {
        Generator::of(Running { flight, execution: None, current: None, last: None, desk: None, race: None })
    }

    /// A call whose first attempt has given an iterator that nothing was taken from yet.
    pub fn under_way(flight: Flight, execution: Execution, call: CallId, items: Py<PyAny>) -> Generator {
        let current = Some(Current { items, call, open: false });
        Generator::of(Running { flight, execution: Some(execution), current, last: None, desk: None, race: None })
    }

    /// The same with a stream of an SDK, whose pieces these are; so may be those of later attempts.
    pub fn at_a_desk(flight: Flight, execution: Execution, call: CallId, pieces: Py<PyAny>, desk: Desk) -> Generator {
        let current = Some(Current { items: pieces, call, open: false });
        Generator::of(Running { flight, execution: Some(execution), current, last: None, desk: Some(desk), race: None })
    }

    fn enter(&self) -> PyResult<Entered<'_, State>> {
        self.0.enter().ok_or_else(|| PyValueError::new_err("generator already executing"))
    }

    /// The next item of a stream that is open and that nothing limits: straight from the source.
    #[inline]
    fn pass_on(&self) -> Option<*mut ffi::PyObject> {
        let mut entered = self.0.enter()?;
        let State::Waiting(running) = &mut *entered else { return None };
        let current = running.current.as_ref().filter(|current| current.open && !running.flight.has_frames())?;
        let mut result = null_mut();
        // SAFETY: the interpreter calls with its lock held; the source is alive as long as it is ours.
        let status = unsafe { ffi::PyIter_Send(current.items.as_ptr(), ffi::Py_None(), &raw mut result) };
        if status == ffi::PySendResult::PYGEN_NEXT {
            return Some(result);
        }
        // SAFETY: as above.
        running.last = Some(slots::attached(|py| unsafe { sent(py, status, result) }));
        None
    }

    fn resume(&self, py: Python<'_>, input: Input) -> PyResult<Turn> {
        let mut entered = self.enter()?;
        let State::Waiting(running) = &mut *entered else {
            return match input {
                Input::Send(_) => Ok(Turn::End(py.None())),
                Input::Throw(error) => Err(error),
            };
        };
        let turn = running.run(py, input);
        if turn.is_err() {
            running.abandon();
        }
        if !matches!(turn, Ok(Turn::Item(_))) {
            *entered = State::Done;
        }
        turn
    }
}

/// What the methods give: the item, or `StopIteration` at the end.
fn given(turn: Turn) -> PyResult<Py<PyAny>> {
    match turn {
        Turn::Item(item) => Ok(item),
        Turn::End(value) => Err(PyStopIteration::new_err((value,))),
    }
}

/// The slot of `for` loops.
pub unsafe extern "C" fn iternext(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slots::guarded(null_mut(), || {
        if stack::is_used_up() {
            slots::raise(stack::used_up());
            return null_mut();
        }
        // SAFETY: the interpreter calls this slot with instances of its type.
        let generator = unsafe { slots::contents::<Generator>(slf) };
        generator.pass_on().unwrap_or_else(|| slots::attached(|py| next(py, generator)))
    })
}

fn next(py: Python<'_>, generator: &Generator) -> *mut ffi::PyObject {
    let ended = match generator.resume(py, Input::Send(py.None())) {
        Ok(Turn::Item(item)) => return item.into_ptr(),
        Ok(Turn::End(value)) if value.is_none(py) => return null_mut(),
        Ok(Turn::End(value)) => PyStopIteration::new_err((value,)),
        Err(error) => error,
    };
    ended.restore(py);
    null_mut()
}

#[pymethods]
impl Generator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.resume(py, Input::Send(py.None())).and_then(given)
    }

    fn send(&self, py: Python<'_>, value: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let fresh = matches!(&*self.enter()?, State::Waiting(running) if running.execution.is_none());
        if fresh && !value.is_none() {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started generator"));
        }
        self.resume(py, Input::Send(value.unbind())).and_then(given)
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.resume(py, Input::Throw(thrown(kind, value, traceback)?)).and_then(given)
    }

    /// Closes what is inside. Neutral: closing early says nothing of the callee.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut entered = self.enter()?;
        let State::Waiting(running) = &mut *entered else { return Ok(()) };
        let closed = running.current.take().map_or(Ok(()), |current| close(current.items.bind(py)));
        running.abandon();
        *entered = State::Done;
        closed
    }

    fn __repr__(&self) -> &'static str {
        let Some(entered) = self.0.enter() else { return "<guarded generator, running>" };
        match &*entered {
            State::Waiting(running) if running.execution.is_none() => "<guarded generator, not begun>",
            State::Waiting(_) => "<guarded generator, waiting>",
            State::Done => "<guarded generator, done>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What runs right now is no garbage.
        let Some(entered) = self.0.enter() else { return Ok(()) };
        let State::Waiting(running) = &*entered else { return Ok(()) };
        if let Some(current) = &running.current {
            visit.call(&current.items)?;
        }
        if let Some(desk) = &running.desk {
            desk.traverse(&visit)?;
        }
        if let Some(race) = &running.race {
            race.traverse(&visit)?;
        }
        running.flight.traverse(&visit)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        if let State::Waiting(running) = self.0.get_mut() {
            running.abandon();
        }
    }
}
