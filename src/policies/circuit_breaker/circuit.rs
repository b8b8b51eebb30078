//! The breaker's state machine: one lock, no call made under it, permits stamped with the generation they belong to.

use super::window::{Totals, Window};
use super::{Config, Outlook, State};
use crate::engine::Instant;
use std::time::Duration;

/// The right to make one call, and the era in which it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    generation: u64,
    /// The probe's number within its generation; 0 is no probe.
    probe: u32,
    /// When it was given.
    pub at: Instant,
}

impl Permit {
    /// The permit of a call that passed a closed circuit.
    #[inline]
    pub fn passed(generation: u64, at: Instant) -> Permit {
        Permit { generation, probe: 0, at }
    }

    /// The era in which it was given.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// What a call told about the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It worked.
    Success,
    /// It failed.
    Failure,
    /// It told nothing: cancelled, ignored, rejected further in.
    None,
}

/// A change of state, for the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Calls are turned away from now on.
    Opened,
    /// Probes are let through.
    HalfOpened,
    /// Calls pass again.
    Closed,
}

/// A circuit's shadow in one word: the generation, whether calls pass unasked, and whether a success would change anything.
#[derive(Clone, Copy)]
pub struct Gate(pub u64);

const PASSES: u64 = 1;
const COUNTS: u64 = 2;
const GENERATION: u32 = 2;

impl Gate {
    /// A permit of a circuit that everybody passes.
    #[inline]
    pub fn permit(self, now: Instant) -> Option<Permit> {
        (self.0 & PASSES != 0).then_some(Permit { generation: self.0 >> GENERATION, probe: 0, at: now })
    }

    /// Whether the evidence would change nothing: it is none, of an earlier era, or a success where no failure is counted.
    #[inline]
    pub fn ignores(self, permit: Permit, evidence: Evidence) -> bool {
        let plain = permit.probe == 0 && (evidence == Evidence::None || evidence == Evidence::Success && self.0 & COUNTS == 0);
        plain || permit.generation != self.0 >> GENERATION
    }
}

/// Everything that changes.
#[derive(Debug)]
pub struct Circuit {
    mode: State,
    generation: u64,
    consecutive: u32,
    window: Option<Window>,
    open_until: Instant,
    /// Openings since it was last closed.
    openings: u32,
    /// Probes out, with the time each was given.
    probes: Vec<(u32, Instant)>,
    next_probe: u32,
    probe_successes: u32,
    /// Calls turned away, ever.
    rejected: u64,
}

impl Circuit {
    /// A closed circuit that has seen nothing.
    pub fn new(config: &Config) -> Circuit {
        Circuit {
            mode: State::Closed,
            generation: 0,
            consecutive: 0,
            window: config.window().map(Window::new),
            open_until: Instant(0),
            openings: 0,
            probes: Vec::new(),
            next_probe: 1,
            probe_successes: 0,
            rejected: 0,
        }
    }

    /// The shadow of the state as it is now.
    pub fn gate(&self) -> u64 {
        let passes = matches!(self.mode, State::Closed | State::Disabled | State::MetricsOnly);
        let counts = match self.mode {
            State::Closed | State::MetricsOnly => self.consecutive != 0 || self.window.is_some(),
            State::Disabled => false,
            _ => true,
        };
        (self.generation << GENERATION) | if passes { PASSES } else { 0 } | if counts { COUNTS } else { 0 }
    }

    /// Another configuration: the state stays, a window of another span begins empty.
    pub fn reconfigure(&mut self, old: &Config, new: &Config) {
        if old.window() != new.window() {
            self.window = new.window().map(Window::new);
        }
    }

    /// The state as a caller would meet it: an open circuit whose time is up reads half open.
    pub fn state(&self, now: Instant) -> State {
        match self.mode {
            State::Open if now >= self.open_until => State::HalfOpen,
            mode => mode,
        }
    }

