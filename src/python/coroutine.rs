//! The coroutine driver: a native awaitable that runs the machine inside the caller's own task.
//!
//! It awaits the guarded coroutine itself, so the task, its context variables and tracebacks are the caller's. A time
//! limit ends the await by cancelling what the task waits for, not the task: an outer cancellation stays visible.

use super::compiled::Compiled;
use super::event_loop::{self, Timer};
use super::flight::Flight;
use super::guarded::settle;
use super::slots::{self, Held};
use crate::drive::clock;
use crate::engine::{CallId, Execution, Instant, Pass, Step};
use pyo3::exceptions::{PyException, PyGeneratorExit, PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is being awaited.
enum Awaited {
    /// The guarded call; `given_up` once the machine has cancelled it.
    Call { call: CallId, given_up: bool },
    /// The wait between attempts.
    Pause,
}

struct Running {
    flight: Flight,
    execution: Option<Execution>,
    current: Option<(Py<PyAny>, Awaited)>,
    timer: Option<Timer>,
}

/// A call on the fast lane: its coroutine, and what the machine would need to take over.
struct Light {
    compiled: Arc<Compiled>,
    function: Held,
    args: Held,
    kwargs: Option<Held>,
    inner: Held,
    /// Of a call that has begun.
    pass: Option<Pass>,
}

enum State {
    Light(Light),
    Fresh(Box<Running>),
    Suspended(Box<Running>),
    Done,
}

/// One asynchronous guarded call.
#[pyclass(frozen, module = "seawall", weakref)]
pub struct Coroutine {
    /// On some frame's stack right now. Whoever sets it owns the state until it is cleared.
    busy: AtomicBool,
    state: UnsafeCell<State>,
}

// SAFETY: the state is touched only by whoever has set `busy`.
unsafe impl Sync for Coroutine {}

/// The right to the state.
struct Entered<'a>(&'a Coroutine);

impl Entered<'_> {
    fn state(&mut self) -> &mut State {
        // SAFETY: there is one of these at a time, as `busy` says.
        unsafe { &mut *self.0.state.get() }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

enum Resume {
    Send(Py<PyAny>),
    Throw(PyErr),
}

enum Turn {
    Yield(Py<PyAny>),
    Return(Py<PyAny>),
}

impl Coroutine {
    pub fn new(flight: Flight) -> Coroutine {
        let running = Running { flight, execution: None, current: None, timer: None };
        Coroutine { busy: AtomicBool::new(false), state: UnsafeCell::new(State::Fresh(Box::new(running))) }
    }

    /// A call that may pass without a machine; `inner` is the function's own coroutine, not begun.
    pub fn light<'py>(
        compiled: Arc<Compiled>,
        function: &Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
        inner: Bound<'py, PyAny>,
    ) -> Coroutine {
        let (function, inner) = (Held::new(function.clone()), Held::new(inner));
        let (args, kwargs) = (Held::new(args.into_any()), kwargs.map(|k| Held::new(k.into_any())));
        let light = Light { compiled, function, args, kwargs, inner, pass: None };
        Coroutine { busy: AtomicBool::new(false), state: UnsafeCell::new(State::Light(light)) }
    }

    fn try_enter(&self) -> Option<Entered<'_>> {
        (!self.busy.swap(true, Ordering::Acquire)).then_some(Entered(self))
    }

    fn enter(&self) -> PyResult<Entered<'_>> {
        self.try_enter().ok_or_else(|| PyRuntimeError::new_err("this coroutine is already being awaited"))
    }

    fn resume(&self, py: Python<'_>, input: Resume) -> PyResult<Turn> {
        let mut entered = self.enter()?;
        let running = match std::mem::replace(entered.state(), State::Done) {
            State::Light(light) if light.pass.is_some() => light.under_way(py),
            State::Light(light) => light.refused(py),
            State::Fresh(running) | State::Suspended(running) => running,
            State::Done => return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        };
        entered.go_on(py, running, input)
    }

    /// One send: on the fast lane as long as there is no trouble.
    fn send_value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Turn> {
        let mut entered = self.enter()?;
        let State::Light(light) = entered.state() else {
            drop(entered);
            return Python::attach(|py| self.resume(py, Resume::Send(value.clone().unbind())));
        };
        let mut pass = match light.pass {
            Some(pass) => pass,
            None => Pass::new(clock::now()),
        };
        if light.pass.is_none() {
            let admitted = light.compiled.plan.admit(&mut pass);
            light.pass = Some(pass);
            if !admitted {
                return entered.trouble(py, None);
            }
        }
        match send(light.inner.bind(py), value) {
            Ok(Turn::Yield(yielded)) if !light.compiled.has_limits => Ok(Turn::Yield(yielded)),
            Ok(Turn::Return(result)) if settle(&light.compiled, &pass) => {
                *entered.state() = State::Done;
                Ok(Turn::Return(result))
            }
            trouble => entered.trouble(py, Some(trouble)),
        }
    }
}

