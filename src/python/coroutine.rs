//! The coroutine driver: a native awaitable, on the fast lane as long as there is no trouble.

use super::async_generator::AsyncGenerator;
use super::awaiting::{Resume, send};
use super::bare;
use super::compiled::Compiled;
use super::event_loop;
use super::flight::{Flight, Way};
use super::generator::thrown;
use super::guarded::Guarded;
use super::guarded::settle;
use super::policies::circuit_breaker::short_repr;
use super::protocol::{Awaitable, yielded};
use super::raised::Raised;
use super::recycled::{Bin, Recycled};
use super::remaining;
use super::running::{Awaited, Running, Turn};
use super::sdk_stream;
use super::slots::{self, Held};
use super::stack;
use super::trace;
use super::turnstile::{Entered, Turnstile};
use crate::drive::clock;
use crate::engine::{CallId, Execution, Pass, Target};
use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::ffi::CString;
use std::ptr::null_mut;

/// A call on the fast lane: its coroutine, and what the machine would need to take over.
struct Light {
    guarded: Held,
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
pub struct Coroutine(Turnstile<State>);

impl Recycled for Coroutine {
    fn bin() -> &'static Bin {
        static BIN: Bin = Bin::new();
        &BIN
    }
}

impl Coroutine {
    pub fn new(flight: Flight) -> Coroutine {
        let running = Running::new(flight, Way::Async);
        Coroutine(Turnstile::new(State::Fresh(Box::new(running))))
    }

    /// A call whose first attempt has given a coroutine that was not begun yet.
    pub fn under_way(flight: Flight, execution: Execution, call: CallId, inner: Py<PyAny>) -> Coroutine {
        let mut running = Running::resumed(flight, Some(execution), Way::Async);
        running.current = Some((inner, Awaited::call(call)));
        Coroutine(Turnstile::new(State::Suspended(Box::new(running))))
    }

    /// A call that may pass without a machine; `inner` is the function's own coroutine, not begun.
    pub fn light<'py>(
        guarded: Bound<'py, Guarded>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
        inner: Bound<'py, PyAny>,
    ) -> Coroutine {
        let (guarded, inner) = (Held::new(guarded.into_any()), Held::new(inner));
        let (args, kwargs) = (Held::new(args.into_any()), kwargs.map(|k| Held::new(k.into_any())));
        let light = Light { guarded, args, kwargs, inner, pass: None };
        Coroutine(Turnstile::new(State::Light(light)))
    }

    fn enter(&self) -> PyResult<Entered<'_, State>> {
        self.0.enter().ok_or_else(|| PyValueError::new_err("coroutine already executing"))
    }

    /// The guarded function's name; `coroutine` where nobody can look.
    fn function_name(&self, py: Python<'_>, part: &Bound<'_, PyString>) -> PyResult<String> {
        let function = match self.0.enter().as_deref() {
            Some(State::Light(light)) => Some(light.guarded(py).get().function(py).clone()),
            Some(State::Fresh(running) | State::Suspended(running)) => Some(running.flight.function(py).clone()),
            Some(State::Done) | None => None,
        };
        let name = function.map(|function| function.getattr_opt(part)).transpose()?.flatten();
        name.map_or_else(|| Ok("coroutine".to_owned()), |name| name.extract())
    }

    /// An attribute of the coroutine that is awaited now, if it has it.
    fn of_the_awaited<'py>(&self, py: Python<'py>, part: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let awaited = match self.0.enter().as_deref() {
            Some(State::Light(light)) => Some(light.inner.bind(py).clone()),
            Some(State::Fresh(running) | State::Suspended(running)) => running.current.as_ref().map(|(held, _)| held.bind(py).clone()),
            Some(State::Done) | None => None,
        };
        Ok(awaited.map(|awaited| awaited.getattr_opt(part)).transpose()?.flatten())
    }

    fn resume(&self, py: Python<'_>, input: Resume) -> PyResult<Turn> {
        let mut entered = self.enter()?;
        let running = match std::mem::replace(&mut *entered, State::Done) {
            State::Light(light) if light.pass.is_some() => light.under_way(py),
            State::Light(light) => light.refused(py),
            State::Fresh(running) | State::Suspended(running) => running,
            State::Done => return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        };
        entered.go_on(py, running, input)
    }
}

