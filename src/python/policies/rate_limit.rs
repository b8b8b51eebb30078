//! `RateLimit`.

use super::shared;
use crate::drive::clock;
use crate::engine::{Execution, StageId, Verdict, WaitHint};
use crate::policies::rate_limit::{self as core, Config, Keyed, Limited};
use crate::python::bare;
use crate::python::convert::{self, quoted};
use crate::python::errors::{configuration, ours, picture};
use crate::python::hooks;
use crate::python::judge::{Happened, function_at_once, server_wait};
use crate::python::policies::circuit_breaker::short_repr;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyString, PyTuple};
use std::sync::Arc;
use std::time::Duration;

/// So many calls wait, where nothing is said.
const QUEUE: u32 = 1000;
/// So many keys are remembered, where nothing is said.
const KEYS: u32 = 10_000;

/// At most `requests` calls and `tokens` tokens in each `per` seconds (default 60). A call waits for its turn, first come first
/// served; one that cannot have it in time is turned away at once, with `RateLimitExceededError` and its `retry_after`.
///
/// ```python
/// @seawall.Pipeline(seawall.RateLimit(500, tokens=200_000, per=60, max_wait=30))
/// def ask(messages): ...
/// ```
///
/// Each call takes one request and its estimated tokens at its turn; what it really used settles that: more is owed, what it did
/// not use is given back; `settle=False` leaves it at the estimate, for servers that go by what was asked for.
/// `estimate(*args, **kwargs) -> int` says how many it may use, or tiktoken does: an `Encoding`, or the name of one ("o200k_base").
/// Without it, it is the call's text at four bytes a token; with a name or without, `max_tokens` or `max_completion_tokens` comes on
/// top where the call has one. `settle(result) -> int` says how many it has
/// used; without one they are read from the result's `usage` or `usage_metadata`, and where there is none the estimate holds.
///
/// `burst` requests (tokens, if only tokens are limited) may go at once after a pause: by default a fiftieth of the limit, so that
/// calls are spread evenly and no minute of a server's sees more than the limit, wherever it begins. 98 % of the limit are used.
///
/// `key` makes it a limit for each key, each with a line of its own: the name of an argument of the function, or of a parameter of a
/// model's requests ("user"), "model", "endpoint"; or `key(*args, **kwargs)`, for a model `key(messages, model=…, **parameters)`, that
/// gives a text, a whole number or `None`. Beyond `max_keys` (default 10,000) those are forgotten that nobody uses and of which all has
/// come back, which changes nothing. `of(key)` is the limit of one key.
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
    keys: Option<Keys>,
    /// Of one key: the limit that it is of, and the key.
    parent: Option<(Py<RateLimit>, String)>,
    /// Finds it again when it is unpickled where it came from.
    #[pyo3(get, name = "_identity")]
    identity: u64,
}

/// Whose limit a call goes under.
struct Keys {
    key: Py<PyAny>,
    limits: Arc<Keyed>,
}

/// What a call weighs at a limit, and the limit of its key.
pub struct Asked {
    stage: StageId,
    tokens: u64,
    own: Option<Arc<core::RateLimit>>,
}

impl Asked {
    /// Tells the call's machine.
    pub fn tell(&self, execution: &mut Execution) {
        execution.weighs(self.stage, self.tokens);
        if let Some(own) = &self.own {
            execution.brings(self.stage, own.clone());
        }
    }

    /// The limit of the call's key at a stage, if that has keys.
    pub fn own(all: &[Asked], stage: StageId) -> Option<&core::RateLimit> {
        all.iter().find(|asked| asked.stage == stage)?.own.as_deref()
    }
}

