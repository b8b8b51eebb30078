//! One guarded call as its Python driver sees it: the values behind the machine's tickets, the judges, the hooks, the
//! log and, at the end, what is returned or raised.

use super::compiled::{Callee, Compiled};
use super::errors;
use super::judge::{Happened, Judge};
use super::log;
use super::monitor;
use super::pipeline::Pipeline;
use super::state::{Told, retry_state};
use crate::drive::clock;
use crate::engine::{Ask, Event, Execution, Instant, Outcome, Pass, Rejection, StageId, Target, Ticket, Verdict};
use crate::events::{self, Severity};
use crate::stats::Record;
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;
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
    fn method(self) -> &'static str {
        match self {
            Way::Sync => "invoke",
            Way::Async => "ainvoke",
            Way::Items => "stream",
            Way::AsyncItems => "astream",
        }
    }
}

/// How an attempt came out.
enum Kept {
    Value(Py<PyAny>),
    /// The exception.
    Error(Py<PyAny>),
}

/// One call's values and story.
pub struct Flight {
    pub compiled: Arc<Compiled>,
    /// Whose objects those of `compiled` are: held, so that the collector sees whose they are.
    pipeline: Py<Pipeline>,
    function: Py<PyAny>,
    args: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
    values: Vec<Kept>,
    /// Whether what happens in the course of a call is heard by the log; asked once.
    heard: Option<bool>,
    /// A coroutine or generator that a plain function gave.
    pub given: Option<Py<PyAny>>,
    /// Of the last `retry.exhausted`: attempts, time, reason.
    exhausted: Option<(u32, Duration, &'static str)>,
    begun: Instant,
    retries: u32,
    fell_back: bool,
}

/// An interrupt, or an error of a user's own predicate: the call is abandoned and this is raised.
pub type Interrupt = PyErr;

impl Flight {
    pub fn new<'py>(
        pipeline: &Bound<'py, Pipeline>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Flight {
        Flight {
            compiled: pipeline.get().compiled(),
            pipeline: pipeline.clone().unbind(),
            function: function.clone().unbind(),
            args: args.clone().unbind(),
            kwargs: kwargs.map(|k| k.clone().unbind()),
            values: Vec::new(),
            heard: None,
            given: None,
            exhausted: None,
            begun: Instant(0),
            retries: 0,
            fell_back: false,
        }
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.pipeline)?;
        visit.call(&self.function)?;
        visit.call(&self.args)?;
        visit.call(&self.kwargs)?;
        visit.call(&self.given)?;
        self.values.iter().try_for_each(|kept| match kept {
            Kept::Value(held) | Kept::Error(held) => visit.call(held),
        })
    }

    /// Of the pipeline or, where it has none, of the function.
    fn name(&self, py: Python<'_>) -> String {
        self.compiled.name.clone().unwrap_or_else(|| super::policies::circuit_breaker::short_repr(self.function.bind(py)))
    }

    /// Calls a target. What an object with `invoke` is asked for depends on the way.
    pub fn start(&self, py: Python<'_>, target: Target, way: Way) -> PyResult<Py<PyAny>> {
        let kwargs = self.kwargs.as_ref().map(|k| k.bind(py));
        let args = self.args.bind(py);
        let result = match self.compiled.callee(target) {
            Callee::Primary => self.function.bind(py).call(args, kwargs)?,
            Callee::Function(function) => function.bind(py).call(args, kwargs)?,
            Callee::Runnable(runnable) => runnable.bind(py).getattr(way.method())?.call(args, kwargs)?,
            Callee::Prompt(prompt) => {
                let changed = prompt.bind(py).call_method1("change", (args,))?.cast_into::<PyTuple>()?;
                self.function.bind(py).call(&changed, kwargs)?
            }
            Callee::Value(value) => value.bind(py).clone(),
        };
        Ok(result.unbind())
    }

    /// Keeps how a call came out; an exception that is none of the call's own (an interrupt) is passed on.
    pub fn keep(&mut self, py: Python<'_>, result: PyResult<Py<PyAny>>) -> Result<Outcome, Interrupt> {
        let ticket = Ticket(self.values.len() as u32);
        let (outcome, kept) = match result {
            Ok(value) => (Outcome::Value(ticket), Kept::Value(value)),
            Err(error) if error.is_instance_of::<PyException>(py) => (Outcome::Error(ticket), Kept::Error(error.into_value(py).into_any())),
            Err(interrupt) => return Err(interrupt),
        };
        self.values.push(kept);
        Ok(outcome)
    }

    /// What a rejection is raised as.
    fn rejected(&self, py: Python<'_>, rejection: &Rejection) -> PyErr {
        let (name, last) = match &self.compiled.stage(rejection.stage).breaker {
            Some(breaker) => (breaker.get().display_name(), breaker.get().last_failure(py)),
            None => (self.name(py), None),
        };
        errors::rejection(py, rejection, &name, last.as_ref())
    }

    /// The exception behind an outcome.
    fn exception<'py>(&self, py: Python<'py>, outcome: &Outcome) -> Option<Bound<'py, PyAny>> {
        match outcome {
            Outcome::Error(ticket) => match self.values.get(ticket.0 as usize)? {
                Kept::Error(error) => Some(error.bind(py).clone()),
                Kept::Value(_) => None,
            },
            Outcome::Rejected(rejection) => Some(self.rejected(py, rejection).into_value(py).into_bound(py).into_any()),
            Outcome::Value(_) | Outcome::Stream(_) => None,
        }
    }

    fn value<'py>(&self, py: Python<'py>, ticket: Ticket) -> Bound<'py, PyAny> {
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

    /// Answers the machine's question.
    pub fn judge(&self, py: Python<'_>, ask: Ask) -> Result<Verdict, Interrupt> {
        let stage = self.compiled.stage(ask.stage);
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
                let after = clock::now().since(ask.begun);
                judge.judge(&happened, || self.retry_state(py, ask.attempt, after, Some(&ask.outcome), None))
            }
            Judge::Breaker(judge) => {
                let verdict = judge.judge(&happened)?;
                if let (Verdict::Failure { .. }, Happened::Error(error), Some(breaker)) = (&verdict, &happened, &stage.breaker) {
                    breaker.get().remember((*error).clone().unbind());
                }
                Ok(verdict)
            }
            Judge::Fallback(judge) if judge.only_when_open => {
                let open = matches!(ask.outcome, Outcome::Rejected(r) if r.refusal == crate::engine::Refusal::CircuitOpen);
                Ok(match ask.outcome {
                    _ if open => Verdict::FAILURE,
                    Outcome::Value(_) => Verdict::Success,
                    _ => Verdict::Final,
                })
            }
            Judge::Fallback(judge) => judge.judge(&happened),
            Judge::Nobody => Ok(Verdict::Ignore),
        }
    }

    fn retry_state<'py>(
        &self,
        py: Python<'py>,
        attempt: u32,
        since: Duration,
        outcome: Option<&Outcome>,
        sleep: Option<Duration>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let exception = outcome.and_then(|o| self.exception(py, o)).map(Bound::unbind);
        let result = match outcome {
            Some(Outcome::Value(ticket)) => Some(self.value(py, *ticket).unbind()),
            _ => None,
        };
        let told = Told { attempt, since, exception, result, sleep };
        retry_state(py, Some(&self.function), Some(&self.args), self.kwargs.as_ref(), told)
    }

    /// Tells the log and the hooks what happened. Errors of hooks are logged, never raised; interrupts are passed on.
    pub fn publish(&mut self, py: Python<'_>, happened: Vec<Event>) -> Result<(), Interrupt> {
        for event in happened {
            match event.name {
                events::RETRY_EXHAUSTED => self.exhausted = Some((event.number, event.span, event.reason)),
                events::RETRY_SCHEDULED => self.retries += 1,
                events::FALLBACK_USED => self.fell_back = true,
                _ => {}
            }
            self.log(py, &event)?;
            if self.compiled.has_hooks {
                self.call_hooks(py, &event)?;
            }
        }
        Ok(())
    }

    fn log(&mut self, py: Python<'_>, event: &Event) -> PyResult<()> {
        let Some(kind) = events::kind(event.name) else { return Ok(()) };
        let heard = match (kind.severity, self.heard) {
            (Severity::Info, Some(heard)) => heard,
            (severity, _) => log::is_heard(py, severity)?,
        };
        if kind.severity == Severity::Info {
            self.heard = Some(heard);
        }
        if !heard {
            return Ok(());
        }
        let error = event.outcome.as_ref().and_then(|o| self.exception(py, o));
        let name = match &self.compiled.stage(event.stage).breaker {
            Some(breaker) => breaker.get().display_name(),
            None => self.name(py),
        };
        log::say(py, event, kind.severity, &name, error.as_ref())
    }

    fn call_hooks(&self, py: Python<'_>, event: &Event) -> Result<(), Interrupt> {
        let Some(hooks) = &self.compiled.stage(event.stage).hooks else { return Ok(()) };
        let call = |hook: &Option<Py<PyAny>>, sleep: Option<Duration>| -> Result<(), Interrupt> {
            let Some(hook) = hook else { return Ok(()) };
            let state = self.retry_state(py, event.number, event.elapsed, event.outcome.as_ref(), sleep);
            match state.and_then(|state| hook.bind(py).call1((state,))) {
                Err(error) if error.is_instance_of::<PyException>(py) => log::hook_failed(py, hook.bind(py), &error),
                Err(interrupt) => Err(interrupt),
                Ok(_) => Ok(()),
            }
        };
        hooks.told(event, call)
    }

    /// Tells the monitor how the call came out.
    fn count(&self, ok: bool) -> PyResult<()> {
        let Some(monitor) = &self.compiled.monitor else { return Ok(()) };
        let now = clock::now();
        let latency_ns = now.0.saturating_sub(self.begun.0);
        let record = Record { ok, retries: self.retries, fallback: ok && self.fell_back, latency_ns, tokens: 0 };
        monitor::record(monitor.get(), record, now)
    }

    /// What the caller gets: the value, or the exception with its notes.
    pub fn finish(&mut self, py: Python<'_>, outcome: Outcome, execution: &Execution) -> PyResult<Py<PyAny>> {
        self.count(matches!(outcome, Outcome::Value(_) | Outcome::Stream(_)))?;
        let error = match outcome {
            Outcome::Value(ticket) | Outcome::Stream(ticket) => return Ok(self.value(py, ticket).unbind()),
            failed => match self.exception(py, &failed) {
                Some(error) => error,
                None => return Ok(py.None()),
            },
        };
        let others: Vec<Py<PyAny>> = execution.attached().iter().filter_map(|o| self.exception(py, o)).map(Bound::unbind).collect();
        let mut notes = Vec::new();
        if let Some((attempts, span, reason)) = self.exhausted
            && (attempts > 1 || reason != crate::policies::retry::reason::FINAL)
        {
            let plural = if attempts == 1 { "" } else { "s" };
            notes.push(format!("{attempts} attempt{plural} in {:.1} s, pipeline '{}' ({reason})", span.as_secs_f64(), self.name(py)));
        }
        if !others.is_empty() {
            let kinds: Vec<String> =
                others.iter().map(|o| o.bind(py).get_type().name().map_or_else(|_| "?".into(), |n| n.to_string())).collect();
            notes.push(format!(
                "{} alternative{} failed too: {}",
                others.len(),
                if others.len() == 1 { "" } else { "s" },
                kinds.join(", ")
            ));
        }
        let exception = &error;
        if !notes.is_empty() {
            errors::annotate(exception, &notes.join("; "));
        }
        if !others.is_empty() {
            // An exception that takes no attributes goes without; the note names them.
            let _ = PyTuple::new(py, others).and_then(|others| exception.setattr("alternatives", others));
        }
        Err(PyErr::from_value(error))
    }

    /// A fresh execution of this call.
    pub fn execution(&mut self, now: Instant) -> Execution {
        self.begun = now;
        let execution = Execution::new(self.compiled.plan.clone(), clock::seed(), now);
        if self.compiled.announces { execution.announcing() } else { execution }
    }

    /// The execution of a call that met trouble on the fast lane.
    pub fn resume(&mut self, pass: &Pass) -> Execution {
        self.begun = pass.begun();
        Execution::resumed(self.compiled.plan.clone(), clock::seed(), pass, Instant::NEVER)
    }

    /// Whether the target is the guarded function itself.
    pub fn is_primary(&self, target: Target) -> bool {
        matches!(self.compiled.callee(target), Callee::Primary)
    }

    /// What is guarded.
    pub fn function<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.function.bind(py)
    }

    /// Whether the target's result has to be awaited in an asynchronous call.
    pub fn is_value(&self, target: Target) -> bool {
        matches!(self.compiled.callee(target), Callee::Value(_))
    }

    /// The stage's kind, for tests and messages.
    pub fn kind(&self, stage: StageId) -> &'static str {
        self.compiled.stage(stage).kind
    }
}