impl Awaitable for Coroutine {
    /// One send: on the fast lane as long as there is no trouble.
    fn send_value(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Turn> {
        if stack::is_used_up() {
            return Err(stack::used_up());
        }
        let mut entered = self.enter()?;
        let State::Light(light) = &mut *entered else {
            drop(entered);
            return slots::attached(|py| self.resume(py, Resume::Send(value.clone().unbind())));
        };
        let pass = match light.pass {
            Some(pass) => pass,
            None => match light.admitted(py) {
                Some(pass) => pass,
                None => return entered.trouble(py, None),
            },
        };
        let compiled = light.compiled(py);
        let sent = match compiled.tightest {
            None => send(light.inner.bind(py), value),
            Some(_) => remaining::within(py, compiled.deadline(py, &pass), || send(light.inner.bind(py), value)),
        };
        match sent {
            Ok(Turn::Yield(yielded)) if !compiled.has_limits => Ok(Turn::Yield(yielded)),
            Ok(Turn::Return(result)) if !sdk_stream::is_async(result.bind(py)) => {
                match compiled.plan.way().map_or(Ok(false), |lane| settle(compiled, lane, &pass)) {
                    Ok(true) => {
                        *entered = State::Done;
                        Ok(Turn::Return(result))
                    }
                    Ok(false) => entered.trouble(py, Some(Ok(Turn::Return(result)))),
                    Err(interrupt) => {
                        *entered = State::Done;
                        slots::attached(|_| drop(result));
                        Err(*interrupt)
                    }
                }
            }
            trouble => entered.trouble(py, Some(trouble)),
        }
    }
}

impl State {
    /// Whether it waits in the middle of the call.
    fn is_begun(&self) -> bool {
        match self {
            State::Fresh(_) | State::Done => false,
            State::Light(light) => light.pass.is_some(),
            State::Suspended(running) => running.is_begun(),
        }
    }
}

impl Entered<'_, State> {
    /// Runs until the call suspends or ends, and keeps what is left of it.
    fn go_on(&mut self, py: Python<'_>, mut running: Box<Running>, input: Resume) -> PyResult<Turn> {
        match running.run(py, input) {
            turn @ Ok(Turn::Yield(_)) => {
                **self = State::Suspended(running);
                turn
            }
            Ok(Turn::Stream(stream, call)) => streams(py, running, call, &stream),
            turn @ Err(_) => {
                running.abandon(py);
                turn
            }
            turn => turn,
        }
    }

    /// The machine takes over from the fast lane: from a refusal, or with what the call gave.
    #[cold]
    fn trouble(&mut self, _py: Python<'_>, turn: Option<PyResult<Turn>>) -> PyResult<Turn> {
        slots::attached(|py| {
            let State::Light(light) = std::mem::replace(&mut **self, State::Done) else {
                return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
            };
            let Some(turn) = turn else {
                let running = light.refused(py);
                return self.go_on(py, running, Resume::Send(py.None()));
            };
            let result = match turn {
                Err(error) => Err(bare::outcome(Raised::of(py, error)).map(|(error, _)| PyErr::from(error)).inspect_err(|_| {
                    if let Some(pass) = &light.pass {
                        light.compiled(py).release(pass);
                    }
                })?),
                Ok(Turn::Yield(yielded)) => {
                    let mut running = light.under_way(py);
                    let armed = running.arm(py, &yielded);
                    **self = State::Suspended(running);
                    return armed.map(|()| Turn::Yield(yielded));
                }
                Ok(Turn::Return(value) | Turn::Item(value) | Turn::Stream(value, _)) => Ok(value),
            };
            let mut running = light.under_way(py);
            running.current = None;
            if let Some(Turn::Stream(stream, call)) = running.ended(py, Awaited::begun(CallId::FIRST), result)? {
                return streams(py, running, call, &stream);
            }
            self.go_on(py, running, Resume::Send(py.None()))
        })
    }
}

