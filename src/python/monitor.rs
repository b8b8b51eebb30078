//! `Monitor`.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::convert::{self, quoted};
use super::errors::configuration;
use super::judge::function_at_once;
use super::slots;
use pyo3::exceptions::{PyBaseException, PyException, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDict, PyInt, PyType};

use crate::drive::clock;
use crate::engine::Instant;
use crate::llm::route::on_a_thread;
use crate::monitor::{Alert, Entry, Histogram, Language, Monitor as Core, Record, Slot, Source, Span, Tally, Word};
use crate::stats::Sums;
use crate::telemetry::known::MONITORS;
use crate::telemetry::{Call, Listener};

/// More than any machine will remember call by call.
const MAX_WINDOW: usize = 10_000_000;
/// Seconds, about 30 years: beyond it a latency is a mistake (a timestamp, a wrong unit).
const MAX_LATENCY: f64 = 1e9;

/// Adds the classes of this file to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Monitor>()
}

/// `True`, `False`, or the number that a log or a table has in their place.
pub(super) fn flag(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match value.cast::<PyInt>().ok().and_then(|number| number.extract::<u8>().ok()) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => convert::flag(name, value),
    }
}

/// Of money.
fn amount(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let refused = || convert::value_error(name, value, "a number, at least 0 and at most 1e9");
    let amount = if value.is_instance_of::<PyBool>() { Err(refused()) } else { value.extract::<f64>().map_err(|_| refused()) }?;
    if (0.0..=1e9).contains(&amount) { Ok(amount) } else { Err(refused()) }
}

/// Of a class, an exception, or the name itself.
fn error_name(value: &Bound<'_, PyAny>) -> PyResult<Word> {
    if let Ok(name) = value.extract::<&str>() {
        return Ok(Word::of(name));
    }
    let class = match value.cast::<PyType>() {
        Ok(class) => class.clone(),
        Err(_) if value.is_instance_of::<PyBaseException>() => value.get_type(),
        Err(_) => return Err(convert::type_error("error", value, "an exception, its class or its name")),
    };
    Ok(Word::of(&class.name()?.to_string_lossy()))
}

pub(super) fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let refused = || convert::type_error(name, value, "a number of seconds or a timedelta");
    let seconds = if let Ok(delta) = value.cast::<PyDelta>() {
        delta.call_method0("total_seconds")?.extract::<f64>()?
    } else if value.is_instance_of::<PyBool>() {
        return Err(refused());
    } else {
        value.extract::<f64>().map_err(|_| refused())?
    };
    match (0.0..=MAX_LATENCY).contains(&seconds) {
        true => Ok(seconds),
        false => Err(convert::value_error(name, value, "a finite number of seconds, at least 0 and at most 1e9")),
    }
}

/// A number of calls (an int), or a time (a float or a timedelta).
fn window_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Span> {
    if value.is_exact_instance_of::<PyInt>() {
        return Ok(Span::Calls(calls_of(name, value)?));
    }
    Ok(Span::Time(convert::finite_positive_seconds(name, value)?.as_nanos() as u64))
}

pub(super) fn calls_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(convert::whole(name, value, 1, MAX_WINDOW as u64)? as usize)
}

/// Unix time in nanoseconds.
fn now_ns() -> u64 {
    clock::unix(clock::now())
}

/// Health of something that is called, over its last calls.
///
/// Args:
///     window: how many of the last calls count, an int of 1 to 10,000,000 (default 100); or the calls of how many of the last
///         seconds, a float or timedelta.
///     name: what is watched; shown in alerts and in the repr.
///
/// Recording costs the same at every window size and is safe from any thread. One incident gives one alert when it
/// starts, one when it becomes worse and one when it is over: to the logger `seawall.monitor`, to `alerts` and to the
/// callbacks of `on_alert`. The limits are 5 % (warning) and 10 % (critical) of errors, 3 % and 5 % of calls that were
/// retried, 2 s and 5 s of mean latency, judged from 10 calls on; five failures in a row are an emergency.
///
/// A copy (pickle, deepcopy) has the same window size, name and callbacks, and starts empty: the counts belong
/// to the object that saw the calls.
///
/// Raises `ConfigurationError` for arguments that cannot be meant.
#[pyclass(frozen, subclass, module = "seawall")]
pub struct Monitor {
    pub(super) core: Arc<Core>,
    name: Option<String>,
    language: Language,
    callbacks: Mutex<Vec<Py<PyAny>>>,
}

