//! `Monitor`.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::alerts;
use super::convert::{self, quoted};
use super::errors::{configuration, picture};
use super::figures::{amount, error_name, flag, quantile, quantiles, seconds, sums, window, window_of};
use super::judge::function_at_once;
pub use super::recording::{Watching, passed, record, take};
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::drive::clock;
use crate::monitor::{Alert, Entry, Language, Monitor as Core, Record, Rules, Slot, Source, Span, Tally, Word};
use crate::stats::Sums;
use crate::telemetry::known::MONITORS;

/// Adds the classes of this file to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Monitor>()
}

/// Unix time in nanoseconds.
fn now_ns() -> u64 {
    clock::unix(clock::now())
}

/// Health of something that is called, over its last calls.
///
/// ```python
/// monitor = seawall.Monitor(window=100, name="chat")
///
/// @seawall.guard(monitor=monitor)
/// def ask(question): ...
///
/// monitor.error_rate, monitor.p95, monitor.level
/// ```
///
/// Args:
///     window: how many of the last calls count, an int of 1 to 10,000,000 (default 100); or the calls of how many of the last
///         seconds, a float or timedelta.
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
    pub(super) core: Arc<Core>,
    name: Option<String>,
    language: Language,
    callbacks: Mutex<Vec<Py<PyAny>>>,
    alarm: alerts::Alarm,
}

impl Monitor {
    pub(super) fn with(window: Span, name: Option<String>, language: Language, rules: Rules, callbacks: Vec<Py<PyAny>>) -> Self {
        let core = Arc::new(Core::with_rules(window, rules));
        MONITORS.add(&core, &Arc::new(name.clone().map_or_else(OnceLock::new, |name| OnceLock::from(name.into_boxed_str()))));
        Monitor { core, name, language, callbacks: Mutex::new(callbacks), alarm: alerts::Alarm::unset() }
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn alarm(&self) -> &alerts::Alarm {
        &self.alarm
    }

    pub(super) fn callbacks(&self) -> MutexGuard<'_, Vec<Py<PyAny>>> {
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

/// The ways to the sinks that an argument names.
pub(super) fn outlets(py: Python<'_>, sinks: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Py<PyAny>>> {
    let outlets = |_: &str, sinks: &Bound<'_, PyAny>| py.import("seawall._delivery")?.call_method1("outlets", (sinks,))?.extract();
    Ok(convert::optional("sinks", sinks, outlets)?.unwrap_or_default())
}

fn glue(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("seawall._monitoring")
}

/// Logs an alert and hands it to the monitor's callbacks. Must be called with no lock held.
pub fn publish(py: Python<'_>, monitor: &Monitor, alert: &Alert) -> PyResult<()> {
    glue(py)?.call_method1("publish", (monitor.alert(py, alert)?, monitor.callback_list(py)))?;
    Ok(())
}

#[pymethods]
impl Monitor {
    #[new]
    #[pyo3(signature = (window=None, name=None, *, rules=None, remind_every=None, sinks=None),
           text_signature = "(window=100, name=None, *, rules=None, remind_every=None, sinks=None)")]
    fn new(
        py: Python<'_>,
        window: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        rules: Option<&Bound<'_, PyAny>>,
        remind_every: Option<&Bound<'_, PyAny>>,
        sinks: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let window = window.map_or(Ok(Span::Calls(100)), |window| window_of("window", window))?;
        let name = convert::optional("name", name, convert::text)?;
        let callbacks = outlets(py, sinks)?;
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
    fn snapshot<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        alerts::catch_up(slf)?;
        let py = slf.py();
        let (now, whole) = slf.get().core.whole(now_ns());
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

    /// Has alerts delivered to a sink: one of `seawall.sinks`, or any function of an alert, which may be asynchronous. They are
    /// delivered from a thread of seawall's own, tried again where that fails, and never in a call's way.
    ///
    /// Args:
    ///     sink: where they go.
    ///     level: `warning`, `critical` or `emergency`: incidents that do not come to this level are not told there.
    ///
    /// Returns the sink, so that it can be used as a decorator.
    #[pyo3(signature = (sink, level=None), text_signature = "($self, sink, level=\"warning\")")]
    fn add_sink(&self, py: Python<'_>, sink: Bound<'_, PyAny>, level: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let outlet = py.import("seawall._delivery")?.call_method1("outlet", (&sink, level))?;
        self.callbacks().push(outlet.unbind());
        Ok(sink.unbind())
    }

    /// Forgets a sink: no later alert goes there. Those that wait for it already are delivered still. One that was added twice
    /// has to be removed twice.
    ///
    /// Raises `ValueError` if it is none of this monitor's.
    fn remove_sink(&self, py: Python<'_>, sink: &Bound<'_, PyAny>) -> PyResult<()> {
        let delivery = py.import("seawall._delivery")?;
        loop {
            // Looked for outside the lock: comparing runs the sink's own code. Another thread may be faster; then it is the next one.
            let outlet = delivery.call_method1("outlet_to", (self.callback_list(py), sink))?;
            let removed = {
                let mut kept = self.callbacks();
                kept.iter().position(|callback| callback.is(&outlet)).map(|at| kept.remove(at))
            };
            if removed.is_some() {
                return Ok(());
            }
        }
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
        self.core.restart(self.core.span());
    }

    /// How many of the last calls count; or, as a float, of how many of the last seconds.
    #[getter]
    fn window<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        window(py, self.core.span())
    }

    /// The window's numbers apart; `what` they are told apart by is `pipeline`, `model`, `endpoint` or `error`, the class of the error of failed calls. A
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
    #[pyo3(signature = (slots=None), text_signature = "($self, slots=60)")]
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

    /// The last `most` calls in the window, oldest first: whether it succeeded, seconds, retries, whether an alternative answered,
    /// the Unix time of its end, the class of its error, the model. None where the window is a time.
    fn _recent(&self, most: usize) -> Vec<(bool, f64, u32, bool, f64, &'static str, &'static str)> {
        let told = |entry: &Entry| {
            let (at, record) = (entry.at_ns as f64 / 1e9, &entry.record);
            (record.ok, entry.seconds(), record.retries, record.fallback, at, record.error.as_str(), record.source.model().as_str())
        };
        self.core.recent(most).iter().map(told).collect()
    }

    /// A display that is brought up to date in place every `refresh` seconds, in a notebook or a terminal, until the `with` block
    /// ends or `stop()` is called: a `seawall._live.Live`.
    #[pyo3(signature = (refresh=None), text_signature = "($self, refresh=1.0)")]
    fn live<'py>(slf: &Bound<'py, Self>, refresh: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("seawall._live")?.getattr("Live")?.call1((slf, refresh))
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "monitor")
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
