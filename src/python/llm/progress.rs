//! What a reader is told of a call's attempts, between the pieces.

use super::shared::Shared;
use crate::llm::route::{Attempt, Failure};
use crate::llm::watch::Progress;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

/// An attempt that began (`begun`) or ended (`ended`), or one that an open breaker refused (`refused`).
#[pyclass(frozen, module = "seawall")]
pub struct AttemptEvent {
    #[pyo3(get)]
    kind: &'static str,
    /// The model asked; of a refusal, the breaker's name.
    #[pyo3(get)]
    model: String,
    number: u32,
    attempt: Option<Attempt>,
    error: Option<Py<PyBaseException>>,
}

impl AttemptEvent {
    pub fn new(py: Python<'_>, progress: Progress, shared: &Shared) -> PyResult<AttemptEvent> {
        let model = |attempt: &Attempt| shared.core.legs.get(attempt.target.0).map_or_else(String::new, |l| l.model.to_string());
        let made = |kind, attempt: Attempt, number, failure: Option<Failure>| {
            let model = model(&attempt);
            let error = failure.map(|failure| shared.of_attempt(py, &failure, Some(&model)).into_value(py));
            AttemptEvent { kind, model, number, attempt: Some(attempt), error }
        };
        Ok(match progress {
            Progress::Begun(attempt, number) => made("begun", attempt, number, None),
            Progress::Ended(attempt, number, failure) => made("ended", attempt, number, failure),
            Progress::Refused(stage) => {
                AttemptEvent { kind: "refused", model: shared.core.name(stage).to_owned(), number: 0, attempt: None, error: None }
            }
        })
    }
}

#[pymethods]
impl AttemptEvent {
    /// Which attempt of its alternative, from 1 on.
    #[getter]
    fn number(&self) -> u32 {
        self.number
    }

    /// Which alternative is asked: 0 is the primary.
    #[getter]
    fn alternative(&self) -> usize {
        self.attempt.as_ref().map_or(0, |attempt| attempt.target.0)
    }

    /// `ok`, or the error's class name.
    #[getter]
    fn outcome(&self) -> Option<&'static str> {
        self.attempt.as_ref().map(|attempt| attempt.outcome)
    }

    /// HTTP status of a failure.
    #[getter]
    fn status(&self) -> Option<u16> {
        self.attempt.as_ref()?.status
    }

    /// The provider's id of the request.
    #[getter]
    fn request_id(&self) -> Option<&str> {
        self.attempt.as_ref()?.request_id.as_deref()
    }

    /// Seconds that it took.
    #[getter]
    fn seconds(&self) -> Option<f64> {
        self.attempt.as_ref()?.took.map(|took| took.as_secs_f64())
    }

    /// Seconds until the next attempt, if one follows.
    #[getter]
    fn waited(&self) -> Option<f64> {
        self.attempt.as_ref()?.waited.map(|wait| wait.as_secs_f64())
    }

    /// Why it failed.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyBaseException>> {
        self.error.as_ref().map(|error| error.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.error)
    }

    fn __repr__(&self) -> String {
        format!("<AttemptEvent {} {} {}>", self.kind, self.model, self.number)
    }
}
