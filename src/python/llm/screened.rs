//! What guardrails leave of what a model is asked.

use crate::engine::StageId;
use crate::events;
use crate::guardrails::{Refusal, Stop};
use crate::llm::screen;
use crate::python::guardrails::{self, Guardrails};
use crate::python::log;
use pyo3::prelude::*;

/// The stage of nothing in particular: what is told is told of the model.
const FIRST: StageId = StageId(0);

/// Has it looked at, and recorders and the log told: what it is then, if it changes. Fails with the refusal.
pub fn asked(py: Python<'_>, rails: &Py<Guardrails>, content: &[u8], place: &str, model: &str) -> PyResult<screen::Asked> {
    match screen::asked(content, &rails.get().asked) {
        Ok((changed, tally)) => {
            if tally.redactions() > 0 {
                let event = guardrails::before(FIRST, events::GUARDRAIL_REDACTED, tally.redactions());
                log::event(py, &event, model, None)?;
            }
            Ok((changed, tally))
        }
        Err(stop) => {
            let is_refusal = matches!(stop, Stop::Refused(_));
            let error = guardrails::stopped(py, of_batch(stop, place), "input");
            if is_refusal {
                let event = guardrails::before(FIRST, events::GUARDRAIL_REFUSED, 0);
                log::event(py, &event, model, Some(error.value(py).as_any()))?;
            }
            Err(error)
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
