//! Python values to JSON, without a detour over `json.dumps`, and back.

use crate::llm::order::Params;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde::Serialize;
use std::fmt;

/// Deeper nesting is a mistake, most likely a cycle.
const DEEPEST: usize = 200;

/// JSON as Python has it.
pub fn parsed<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    crate::python::errors::ours(py, &LOADS, "json", "loads")?.call1((text,))
}

/// Where something stands in an argument: put into words for an error alone.
enum Place<'a> {
    Whole(&'a str),
    Item(&'a Place<'a>, usize),
    Entry(&'a Place<'a>, &'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Whole(name) => f.write_str(name),
            Place::Item(of, at) => write!(f, "{of}[{at}]"),
            Place::Entry(of, key) => write!(f, "{of}.{key}"),
        }
    }
}

/// Python's texts may hold halves of characters, which no encoding can carry.
fn utf8<'a>(text: &'a Bound<'_, PyString>, place: impl FnOnce() -> String) -> PyResult<&'a str> {
    text.to_str().map_err(|_| PyValueError::new_err(format!("{} holds a lone surrogate (half a character), which cannot be sent", place())))
}

fn put(value: &impl Serialize, json: &mut Vec<u8>) {
    // Writing texts and numbers to memory cannot fail.
    let _ = serde_json::to_writer(json, value);
}

fn put_text(text: &str, json: &mut Vec<u8>) {
    // Without a branch, so that many bytes are looked at together: most prompts are long, and many have nothing to escape.
    let escaped = text.bytes().fold(0, |found, byte| found | u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\'));
    if escaped != 0 {
        return put(&text, json);
    }
    json.reserve(text.len() + 2);
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}

fn write(value: &Bound<'_, PyAny>, place: &Place<'_>, depth: usize, json: &mut Vec<u8>) -> PyResult<()> {
    if depth > DEEPEST {
        return Err(PyValueError::new_err(format!("{place} is nested deeper than {DEEPEST} levels, or holds itself")));
    }
    if let Ok(text) = value.cast::<PyString>() {
        put_text(utf8(text, || place.to_string())?, json);
    } else if value.is_none() {
        json.extend_from_slice(b"null");
    } else if let Ok(truth) = value.cast::<PyBool>() {
        put(&truth.is_true(), json);
    } else if value.is_instance_of::<PyInt>() {
        if let Ok(number) = value.extract::<i64>() {
            put(&number, json);
        } else if let Ok(number) = value.extract::<u64>() {
            put(&number, json);
        } else {
            return Err(PyValueError::new_err(format!("{place} is a number too large for JSON")));
        }
    } else if value.is_instance_of::<PyFloat>() {
        match value.extract::<f64>()? {
            number if number.is_finite() => put(&number, json),
            _ => return Err(PyValueError::new_err(format!("{place} is {value}, which JSON cannot say"))),
        }
    } else if let Ok(dict) = value.cast::<PyDict>() {
        json.push(b'{');
        for (at, (key, item)) in dict.iter().enumerate() {
            let key = key_text(name(&key, place)?, place)?;
            if at > 0 {
                json.push(b',');
            }
            put_text(key, json);
            json.push(b':');
            write(&item, &Place::Entry(place, key), depth + 1, json)?;
        }
        json.push(b'}');
    } else if let Ok(list) = value.cast::<PyList>() {
        array(list.iter(), place, depth, json)?;
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        array(tuple.iter(), place, depth, json)?;
    } else {
        let kind = value.get_type().fully_qualified_name()?;
        return Err(PyTypeError::new_err(format!(
            "{place} is a {kind}, which JSON has no form for: give str, numbers, bool, None, dict or list"
        )));
    }
    Ok(())
}

fn array<'py>(items: impl Iterator<Item = Bound<'py, PyAny>>, place: &Place<'_>, depth: usize, json: &mut Vec<u8>) -> PyResult<()> {
    json.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            json.push(b',');
        }
        write(&item, &Place::Item(place, at), depth + 1, json)?;
    }
    json.push(b']');
    Ok(())
}

fn name<'a, 'py>(key: &'a Bound<'py, PyAny>, place: &Place<'_>) -> PyResult<&'a Bound<'py, PyString>> {
    match key.cast::<PyString>() {
        Ok(key) => Ok(key),
        Err(_) => Err(PyTypeError::new_err(format!("{place} has the key {}, and JSON's keys are text", key.repr()?))),
    }
}

fn key_text<'a>(key: &'a Bound<'_, PyString>, place: &Place<'_>) -> PyResult<&'a str> {
    utf8(key, || format!("a key of {place}"))
}

/// What a chat model is asked, as JSON: messages, or a text that is the user's. Errors name the `place`.
pub fn messages(asked: &Bound<'_, PyAny>, place: &str) -> PyResult<Box<[u8]>> {
    let Ok(content) = asked.cast::<PyString>() else { return text(asked, place) };
    let content = utf8(content, || format!("{place}[0].content"))?;
    let mut json = Vec::with_capacity(content.len() + 48);
    json.extend_from_slice(br#"[{"role":"user","content":"#);
    put_text(content, &mut json);
    json.extend_from_slice(b"}]");
    Ok(json.into_boxed_slice())
}

/// The same as Python has it.
pub fn as_messages<'py>(asked: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if !asked.is_instance_of::<PyString>() {
        return Ok(asked.clone());
    }
    let message = PyDict::new(asked.py());
    message.set_item("role", "user")?;
    message.set_item("content", asked)?;
    Ok(PyList::new(asked.py(), [message])?.into_any())
}

/// A value as JSON; errors name the `place`.
pub fn text(value: &Bound<'_, PyAny>, place: &str) -> PyResult<Box<[u8]>> {
    let mut json = Vec::with_capacity(256);
    write(value, &Place::Whole(place), 0, &mut json)?;
    Ok(json.into_boxed_slice())
}

/// The parameters in a dict.
pub fn params(dict: Option<&Bound<'_, PyDict>>) -> PyResult<Params> {
    let Some(dict) = dict else { return Ok(Params::new()) };
    let place = Place::Whole("params");
    let mut params = Params::with_capacity(dict.len());
    for (key, item) in dict {
        let key = key_text(name(&key, &place)?, &place)?;
        let mut json = Vec::new();
        write(&item, &Place::Entry(&place, key), 1, &mut json)?;
        params.push((key.into(), json.into_boxed_slice()));
    }
    Ok(params)
}
