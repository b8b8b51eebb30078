//! The logger `seawall`: what happened, never what was said. No content, no keys.

use super::errors::unless_interrupted;
use super::virtual_time;
use crate::drive::trial;
use crate::engine::Event;
use crate::events::{self, Name, Severity};
use pyo3::exceptions::{PyException, PyRecursionError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

fn logger<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyAny>> {
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let logger = LOGGER.get_or_try_init(py, || Ok::<_, PyErr>(py.import("logging")?.call_method1("getLogger", ("seawall",))?.unbind()))?;
    Ok(logger.bind(py))
}

fn level(severity: Severity) -> u8 {
    match severity {
        Severity::Debug => 10,
        Severity::Info => 20,
        Severity::Warning => 30,
    }
}

/// The kind of an exception and its status: all that may be said of it.
fn kind_of(error: &Bound<'_, PyAny>) -> PyResult<String> {
    let name = error.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string());
    Ok(match status_of(error)? {
        Some(status) => format!("{name} ({status})"),
        None => name,
    })
}

/// The HTTP status that an exception says it is about.
pub fn status_of(error: &Bound<'_, PyAny>) -> PyResult<Option<u16>> {
    let py = error.py();
    // Python's own exceptions have none, and to be told so costs an exception.
    // SAFETY: a live object's type.
    if unsafe { ffi::PyType_HasFeature(error.get_type_ptr(), ffi::Py_TPFLAGS_HEAPTYPE) } == 0 {
        return Ok(None);
    }
    let status = unless_interrupted(py, error.getattr_opt(intern!(py, "status_code")))?.flatten();
    Ok(status.and_then(|status| status.extract().ok()))
}

/// Whether it is a part of seawall's own that works in the background, as the delivery of alerts: it says itself what matters, once,
/// and its events are for those who look closely.
pub fn is_our_own(name: &str) -> bool {
    name.starts_with("seawall.sinks ")
}

/// Whether the logger lets events of that severity through.
pub fn is_heard(py: Python<'_>, severity: Severity) -> PyResult<bool> {
    // Found once: to look its name up is half of what the answer costs, and each call that meets trouble asks.
    static ASKED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let asked = ASKED.get_or_try_init(py, || logger(py)?.getattr("isEnabledFor").map(Bound::unbind))?;
    asked.bind(py).call1((level(severity),))?.is_truthy()
}

/// Tells an event of the pipeline or breaker `name` to recorders, and to the log if anybody hears it.
pub fn event(py: Python<'_>, event: &Event, name: &str, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    if trial::is_recorded() && !is_our_own(name) {
        virtual_time::record(py, event, name, error)?;
    }
    let severity = if is_our_own(name) { Severity::Debug } else { event.name.kind().severity };
    if is_heard(py, severity)? { say(py, event, severity, name, error) } else { Ok(()) }
}

