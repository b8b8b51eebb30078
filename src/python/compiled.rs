//! A pipeline made ready to run: the plan, and for each of its stages and targets what the driver has to know.

use super::judge::Judge;
use super::monitor::Monitor;
use super::policies::circuit_breaker::{CircuitBreaker, short_repr};
use super::policies::fallback::Fallback;
use super::policies::retry::{Hooks, Retry};
use super::policies::timeout::Timeout;
use crate::engine::{Plan, PlanBuilder, StageId, Target};
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::sync::Arc;

/// What the driver knows of a stage.
pub struct Stage {
    pub kind: &'static str,
    pub judge: Judge,
    pub hooks: Option<Hooks>,
    pub breaker: Option<Py<CircuitBreaker>>,
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
}

/// A pipeline made ready.
pub struct Compiled {
    pub plan: Arc<Plan>,
    pub stages: Vec<Stage>,
    pub callees: Vec<Callee>,
    pub name: Option<String>,
    /// Some retry has hooks.
    pub has_hooks: bool,
    /// Somebody has to be told of each attempt.
    pub announces: bool,
    /// Something limits the time of a call.
    pub has_limits: bool,
    /// Counts the calls.
    pub monitor: Option<Py<Monitor>>,
}

struct Builder {
    plan: PlanBuilder,
    stages: Vec<Stage>,
    callees: Vec<Callee>,
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
        let target = Target(self.callees.len() as u16);
        self.callees.push(callee);
        self.stages.push(Stage { kind: "call", judge: Judge::Nobody, hooks: None, breaker: None });
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

    fn layer(&mut self, policy: &Bound<'_, PyAny>, inner: StageId) -> PyResult<StageId> {
        let py = policy.py();
        if let Ok(retry) = policy.cast::<Retry>() {
            let retry = retry.get();
            let id = self.plan.layer(Arc::new(retry.policy(py)), vec![inner]);
            self.stages.push(Stage { kind: "retry", judge: Judge::Retry(retry.judge(py)?), hooks: retry.hooks(py), breaker: None });
            return Ok(id);
        }
        if let Ok(breaker) = policy.cast::<CircuitBreaker>() {
            let id = self.plan.layer(Arc::new(breaker.get().policy()), vec![inner]);
            let judge = Judge::Breaker(breaker.get().judge(py)?);
            self.stages.push(Stage { kind: "circuit_breaker", judge, hooks: None, breaker: Some(breaker.clone().unbind()) });
            return Ok(id);
        }
        if let Ok(timeout) = policy.cast::<Timeout>() {
            let id = self.plan.layer(Arc::new(timeout.get().policy()), vec![inner]);
            self.stages.push(Stage { kind: "timeout", judge: Judge::Nobody, hooks: None, breaker: None });
            return Ok(id);
        }
        if let Ok(fallback) = policy.cast::<Fallback>() {
            let mut branches = vec![inner];
            for alternative in &fallback.get().alternatives {
                let callee = callee(alternative.bind(py))?;
                branches.push(self.leaf(callee));
            }
            let id = self.plan.layer(Arc::new(fallback.get().policy()), branches);
            self.stages.push(Stage { kind: "fallback", judge: Judge::Fallback(fallback.get().judge(py)?), hooks: None, breaker: None });
            return Ok(id);
        }
        Err(PyTypeError::new_err(format!(
            "a pipeline takes policies (Retry, CircuitBreaker, Timeout, Fallback, or another Pipeline), not {}",
            short_repr(policy)
        )))
    }
}

impl Compiled {
    /// Compiles flat policies, outermost first.
    pub fn new(py: Python<'_>, policies: &[Py<PyAny>], name: Option<String>, monitor: Option<Py<Monitor>>) -> PyResult<Compiled> {
        let mut builder = Builder { plan: PlanBuilder::default(), stages: Vec::new(), callees: Vec::new() };
        let root = builder.around(py, policies)?;
        let has_hooks = builder.stages.iter().any(|s| s.hooks.is_some());
        let announces = builder.stages.iter().any(|s| s.hooks.as_ref().is_some_and(|h| h.before.is_some()));
        let has_limits = builder.stages.iter().any(|s| s.kind == "timeout");
        let plan = builder.plan.build(root);
        Ok(Compiled { plan, stages: builder.stages, callees: builder.callees, name, has_hooks, announces, has_limits, monitor })
    }

    /// Whether calls may pass without a machine.
    #[inline]
    pub fn has_lane(&self) -> bool {
        !self.announces && self.plan.has_lane()
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
        for callee in &self.callees {
            match callee {
                Callee::Primary => {}
                Callee::Function(held) | Callee::Runnable(held) | Callee::Prompt(held) | Callee::Value(held) => visit.call(held)?,
            }
        }
        visit.call(&self.monitor)
    }

    pub fn stage(&self, id: StageId) -> &Stage {
        &self.stages[id.0 as usize]
    }

    pub fn callee(&self, target: Target) -> &Callee {
        &self.callees[target.0 as usize]
    }
}