impl Monitor {
    pub(super) fn with(window: Span, name: Option<String>, language: Language) -> Self {
        let core = Arc::new(Core::new(window));
        MONITORS.add(&core, &Arc::new(name.clone().map_or_else(OnceLock::new, OnceLock::from)));
        Monitor { core, name, language, callbacks: Mutex::new(Vec::new()) }
    }

    fn callbacks(&self) -> MutexGuard<'_, Vec<Py<PyAny>>> {
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn callback_list(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.callbacks().iter().map(|callback| callback.clone_ref(py)).collect()
    }

    fn alert<'py>(&self, py: Python<'py>, alert: &Alert) -> PyResult<Bound<'py, PyAny>> {
        let (metrics, limits) = (PyDict::new(py), PyDict::new(py));
        for reading in &alert.readings {
            metrics.set_item(reading.metric.name(), reading.value)?;
            limits.set_item(reading.metric.name(), reading.limit)?;
        }
        let fields = PyDict::new(py);
        fields.set_item("kind", alert.kind.name())?;
        fields.set_item("level", alert.level.name())?;
        fields.set_item("previous", alert.previous.name())?;
        fields.set_item("peak", alert.peak.name())?;
        fields.set_item("metrics", metrics)?;
        fields.set_item("limits", limits)?;
        fields.set_item("calls", alert.calls)?;
        fields.set_item("incident", alert.incident)?;
        fields.set_item("since", alert.since_ns as f64 / 1e9)?;
        fields.set_item("timestamp", alert.at_ns as f64 / 1e9)?;
        fields.set_item("name", self.name.as_deref())?;
        fields.set_item("message", alert.text(self.language))?;
        glue(py)?.getattr("Alert")?.call((), Some(&fields))
    }
}

fn glue(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("seawall._monitoring")
}

/// Logs an alert and hands it to the monitor's callbacks. Must be called with no lock held.
fn publish(py: Python<'_>, monitor: &Monitor, alert: &Alert) -> PyResult<()> {
    glue(py)?.call_method1("publish", (monitor.alert(py, alert)?, monitor.callback_list(py)))?;
    Ok(())
}

/// As it was given: calls, or seconds.
fn window(py: Python<'_>, span: Span) -> PyResult<Bound<'_, PyAny>> {
    match span {
        Span::Calls(calls) => Ok(calls.into_pyobject(py)?.into_any()),
        Span::Time(ns) => Ok((ns as f64 / 1e9).into_pyobject(py)?.into_any()),
    }
}

fn quantiles(numbers: &Bound<'_, PyDict>, slot: &Slot) -> PyResult<()> {
    for (per_mille, name, first) in [(500, "p50", "first_token_p50"), (950, "p95", "first_token_p95"), (990, "p99", "first_token_p99")] {
        numbers.set_item(name, quantile(&slot.latencies, per_mille))?;
        numbers.set_item(first, quantile(&slot.first_tokens, per_mille))?;
    }
    Ok(())
}

/// Seconds.
fn quantile(latencies: &Histogram, per_mille: u32) -> Option<f64> {
    latencies.quantile(per_mille).map(|ns| ns as f64 / 1e9)
}

fn sums<'py>(py: Python<'py>, tally: &Tally) -> PyResult<Bound<'py, PyDict>> {
    let sums = PyDict::new(py);
    sums.set_item("total", tally.total)?;
    sums.set_item("errors", tally.errors)?;
    sums.set_item("retried", tally.retried)?;
    sums.set_item("retries", tally.retries)?;
    sums.set_item("fallbacks", tally.fallbacks)?;
    sums.set_item("attempts", tally.attempts)?;
    sums.set_item("tokens", tally.tokens)?;
    sums.set_item("prompt_tokens", tally.prompt_tokens)?;
    sums.set_item("cost", tally.cost())?;
    sums.set_item("error_rate", tally.error_rate())?;
    sums.set_item("retry_rate", tally.retry_rate())?;
    sums.set_item("fallback_rate", tally.fallback_rate())?;
    sums.set_item("success_rate", tally.success_rate())?;
    sums.set_item("avg_latency", tally.mean_seconds())?;
    sums.set_item("avg_first_token", tally.mean_first_token())?;
    Ok(sums)
}

#[pymethods]
impl Monitor {
    #[new]
    #[pyo3(signature = (window=None, name=None))]
    fn new(window: Option<&Bound<'_, PyAny>>, name: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let window = window.map_or(Ok(Span::Calls(100)), |window| window_of("window", window))?;
        let name = convert::optional("name", name, convert::text)?;
        Ok(Monitor::with(window, name, Language::English))
    }

