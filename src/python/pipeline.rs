//! `Pipeline`.

use super::compiled::Compiled;
use super::convert::{self, quoted};
use super::coroutine::Coroutine;
use super::errors::{ours, picture};
use super::flight::Flight;
use super::guarded::fly;
use super::lent::Lent;
use super::monitor::Monitor;
use super::wrong_calls::no_function;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

/// Policies in the order written, outermost first, around a call.
///
/// ```python
/// @seawall.Pipeline(seawall.Timeout(30), seawall.Retry(3), seawall.CircuitBreaker(5), name="chat")
/// def ask(question): ...
/// ```
///
/// `Pipeline(a, b, c)` calls a(b(c(function))). It is a decorator, has `call` and `acall`, and is a policy itself: put
/// into another pipeline, its policies stand there. A policy object is shared state: used in two pipelines, it is one.
/// A `monitor` is told how each call came out; it is no policy, and the pipeline around has its own. `name` is its name in
/// logs, events and notes.
///
/// Raises `ConfigurationError` for what is no policy. Warns with `PipelineOrderWarning` of orders that are known to be wrong.
#[pyclass(frozen, module = "seawall", subclass, weakref)]
pub struct Pipeline {
    policies: Vec<Py<PyAny>>,
    compiled: Compiled,
}

fn not_a_monitor(given: &Bound<'_, PyAny>) -> PyErr {
    convert::type_error("monitor", given, "a seawall.Monitor")
}

impl Pipeline {
    /// What it was made into.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// A pipeline of these policies.
    pub fn of(py: Python<'_>, policies: Vec<Bound<'_, PyAny>>, name: Option<String>) -> PyResult<Py<Pipeline>> {
        Py::new(py, Pipeline::build(py, policies, name, None)?)
    }

    fn build(py: Python<'_>, policies: Vec<Bound<'_, PyAny>>, name: Option<String>, monitor: Option<Py<Monitor>>) -> PyResult<Pipeline> {
        let mut flat = Vec::new();
        for policy in policies {
            match policy.cast::<Pipeline>() {
                Ok(inner) => flat.extend(inner.get().policies.iter().map(|p| p.clone_ref(py))),
                Err(_) => flat.push(policy.unbind()),
            }
        }
        let compiled = Compiled::new(py, &flat, name, monitor)?;
        Ok(Pipeline { policies: flat, compiled })
    }
}

#[pymethods]
impl Pipeline {
    #[new]
    #[pyo3(signature = (*policies, name=None, monitor=None))]
    fn new(
        py: Python<'_>,
        policies: &Bound<'_, PyTuple>,
        name: Option<Bound<'_, PyAny>>,
        monitor: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Pipeline> {
        let name = convert::optional("name", name.as_ref(), convert::text)?;
        let monitor = monitor.map(|m| m.cast_into::<Monitor>().map_err(|e| not_a_monitor(&e.into_inner()))).transpose()?;
        let pipeline = Pipeline::build(py, policies.iter().collect(), name, monitor.map(Bound::unbind))?;
        static CHECK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let flat = PyTuple::new(py, &pipeline.policies)?;
        ours(py, &CHECK, "seawall._order", "check")?.call1((flat,))?;
        Ok(pipeline)
    }

    /// The policies, outermost first.
    #[getter]
    fn policies<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.policies)
    }

    /// Its name in logs, events and notes.
    #[getter]
    fn name(&self) -> Option<String> {
        self.compiled.name.clone()
    }

    /// The monitor that counts its calls.
    #[getter]
    fn monitor(&self, py: Python<'_>) -> Option<Py<Monitor>> {
        self.compiled.monitor.as_ref().map(|m| m.clone_ref(py))
    }

    /// Calls `function(*args, **kwargs)` through the policies.
    #[pyo3(signature = (function, /, *args, **kwargs))]
    pub fn call<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if !function.is_callable() {
            return Err(no_function("call", function));
        }
        slf.get().compiled.only_sync(slf.py(), "Pipeline.call")?;
        fly(slf.py(), Flight::new(Lent::by(slf, Pipeline::compiled), function, args, kwargs))
    }

    /// `await`s `function(*args, **kwargs)` through the policies.
    #[pyo3(signature = (function, /, *args, **kwargs))]
    fn acall<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Coroutine> {
        if !function.is_callable() {
            return Err(no_function("acall", function));
        }
        Ok(Coroutine::new(Flight::new(Lent::by(slf, Pipeline::compiled), function, args, kwargs)))
    }

    /// Guards a function.
    fn __call__<'py>(slf: &Bound<'py, Self>, function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        static GUARD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        ours(py, &GUARD, "seawall._guarded", "guarded")?.call1((slf, function))
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let kwargs = PyDict::new(py);
        kwargs.set_item("name", self.compiled.name.as_deref())?;
        kwargs.set_item("monitor", self.compiled.monitor.as_ref())?;
        Ok((PyTuple::new(py, &self.policies)?, kwargs))
    }

    /// The policies in order, outermost first, a line each, with what each does; and what is known to be wrong with the order.
    /// In a notebook, a picture of it.
    fn describe(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "described")
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "pipeline")
    }

    pub fn __repr__(&self, py: Python<'_>) -> String {
        let mut parts: Vec<String> =
            self.policies.iter().map(|p| p.bind(py).repr().map_or_else(|_| "?".into(), |r| r.to_string())).collect();
        parts.extend(self.compiled.name.as_ref().map(|n| format!("name={}", quoted(py, n))));
        format!("Pipeline({})", parts.join(", "))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.policies.iter().try_for_each(|policy| visit.call(policy))?;
        // Whoever else has a part in `compiled` holds this pipeline too: its references are told of once, here.
        self.compiled.traverse(&visit)
    }
}
