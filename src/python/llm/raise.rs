//! From the client's failures to exceptions.

use super::json;
use crate::llm::error::{ApiError, ErrorKind};
use crate::llm::route::{Attempt, Failure, Leg, Route};
use crate::policies::retry::reason;
use crate::python::errors;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use std::sync::Arc;
use std::time::Duration;

/// An `ApiError` as the exception of that name in `table`, a module or namespace of exception classes.
pub fn api(py: Python<'_>, error: &ApiError, table: &Bound<'_, PyAny>, model: Option<&str>) -> PyErr {
    let made = || -> PyResult<Bound<'_, PyAny>> {
        let class = table.getattr(error.kind.class_name())?;
        if error.kind.class_name() == "ConfigurationError" {
            return class.call1((error.message.as_str(),));
        }
        let fields = PyDict::new(py);
        if error.is_refusal() {
            // What of it is another's to say stands where a server's word would.
            fields.set_item("rule", error.code.as_deref().unwrap_or_default())?;
            fields.set_item("place", error.param.as_deref().unwrap_or_default())?;
            fields.set_item("is_retryable", error.should_retry)?;
            fields.set_item("partial", error.partial.as_deref())?;
            return class.call((error.message.as_str(),), Some(&fields));
        }
        fields.set_item("status_code", error.status)?;
        fields.set_item("code", error.code.as_deref())?;
        fields.set_item("param", error.param.as_deref())?;
        fields.set_item("type", error.error_type.as_deref())?;
        fields.set_item("request_id", error.request_id.as_deref())?;
        let headers = PyDict::new(py);
        for (name, value) in &error.headers {
            headers.set_item(name, value)?;
        }
        fields.set_item("headers", headers)?;
        fields.set_item("body", error.body.as_deref().map(|text| body(py, text)).transpose()?)?;
        fields.set_item("model", model)?;
        if error.kind == ErrorKind::StreamInterrupted {
            fields.set_item("partial", error.partial.as_deref().unwrap_or_default())?;
        }
        class.call((error.message.as_str(),), Some(&fields))
    };
    let raised = made().map_or_else(|failed| failed, PyErr::from_value);
    if let Some(cause) = &error.cause {
        raised.set_cause(py, Some(api(py, cause, table, model)));
    }
    if let Some(own) = error.raised.as_ref().and_then(|own| own.downcast_ref::<PyErr>()) {
        raised.set_cause(py, Some(own.clone_ref(py)));
    }
    raised
}

/// The error object, or all of the JSON where it holds none, or the text where it is no JSON.
fn body<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let Some(parsed) = errors::unless_interrupted(py, json::parsed(py, text.as_bytes()))? else {
        return Ok(PyString::new(py, text).into_any());
    };
    let Ok(object) = parsed.cast::<PyDict>() else { return Ok(parsed) };
    Ok(match object.get_item("error")? {
        Some(error) if error.is_instance_of::<PyDict>() => error,
        _ => parsed,
    })
}

/// A failure of a route.
pub fn failure(py: Python<'_>, failure: &Failure, route: &Route, table: &Bound<'_, PyAny>, model: Option<&str>) -> PyErr {
    match failure {
        Failure::Api(error) => api(py, error, table, model),
        Failure::Rejected(rejection) => errors::rejection(py, rejection, route.name(rejection.stage()), None),
    }
}

/// The attempts as Python's records.
pub fn attempts<'py>(
    py: Python<'py>,
    attempts: &[Attempt],
    legs: &[Arc<Leg>],
    begun: crate::engine::Instant,
) -> PyResult<Bound<'py, PyAny>> {
    static ATTEMPTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let rows = PyList::empty(py);
    for attempt in attempts {
        let leg = legs.get(attempt.target.0);
        rows.append((
            leg.map(|l| &*l.model),
            attempt.target.0,
            attempt.started.since(begun).as_secs_f64(),
            attempt.took.map(|t| t.as_secs_f64()),
            attempt.outcome,
            attempt.status,
            attempt.request_id.as_deref(),
            attempt.waited.map(|w| w.as_secs_f64()),
        ))?;
    }
    errors::ours(py, &ATTEMPTS, "seawall._attempts", "attempts")?.call1((rows,))
}

/// Puts the story of the call on the exception that ends it.
pub fn tell(
    py: Python<'_>,
    error: &PyErr,
    others: Vec<PyErr>,
    attempts: &Bound<'_, PyAny>,
    exhausted: Option<(u32, Duration, &'static str)>,
    name: &str,
) -> PyResult<()> {
    let exception = error.value(py).as_any();
    let mut notes = Vec::new();
    if let Some((made, span, why)) = exhausted
        && (made > 1 || why != reason::FINAL)
    {
        notes.push(format!("{made} attempt{} in {:.1} s, {name} ({why})", if made == 1 { "" } else { "s" }, span.as_secs_f64()));
    }
    if !others.is_empty() {
        let kinds: Vec<String> = others.iter().map(|o| o.get_type(py).name().map_or_else(|_| "?".into(), |n| n.to_string())).collect();
        notes.push(format!("{} alternative{} failed too: {}", others.len(), if others.len() == 1 { "" } else { "s" }, kinds.join(", ")));
    }
    if !notes.is_empty() {
        errors::annotate(exception, &notes.join("; "));
    }
    // An exception that takes no attributes goes without its story.
    let _ = exception.setattr("attempts", attempts);
    if !others.is_empty() {
        errors::attach_alternatives(exception, PyTuple::new(py, others.into_iter().map(|o| o.into_value(py)))?)?;
    }
    Ok(())
}
