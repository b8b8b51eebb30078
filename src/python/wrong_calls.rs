//! Calls that cannot be: an argument that a class of ours does not have, a policy used as a decorator, a result where a function
//! belongs. What is said of each is made in `seawall._wrong_calls`.

use super::guardrails::Guardrails;
use super::monitor::Monitor;
use super::pipeline::Pipeline;
use super::policies::bulkhead::Bulkhead;
use super::policies::cache::Cache;
use super::policies::chaos::Chaos;
use super::policies::circuit_breaker::CircuitBreaker;
use super::policies::fallback::Fallback;
use super::policies::hedge::Hedge;
use super::policies::rate_limit::RateLimit;
use super::policies::retry::Retry;
use super::policies::timeout::Timeout;
use super::slots::{attached, guarded};
use crate::policies::POLICIES;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use std::sync::OnceLock;

/// The address of each class of ours, and what PyO3 makes its instances with.
static MADE_WITH: OnceLock<Vec<(usize, ffi::newfunc)>> = OnceLock::new();

/// The error that the function of that name in `seawall._wrong_calls` makes.
fn told<'py>(py: Python<'py>, by: &str, of: Bound<'py, PyTuple>) -> PyErr {
    match py.import("seawall._wrong_calls").and_then(|texts| texts.getattr(by)?.call1(of)) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// The refusal of what is no policy of a pipeline.
pub fn no_policy(given: &Bound<'_, PyAny>) -> PyErr {
    let policies = POLICIES.map(|row| row.class).join(", ");
    (given, policies).into_pyobject(given.py()).map_or_else(|error| error, |of| told(given.py(), "no_policy", of))
}

/// The refusal of what `call` and `acall` cannot call.
pub fn no_function(method: &str, given: &Bound<'_, PyAny>) -> PyErr {
    (method, given).into_pyobject(given.py()).map_or_else(|error| error, |of| told(given.py(), "no_function", of))
}

/// Says what a class takes where its arguments were not such: PyO3 says only what they were.
#[cold]
fn mend(py: Python<'_>, class: *mut ffi::PyTypeObject) {
    let Some(error) = PyErr::take(py) else { return };
    if !error.get_type(py).is(py.get_type::<PyTypeError>()) {
        return error.restore(py);
    }
    // SAFETY: a class of ours, which lives as long as the module.
    let class = unsafe { PyType::from_borrowed_type_ptr(py, class) };
    let mended = (class, error.value(py)).into_pyobject(py).map_or_else(|error| error, |of| told(py, "no_arguments", of));
    mended.restore(py);
}

/// `tp_new` of our classes, and of what is derived from them.
unsafe extern "C" fn made(kind: *mut ffi::PyTypeObject, args: *mut ffi::PyObject, kwargs: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let ours = MADE_WITH.get().map_or(&[][..], Vec::as_slice);
    let mut class = kind;
    while !class.is_null() {
        if let Some((_, with)) = ours.iter().find(|(address, _)| *address == class as usize) {
            // SAFETY: the interpreter's own arguments, handed on.
            let object = unsafe { with(kind, args, kwargs) };
            if object.is_null() {
                guarded((), || attached(|py| mend(py, class)));
            }
            return object;
        }
        // SAFETY: a type, alive as it is being called.
        class = unsafe { (*class).tp_base };
    }
    guarded((), || attached(|py| PyTypeError::new_err("seawall does not know the class it is to make").restore(py)));
    std::ptr::null_mut()
}

/// `tp_call` of policies that guard nothing by themselves.
unsafe extern "C" fn no_decorator(policy: *mut ffi::PyObject, _: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    guarded((), || {
        attached(|py| {
            // SAFETY: the object that is being called.
            let policy = unsafe { Bound::from_borrowed_ptr(py, policy) };
            PyTuple::new(py, [policy]).map_or_else(|error| error, |of| told(py, "no_decorator", of)).restore(py);
        });
    });
    std::ptr::null_mut()
}

/// Sets both slots.
pub fn set(py: Python<'_>) {
    let policies = [
        py.get_type::<Retry>(),
        py.get_type::<Timeout>(),
        py.get_type::<Fallback>(),
        py.get_type::<Hedge>(),
        py.get_type::<RateLimit>(),
        py.get_type::<Bulkhead>(),
        py.get_type::<Cache>(),
        py.get_type::<Chaos>(),
        py.get_type::<Guardrails>(),
    ];
    let others = [py.get_type::<CircuitBreaker>(), py.get_type::<Pipeline>(), py.get_type::<Monitor>()];
    let made_with = policies.iter().chain(&others).filter_map(|class| {
        let class = class.as_type_ptr();
        // SAFETY: the type is ours and in nobody else's hands yet.
        unsafe { (*class).tp_new }.map(|with| (class as usize, with))
    });
    if MADE_WITH.set(made_with.collect()).is_err() {
        return; // the module was made before, and its classes are the same
    }
    for class in policies.iter().chain(&others) {
        // SAFETY: as above.
        unsafe { (*class.as_type_ptr()).tp_new = Some(made) };
    }
    for class in &policies {
        // SAFETY: as above.
        unsafe { (*class.as_type_ptr()).tp_call = Some(no_decorator) };
    }
    for class in policies.iter().chain(&others) {
        // SAFETY: as above.
        unsafe { ffi::PyType_Modified(class.as_type_ptr()) };
    }
}
