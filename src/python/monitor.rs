//! `Monitor`, and the native half of the document's `MonitoringSystem`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::alerts;
use super::convert::{self, quoted};
use super::errors::configuration;
use super::judge::function_at_once;
use super::slots;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDict, PyInt, PyList, PyTuple};

use crate::drive::clock;
use crate::engine::Instant;
use crate::monitor::{Alert, Entry, Histogram, Language, Metric, Monitor as Core, Record, Rules, Tally};

/// More than any machine will remember call by call.
const MAX_WINDOW: usize = 10_000_000;
/// Seconds, about 30 years: beyond it a latency is a mistake (a timestamp, a wrong unit).
const MAX_LATENCY: f64 = 1e9;

/// Adds the classes of this file to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Monitor>()?;
    m.add_class::<MonitoringSystem>()
}

/// `True`, `False`, or the number that a log or a table has in their place.
fn flag(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match value.cast::<PyInt>().ok().and_then(|number| number.extract::<u8>().ok()) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => convert::flag(name, value),
    }
}

fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
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

fn window_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(convert::whole(name, value, 1, MAX_WINDOW as u64)? as usize)
}

/// Health of something that is called, over its last calls.
///
/// Args:
///     window: how many of the last calls count, 1 to 10,000,000 (default 100).
///     name: what is watched; shown in alerts and in the repr.
///     rules: `seawall.Rule`s, or dicts of what they are made with; each takes the place of the default of its metric.
///     remind_every: seconds or timedelta; while an incident lasts, it is told again so often (default: never).
///     sinks: where alerts go, besides the log; see `add_sink`.
///
/// Recording costs the same at every window size and is safe from any thread. One incident gives one alert when it
/// starts, one when its level changes and one when it is over: to the logger `seawall.monitor`, to `alerts`, to the
/// callbacks of `on_alert` and to the sinks. The limits are 5 % (warning) and 10 % (critical) of errors, 3 % and 5 % of calls
/// that were retried, 2 s and 5 s of mean latency, judged from 10 calls on; five failures in a row are an emergency.
///
/// A copy (pickle, deepcopy) has the same window size, name, rules, sinks and callbacks, and starts empty: the counts belong
/// to the object that saw the calls.
///
/// Raises `ConfigurationError` for arguments that cannot be meant.
#[pyclass(frozen, subclass, weakref, module = "seawall")]
pub struct Monitor {
    core: Arc<Core>,
    name: Option<String>,
    language: Language,
    callbacks: Mutex<Vec<Py<PyAny>>>,
    alarm: alerts::Alarm,
}