/// A key as the text that it is kept under.
fn text_of(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let is_number = value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>();
    match value.cast::<PyString>() {
        // Half a surrogate pair is a key as any other.
        Ok(text) => Ok(text.to_string_lossy().into_owned()),
        Err(_) if value.is_none() => Ok(String::new()),
        Err(_) if is_number => Ok(value.str()?.to_string()),
        Err(_) => Err(convert::type_error("the key of a RateLimit", value, "a text, a whole number or None")),
    }
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
                        settle=None, key=None, max_keys=None, name=None),
           text_signature = "(requests=None, tokens=None, *, per=60, burst=None, max_queue=1000, max_wait=None, estimate=None, \
                             settle=None, key=None, max_keys=10000, name=None)")]
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
        key: Option<&Bound<'_, PyAny>>,
        max_keys: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<RateLimit> {
        static COUNTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
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
        let counted = estimate.filter(|given| !given.is_none() && !given.is_callable());
        let counted = counted.map(|given| ours(py, &COUNTER, "seawall._tokens", "estimate_by")?.call1((given,))).transpose()?;
        let estimate = counted.as_ref().or(estimate);
        let (estimate, settle) = (function("estimate", estimate)?, function("settle", settle.filter(|_| !goes_by_the_estimate))?);
        let name = convert::optional("name", name, convert::text)?;
        let most = convert::optional("max_keys", max_keys, |a, v| convert::count(a, v, 1))?;
        let keys = convert::optional("key", key, |argument, key| {
            let is_name = key.cast::<PyString>().is_ok_and(|name| !name.is_empty().unwrap_or(true));
            if !is_name && !key.is_callable() {
                return Err(convert::type_error(argument, key, "\"model\", \"endpoint\", the name of an argument, or a function"));
            }
            if key.is_callable() {
                function_at_once(argument, key)?;
            }
            let limits = shared::keyed(py, Keyed::new(config, most.unwrap_or(KEYS) as usize))?;
            Ok(Keys { key: key.clone().unbind(), limits })
        })?;
        if most.is_some() && keys.is_none() {
            return Err(configuration(py, "max_keys is about the keys of a limit: give key=, too"));
        }
        let core = shared::rate_limit(py, core::RateLimit::new(config))?;
        Ok(RateLimit { core, name, estimate, settle, keys, parent: None, identity: clock::seed() })
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

    /// How a call's key is found, as given; `None`: it is one limit for all.
    #[getter]
    fn key(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.keys.as_ref().map(|keys| keys.key.clone_ref(py))
    }

    /// Keys that are remembered in any case; `None` without `key`.
    #[getter]
    fn max_keys(&self) -> Option<usize> {
        self.keys.as_ref().map(|keys| keys.limits.most())
    }

    /// The keys that are remembered now, as texts in order: those of which something is used, and others.
    #[getter]
    fn known_keys(&self) -> Vec<String> {
        self.keys.as_ref().map_or_else(Vec::new, |keys| keys.limits.keys())
    }

    /// The limit of one key, to be looked at or to be used where a call's key is known: it is the one under which the calls of that key
    /// go. Raises `ConfigurationError` where there is no `key`.
    fn of(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<RateLimit> {
        let (py, this) = (slf.py(), slf.get());
        let Some(keys) = &this.keys else {
            return Err(configuration(py, "of() is about the keys of a limit, and this one has none: make it with key="));
        };
        let key = text_of(key)?;
        Ok(RateLimit {
            core: keys.limits.of(&key, clock::now()),
            name: this.name.clone(),
            estimate: this.estimate.as_ref().map(|held| held.clone_ref(py)),
            settle: this.settle.as_ref().map(|held| held.clone_ref(py)),
            keys: None,
            parent: Some((slf.clone().unbind(), key)),
            identity: clock::seed(),
        })
    }

    /// What may go at once right now, as a tuple `(requests, tokens)`: whole numbers, `None` for what is not limited; tokens below
    /// zero are owed. With `key`, what a key has that was not seen yet: `of(key).available` is that of one.
    #[getter]
    fn available(&self) -> (Option<i64>, Option<i64>) {
        let outlook = self.core.outlook(clock::now());
        // What sums of fractions lack is no request.
        let whole = |level: f64| (level + 1e-6).floor() as i64;
        (outlook.requests.map(whole), outlook.tokens.map(whole))
    }

    /// Calls that wait for their turn, under all keys.
    #[getter]
    fn queued(&self) -> usize {
        self.waiting().0
    }

    /// Seconds for which a server has asked everybody to wait; `None` if none has. With `key`, the longest of those.
    #[getter]
    fn paused(&self) -> Option<f64> {
        self.waiting().1.map(|span| span.as_secs_f64())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static REDUCED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        if let Some((parent, key)) = &this.parent {
            return Ok((parent.bind(py).getattr("of")?, (key,)).into_pyobject(py)?.into_any());
        }
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
        said.set_item("key", this.key(py))?;
        said.set_item("max_keys", this.max_keys())?;
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
        parts.extend(self.keys.as_ref().map(|keys| format!("key={}", short_repr(keys.key.bind(py)))));
        parts.extend(self.name.as_ref().map(|name| format!("name={}", quoted(py, name))));
        let ((queued, paused), (requests, tokens)) = (self.waiting(), self.available());
        let mut state = Vec::new();
        state.extend(requests.map(|n| format!("{n} requests")));
        state.extend(tokens.map(|n| format!("{n} tokens")));
        let state = match &self.keys {
            None => format!("{} may go now", state.join(" and ")),
            Some(keys) => format!("{} keys", keys.limits.keys().len()),
        };
        let of = self.parent.as_ref().map(|(_, key)| format!(" of {}", quoted(py, key))).unwrap_or_default();
        let paused = paused.map(|span| format!(", paused for {:.1} s", span.as_secs_f64())).unwrap_or_default();
        format!("<RateLimit({}){of}: {state}, {queued} waiting{paused}>", parts.join(", "))
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "rate_limit")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.estimate)?;
        visit.call(&self.settle)?;
        visit.call(self.keys.as_ref().map(|keys| &keys.key))?;
        visit.call(self.parent.as_ref().map(|(parent, _)| parent))
    }
}

