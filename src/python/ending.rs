//! How a guarded call ends: what the caller gets, and what everybody else is told.

use super::compiled::{Callee, Labels};
use super::errors;
use super::flight::{Flight, Interrupt};
use super::log;
use super::monitor;
use super::policies::circuit_breaker::short_repr;
use super::story::{Story, Tale};
use super::tally::{Last, Left};
use crate::drive::clock;
use crate::engine::{Execution, Instant, Outcome};
use crate::stats::{Record, Source, Word};
use crate::telemetry::{self, Call, Trace};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::mem::take;
use std::sync::Arc;

impl Flight {
    /// What the monitor, and whoever hears of all calls, are told of the call; nothing where nobody is.
    fn told(&self, py: Python<'_>, attempts: u32, error: Option<&str>, now: Instant) -> (Option<Record>, Option<Box<Call>>) {
        // What seawall does for itself is no call of the program's.
        let is_heard = (telemetry::is_on() || self.trace.is_some()) && !log::is_our_own(&self.name(py));
        if self.compiled.monitor.is_none() && !is_heard {
            return (None, None);
        }
        let record = Record {
            ok: error.is_none(),
            attempts,
            retries: self.course().retries,
            fallback: error.is_none() && self.course().fell_back,
            latency_ns: now.0.saturating_sub(self.course().begun.0),
            first_token_ns: self.diary.first_item_ns(),
            error: error.map_or(Word::NONE, Word::of),
            source: self.source(py),
            ..Record::default()
        };
        (Some(record), is_heard.then(|| self.heard_call(py, record)))
    }

    #[cold]
    fn heard_call(&self, py: Python<'_>, record: Record) -> Box<Call> {
        Box::new(Call {
            operation: "call",
            is_stream: record.first_token_ns > 0,
            record,
            begun_ns: clock::unix(self.course().begun),
            requests: self.diary.pages.requests(record.source),
            notes: self.diary.pages.notes(&self.labels(py).places),
            ..Call::default()
        })
    }

    /// Tells them.
    fn tell(&self, record: Option<Record>, call: Option<Box<Call>>, now: Instant) -> Result<(), Interrupt> {
        if let Some(call) = call {
            telemetry::ended(&call);
            if let Some(trace) = &self.trace {
                trace.ended(&call);
            }
        }
        match (&self.compiled.monitor, record) {
            (Some(monitor), Some(record)) => monitor::record(monitor, record, now).map_err(|interrupt| *interrupt),
            _ => Ok(()),
        }
    }

    fn source(&self, py: Python<'_>) -> Source {
        if self.compiled.source == Source::NONE { Source::of(&self.name(py), "", "") } else { self.compiled.source }
    }