    /// A permit, or the time until one may be had.
    pub fn admit(&mut self, config: &Config, now: Instant) -> Result<(Permit, Option<Transition>), Option<Duration>> {
        let mut transition = None;
        if self.mode == State::Open {
            if now < self.open_until {
                self.rejected += 1;
                return Err(Some(self.open_until.since(now)));
            }
            self.enter(State::HalfOpen);
            transition = Some(Transition::HalfOpened);
        }
        match self.mode {
            State::ForcedOpen => {
                self.rejected += 1;
                Err(None)
            }
            State::HalfOpen => {
                self.probes.retain(|(_, given)| now.since(*given) < config.max_half_open_time);
                if self.probes.len() >= config.half_open_max_calls as usize {
                    self.rejected += 1;
                    return Err(None);
                }
                let probe = self.next_probe;
                self.next_probe = self.next_probe.wrapping_add(1).max(1);
                self.probes.push((probe, now));
                Ok((Permit { generation: self.generation, probe, at: now }, transition))
            }
            _ => Ok((Permit { generation: self.generation, probe: 0, at: now }, transition)),
        }
    }

    /// Takes a permit back with what the call told. Evidence from an earlier generation changes nothing.
    pub fn settle(&mut self, config: &Config, permit: Permit, evidence: Evidence, now: Instant, chance: f64) -> Option<Transition> {
        if permit.generation != self.generation {
            return None;
        }
        if permit.probe != 0 {
            let out = self.probes.len();
            self.probes.retain(|(probe, _)| *probe != permit.probe);
            if self.probes.len() == out {
                return None;
            }
        }
        match (self.mode, evidence) {
            (_, Evidence::None) | (State::Disabled | State::ForcedOpen | State::Open, _) => None,
            (State::HalfOpen, Evidence::Failure) => Some(self.open(config, now, chance)),
            (State::HalfOpen, Evidence::Success) => {
                self.probe_successes += 1;
                (self.probe_successes >= config.success_threshold).then(|| self.close())
            }
            (State::Closed | State::MetricsOnly, _) => {
                let failed = evidence == Evidence::Failure;
                self.consecutive = if failed { self.consecutive.saturating_add(1) } else { 0 };
                let slow = config.slow.is_some_and(|s| now.since(permit.at) >= s.duration);
                let totals = self.window.as_mut().map(|w| w.record(now, failed, slow)).unwrap_or_default();
                let trips = self.mode == State::Closed && self.trips(config, failed, slow, totals);
                trips.then(|| self.open(config, now, chance))
            }
        }
    }

    fn trips(&self, config: &Config, failed: bool, slow: bool, totals: Totals) -> bool {
        let enough = totals.calls >= config.minimum_calls;
        let reaches = |part: u32, limit: f64| enough && f64::from(part) >= limit * f64::from(totals.calls);
        let by_failures =
            config.consecutive.is_some_and(|n| self.consecutive >= n) || config.rate.is_some_and(|r| reaches(totals.failed, r));
        (failed && by_failures) || (slow && config.slow.is_some_and(|s| reaches(totals.slow, s.ratio)))
    }

    /// Opens for the recovery time.
    pub fn open(&mut self, config: &Config, now: Instant, chance: f64) -> Transition {
        self.openings = self.openings.saturating_add(1);
        let recovery = match &config.recovery_backoff {
            Some(backoff) => backoff.wait(self.openings, None, &mut || chance),
            None => config.recovery,
        };
        self.enter(State::Open);
        self.open_until = now.after(recovery);
        Transition::Opened
    }

    /// Closes and forgets.
    pub fn close(&mut self) -> Transition {
        self.enter(State::Closed);
        self.consecutive = 0;
        self.openings = 0;
        if let Some(window) = &mut self.window {
            window.clear();
        }
        Transition::Closed
    }

    /// Puts the circuit into a state by hand.
    pub fn force(&mut self, mode: State) {
        self.enter(mode);
    }

    /// A new era: permits given before it tell nothing any more.
    fn enter(&mut self, mode: State) {
        self.mode = mode;
        self.generation += 1;
        self.probes.clear();
        self.probe_successes = 0;
    }

    /// Counts for a snapshot.
    pub fn outlook(&mut self, now: Instant) -> Outlook {
        Outlook {
            state: self.state(now),
            consecutive_failures: self.consecutive,
            totals: self.window.as_mut().map(|w| w.totals(now)).unwrap_or_default(),
            openings: self.openings,
            opens_in: (self.mode == State::Open).then(|| self.open_until.since(now)),
            open_until: self.open_until,
            probes: self.probes.len() as u32,
            rejected: self.rejected,
        }
    }
}
