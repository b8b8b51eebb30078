//! `Retry`.

use crate::policies::budget::Budget;
use crate::policies::retry::{self, backoff::Backoff};
use crate::python::convert;
use crate::python::errors::configuration;
use crate::python::hooks::Hooks;
use crate::python::judge::{Listed, RetryJudge, answers_at_once, callable, happens, kind_of_function, made, predicate};
use crate::python::tally::{self, Shares};
use crate::python::waits::Wait;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::time::Duration;

/// Call again what failed for a passing reason.
///
/// ```python
/// @seawall.Pipeline(seawall.Retry(3, wait=seawall.wait_exponential(max=10)))
/// def ask(question): ...
/// ```
///
/// `attempts` is the number of calls, all told (default 3). `on` says which failures: exception classes, a function of
/// the exception (a bool, or the seconds to wait), or a tenacity `retry_if_…` object; by default transient ones.
/// `wait` is a `wait_…` object of seawall or tenacity; default 0.5 s doubling to 8 s, times 0.75 to 1. `timeout` limits
/// all calls and waits together. A `Retry-After` of the server wins over the wait; one longer than `max_retry_after`
/// (120 s) ends the retries. When attempts run out, the last exception itself is raised.
///
/// `stop` is a `stop_…` object: a function of the retry state that says when it is enough. `on_result` says of a result
/// whether it is a bad one, `giveup` of an exception whether to stop although it is retryable. `before`, `after` and
/// `before_sleep` are called with the retry state around the attempts; what they raise is logged. These hooks and
/// `giveup` may be asynchronous where the guarded function is: they are awaited. `budget` is the share of the calls
/// (0 to 1) that may be retried, shared by all pipelines of one name; when it is spent the failure is raised at once.
///
/// Raises `ConfigurationError` for an argument that makes no sense.
#[pyclass(frozen, module = "seawall", subclass)]
pub struct Retry {
    #[pyo3(get)]
    attempts: u32,
    on: Option<Py<PyAny>>,
    wait: Option<Py<PyAny>>,
    stop: Option<Py<PyAny>>,
    timeout: Option<Duration>,
    max_retry_after: Duration,
    share: Option<f64>,
    budget: Option<Arc<Budget>>,
    on_result: Option<Py<PyAny>>,
    giveup: Option<Py<PyAny>>,
    before: Option<Py<PyAny>>,
    after: Option<Py<PyAny>>,
    before_sleep: Option<Py<PyAny>>,
    async_hook: Option<&'static str>,
    shares: Arc<Shares>,
}

/// The first of these that is a coroutine function.
fn asynchronous(py: Python<'_>, hooks: &[(&'static str, &Option<Py<PyAny>>)]) -> PyResult<Option<&'static str>> {
    for (name, hook) in hooks {
        if let Some(hook) = hook
            && kind_of_function(hook.bind(py))? == "coroutine"
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[pymethods]
impl Retry {
    #[new]
    #[pyo3(signature = (attempts=None, *, on=None, wait=None, stop=None, timeout=None, max_retry_after=None, budget=None,
                        on_result=None, giveup=None, before=None, after=None, before_sleep=None),
           text_signature = "(attempts=None, *, on=None, wait=None, stop=None, timeout=None, max_retry_after=120, budget=None, \
                             on_result=None, giveup=None, before=None, after=None, before_sleep=None)")]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new(
        py: Python<'_>,
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
        stop.as_ref().map(|stop| made("stop", stop)).transpose()?;
        let stop = predicate("stop", stop)?;
        let attempts = match convert::optional("attempts", attempts.as_ref(), |a, v| convert::count(a, v, 1))? {
            Some(attempts) => attempts,
            // A stop condition alone decides, as in tenacity.
            None if stop.is_some() => u32::MAX,
            None => 3,
        };
        happens(py, "on", &Listed::parse("on", on.as_ref())?, true)?;
        let on = on.map(|on| answers_at_once("on", on)).transpose()?;
        let wait = match wait.filter(|w| !w.is_none()) {
            Some(w) if w.is_callable() => {
                made("wait", &w)?;
                Some(answers_at_once("wait", w)?)
            }
            Some(w) => Some(
                Py::new(w.py(), Wait::of(Backoff::Fixed { wait: convert::finite_seconds("wait", &w)?.as_secs_f64() }))?
                    .into_bound(w.py())
                    .into_any(),
            ),
            None => None,
        };
        let share = convert::optional("budget", budget.as_ref(), convert::share)?;
        let (giveup, before) = (callable("giveup", giveup)?, callable("before", before)?);
        let (after, before_sleep) = (callable("after", after)?, callable("before_sleep", before_sleep)?);
        let hooks = [("before", &before), ("after", &after), ("before_sleep", &before_sleep), ("giveup", &giveup)];
        let async_hook = asynchronous(py, &hooks)?;
        Ok(Retry {
            attempts,
            on: on.map(Bound::unbind),
            wait: wait.map(Bound::unbind),
            stop,
            timeout: convert::optional("timeout", timeout.as_ref(), convert::positive_seconds)?,
            max_retry_after: convert::optional("max_retry_after", max_retry_after.as_ref(), convert::seconds)?
                .unwrap_or(Duration::from_secs(120)),
            share,
            budget: share.map(|share| Arc::new(Budget::share(share))),
            on_result: predicate("on_result", on_result)?,
            giveup,
            before,
            after,
            before_sleep,
            async_hook,
            shares: Arc::default(),
        })
    }

    /// What it has done so far, in all pipelines, as a dict: `calls` that came to it, `attempts`, `retries` decided on,
    /// calls given up (`exhausted`) although their last failure was retryable, and the seconds `waited` in all.
    #[getter]
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        tally::told(py, &self.shares.totals())
    }

    /// The first wait at the least, in seconds; `None` where a function of the user's says it.
    #[getter]
    fn _least_wait(&self, py: Python<'_>) -> Option<f64> {
        let is_ours = self.wait.as_ref().is_none_or(|wait| wait.bind(py).cast::<Wait>().is_ok());
        // Some rules fall with the number that is drawn, some rise.
        let backoff = self.backoff(py);
        is_ours.then(|| backoff.seconds(1, None, &mut || 0.0).min(backoff.seconds(1, None, &mut || 1.0)))
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((Option<u32>,), Bound<'py, PyDict>)> {
        let kwargs = PyDict::new(py);
        let functions = [
            ("on", &self.on),
            ("wait", &self.wait),
            ("stop", &self.stop),
            ("on_result", &self.on_result),
            ("giveup", &self.giveup),
            ("before", &self.before),
            ("after", &self.after),
            ("before_sleep", &self.before_sleep),
        ];
        for (name, function) in functions {
            if let Some(function) = function {
                kwargs.set_item(name, function)?;
            }
        }
        kwargs.set_item("timeout", self.timeout.map(|t| t.as_secs_f64()))?;
        kwargs.set_item("max_retry_after", self.max_retry_after.as_secs_f64())?;
        kwargs.set_item("budget", self.share)?;
        Ok(((Some(self.attempts).filter(|n| *n != u32::MAX),), kwargs))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let mut said: Vec<String> = (self.attempts != u32::MAX).then(|| self.attempts.to_string()).into_iter().collect();
        for (name, value) in [("on", &self.on), ("wait", &self.wait), ("stop", &self.stop)] {
            said.extend(value.as_ref().map(|v| format!("{name}={}", super::circuit_breaker::short_repr(v.bind(py)))));
        }
        said.extend(self.timeout.map(|timeout| format!("timeout={}", timeout.as_secs_f64())));
        said.extend(self.share.map(|share| format!("budget={share}")));
        format!("Retry({})", said.join(", "))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let judged = [&self.on, &self.wait, &self.stop, &self.on_result, &self.giveup];
        judged.into_iter().chain([&self.before, &self.after, &self.before_sleep]).try_for_each(|held| visit.call(held))
    }
}

