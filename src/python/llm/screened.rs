//! What guardrails leave of what a model is asked.

use crate::guardrails::{Refusal, Stop};
use crate::llm::screen;
use crate::python::guardrails::{self, Guardrails};
use pyo3::prelude::*;

/// Has it looked at, and the log told: what it is then, if it changes. Fails with the refusal.
pub fn asked(py: Python<'_>, rails: &Py<Guardrails>, content: &[u8], place: &str, model: &str) -> PyResult<screen::Asked> {
    match screen::asked(content, &rails.get().asked) {
        Ok((changed, tally)) => {
            guardrails::told(py, model, false, tally.redactions())?;
            Ok((changed, tally))
        }
        Err(stop) => {
            if let Stop::Refused(_) = stop {
                guardrails::told(py, model, true, 0)?;
            }
            Err(guardrails::stopped(py, of_batch(stop, place), "input"))
        }
    }
}

/// The refusal of one of many inputs names it.
fn of_batch(stop: Stop, place: &str) -> Stop {
    match stop {
        Stop::Refused(refusal) if place.starts_with("inputs") => {
            Stop::Refused(Refusal { place: format!("{place}.{}", refusal.place), ..refusal })
        }
        other => other,
    }
}
