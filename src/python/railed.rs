//! What a guarded call has to do with guardrails: what it is asked is looked at before it begins, what it gives is when the layer asks.

use super::compiled::Callee;
use super::errors::ours;
use super::flight::{Flight, Kept, Way};
use super::guardrails::{Guardrails, before};
use super::log;
use super::raised::Raised;
use crate::drive::clock;
use crate::engine::{Ask, Execution, Outcome, Target, Ticket, Verdict};
use crate::events;
use crate::policies::guardrails::passed;
use crate::stats::Word;
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};

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

/// What guardrails know of a call.
#[derive(Default)]
pub struct Railed {
    /// What it was asked with, if the function was told of an answer that was refused.
    pub before: Option<Before>,
    /// What was cut out of what it is asked.
    redacted: u32,
    /// Its answer comes in items.
    pub is_stream: bool,
    /// What was taken out of what is asked and goes back into the answer, as (placeholder, value).
    held: Vec<(String, String)>,
    /// Where whoever hands items out finds that once they are asked for.
    holder: Option<Py<PyList>>,
    /// Where its items came from, once they are over.
    source: Option<Py<PyAny>>,
    /// Items that ended in a guardrail's refusal: the callee has answered, and the guardrail's own place in the plan says what follows.
    refused: Vec<(Ticket, Py<PyAny>, Py<PyAny>)>,
}

impl Railed {
    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.before.iter().try_for_each(|before| before.traverse(visit))?;
        visit.call(&self.source)?;
        visit.call(&self.holder)?;
        self.refused.iter().try_for_each(|(_, rails, error)| visit.call(rails).and_then(|()| visit.call(error)))
    }

    /// Whether that is an answer that some guardrails have refused.
    fn is_refused(&self, ticket: Ticket) -> bool {
        self.refused.iter().any(|(of, ..)| *of == ticket)
    }

    fn refusal(&mut self, ticket: Ticket, rails: &Py<Guardrails>) -> Option<Py<PyAny>> {
        let at = self.refused.iter().position(|(of, by, _)| *of == ticket && by.as_ptr() == rails.as_ptr())?;
        Some(self.refused.swap_remove(at).2)
    }

    /// How much was cut out of the items.
    fn times(&self, py: Python<'_>, rails: &Py<Guardrails>) -> PyResult<u32> {
        let Some(source) = &self.source else { return Ok(0) };
        match source.bind(py).getattr_opt(intern!(py, "_seawall_times"))? {
            Some(times) => times.call1((rails,))?.extract(),
            None => Ok(0),
        }
    }
}

/// What hands out items, with what will be in `holder` put back into them.
pub fn restoring<'py>(holder: Option<Bound<'py, PyList>>, items: Bound<'py, PyAny>, is_async: bool) -> PyResult<Bound<'py, PyAny>> {
    static RESTORING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let Some(holder) = holder else { return Ok(items) };
    ours(items.py(), &RESTORING, "seawall._screen", "restoring")?.call1((holder, items, is_async))
}

/// Items as guardrails leave them: `rails`, innermost first.
pub fn screened<'py>(rails: &Bound<'py, PyTuple>, items: &Bound<'py, PyAny>, is_async: bool) -> PyResult<Bound<'py, PyAny>> {
    static SCREENED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static ASCREENED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (place, name) = if is_async { (&ASCREENED, "ascreened") } else { (&SCREENED, "screened") };
    ours(items.py(), place, "seawall._screen", name)?.call1((rails, items))
}

