//! The inline driver's host: a synchronous Python call on the caller's own thread.

use super::bell;
use super::flight::{Flight, Interrupt, Way};
use super::guarded;
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
}

impl Host for Inline<'_, '_> {
    type Interrupt = Interrupt;

    fn now(&mut self) -> Instant {
        clock::now()
    }

    fn call(&mut self, _call: CallId, target: Target, deadline: Instant, limit: Instant) -> Result<Called, Interrupt> {
        let (py, flight) = (self.py, &*self.flight);
        let deadline = flight.compiled.told(|| deadline);
        let result = if flight.compiled.threaded && limit != Instant::NEVER {
            match flight.within(py, deadline, || flight.start_apart(py, target, limit)).transpose() {
                Some(result) => result,
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
        self.flight.keep(self.py, result).map(|(outcome, now)| Called::Ended(outcome, now))
    }

    fn judge(&mut self, ask: Ask) -> Result<Verdict, Interrupt> {
        self.flight.judge(self.py, ask)
    }

    fn wait(&mut self, wait: &Wait) -> Result<Instant, Interrupt> {
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
