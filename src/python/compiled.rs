//! A pipeline made ready to run: the plan, and for each of its stages and targets what the driver has to know.

use super::cached::Stand;
use super::errors::configuration;
use super::guardrails::Guardrails;
use super::hooks::Hooks;
use super::judge::Judge;
use super::monitor::Monitor;
use super::policies::bulkhead::Bulkhead;
use super::policies::cache::Cache;
use super::policies::chaos::Chaos;
use super::policies::circuit_breaker::CircuitBreaker;
use super::policies::fallback::Fallback;
use super::policies::hedge::Hedge;
use super::policies::rate_limit::RateLimit;
use super::policies::retry::Retry;
use super::policies::timeout::Timeout;
use super::remaining;
use super::tally::{Shares, Tally};
use super::threads::Shared;
use super::wrong_calls;
use crate::drive::{clock, trial};
use crate::engine::{Execution, Idle, Instant, Pass, Plan, PlanBuilder, StageId, Target, Verdict, Way};
use crate::policies::guardrails::Guardrails as Looking;
use crate::policies::retry::Retried;
use crate::stats::{Source, Word};
use crate::telemetry;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What the driver knows of a stage.
pub struct Stage {
    pub judge: Judge,
    pub hooks: Option<Hooks>,
    pub breaker: Option<Py<CircuitBreaker>>,
    /// Of a policy that has a name of its own.
    pub name: Option<String>,
}

impl Stage {
    fn of(judge: Judge) -> Stage {
        Stage { judge, hooks: None, breaker: None, name: None }
    }

    /// Where it is a breaker's, keeps a failure that counts there.
    #[inline]
    pub fn remember(&self, verdict: &Verdict, error: &Bound<'_, PyAny>) {
        if let (Verdict::Failure { .. }, Some(breaker)) = (verdict, &self.breaker) {
            breaker.get().remember(error.py(), error.clone().unbind());
        }
    }
}

/// What a leaf calls.
pub enum Callee {
    /// The guarded function itself.
    Primary,
    /// Another callable, with the call's own arguments.
    Function(Py<PyAny>),
    /// An object with `invoke` and `ainvoke`.
    Runnable(Py<PyAny>),
    /// The primary again, with its first argument changed.
    Prompt(Py<PyAny>),
    /// A ready answer.
    Value(Py<PyAny>),
    /// The exception that is injected in the primary's place.
    Raise(Py<Chaos>),
    /// The result that is.
    Injected(Py<PyAny>),
    /// What a cache has found.
    Found,
}

/// What a call's targets, and the stages it passes, are called where its story is told.
#[derive(Default)]
pub struct Labels {
    /// With the number of the alternative that it is: 0 for the primary, and for what is given in its place.
    pub targets: Vec<(String, u16)>,
    pub places: Vec<Word>,
}

/// A pipeline made ready, for one function or for its own calls.
pub struct Compiled {
    pub plan: Arc<Plan>,
    /// Somebody has to be told of each attempt.
    pub announces: bool,
    /// Something ends a call whose time is over.
    pub has_limits: bool,
    /// The tightest limit that begins with the call.
    pub tightest: Option<Duration>,
    /// Counts the calls.
    pub monitor: Option<Py<Monitor>>,
    /// What its calls are counted under; a pipeline without a name takes the function's.
    pub source: Source,
    /// What has become of the calls.
    pub tally: Tally,
    /// Where there is one function: what that and the stages are called, once somebody had to know.
    labels: Option<OnceLock<Arc<Labels>>>,
    /// The machine of a call that is over, for the next one.
    machine: Shared<Option<Idle>>,
    parts: Arc<Parts>,
}

/// What all functions of a pipeline share beside the plan.
pub struct Parts {
    pub stages: Vec<Stage>,
    pub callees: Vec<Callee>,
    pub name: Option<String>,
    /// Some retry has hooks.
    pub has_hooks: bool,
    /// A hook that has to be awaited, by its argument's name.
    pub async_hook: Option<&'static str>,
    /// Plain functions run on threads of their own.
    pub threaded: bool,
    /// Attempts of one call run beside each other.
    pub hedged: bool,
    /// Where a call weighs something, or has a key.
    pub scales: Vec<(StageId, Py<RateLimit>)>,
    /// Where answers are kept.
    pub caches: Vec<Stand>,
    /// Who looks at what is asked and given, outermost first, and where.
    pub rails: Vec<(StageId, Py<Guardrails>)>,
    /// Answers that were written down, at which they do not look.
    pub written: Vec<Target>,
    shares: Vec<Arc<Shares>>,
}

