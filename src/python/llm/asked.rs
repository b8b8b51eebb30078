//! What a model was asked, for whoever wants its answers forgotten.

use super::json;
use crate::python::errors::{ours, unless_interrupted};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The texts of an input as a chat model and an embeddings model are asked it, if it is one.
pub fn asked(py: Python<'_>, input: &Bound<'_, PyAny>) -> PyResult<Vec<Box<[u8]>>> {
    static MESSAGES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let messages = || json::messages(&ours(py, &MESSAGES, "seawall._chat_batch", "messages")?.call1((input,))?, "input");
    let mut asked = Vec::new();
    for text in [messages(), json::text(input, "input")] {
        asked.extend(unless_interrupted(py, text)?);
    }
    Ok(asked)
}
