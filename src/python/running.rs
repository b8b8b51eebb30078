//! An asynchronous call as the machine drives it, inside the caller's own task: a coroutine, or the items of an
//! asynchronous generator.
//!
//! It awaits the guarded coroutine itself, so the task, its context variables and tracebacks are the caller's. A time
//! limit ends the await by cancelling what the task waits for, not the task: an outer cancellation stays visible.

use super::awaiting::{Resume, advance, anext, awaitable};
use super::bell::Bell;
use super::errors::ours;
use super::event_loop::{self, Scope, Timer};
use super::flight::{Flight, Way};
use super::hooks;
use super::race::Race;
use super::raised::Raised;
use super::sdk_stream::{self, Desk};
use crate::drive::clock;
use crate::drive::inline::Wait;
use crate::engine::{CallId, Execution, Instant, Step, Target};
use pyo3::exceptions::{PyException, PyGeneratorExit, PyRuntimeError, PyStopAsyncIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// What is being awaited.
pub enum Awaited {
    /// The guarded call, or its next item; `begun` once it has run, `given_up` once the machine has cancelled it.
    Call { call: CallId, begun: bool, given_up: bool },
    /// The wait between attempts, or the end of what was given up.
    Pause,
    /// What this hook gave.
    Hook(Py<PyAny>),
    /// What `giveup` gave.
    Giveup,
}

impl Awaited {
    /// A call that has not run yet.
    pub fn call(call: CallId) -> Awaited {
        Awaited::Call { call, begun: false, given_up: false }
    }

    /// A call that has run a while.
    pub fn begun(call: CallId) -> Awaited {
        Awaited::Call { call, begun: true, given_up: false }
    }
}

/// What is handed out.
pub enum Turn {
    /// To the event loop.
    Yield(Py<PyAny>),
    /// An item of a stream.
    Item(Py<PyAny>),
    /// The end.
    Return(Py<PyAny>),
    /// The end of a coroutine, with a stream of an SDK: that call ends with its items.
    Stream(Py<PyAny>, CallId),
}

/// The attempt whose items are handed out.
pub struct Items {
    /// The asynchronous iterator.
    pub source: Py<PyAny>,
    pub call: CallId,
    /// Its first item has been handed out.
    pub open: bool,
}

/// A call under way.
pub struct Running {
    pub flight: Flight,
    pub execution: Option<Execution>,
    /// Where attempts run beside each other until one has answered, what runs.
    pub(super) race: Option<Race>,
    pub current: Option<(Py<PyAny>, Awaited)>,
    timer: Option<Timer>,
    /// Under trio a scope around the attempt takes the timer's place.
    scope: Option<Scope>,
    /// The function's own coroutine, made when the guarded function was called: the first attempt.
    pub first: Option<Py<PyAny>>,
    pub(super) way: Way,
    /// A step of the machine's that waits for hooks.
    held: Option<Step>,
    pub items: Option<Items>,
    /// An exception that the consumer threw in: if it comes out unchanged it says nothing of the callee.
    pub thrown: Option<Py<PyAny>>,
    /// Where streams of an SDK are looked after.
    desk: Option<Desk>,
    /// What another call's signal rings.
    pub(super) bell: Option<Bell>,
}

impl Running {
    /// A call that has not begun.
    pub fn new(mut flight: Flight, way: Way) -> Running {
        flight.awaits = true;
        Running {
            flight,
            execution: None,
            race: None,
            current: None,
            timer: None,
            scope: None,
            first: None,
            way,
            held: None,
            items: None,
            thrown: None,
            desk: None,
            bell: None,
        }
    }

    /// A call whose machine is there already.
    pub fn resumed(flight: Flight, execution: Option<Execution>, way: Way) -> Running {
        Running { execution, ..Running::new(flight, way) }
    }

    /// A coroutine's call that gives items from here on.
    pub fn gives_items(&mut self, items: Items, desk: Desk) {
        self.flight.goes_elsewhere();
        self.flight.railed.is_stream = true;
        (self.way, self.items, self.desk, self.current) = (Way::AsyncItems, Some(items), Some(desk), None);
    }

    /// Runs until something has to be handed out.
    pub fn run(&mut self, py: Python<'_>, mut input: Resume) -> PyResult<Turn> {
        if self.execution.is_none() {
            if let Resume::Throw(error) = input {
                return Err(error);
            }
            self.execution = Some(self.flight.begins(py, self.way, &mut self.first)?);
        } else {
            input = self.limit_passed(py, input)?;
        }
        self.goes_beside(py)?;
        loop {
            if let Some((awaitable, mut awaited)) = self.current.take() {
                self.enter(py, &mut awaited)?;
                let given = std::mem::replace(&mut input, Resume::Send(py.None()));
                let deadline = self.deadline(&awaited);
                let result = match self.flight.within(py, deadline, || advance(awaitable.bind(py), given)) {
                    Ok(Turn::Yield(value)) => {
                        self.current = Some((awaitable, awaited));
                        self.arm(py, &value)?;
                        return Ok(Turn::Yield(value));
                    }
                    Ok(Turn::Return(value) | Turn::Item(value) | Turn::Stream(value, _)) => Ok(value),
                    Err(error) => Err(error),
                };
                let result = self.leave(py, &mut awaited, result);
                if let Some(turn) = self.ended(py, awaited, result)? {
                    return Ok(turn);
                }
            }
            if let Some(turn) = self.step(py, &mut input)? {
                return Ok(turn);
            }
        }
    }

    /// The deadline that what is awaited is told of.
    fn deadline(&self, awaited: &Awaited) -> Instant {
        match (awaited, &self.execution) {
            (Awaited::Call { call, .. }, Some(execution)) => self.flight.compiled.told(|| execution.deadline_of(*call)),
            _ => Instant::NEVER,
        }
    }

    /// The source of items that need no more than to be handed on: the stream is open, and nothing is timed or told.
    #[inline]
    pub fn passes_items(&self) -> Option<(&Py<PyAny>, CallId)> {
        let (compiled, items) = (&self.flight.compiled, self.items.as_ref()?);
        let plain =
            items.open && !self.flight.has_frames() && compiled.tightest.is_none() && self.current.is_none() && self.thrown.is_none();
        plain.then_some((&items.source, items.call))
    }

    /// Runs until what is being closed has ended, whatever it says.
    pub fn run_out(&mut self, py: Python<'_>, input: Resume) -> PyResult<Turn> {
        let Some((awaitable, awaited)) = self.current.take() else { return Ok(Turn::Return(py.None())) };
        let turn = advance(awaitable.bind(py), input)?;
        if let Turn::Yield(_) = turn {
            self.current = Some((awaitable, awaited));
        }
        Ok(turn)
    }

    /// Whether the call waits in the middle of something.
    pub fn is_begun(&self) -> bool {
        !matches!(self.current, None | Some((_, Awaited::Call { begun: false, .. })))
    }

    /// Before a call runs for the first time: opens the scope that limits it, where a scope does.
    fn enter(&mut self, py: Python<'_>, awaited: &mut Awaited) -> PyResult<()> {
        let Awaited::Call { begun: begun @ false, .. } = awaited else { return Ok(()) };
        *begun = true;
        let Some(execution) = &self.execution else { return Ok(()) };
        if self.flight.compiled.has_limits
            && let Some(span) = clock::now().until(execution.next_wake())
        {
            self.scope = Scope::open(py, span)?;
        }
        Ok(())
    }

    /// After it has run for the last time: if the scope has ended it, the machine decides what that means for the call.
    fn leave(&mut self, py: Python<'_>, awaited: &mut Awaited, result: PyResult<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let Some(scope) = self.scope.take() else { return result };
        let Some(result) = scope.close(py, result) else {
            if let (Awaited::Call { call, given_up, .. }, Some(execution)) = (awaited, &mut self.execution) {
                // trio's clock may ring a little early by ours.
                execution.wake(clock::now().max(execution.next_wake()));
                *given_up = execution.is_over(*call);
            }
            return Ok(py.None());
        };
        result
    }

    /// Closes what was made for the first attempt and will not run: nobody is to be warned that it was never awaited.
    fn drop_first(&mut self, py: Python<'_>) {
        if let Some(first) = self.first.take()
            && let Err(error) = first.bind(py).call_method0(intern!(py, "close"))
        {
            error.write_unraisable(py, Some(first.bind(py)));
        }
    }

    /// Closes what is awaited, and gives permits back whatever that says.
    pub fn close(&mut self, py: Python<'_>) -> PyResult<()> {
        let closed = match self.current.take() {
            // The `close` of an item's own await tells its generator nothing before Python 3.13.
            Some((awaitable, Awaited::Call { .. })) if self.items.is_some() => {
                match advance(awaitable.bind(py), Resume::Throw(PyGeneratorExit::new_err(()))) {
                    Ok(Turn::Yield(_)) => Err(PyRuntimeError::new_err("async generator ignored GeneratorExit")),
                    Err(error) if error.is_instance_of::<PyGeneratorExit>(py) || error.is_instance_of::<PyStopAsyncIteration>(py) => Ok(()),
                    other => other.map(drop),
                }
            }
            Some((awaitable, _)) => match awaitable.bind(py).getattr_opt(intern!(py, "close")) {
                Ok(Some(close)) => close.call0().map(drop),
                other => other.map(drop),
            },
            None => Ok(()),
        };
        self.abandon(py);
        closed
    }

    /// Gives permits back; nothing counts.
    pub fn abandon(&mut self, py: Python<'_>) {
        self.disarm(py);
        self.drop_first(py);
        for (_, waiting) in self.flight.hooks.drain(..) {
            // Closed, so that nobody is warned of a coroutine that was never awaited; it has not begun, so it cannot fail.
            let _ = waiting.bind(py).call_method0("close");
        }
        if let Some(scope) = self.scope.take() {
            scope.close(py, Ok(py.None()));
        }
        if let Some(mut race) = self.race.take() {
            race.cancel_others(py, None);
        }
        if let Some(execution) = &mut self.execution {
            execution.abandon(clock::now());
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
        if let (Some((_, Awaited::Call { call, given_up, .. })), Some(execution)) = (&mut self.current, &mut self.execution)
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

    /// A limit that passed while the items were being used ends the stream now. Whether it did.
    pub fn look_at_the_clock(&mut self, py: Python<'_>) -> PyResult<bool> {
        let (Some(execution), Some(items)) = (&mut self.execution, &self.items) else { return Ok(false) };
        if !self.flight.compiled.has_limits {
            return Ok(false);
        }
        execution.wake(clock::now());
        if !execution.is_over(items.call) {
            return Ok(false);
        }
        self.close_items(py)?;
        Ok(true)
    }

    /// Awaits the end of the items that nobody takes any more.
    pub fn close_items(&mut self, py: Python<'_>) -> PyResult<()> {
        if let Some(items) = self.items.take()
            && let Some(close) = items.source.bind(py).getattr_opt(intern!(py, "aclose"))?
            && let Some(closing) = awaitable(&close.call0()?)
        {
            self.current = Some((closing?.unbind(), Awaited::Pause));
        }
        Ok(())
    }

    /// Something that was awaited has ended; a turn if an item comes of it.
    pub fn ended(&mut self, py: Python<'_>, awaited: Awaited, result: PyResult<Py<PyAny>>) -> PyResult<Option<Turn>> {
        match awaited {
            Awaited::Pause => {
                self.bell = None;
                result.map(|_| None)
            }
            Awaited::Hook(hook) => result.map(drop).or_else(|error| hooks::failed(py, hook.bind(py), error)).map(|()| None),
            Awaited::Giveup => {
                self.flight.answered = Some(result?.is_truthy(py)?);
                Ok(None)
            }
            Awaited::Call { given_up: true, .. } => match result {
                // What a call says after it was given up is no outcome; an interrupt of another kind still is one.
                Err(error) if !error.is_instance_of::<PyException>(py) && !event_loop::is_cancellation(py, &error) => Err(error),
                _ => Ok(None),
            },
            Awaited::Call { call, given_up: false, .. } => {
                self.disarm(py);
                if let (Way::Async, Ok(value)) = (self.way, &result)
                    && sdk_stream::is_async(value.bind(py))
                {
                    return result.map(|stream| Some(Turn::Stream(stream, call)));
                }
                let result = match (&mut self.items, result) {
                    (Some(items), Ok(item)) if items.open => {
                        self.flight.records(item.bind(py))?;
                        return Ok(Some(Turn::Item(item)));
                    }
                    (Some(items), Ok(item)) => {
                        items.open = true;
                        self.opened(py, call, item)?;
                        return Ok(None);
                    }
                    (Some(_), Err(end)) if end.is_instance_of::<PyStopAsyncIteration>(py) => Ok(py.None()),
                    (_, result) => result,
                };
                if let Some(items) = self.items.take() {
                    self.flight.has_passed(items.source);
                }
                if let (Err(error), Some(thrown)) = (&result, &self.thrown)
                    && thrown.is(error.value(py))
                {
                    return result.map(|_| None);
                }
                let (outcome, _) = self.flight.keep(result.map_err(|error| Raised::of(py, error)))?;
                if let Some(execution) = &mut self.execution {
                    execution.ended(call, outcome);
                }
                Ok(None)
            }
        }
    }

    pub(super) fn opened(&mut self, py: Python<'_>, call: CallId, item: Py<PyAny>) -> PyResult<()> {
        let ticket = self.flight.keep_item(py, item)?;
        if let Some(execution) = &mut self.execution {
            execution.opened(call, ticket);
        }
        Ok(())
    }

    /// What a target gives: the primary's first call may have been made already.
    pub(super) fn start(&mut self, py: Python<'_>, target: Target, deadline: Instant) -> PyResult<Py<PyAny>> {
        match self.first.take() {
            Some(first) if self.flight.is_primary(target) => {
                self.flight.diary.started(target);
                Ok(first)
            }
            first => {
                self.first = first;
                self.flight.within(py, deadline, || self.flight.start(py, target, self.way)).map_err(PyErr::from)
            }
        }
    }

    /// One step of the machine; a turn if it ends the call or suspends it.
    fn step(&mut self, py: Python<'_>, input: &mut Resume) -> PyResult<Option<Turn>> {
        if let Some((hook, waiting)) = self.flight.hooks.pop_front() {
            self.wait_for(waiting.bind(py), Awaited::Hook(hook))?;
            return Ok(None);
        }
        let Some(execution) = &mut self.execution else { return Ok(None) };
        let step = match self.held.take() {
            Some(step) => step,
            None => {
                let step = execution.step_answered(clock::now(), |ask| self.flight.answer(py, ask));
                if execution.has_events() {
                    let events = execution.take_events();
                    self.flight.publish(py, events)?;
                }
                step
            }
        };
        if !self.flight.hooks.is_empty() {
            self.held = Some(step);
            return Ok(None);
        }
        match step {
            Step::Start { call, target, deadline } if self.race.is_some() => return self.start_beside(py, call, target, deadline),
            Step::Start { call, target, deadline } => {
                let deadline = self.flight.compiled.told(|| deadline);
                let started = self.start(py, target, deadline);
                let awaitable = match started {
                    Ok(value) if self.way == Way::AsyncItems => self.first_item(value.bind(py), call, target).map_err(Err),
                    Ok(value) if self.flight.is_value(target) => Err(Ok(value)),
                    Ok(value) => match awaitable(value.bind(py)) {
                        Some(awaitable) => awaitable.map_err(Err),
                        // An alternative of an asynchronous call may be a plain function.
                        None => Err(Ok(value)),
                    },
                    Err(error) => Err(Err(error)),
                };
                let awaited = Awaited::call(call);
                match awaitable {
                    Ok(awaitable) => self.current = Some((awaitable.unbind(), awaited)),
                    Err(result) => return self.ended(py, awaited, result),
                }
            }
            Step::Judge(ask) => {
                let verdict = self.flight.judge(py, ask)?;
                if let Some(waiting) = self.flight.asked.take() {
                    // Unanswered, the question comes again.
                    self.wait_for(waiting.bind(py), Awaited::Giveup)?;
                } else {
                    execution.verdict(verdict, clock::now());
                }
            }
            Step::Wait { until } if self.race.as_ref().is_some_and(|race| !race.is_empty()) => return self.wait_beside(py, until),
            Step::Wait { until } => {
                let wait = Wait::of(execution, until);
                let pause = match &wait.signal {
                    None => event_loop::sleep(py, until)?,
                    Some(signal) => match Bell::hang(py, signal, &wait)? {
                        Some((bell, pause)) => {
                            self.bell = Some(bell);
                            pause
                        }
                        None => return Ok(None),
                    },
                };
                self.current = Some((pause.unbind(), Awaited::Pause));
            }
            Step::Done(outcome) => {
                self.drop_first(py);
                let Some(execution) = self.execution.take() else { return Ok(None) };
                let given = self.flight.finish(py, outcome, &execution, clock::now());
                self.flight.compiled.is_over(py, execution);
                return given.map(|value| Some(Turn::Return(value)));
            }
            Step::Deliver(ticket) => return Ok(Some(Turn::Item(self.flight.hand_out(py, ticket)))),
            Step::Cancel { call, beaten } if self.cancel_beside(py, call, beaten) => {}
            Step::Cancel { .. } => {
                self.flight.diary.cut(clock::now());
                // The cancellation was thrown into the call when its limit passed; what is left of a stream is closed.
                *input = Resume::Send(py.None());
                self.close_items(py)?;
            }
        }
        Ok(None)
    }

    fn wait_for(&mut self, waiting: &Bound<'_, PyAny>, awaited: Awaited) -> PyResult<()> {
        self.current = awaitable(waiting).transpose()?.map(|awaitable| (awaitable.unbind(), awaited));
        Ok(())
    }

    /// The asynchronous iterator of what a target has given.
    pub(super) fn source_of<'py>(&self, value: &Bound<'py, PyAny>, target: Target) -> PyResult<Bound<'py, PyAny>> {
        static SEVERAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = value.py();
        if let Some(desk) = &self.desk {
            return Ok(desk.open(value, self.flight.rails_of(py, target)?.is_some())?.into_bound(py));
        }
        let items = if value.hasattr(intern!(py, "__anext__"))? {
            value.clone()
        } else {
            ours(py, &SEVERAL, "seawall._guarded", "several")?.call1((value,))?
        };
        self.flight.screened(&items, Some(target), true).map(|items| items.into_bound(py))
    }

    /// The awaitable of a target's first item.
    fn first_item<'py>(&mut self, value: &Bound<'py, PyAny>, call: CallId, target: Target) -> PyResult<Bound<'py, PyAny>> {
        let source = self.source_of(value, target)?;
        let next = anext(&source)?;
        self.items = Some(Items { source: source.unbind(), call, open: false });
        Ok(next)
    }

    /// Sets the alarm for the machine's next time limit, now that the call has suspended.
    pub fn arm(&mut self, py: Python<'_>, waiting_for: &Py<PyAny>) -> PyResult<()> {
        let Some((_, Awaited::Call { given_up: false, .. })) = &self.current else { return Ok(()) };
        let Some(execution) = &mut self.execution else { return Ok(()) };
        let until = execution.next_wake();
        if until == Instant::NEVER || self.scope.is_some() {
            return Ok(());
        }
        match &self.timer {
            Some(timer) => timer.waits_for(py, waiting_for),
            None => self.timer = Some(Timer::set(py, until, waiting_for)?),
        }
        Ok(())
    }

    fn disarm(&mut self, py: Python<'_>) {
        if let Some(timer) = self.timer.take() {
            timer.cancel(py);
        }
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some((awaited, _)) = &self.current {
            visit.call(awaited)?;
        }
        if let Some(items) = &self.items {
            visit.call(&items.source)?;
        }
        if let Some(timer) = &self.timer {
            timer.traverse(visit)?;
        }
        if let Some(scope) = &self.scope {
            scope.traverse(visit)?;
        }
        if let Some(bell) = &self.bell {
            bell.traverse(visit)?;
        }
        if let Some(race) = &self.race {
            race.traverse(visit)?;
        }
        visit.call(&self.first)?;
        visit.call(&self.thrown)?;
        if let Some(desk) = &self.desk {
            desk.traverse(visit)?;
        }
        self.flight.traverse(visit)
    }
}
