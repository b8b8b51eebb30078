//! What a breaker tells: its listeners, the log, `metrics()` and `explain()`.

use super::CircuitBreaker;
use super::permit::lock;
use crate::drive::trial;
use crate::engine::Instant;
use crate::events::{self, Name};
use crate::policies::circuit_breaker::{Change, Config, Outlook, Span, State, Totals};
use crate::python::convert::quoted;
use crate::python::errors::ours;
use crate::python::{log, virtual_time};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether an event is about a change of state, which the breaker itself tells of.
pub fn is_change(event: Name) -> bool {
    matches!(event, events::CIRCUIT_OPENED | events::CIRCUIT_HALF_OPENED | events::CIRCUIT_CLOSED)
}

fn event_name(to: State) -> Name {
    match to {
        State::Open | State::ForcedOpen => events::CIRCUIT_OPENED,
        State::HalfOpen => events::CIRCUIT_HALF_OPENED,
        State::Closed | State::Disabled | State::MetricsOnly => events::CIRCUIT_CLOSED,
    }
}

/// No process.
pub const NOBODY: u32 = 0;

/// Gives the right to tell back, whatever a listener raises.
struct Telling<'a>(&'a AtomicU32);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.store(NOBODY, Ordering::Release);
    }
}

impl CircuitBreaker {
    /// Tells the log and the listeners what has changed, in order, with no lock held. One thread tells at a time; what
    /// changes meanwhile, a listener's own doing included, is told by it too.
    pub fn tell(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        loop {
            // A thread that told when this process was forked off tells nobody here.
            let me = std::process::id();
            if this.telling.swap(me, Ordering::AcqRel) == me {
                return Ok(());
            }
            let telling = Telling(&this.telling);
            for change in this.core.take_changes() {
                log_change(py, &change, &this.display_name())?;
                this.call_listeners(slf, &change)?;
            }
            drop(telling);
            // Whoever found the right taken has left its changes here.
            if !this.core.has_changes() {
                return Ok(());
            }
        }
    }

