//! What a model was asked, for whoever wants its answers forgotten.

use super::json;
use crate::python::errors::{ours, unless_interrupted};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The texts of an input as a chat model and an embeddings model are asked it, if it is one.
pub fn asked(py: Python<'_>, input: &Bound<'_, PyAny>) -> PyResult<Vec<Box<[u8]>>> {
    static MESSAGES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let messages = || ours(py, &MESSAGES, "seawall._chat_batch", "messages")?.call1((input,));
    let mut asked = Vec::new();
    for content in [unless_interrupted(py, messages())?, Some(input.clone())].into_iter().flatten() {
        let text = unless_interrupted(py, json::text(&content, "input"))?;
        asked.extend(text);
    }
    Ok(asked)
}
