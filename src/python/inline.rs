//! The inline driver's host: a synchronous Python call on the caller's own thread.

use super::bell;
use super::flight::{Flight, Interrupt, Way};
use super::guarded;
use super::race::Race;
use super::raised::Raised;
use super::virtual_time;
use crate::drive::inline::{Called, Host, Wait};
use crate::drive::{clock, pause};
use crate::engine::{Ask, CallId, Event, Instant, Target, Verdict};
use pyo3::prelude::*;
use std::vec::Drain;

/// A flight on its caller's thread.
pub struct Inline<'a, 'py> {
    pub py: Python<'py>,
    pub flight: &'a mut Flight,
    /// Where attempts run beside each other, what runs.
    pub race: Option<Race>,
}

/// Calls the target on a thread of its own, where there is one for it.
#[inline(never)] // as the rare ones below
fn call_beside(
    py: Python<'_>,
    flight: &mut Flight,
    race: &mut Race,
    call: CallId,
    target: Target,
    deadline: Instant,
) -> Result<Called, Interrupt> {
    match flight.start_beside(py, race, call, target, deadline, None).transpose() {
        Some(result) => flight.keep(result.map_err(|error| Raised::of(py, error))).map(|(outcome, now)| Called::Ended(outcome, now)),
        None => Ok(Called::Apart),
    }
}

impl Host for Inline<'_, '_> {
    type Interrupt = Interrupt;

    fn now(&mut self) -> Instant {
        clock::now()
    }

    fn call(&mut self, call: CallId, target: Target, deadline: Instant, limit: impl Fn() -> Instant) -> Result<Called, Interrupt> {
        let deadline = self.flight.compiled.told(|| deadline);
        if let Some(race) = &mut self.race {
            return call_beside(self.py, self.flight, race, call, target, deadline);
        }
        let (py, flight) = (self.py, &*self.flight);
        let limit = if flight.compiled.threaded { limit() } else { Instant::NEVER };
        let result = if limit != Instant::NEVER {
            match flight.within(py, deadline, || flight.start_apart(py, target, limit)).transpose() {
                Some(result) => result.map_err(|error| Raised::of(py, error)),
                None => return Ok(Called::GivenUp),
            }
        } else {
            flight.within(py, deadline, || flight.start(py, target, Way::Sync))
        };
        if let Ok(value) = &result
            && guarded::has_to_run(value.bind(self.py)).is_some()
        {
            self.flight.given = result.ok();
            return Ok(Called::Given);
        }
        self.flight.keep(result).map(|(outcome, now)| Called::Ended(outcome, now))
    }

    #[inline(never)] // rare, as the others: the loop that every attempt goes through is small without them
    fn ended(&mut self) -> Result<Option<(CallId, Called)>, Interrupt> {
        let Some(landed) = self.race.as_mut().and_then(Race::take) else { return Ok(None) };
        self.flight.diary.is_back(landed.call);
        if let Ok(value) = &landed.result
            && guarded::has_to_run(value.bind(self.py)).is_some()
        {
            // It goes on with that one alone.
            self.flight.given = landed.result.ok();
            let others = self.race.as_mut().map(|race| race.cancel_others(self.py, None)).unwrap_or_default();
            others.into_iter().for_each(|other| self.flight.diary.is_left(other, true, clock::now()));
            return Ok(Some((landed.call, Called::Given)));
        }
        let result = landed.result.map_err(|error| Raised::of(self.py, error));
        self.flight.keep(result).map(|(outcome, now)| Some((landed.call, Called::Ended(outcome, now))))
    }

    #[inline(never)]
    fn cancelled(&mut self, call: CallId, beaten: bool) {
        if let Some(race) = &mut self.race {
            race.cancel(self.py, call);
            self.flight.diary.is_left(call, beaten, clock::now());
        }
    }

    #[inline]
    fn answer(&mut self, ask: &Ask) -> Option<&'static Verdict> {
        self.flight.answer(self.py, ask)
    }

    #[inline(never)]
    fn judge(&mut self, ask: Ask, now: Instant) -> Result<(Verdict, Instant), Interrupt> {
        let verdict = self.flight.judge(self.py, ask)?;
        let asks_nobody = self.flight.compiled.stage(ask.stage()).judge.asks_nobody();
        Ok((verdict, if asks_nobody { now } else { clock::now() }))
    }

    #[inline(never)]
    fn wait(&mut self, wait: &Wait) -> Result<Instant, Interrupt> {
        if let Some(race) = self.race.as_ref().filter(|race| !race.is_empty()) {
            return bell::listen(self.py, race.signal(), wait);
        }
        if let Some(signal) = &wait.signal {
            return bell::listen(self.py, signal, wait);
        }
        let until = wait.until;
        loop {
            self.py.check_signals()?;
            let now = clock::now();
            if now >= until {
                return Ok(now);
            }
            if clock::is_by_hand() {
                virtual_time::advance_to(self.py, until)?;
                continue;
            }
            self.py.detach(|| pause::pause(until.since(now)));
        }
    }

    fn publish(&mut self, events: Drain<'_, Event>) -> Result<(), Interrupt> {
        self.flight.publish(self.py, events)
    }
}