impl Entered<'_> {
    /// Runs until the call suspends or ends, and keeps what is left of it.
    fn go_on(&mut self, py: Python<'_>, mut running: Box<Running>, input: Resume) -> PyResult<Turn> {
        let turn = running.run(py, input);
        if let Ok(Turn::Yield(_)) = turn {
            *self.state() = State::Suspended(running);
            return turn;
        }
        running.disarm(py);
        if let (Err(_), Some(execution)) = (&turn, &mut running.execution) {
            execution.abandon(clock::now());
        }
        turn
    }

    /// The machine takes over from the fast lane: from a refusal, or with what the call gave.
    #[cold]
    fn trouble(&mut self, _py: Python<'_>, turn: Option<PyResult<Turn>>) -> PyResult<Turn> {
        Python::attach(|py| {
            let State::Light(light) = std::mem::replace(self.state(), State::Done) else {
                return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
            };
            let Some(turn) = turn else {
                let running = light.refused(py);
                return self.go_on(py, running, Resume::Send(py.None()));
            };
            let result = match turn {
                Err(interrupt) if !interrupt.is_instance_of::<PyException>(py) => {
                    if let Some(pass) = &light.pass {
                        light.compiled.plan.release(pass);
                    }
                    return Err(interrupt);
                }
                Ok(Turn::Yield(yielded)) => {
                    let mut running = light.under_way(py);
                    let armed = running.arm(py, &yielded);
                    *self.state() = State::Suspended(running);
                    return armed.map(|()| Turn::Yield(yielded));
                }
                Ok(Turn::Return(value)) => Ok(value),
                Err(error) => Err(error),
            };
            let mut running = light.under_way(py);
            running.current = None;
            running.ended(py, Awaited::Call { call: CallId::FIRST, given_up: false }, result)?;
            self.go_on(py, running, Resume::Send(py.None()))
        })
    }
}

impl Light {
    fn flight(&self, py: Python<'_>) -> Flight {
        // SAFETY: made of a tuple and a dict.
        let (args, kwargs) = unsafe {
            (self.args.bind(py).cast_unchecked::<PyTuple>(), self.kwargs.as_ref().map(|k| k.bind(py).cast_unchecked::<PyDict>()))
        };
        Flight::new(self.compiled.clone(), self.function.bind(py), args, kwargs)
    }

    /// The machine's view of a call whose first attempt is under way.
    fn under_way(self, py: Python<'_>) -> Box<Running> {
        let mut flight = self.flight(py);
        let execution = self.pass.map(|pass| flight.resume(&pass));
        let current = Some((self.inner.bind(py).clone().unbind(), Awaited::Call { call: CallId::FIRST, given_up: false }));
        Box::new(Running { flight, execution, current, timer: None })
    }

