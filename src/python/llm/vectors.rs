//! Vectors as Python has them.

use crate::llm::embeddings::EmbeddingsReply;
use crate::python::errors::ours;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

/// An `EmbeddingsReply`: what was answered, after which attempts and steps, in how many seconds, and whether a cache had it.
pub fn embeddings(
    py: Python<'_>,
    reply: &EmbeddingsReply,
    attempts: &Bound<'_, PyAny>,
    seconds: f64,
    steps: &Bound<'_, PyAny>,
    cached: bool,
) -> PyResult<Py<PyAny>> {
    static EMBEDDED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let vectors = PyList::empty(py);
    for vector in &reply.vectors {
        vectors.append(PyList::new(py, vector.iter().map(|x| f64::from(*x)))?)?;
    }
    let tokens = reply.usage.as_ref().map_or(0, |usage| usage.prompt_tokens);
    let fields = (vectors, reply.model.as_deref(), tokens, attempts, seconds, reply.request_id.as_deref(), steps, cached);
    Ok(ours(py, &EMBEDDED, "seawall.llm", "EmbeddingsReply")?.call1(fields)?.unbind())
}