impl Light {
    #[inline]
    fn guarded<'py>(&self, py: Python<'py>) -> &Bound<'py, Guarded> {
        // SAFETY: made of a guarded function.
        unsafe { self.guarded.bind(py).cast_unchecked::<Guarded>() }
    }

    #[inline]
    fn compiled<'a>(&'a self, py: Python<'a>) -> &'a Compiled {
        self.guarded(py).get().compiled()
    }

    /// Asks to be let in; `None`: the machine has to begin, or to go on from a refusal.
    #[inline]
    fn admitted(&mut self, py: Python<'_>) -> Option<Pass> {
        let compiled = self.compiled(py);
        // Under trio a limit is a scope around the call, and scopes are the machine's.
        let lane = compiled.lane()?;
        if trace::is_on() || (compiled.has_limits && event_loop::trio(py).map_or(true, |trio| trio.is_some())) {
            return None;
        }
        let mut pass = Pass::new(clock::now());
        let admitted = lane.admit(&mut pass);
        self.pass = Some(pass);
        admitted.then_some(pass)
    }

    fn flight(&self, py: Python<'_>) -> Flight {
        // SAFETY: made of a tuple and a dict.
        let (args, kwargs) = unsafe {
            (self.args.bind(py).cast_unchecked::<PyTuple>(), self.kwargs.as_ref().map(|k| k.bind(py).cast_unchecked::<PyDict>()))
        };
        Guarded::flight(self.guarded(py), args, kwargs)
    }

    fn resumed(&self, py: Python<'_>, flight: &mut Flight) -> Option<Execution> {
        self.pass.as_ref().map(|pass| {
            let mut execution = flight.idle(py, pass);
            flight.resume(py, pass, &mut execution);
            execution
        })
    }

    /// The machine's view of a call whose first attempt is under way.
    fn under_way(self, py: Python<'_>) -> Box<Running> {
        let mut flight = self.flight(py);
        let execution = self.resumed(py, &mut flight);
        flight.diary.started(Target::default());
        let mut running = Running::resumed(flight, execution, Way::Async);
        running.current = Some((self.inner.bind(py).clone().unbind(), Awaited::begun(CallId::FIRST)));
        Box::new(running)
    }

    /// The machine's view of a call that has not begun, or that some policy did not let in.
    fn refused(self, py: Python<'_>) -> Box<Running> {
        let mut flight = self.flight(py);
        let execution = self.resumed(py, &mut flight);
        let mut running = Running::resumed(flight, execution, Way::Async);
        running.first = Some(self.inner.bind(py).clone().unbind());
        Box::new(running)
    }
}

/// The end of a coroutine whose call goes on with the items of a stream.
fn streams(py: Python<'_>, running: Box<Running>, call: CallId, stream: &Py<PyAny>) -> PyResult<Turn> {
    AsyncGenerator::at_a_desk(py, running, call, stream).map(|wrapped| Turn::Return(wrapped.unbind()))
}

/// An awaitable that is its own iterator; two cannot await it at once.
pub unsafe extern "C" fn itself(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slots::guarded(null_mut(), || {
        // SAFETY: the interpreter calls this slot with instances of its type.
        let coroutine = unsafe { slots::contents::<Coroutine>(slf) };
        // Whoever is running it right now is told so by the send that follows.
        if coroutine.0.enter().is_some_and(|entered| entered.is_begun()) {
            slots::raise(PyRuntimeError::new_err("coroutine is being awaited already"));
            return null_mut();
        }
        // SAFETY: the interpreter hands in a live object.
        unsafe { ffi::Py_NewRef(slf) }
    })
}

