//! Digests of what a call is made with. Equal data have equal digests, whatever objects they are in, and data of different
//! types have different ones: `1`, `1.0` and `True` are not the same question.

use super::errors::ours;
use crate::policies::cache::{Digest, Key};
use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

/// Deeper nesting is a mistake, most likely a cycle.
const DEEPEST: usize = 200;

/// Data as bytes that say all of it, and what is no data but an object with an identity: that is held, so that nothing else can
/// come to have its address.
#[derive(Default)]
pub struct Written {
    bytes: Vec<u8>,
    pub held: Vec<Py<PyAny>>,
}

impl Written {
    fn tag(&mut self, tag: u8, length: usize) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&(length as u64).to_le_bytes());
    }

    fn text(&mut self, tag: u8, bytes: &[u8]) {
        self.tag(tag, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn items<'py>(&mut self, tag: u8, length: usize, items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> PyResult<()> {
        self.tag(tag, length);
        items.into_iter().try_for_each(|item| self.write(&item, depth + 1))
    }

    /// In whatever order they come.
    fn sorted(&mut self, tag: u8, parts: impl Iterator<Item = PyResult<Vec<u8>>>) -> PyResult<()> {
        let mut parts = parts.collect::<PyResult<Vec<_>>>()?;
        parts.sort_unstable();
        self.tag(tag, parts.len());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        Ok(())
    }

    fn apart<'py>(&mut self, items: &[&Bound<'py, PyAny>], depth: usize) -> PyResult<Vec<u8>> {
        let before = std::mem::take(&mut self.bytes);
        let written = items.iter().try_for_each(|item| self.write(item, depth + 1));
        let part = std::mem::replace(&mut self.bytes, before);
        written.map(|()| part)
    }

    /// Writes a value after what is there already.
    pub fn write(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        if depth > DEEPEST {
            return Err(PyRecursionError::new_err(format!("a cache key is nested deeper than {DEEPEST} levels, or holds itself")));
        }
        if let Ok(text) = value.cast_exact::<PyString>() {
            match text.to_str() {
                Ok(text) => self.text(b's', text.as_bytes()),
                // Half a character is one nevertheless.
                Err(_) => self.text(b'h', text.call_method1("encode", ("utf-8", "surrogatepass"))?.cast::<PyBytes>()?.as_bytes()),
            }
        } else if value.is_none() {
            self.bytes.push(b'N');
        } else if let Ok(truth) = value.cast_exact::<PyBool>() {
            self.bytes.push(if truth.is_true() { b'T' } else { b'F' });
        } else if value.cast_exact::<PyInt>().is_ok() {
            match value.extract::<i64>() {
                Ok(number) => self.text(b'i', &number.to_le_bytes()),
                Err(_) => self.text(b'I', value.call_method1("__format__", ("x",))?.cast::<PyString>()?.to_str()?.as_bytes()),
            }
        } else if value.cast_exact::<PyFloat>().is_ok() {
            self.text(b'f', &value.extract::<f64>()?.to_le_bytes());
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            self.text(b'b', bytes.as_bytes());
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.items(b't', tuple.len(), tuple.iter(), depth)?;
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.items(b'l', list.len(), list.iter(), depth)?;
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            let parts: Vec<_> = dict.iter().map(|(key, item)| self.apart(&[&key, &item], depth)).collect();
            self.sorted(b'd', parts.into_iter())?;
        } else if value.cast_exact::<PySet>().is_ok() || value.cast_exact::<PyFrozenSet>().is_ok() {
            let parts: Vec<_> = value.try_iter()?.map(|item| self.apart(&[&item?], depth)).collect();
            self.sorted(b'z', parts.into_iter())?;
        } else {
            self.other(value, depth)?;
        }
        Ok(())
    }

    fn other(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        static PLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let plain = ours(value.py(), &PLAIN, "seawall._cache", "plain")?.call1((value,))?;
        if plain.is_none() {
            self.is(value);
            return Ok(());
        }
        self.bytes.push(b'o');
        self.write(&plain, depth + 1)
    }

    /// Writes an object down as itself, equal to nothing else.
    pub fn is(&mut self, object: &Bound<'_, PyAny>) {
        self.text(b'@', &(object.as_ptr() as usize).to_le_bytes());
        self.held.push(object.clone().unbind());
    }

    /// The digest of what was written from there on.
    pub fn digest(&self, from: usize) -> Key {
        Digest::of(&self.bytes[from..])
    }

    /// What was written from there on.
    pub fn from(&self, from: usize) -> &[u8] {
        &self.bytes[from..]
    }

    /// How much was written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Says what kind of thing it is about.
    pub fn kind(&mut self, kind: &str) {
        self.text(b'k', kind.as_bytes());
    }
}
