//! `Chaos`.

use crate::drive::clock;
use crate::engine::Instant;
use crate::policies::chaos::{self, Config, Injecting};
use crate::python::convert;
use crate::python::errors::configuration;
use crate::python::judge::answers_at_once;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Harm on purpose, to see what the rest of the pipeline makes of it. Stands innermost, next to the call.
///
/// ```python
/// @seawall.Pipeline(seawall.Retry(3, wait=0), seawall.Chaos(exception=ConnectionError, exception_rate=0.2, seed=1, enabled=True))
/// def ask(question): ...
/// ```
///
/// All of it is off unless switched on: by `enabled=True`, `enable()`, or for a stretch by `with chaos.enabled_for(30):`.
/// `latency` is a wait before the call: seconds, or a pair between which it lies. `exception` is raised in place of
/// the call: an exception class, an exception, or a function that makes one. `result` is returned in place of the call.
/// `latency_rate`, `exception_rate` and `result_rate` are shares of the calls from 0 to 1; 1 where only the harm is
/// given. `result_rate` is of the calls that no exception hits. The same `seed` gives the same harm to the same
/// calls in order. A Chaos object is shared state: used in two pipelines, it is one switch and one sequence.
///
/// Raises `ConfigurationError` for a rate without its harm, or out of range.
#[pyclass(frozen, module = "seawall", subclass, weakref)]
pub struct Chaos {
    core: Arc<chaos::Chaos>,
    config: Config,
    exception: Option<Py<PyAny>>,
    result: Option<Py<PyAny>>,
    seed: Option<u64>,
}

fn latency(value: &Bound<'_, PyAny>) -> PyResult<(Duration, Duration)> {
    let Ok(pair) = value.cast::<PyTuple>() else {
        let span = convert::seconds("latency", value)?;
        return Ok((span, span));
    };
    if pair.len() != 2 {
        return Err(configuration(value.py(), &format!("latency must be seconds or a pair (least, most), not {} values", pair.len())));
    }
    let (least, most) = (convert::seconds("latency", &pair.get_item(0)?)?, convert::seconds("latency", &pair.get_item(1)?)?);
    if least > most {
        return Err(configuration(value.py(), &format!("latency must be a pair (least, most), not {}", convert::shown(value))));
    }
    Ok((least, most))
}

fn rate(py: Python<'_>, name: &str, harm: Option<bool>, rate: Option<&Bound<'_, PyAny>>) -> PyResult<f64> {
    let rate = convert::optional(name, rate, convert::portion)?;
    match (harm, rate) {
        (Some(false), Some(_)) => {
            let what = name.trim_end_matches("_rate");
            Err(configuration(py, &format!("{name} needs {what}=: what is to be injected?")))
        }
        (Some(false), None) => Ok(0.0),
        (_, rate) => Ok(rate.unwrap_or(1.0)),
    }
}

fn raisable(value: &Bound<'_, PyAny>) -> PyResult<()> {
    let is_class = value.cast::<PyType>().is_ok_and(|t| t.is_subclass_of::<PyException>().unwrap_or(false));
    let is_other_class = !is_class && value.is_instance_of::<PyType>();
    if is_class || value.is_instance_of::<PyException>() || value.is_callable() && !is_other_class {
        return answers_at_once("exception", value.clone()).map(drop);
    }
    Err(convert::type_error("exception", value, "an exception class, an exception, or a function that makes one"))
}