/// Warns as the interpreter does of a coroutine of its own; `Pipeline.acall` makes none before it is awaited.
fn never_awaited(py: Python<'_>, running: &Running) {
    let message = format!("coroutine '{}' was never awaited", short_repr(running.flight.function(py)));
    let warned = CString::new(message).map_or(Ok(()), |text| PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1));
    if let Err(error) = warned {
        error.write_unraisable(py, Some(running.flight.function(py)));
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
        self.send_value(py, &py.None().into_bound(py)).and_then(yielded)
    }

    fn send(&self, py: Python<'_>, value: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if !value.is_none() && matches!(&*self.enter()?, state if !matches!(state, State::Done) && !state.is_begun()) {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine"));
        }
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

    /// Closes what is awaited. Neutral, whatever that says: nobody waits for the answer, so nothing is tried again.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut entered = self.enter()?;
        match &mut *entered {
            State::Light(light) => {
                let closed = light.inner.bind(py).call_method0(intern!(py, "close"));
                if let Some(pass) = &light.pass {
                    light.compiled(py).release(pass);
                }
                *entered = State::Done;
                closed.map(drop)
            }
            State::Fresh(running) | State::Suspended(running) => {
                let closed = running.close(py);
                *entered = State::Done;
                closed
            }
            State::Done => Ok(()),
        }
    }

    // What task reprs, debuggers and stack printers ask of a coroutine.

    #[getter]
    fn __name__(&self, py: Python<'_>) -> PyResult<String> {
        self.function_name(py, intern!(py, "__name__"))
    }

    #[getter]
    fn __qualname__(&self, py: Python<'_>) -> PyResult<String> {
        self.function_name(py, intern!(py, "__qualname__"))
    }

    #[getter]
    fn cr_running(&self) -> bool {
        self.0.enter().is_none()
    }

    #[getter]
    fn cr_suspended(&self) -> bool {
        self.0.enter().is_some_and(|entered| entered.is_begun())
    }

    #[getter]
    fn cr_frame<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of_the_awaited(py, intern!(py, "cr_frame"))
    }

    #[getter]
    fn cr_code<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of_the_awaited(py, intern!(py, "cr_code"))
    }

    #[getter]
    fn cr_await<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of_the_awaited(py, intern!(py, "cr_await"))
    }

    fn __repr__(&self) -> &'static str {
        let Some(entered) = self.0.enter() else { return "<guarded call, running>" };
        match &*entered {
            State::Done => "<guarded call, done>",
            state if state.is_begun() => "<guarded call, waiting>",
            _ => "<guarded call, not awaited yet>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What runs right now is no garbage.
        let Some(entered) = self.0.enter() else { return Ok(()) };
        match &*entered {
            State::Light(light) => {
                light.guarded.traverse(&visit)?;
                light.args.traverse(&visit)?;
                light.kwargs.as_ref().map_or(Ok(()), |kwargs| kwargs.traverse(&visit))?;
                light.inner.traverse(&visit)
            }
            State::Fresh(running) | State::Suspended(running) => running.traverse(&visit),
            State::Done => Ok(()),
        }
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        // What is dropped in the middle will never be told how it came out. All of it goes in here: outside, pyo3 does not
        // know that the interpreter is attached.
        match std::mem::replace(self.0.get_mut(), State::Done) {
            State::Suspended(mut running) => slots::at_the_end(move |py| {
                running.abandon(py);
                drop(running);
            }),
            State::Fresh(running) => slots::at_the_end(move |py| {
                never_awaited(py, &running);
                drop(running);
            }),
            State::Light(light) => {
                if let Some(pass) = &light.pass {
                    slots::attached(|py| light.compiled(py).release(pass));
                }
            }
            State::Done => {}
        }
    }
}