    /// The machine's view of a call that has not begun, or that some policy did not let in: its coroutine will not run.
    fn refused(self, py: Python<'_>) -> Box<Running> {
        let mut flight = self.flight(py);
        let execution = self.pass.map(|pass| flight.resume(&pass));
        // Closed, so that nobody is warned of a coroutine that was never awaited.
        if let Err(error) = self.inner.bind(py).call_method0("close") {
            error.write_unraisable(py, Some(self.inner.bind(py)));
        }
        Box::new(Running { flight, execution, current: None, timer: None })
    }
}

impl Running {
    fn run(&mut self, py: Python<'_>, mut input: Resume) -> PyResult<Turn> {
        if self.execution.is_none() {
            if let Resume::Throw(error) = input {
                return Err(error);
            }
            self.execution = Some(self.flight.execution(clock::now()));
        } else {
            input = self.limit_passed(py, input)?;
        }
        loop {
            if let Some((awaitable, awaited)) = self.current.take() {
                match advance(awaitable.bind(py), std::mem::replace(&mut input, Resume::Send(py.None()))) {
                    Ok(Turn::Yield(value)) => {
                        self.current = Some((awaitable, awaited));
                        self.arm(py, &value)?;
                        return Ok(Turn::Yield(value));
                    }
                    Ok(Turn::Return(value)) => self.ended(py, awaited, Ok(value))?,
                    Err(error) => self.ended(py, awaited, Err(error))?,
                }
            }
            if let Some(turn) = self.step(py, &mut input)? {
                return Ok(turn);
            }
        }
    }

    /// If the awakening comes from our own time limit, lets the machine decide what it means for the call.
    fn limit_passed(&mut self, py: Python<'_>, input: Resume) -> PyResult<Resume> {
        let Some(timer) = &self.timer else { return Ok(input) };
        if !timer.expired() {
            return Ok(input);
        }
        let ours = match &input {
            Resume::Send(_) => true,
            Resume::Throw(error) => event_loop::is_cancellation(py, error) && !timer.cancelled_from_outside(py),
        };
        self.disarm(py);
        if !ours {
            return Ok(input);
        }
        if let (Some((_, Awaited::Call { call, given_up })), Some(execution)) = (&mut self.current, &mut self.execution)
            && !*given_up
        {
            // The loop may ring a little early by our clock.
            let now = clock::now().max(execution.next_wake());
            execution.wake(now);
            if execution.is_over(*call) {
                *given_up = true;
                return Ok(Resume::Throw(event_loop::cancellation(py)?));
            }
        }
        Ok(Resume::Send(py.None()))
    }

    fn ended(&mut self, py: Python<'_>, awaited: Awaited, result: PyResult<Py<PyAny>>) -> PyResult<()> {
        match awaited {
            Awaited::Pause => result.map(drop),
            Awaited::Call { given_up: true, .. } => match result {
                // What a call says after it was given up is no outcome; an interrupt of another kind still is one.
                Err(error) if !error.is_instance_of::<PyException>(py) && !event_loop::is_cancellation(py, &error) => Err(error),
                _ => Ok(()),
            },
            Awaited::Call { call, given_up: false } => {
                self.disarm(py);
                let outcome = self.flight.keep(py, result)?;
                if let Some(execution) = &mut self.execution {
                    execution.ended(call, outcome);
                }
                Ok(())
            }
        }
    }