impl Monitor {
    fn with(window: usize, name: Option<String>, language: Language, rules: Rules, callbacks: Vec<Py<PyAny>>) -> Self {
        let core = Arc::new(Core::with_rules(window, rules));
        Monitor { core, name, language, callbacks: Mutex::new(callbacks), alarm: alerts::Alarm::unset() }
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn alarm(&self) -> &alerts::Alarm {
        &self.alarm
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
        fields.set_item("silenced", alert.is_silenced)?;
        glue(py)?.getattr("Alert")?.call((), Some(&fields))
    }
}

fn glue(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("seawall._monitoring")
}

/// Logs an alert and hands it to the monitor's callbacks. Must be called with no lock held.
pub fn publish(py: Python<'_>, monitor: &Monitor, alert: &Alert) -> PyResult<()> {
    glue(py)?.call_method1("publish", (monitor.alert(py, alert)?, monitor.callback_list(py)))?;
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
    sums.set_item("tokens", tally.tokens)?;
    sums.set_item("error_rate", tally.error_rate())?;
    sums.set_item("retry_rate", tally.retry_rate())?;
    sums.set_item("fallback_rate", tally.fallback_rate())?;
    sums.set_item("success_rate", tally.success_rate())?;
    sums.set_item("avg_latency", tally.mean_seconds())?;
    Ok(sums)
}

#[pymethods]
impl Monitor {
    #[new]
    #[pyo3(signature = (window=None, name=None, *, rules=None, remind_every=None, sinks=None))]
    fn new(
        py: Python<'_>,
        window: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        rules: Option<&Bound<'_, PyAny>>,
        remind_every: Option<&Bound<'_, PyAny>>,
        sinks: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let window = window.map_or(Ok(100), |window| window_of("window", window))?;
        let name = convert::optional("name", name, convert::text)?;
        let outlets = |_: &str, sinks: &Bound<'_, PyAny>| py.import("seawall._delivery")?.call_method1("outlets", (sinks,))?.extract();
        let callbacks = convert::optional("sinks", sinks, outlets)?.unwrap_or_default();
        Ok(Monitor::with(window, name, Language::English, alerts::rules(py, rules, remind_every)?, callbacks))
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
    #[pyo3(signature = (success, retried=None, latency=None, *, retries=None, fallback=None, tokens=None))]
    fn record(
        slf: &Bound<'_, Self>,
        success: &Bound<'_, PyAny>,
        retried: Option<&Bound<'_, PyAny>>,
        latency: Option<&Bound<'_, PyAny>>,
        retries: Option<&Bound<'_, PyAny>>,
        fallback: Option<&Bound<'_, PyAny>>,
        tokens: Option<&Bound<'_, PyAny>>,
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
        let record = Record {
            ok: flag("success", success)?,
            fallback: fallback.map_or(Ok(false), |value| flag("fallback", value))?,
            retries,
            tokens: tokens.map_or(Ok(0), |value| convert::whole("tokens", value, 0, most))? as u32,
            latency_ns: (given_seconds * 1e9).round() as u64,
        };
        take(slf, record, given_seconds)
    }

    /// The numbers at this moment: sums and rates over the window, latencies in seconds (percentiles within 2 %),
    /// `level`, and under `lifetime` the sums over all calls ever recorded. Rates and latencies are None without calls.
    fn snapshot<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        alerts::catch_up(slf)?;
        let py = slf.py();
        let (now, latencies) = slf.get().core.snapshot_with_latencies();
        let numbers = sums(py, &now.window)?;
        numbers.set_item("p50", quantile(&latencies, 500))?;
        numbers.set_item("p95", quantile(&latencies, 950))?;
        numbers.set_item("p99", quantile(&latencies, 990))?;
        numbers.set_item("consecutive_failures", now.failures_in_a_row)?;
        numbers.set_item("level", now.level.name())?;
        numbers.set_item("window", now.window_size)?;
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

    /// Has alerts delivered to a sink: one of `seawall.sinks`, or any function of an alert, which may be asynchronous. They are
    /// delivered from a thread of seawall's own, tried again where that fails, and never in a call's way.
    ///
    /// Args:
    ///     sink: where they go.
    ///     level: `warning`, `critical` or `emergency`: incidents that do not come to this level are not told there.
    ///
    /// Returns the sink, so that it can be used as a decorator.
    #[pyo3(signature = (sink, level=None))]
    fn add_sink(&self, py: Python<'_>, sink: Bound<'_, PyAny>, level: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let outlet = py.import("seawall._delivery")?.call_method1("outlet", (&sink, level))?;
        self.callbacks().push(outlet.unbind());
        Ok(sink.unbind())
    }

    /// The sinks, in the order in which they were added: a copy.
    #[getter]
    fn sinks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("seawall._delivery")?.call_method1("sinks_of", (self.callback_list(py),))
    }

    /// Alerts are kept in `alerts`, marked as silenced, and told to nobody until the silence is over. If what was told before is
    /// not true any more by then, or an incident has begun that lasts, that is told once.
    ///
    /// Args:
    ///     duration: so long, in seconds or as a timedelta; or
    ///     until: to that time, a datetime or Unix time.
    ///     reason: why, for those who look.
    ///
    /// Returns a `Silence`: `end()` ends it, and so does the end of a `with` block that it is used in.
    #[pyo3(signature = (duration=None, *, until=None, reason=None))]
    fn silence<'py>(
        slf: &Bound<'py, Self>,
        duration: Option<&Bound<'py, PyAny>>,
        until: Option<&Bound<'py, PyAny>>,
        reason: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        alerts::silence(slf, duration, until, reason)
    }

