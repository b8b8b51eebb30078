//! From rejections to the exceptions of `seawall.errors`, and the notes that exceptions carry.

use crate::engine::{Refusal, Rejection};
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

/// A class or function of a Python module of ours, looked up once.
pub fn ours<'py>(py: Python<'py>, cell: &'static PyOnceLock<Py<PyAny>>, module: &str, name: &str) -> PyResult<Bound<'py, PyAny>> {
    cell.get_or_try_init(py, || Ok(py.import(module)?.getattr(name)?.unbind())).map(|o| o.bind(py).clone())
}

/// A `seawall.errors` class by name.
pub fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    MODULE.get_or_try_init(py, || Ok::<_, PyErr>(py.import("seawall.errors")?.into_any().unbind()))?.bind(py).getattr(name)
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

/// An instance with these attributes, past `__init__`: a refusal has to stay cheap, and these set no more than this.
fn filled<'py>(class: &Bound<'py, PyType>, fields: &[(&Bound<'py, PyString>, Bound<'py, PyAny>)]) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    let empty = PyTuple::empty(py);
    let kind = class.as_type_ptr();
    // SAFETY: what `type.__call__` does first; a class of exceptions has a `tp_new`.
    let error = unsafe {
        let Some(new) = (*kind).tp_new else { return class.call0() };
        Bound::from_owned_ptr_or_err(py, new(kind, empty.as_ptr(), std::ptr::null_mut()))?
    };
    let attributes = PyDict::new(py);
    for (name, value) in fields {
        attributes.set_item(*name, value)?;
    }
    // SAFETY: an exception, just made: its dict is made when something is set, and holds what is set.
    unsafe { (*error.as_ptr().cast::<ffi::PyBaseExceptionObject>()).dict = attributes.into_ptr() };
    Ok(error)
}

fn cached<'py>(py: Python<'py>, cell: &'static PyOnceLock<Py<PyType>>, name: &str) -> PyResult<&'py Bound<'py, PyType>> {
    Ok(cell.get_or_try_init(py, || Ok::<_, PyErr>(class(py, name)?.cast_into::<PyType>()?.unbind()))?.bind(py))
}

/// What a rejection is raised as.
pub fn rejection(py: Python<'_>, rejection: &Rejection, name: &str, last_failure: Option<&Py<PyAny>>) -> PyErr {
    made(py, rejection, name, last_failure).map_or_else(|failed| failed, PyErr::from_value)
}

fn made<'py>(py: Python<'py>, rejection: &Rejection, name: &str, last_failure: Option<&Py<PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    static OPEN: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static TIMEOUT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static LIMITED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static FULL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let name = (intern!(py, "name"), PyString::new(py, name).into_any());
    let after =
        || Ok::<_, PyErr>((intern!(py, "retry_after"), rejection.retry_after().map(|d| d.as_secs_f64()).into_pyobject(py)?.into_any()));
    let class = rejection.refusal().class_name();
    match rejection.refusal() {
        Refusal::CircuitOpen => {
            let last = (intern!(py, "last_failure"), last_failure.into_pyobject(py)?.into_any());
            filled(cached(py, &OPEN, class)?, &[name, after()?, last])
        }
        Refusal::TimedOut => {
            let limit = rejection.limit().as_secs_f64().into_pyobject(py)?.into_any();
            let fields = [name, (intern!(py, "limit"), limit.clone()), (intern!(py, "elapsed"), limit)];
            filled(cached(py, &TIMEOUT, class)?, &fields)
        }
        Refusal::RateLimited => filled(cached(py, &LIMITED, class)?, &[name, after()?]),
        Refusal::BulkheadFull => filled(cached(py, &FULL, class)?, &[name, after()?]),
    }
}

/// What somebody's Python code gave, or nothing where it raised; a Ctrl-C that came just then is passed on.
pub fn unless_interrupted<T>(py: Python<'_>, given: PyResult<T>) -> PyResult<Option<T>> {
    match given {
        Ok(given) => Ok(Some(given)),
        Err(error) if error.is_instance_of::<PyException>(py) => Ok(None),
        Err(interrupt) => Err(interrupt),
    }
}

/// Puts the failures of the alternatives on the first one, in a tuple that pickles whatever they are.
pub fn attach_alternatives(exception: &Bound<'_, PyAny>, others: Bound<'_, PyTuple>) -> PyResult<()> {
    // An exception that takes no attributes goes without; its note names them.
    let put = || exception.setattr("alternatives", class(exception.py(), "_Alternatives")?.call1((others,))?);
    unless_interrupted(exception.py(), put()).map(drop)
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