impl Deref for Compiled {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

#[derive(Default)]
struct Builder {
    plan: PlanBuilder,
    stages: Vec<Stage>,
    callees: Vec<Callee>,
    name: Option<String>,
    limits: Vec<Duration>,
    async_hook: Option<&'static str>,
    timed: bool,
    threaded: bool,
    hedged: bool,
    scales: Vec<(StageId, Py<RateLimit>)>,
    caches: Vec<Stand>,
    rails: Vec<(StageId, Py<Guardrails>)>,
    written: Vec<Target>,
    shares: Vec<Arc<Shares>>,
}

fn callee(alternative: &Bound<'_, PyAny>) -> PyResult<Callee> {
    let owned = alternative.clone().unbind();
    Ok(if alternative.hasattr("_seawall_prompt")? {
        Callee::Prompt(owned)
    } else if alternative.hasattr("invoke")? && alternative.hasattr("ainvoke")? {
        Callee::Runnable(owned)
    } else if alternative.is_callable() {
        Callee::Function(owned)
    } else {
        Callee::Value(owned)
    })
}

impl Builder {
    fn leaf(&mut self, callee: Callee) -> StageId {
        let target = Target(self.callees.len());
        self.callees.push(callee);
        self.stages.push(Stage::of(Judge::Nobody));
        self.plan.leaf(target)
    }

    /// Builds `policies` around what `inner` is, innermost first.
    fn around(&mut self, py: Python<'_>, policies: &[Py<PyAny>]) -> PyResult<StageId> {
        let mut inner = self.leaf(Callee::Primary);
        for policy in policies.iter().rev() {
            inner = self.layer(policy.bind(py), inner)?;
        }
        Ok(inner)
    }

    /// Has guardrails look at what `inner` gives.
    fn looks(&mut self, rails: &Bound<'_, Guardrails>, inner: StageId) -> StageId {
        let id = self.plan.layer(Arc::new(Looking), vec![inner]);
        self.stages.push(Stage::of(Judge::Guardrails(rails.clone().unbind())));
        id
    }

