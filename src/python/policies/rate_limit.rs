//! `RateLimit`.

use super::shared;
use crate::drive::clock;
use crate::engine::{Verdict, WaitHint};
use crate::policies::rate_limit::{self as core, Config, Limited};
use crate::python::bare;
use crate::python::convert::{self, quoted};
use crate::python::errors::{configuration, ours, picture};
use crate::python::hooks;
use crate::python::judge::{Happened, function_at_once, server_wait};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyTuple};
use std::sync::Arc;
use std::time::Duration;

/// So many calls wait, where nothing is said.
const QUEUE: u32 = 1000;

/// At most `requests` calls and `tokens` tokens in each `per` seconds (default 60). A call waits for its turn, first come first
/// served; one that cannot have it in time is turned away at once, with `RateLimitExceededError` and its `retry_after`.
///
/// Each call takes one request and its estimated tokens at its turn; what it really used settles that: more is owed, what it did
/// not use is given back; `settle=False` leaves it at the estimate, for servers that go by what was asked for. `estimate(*args, **kwargs) -> int` says how many it may use; without one it is the call's text at four
/// bytes a token, and `max_tokens` or `max_completion_tokens` where the call has one. `settle(result) -> int` says how many it has
/// used; without one they are read from the result's `usage` or `usage_metadata`, and where there is none the estimate holds.
///
/// `burst` requests (tokens, if only tokens are limited) may go at once after a pause: by default a fiftieth of the limit, so that
/// calls are spread evenly and no minute of a server's sees more than the limit, wherever it begins. 98 % of the limit are used.
///
/// At most `max_queue` calls wait (default 1000), `max_wait` seconds each (default: as long as the limits around the call allow).
///
/// A 429 pauses everybody for its `Retry-After`; `x-ratelimit-…` headers of failures lower what is left, and never raise it. A
/// RateLimit is shared state: used in two pipelines, it is one; `copy` and `deepcopy` give the object itself. It pickles by its
/// arguments: where it came from it is found again, in another process it is made anew, once.
/// `name` is its name in errors and events.
///
/// Raises `ConfigurationError` for arguments that make no limit.
#[pyclass(frozen, module = "seawall", subclass, weakref)]
pub struct RateLimit {
    pub core: Arc<core::RateLimit>,
    /// Its name in errors, events and metrics; `None` for none.
    #[pyo3(get)]
    pub name: Option<String>,
    estimate: Option<Py<PyAny>>,
    settle: Option<Py<PyAny>>,
    /// Finds it again when it is unpickled where it came from.
    #[pyo3(get, name = "_identity")]
    identity: u64,
}

fn amount(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    const MAY_BE: &str = "a number, 1 or more";
    match convert::number(value) {
        None => Err(convert::type_error(argument, value, MAY_BE)),
        Some(number) if number.is_finite() && number >= 1.0 => Ok(number),
        Some(_) => Err(convert::value_error(argument, value, MAY_BE)),
    }
}

/// A number as people write it.
fn shown(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { number.to_string() }
}

fn tokens(argument: &str, answer: &Bound<'_, PyAny>) -> PyResult<u64> {
    let number = convert::number(answer).filter(|number| number.is_finite() && *number >= 0.0);
    number.map(|number| number.ceil() as u64).ok_or_else(|| convert::type_error(argument, answer, "a number of tokens, 0 or more"))
}