    /// The silences that last, oldest first: a copy.
    #[getter]
    fn silences<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        alerts::silences(slf)
    }

    fn _end_silence(slf: &Bound<'_, Self>, id: u64) -> PyResult<bool> {
        alerts::end_silence(slf, id)
    }

    /// An alarm rings: what is due is told, and the next one set.
    fn _ring(slf: &Bound<'_, Self>) -> PyResult<()> {
        alerts::rung(slf);
        alerts::catch_up(slf)
    }

    /// The alarm that was set will not ring.
    fn _disarm(slf: &Bound<'_, Self>) {
        alerts::rung(slf);
    }

    /// The rules in force, as `seawall.Rule`s: a copy.
    #[getter]
    fn rules<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        alerts::shown(py, &self.core.rules())
    }

    /// How often an incident that lasts is told again, in seconds; None: never.
    #[getter]
    fn remind_every(&self) -> Option<f64> {
        self.core.rules().remind_every.map(|every| every.as_secs_f64())
    }

    /// Forgets all calls, alerts and totals; limits, silences and callbacks stay.
    fn reset(&self) {
        self.core.restart(self.core.snapshot().window_size);
    }

    /// How many of the last calls count.
    #[getter]
    fn window(&self) -> usize {
        self.core.snapshot().window_size
    }

    /// What is watched.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// How bad it is: `normal`, `warning`, `critical` or `emergency`.
    #[getter]
    fn level(slf: &Bound<'_, Self>) -> PyResult<&'static str> {
        alerts::catch_up(slf)?;
        Ok(slf.get().core.level().name())
    }

    /// The last 100 alerts, silenced ones too, oldest first: a copy.
    #[getter]
    fn alerts<'py>(slf: &Bound<'py, Self>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        alerts::catch_up(slf)?;
        let monitor = slf.get();
        monitor.core.alerts().iter().map(|alert| monitor.alert(slf.py(), alert)).collect()
    }

    /// Share of the window's calls that failed, 0 to 1; None without calls.
    #[getter]
    fn error_rate(&self) -> Option<f64> {
        self.core.snapshot().window.error_rate()
    }

    /// Share of the window's calls that succeeded.
    #[getter]
    fn success_rate(&self) -> Option<f64> {
        self.core.snapshot().window.success_rate()
    }

    /// Share of the window's calls that needed a retry.
    #[getter]
    fn retry_rate(&self) -> Option<f64> {
        self.core.snapshot().window.retry_rate()
    }

    /// Mean latency of the window's calls in seconds.
    #[getter]
    fn avg_latency(&self) -> Option<f64> {
        self.core.snapshot().window.mean_seconds()
    }

    /// Median latency in seconds, within 2 %.
    #[getter]
    fn p50(&self) -> Option<f64> {
        quantile(&self.core.snapshot_with_latencies().1, 500)
    }

    /// The latency in seconds that 95 % of the calls did not exceed, within 2 %.
    #[getter]
    fn p95(&self) -> Option<f64> {
        quantile(&self.core.snapshot_with_latencies().1, 950)
    }

    /// The latency in seconds that 99 % of the calls did not exceed, within 2 %.
    #[getter]
    fn p99(&self) -> Option<f64> {
        quantile(&self.core.snapshot_with_latencies().1, 990)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let monitor = slf.get();
        let (now, latencies) = monitor.core.snapshot_with_latencies();
        let kind = slf.get_type().name()?.to_string();
        let name = monitor.name.as_deref().map_or_else(String::new, |name| format!(" {}", quoted(slf.py(), name)));
        let numbers = match (now.window.error_rate(), now.window.retry_rate(), now.window.mean_seconds(), quantile(&latencies, 950)) {
            (Some(errors), Some(retries), Some(mean), Some(p95)) => format!(
                "{} of the last {} calls: errors {:.2}%, retried {:.2}%, mean {mean:.3}s, p95 {p95:.3}s",
                now.window.total,
                now.window_size,
                errors * 100.0,
                retries * 100.0
            ),
            _ => "no calls yet".to_owned(),
        };
        Ok(format!("<{kind}{name}: {}, {numbers}>", now.level.name()))
    }

    fn __getnewargs__(&self) -> (usize, Option<&str>) {
        (self.core.snapshot().window_size, self.name.as_deref())
    }

    /// What a copy takes over besides the constructor's arguments.
    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let state = PyDict::new(slf.py());
        state.set_item("callbacks", slf.get().callback_list(slf.py()))?;
        state.set_item("rules", alerts::given(&slf.get().core.rules()))?;
        state.set_item("remind_every", slf.get().remind_every())?;
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
        let core = slf.get().core();
        let mut rules = Rules::silent();
        alerts::put(&mut rules, part("rules")?.extract()?)?;
        rules.remind_every = convert::optional("remind_every", Some(&part("remind_every")?), convert::positive_seconds)?;
        alerts::be_ready(slf.py(), &rules)?;
        core.set_rules(rules);
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