    /// One step of the machine; a turn if it ends the call or suspends it.
    fn step(&mut self, py: Python<'_>, input: &mut Resume) -> PyResult<Option<Turn>> {
        let Some(execution) = &mut self.execution else { return Ok(None) };
        let step = execution.step(clock::now());
        if execution.has_events() {
            let events = execution.take_events();
            self.flight.publish(py, events)?;
        }
        match step {
            Step::Start { call, target, .. } => {
                let started = self.flight.start(py, target, true);
                let awaitable = match started {
                    Ok(value) if self.flight.is_value(target) => Err(Ok(value)),
                    Ok(value) => match awaitable(value.bind(py)) {
                        Some(awaitable) => awaitable.map_err(Err),
                        // An alternative of an asynchronous call may be a plain function.
                        None => Err(Ok(value)),
                    },
                    Err(error) => Err(Err(error)),
                };
                match awaitable {
                    Ok(awaitable) => self.current = Some((awaitable.unbind(), Awaited::Call { call, given_up: false })),
                    Err(result) => self.ended(py, Awaited::Call { call, given_up: false }, result)?,
                }
            }
            Step::Judge(ask) => {
                let verdict = self.flight.judge(py, ask)?;
                execution.verdict(verdict, clock::now());
            }
            Step::Wait { until } => {
                let pause = event_loop::sleep(py, until.since(clock::now()))?;
                self.current = Some((pause.unbind(), Awaited::Pause));
            }
            Step::Done(outcome) => {
                let Some(execution) = &self.execution else { return Ok(None) };
                return self.flight.finish(py, outcome, execution).map(|value| Some(Turn::Return(value)));
            }
            // The cancellation was thrown into the call when its limit passed.
            Step::Cancel { .. } | Step::Deliver(_) => *input = Resume::Send(py.None()),
        }
        Ok(None)
    }

    /// Sets the alarm for the machine's next time limit, now that the call has suspended.
    fn arm(&mut self, py: Python<'_>, waiting_for: &Py<PyAny>) -> PyResult<()> {
        let Some((_, Awaited::Call { given_up: false, .. })) = &self.current else { return Ok(()) };
        let Some(execution) = &mut self.execution else { return Ok(()) };
        let until = execution.next_wake();
        if until == Instant::NEVER {
            return Ok(());
        }
        match &self.timer {
            Some(timer) => timer.waits_for(py, waiting_for),
            None => self.timer = Some(Timer::set(py, until.since(clock::now()), waiting_for)?),
        }
        Ok(())
    }

    fn disarm(&mut self, py: Python<'_>) {
        if let Some(timer) = self.timer.take() {
            timer.cancel(py);
        }
    }
}

/// What an awaitable is driven by: itself if it is a coroutine, else its iterator; `None` if the value is none.
fn awaitable<'py>(value: &Bound<'py, PyAny>) -> Option<PyResult<Bound<'py, PyAny>>> {
    if value.is_exact_instance_of::<Coroutine>() || event_loop::is_coroutine(value) {
        return Some(Ok(value.clone()));
    }
    if let Ok(method) = value.get_type().getattr("__await__") {
        return Some(method.call1((value,)));
    }
    None
}