impl RateLimit {
    /// In a pipeline of functions: answers are looked at for the tokens that they used.
    pub fn policy(&self) -> Limited {
        Limited { limit: self.core.clone(), is_keyed: self.keys.is_some(), looks: self.counts_tokens() }
    }

    fn counts_tokens(&self) -> bool {
        self.core.config().tokens.is_some()
    }

    /// Whether it has to be told of calls what they are: they weigh something here, or have keys.
    pub fn asks(&self) -> bool {
        self.counts_tokens() || self.keys.is_some()
    }

    /// Calls that wait, and the pause that a server has asked for.
    fn waiting(&self) -> (usize, Option<Duration>) {
        let now = clock::now();
        match &self.keys {
            Some(keys) => keys.limits.outlook(now),
            None => Some(self.core.outlook(now)).map(|one| (one.queued, one.paused)).unwrap_or_default(),
        }
    }

    /// The limit of a call of a function, if there is one for each key.
    fn of_call(
        &self,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<Arc<core::RateLimit>>> {
        static ARGUMENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Some(keys) = &self.keys else { return Ok(None) };
        let (py, key) = (function.py(), keys.key.bind(function.py()));
        let found = match key.is_callable() {
            true => key.call(args, kwargs)?,
            false => ours(py, &ARGUMENT, "seawall._limits", "argument")?.call1((key, function, args, kwargs))?,
        };
        Ok(Some(keys.limits.of(&text_of(&found)?, clock::now())))
    }

    /// The limit of a model's request, if there is one for each key. `said` are the parameters of the call.
    pub fn of_request(
        &self,
        content: &Bound<'_, PyAny>,
        model: &str,
        place: impl FnOnce() -> String,
        said: Option<&Bound<'_, PyDict>>,
        parameter: impl FnOnce(&str) -> Option<String>,
    ) -> PyResult<Option<Arc<core::RateLimit>>> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let (py, key) = (content.py(), keys.key.bind(content.py()));
        let key = match key.cast::<PyString>() {
            Ok(name) => match &*name.to_string_lossy() {
                "model" => model.to_owned(),
                "endpoint" => place(),
                name => parameter(name).unwrap_or_default(),
            },
            Err(_) => {
                let all = said.map_or_else(|| Ok(PyDict::new(py)), |said| said.copy())?;
                all.set_item("model", model)?;
                text_of(&key.call((content,), Some(&all))?)?
            }
        };
        Ok(Some(keys.limits.of(&key, clock::now())))
    }

    /// What a call of a function is to it at a stage.
    pub fn asked(
        &self,
        stage: StageId,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Asked> {
        let tokens = if self.counts_tokens() { self.weight(function.py(), args, kwargs)? } else { 0 };
        Ok(Asked { stage, tokens, own: self.of_call(function, args, kwargs)? })
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

    /// What an outcome tells the limit, or that of the call's key: the tokens used, or that the server has had enough.
    pub fn judge(&self, happened: &Happened<'_, '_>, own: Option<&core::RateLimit>) -> PyResult<Verdict> {
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
                    own.unwrap_or(&self.core).learn(requests, tokens, clock::now());
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
