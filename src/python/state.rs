//! The retry state, in tenacity's shape, that hooks and tenacity's objects are given.

use super::errors::ours;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::time::Duration;

/// What is told of the last attempt.
pub struct Told {
    pub attempt: u32,
    /// Since the first attempt began.
    pub since: Duration,
    pub exception: Option<Py<PyAny>>,
    pub result: Option<Py<PyAny>>,
    /// The waits so far.
    pub idle: Duration,
    /// The wait that would follow.
    pub upcoming: Option<Duration>,
    /// The wait decided on.
    pub sleep: Option<Duration>,
}

/// A `RetryState`.
pub fn retry_state<'py>(
    py: Python<'py>,
    function: Option<&Py<PyAny>>,
    args: Option<&Py<PyTuple>>,
    kwargs: Option<&Py<PyDict>>,
    told: Told,
) -> PyResult<Bound<'py, PyAny>> {
    static STATE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let ended = told.exception.is_some() || told.result.is_some();
    let fields = (
        function,
        args.map_or_else(|| PyTuple::empty(py), |a| a.bind(py).clone()),
        kwargs,
        told.attempt,
        told.since.as_secs_f64(),
        ended,
        told.exception,
        told.result,
        told.sleep.map(|s| s.as_secs_f64()),
        told.upcoming.map(|s| s.as_secs_f64()),
        told.idle.as_secs_f64(),
    );
    ours(py, &STATE, "seawall._retry_state", "retry_state")?.call1(fields)
}
