//! How drivers have attempts run beside each other.

use super::bell::Bell;
use super::compiled::Callee;
use super::event_loop;
use super::flight::{Flight, Way};
use super::race::{Given, Landed, Race};
use super::running::{Awaited, Items, Running, Turn};
use super::sdk_stream::{self, Desk};
use crate::drive::clock;
use crate::drive::inline::Wait;
use crate::engine::{CallId, Instant, Target};
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;

impl Flight {
    /// Calls a target on a thread of its own, beside others: its value if it is there already. `desk`: what counts is the first item
    /// of what it gives, which is looked after there; `Some(None)` where items need no looking after.
    pub fn start_beside(
        &mut self,
        py: Python<'_>,
        race: &mut Race,
        call: CallId,
        target: Target,
        deadline: Instant,
        desk: Option<Option<&Desk>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        if let Callee::Found = self.compiled.callee(target) {
            return self.found(py, target).map(Some);
        }
        self.diary.started(target);
        let (way, rails) = match desk {
            Some(_) => (Way::Items, self.rails_of(py, target)?),
            None => (Way::Sync, None),
        };
        match self.callable(py, target, way)? {
            Ok((function, args)) => {
                let given = Given { function, args, kwargs: self.kwargs.as_ref().map(|k| k.bind(py)) };
                self.within(py, deadline, || race.on_a_thread(py, call, given, desk.is_some(), (desk.flatten(), rails)))?;
                self.diary.aside(call, clock::now());
                Ok(None)
            }
            Err(value) => Ok(Some(value)),
        }
    }
}

impl Running {
    /// Before it runs: what it awaits already is one of those that may run beside each other.
    pub fn goes_beside(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(execution) = self.execution.as_mut().filter(|_| self.flight.compiled.hedged) else { return Ok(()) };
        let race = self.race.get_or_insert_with(|| Race::new(execution.bell()));
        if let (Way::Async, Some((_, Awaited::Call { call, begun: false, .. }))) = (self.way, &self.current) {
            let call = *call;
            let given = self.current.take();
            race.in_a_task(py, call, given.as_ref().map(|(given, _)| given.bind(py)), None)?;
            self.flight.diary.aside(call, clock::now());
        } else if let Some(items) = self.items.take_if(|items| !items.open) {
            race.in_a_task(py, items.call, None, Some(items.source.bind(py)))?;
            self.flight.diary.aside(items.call, clock::now());
        }
        Ok(())
    }

    /// Starts a call in a task of its own. A turn if that ends it all.
    pub fn start_beside(&mut self, py: Python<'_>, call: CallId, target: Target, deadline: Instant) -> PyResult<Option<Turn>> {
        let deadline = self.flight.compiled.told(|| deadline);
        let started = self.start(py, target, deadline);
        let given = match started {
            Ok(value) if self.way == Way::AsyncItems => self.source_of(value.bind(py), target).map(|source| (None, Some(source))),
            Ok(value) if self.flight.is_value(target) || !event_loop::is_awaitable(value.bind(py)) => {
                return self.ended(py, Awaited::call(call), Ok(value));
            }
            Ok(value) => Ok((Some(value.into_bound(py)), None)),
            Err(error) => Err(error),
        };
        match (given, &mut self.race) {
            (Err(error), _) => return self.ended(py, Awaited::call(call), Err(error)),
            (Ok((awaitable, source)), Some(race)) => {
                self.flight.within(py, deadline, || race.in_a_task(py, call, awaitable.as_ref(), source.as_ref()))?;
                self.flight.diary.aside(call, clock::now());
            }
            (Ok(_), None) => {}
        }
        Ok(None)
    }

    /// Waits for whichever ends first, or the time. A turn if something has ended already and that is one.
    pub fn wait_beside(&mut self, py: Python<'_>, until: Instant) -> PyResult<Option<Turn>> {
        let (Some(race), Some(execution)) = (&mut self.race, &self.execution) else { return Ok(None) };
        if let Some(landed) = race.take() {
            return self.landed(py, landed);
        }
        let wait = Wait { until, signal: None, passes_time: execution.passes_time() };
        if let Some((bell, pause)) = Bell::hang(py, race.signal(), &wait)? {
            self.bell = Some(bell);
            self.current = Some((pause.unbind(), Awaited::Pause));
        }
        Ok(None)
    }

    fn landed(&mut self, py: Python<'_>, landed: Landed) -> PyResult<Option<Turn>> {
        let Landed { call, result, source } = landed;
        self.flight.diary.is_back(call);
        match (result, source) {
            (Ok(item), Some(source)) => {
                self.items = Some(Items { source, call, open: true });
                self.opened(py, call, item).map(|()| None)
            }
            (Ok(stream), None) if self.way == Way::Async && sdk_stream::is_async(stream.bind(py)) => {
                // The caller gets the stream that was answered first; until its first content comes it may be hedged again.
                let others = self.race.as_mut().map(|race| race.cancel_others(py, None)).unwrap_or_default();
                others.into_iter().for_each(|other| self.flight.diary.is_left(other, true, clock::now()));
                if let Some(execution) = &mut self.execution {
                    execution.goes_on_with(call, clock::now());
                }
                Ok(Some(Turn::Stream(stream, call)))
            }
            (Err(end), Some(_)) if end.is_instance_of::<PyStopAsyncIteration>(py) => self.ended(py, Awaited::begun(call), Ok(py.None())),
            (result, _) => self.ended(py, Awaited::begun(call), result),
        }
    }

    /// One that runs beside others is given up. Whether it did.
    pub fn cancel_beside(&mut self, py: Python<'_>, call: CallId, beaten: bool) -> bool {
        let Some(race) = self.race.as_mut() else { return false };
        let is_beside = race.has(call);
        race.cancel(py, call);
        self.flight.diary.is_left(call, beaten, clock::now());
        is_beside || self.items.as_ref().is_none_or(|items| items.call != call)
    }
}