/// Sends a value into what is awaited.
fn send(awaitable: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Turn> {
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

fn advance(awaitable: &Bound<'_, PyAny>, input: Resume) -> PyResult<Turn> {
    let py = awaitable.py();
    let error = match input {
        Resume::Send(value) => return send(awaitable, value.bind(py)),
        Resume::Throw(error) => error,
    };
    let Ok(throw) = awaitable.getattr("throw") else { return Err(error) };
    match throw.call1((error.into_value(py),)) {
        Ok(value) => Ok(Turn::Yield(value.unbind())),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(Turn::Return(error.value(py).getattr("value")?.unbind())),
        Err(error) => Err(error),
    }
}

/// What a generator's methods give: the value, or `StopIteration` at the end.
fn yielded(turn: Turn) -> PyResult<Py<PyAny>> {
    match turn {
        Turn::Yield(value) => Ok(value),
        Turn::Return(value) => Err(PyStopIteration::new_err((value,))),
    }
}

fn drive(slf: *mut ffi::PyObject, value: *mut ffi::PyObject) -> PyResult<Turn> {
    // SAFETY: the interpreter calls these slots with its lock held, with instances of their type and live values.
    let (py, coroutine) = unsafe { (Python::assume_attached(), slots::contents::<Coroutine>(slf)) };
    // SAFETY: as above.
    let value = unsafe { Bound::from_borrowed_ptr(py, value) };
    coroutine.send_value(py, &value)
}

/// The slot that `await` uses.
pub unsafe extern "C" fn am_send(slf: *mut ffi::PyObject, value: *mut ffi::PyObject, result: *mut *mut ffi::PyObject) -> ffi::PySendResult {
    let (status, object) = slots::guarded((ffi::PySendResult::PYGEN_ERROR, null_mut()), || match drive(slf, value) {
        Ok(Turn::Yield(value)) => (ffi::PySendResult::PYGEN_NEXT, value.into_ptr()),
        Ok(Turn::Return(value)) => (ffi::PySendResult::PYGEN_RETURN, value.into_ptr()),
        Err(error) => {
            slots::raise(error);
            (ffi::PySendResult::PYGEN_ERROR, null_mut())
        }
    });
    // SAFETY: the interpreter's own variable.
    unsafe { *result = object };
    status
}

/// The slot that `await` uses from Python 3.12 on: null without an exception is the end with `None`.
pub unsafe extern "C" fn iternext(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slots::guarded(null_mut(), || {
        // SAFETY: None outlives everybody.
        let ended = match drive(slf, unsafe { ffi::Py_None() }) {
            Ok(Turn::Yield(value)) => return value.into_ptr(),
            // SAFETY: the interpreter calls with its lock held.
            Ok(Turn::Return(value)) if value.is_none(unsafe { Python::assume_attached() }) => {
                // SAFETY: the reference was ours.
                unsafe { ffi::Py_DECREF(value.into_ptr()) };
                return null_mut();
            }
            Ok(Turn::Return(value)) => PyStopIteration::new_err((value,)),
            Err(error) => error,
        };
        slots::raise(ended);
        null_mut()
    })
}

/// An awaitable that is its own iterator.
pub unsafe extern "C" fn itself(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter hands in a live object.
    unsafe { ffi::Py_NewRef(slf) }
}

#[pymethods]
impl Coroutine {
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
        self.resume(py, Resume::Throw(PyErr::from_value(exception))).and_then(yielded)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut entered = self.enter()?;
        let begun = match entered.state() {
            State::Fresh(_) | State::Done => false,
            State::Light(light) => light.pass.is_some(),
            State::Suspended(_) => true,
        };
        if !begun {
            let state = std::mem::replace(entered.state(), State::Done);
            drop(entered);
            if let State::Light(light) = state {
                light.inner.bind(py).call_method0("close")?;
            }
            return Ok(());
        }
        drop(entered);
        match self.resume(py, Resume::Throw(PyGeneratorExit::new_err(()))) {
            Ok(Turn::Return(_)) => Ok(()),
            Ok(Turn::Yield(_)) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
            Err(error) if error.is_instance_of::<PyGeneratorExit>(py) || error.is_instance_of::<PyStopIteration>(py) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn __repr__(&self) -> &'static str {
        let Some(mut entered) = self.try_enter() else { return "<guarded call, running>" };
        match entered.state() {
            State::Fresh(_) | State::Light(Light { pass: None, .. }) => "<guarded call, not awaited yet>",
            State::Suspended(_) | State::Light(_) => "<guarded call, waiting>",
            State::Done => "<guarded call, done>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What runs right now is no garbage.
        let Some(mut entered) = self.try_enter() else { return Ok(()) };
        match entered.state() {
            State::Light(light) => {
                light.function.traverse(&visit)?;
                light.args.traverse(&visit)?;
                light.kwargs.as_ref().map_or(Ok(()), |kwargs| kwargs.traverse(&visit))?;
                light.inner.traverse(&visit)
            }
            State::Fresh(running) | State::Suspended(running) => {
                if let Some((awaited, _)) = &running.current {
                    visit.call(awaited)?;
                }
                running.flight.traverse(&visit)
            }
            State::Done => Ok(()),
        }
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        // Dropped in the middle: nobody will ever tell how it came out.
        match state {
            State::Suspended(running) => {
                if let Some(execution) = &mut running.execution {
                    execution.abandon(clock::now());
                }
            }
            State::Light(Light { compiled, pass: Some(pass), .. }) => compiled.plan.release(pass),
            _ => {}
        }
    }
}
