//! A function of the user's that gives the key of each attempt.

use crate::llm::error::{ApiError, ErrorKind};
use crate::llm::keys::KeySource;
use crate::llm::secret::ApiKey;
use crate::python::errors::ours;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;
use std::sync::Arc;

/// The function.
pub struct Function(pub Py<PyAny>);

fn wrong(what: &str) -> ApiError {
    ApiError::new(ErrorKind::Authentication, format!("the api_key function {what}"))
}

/// What the function gives; one that is asynchronous runs elsewhere meanwhile.
fn asked<'py>(function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static WAITED_FOR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = function.py();
    let mut given = function.call0()?;
    if given.hasattr(intern!(py, "__await__"))? {
        given = ours(py, &WAITED_FOR, "seawall._keys", "waited_for")?.call1((given,))?;
    }
    // A `SecretStr` of pydantic's, or something like it.
    given.getattr_opt(intern!(py, "get_secret_value"))?.map_or(Ok(given), |text| text.call0())
}

impl KeySource for Function {
    fn key(&self, _refused: bool) -> Result<ApiKey, ApiError> {
        let given = Python::try_attach(|py| {
            let given = match asked(self.0.bind(py)) {
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
            let kind = given.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
            Err(wrong(&format!("gave {kind} where a str was expected")))
        });
        let key = given.unwrap_or_else(|| Err(wrong("cannot be asked: the interpreter is shutting down")))?;
        ApiKey::new(key).map_err(|error| wrong(&format!("gave no key: {}", error.message)))
    }
}
