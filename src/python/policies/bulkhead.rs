//! `Bulkhead`.

use super::shared;
use crate::drive::clock;
use crate::policies::bulkhead::{self as core, Bounded, Config};
use crate::python::convert::{self, quoted};
use crate::python::errors::{configuration, ours, picture};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use std::sync::Arc;

/// At most `max_concurrency` calls at a time; further ones are turned away with `BulkheadFullError`.
///
/// ```python
/// @seawall.Pipeline(seawall.Bulkhead(10, max_queue=100, max_wait=5))
/// def ask(question): ...
/// ```
///
/// With `max_queue` (default 0) so many further calls wait for a place, first come first served, for `max_wait` seconds at most
/// (default: as long as the limits around the call allow). A call that streams keeps its place until the stream ends; one
/// that is cancelled, interrupted or closed gives it back at once.
///
/// A Bulkhead is shared state: used in two pipelines, it is one; `copy` and `deepcopy` give the object itself. It pickles by its
/// arguments: where it came from it is found again, in another process it is made anew, empty, once.
/// `name` is its name in errors and events.
///
/// Raises `ConfigurationError` for arguments that make no bulkhead.
#[pyclass(frozen, module = "seawall", subclass, weakref)]
pub struct Bulkhead {
    pub core: Arc<core::Bulkhead>,
    /// Its name in errors, events and metrics; `None` for none.
    #[pyo3(get)]
    pub name: Option<String>,
    /// Finds it again when it is unpickled where it came from.
    #[pyo3(get, name = "_identity")]
    identity: u64,
}

#[pymethods]
impl Bulkhead {
    #[new]
    #[pyo3(signature = (max_concurrency, *, max_queue=None, max_wait=None, name=None),
           text_signature = "(max_concurrency, *, max_queue=0, max_wait=None, name=None)")]
    fn new(
        py: Python<'_>,
        max_concurrency: &Bound<'_, PyAny>,
        max_queue: Option<&Bound<'_, PyAny>>,
        max_wait: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bulkhead> {
        let config = Config {
            max_concurrency: convert::count("max_concurrency", max_concurrency, 1)? as usize,
            max_queue: convert::optional("max_queue", max_queue, |a, v| convert::count(a, v, 0))?.unwrap_or(0) as usize,
            max_wait: convert::optional("max_wait", max_wait, convert::positive_seconds)?,
        };
        if config.max_wait.is_some() && config.max_queue == 0 {
            return Err(configuration(py, "max_wait needs max_queue=: how many calls may wait? None may while it is 0"));
        }
        let name = convert::optional("name", name, convert::text)?;
        Ok(Bulkhead { core: shared::bulkhead(py, core::Bulkhead::new(config))?, name, identity: clock::seed() })
    }

    /// Calls under way at a time, at most.
    #[getter]
    fn max_concurrency(&self) -> usize {
        self.core.config().max_concurrency
    }

    /// Calls that may wait.
    #[getter]
    fn max_queue(&self) -> usize {
        self.core.config().max_queue
    }

    /// The longest wait in seconds; `None`: as long as the limits around the call allow.
    #[getter]
    fn max_wait(&self) -> Option<f64> {
        self.core.config().max_wait.map(|wait| wait.as_secs_f64())
    }

    /// Calls under way.
    #[getter]
    fn active(&self) -> usize {
        self.core.counts().0
    }

    /// Calls that wait for a place.
    #[getter]
    fn queued(&self) -> usize {
        self.core.counts().1
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static REDUCED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        let said = PyDict::new(py);
        said.set_item("max_queue", this.max_queue())?;
        said.set_item("max_wait", this.max_wait())?;
        said.set_item("name", this.name.as_deref())?;
        ours(py, &REDUCED, "seawall._limits", "reduced")?.call1((slf, (this.max_concurrency(),), said))
    }

    fn __copy__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let config = self.core.config();
        let mut parts = vec![config.max_concurrency.to_string()];
        if config.max_queue > 0 {
            parts.push(format!("max_queue={}", config.max_queue));
        }
        parts.extend(self.max_wait().map(|wait| format!("max_wait={wait}")));
        parts.extend(self.name.as_ref().map(|name| format!("name={}", quoted(py, name))));
        let (active, queued) = self.core.counts();
        format!("<Bulkhead({}): {active} under way, {queued} waiting>", parts.join(", "))
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "bulkhead")
    }
}

impl Bulkhead {
    pub fn policy(&self) -> Bounded {
        Bounded(self.core.clone())
    }
}
