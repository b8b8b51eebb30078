//! Python values to configuration, each refusal saying which argument, what it was and what it may be.

use pyo3::exceptions::{PyBaseException, PyOverflowError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDeltaAccess, PyString};
use std::time::Duration;

use super::errors::{configuration, wrong_type};

/// Seconds in five centuries: longer is as good as for ever, and the clock's range ends there.
pub const LONGEST: f64 = 1.6e10;

/// A text as Python writes it, in quotes.
pub fn quoted(py: Python<'_>, text: &str) -> String {
    PyString::new(py, text).repr().map_or_else(|_| "?".into(), |r| r.to_string())
}

/// A value as an error message shows it: its repr, cut short, and its type.
pub fn shown(value: &Bound<'_, PyAny>) -> String {
    let kind = value.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string());
    match value.repr() {
        Ok(repr) => format!("{} ({kind})", repr.to_string_lossy().chars().take(60).collect::<String>()),
        Err(_) => format!("an object of type {kind}"),
    }
}

/// The refusal of a value of the wrong type.
pub fn type_error(argument: &str, value: &Bound<'_, PyAny>, may_be: &str) -> PyErr {
    wrong_type(value.py(), &format!("{argument} must be {may_be}, not {}", shown(value)))
}

/// The refusal of a value of the right type.
pub fn value_error(argument: &str, value: &Bound<'_, PyAny>, may_be: &str) -> PyErr {
    configuration(value.py(), &format!("{argument} must be {may_be}, not {}", shown(value)))
}

/// `True` or `False`, and nothing that is only like them: `"no"` would be true.
pub fn flag(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.cast::<PyBool>().map(|flag| flag.is_true()).map_err(|_| type_error(argument, value, "True or False"))
}

/// A text.
pub fn text(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = value.cast::<PyString>().map_err(|_| type_error(argument, value, "a text"))?;
    // Half a surrogate pair can be neither logged nor sent.
    text.to_str().map(str::to_owned).map_err(|_| value_error(argument, value, "a text of whole characters"))
}

/// An exception.
pub fn exception(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match value.is_instance_of::<PyBaseException>() {
        true => Ok(()),
        false => Err(type_error(argument, value, "an exception")),
    }
}

/// A number; whole ones may be too large for a float.
pub fn number(value: &Bound<'_, PyAny>) -> Option<f64> {
    if value.is_instance_of::<PyBool>() {
        return None;
    }
    match value.extract::<f64>() {
        Ok(number) => Some(number),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            value.lt(0).ok().map(|negative| if negative { f64::NEG_INFINITY } else { f64::INFINITY })
        }
        Err(_) => None,
    }
}

fn amount(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let seconds = if let Ok(delta) = value.cast::<PyDelta>() {
        f64::from(delta.get_days()) * 86_400.0 + f64::from(delta.get_seconds()) + f64::from(delta.get_microseconds()) / 1e6
    } else {
        number(value).ok_or_else(|| type_error(argument, value, "a number of seconds or a timedelta"))?
    };
    if seconds.is_nan() || seconds < 0.0 {
        return Err(value_error(argument, value, "zero seconds or more"));
    }
    Ok(seconds)
}

/// Seconds as a number or a `timedelta`; zero allowed, and endless is as good as five centuries.
pub fn seconds(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    amount(argument, value).map(|seconds| Duration::from_secs_f64(seconds.min(LONGEST)))
}

/// Seconds that somebody will see pass.
pub fn finite_seconds(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    match amount(argument, value)? {
        seconds if seconds > LONGEST => Err(value_error(argument, value, "at most 1.6e10 seconds")),
        seconds => Ok(Duration::from_secs_f64(seconds)),
    }
}

fn not_zero(argument: &str, value: &Bound<'_, PyAny>, duration: Duration) -> PyResult<Duration> {
    if duration.is_zero() { Err(value_error(argument, value, "more than zero seconds")) } else { Ok(duration) }
}

/// Seconds, more than zero.
pub fn positive_seconds(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    not_zero(argument, value, seconds(argument, value)?)
}

/// Seconds, more than zero, that somebody will see pass.
pub fn finite_positive_seconds(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    not_zero(argument, value, finite_seconds(argument, value)?)
}

/// A whole number in these bounds. The largest of 32 bits is no bound that anybody meets, but by mistake.
pub fn whole(argument: &str, value: &Bound<'_, PyAny>, least: u64, most: u64) -> PyResult<u64> {
    let bounds = match most {
        u64::MAX => format!("a whole number from {least} to 2**64-1"),
        most => format!("a whole number from {least} to {most}"),
    };
    let may_be = if most == u64::from(u32::MAX) { format!("a whole number from {least} on") } else { bounds.clone() };
    if value.is_instance_of::<PyBool>() {
        return Err(type_error(argument, value, &may_be));
    }
    match value.extract::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(number) if number < least => Err(value_error(argument, value, &may_be)),
        Err(error) if !error.is_instance_of::<PyOverflowError>(value.py()) => Err(type_error(argument, value, &may_be)),
        Err(_) if value.lt(0)? => Err(value_error(argument, value, &may_be)),
        _ => Err(value_error(argument, value, &bounds)),
    }
}

/// A whole number from `least` on.
pub fn count(argument: &str, value: &Bound<'_, PyAny>, least: u32) -> PyResult<u32> {
    whole(argument, value, u64::from(least), u64::from(u32::MAX)).map(|number| number as u32)
}

/// A share, more than 0 and at most 1.
pub fn share(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    match number(value) {
        None => Err(type_error(argument, value, "a share between 0 and 1")),
        Some(number) if number > 0.0 && number <= 1.0 => Ok(number),
        Some(_) => Err(value_error(argument, value, "a share, more than 0 and at most 1")),
    }
}

/// A share, from 0 to 1.
pub fn portion(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    match number(value) {
        Some(0.0) => Ok(0.0),
        Some(number) if !(number > 0.0 && number <= 1.0) => Err(value_error(argument, value, "a share from 0 to 1")),
        _ => share(argument, value),
    }
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