#[pymethods]
impl RateLimit {
    #[new]
    #[pyo3(signature = (requests=None, tokens=None, *, per=None, burst=None, max_queue=None, max_wait=None, estimate=None,
                        settle=None, name=None),
           text_signature = "(requests=None, tokens=None, *, per=60, burst=None, max_queue=1000, max_wait=None, estimate=None, \
                             settle=None, name=None)")]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new(
        py: Python<'_>,
        requests: Option<&Bound<'_, PyAny>>,
        tokens: Option<&Bound<'_, PyAny>>,
        per: Option<&Bound<'_, PyAny>>,
        burst: Option<&Bound<'_, PyAny>>,
        max_queue: Option<&Bound<'_, PyAny>>,
        max_wait: Option<&Bound<'_, PyAny>>,
        estimate: Option<&Bound<'_, PyAny>>,
        settle: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<RateLimit> {
        // `False` is not left out: it is said.
        let goes_by_the_estimate = settle.is_some_and(|settle| settle.cast::<PyBool>().is_ok_and(|said| !said.is_true()));
        let config = Config {
            requests: convert::optional("requests", requests, amount)?,
            tokens: convert::optional("tokens", tokens, amount)?,
            per: convert::optional("per", per, convert::finite_positive_seconds)?.unwrap_or(Duration::from_secs(60)),
            burst: convert::optional("burst", burst, amount)?,
            settles: !goes_by_the_estimate,
            max_queue: convert::optional("max_queue", max_queue, |a, v| convert::count(a, v, 0))?.unwrap_or(QUEUE) as usize,
            max_wait: convert::optional("max_wait", max_wait, convert::seconds)?,
        };
        let Some(limit) = config.requests.or(config.tokens) else {
            return Err(configuration(py, "a RateLimit needs requests=, tokens= or both: how much is allowed?"));
        };
        if let Some(given) = burst.filter(|_| config.burst.is_some_and(|burst| burst > limit)) {
            let what = if config.requests.is_some() { "requests" } else { "tokens" };
            return Err(convert::value_error("burst", given, &format!("at most {what} ({})", shown(limit))));
        }
        let function = |argument: &str, value: Option<&Bound<'_, PyAny>>| {
            let checked = |argument: &str, value: &Bound<'_, PyAny>| function_at_once(argument, value).map(|()| value.clone().unbind());
            let given = convert::optional(argument, value, checked)?;
            if given.is_some() && config.tokens.is_none() {
                return Err(configuration(py, &format!("{argument} needs tokens=: without a limit of tokens nobody counts them")));
            }
            Ok(given)
        };
        let (estimate, settle) = (function("estimate", estimate)?, function("settle", settle.filter(|_| !goes_by_the_estimate))?);
        let name = convert::optional("name", name, convert::text)?;
        Ok(RateLimit { core: shared::rate_limit(py, core::RateLimit::new(config))?, name, estimate, settle, identity: clock::seed() })
    }

    /// Requests allowed in each `per` seconds; `None` if they are not limited.
    #[getter]
    fn requests(&self) -> Option<f64> {
        self.core.config().requests
    }

    /// Tokens allowed in each `per` seconds; `None` if they are not limited.
    #[getter]
    fn tokens(&self) -> Option<f64> {
        self.core.config().tokens
    }

    /// The span of the limits in seconds.
    #[getter]
    fn per(&self) -> f64 {
        self.core.config().per.as_secs_f64()
    }

    /// What may go at once, as given; `None`: a fiftieth of the limit.
    #[getter]
    fn burst(&self) -> Option<f64> {
        self.core.config().burst
    }

    /// Calls that may wait.
    #[getter]
    fn max_queue(&self) -> usize {
        self.core.config().max_queue
    }

    /// The longest wait in seconds; `None`: as long as the limits around the call allow.
    #[getter]
    fn max_wait(&self) -> Option<f64> {
        self.core.config().max_wait.map(|wait| wait.as_secs_f64())
    }

    /// What may go at once right now, as a tuple `(requests, tokens)`: whole numbers, `None` for what is not limited; tokens below
    /// zero are owed.
    #[getter]
    fn available(&self) -> (Option<i64>, Option<i64>) {
        let outlook = self.core.outlook(clock::now());
        // What sums of fractions lack is no request.
        let whole = |level: f64| (level + 1e-6).floor() as i64;
        (outlook.requests.map(whole), outlook.tokens.map(whole))
    }

    /// Calls that wait for their turn.
    #[getter]
    fn queued(&self) -> usize {
        self.core.outlook(clock::now()).queued
    }

    /// Seconds for which a server has asked everybody to wait; `None` if none has.
    #[getter]
    fn paused(&self) -> Option<f64> {
        self.core.outlook(clock::now()).paused.map(|span| span.as_secs_f64())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static REDUCED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        let (config, said) = (this.core.config(), PyDict::new(py));
        said.set_item("per", config.per.as_secs_f64())?;
        said.set_item("burst", config.burst)?;
        said.set_item("max_queue", config.max_queue)?;
        said.set_item("max_wait", this.max_wait())?;
        said.set_item("estimate", &this.estimate)?;
        match config.settles {
            true => said.set_item("settle", &this.settle)?,
            false => said.set_item("settle", false)?,
        }
        said.set_item("name", this.name.as_deref())?;
        ours(py, &REDUCED, "seawall._limits", "reduced")?.call1((slf, (config.requests, config.tokens), said))
    }

    fn __copy__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let config = self.core.config();
        let mut parts = Vec::new();
        parts.extend(config.requests.map(|n| format!("requests={}", shown(n))));
        parts.extend(config.tokens.map(|n| format!("tokens={}", shown(n))));
        parts.push(format!("per={}", config.per.as_secs_f64()));
        parts.extend(config.burst.map(|n| format!("burst={}", shown(n))));
        if config.max_queue != QUEUE as usize {
            parts.push(format!("max_queue={}", config.max_queue));
        }
        parts.extend(self.max_wait().map(|wait| format!("max_wait={wait}")));
        parts.extend(self.name.as_ref().map(|name| format!("name={}", quoted(py, name))));
        let (outlook, (requests, tokens)) = (self.core.outlook(clock::now()), self.available());
        let mut state = Vec::new();
        state.extend(requests.map(|n| format!("{n} requests")));
        state.extend(tokens.map(|n| format!("{n} tokens")));
        let paused = outlook.paused.map(|span| format!(", paused for {:.1} s", span.as_secs_f64())).unwrap_or_default();
        format!("<RateLimit({}): {} may go now, {} waiting{paused}>", parts.join(", "), state.join(" and "), outlook.queued)
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "rate_limit")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.estimate)?;
        visit.call(&self.settle)
    }
}

