//! One guarded call as its Python driver sees it: the values behind the machine's tickets, the judges, the hooks, the
//! log and, at the end, what is returned or raised.

use super::bare::{self, Says};
use super::cached::{self, Asked as AskedOfCache, Recording};
use super::compiled::{Callee, Stage};
use super::errors::{self, ours};
use super::event_loop::is_awaitable;
use super::hooks;
use super::judge::{Asked, Happened, Judge, is_shared};
use super::lent::Lent;
use super::policies::circuit_breaker::short_repr;
use super::policies::rate_limit::Asked as AskedOfLimit;
use super::railed::Railed;
use super::raised::Raised;
use super::remaining;
use super::slots;
use super::state::{Told, retry_state};
use super::story::{Diary, FEW};
use super::threads;
use super::trace::{self, Traced};
use crate::drive::{clock, trial};
use crate::engine::{Ask, Execution, Instant, Outcome, Pass, Rejection, Spare, StageId, Target, Ticket, Verdict};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::collections::VecDeque;
use std::time::Duration;

/// What kind of call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Sync,
    Async,
    /// A generator.
    Items,
    /// An asynchronous generator.
    AsyncItems,
}

impl Way {
    pub fn method(self) -> &'static str {
        match self {
            Way::Sync => "invoke",
            Way::Async => "ainvoke",
            Way::Items => "stream",
            Way::AsyncItems => "astream",
        }
    }
}

/// How an attempt came out.
pub(super) enum Kept {
    Value(Py<PyAny>),
    /// The exception.
    Error(Py<PyAny>),
    /// The exception of an attempt that later ones have replaced.
    Gone,
}

/// One call's values and story.
pub struct Flight {
    pub compiled: Lent,
    pub(super) function: Py<PyAny>,
    pub(super) args: Py<PyTuple>,
    pub(super) kwargs: Option<Py<PyDict>>,
    pub(super) railed: Railed,
    pub(super) values: Vec<Kept>,
    /// The failure that was kept last, and what its type says.
    failed: (Ticket, Says),
    /// Whether what happens in the course of a call is heard by the log; asked once.
    pub(super) heard: Option<bool>,
    /// A coroutine or generator that a plain function gave.
    pub given: Option<Py<PyAny>>,
    /// Of the last `retry.exhausted`: attempts, time, reason.
    pub(super) exhausted: Option<(u32, Duration, &'static str)>,
    pub(super) course: Course,
    /// Whether the driver can await what a hook gives.
    pub awaits: bool,
    /// Hooks that have given something to await, and that.
    pub hooks: VecDeque<(Py<PyAny>, Py<PyAny>)>,
    /// What `giveup` gave to await.
    pub asked: Option<Py<PyAny>>,
    /// What `giveup` has answered.
    pub answered: Option<bool>,
    /// The failure that the last `retry.scheduled` of each retry was about.
    pub(super) scheduled: Vec<(StageId, Ticket)>,
    pub diary: Diary,
    /// Its span, where spans are made.
    pub(super) trace: Option<Traced>,
    /// How it came out was told.
    pub(super) is_told: bool,
    asked_of_limits: Vec<AskedOfLimit>,
    /// What it asks of caches.
    pub(super) asked_of: Vec<AskedOfCache>,
    /// Of a coroutine that asks caches: those that wait for what it calls, itself the last.
    asking: Vec<u64>,
    /// Its items, where a cache may want them.
    pub(super) recording: Option<Recording>,
    /// What it gives is nothing for a cache: it is run by somebody else.
    pub(super) is_elsewhere: bool,
    pub(super) way: Way,
}

/// How a call went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    pub begun: Instant,
    pub retries: u32,
    pub fell_back: bool,
    /// Something else than the callee may have answered.
    pub is_injected: bool,
    pub waited: Duration,
    /// The last wait alone.
    pub(super) last_wait: Option<Duration>,
}

/// An interrupt, or an error of a user's own predicate: the call is abandoned and this is raised.
pub type Interrupt = PyErr;

thread_local! {
    static SPARE: (Spare<Kept>, Spare<(StageId, Ticket)>) = const { (Spare::none(), Spare::none()) };
}

/// Puts an execution under the rules that all of this process are under.
fn dress(execution: &mut Execution) {
    if !threads::are_free() {
        execution.in_turn();
    }
    trial::dress(execution);
}