impl Retry {
    fn backoff(&self, py: Python<'_>) -> Arc<Backoff> {
        let ours = self.wait.as_ref().and_then(|w| w.bind(py).cast::<Wait>().ok().map(|w| w.get().backoff()));
        ours.unwrap_or_else(|| Arc::new(Backoff::Sdk))
    }

    /// As it stands in a pipeline of that name: pipelines of one name share one budget.
    pub fn policy(&self, py: Python<'_>, name: Option<&str>) -> retry::Retry {
        let shared = self.share.zip(name).map(|(share, name)| Budget::shared(name, share));
        let watches_values = matches!(Listed::parse("on", self.on.as_ref().map(|o| o.bind(py))), Ok(Listed::Condition(_)));
        retry::Retry {
            attempts: self.attempts,
            wait: self.backoff(py),
            timeout: self.timeout,
            max_retry_after: self.max_retry_after,
            budget: shared.or_else(|| self.budget.clone()),
            judges_values: self.on_result.is_some() || watches_values,
            counts: self.shares.counts.clone(),
        }
    }

    pub fn judge(&self, py: Python<'_>) -> PyResult<RetryJudge> {
        let foreign_wait = self.wait.as_ref().filter(|w| w.bind(py).cast::<Wait>().is_err());
        let listed = Listed::parse("on", self.on.as_ref().map(|o| o.bind(py)))?;
        Ok(RetryJudge {
            is_plain: !listed.is_asked() && self.stop.is_none() && foreign_wait.is_none() && self.giveup.is_none(),
            listed,
            stop: self.stop.as_ref().map(|s| s.clone_ref(py)),
            wait: foreign_wait.map(|w| w.clone_ref(py)),
            backoff: self.backoff(py),
            on_result: self.on_result.as_ref().map(|p| p.clone_ref(py)),
            giveup: self.giveup.as_ref().map(|p| p.clone_ref(py)),
        })
    }

    pub fn hooks(&self, py: Python<'_>) -> Option<Hooks> {
        let clone = |h: &Option<Py<PyAny>>| h.as_ref().map(|h| h.clone_ref(py));
        let hooks = Hooks { before: clone(&self.before), after: clone(&self.after), before_sleep: clone(&self.before_sleep) };
        (hooks.before.is_some() || hooks.after.is_some() || hooks.before_sleep.is_some()).then_some(hooks)
    }

    /// The limit over all calls and waits.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// A hook that has to be awaited.
    pub fn async_hook(&self) -> Option<&'static str> {
        self.async_hook
    }

    /// Refuses hooks that have to be awaited where nobody does.
    pub fn only_sync(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        match self.async_hook {
            Some(hook) => Err(configuration(py, &format!("{hook} is an asynchronous function, and {what} does not await hooks"))),
            None => Ok(()),
        }
    }

    /// Its counts.
    pub fn shares(&self) -> Arc<Shares> {
        self.shares.clone()
    }
}
