//! `Fallback`.

use crate::policies::fallback;
use crate::python::convert;
use crate::python::errors::configuration;
use crate::python::judge::{FallbackJudge, Listed, answers_at_once, happens, predicate};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyTuple};

/// Alternatives, tried in order when the call fails.
///
/// ```python
/// @seawall.Pipeline(seawall.Fallback(lambda question: "Please ask again later."), seawall.Retry(2))
/// def ask(question): ...
/// ```
///
/// An alternative is a callable (called with the call's own arguments), an object with `invoke` and `ainvoke`, a
/// `Prompt` (calls the primary again with another input), or a plain value. `on` says for which failures: exception
/// classes or a function of the exception; by default all but a request that would fail anywhere. `on_result` is a
/// function of the result that says it is a bad one. `only_when_open=True` leaves all failures alone but that of an open
/// circuit: `CircuitBreakerError`. If all fail, the first error is raised, with the others as its
/// `alternatives` and in its notes.
#[pyclass(frozen, module = "seawall", subclass)]
pub struct Fallback {
    pub alternatives: Vec<Py<PyAny>>,
    on: Option<Py<PyAny>>,
    on_result: Option<Py<PyAny>>,
    /// Whether it stands in only while a circuit is open.
    #[pyo3(get)]
    only_when_open: bool,
}

/// Whether it is a list that was meant as several alternatives: as an answer it would be one of functions.
fn has_alternatives_in_it(alternative: &Bound<'_, PyAny>) -> PyResult<bool> {
    if !alternative.is_exact_instance_of::<PyList>() && !alternative.is_exact_instance_of::<PyTuple>() {
        return Ok(false);
    }
    for item in alternative.try_iter()? {
        let item = item?;
        if item.is_callable() || item.hasattr("invoke")? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[pymethods]
impl Fallback {
    #[new]
    #[pyo3(signature = (*alternatives, on=None, on_result=None, only_when_open=None),
           text_signature = "(*alternatives, on=None, on_result=None, only_when_open=False)")]
    fn new(
        py: Python<'_>,
        alternatives: &Bound<'_, PyTuple>,
        on: Option<Bound<'_, PyAny>>,
        on_result: Option<Bound<'_, PyAny>>,
        only_when_open: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Fallback> {
        if alternatives.is_empty() {
            return Err(configuration(py, "Fallback needs at least one alternative: a callable, a runnable or a value"));
        }
        if alternatives.len() > 63 {
            return Err(configuration(py, &format!("Fallback takes at most 63 alternatives, not {}", alternatives.len())));
        }
        for alternative in alternatives.iter() {
            if has_alternatives_in_it(&alternative)? {
                let message = "Fallback takes its alternatives one by one, as in Fallback(a, b), and was given a list of them; where a list \
                               of functions is meant as the answer itself, give a function that returns it";
                return Err(configuration(py, message));
            }
        }
        happens(py, "on", &Listed::parse("on", on.as_ref())?, true)?;
        let on = on.map(|on| answers_at_once("on", on)).transpose()?;
        Ok(Fallback {
            alternatives: alternatives.iter().map(Bound::unbind).collect(),
            on: on.map(Bound::unbind),
            on_result: predicate("on_result", on_result)?,
            only_when_open: convert::optional("only_when_open", only_when_open.as_ref(), convert::flag)?.unwrap_or(false),
        })
    }

    /// The alternatives, in order.
    #[getter(alternatives)]
    fn get_alternatives<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.alternatives)
    }

    /// The same rules with other alternatives.
    fn replaced(&self, py: Python<'_>, alternatives: &Bound<'_, PyAny>) -> PyResult<Fallback> {
        let alternatives = PyTuple::new(py, alternatives.try_iter()?.collect::<PyResult<Vec<_>>>()?)?;
        let bound = |held: &Option<Py<PyAny>>| held.as_ref().map(|h| h.bind(py).clone());
        let only_when_open = PyBool::new(py, self.only_when_open).to_owned().into_any();
        Fallback::new(py, &alternatives, bound(&self.on), bound(&self.on_result), Some(only_when_open))
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let kwargs = PyDict::new(py);
        kwargs.set_item("on", self.on.as_ref())?;
        kwargs.set_item("on_result", self.on_result.as_ref())?;
        kwargs.set_item("only_when_open", self.only_when_open)?;
        Ok((PyTuple::new(py, &self.alternatives)?, kwargs))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let mut shown: Vec<String> = self.alternatives.iter().map(|a| super::circuit_breaker::short_repr(a.bind(py))).collect();
        shown.extend(self.only_when_open.then(|| "only_when_open=True".to_owned()));
        format!("Fallback({})", shown.join(", "))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.alternatives.iter().try_for_each(|alternative| visit.call(alternative))?;
        visit.call(&self.on)?;
        visit.call(&self.on_result)
    }
}

impl Fallback {
    pub fn policy(&self) -> fallback::Fallback {
        fallback::Fallback { judges_values: self.on_result.is_some() }
    }

    pub fn judge(&self, py: Python<'_>) -> PyResult<FallbackJudge> {
        Ok(FallbackJudge {
            listed: Listed::parse("on", self.on.as_ref().map(|o| o.bind(py)))?,
            on_result: self.on_result.as_ref().map(|p| p.clone_ref(py)),
            only_when_open: self.only_when_open,
            elsewhere: self.elsewhere(py)?,
        })
    }

    /// Plain callables and values need no credentials of the primary's; a prompt asks the primary itself again, and what
    /// says so of itself (`_seawall_same_place`) asks the same server with the same key.
    fn elsewhere(&self, py: Python<'_>) -> PyResult<u64> {
        let mut branches = u64::MAX;
        for (place, alternative) in self.alternatives.iter().enumerate() {
            for mark in ["_seawall_prompt", "_seawall_same_place"] {
                if alternative.bind(py).getattr_opt(mark)?.map_or(Ok(false), |m| m.is_truthy())? {
                    branches &= !(1 << (place + 1));
                }
            }
        }
        Ok(branches)
    }
}