    fn call_listeners(&self, slf: &Bound<'_, Self>, change: &Change) -> PyResult<()> {
        static EVENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let listeners: Vec<Py<PyAny>> = lock(&self.listeners).iter().map(|l| l.clone_ref(py)).collect();
        if listeners.is_empty() {
            return Ok(());
        }
        let retry_after = change.opens_in.map(|d| d.as_secs_f64());
        let fields = (
            event_name(change.to).as_str(),
            slf,
            change.from.name(),
            change.to.name(),
            change.cause.text(),
            retry_after,
            self.last_failure(py),
        );
        let event = ours(py, &EVENT, "seawall._circuit_reports", "CircuitEvent")?.call1(fields)?;
        for listener in listeners {
            match listener.bind(py).call1((&event,)) {
                Err(error) if error.is_instance_of::<PyException>(py) => log::hook_failed(py, listener.bind(py), &error)?,
                Err(interrupt) => return Err(interrupt),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The snapshot that `metrics()` gives.
    pub fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static METRICS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let now = self.now(py)?;
        let (config, seen) = (self.core.config(), self.core.outlook(now));
        let totals = config.window().map(|_| seen.totals);
        let share = |part: u32, calls: u32| (calls > 0).then(|| f64::from(part) / f64::from(calls));
        let fields = PyDict::new(py);
        fields.set_item("name", self.name())?;
        fields.set_item("state", seen.state.name())?;
        fields.set_item("consecutive_failures", seen.consecutive_failures)?;
        fields.set_item("calls", totals.map(|t| t.calls))?;
        fields.set_item("failed", totals.map(|t| t.failed))?;
        fields.set_item("slow", totals.filter(|_| config.slow.is_some()).map(|t| t.slow))?;
        fields.set_item("failure_rate", totals.and_then(|t| share(t.failed, t.calls)))?;
        fields.set_item("slow_call_rate", totals.filter(|_| config.slow.is_some()).and_then(|t| share(t.slow, t.calls)))?;
        fields.set_item("rejected", seen.rejected)?;
        fields.set_item("openings", seen.openings)?;
        fields.set_item("openings_in_a_row", seen.openings_in_a_row)?;
        fields.set_item("probes", seen.probes)?;
        fields.set_item("probe_successes", seen.probe_successes)?;
        fields.set_item("retry_after", seen.opens_in.map(|d| d.as_secs_f64()))?;
        fields.set_item("last_failure", self.last_failure(py))?;
        ours(py, &METRICS, "seawall._circuit_reports", "CircuitMetrics")?.call((), Some(&fields))
    }

    /// Why it is in its state, and what would change it.
    pub fn explanation(&self, py: Python<'_>) -> PyResult<String> {
        let now = self.now(py)?;
        let (config, seen) = (self.core.config(), self.core.outlook(now));
        let name = match self.name() {
            Some(name) => format!("Circuit {}", quoted(py, &name)),
            None => "The unnamed circuit".into(),
        };
        let mut lines = vec![headline(&name, &seen, now)];
        lines.extend(prospects(&config, &seen));
        if let Some(failure) = self.last_failure(py) {
            lines.push(format!("The failure counted last: {}.", super::short_repr(failure.bind(py))));
        }
        if seen.openings > 0 || seen.rejected > 0 {
            let ever = |n: u64, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
            lines.push(format!("So far: {}, {} turned away.", ever(seen.openings, "opening"), ever(seen.rejected, "call")));
        }
        Ok(lines.join("\n"))
    }
}

fn headline(name: &str, seen: &Outlook, now: Instant) -> String {
    let ago = format!("{:.1} s ago", now.since(seen.since).as_secs_f64());
    let why = seen.cause.text();
    match seen.state {
        State::Closed if seen.since == Instant(0) => format!("{name} is closed and has never been open."),
        State::Closed => format!("{name} is closed since {ago}: {why}."),
        State::Open => format!("{name} is open since {ago}: {why}."),
        State::HalfOpen if seen.opens_in.is_some() => format!("{name} is half open: its recovery time is over. It opened {ago}: {why}."),
        State::HalfOpen => format!("{name} is half open since {ago}: {why}."),
        State::ForcedOpen => format!("{name} is forced open since {ago}, by hand: all calls are turned away."),
        State::Disabled => format!("{name} is disabled since {ago}, by hand: calls pass and nothing is counted."),
        State::MetricsOnly => format!("{name} only counts since {ago}, by hand: it never opens."),
    }
}

fn plural(n: u32, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

fn prospects(config: &Config, seen: &Outlook) -> Vec<String> {
    match seen.state {
        State::Closed => rules(config, seen),
        State::MetricsOnly => rules(config, seen).into_iter().map(|line| line.replacen("opens", "would open", 1)).collect(),
        State::Open if config.lenient => {
            vec![format!("In {:.1} s it lets calls through; one success closes it.", seen.opens_in.unwrap_or_default().as_secs_f64())]
        }
        State::HalfOpen if config.lenient => vec!["Calls pass: one success closes it, a failure opens it again.".into()],
        State::Open => {
            let seconds = seen.opens_in.unwrap_or_default().as_secs_f64();
            let probes = plural(config.half_open_max_calls, "probe");
            vec![format!("In {seconds:.1} s it lets {probes} at a time through; {} must succeed.", config.success_threshold)]
        }
        State::HalfOpen => vec![format!(
            "{} of {} out; {} of {} have succeeded. One failure opens it again.",
            seen.probes,
            plural(config.half_open_max_calls, "probe"),
            seen.probe_successes,
            config.success_threshold
        )],
        State::ForcedOpen => vec!["It goes on when its isolation ends, or with reset() or force().".into()],
        State::Disabled => vec!["It counts again after reset() or force().".into()],
    }
}

/// What would open it, and how near that is.
fn rules(config: &Config, seen: &Outlook) -> Vec<String> {
    let Totals { calls, failed, slow } = seen.totals;
    let span = match config.span {
        Span::Calls(n) => format!("of the last {}", plural(n, "call")),
        Span::Time(time) => format!("of the last {} s", time.as_secs_f64()),
    };
    let share = |part: u32| if calls == 0 { 0.0 } else { 100.0 * f64::from(part) / f64::from(calls) };
    let enough = if calls < config.minimum_calls { format!(", from {}", plural(config.minimum_calls, "call")) } else { String::new() };
    let mut lines = Vec::new();
    if let Some(n) = config.consecutive {
        lines.push(format!("It opens at {} in a row: {} so far.", plural(n, "failure"), seen.consecutive_failures));
    }
    if let Some(rate) = config.rate {
        let limit = 100.0 * rate;
        lines.push(format!("It opens at {limit} % failures {span}{enough}: {failed} of {calls} ({:.0} %) so far.", share(failed)));
    }
    if let Some(limit) = config.slow {
        let (ratio, from) = (100.0 * limit.ratio, limit.duration.as_secs_f64());
        lines.push(format!(
            "It opens at {ratio} % calls of {from} s or more {span}{enough}: {slow} of {calls} ({:.0} %) so far.",
            share(slow)
        ));
    }
    lines
}

fn log_change(py: Python<'_>, change: &Change, name: &str) -> PyResult<()> {
    let why = change.cause.text();
    let text = match (change.to, change.opens_in) {
        (State::Open, opens_in) => {
            let seconds = opens_in.unwrap_or_default().as_secs_f64();
            format!("circuit '{name}' opened, next attempt in {seconds:.1} s: {why}")
        }
        (State::HalfOpen, _) => format!("circuit '{name}' is half open"),
        (State::Closed, _) => format!("circuit '{name}' closed: {why}"),
        (State::ForcedOpen, _) => format!("circuit '{name}' is forced open: calls are turned away until told otherwise"),
        (State::Disabled, _) => format!("circuit '{name}' is disabled: calls pass and nothing is counted"),
        (State::MetricsOnly, _) => format!("circuit '{name}' only counts: it never opens"),
    };
    let event = event_name(change.to);
    if trial::is_recorded() {
        virtual_time::record_change(py, event.as_str(), name, change.at, change.opens_in.unwrap_or_default(), &why)?;
    }
    log::line(py, event, name, || text)
}
