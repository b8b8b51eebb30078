//! What the tokio driver has to ask Python: the user's predicates, stops, waits and hooks, and the log.
//! Python is entered only where there is something to ask or tell; a call without trouble never does.

use super::leg::Stage;
use super::raise;
use crate::drive::{clock, trial};
use crate::engine::{Ask, Event, Refusal, StageId, Verdict};
use crate::events::{self, Severity};
use crate::llm::error::{ApiError, Raised};
use crate::llm::order::{Params, params_at};
use crate::llm::route::{Failure, Foreign, Leg};
use crate::policies::rate_limit::RateLimit;
use crate::python::judge::{Asked, Happened, Judge};
use crate::python::monitor::{Monitor, Watching};
use crate::python::policies::circuit_breaker::{CircuitBreaker, is_change};
use crate::python::{errors, hooks, log, state};
use crate::telemetry::Call;
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;
use std::time::Duration;

/// The Python side of a route.
pub struct Listeners {
    stages: Vec<Stage>,
    names: Vec<String>,
    table: Py<PyAny>,
    function: Option<Py<PyAny>>,
    monitor: Option<Arc<Watching>>,
}

impl Listeners {
    pub fn new(
        stages: Vec<Stage>,
        names: Vec<String>,
        table: Py<PyAny>,
        function: Option<Py<PyAny>>,
        monitor: Option<Py<Monitor>>,
    ) -> Listeners {
        Listeners { stages, names, table, function, monitor: monitor.map(|monitor| Arc::new(Watching(monitor))) }
    }

    /// What a call weighs at a limit by the user's own estimate, if the limit has one.
    pub fn weight(
        &self,
        py: Python<'_>,
        stage: StageId,
        content: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<u64>> {
        let limit = self.stages[stage.0 as usize].limit.as_ref().filter(|limit| limit.get().has_estimate());
        limit.map(|limit| limit.get().weight(py, &PyTuple::new(py, [content])?, params)).transpose()
    }

    /// The limit of a call's key at that leg, if the limit there has keys.
    pub fn keyed(
        &self,
        stage: StageId,
        leg: &Leg,
        content: &Bound<'_, PyAny>,
        said: Option<&Bound<'_, PyDict>>,
        sent: &Params,
    ) -> PyResult<Option<Arc<RateLimit>>> {
        let Some(limit) = &self.stages[stage.0 as usize].limit else { return Ok(None) };
        let parameter = |wanted: &str| {
            let (_, value) = params_at(leg, sent).find(|(name, _)| &**name == wanted)?;
            // A text as it is; of anything else what is sent.
            Some(serde_json::from_slice::<String>(value).unwrap_or_else(|_| String::from_utf8_lossy(value).into_owned()))
        };
        limit.get().of_request(content, &leg.model, || leg.endpoint.place(), said, parameter)
    }

    fn raised(&self, py: Python<'_>, failure: &Failure) -> PyErr {
        match failure {
            Failure::Api(error) => raise::api(py, error, self.table.bind(py), None),
            Failure::Rejected(rejection) => errors::rejection(py, rejection, &self.names[rejection.stage().0 as usize], None),
        }
    }

    fn state<'py>(
        &self,
        py: Python<'py>,
        attempt: u32,
        since: Duration,
        error: Option<&PyErr>,
        upcoming: Option<Duration>,
        sleep: Option<Duration>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let told = state::Told {
            attempt,
            since,
            exception: error.map(|e| e.clone_ref(py).into_value(py).into_any()),
            result: None,
            idle: Duration::ZERO,
            upcoming,
            sleep,
        };
        state::retry_state(py, self.function.as_ref(), None, None, told)
    }

    fn call_hooks(&self, py: Python<'_>, event: &Event, error: Option<&PyErr>) -> PyResult<()> {
        let Some(hooks) = &self.stages[event.stage.0 as usize].hooks else { return Ok(()) };
        hooks.told(event, |hook, sleep| {
            hooks::call(py, hook, || self.state(py, event.number, event.elapsed(), error, None, sleep), false).map(drop)
        })
    }

    /// For the garbage collector, on behalf of the route that nobody shares it with.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for stage in &self.stages {
            stage.judge.as_ref().map_or(Ok(()), |judge| judge.traverse(visit))?;
            stage.hooks.as_ref().map_or(Ok(()), |hooks| hooks.traverse(visit))?;
            visit.call(&stage.breaker)?;
            visit.call(&stage.limit)?;
        }
        visit.call(&self.table)?;
        visit.call(&self.function)?;
        self.monitor.as_ref().map_or(Ok(()), |monitor| visit.call(&monitor.0))
    }
}

/// The caller is on another thread, and what it called has not failed by this: it is shown. An interrupt is passed on.
fn shown(py: Python<'_>, failed: PyErr) -> Result<(), Raised> {
    if !failed.is_instance_of::<PyException>(py) {
        return Err(Arc::new(failed));
    }
    failed.write_unraisable(py, None);
    Ok(())
}

impl Foreign for Listeners {
    fn ended(&self, call: &Call) {
        if let Some(monitor) = &self.monitor {
            monitor.told(call);
        }
    }

    fn judges(&self, stage: StageId) -> bool {
        matches!(self.stages[stage.0 as usize].judge, Some(Judge::Retry(_)))
    }

    fn judge(&self, ask: &Ask, error: &ApiError) -> Result<Verdict, Raised> {
        let Some(Judge::Retry(judge)) = &self.stages[ask.stage().0 as usize].judge else { return Ok(Verdict::Final) };
        // Without an interpreter (it is shutting down) nothing is tried again.
        let verdict = Python::try_attach(|py| {
            let raised = raise::api(py, error, self.table.bind(py), None);
            let exception = raised.value(py).as_any().clone();
            let since = clock::now().since(ask.begun);
            let state = |upcoming| self.state(py, ask.attempt(), since, Some(&raised), upcoming, None);
            let asked = Asked { attempt: ask.attempt(), previous: None, state: &state };
            let giveup = |giveup: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>| giveup.call1((error,))?.is_truthy().map(Some);
            let verdict = judge.judge(&Happened::Error(&exception), asked, giveup);
            // A predicate's own error is shown and ends the retries.
            verdict.or_else(|failed| shown(py, failed).map(|()| Verdict::Final))
        });
        verdict.unwrap_or(Ok(Verdict::Final))
    }

    fn hears(&self, event: &Event) -> bool {
        if trial::is_recorded() {
            return true;
        }
        let loud = event.name.kind().severity != Severity::Debug;
        loud || (event.name == events::ATTEMPT_STARTED && self.stages[event.stage.0 as usize].hooks.is_some())
    }

    fn publish(&self, event: &Event, error: Option<&Failure>) -> Result<(), Raised> {
        let told = Python::try_attach(|py| {
            let raised =
                error.filter(|e| !matches!(e, Failure::Rejected(r) if r.refusal() == Refusal::TimedOut)).map(|e| self.raised(py, e));
            let told = match &self.stages[event.stage.0 as usize].breaker {
                Some(breaker) if is_change(event.name) => CircuitBreaker::tell(breaker.bind(py)),
                _ => log::event(py, event, &self.names[event.stage.0 as usize], raised.as_ref().map(|e| e.value(py).as_any()))
                    .and_then(|()| self.call_hooks(py, event, raised.as_ref())),
            };
            told.or_else(|failed| shown(py, failed))
        });
        told.unwrap_or(Ok(()))
    }
}