#[pymethods]
impl Chaos {
    #[new]
    #[pyo3(signature = (*, latency=None, latency_rate=None, exception=None, exception_rate=None, result=None, result_rate=None,
                        seed=None, enabled=None),
           text_signature = "(*, latency=None, latency_rate=None, exception=None, exception_rate=None, result=None, result_rate=None, \
                             seed=None, enabled=False)")]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new(
        py: Python<'_>,
        latency: Option<Bound<'_, PyAny>>,
        latency_rate: Option<Bound<'_, PyAny>>,
        exception: Option<Bound<'_, PyAny>>,
        exception_rate: Option<Bound<'_, PyAny>>,
        result: Option<Bound<'_, PyAny>>,
        result_rate: Option<Bound<'_, PyAny>>,
        seed: Option<Bound<'_, PyAny>>,
        enabled: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Chaos> {
        if let Some(exception) = &exception {
            raisable(exception)?;
        }
        let seed = convert::optional("seed", seed.as_ref(), |a, v| convert::whole(a, v, 0, u64::MAX))?;
        let enabled = convert::optional("enabled", enabled.as_ref(), convert::flag)?.unwrap_or(false);
        // `None` may well be the result to give: then its rate says so.
        let gives = result.is_some() || result_rate.is_some();
        let config = Config {
            latency: convert::optional("latency", latency.as_ref(), |_, v| self::latency(v))?.unwrap_or_default(),
            latency_rate: rate(py, "latency_rate", Some(latency.is_some()), latency_rate.as_ref())?,
            exception_rate: rate(py, "exception_rate", Some(exception.is_some()), exception_rate.as_ref())?,
            result_rate: if gives { rate(py, "result_rate", None, result_rate.as_ref())? } else { 0.0 },
        };
        let core = Arc::new(chaos::Chaos::new(config, seed.unwrap_or_else(clock::seed)));
        core.switch(enabled);
        Ok(Chaos { core, config, exception: exception.map(Bound::unbind), result: result.map(Bound::unbind), seed })
    }

    /// Whether calls are harmed right now.
    #[getter]
    fn enabled(&self) -> bool {
        self.core.is_on(clock::now())
    }

    /// Switches it on until `disable()`.
    fn enable(&self) {
        self.core.switch(true);
    }

    /// Switches it off, stretches of `enabled_for` too.
    fn disable(&self) {
        self.core.switch(false);
    }

    /// Switches it on for a `with` block, in all threads and tasks; for `seconds` at most, if given.
    #[pyo3(signature = (seconds=None))]
    fn enabled_for(slf: Py<Self>, seconds: Option<Bound<'_, PyAny>>) -> PyResult<Stretch> {
        let most = convert::optional("seconds", seconds.as_ref(), convert::positive_seconds)?;
        Ok(Stretch { chaos: slf, most, running: Mutex::new(Vec::new()) })
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let kwargs = PyDict::new(py);
        let config = &self.config;
        if config.latency_rate > 0.0 {
            kwargs.set_item("latency", (config.latency.0.as_secs_f64(), config.latency.1.as_secs_f64()))?;
            kwargs.set_item("latency_rate", config.latency_rate)?;
        }
        if let Some(exception) = &self.exception {
            kwargs.set_item("exception", exception)?;
            kwargs.set_item("exception_rate", config.exception_rate)?;
        }
        if self.result.is_some() || config.result_rate > 0.0 {
            kwargs.set_item("result", self.result.as_ref())?;
            kwargs.set_item("result_rate", config.result_rate)?;
        }
        kwargs.set_item("seed", self.seed)?;
        kwargs.set_item("enabled", self.core.is_switched_on())?;
        Ok((PyTuple::empty(py), kwargs))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.exception)?;
        visit.call(&self.result)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let mut parts = Vec::new();
        let shown = |value: &Py<PyAny>| super::circuit_breaker::short_repr(value.bind(py));
        let (least, most) = self.config.latency;
        if self.config.latency_rate > 0.0 {
            let span =
                if least == most { least.as_secs_f64().to_string() } else { format!("({}, {})", least.as_secs_f64(), most.as_secs_f64()) };
            parts.push(format!("latency={span}, latency_rate={}", self.config.latency_rate));
        }
        parts.extend(self.exception.as_ref().map(|e| format!("exception={}, exception_rate={}", shown(e), self.config.exception_rate)));
        if self.config.result_rate > 0.0 {
            let result = self.result.as_ref().map_or_else(|| "None".to_owned(), shown);
            parts.push(format!("result={result}, result_rate={}", self.config.result_rate));
        }
        parts.push(format!("enabled={}", if self.enabled() { "True" } else { "False" }));
        format!("Chaos({})", parts.join(", "))
    }
}

impl Chaos {
    pub fn policy(&self) -> Injecting {
        Injecting(self.core.clone())
    }

    /// The exception of this call: always a fresh one, for exceptions collect tracebacks and notes.
    pub fn raised(&self, py: Python<'_>) -> PyErr {
        let made = || -> PyResult<Bound<'_, PyAny>> {
            let Some(exception) = &self.exception else { return Ok(py.None().into_bound(py)) };
            let exception = exception.bind(py);
            if exception.is_instance_of::<PyException>() {
                // One that cannot be copied is raised itself.
                return Ok(py.import("copy")?.call_method1("copy", (exception,)).unwrap_or_else(|_| exception.clone()));
            }
            exception.call0()
        };
        match made() {
            Ok(error) if error.is_instance_of::<PyException>() => PyErr::from_value(error),
            Ok(other) => configuration(py, &format!("Chaos: exception made {other:?}, which is no exception")),
            Err(error) => error,
        }
    }

    pub fn given(&self, py: Python<'_>) -> Py<PyAny> {
        self.result.as_ref().map_or_else(|| py.None(), |r| r.clone_ref(py))
    }
}

/// A `with` block in which a Chaos is on.
#[pyclass(frozen, module = "seawall")]
pub struct Stretch {
    chaos: Py<Chaos>,
    most: Option<Duration>,
    running: Mutex<Vec<u64>>,
}

#[pymethods]
impl Stretch {
    fn __enter__(&self, py: Python<'_>) -> Py<Chaos> {
        let until = self.most.map_or(Instant::NEVER, |most| clock::now().after(most));
        let number = self.chaos.get().core.begin(until);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        self.chaos.clone_ref(py)
    }

    #[pyo3(signature = (_kind=None, _value=None, _traceback=None))]
    fn __exit__(
        &self,
        _kind: Option<Bound<'_, PyAny>>,
        _value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let number = self.running.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(number) = number else { return Err(PyRuntimeError::new_err("enabled_for was left without having been entered")) };
        self.chaos.get().core.end(number);
        Ok(false)
    }
}
