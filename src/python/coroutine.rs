//! The coroutine driver: a native awaitable that runs the machine inside the caller's own task.
//!
//! It awaits the guarded coroutine itself, so the task, its context variables and tracebacks are the caller's. A time
//! limit ends the await by cancelling what the task waits for, not the task: an outer cancellation stays visible.

use super::event_loop::{self, Timer};
use super::flight::Flight;
use crate::drive::clock;
use crate::engine::{CallId, Execution, Instant, Step};
use pyo3::exceptions::{PyException, PyGeneratorExit, PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::sync::{Mutex, MutexGuard};

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

enum State {
    Fresh(Box<Running>),
    Suspended(Box<Running>),
    /// On some frame's stack right now.
    Busy,
    Done,
}

/// One asynchronous guarded call.
#[pyclass(frozen, module = "seawall", weakref)]
pub struct Coroutine {
    state: Mutex<State>,
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
        Coroutine { state: Mutex::new(State::Fresh(Box::new(running))) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take(&self) -> PyResult<Box<Running>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Busy) {
            State::Fresh(running) | State::Suspended(running) => Ok(running),
            State::Busy => Err(PyRuntimeError::new_err("this coroutine is already being awaited")),
            State::Done => {
                *state = State::Done;
                Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"))
            }
        }
    }

    fn resume(&self, py: Python<'_>, input: Resume) -> PyResult<Py<PyAny>> {
        let mut running = self.take()?;
        let turn = running.run(py, input);
        if let Ok(Turn::Yield(value)) = turn {
            *self.lock() = State::Suspended(running);
            return Ok(value);
        }
        *self.lock() = State::Done;
        running.disarm(py);
        match turn {
            Ok(Turn::Return(value)) => Err(PyStopIteration::new_err((value,))),
            Ok(Turn::Yield(value)) => Ok(value),
            Err(error) => {
                if let Some(execution) = &mut running.execution {
                    execution.abandon(clock::now());
                }
                Err(error)
            }
        }
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

/// The iterator behind an awaitable; `None` if the value is none.
fn awaitable<'py>(value: &Bound<'py, PyAny>) -> Option<PyResult<Bound<'py, PyAny>>> {
    if let Ok(method) = value.get_type().getattr("__await__") {
        return Some(method.call1((value,)));
    }
    None
}

fn advance(awaitable: &Bound<'_, PyAny>, input: Resume) -> PyResult<Turn> {
    let py = awaitable.py();
    let result = match input {
        Resume::Send(value) if value.is_none(py) => awaitable.call_method0("__next__"),
        Resume::Send(value) => awaitable.call_method1("send", (value,)),
        Resume::Throw(error) => match awaitable.getattr("throw") {
            Ok(throw) => throw.call1((error.into_value(py),)),
            Err(_) => Err(error),
        },
    };
    match result {
        Ok(value) => Ok(Turn::Yield(value.unbind())),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(Turn::Return(error.value(py).getattr("value")?.unbind())),
        Err(error) => Err(error),
    }
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
        self.resume(py, Resume::Throw(PyErr::from_value(exception)))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if matches!(*self.lock(), State::Fresh(_) | State::Done) {
            let old = std::mem::replace(&mut *self.lock(), State::Done);
            drop(old);
            return Ok(());
        }
        match self.resume(py, Resume::Throw(PyGeneratorExit::new_err(()))) {
            Ok(_) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
            Err(error) if error.is_instance_of::<PyGeneratorExit>(py) || error.is_instance_of::<PyStopIteration>(py) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn __repr__(&self) -> &'static str {
        match *self.lock() {
            State::Fresh(_) => "<guarded call, not awaited yet>",
            State::Suspended(_) => "<guarded call, waiting>",
            State::Busy => "<guarded call, running>",
            State::Done => "<guarded call, done>",
        }
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let State::Suspended(running) = state
            && let Some(execution) = &mut running.execution
        {
            // Dropped in the middle: nobody will ever tell how it came out.
            execution.abandon(clock::now());
        }
    }
}