impl Flight {
    pub fn new<'py>(
        compiled: Lent,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Flight {
        // Each by itself, as the diary's.
        let values = SPARE.try_with(|spare| spare.0.take(FEW)).unwrap_or_default();
        let scheduled = SPARE.try_with(|spare| spare.1.take(2)).unwrap_or_default();
        Flight {
            compiled,
            function: function.clone().unbind(),
            args: args.clone().unbind(),
            kwargs: kwargs.map(|k| k.clone().unbind()),
            railed: Railed::default(),
            values,
            failed: (Ticket(u64::MAX), Says::NOTHING),
            heard: None,
            given: None,
            exhausted: None,
            course: Course::default(),
            awaits: false,
            hooks: VecDeque::new(),
            asked: None,
            answered: None,
            scheduled,
            diary: Diary::new(),
            trace: None,
            is_told: false,
            asked_of_limits: Vec::new(),
            asked_of: Vec::new(),
            asking: Vec::new(),
            recording: None,
            is_elsewhere: false,
            way: Way::Sync,
        }
    }

    /// How it has gone so far.
    pub fn course(&self) -> Course {
        self.course
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.compiled.traverse(visit)?;
        visit.call(&self.function)?;
        visit.call(&self.args)?;
        visit.call(&self.kwargs)?;
        visit.call(&self.asked)?;
        self.railed.traverse(visit)?;
        for (hook, waiting) in &self.hooks {
            visit.call(hook)?;
            visit.call(waiting)?;
        }
        visit.call(&self.given)?;
        self.asked_of.iter().try_for_each(|asked| asked.traverse(visit))?;
        self.recording.iter().try_for_each(|recording| recording.traverse(visit))?;
        self.values.iter().try_for_each(|kept| match kept {
            Kept::Value(held) | Kept::Error(held) => visit.call(held),
            Kept::Gone => Ok(()),
        })
    }

    /// Of the pipeline or, where it has none, of the function.
    pub(super) fn name(&self, py: Python<'_>) -> String {
        self.compiled.name.clone().unwrap_or_else(|| short_repr(self.function.bind(py)))
    }

    /// Where a stage is: at a breaker or a limit of a name of its own, or in the pipeline.
    pub(super) fn place(&self, py: Python<'_>, stage: &Stage) -> String {
        match &stage.breaker {
            Some(breaker) => breaker.get().display_name(),
            None => stage.name.clone().unwrap_or_else(|| self.name(py)),
        }
    }

    /// Whether each frame of the user's needs something around it.
    #[inline]
    pub fn has_frames(&self) -> bool {
        self.compiled.has_limits || self.trace.is_some() || self.recording.is_some()
    }

    /// Runs a frame of the user's within a deadline, and in the call's span.
    #[inline]
    pub fn within<T>(&self, py: Python<'_>, deadline: Instant, body: impl FnOnce() -> T) -> T {
        if deadline == Instant::NEVER && self.trace.is_none() && self.asking.is_empty() {
            return body();
        }
        self.within_more(py, deadline, body)
    }

    #[cold]
    fn within_more<T>(&self, py: Python<'_>, deadline: Instant, body: impl FnOnce() -> T) -> T {
        let body = || if self.asking.is_empty() { body() } else { cached::around(py, &self.asking, body) };
        match &self.trace {
            None => remaining::within(py, deadline, body),
            Some(trace) => trace.around(py, || remaining::within(py, deadline, body)),
        }
    }