impl Flight {
    /// Those who look at answers, innermost first.
    pub fn rails<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let looking = self.compiled.rails.iter().rev().map(|(_, rails)| rails).filter(|rails| !rails.get().answered.is_empty());
        PyTuple::new(py, looking.collect::<Vec<_>>())
    }

    /// Those who look at the items of a target; none at what was written down, or has passed already.
    pub fn rails_of(&self, py: Python<'_>, target: Target) -> PyResult<Option<Py<PyTuple>>> {
        let compiled = &self.compiled;
        if compiled.rails.is_empty() || matches!(compiled.callee(target), Callee::Found) || compiled.written.contains(&target) {
            return Ok(None);
        }
        let rails = self.rails(py)?;
        Ok((!rails.is_empty()).then(|| rails.unbind()))
    }

    /// The items of a target (`None`: of what a plain function has given) as guardrails leave them.
    pub fn screened(&self, items: &Bound<'_, PyAny>, target: Option<Target>, is_async: bool) -> PyResult<Py<PyAny>> {
        let py = items.py();
        match self.rails_of(py, target.unwrap_or_default())? {
            Some(rails) => screened(rails.bind(py), items, is_async).map(Bound::unbind),
            None => Ok(items.clone().unbind()),
        }
    }

    /// An answer with what was taken out of its question put back.
    pub(super) fn restored(&self, value: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        static RESTORED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        if self.railed.held.is_empty() {
            return Ok(value.unbind());
        }
        let parts = (self.railed.held.clone(), &value, &self.args);
        ours(value.py(), &RESTORED, "seawall._guardrails", "restored")?.call1(parts).map(Bound::unbind)
    }

    /// Where what hands out the items of this call will find what is to be put back into them; nothing where that is nothing.
    pub(super) fn holds<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        if !self.compiled.rails.iter().any(|(_, rails)| rails.get().asked.restores()) {
            return Ok(None);
        }
        let holder = PyList::new(py, self.railed.held.clone())?;
        self.railed.holder = Some(holder.clone().unbind());
        Ok(Some(holder))
    }

    /// Items are over.
    pub fn has_passed(&mut self, source: Py<PyAny>) {
        if !self.compiled.rails.is_empty() {
            self.railed.source = Some(source);
        }
    }

    /// What a refusal of items by guardrails of this call is to the policies inside of them: an answer.
    pub(super) fn refused<'py>(&mut self, ticket: Ticket, error: Raised<'py>) -> Result<Py<PyAny>, Raised<'py>> {
        if self.compiled.rails.is_empty() {
            return Err(error);
        }
        let py = error.value().py();
        let marked = error.value().getattr_opt(intern!(py, "_seawall_screen"));
        let Some(by) = marked.map_err(|failed| Raised::of(py, failed))? else { return Err(error) };
        if !self.compiled.rails.iter().any(|(_, rails)| rails.as_ptr() == by.as_ptr()) {
            return Err(error);
        }
        self.railed.refused.push((ticket, by.unbind(), error.into_value().unbind()));
        Ok(py.None())
    }

    /// Has what the call is asked looked at, in place of which what they leave of it stands. Fails with their refusal.
    pub(super) fn screens(&mut self, py: Python<'_>) -> PyResult<()> {
        static ASKED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let compiled = self.compiled.clone_ref(py);
        for (stage, rails) in &compiled.rails {
            if rails.get().asked.is_empty() {
                continue;
            }
            let looked = ours(py, &ASKED, "seawall._guardrails", "asked")?.call1((rails, &self.function, &self.args, &self.kwargs));
            match looked {
                Ok(changed) => {
                    let (arguments, redactions, held): (Option<Arguments>, u32, Vec<(String, String)>) = changed.extract()?;
                    if let Some(holder) = &self.railed.holder {
                        held.iter().try_for_each(|pair| holder.bind(py).append(pair))?;
                    }
                    self.railed.held.extend(held);
                    if let Some((args, kwargs)) = arguments {
                        (self.args, self.kwargs) = (args, kwargs);
                        self.railed.redacted += redactions;
                        let event = before(*stage, events::GUARDRAIL_REDACTED, redactions);
                        log::event(py, &event, &self.place(py, compiled.stage(*stage)), None)?;
                        self.diary.note(&event, Word::NONE);
                    }
                }
                Err(error) => {
                    if error.is_instance(py, &super::errors::class(py, "InputRefusedError")?) {
                        let event = before(*stage, events::GUARDRAIL_REFUSED, 0);
                        log::event(py, &event, &self.place(py, compiled.stage(*stage)), Some(error.value(py).as_any()))?;
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
        if let Some(error) = self.railed.refusal(ticket, rails) {
            error.bind(py).delattr(intern!(py, "_seawall_screen"))?;
            self.put_error(ticket, error);
            return Ok(Verdict::Final);
        }
        if self.railed.is_refused(ticket) {
            return Ok(Verdict::Ignore); // by others
        }
        if self.railed.is_stream || matches!(self.way, Way::Items | Way::AsyncItems) {
            return Ok(passed(self.railed.times(py, rails)?, 0));
        }
        let value = self.value(py, ticket);
        let asked = self.railed.before.as_ref().map_or(0, |before| before.times);
        let looked =
            ours(py, &ANSWERED, "seawall._guardrails", "answered")?.call1((rails, value, asked, &self.args, self.railed.held.clone()));
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
        match &mut self.railed.before {
            Some(before) => before.times += 1,
            None => self.railed.before = Some(Before { args, kwargs, times: 1 }),
        }
        Ok(())
    }

    /// The keyword arguments that a target is called with.
    pub(super) fn kwargs_for(&self, target: Target) -> &Option<Py<PyDict>> {
        match &self.railed.before {
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
        if (execution.is_err() || self.railed.redacted > 0)
            && let Some(first) = first.take()
            && let Some(close) = first.bind(py).getattr_opt(intern!(py, "close"))?
        {
            close.call0()?;
        }
        execution
    }
}