    fn layer(&mut self, policy: &Bound<'_, PyAny>, inner: StageId) -> PyResult<StageId> {
        let py = policy.py();
        if let Ok(retry) = policy.cast::<Retry>() {
            let retry = retry.get();
            let id = self.plan.layer(Arc::new(Retried::new(retry.policy(py, self.name.as_deref()))), vec![inner]);
            self.limits.extend(retry.timeout());
            self.async_hook = self.async_hook.or(retry.async_hook());
            self.shares.push(retry.shares());
            self.stages.push(Stage { hooks: retry.hooks(py), ..Stage::of(Judge::Retry(retry.judge(py)?)) });
            return Ok(id);
        }
        if let Ok(breaker) = policy.cast::<CircuitBreaker>() {
            let id = self.plan.layer(Arc::new(breaker.get().policy()), vec![inner]);
            let judge = Judge::Breaker(breaker.get().judge(py)?);
            self.stages.push(Stage { breaker: Some(breaker.clone().unbind()), ..Stage::of(judge) });
            return Ok(id);
        }
        if let Ok(timeout) = policy.cast::<Timeout>() {
            let id = self.plan.layer(timeout.get().policy(), vec![inner]);
            self.limits.push(timeout.get().limit);
            self.timed = true;
            self.threaded |= timeout.get().thread;
            self.stages.push(Stage::of(Judge::Nobody));
            return Ok(id);
        }
        if let Ok(hedge) = policy.cast::<Hedge>() {
            let id = self.plan.layer(Arc::new(hedge.get().policy()), vec![inner]);
            self.hedged = true;
            self.stages.push(Stage { name: hedge.get().name.clone(), ..Stage::of(Judge::Hedge) });
            return Ok(id);
        }
        if let Ok(limit) = policy.cast::<RateLimit>() {
            let id = self.plan.layer(Arc::new(limit.get().policy()), vec![inner]);
            if limit.get().asks() {
                self.scales.push((id, limit.clone().unbind()));
            }
            let judge = Judge::Limit(limit.clone().unbind());
            self.stages.push(Stage { name: limit.get().name.clone(), ..Stage::of(judge) });
            return Ok(id);
        }
        if let Ok(bulkhead) = policy.cast::<Bulkhead>() {
            let id = self.plan.layer(Arc::new(bulkhead.get().policy()), vec![inner]);
            self.stages.push(Stage { name: bulkhead.get().name.clone(), ..Stage::of(Judge::Nobody) });
            return Ok(id);
        }
        if let Ok(cache) = policy.cast::<Cache>() {
            let target = Target(self.callees.len());
            self.callees.push(Callee::Found);
            self.stages.push(Stage::of(Judge::Nobody));
            let branches = vec![inner, self.plan.ready(target)];
            let id = self.plan.layer(Arc::new(cache.get().policy()), branches);
            self.caches.push(Stand { stage: id, target, cache: cache.clone().unbind() });
            self.stages.push(Stage { name: cache.get().name.clone(), ..Stage::of(Judge::Cache) });
            return Ok(id);
        }
        if let Ok(rails) = policy.cast::<Guardrails>() {
            let id = self.looks(rails, inner);
            self.rails.insert(0, (id, rails.clone().unbind()));
            return Ok(id);
        }
        if let Ok(chaos) = policy.cast::<Chaos>() {
            let branches =
                vec![inner, self.leaf(Callee::Raise(chaos.clone().unbind())), self.leaf(Callee::Injected(chaos.get().given(py)))];
            let id = self.plan.layer(Arc::new(chaos.get().policy()), branches);
            self.stages.push(Stage::of(Judge::Nobody));
            return Ok(id);
        }
        if let Ok(fallback) = policy.cast::<Fallback>() {
            let mut branches = vec![inner];
            for alternative in &fallback.get().alternatives {
                let alternative = alternative.bind(py);
                let callee = callee(alternative)?;
                let is_written = matches!(callee, Callee::Value(_)) || alternative.get_type().hasattr("_seawall_is_written")?;
                let target = Target(self.callees.len());
                let mut branch = self.leaf(callee);
                if is_written && !self.rails.is_empty() {
                    self.written.push(target);
                }
                // What is looked at is looked at whoever gives it; an answer that was written down is as its author wants it.
                let inside: Vec<Py<Guardrails>> = self.rails.iter().rev().map(|(_, rails)| rails.clone_ref(py)).collect();
                for rails in inside.iter().filter(|_| !is_written) {
                    branch = self.looks(rails.bind(py), branch);
                }
                branches.push(branch);
            }
            let id = self.plan.layer(Arc::new(fallback.get().policy()), branches);
            self.stages.push(Stage::of(Judge::Fallback(fallback.get().judge(py)?)));
            return Ok(id);
        }
        Err(wrong_calls::no_policy(policy))
    }
}

impl Compiled {
    /// Compiles flat policies, outermost first.
    pub fn new(py: Python<'_>, policies: &[Py<PyAny>], name: Option<String>, monitor: Option<Py<Monitor>>) -> PyResult<Compiled> {
        let mut builder = Builder { name, ..Builder::default() };
        let root = builder.around(py, policies)?;
        let has_hooks = builder.stages.iter().any(|s| s.hooks.is_some());
        let announces = builder.stages.iter().any(|s| s.hooks.as_ref().is_some_and(|h| h.before.is_some()));
        let has_limits = builder.timed;
        let tightest = builder.limits.iter().min().copied();
        let plan = builder.plan.build(root);
        let tally = Tally::of(&builder.shares);
        let parts = Arc::new(Parts {
            stages: builder.stages,
            callees: builder.callees,
            name: builder.name,
            has_hooks,
            async_hook: builder.async_hook,
            threaded: builder.threaded,
            hedged: builder.hedged,
            scales: builder.scales,
            caches: builder.caches,
            rails: builder.rails,
            written: builder.written,
            shares: builder.shares,
        });
        let source = Source::of(parts.name.as_deref().unwrap_or_default(), "", "");
        Ok(Compiled { plan, announces, has_limits, tightest, monitor, source, tally, labels: None, machine: Shared::default(), parts })
    }