    /// Calls a target. What an object with `invoke` is asked for depends on the way.
    pub fn start<'py>(&self, py: Python<'py>, target: Target, way: Way) -> Result<Py<PyAny>, Raised<'py>> {
        let raised = |error| Raised::of(py, error);
        if let Callee::Found = self.compiled.callee(target) {
            return self.found(py, target).map_err(raised);
        }
        self.diary.started(target);
        if self.is_primary(target) && self.kwargs.is_none() {
            return self.call_primary(py);
        }
        match self.callable(py, target, way).map_err(raised)? {
            Ok((function, args)) => {
                function.call(args, self.kwargs_for(target).as_ref().map(|k| k.bind(py))).map(Bound::unbind).map_err(raised)
            }
            Err(value) => Ok(value),
        }
    }

    /// Calls the function with positional arguments only, straight from where they lie.
    fn call_primary<'py>(&self, py: Python<'py>) -> Result<Py<PyAny>, Raised<'py>> {
        let (function, args) = (self.function.as_ptr(), self.args.as_ptr());
        // SAFETY: all of it lives as long as `self`, and nobody changes a tuple.
        unsafe {
            let given = match slots::vectorcall_of(function) {
                Some(call) => {
                    let items = (&raw const (*args.cast::<ffi::PyTupleObject>()).ob_item).cast::<*mut ffi::PyObject>();
                    call(function, items, self.args.bind(py).len(), std::ptr::null_mut())
                }
                None => ffi::PyObject_Call(function, args, std::ptr::null_mut()),
            };
            Raised::or(py, given).map(Bound::unbind)
        }
    }

    /// Calls a target on a thread of its own; `None` if it has not come back by `limit`.
    pub fn start_apart(&self, py: Python<'_>, target: Target, limit: Instant) -> PyResult<Option<Py<PyAny>>> {
        static APART: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        if let Callee::Found = self.compiled.callee(target) {
            return self.found(py, target).map(Some);
        }
        self.diary.started(target);
        match self.callable(py, target, Way::Sync)? {
            Ok((function, args)) => {
                let given =
                    ours(py, &APART, "seawall._threads", "apart")?.call1((function, args, self.kwargs_for(target).as_ref(), limit.0))?;
                // What comes at the limit or after it comes too late, whoever noticed first.
                let in_time = !given.is_none() && clock::now() < limit;
                if in_time { given.call0().map(|value| Some(value.unbind())) } else { Ok(None) }
            }
            Err(value) => Ok(Some(value)),
        }
    }

    /// What a target calls with which arguments, or the value that it is.
    #[allow(clippy::type_complexity)] // a pair that is taken apart at once
    pub(super) fn callable<'py>(
        &self,
        py: Python<'py>,
        target: Target,
        way: Way,
    ) -> PyResult<Result<(Bound<'py, PyAny>, Bound<'py, PyTuple>), Py<PyAny>>> {
        let args = match &self.railed.before {
            Some(before) if !self.is_primary(target) => before.args.bind(py).clone(),
            _ => self.args.bind(py).clone(),
        };
        Ok(match self.compiled.callee(target) {
            Callee::Primary => Ok((self.function.bind(py).clone(), args)),
            Callee::Function(function) => Ok((function.bind(py).clone(), args)),
            Callee::Runnable(runnable) => Ok((runnable.bind(py).getattr(way.method())?, args)),
            Callee::Prompt(prompt) => {
                let changed = prompt.bind(py).call_method1("change", (args,))?.cast_into::<PyTuple>()?;
                Ok((self.function.bind(py).clone(), changed))
            }
            Callee::Raise(chaos) => return Err(chaos.get().raised(py)),
            Callee::Value(value) | Callee::Injected(value) => Err(value.clone_ref(py)),
            Callee::Found => Err(self.found(py, target)?),
        })
    }

    /// Keeps how a call came out, and says when; an exception that is none of the call's own (an interrupt) is passed on.
    pub fn keep(&mut self, result: Result<Py<PyAny>, Raised<'_>>) -> Result<(Outcome, Instant), Interrupt> {
        let (ticket, now) = (Ticket(self.values.len() as u64), clock::now());
        // Kept where it is known what it is: one that could be either would be copied from where it was made.
        let outcome = match result.or_else(|error| self.refused(ticket, error)) {
            Ok(value) => {
                self.diary.ended(now, None)?;
                self.values.push(Kept::Value(value));
                Outcome::Value(ticket)
            }
            Err(error) => {
                let (error, says) = bare::outcome(error)?;
                let error = error.into_value();
                self.diary.ended(now, Some((&error, says.name())))?;
                self.values.push(Kept::Error(error.unbind()));
                self.failed = (ticket, says);
                Outcome::Error(ticket)
            }
        };
        Ok((outcome, now))
    }

    /// Keeps the first item of a stream, whose call goes on.
    pub fn keep_item(&mut self, py: Python<'_>, item: Py<PyAny>) -> PyResult<Ticket> {
        if !self.asked_of.is_empty() && !self.is_elsewhere {
            self.recording = Some(Recording::default());
            self.records(item.bind(py))?;
        }
        self.diary.first_item(clock::now());
        self.values.push(Kept::Value(item));
        Ok(Ticket(self.values.len() as u64 - 1))
    }

    /// What a rejection is raised as.
    fn rejected(&self, py: Python<'_>, rejection: &Rejection) -> PyErr {
        let (name, last) = match &self.compiled.stage(rejection.stage()).breaker {
            Some(breaker) => (breaker.get().display_name(), breaker.get().last_failure(py)),
            None => (self.place(py, self.compiled.stage(rejection.stage())), None),
        };
        errors::rejection(py, rejection, &name, last.as_ref())
    }

    /// The exception that an attempt ended with, if it is still there.
    pub(super) fn held(&self, outcome: &Outcome) -> Option<&Py<PyAny>> {
        let Outcome::Error(ticket) = outcome else { return None };
        match self.values.get(ticket.0 as usize)? {
            Kept::Error(error) => Some(error),
            Kept::Value(_) | Kept::Gone => None,
        }
    }

    /// As [`Flight::held`], with what its type says.
    #[inline]
    pub(super) fn failure<'py>(&self, py: Python<'py>, outcome: &Outcome) -> Option<(&Bound<'py, PyAny>, Says)> {
        let error = self.held(outcome)?.bind(py);
        // Most is asked about the failure that came last.
        let says = if *outcome == Outcome::Error(self.failed.0) { self.failed.1 } else { Says::known(error) };
        Some((error, says))
    }

    /// The exception behind an outcome.
    pub(super) fn exception<'py>(&self, py: Python<'py>, outcome: &Outcome) -> Option<Bound<'py, PyAny>> {
        match outcome {
            Outcome::Error(_) => self.held(outcome).map(|error| error.bind(py).clone()),
            Outcome::Rejected(rejection) => Some(self.rejected(py, rejection).into_value(py).into_bound(py).into_any()),
            Outcome::Value(_) | Outcome::Stream(_) => None,
        }
    }

    pub(super) fn value<'py>(&self, py: Python<'py>, ticket: Ticket) -> Bound<'py, PyAny> {
        match self.values.get(ticket.0 as usize) {
            Some(Kept::Value(value)) => value.bind(py).clone(),
            _ => py.None().into_bound(py),
        }
    }

    /// Takes an item out that is handed to the caller: it is not kept.
    pub fn hand_out(&mut self, py: Python<'_>, ticket: Ticket) -> Py<PyAny> {
        match self.values.get_mut(ticket.0 as usize) {
            Some(Kept::Value(value)) => std::mem::replace(value, py.None()),
            _ => py.None(),
        }
    }

    /// Answers the machine's question at once, if it is an easy one: nobody's code is asked.
    #[inline]
    pub fn answer(&self, py: Python<'_>, ask: &Ask) -> Option<&'static Verdict> {
        let (error, says) = self.failure(py, &ask.outcome)?;
        let stage = self.compiled.stage(ask.stage());
        let verdict = stage.judge.at_once(error, says)?;
        stage.remember(verdict, error);
        Some(verdict)
    }

    /// Answers the machine's question.
    ///
    /// Where `giveup` has to be awaited first, that is left in `asked` and the verdict is none: ask again with its answer.
    pub fn judge(&mut self, py: Python<'_>, ask: Ask) -> Result<Verdict, Interrupt> {
        if let Judge::Guardrails(rails) = &self.compiled.stage(ask.stage()).judge {
            let rails = rails.clone_ref(py);
            return self.judge_for_guardrails(py, &ask, &rails);
        }
        let mut waiting = self.asked.take();
        let answered = self.answered.take();
        let verdict = self.judged(py, ask, answered, &mut waiting);
        self.asked = waiting;
        verdict
    }

    fn judged(&self, py: Python<'_>, ask: Ask, answered: Option<bool>, waiting: &mut Option<Py<PyAny>>) -> Result<Verdict, Interrupt> {
        let stage = self.compiled.stage(ask.stage());
        let held;
        let happened = match (&ask.outcome, self.exception(py, &ask.outcome)) {
            (_, Some(error)) => {
                held = error;
                Happened::Error(&held)
            }
            (Outcome::Value(ticket) | Outcome::Stream(ticket), None) => {
                held = self.value(py, *ticket);
                Happened::Value(&held)
            }
            (_, None) => return Ok(Verdict::Ignore),
        };
        match &stage.judge {
            Judge::Retry(judge) => {
                let giveup = |giveup: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>| {
                    if let Some(answered) = answered {
                        return Ok(Some(answered));
                    }
                    let answer = giveup.call1((error,))?;
                    if !is_awaitable(&answer) {
                        return answer.is_truthy().map(Some);
                    }
                    if !self.awaits {
                        return Err(hooks::unawaited("giveup", &answer));
                    }
                    *waiting = Some(answer.unbind());
                    Ok(None)
                };
                let state =
                    |upcoming| self.retry_state(py, ask.attempt(), clock::now().since(ask.begun), Some(&ask.outcome), upcoming, None);
                judge.judge(&happened, Asked { attempt: ask.attempt(), previous: self.course.last_wait, state: &state }, giveup)
            }
            Judge::Breaker(judge) => {
                let verdict = judge.judge(&happened)?;
                if let Happened::Error(error) = &happened {
                    stage.remember(&verdict, error);
                }
                Ok(verdict)
            }
            Judge::Hedge => match &happened {
                Happened::Error(error) if is_shared(error)? => Ok(Verdict::Final),
                _ => Ok(Verdict::FAILURE),
            },
            Judge::Limit(limit) => limit.get().judge(&happened, AskedOfLimit::own(&self.asked_of_limits, ask.stage())),
            Judge::Fallback(judge) if judge.only_when_open => {
                let open = matches!(ask.outcome, Outcome::Rejected(r) if r.refusal() == crate::engine::Refusal::CircuitOpen);
                Ok(match ask.outcome {
                    _ if open => Verdict::FAILURE,
                    Outcome::Value(_) => Verdict::Success,
                    _ => Verdict::Final,
                })
            }
            Judge::Fallback(judge) => judge.judge(&happened),
            Judge::Cache => self.judge_for_cache(ask.stage(), &happened),
            Judge::Guardrails(_) | Judge::Nobody => Ok(Verdict::Ignore),
        }
    }

    pub(super) fn retry_state<'py>(
        &self,
        py: Python<'py>,
        attempt: u32,
        since: Duration,
        outcome: Option<&Outcome>,
        upcoming: Option<Duration>,
        sleep: Option<Duration>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let exception = outcome.and_then(|o| self.exception(py, o)).map(Bound::unbind);
        let result = match outcome {
            Some(Outcome::Value(ticket)) => Some(self.value(py, *ticket).unbind()),
            _ => None,
        };
        let told = Told { attempt, since, exception, result, idle: self.course.waited, upcoming: sleep.or(upcoming), sleep };
        retry_state(py, Some(&self.function), Some(&self.args), self.kwargs.as_ref(), told)
    }

    /// A fresh execution of this call. Fails with what the user's own estimate of its tokens, or key for a cache, raises.
    pub fn execution(&mut self, py: Python<'_>, way: Way, now: Instant) -> PyResult<Execution> {
        self.screens(py)?;
        let compiled = self.compiled.clone_ref(py);
        let (function, args, kwargs) = (self.function.bind(py), self.args.bind(py), self.kwargs.as_ref().map(|k| k.bind(py)));
        self.asked_of_limits =
            compiled.scales.iter().map(|(at, limit)| limit.get().asked(*at, function, args, kwargs)).collect::<PyResult<_>>()?;
        self.way = way;
        if way == Way::Async && !compiled.caches.is_empty() {
            self.asking = cached::within_asking(py)?;
        }
        for stand in &compiled.caches {
            self.asked_of.extend(AskedOfCache::new(stand, function, args, kwargs, way, &compiled.rails, &self.asking)?);
        }
        self.course.begun = now;
        self.diary.begin(now);
        self.compiled.tally.begin();
        self.trace = trace::begin(py, || self.name(py), now);
        let mut execution = self.compiled.machine(py, clock::seed_at(now));
        self.asked_of_limits.iter().for_each(|asked| asked.tell(&mut execution));
        self.asked_of.iter().for_each(|asked| execution.brings(asked.stage(), asked.request().clone()));
        if self.compiled.announces {
            execution.announce();
        }
        dress(&mut execution);
        execution.begin(now, remaining::inherited(py));
        Ok(execution)
    }

    /// An execution of this call that has still to be told how it began.
    #[inline(always)]
    pub fn idle(&self, py: Python<'_>, pass: &Pass) -> Execution {
        self.compiled.machine(py, clock::seed_at(pass.begun()))
    }

    /// It met trouble on the fast lane.
    pub fn resume(&mut self, py: Python<'_>, pass: &Pass, execution: &mut Execution) {
        self.course.begun = pass.begun();
        self.diary.begin(pass.begun());
        self.compiled.tally.begin();
        execution.resume(pass, remaining::inherited(py));
        dress(execution);
    }

    /// Whether the target is the guarded function itself.
    pub fn is_primary(&self, target: Target) -> bool {
        matches!(self.compiled.callee(target), Callee::Primary)
    }

    /// Lets its values go; their places are the next flight's.
    pub(super) fn give_back(&mut self) {
        let (values, scheduled) = (std::mem::take(&mut self.values), std::mem::take(&mut self.scheduled));
        // A thread that is at its end keeps nothing.
        let _ = SPARE.try_with(|spare| {
            spare.0.keep(values);
            spare.1.keep(scheduled);
        });
    }

    /// What is guarded.
    pub fn function<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.function.bind(py)
    }

    /// Whether the target's result has to be awaited in an asynchronous call.
    pub fn is_value(&self, target: Target) -> bool {
        matches!(self.compiled.callee(target), Callee::Value(_) | Callee::Injected(_) | Callee::Found)
    }
}