    /// Counts one finished call.
    ///
    /// Args:
    ///     success: whether it gave a usable result.
    ///     retried: whether it needed more than one attempt.
    ///     latency: how long it took, seconds or timedelta.
    ///     retries: how many attempts after the first; if not given, 1 where `retried`.
    ///     fallback: whether an alternative answered.
    ///     tokens: tokens used.
    ///     first_token: how long the first content of a stream took, seconds or timedelta.
    ///     cost: what it cost.
    ///     model: the model that answered.
    ///     error: the class of the error of a failed call, or its name.
    #[pyo3(signature = (success, retried=None, latency=None, *, retries=None, fallback=None, tokens=None, first_token=None, cost=None,
                        model=None, error=None))]
    #[allow(clippy::too_many_arguments)] // one per argument
    fn record(
        slf: &Bound<'_, Self>,
        success: &Bound<'_, PyAny>,
        retried: Option<&Bound<'_, PyAny>>,
        latency: Option<&Bound<'_, PyAny>>,
        retries: Option<&Bound<'_, PyAny>>,
        fallback: Option<&Bound<'_, PyAny>>,
        tokens: Option<&Bound<'_, PyAny>>,
        first_token: Option<&Bound<'_, PyAny>>,
        cost: Option<&Bound<'_, PyAny>>,
        model: Option<&Bound<'_, PyAny>>,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let most = u64::from(u32::MAX);
        let retried = retried.map(|value| flag("retried", value)).transpose()?;
        let retries = match (retries.map(|value| convert::whole("retries", value, 0, most)).transpose()?, retried) {
            (Some(count), Some(flag)) if flag != (count > 0) => {
                let flag = if flag { "True" } else { "False" };
                let message = format!("retries is {count} although retried is {flag}: leave one of them out");
                return Err(configuration(slf.py(), &message));
            }
            (Some(count), _) => count as u32,
            (None, retried) => u32::from(retried.unwrap_or(false)),
        };
        let given_seconds = latency.map_or(Ok(0.0), |value| seconds("latency", value))?;
        let model = convert::optional("model", model, convert::text)?;
        let record = Record {
            ok: flag("success", success)?,
            attempts: retries.saturating_add(1),
            first_token_ns: first_token
                .map_or(Ok(0.0), |value| seconds("first_token", value))
                .map(|seconds| (seconds * 1e9).round() as u64)?,
            cost_nano: cost.map_or(Ok(0.0), |value| amount("cost", value)).map(|cost| (cost * 1e9).round() as u64)?,
            prompt_tokens: 0,
            source: model.map_or(Source::NONE, |model| Source::of("", &model, "")),
            error: error.map_or(Ok(Word::NONE), error_name)?,
            fallback: fallback.map_or(Ok(false), |value| flag("fallback", value))?,
            retries,
            tokens: tokens.map_or(Ok(0), |value| convert::whole("tokens", value, 0, most))? as u32,
            latency_ns: (given_seconds * 1e9).round() as u64,
        };
        take(slf, record, given_seconds)
    }

    /// The numbers at this moment: sums and rates over the window, latencies in seconds (percentiles within 2 %),
    /// `level`, and under `lifetime` the sums over all calls ever recorded. Rates and latencies are None without calls.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (now, whole) = self.core.whole(now_ns());
        let numbers = sums(py, &now.window)?;
        quantiles(&numbers, &whole)?;
        numbers.set_item("consecutive_failures", now.failures_in_a_row)?;
        numbers.set_item("level", now.level.name())?;
        numbers.set_item("window", window(py, now.span)?)?;
        numbers.set_item("lifetime", sums(py, &now.lifetime)?)?;
        Ok(numbers)
    }

    /// Has every later alert given to `callback(alert)`, in the thread that recorded the call. What it raises is logged
    /// and goes no further. Returns the callback, so that it can be used as a decorator.
    fn on_alert(&self, callback: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        function_at_once("on_alert's callback", &callback)?;
        self.callbacks().push(callback.clone().unbind());
        Ok(callback.unbind())
    }

    /// Forgets all calls, alerts and totals; limits and callbacks stay.
    fn reset(&self) {
        self.core.restart(self.core.span());
    }

    /// How many of the last calls count; or, as a float, of how many of the last seconds.
    #[getter]
    fn window<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        window(py, self.core.span())
    }

    /// The window's numbers apart: by `pipeline`, `model`, `endpoint` or `error`, the class of the error of failed calls. A
    /// dict of dicts with the sums and rates of `snapshot`, or, by error, of counts. Calls of which that is not known are
    /// under "".
    ///
    /// Raises `ConfigurationError` for another word.
    fn by<'py>(&self, py: Python<'py>, what: &str) -> PyResult<Bound<'py, PyDict>> {
        let (_, whole) = self.core.whole(now_ns());
        let apart = PyDict::new(py);
        if what == "error" {
            for (error, count) in &whole.errors {
                apart.set_item(error.as_str(), count)?;
            }
            return Ok(apart);
        }
        let name: fn(Source) -> Word = match what {
            "pipeline" => Source::pipeline,
            "model" => Source::model,
            "endpoint" => Source::endpoint,
            other => {
                let message = format!("by must be \"pipeline\", \"model\", \"endpoint\" or \"error\", not {}", quoted(py, other));
                return Err(configuration(py, &message));
            }
        };
        let mut tallies: Vec<(Word, Tally)> = Vec::new();
        for group in &whole.groups {
            let word = name(group.source);
            match tallies.iter_mut().find(|(known, _)| *known == word) {
                Some((_, tally)) => tally.merge(&group.tally),
                None => tallies.push((word, group.tally)),
            }
        }
        for (word, tally) in &tallies {
            apart.set_item(word.as_str(), sums(py, tally)?)?;
        }
        Ok(apart)
    }

    /// The window's calls by time, oldest first: at most `slots` (default 60) equal parts, as dicts with `at`, the Unix time at
    /// which a part begins, and the numbers of `snapshot`.
    #[pyo3(signature = (slots=None))]
    fn timeline<'py>(&self, py: Python<'py>, slots: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let most = slots.map_or(Ok(60), |slots| convert::whole("slots", slots, 1, 10_000))? as usize;
        let told = |(at_ns, slot): (u64, Slot)| {
            let numbers = sums(py, &slot.tally)?;
            quantiles(&numbers, &slot)?;
            numbers.set_item("at", at_ns as f64 / 1e9)?;
            Ok(numbers)
        };
        self.core.timeline(now_ns(), most).into_iter().map(told).collect()
    }

    /// Estimated price of the window's calls, by `seawall.prices`.
    #[getter]
    fn cost(&self) -> f64 {
        self.core.snapshot(now_ns()).window.cost()
    }

    /// What is watched.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// How bad it is: `normal`, `warning`, `critical` or `emergency`.
    #[getter]
    fn level(&self) -> &'static str {
        self.core.level().name()
    }

    /// The last 100 alerts, oldest first: a copy.
    #[getter]
    fn alerts<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.core.alerts().iter().map(|alert| self.alert(py, alert)).collect()
    }

    /// Share of the window's calls that failed, 0 to 1; None without calls.
    #[getter]
    fn error_rate(&self) -> Option<f64> {
        self.core.snapshot(now_ns()).window.error_rate()
    }

    /// Share of the window's calls that succeeded.
    #[getter]
    fn success_rate(&self) -> Option<f64> {
        self.core.snapshot(now_ns()).window.success_rate()
    }

    /// Share of the window's calls that needed a retry.
    #[getter]
    fn retry_rate(&self) -> Option<f64> {
        self.core.snapshot(now_ns()).window.retry_rate()
    }

    /// Mean latency of the window's calls in seconds.
    #[getter]
    fn avg_latency(&self) -> Option<f64> {
        self.core.snapshot(now_ns()).window.mean_seconds()
    }

    /// Median latency in seconds, within 2 %.
    #[getter]
    fn p50(&self) -> Option<f64> {
        quantile(&self.core.whole(now_ns()).1.latencies, 500)
    }

    /// The latency in seconds that 95 % of the calls did not exceed, within 2 %.
    #[getter]
    fn p95(&self) -> Option<f64> {
        quantile(&self.core.whole(now_ns()).1.latencies, 950)
    }

    /// The latency in seconds that 99 % of the calls did not exceed, within 2 %.
    #[getter]
    fn p99(&self) -> Option<f64> {
        quantile(&self.core.whole(now_ns()).1.latencies, 990)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let monitor = slf.get();
        let (now, whole) = monitor.core.whole(now_ns());
        let kind = slf.get_type().name()?.to_string();
        let name = monitor.name.as_deref().map_or_else(String::new, |name| format!(" {}", quoted(slf.py(), name)));
        let numbers = match (now.window.error_rate(), now.window.retry_rate(), now.window.mean_seconds(), quantile(&whole.latencies, 950)) {
            (Some(errors), Some(retries), Some(mean), Some(p95)) => format!(
                "{}: errors {:.2}%, retried {:.2}%, mean {mean:.3}s, p95 {p95:.3}s",
                match now.span {
                    Span::Calls(calls) => format!("{} of the last {calls} calls", now.window.total),
                    Span::Time(ns) => format!("{} calls in the last {} s", now.window.total, ns as f64 / 1e9),
                },
                errors * 100.0,
                retries * 100.0
            ),
            _ => "no calls yet".to_owned(),
        };
        Ok(format!("<{kind}{name}: {}, {numbers}>", now.level.name()))
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Option<&str>)> {
        Ok((window(py, self.core.span())?, self.name.as_deref()))
    }

    /// What a copy takes over besides the constructor's arguments.
    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let state = PyDict::new(slf.py());
        state.set_item("callbacks", slf.get().callback_list(slf.py()))?;
        // Only a subclass written in Python has attributes of its own.
        state.set_item("attributes", slf.getattr_opt("__dict__")?)?;
        Ok(state)
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyDict>) -> PyResult<()> {
        let part =
            |key: &str| state.get_item(key)?.ok_or_else(|| PyValueError::new_err(format!("a pickled monitor without '{key}' is none")));
        let callbacks = part("callbacks")?.extract()?;
        // What leaves is dropped after the lock: it may run Python code.
        let dropped = std::mem::replace(&mut *slf.get().callbacks(), callbacks);
        drop(dropped);
        let attributes = part("attributes")?;
        if !attributes.is_none() {
            slf.getattr("__dict__")?.call_method1("update", (attributes,))?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Held only for moments and never across Python code, so a busy lock is another thread's: skip this round.
        let Ok(callbacks) = self.callbacks.try_lock() else { return Ok(()) };
        callbacks.iter().try_for_each(|callback| visit.call(callback))
    }

    fn __clear__(&self) {
        let dropped = std::mem::take(&mut *self.callbacks());
        drop(dropped);
    }
}

