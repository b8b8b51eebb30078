//! `Timeout`.

use crate::engine::Policy;
use crate::policies::timeout;
use crate::python::convert;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::time::Duration;

/// Everything inside has to be over within `seconds`, else `CallTimeoutError` (a builtin `TimeoutError`).
///
/// ```python
/// @seawall.Pipeline(seawall.Timeout(60), seawall.Retry(3), seawall.Timeout(20))  # in all, and for each attempt
/// async def ask(question): ...
/// ```
///
/// Outermost it limits the whole call with its retries, innermost one attempt. Coroutines are cancelled at the limit; a
/// plain synchronous function cannot be stopped: no further attempt is begun, and an answer that comes late is returned.
/// `thread=True` runs plain functions on threads of their own, in a copy of the caller's context, and raises at the limit;
/// the function goes on running there, and what it returns or raises then is dropped.
#[pyclass(frozen, module = "seawall", subclass)]
pub struct Timeout {
    pub limit: Duration,
    /// Whether plain functions run on threads of their own.
    #[pyo3(get)]
    pub thread: bool,
}

#[pymethods]
impl Timeout {
    #[new]
    #[pyo3(signature = (seconds, *, thread=None), text_signature = "(seconds, *, thread=False)")]
    fn new(seconds: &Bound<'_, PyAny>, thread: Option<&Bound<'_, PyAny>>) -> PyResult<Timeout> {
        let thread = convert::optional("thread", thread, convert::flag)?.unwrap_or(false);
        Ok(Timeout { limit: convert::positive_seconds("seconds", seconds)?, thread })
    }

    /// The limit in seconds.
    #[getter]
    fn seconds(&self) -> f64 {
        self.limit.as_secs_f64()
    }

    fn __repr__(&self) -> String {
        format!("Timeout({}{})", self.limit.as_secs_f64(), if self.thread { ", thread=True" } else { "" })
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((f64,), Bound<'py, PyDict>)> {
        let kwargs = PyDict::new(py);
        kwargs.set_item("thread", self.thread)?;
        Ok(((self.limit.as_secs_f64(),), kwargs))
    }
}

impl Timeout {
    pub fn policy(&self) -> Arc<dyn Policy> {
        let limit = timeout::Timeout { limit: self.limit };
        if self.thread { Arc::new(timeout::Threaded(limit)) } else { Arc::new(limit) }
    }
}