    /// The same with counts of its own, for a function that it guards.
    pub fn anew(&self, py: Python<'_>, function: &str) -> Compiled {
        Compiled {
            source: Source::of(self.name.as_deref().unwrap_or(function), "", ""),
            plan: self.plan.clone(),
            announces: self.announces,
            has_limits: self.has_limits,
            tightest: self.tightest,
            monitor: self.monitor.as_ref().map(|m| m.clone_ref(py)),
            tally: Tally::of(&self.shares),
            labels: Some(OnceLock::new()),
            machine: Shared::default(),
            parts: self.parts.clone(),
        }
    }

    /// A machine for a call that is about to begin; `seed` decides its jitter. Made where it stays: it is large.
    #[inline(always)]
    pub fn machine(&self, py: Python<'_>, seed: u64) -> Execution {
        let idle = self.machine.with(py, Option::take);
        idle.unwrap_or_else(|| Idle::by(self.plan.clone())).wakes_up(seed)
    }

    /// Takes one back whose call is over.
    #[inline(always)]
    pub fn is_over(&self, py: Python<'_>, machine: Execution) {
        let Some(idle) = machine.rests() else { return };
        let other = self.machine.with(py, |kept| match kept {
            Some(_) => Some(idle),
            None => {
                *kept = Some(idle);
                None
            }
        });
        drop(other); // after the look at it
    }

    /// Whether it is there for the calls of one function.
    pub fn is_one_functions(&self) -> bool {
        self.labels.is_some()
    }

    /// What things are called in a call's story, if that was said before.
    #[inline]
    pub fn labels(&self) -> Option<&Arc<Labels>> {
        self.labels.as_ref().and_then(OnceLock::get)
    }

    /// Says it of one call. Made outside any lock: names come from the user's code.
    pub fn are_called(&self, labels: Labels) -> Arc<Labels> {
        let made = Arc::new(labels);
        let _ = self.labels.as_ref().map(|labels| labels.set(made.clone())); // the first one stays
        made
    }

    /// The deadline that a call is told of: one that comes from outside it knows already.
    #[inline]
    pub fn told(&self, deadline: impl FnOnce() -> Instant) -> Instant {
        if self.tightest.is_some() { deadline() } else { Instant::NEVER }
    }

    /// The deadline of a call that began on the fast lane.
    pub fn deadline(&self, py: Python<'_>, pass: &Pass) -> Instant {
        self.told(|| pass.begun().after(self.tightest.unwrap_or(Duration::MAX)).min(remaining::inherited(py)))
    }

    /// Refuses a call that cannot await where a hook has to be awaited.
    pub fn only_sync(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        match self.async_hook {
            Some(hook) => Err(configuration(py, &format!("{hook} is an asynchronous function and {what} is not: nobody could await it"))),
            None => Ok(()),
        }
    }

    /// A call that began on the fast lane is given up: permits go back, nothing counts but that it began, with one attempt.
    pub fn release(&self, pass: &Pass) {
        self.plan.release(pass);
        self.tally.begin();
        self.shares.iter().for_each(|retry| retry.counts.passed(1));
        if telemetry::is_on() {
            telemetry::left(clock::unix(pass.begun()), self.source);
        }
    }

    /// The way of calls that may pass without a machine, if any may.
    #[inline]
    pub fn lane(&self) -> Option<&Way> {
        if self.announces || trial::is_recorded() { None } else { self.plan.way() }
    }

    /// For the garbage collector, on behalf of the pipeline.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for stage in &self.stages {
            stage.judge.traverse(visit)?;
            visit.call(&stage.breaker)?;
            if let Some(hooks) = &stage.hooks {
                hooks.traverse(visit)?;
            }
        }
        for (_, limit) in &self.scales {
            visit.call(limit)?;
        }
        for stand in &self.caches {
            visit.call(&stand.cache)?;
        }
        for (_, rails) in &self.rails {
            visit.call(rails)?;
        }
        for callee in &self.callees {
            match callee {
                Callee::Primary | Callee::Found => {}
                Callee::Function(held) | Callee::Runnable(held) | Callee::Prompt(held) => visit.call(held)?,
                Callee::Value(held) | Callee::Injected(held) => visit.call(held)?,
                Callee::Raise(chaos) => visit.call(chaos)?,
            }
        }
        visit.call(&self.monitor)
    }

    pub fn stage(&self, id: StageId) -> &Stage {
        &self.stages[id.0 as usize]
    }

    pub fn callee(&self, target: Target) -> &Callee {
        &self.callees[target.0]
    }
}
