//! A function of the user's that gives the key of each attempt.

use crate::llm::error::{ApiError, ErrorKind};
use crate::llm::keys::KeySource;
use crate::llm::secret::ApiKey;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::Arc;

/// The function.
pub struct Function(pub Py<PyAny>);

fn wrong(what: &str) -> ApiError {
    ApiError::new(ErrorKind::Authentication, format!("the api_key function {what}"))
}

impl KeySource for Function {
    fn key(&self) -> Result<ApiKey, ApiError> {
        let given = Python::try_attach(|py| {
            let given = match self.0.bind(py).call0() {
                Ok(given) => given,
                Err(raised) => {
                    let kind = raised.get_type(py).name().map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
                    // What it says may hold a key: it is shown as the cause and nowhere else.
                    let mut error = wrong(&format!("raised {kind}; see the cause of this error"));
                    error.raised = Some(Arc::new(raised));
                    return Err(error);
                }
            };
            if let Ok(text) = given.cast::<PyString>() {
                return text.to_str().map(str::to_owned).map_err(|_| wrong("gave half a character, which cannot be sent"));
            }
            if let Ok(close) = given.getattr(intern!(py, "close"))
                && given.hasattr(intern!(py, "__await__")).unwrap_or(false)
            {
                // So that Python does not warn that nobody awaited it. A failure to close says nothing more.
                let _ = close.call0();
                return Err(wrong("is an async one, and gave a coroutine: give a plain function, it is called on a thread of its own"));
            }
            let kind = given.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
            Err(wrong(&format!("gave {kind} where a str was expected")))
        });
        let key = given.unwrap_or_else(|| Err(wrong("cannot be asked: the interpreter is shutting down")))?;
        ApiKey::new(key).map_err(|error| wrong(&format!("gave no key: {}", error.message)))
    }
}
