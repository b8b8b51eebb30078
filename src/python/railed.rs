//! What a guarded call has to do with guardrails: what it is asked is looked at before it begins, what it gives is when the layer asks.

use super::errors::{configuration, ours};
use super::flight::{Flight, Kept, Way};
use super::guardrails::{Guardrails, before};
use super::judge::Judge;
use super::log;
use crate::drive::clock;
use crate::engine::{Ask, Execution, Outcome, StageId, Target, Ticket, Verdict};
use crate::events;
use crate::policies::guardrails::passed;
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

/// The arguments as they were before an answer was refused, for alternatives: they are asked anew.
pub struct Before {
    pub args: Py<PyTuple>,
    pub kwargs: Option<Py<PyDict>>,
    /// How often the function was told why its answer does not do.
    times: u32,
}

impl Before {
    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.args)?;
        visit.call(&self.kwargs)
    }
}

type Arguments = (Py<PyTuple>, Option<Py<PyDict>>);
/// A result as it is left, what was cut out of it, how often it was mended; its refusal, with what was said and why that does not do.
type Looked = (Py<PyAny>, u32, u32, Option<(Py<PyAny>, Option<(String, String)>)>);

impl Flight {
    /// Has what the call is asked looked at, in place of which what they leave of it stands. Fails with their refusal.
    pub(super) fn screens(&mut self, py: Python<'_>, way: Way) -> PyResult<()> {
        static ASKED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let compiled = self.compiled.clone();
        for (at, stage) in compiled.stages.iter().enumerate().rev() {
            let Judge::Guardrails(rails) = &stage.judge else { continue };
            if !rails.get().answered.is_empty() && matches!(way, Way::Items | Way::AsyncItems) {
                return Err(configuration(
                    py,
                    "guardrails with rules for the output look at no generator: have its texts pass guardrails.stream(pieces) inside of it",
                ));
            }
            if rails.get().asked.is_empty() {
                continue;
            }
            let looked = ours(py, &ASKED, "seawall._guardrails", "asked")?.call1((rails, &self.function, &self.args, &self.kwargs));
            match looked {
                Ok(changed) => {
                    let (arguments, redactions): (Option<Arguments>, u32) = changed.extract()?;
                    if let Some((args, kwargs)) = arguments {
                        (self.args, self.kwargs) = (args, kwargs);
                        self.redacted += redactions;
                        let event = before(StageId(at as u16), events::GUARDRAIL_REDACTED, redactions);
                        log::event(py, &event, &self.place(py, stage), None)?;
                        self.diary.note(&event, None);
                    }
                }
                Err(error) => {
                    if error.is_instance(py, &super::errors::class(py, "InputRefusedError")?) {
                        let event = before(StageId(at as u16), events::GUARDRAIL_REFUSED, 0);
                        log::event(py, &event, &self.place(py, stage), Some(error.value(py).as_any()))?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Has a value looked at; what is left of it, or the refusal, stands in its place.
    pub(super) fn judge_for_guardrails(&mut self, py: Python<'_>, ask: &Ask, rails: &Py<Guardrails>) -> PyResult<Verdict> {
        static ANSWERED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Outcome::Value(ticket) = ask.outcome else { return Ok(Verdict::Ignore) };
        if rails.get().answered.is_empty() {
            return Ok(Verdict::Ignore);
        }
        let value = self.value(py, ticket);
        let asked = self.before.as_ref().map_or(0, |before| before.times);
        let looked = ours(py, &ANSWERED, "seawall._guardrails", "answered")?.call1((rails, value, asked));
        let error = match looked {
            Ok(given) => {
                let (value, redacted, repaired, refused): Looked = given.extract()?;
                let Some((error, again)) = refused else {
                    self.put_value(ticket, value);
                    return Ok(passed(redacted, repaired));
                };
                if let Some((said, why)) = again {
                    self.asks_again(py, rails, &said, &why)?;
                }
                error
            }
            Err(error) if error.is_instance_of::<PyException>(py) => error.into_value(py).into_any(),
            Err(interrupt) => return Err(interrupt),
        };
        self.put_error(ticket, error);
        Ok(Verdict::Final)
    }

    /// The next call of the function is told what it gave, and why that does not do.
    fn asks_again(&mut self, py: Python<'_>, rails: &Py<Guardrails>, said: &str, why: &str) -> PyResult<()> {
        static AGAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let changed =
            ours(py, &AGAIN, "seawall._guardrails", "asked_again")?.call1((rails, &self.function, &self.args, &self.kwargs, said, why))?;
        let (args, kwargs): Arguments = changed.extract()?;
        let (args, kwargs) = (std::mem::replace(&mut self.args, args), std::mem::replace(&mut self.kwargs, kwargs));
        match &mut self.before {
            Some(before) => before.times += 1,
            None => self.before = Some(Before { args, kwargs, times: 1 }),
        }
        Ok(())
    }

    /// The keyword arguments that a target is called with.
    pub(super) fn kwargs_for(&self, target: Target) -> &Option<Py<PyDict>> {
        match &self.before {
            Some(before) if !self.is_primary(target) => &before.kwargs,
            _ => &self.kwargs,
        }
    }

    /// Something else stands in a value's place.
    fn put_value(&mut self, ticket: Ticket, value: Py<PyAny>) {
        if let Some(kept) = self.values.get_mut(ticket.0 as usize) {
            *kept = Kept::Value(value);
        }
    }

    /// An exception does.
    fn put_error(&mut self, ticket: Ticket, error: Py<PyAny>) {
        if let Some(kept) = self.values.get_mut(ticket.0 as usize) {
            *kept = Kept::Error(error);
        }
    }

    /// A fresh execution of this call. `first`, its first attempt, was made with what it was asked: where guardrails leave something else
    /// of that, or refuse it, nobody is to await it.
    pub(super) fn begins(&mut self, py: Python<'_>, way: Way, first: &mut Option<Py<PyAny>>) -> PyResult<Execution> {
        let execution = self.execution(py, way, clock::now());
        if (execution.is_err() || self.redacted > 0)
            && let Some(first) = first.take()
            && let Some(close) = first.bind(py).getattr_opt(intern!(py, "close"))?
        {
            close.call0()?;
        }
        execution
    }
}
