//! From rejections to the exceptions of `seawall.errors`, and the notes that exceptions carry.

use crate::engine::{Refusal, Rejection};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};

/// A class or function of a Python module of ours, looked up once.
pub fn ours<'py>(py: Python<'py>, cell: &'static PyOnceLock<Py<PyAny>>, module: &str, name: &str) -> PyResult<Bound<'py, PyAny>> {
    cell.get_or_try_init(py, || Ok(py.import(module)?.getattr(name)?.unbind())).map(|o| o.bind(py).clone())
}

/// A `seawall.errors` class by name.
pub fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    MODULE.get_or_try_init(py, || Ok::<_, PyErr>(py.import("seawall.errors")?.into_any().unbind()))?.bind(py).getattr(name)
}

/// An instance of a class; without a message the class says what there is to say.
fn raised(py: Python<'_>, name: &str, message: Option<&str>, fields: &Bound<'_, PyDict>) -> PyErr {
    match class(py, name).and_then(|c| c.call((message,), Some(fields))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// A `ConfigurationError`.
pub fn configuration(py: Python<'_>, message: &str) -> PyErr {
    match class(py, "ConfigurationError").and_then(|c| c.call1((message,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// A `ConfigurationError` about a value of the wrong type, which is a `TypeError` too.
pub fn wrong_type(py: Python<'_>, message: &str) -> PyErr {
    match class(py, "ConfigurationTypeError").and_then(|c| c.call1((message,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// What a rejection is raised as.
pub fn rejection(py: Python<'_>, rejection: &Rejection, name: &str, last_failure: Option<&Py<PyAny>>) -> PyErr {
    let fields = PyDict::new(py);
    let retry_after = rejection.retry_after.map(|d| d.as_secs_f64());
    let filled = (|| -> PyResult<&str> {
        fields.set_item("name", name)?;
        if rejection.refusal != Refusal::TimedOut {
            fields.set_item("retry_after", retry_after)?;
        }
        Ok(match rejection.refusal {
            Refusal::CircuitOpen => {
                fields.set_item("last_failure", last_failure)?;
                "CircuitBreakerError"
            }
            Refusal::TimedOut => {
                fields.set_item("limit", rejection.limit.as_secs_f64())?;
                fields.set_item("elapsed", rejection.limit.as_secs_f64())?;
                "CallTimeoutError"
            }
            Refusal::RateLimited => "RateLimitExceededError",
            Refusal::BulkheadFull => "BulkheadFullError",
        })
    })();
    match filled {
        Ok(class) => raised(py, class, None, &fields),
        Err(error) => error,
    }
}

/// Puts seawall's note on an exception (PEP 678), replacing one that an earlier call left on the same object.
pub fn annotate(exception: &Bound<'_, PyAny>, note: &str) {
    let py = exception.py();
    let name = intern!(py, "__notes__");
    let put = || -> PyResult<()> {
        let notes = match exception.getattr(name).ok().and_then(|n| n.cast_into::<PyList>().ok()) {
            Some(notes) => notes,
            None => {
                let notes = PyList::empty(py);
                exception.setattr(name, &notes)?;
                notes
            }
        };
        for i in (0..notes.len()).rev() {
            if notes.get_item(i)?.extract::<String>().is_ok_and(|n| n.starts_with("seawall: ")) {
                notes.del_item(i)?;
            }
        }
        notes.append(format!("seawall: {note}"))
    };
    // An exception that takes no attributes goes without its note.
    let _ = put();
}