/// Logs an event that is heard.
pub fn say(py: Python<'_>, event: &Event, severity: Severity, name: &str, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let (level, logger) = (level(severity), logger(py)?);
    let after = error.map(kind_of).transpose()?.map(|kind| format!(" after {kind}")).unwrap_or_default();
    let seconds = event.span.as_secs_f64();
    let text = match event.name {
        events::ATTEMPT_STARTED => format!("attempt {} of '{name}'", event.number),
        events::RETRY_SCHEDULED if event.outcome.is_some_and(|outcome| outcome.is_refusal()) => {
            format!("'{name}' waits {seconds:.2} s to try again{after}")
        }
        events::RETRY_SCHEDULED => format!("retry of '{name}' in {seconds:.2} s{after}, attempt {} failed", event.number),
        events::RETRY_EXHAUSTED => {
            format!(
                "no further retry of '{name}'{after}: {} ({} attempt{}, {seconds:.2} s)",
                event.reason,
                event.number,
                if event.number == 1 { "" } else { "s" }
            )
        }
        events::HEDGE_STARTED => format!("no answer from '{name}' after {seconds:.3} s: request {} is made", event.number + 1),
        events::HEDGE_WON => format!("request {} of '{name}' answered first, after {seconds:.3} s", event.number + 1),
        events::CIRCUIT_REJECTED => format!("circuit '{name}' is open: call turned away"),
        events::RATE_LIMIT_WAITED => format!("'{name}' waited {seconds:.2} s for its turn under the rate limit"),
        events::RATE_LIMIT_REJECTED => format!("rate limit '{name}' is used up: call turned away, next place in {seconds:.2} s"),
        events::RATE_LIMIT_PAUSED => format!("rate limit '{name}' lets nobody through for {seconds:.2} s{after}"),
        events::BULKHEAD_WAITED => format!("'{name}' waited {seconds:.2} s for a place in the bulkhead"),
        events::BULKHEAD_REJECTED => format!("bulkhead '{name}' turned a call away: {}", event.reason),
        events::CACHE_HIT => format!("'{name}' was answered from the cache, {seconds:.2} s old"),
        events::CACHE_MISS => format!("the cache has no answer for '{name}'"),
        events::CACHE_JOINED => format!("'{name}' was given the answer of an equal call, after {seconds:.2} s"),
        events::CACHE_STALE => format!("an answer from the cache, {seconds:.2} s old, stands in for '{name}'{after}"),
        events::TIMEOUT_ELAPSED => format!("'{name}' took longer than {seconds} s"),
        events::FALLBACK_USED => format!("alternative {} of '{name}' is tried{after}", event.number),
        events::FALLBACK_EXHAUSTED => format!("no alternative of '{name}' helped"),
        events::GUARDRAIL_REFUSED => format!("a guardrail of '{name}' refused the {}", event.reason),
        events::GUARDRAIL_REDACTED => format!("guardrails of '{name}' cut {} out of the {}", things(event.number), event.reason),
        events::GUARDRAIL_REPAIRED => format!("guardrails of '{name}' mended the JSON of the {}", event.reason),
        events::CHAOS_INJECTED if event.reason == "latency" => format!("chaos slowed '{name}' by {seconds:.3} s"),
        events::CHAOS_INJECTED => format!("chaos put its {} in place of '{name}'", event.reason),
        other => other.as_str().to_owned(),
    };
    write(logger, level, event.name.as_str(), name, text)
}

fn things(number: u32) -> String {
    if number == 1 { "one thing".to_owned() } else { format!("{number} things") }
}

/// Logs a line about `name` that is no event of a call; `text` is made only if somebody listens.
pub fn line(py: Python<'_>, event: Name, name: &str, text: impl FnOnce() -> String) -> PyResult<()> {
    let severity = if is_our_own(name) { Severity::Debug } else { event.kind().severity };
    let (level, logger) = (level(severity), logger(py)?);
    if is_heard(py, severity)? { write(logger, level, event.as_str(), name, text()) } else { Ok(()) }
}

fn write(logger: &Bound<'_, PyAny>, level: u8, event: &str, name: &str, text: String) -> PyResult<()> {
    let py = logger.py();
    let fields = PyDict::new(py);
    fields.set_item("seawall_event", event)?;
    fields.set_item("seawall_pipeline", name)?;
    let options = PyDict::new(py);
    options.set_item("extra", fields)?;
    heard_out(py, logger.call_method("log", (level, "%s", text), Some(&options)))
}

/// What a handler or filter of the user's raises is reported and changes no call; interrupts, and the end of the stack
/// that is the caller's as well, are passed on.
fn heard_out(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> PyResult<()> {
    match result {
        Err(error) if error.is_instance_of::<PyException>(py) && !error.is_instance_of::<PyRecursionError>(py) => {
            error.write_unraisable(py, None);
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Logs that a user's hook raised.
pub fn hook_failed(py: Python<'_>, hook: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<()> {
    let options = PyDict::new(py);
    let info = (error.get_type(py).cast_into::<PyType>()?, error.value(py), error.traceback(py));
    options.set_item("exc_info", info)?;
    heard_out(py, logger(py)?.call_method("error", ("a hook raised and was ignored: %r", hook), Some(&options)))
}
