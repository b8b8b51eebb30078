//! `Timeout`.

use crate::policies::timeout;
use crate::python::convert;
use pyo3::prelude::*;
use std::time::Duration;

/// Everything inside has to be over within `seconds`, else `CallTimeoutError` (a builtin `TimeoutError`).
///
/// Outermost it limits the whole call with its retries, innermost one attempt. Coroutines are cancelled at the limit; a
/// plain synchronous function cannot be stopped: no further attempt is begun, and an answer that comes late is returned.
#[pyclass(frozen, module = "seawall", subclass)]
pub struct Timeout {
    pub limit: Duration,
}

#[pymethods]
impl Timeout {
    #[new]
    fn new(seconds: &Bound<'_, PyAny>) -> PyResult<Timeout> {
        Ok(Timeout { limit: convert::positive_seconds("seconds", seconds)? })
    }

    /// The limit in seconds.
    #[getter]
    fn seconds(&self) -> f64 {
        self.limit.as_secs_f64()
    }

    fn __repr__(&self) -> String {
        format!("Timeout({})", self.limit.as_secs_f64())
    }

    fn __getnewargs__(&self) -> (f64,) {
        (self.limit.as_secs_f64(),)
    }
}

impl Timeout {
    pub fn policy(&self) -> timeout::Timeout {
        timeout::Timeout { limit: self.limit }
    }
}
