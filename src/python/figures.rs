//! The numbers that a monitor takes from a program, and those that it gives.

use super::convert;
use crate::monitor::{Histogram, Slot, Span, Tally, Word};
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDict, PyFloat, PyInt, PyType};

/// More than any machine will remember call by call.
const MAX_WINDOW: usize = 10_000_000;
/// Seconds, about 30 years: beyond it a latency is a mistake (a timestamp, a wrong unit).
const MAX_LATENCY: f64 = 1e9;

/// `True`, `False`, or the number that a log or a table has in their place.
pub fn flag(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Ok(flag) = value.cast_exact::<PyBool>() {
        return Ok(flag.is_true()); // nearly always
    }
    match value.cast::<PyInt>().ok().and_then(|number| number.extract::<u8>().ok()) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => convert::flag(name, value),
    }
}

/// Of money.
pub fn amount(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let refused = || convert::value_error(name, value, "a number, at least 0 and at most 1e9");
    let amount = if value.is_instance_of::<PyBool>() { Err(refused()) } else { value.extract::<f64>().map_err(|_| refused()) }?;
    if (0.0..=1e9).contains(&amount) { Ok(amount) } else { Err(refused()) }
}

/// Of a class, an exception, or the name itself.
pub fn error_name(value: &Bound<'_, PyAny>) -> PyResult<Word> {
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

pub fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let refused = || convert::type_error(name, value, "a number of seconds or a timedelta");
    let seconds = if let Ok(number) = value.cast_exact::<PyFloat>() {
        number.value() // nearly always
    } else if let Ok(delta) = value.cast::<PyDelta>() {
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
pub fn window_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Span> {
    if value.is_exact_instance_of::<PyInt>() {
        return Ok(Span::Calls(calls_of(name, value)?));
    }
    Ok(Span::Time(convert::finite_positive_seconds(name, value)?.as_nanos() as u64))
}

pub fn calls_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(convert::whole(name, value, 1, MAX_WINDOW as u64)? as usize)
}

/// As it was given: calls, or seconds.
pub fn window(py: Python<'_>, span: Span) -> PyResult<Bound<'_, PyAny>> {
    match span {
        Span::Calls(calls) => Ok(calls.into_pyobject(py)?.into_any()),
        Span::Time(ns) => Ok((ns as f64 / 1e9).into_pyobject(py)?.into_any()),
    }
}

pub fn quantiles(numbers: &Bound<'_, PyDict>, slot: &Slot) -> PyResult<()> {
    for (per_mille, name, first) in [(500, "p50", "first_token_p50"), (950, "p95", "first_token_p95"), (990, "p99", "first_token_p99")] {
        numbers.set_item(name, quantile(&slot.latencies, per_mille))?;
        numbers.set_item(first, quantile(&slot.first_tokens, per_mille))?;
    }
    Ok(())
}

/// Seconds.
pub fn quantile(latencies: &Histogram, per_mille: u32) -> Option<f64> {
    latencies.quantile(per_mille).map(|ns| ns as f64 / 1e9)
}

pub fn sums<'py>(py: Python<'py>, tally: &Tally) -> PyResult<Bound<'py, PyDict>> {
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