pub(super) fn take(monitor: &Bound<'_, Monitor>, record: Record, given_seconds: f64) -> PyResult<()> {
    match monitor.get().core.record_entry(Entry { at_ns: clock::unix(clock::now()), record, given_seconds }) {
        Some(alert) => publish(monitor.py(), monitor.get(), &alert),
        None => Ok(()),
    }
}

/// Counts a call that the engine watched until `now`, and publishes the alert that it causes.
pub fn record(monitor: &Monitor, record: Record, now: Instant) -> Result<(), Box<PyErr>> {
    monitor.core.record(clock::unix(now), record).map_or(Ok(()), |alert| told_aside(monitor, &alert))
}

/// As [`record`], of a call that passed at once.
#[inline]
pub fn passed(monitor: &Monitor, latency_ns: u64, now: Instant, source: Source) -> Result<(), Box<PyErr>> {
    monitor.core.passed(clock::unix(now), latency_ns, source).map_or(Ok(()), |alert| told_aside(monitor, &alert))
}

/// A monitor that is told of calls which end on threads that have none of Python's.
pub struct Watching(pub Py<Monitor>);

impl Watching {
    /// A call is over. An alert is published where nobody waits for it.
    pub fn told(self: &Arc<Self>, call: &Call) {
        let Some(alert) = self.0.get().core.record(call.ended_ns(), call.record) else { return };
        let this = self.clone();
        let publish = move || {
            // Without an interpreter (it is shutting down) nobody listens.
            Python::try_attach(|_| told_aside(this.0.get(), &alert).map_err(|interrupt| *interrupt));
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            drop(on_a_thread(publish)); // it has begun
        } else {
            publish();
        }
    }
}

impl Listener for Arc<Watching> {
    fn ended(&self, call: &Call) {
        self.told(call);
    }
}

/// The call is over: what cannot be told of it does not change how it came out. Interrupts are passed on.
#[cold]
fn told_aside(monitor: &Monitor, alert: &Alert) -> Result<(), Box<PyErr>> {
    slots::attached(|py| match publish(py, monitor, alert) {
        Err(error) if error.is_instance_of::<PyException>(py) => {
            error.write_unraisable(py, None);
            Ok(())
        }
        told => told.map_err(Box::new),
    })
}
