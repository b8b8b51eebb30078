//! Python values to JSON, without a detour over `json.dumps`, and back.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Number, Value};

/// Deeper nesting is a mistake, most likely a cycle.
const DEEPEST: usize = 200;

/// JSON as Python has it.
pub fn parsed<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    crate::python::errors::ours(py, &LOADS, "json", "loads")?.call1((text,))
}

/// Python's texts may hold halves of characters, which no encoding can carry.
fn utf8<'a>(text: &'a Bound<'_, PyString>, place: &str) -> PyResult<&'a str> {
    text.to_str().map_err(|_| PyValueError::new_err(format!("{place} holds a lone surrogate (half a character), which cannot be sent")))
}

fn convert(value: &Bound<'_, PyAny>, place: &str, depth: usize) -> PyResult<Value> {
    if depth > DEEPEST {
        return Err(PyValueError::new_err(format!("{place} is nested deeper than {DEEPEST} levels, or holds itself")));
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::String(utf8(text, place)?.to_owned()));
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Value::Bool(truth.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        let number = value.extract::<i64>().map(Number::from).or_else(|_| value.extract::<u64>().map(Number::from));
        return number.map(Value::Number).map_err(|_| PyValueError::new_err(format!("{place} is a number too large for JSON")));
    }
    if value.is_instance_of::<PyFloat>() {
        let number = Number::from_f64(value.extract()?);
        return number.map(Value::Number).ok_or_else(|| PyValueError::new_err(format!("{place} is {value}, which JSON cannot say")));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        return Ok(Value::Object(object(dict, place, depth)?));
    }
    if let Ok(list) = value.cast::<PyList>() {
        return array(list.iter(), place, depth);
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return array(tuple.iter(), place, depth);
    }
    let kind = value.get_type().fully_qualified_name()?;
    Err(PyTypeError::new_err(format!("{place} is a {kind}, which JSON has no form for: give str, numbers, bool, None, dict or list")))
}

fn array<'py>(items: impl Iterator<Item = Bound<'py, PyAny>>, place: &str, depth: usize) -> PyResult<Value> {
    items.enumerate().map(|(at, item)| convert(&item, &format!("{place}[{at}]"), depth + 1)).collect::<PyResult<Vec<_>>>().map(Value::Array)
}

fn object(dict: &Bound<'_, PyDict>, place: &str, depth: usize) -> PyResult<Map<String, Value>> {
    let mut map = Map::new();
    for (key, item) in dict {
        let Ok(key) = key.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!("{place} has the key {}, and JSON's keys are text", key.repr()?)));
        };
        let key = utf8(key, &format!("a key of {place}"))?;
        map.insert(key.to_owned(), convert(&item, &format!("{place}.{key}"), depth + 1)?);
    }
    Ok(map)
}

/// A value; errors name the `place`.
pub fn value(value: &Bound<'_, PyAny>, place: &str) -> PyResult<Value> {
    convert(value, place, 0)
}

/// A dict.
pub fn map(dict: &Bound<'_, PyDict>, place: &str) -> PyResult<Map<String, Value>> {
    object(dict, place, 0)
}