fn take(monitor: &Bound<'_, Monitor>, record: Record, given_seconds: f64) -> PyResult<()> {
    let now = clock::now();
    if let Some(alert) = monitor.get().core.record_entry(now, Entry { at_ns: clock::unix(now), record, given_seconds }) {
        publish(monitor.py(), monitor.get(), &alert)?;
    }
    if alerts::is_unwatched(monitor.get()) { alerts::keep_watch(monitor, now) } else { Ok(()) }
}

/// Counts a call that the engine watched until `now`, and publishes the alert that it causes.
pub fn record(monitor: &Py<Monitor>, record: Record, now: Instant) -> Result<(), Box<PyErr>> {
    let alert = monitor.get().core.record_entry(now, Entry { at_ns: clock::unix(now), record, given_seconds: f64::NAN });
    after(monitor, alert, now)
}

/// As [`record`], of a call that passed at once.
#[inline]
pub fn passed(monitor: &Py<Monitor>, latency_ns: u64, now: Instant) -> Result<(), Box<PyErr>> {
    let alert = monitor.get().core.passed(now, clock::unix(now), latency_ns);
    after(monitor, alert, now)
}

#[inline]
fn after(monitor: &Py<Monitor>, alert: Option<Alert>, now: Instant) -> Result<(), Box<PyErr>> {
    if alert.is_none() && !alerts::is_unwatched(monitor.get()) { Ok(()) } else { told_aside(monitor, alert, now) }
}

/// The call is over: what cannot be told of it does not change how it came out. Interrupts are passed on.
#[cold]
fn told_aside(monitor: &Py<Monitor>, alert: Option<Alert>, now: Instant) -> Result<(), Box<PyErr>> {
    slots::attached(|py| {
        let told = alert.map_or(Ok(()), |alert| publish(py, monitor.get(), &alert));
        match told.and_then(|()| alerts::keep_watch(monitor.bind(py), now)) {
            Err(error) if error.is_instance_of::<PyException>(py) => {
                error.write_unraisable(py, None);
                Ok(())
            }
            told => told.map_err(Box::new),
        }
    })
}

/// The native half of `seawall.MonitoringSystem`: everything that counts.
#[pyclass(frozen, subclass, extends = Monitor, module = "seawall._seawall")]
pub struct MonitoringSystem;

#[pymethods]
impl MonitoringSystem {
    // A subclass may take what it likes in its `__init__`, so nothing is looked at here.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Monitor::with(100, None, Language::Chinese, Rules::default(), Vec::new())).add_subclass(MonitoringSystem)
    }

    /// Counts one finished request.
    ///
    /// Args:
    ///     success: whether it succeeded.
    ///     retried: whether it needed more than one attempt.
    ///     latency: how long it took, seconds or timedelta.
    #[pyo3(signature = (success, retried, latency))]
    fn record_request(
        slf: &Bound<'_, Self>,
        success: &Bound<'_, PyAny>,
        retried: &Bound<'_, PyAny>,
        latency: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let given_seconds = seconds("latency", latency)?;
        let record = Record {
            ok: flag("success", success)?,
            retries: u32::from(flag("retried", retried)?),
            latency_ns: (given_seconds * 1e9).round() as u64,
            ..Record::default()
        };
        take(slf.as_super(), record, given_seconds)
    }

    /// The requests in the window, oldest first, as dicts with `timestamp`, `success`, `retried` and `latency`: a copy.
    #[getter]
    fn requests<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let request = |entry: &Entry| {
            let request = PyDict::new(py);
            request.set_item("timestamp", entry.at_ns as f64 / 1e9)?;
            request.set_item("success", entry.record.ok)?;
            request.set_item("retried", entry.record.retries > 0)?;
            request.set_item("latency", entry.seconds())?;
            Ok(request)
        };
        let requests: Vec<_> = slf.as_super().get().core.entries().iter().map(request).collect::<PyResult<_>>()?;
        PyTuple::new(py, requests)
    }

    /// Begins again, empty, with a window of that size.
    fn _begin(slf: &Bound<'_, Self>, window_size: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.as_super().get().core.restart(window_of("window_size", window_size)?);
        Ok(())
    }

    /// Moves the limit of a metric, from the next record on.
    fn _set_limit(slf: &Bound<'_, Self>, metric: &str, limit: f64) -> PyResult<()> {
        let metric = Metric::named(metric).ok_or_else(|| PyValueError::new_err(format!("there is no metric '{metric}'")))?;
        slf.as_super().get().core.set_limit(metric, limit);
        Ok(())
    }
}