    /// What the caller gets of a call that came out so at `now`: the value, or the exception with its notes.
    pub fn finish(&mut self, py: Python<'_>, outcome: Outcome, execution: &Execution, now: Instant) -> PyResult<Py<PyAny>> {
        let error = match outcome {
            Outcome::Value(_) | Outcome::Stream(_) => None,
            failed => self.exception(py, &failed),
        };
        let kind = error.as_ref().map(|e| e.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string()));
        self.diary.cut(now);
        self.is_told = true;
        let (record, call) = self.told(py, execution.calls(), kind.as_deref(), now);
        let left = self.leave(py, error.is_some())?;
        let story = match &left {
            Left::Story(story) => Some(story.clone_ref(py)),
            Left::Pages(_) | Left::Nothing => None,
        };
        let last = Last { attempts: execution.calls(), took: now.since(self.course().begun), error: kind, left };
        self.compiled.tally.end(py, self.course(), last);
        self.tell(record, call, now)?;
        let error = match (outcome, error) {
            (Outcome::Value(ticket) | Outcome::Stream(ticket), _) => return self.restored(self.value(py, ticket)),
            (_, Some(error)) => error,
            // It was let go although somebody still asks for it.
            (_, None) => return Err(PyRuntimeError::new_err("seawall has lost the error of this call; please report this")),
        };
        let others: Vec<Py<PyAny>> = execution.attached().iter().filter_map(|o| self.exception(py, o)).map(Bound::unbind).collect();
        let mut notes = Vec::new();
        if let Some((attempts, span, reason)) = self.exhausted
            && (attempts > 1 || reason != crate::policies::retry::reason::FINAL)
        {
            let plural = if attempts == 1 { "" } else { "s" };
            notes.push(format!("{attempts} attempt{plural} in {:.1} s, pipeline '{}' ({reason})", span.as_secs_f64(), self.name(py)));
        }
        if !others.is_empty() {
            let kinds: Vec<String> =
                others.iter().map(|o| o.bind(py).get_type().name().map_or_else(|_| "?".into(), |n| n.to_string())).collect();
            notes.push(format!(
                "{} alternative{} failed too: {}",
                others.len(),
                if others.len() == 1 { "" } else { "s" },
                kinds.join(", ")
            ));
        }
        let exception = &error;
        if !notes.is_empty() {
            errors::annotate(exception, &notes.join("; "));
        }
        if !others.is_empty() {
            errors::attach_alternatives(exception, PyTuple::new(py, others)?)?;
        }
        if let Some(story) = story {
            // An exception that takes no attributes goes without its story.
            let _ = exception.setattr(intern!(py, "story"), story);
        }
        Err(PyErr::from_value(error))
    }

    /// What it leaves to tell, where there is something; who gets a value may never ask for the story.
    fn leave(&mut self, py: Python<'_>, is_failed: bool) -> PyResult<Left> {
        if !self.diary.pages.is_worth_telling() {
            return Ok(Left::Nothing);
        }
        if !is_failed {
            // Of a pipeline's own calls nobody can ask.
            if !self.compiled.is_one_functions() {
                return Ok(Left::Nothing);
            }
            if self.compiled.labels().is_none() {
                self.name_all(py);
            }
            return Ok(Left::Pages(take(&mut self.diary.pages)));
        }
        let story = Py::new(py, Story::untold())?;
        let labels = self.labels(py);
        story.get().tells(Tale { pages: take(&mut self.diary.pages), labels });
        Ok(Left::Story(story))
    }

    /// What its targets and stages are called.
    fn labels(&self, py: Python<'_>) -> Arc<Labels> {
        self.compiled.labels().cloned().unwrap_or_else(|| self.name_all(py))
    }

    #[cold]
    fn name_all(&self, py: Python<'_>) -> Arc<Labels> {
        self.compiled.are_called(Labels {
            targets: self.targets(py),
            places: self.compiled.stages.iter().map(|stage| Word::of(&self.place(py, stage))).collect(),
        })
    }

    fn targets(&self, py: Python<'_>) -> Vec<(String, u16)> {
        let name = |callee: &Callee| match callee {
            Callee::Primary | Callee::Raise(_) | Callee::Prompt(_) => short_repr(self.function(py)),
            Callee::Function(function) => short_repr(function.bind(py)),
            Callee::Runnable(runnable) => runnable.bind(py).get_type().name().map_or_else(|_| "?".into(), |name| name.to_string()),
            Callee::Value(_) | Callee::Injected(_) => "a value".to_owned(),
            Callee::Found => "the cache".to_owned(),
        };
        let mut alternatives = 0;
        let target = |callee: &Callee| {
            let is_primary = matches!(callee, Callee::Primary | Callee::Raise(_) | Callee::Injected(_) | Callee::Found);
            alternatives += u16::from(!is_primary);
            (name(callee), if is_primary { 0 } else { alternatives })
        };
        self.compiled.callees.iter().map(target).collect()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let has_begun = self.course().begun != Instant::default();
        if !self.is_told && has_begun && (telemetry::is_on() || self.trace.is_some()) {
            self.given_up();
        }
        self.give_back();
    }
}

impl Flight {
    /// Given up: what was tried is told all the same.
    #[cold]
    fn given_up(&mut self) {
        // Without an interpreter (it is shutting down) nobody listens.
        Python::try_attach(|py| {
            let (begun_ns, source) = (clock::unix(self.course().begun), self.source(py));
            let requests = self.diary.left(clock::now(), source);
            telemetry::abandoned("call", begun_ns, &requests);
            if let Some(trace) = &self.trace {
                trace.abandoned(begun_ns, &requests);
            }
        });
    }
}