impl RateLimit {
    /// In a pipeline of functions: answers are looked at for the tokens that they used.
    pub fn policy(&self) -> Limited {
        Limited { limit: self.core.clone(), looks: self.counts_tokens() }
    }

    /// Whether calls weigh anything here.
    pub fn counts_tokens(&self) -> bool {
        self.core.config().tokens.is_some()
    }

    /// Whether the user has a function of its own for what a call may use.
    pub fn has_estimate(&self) -> bool {
        self.estimate.is_some()
    }

    /// The tokens that a call may use.
    pub fn weight(&self, py: Python<'_>, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<u64> {
        static ESTIMATE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        match &self.estimate {
            Some(estimate) => tokens("the answer of estimate", &estimate.bind(py).call(args, kwargs)?),
            None => ours(py, &ESTIMATE, "seawall._limits", "estimate")?.call1((args, kwargs))?.extract(),
        }
    }

    /// What an outcome tells the limit: the tokens used, or that the server has had enough.
    pub fn judge(&self, happened: &Happened<'_, '_>) -> PyResult<Verdict> {
        static USED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static HEADERS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static LIMITED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        match happened {
            Happened::Value(_) if !self.core.config().settles => Ok(Verdict::Success),
            Happened::Value(value) => {
                let py = value.py();
                let used = match &self.settle {
                    // The answer is there and paid for: what is wrong with counting it is told, and the estimate holds.
                    Some(settle) => match settle.bind(py).call1((*value,)).and_then(|answer| tokens("the answer of settle", &answer)) {
                        Ok(used) => Some(used),
                        Err(error) => hooks::failed(py, settle.bind(py), error).map(|()| None)?,
                    },
                    None => ours(py, &USED, "seawall._limits", "used")?.call1((*value,))?.extract()?,
                };
                Ok(used.map_or(Verdict::Success, Verdict::used))
            }
            Happened::Error(error) => {
                let py = error.py();
                // One that says nothing of itself has no headers, and is no server's 429.
                if bare::row(error)?.is_some() {
                    return Ok(Verdict::Ignore);
                }
                if let Some(headers) =
                    ours(py, &HEADERS, "seawall._limits", "headers")?.call1((*error,))?.extract::<Option<Bound<'_, PyDict>>>()?
                {
                    let (requests, tokens) = core::said(|name| headers.get_item(name).ok().flatten()?.extract().ok());
                    self.core.learn(requests, tokens, clock::now());
                }
                if !ours(py, &LIMITED, "seawall._limits", "is_limited")?.call1((*error,))?.is_truthy()? {
                    return Ok(Verdict::Ignore);
                }
                let wait = server_wait(error)?.map_or(WaitHint::None, WaitHint::RetryAfter);
                Ok(Verdict::Failure { wait, branches: u64::MAX })
            }
        }
    }
}
