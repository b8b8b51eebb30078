//! `Retry`.

use crate::engine::Event;
use crate::events;
use crate::policies::retry::{self, Budget, backoff::Backoff};
use crate::python::convert;
use crate::python::judge::{Listed, RetryJudge};
use crate::python::waits::Wait;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// Functions called around the attempts, each with a retry state, as in tenacity.
pub struct Hooks {
    pub before: Option<Py<PyAny>>,
    pub after: Option<Py<PyAny>>,
    pub before_sleep: Option<Py<PyAny>>,
}

impl Hooks {
    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.before, &self.after, &self.before_sleep].into_iter().try_for_each(|hook| visit.call(hook))
    }

    /// Calls the hooks that an event is for, by `call(hook, wait)`.
    pub fn told<E>(&self, event: &Event, call: impl Fn(&Option<Py<PyAny>>, Option<Duration>) -> Result<(), E>) -> Result<(), E> {
        match event.name {
            events::ATTEMPT_STARTED => call(&self.before, None),
            events::RETRY_SCHEDULED => {
                call(&self.after, None)?;
                call(&self.before_sleep, Some(event.span))
            }
            events::RETRY_EXHAUSTED if event.reason != retry::reason::FINAL => call(&self.after, None),
            _ => Ok(()),
        }
    }
}

/// Call again what failed for a passing reason.
///
/// `attempts` is the number of calls, all told (default 3). `on` says which failures: exception classes, a function of
/// the exception (a bool, or the seconds to wait), or a tenacity `retry_if_…` object; by default transient ones.
/// `wait` is a `wait_…` object of seawall or tenacity; default 0.5 s doubling to 8 s, times 0.75 to 1. `timeout` limits
/// all calls and waits together. A `Retry-After` of the server wins over the wait; one longer than `max_retry_after`
/// (120 s) ends the retries. When attempts run out, the last exception itself is raised.
#[pyclass(frozen, module = "seawall", subclass)]
pub struct Retry {
    #[pyo3(get)]
    attempts: u32,
    on: Option<Py<PyAny>>,
    wait: Option<Py<PyAny>>,
    stop: Option<Py<PyAny>>,
    timeout: Option<Duration>,
    max_retry_after: Duration,
    budget: Option<Arc<Budget>>,
    on_result: Option<Py<PyAny>>,
    giveup: Option<Py<PyAny>>,
    before: Option<Py<PyAny>>,
    after: Option<Py<PyAny>>,
    before_sleep: Option<Py<PyAny>>,
}

fn callable(argument: &str, value: Option<Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
    match value {
        None => Ok(None),
        Some(v) if v.is_none() => Ok(None),
        Some(v) if v.is_callable() => Ok(Some(v.unbind())),
        Some(v) => Err(PyTypeError::new_err(format!("{argument} must be a function, not {}", v.repr()?))),
    }
}

#[pymethods]
impl Retry {
    #[new]
    #[pyo3(signature = (attempts=None, *, on=None, wait=None, stop=None, timeout=None, max_retry_after=None, budget=None,
                        on_result=None, giveup=None, before=None, after=None, before_sleep=None))]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new(
        attempts: Option<Bound<'_, PyAny>>,
        on: Option<Bound<'_, PyAny>>,
        wait: Option<Bound<'_, PyAny>>,
        stop: Option<Bound<'_, PyAny>>,
        timeout: Option<Bound<'_, PyAny>>,
        max_retry_after: Option<Bound<'_, PyAny>>,
        budget: Option<Bound<'_, PyAny>>,
        on_result: Option<Bound<'_, PyAny>>,
        giveup: Option<Bound<'_, PyAny>>,
        before: Option<Bound<'_, PyAny>>,
        after: Option<Bound<'_, PyAny>>,
        before_sleep: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Retry> {
        let stop = callable("stop", stop)?;
        let attempts = match convert::optional("attempts", attempts.as_ref(), |a, v| convert::count(a, v, 1))? {
            Some(attempts) => attempts,
            // A stop condition alone decides, as in tenacity.
            None if stop.is_some() => u32::MAX,
            None => 3,
        };
        Listed::parse("on", on.as_ref())?;
        let wait = match wait.filter(|w| !w.is_none()) {
            Some(w) if w.is_callable() => Some(w),
            Some(w) => Some(
                Py::new(w.py(), Wait::of(Backoff::Fixed { wait: convert::seconds("wait", &w)?.as_secs_f64() }))?
                    .into_bound(w.py())
                    .into_any(),
            ),
            None => None,
        };
        let budget = convert::optional("budget", budget.as_ref(), convert::share)?;
        Ok(Retry {
            attempts,
            on: on.map(Bound::unbind),
            wait: wait.map(Bound::unbind),
            stop,
            timeout: convert::optional("timeout", timeout.as_ref(), convert::positive_seconds)?,
            max_retry_after: convert::optional("max_retry_after", max_retry_after.as_ref(), convert::seconds)?
                .unwrap_or(Duration::from_secs(120)),
            budget: budget.map(|share| Arc::new(Budget::new(share, 1.0, 10.0))),
            on_result: callable("on_result", on_result)?,
            giveup: callable("giveup", giveup)?,
            before: callable("before", before)?,
            after: callable("after", after)?,
            before_sleep: callable("before_sleep", before_sleep)?,
        })
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let wait = self.wait.as_ref().map(|w| format!(", wait={}", super::circuit_breaker::short_repr(w.bind(py)))).unwrap_or_default();
        match self.attempts {
            u32::MAX => format!("Retry(stop=…{wait})"),
            attempts => format!("Retry({attempts}{wait})"),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let judged = [&self.on, &self.wait, &self.stop, &self.on_result, &self.giveup];
        judged.into_iter().chain([&self.before, &self.after, &self.before_sleep]).try_for_each(|held| visit.call(held))
    }
}

impl Retry {
    pub fn policy(&self, py: Python<'_>) -> retry::Retry {
        let ours = self.wait.as_ref().and_then(|w| w.bind(py).cast::<Wait>().ok().map(|w| w.get().backoff()));
        let watches_values = matches!(Listed::parse("on", self.on.as_ref().map(|o| o.bind(py))), Ok(Listed::Condition(_)));
        retry::Retry {
            attempts: self.attempts,
            wait: ours.unwrap_or_else(|| Arc::new(Backoff::Sdk)),
            timeout: self.timeout,
            max_retry_after: self.max_retry_after,
            budget: self.budget.clone(),
            judges_values: self.on_result.is_some() || watches_values,
        }
    }

    pub fn judge(&self, py: Python<'_>) -> PyResult<RetryJudge> {
        let foreign_wait = self.wait.as_ref().filter(|w| w.bind(py).cast::<Wait>().is_err());
        Ok(RetryJudge {
            listed: Listed::parse("on", self.on.as_ref().map(|o| o.bind(py)))?,
            stop: self.stop.as_ref().map(|s| s.clone_ref(py)),
            wait: foreign_wait.map(|w| w.clone_ref(py)),
            on_result: self.on_result.as_ref().map(|p| p.clone_ref(py)),
            giveup: self.giveup.as_ref().map(|p| p.clone_ref(py)),
        })
    }

    pub fn hooks(&self, py: Python<'_>) -> Option<Hooks> {
        let clone = |h: &Option<Py<PyAny>>| h.as_ref().map(|h| h.clone_ref(py));
        let hooks = Hooks { before: clone(&self.before), after: clone(&self.after), before_sleep: clone(&self.before_sleep) };
        (hooks.before.is_some() || hooks.after.is_some() || hooks.before_sleep.is_some()).then_some(hooks)
    }
}
