//! Python values to configuration, each refusal saying which argument, what it was and what it may be.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDeltaAccess, PyString};
use std::time::Duration;

use super::errors::{configuration, wrong_type};

/// A text as Python writes it, in quotes.
pub fn quoted(py: Python<'_>, text: &str) -> String {
    PyString::new(py, text).repr().map_or_else(|_| "?".into(), |r| r.to_string())
}

fn shown(value: &Bound<'_, PyAny>) -> String {
    let text = value.repr().map_or_else(|_| "?".into(), |r| r.to_string());
    let kind = value.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string());
    let short: String = text.chars().take(60).collect();
    format!("{short} ({kind})")
}

/// The refusal of a value of the wrong type.
pub fn type_error(argument: &str, value: &Bound<'_, PyAny>, may_be: &str) -> PyErr {
    wrong_type(value.py(), &format!("{argument} must be {may_be}, not {}", shown(value)))
}

/// Seconds as a number or a `timedelta`; zero allowed.
pub fn seconds(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = if let Ok(delta) = value.cast::<PyDelta>() {
        f64::from(delta.get_days()) * 86_400.0 + f64::from(delta.get_seconds()) + f64::from(delta.get_microseconds()) / 1e6
    } else if value.is_instance_of::<PyBool>() {
        return Err(type_error(argument, value, "seconds (a number or a timedelta)"));
    } else {
        value.extract::<f64>().map_err(|_| type_error(argument, value, "seconds (a number or a timedelta)"))?
    };
    if seconds.is_nan() || seconds < 0.0 {
        return Err(configuration(value.py(), &format!("{argument} must be zero seconds or more, not {}", shown(value))));
    }
    // Longer than five centuries is as good as for ever, and the clock's range ends there.
    Ok(Duration::from_secs_f64(seconds.min(1.6e10)))
}

/// Seconds, more than zero.
pub fn positive_seconds(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let duration = seconds(argument, value)?;
    if duration.is_zero() {
        return Err(configuration(value.py(), &format!("{argument} must be more than zero seconds, not {}", shown(value))));
    }
    Ok(duration)
}

/// A whole number from `least` on.
pub fn count(argument: &str, value: &Bound<'_, PyAny>, least: u32) -> PyResult<u32> {
    let wrong = || type_error(argument, value, &format!("a whole number from {least} on"));
    if value.is_instance_of::<PyBool>() {
        return Err(wrong());
    }
    let number = value.extract::<i64>().map_err(|_| wrong())?;
    u32::try_from(number)
        .ok()
        .filter(|n| *n >= least)
        .ok_or_else(|| configuration(value.py(), &format!("{argument} must be a whole number from {least} on, not {number}")))
}

/// A share, more than 0 and at most 1.
pub fn share(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    if value.is_instance_of::<PyBool>() {
        return Err(type_error(argument, value, "a share between 0 and 1"));
    }
    let number = value.extract::<f64>().map_err(|_| type_error(argument, value, "a share between 0 and 1"))?;
    if number > 0.0 && number <= 1.0 {
        Ok(number)
    } else {
        Err(configuration(value.py(), &format!("{argument} must be a share, more than 0 and at most 1, not {}", shown(value))))
    }
}

/// A share, from 0 to 1.
pub fn portion(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    if !value.is_instance_of::<PyBool>() && value.extract::<f64>().is_ok_and(|number| number == 0.0) {
        return Ok(0.0);
    }
    share(argument, value)
}

/// `None` or what `convert` makes of it.
pub fn optional<T>(
    argument: &str,
    value: Option<&Bound<'_, PyAny>>,
    convert: impl FnOnce(&str, &Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<Option<T>> {
    match value {
        Some(value) if !value.is_none() => convert(argument, value).map(Some),
        _ => Ok(None),
    }
}
