//! The breaker's state machine: one lock, no call made under it, permits stamped with the generation they belong to.

use super::config::{Cause, Change, Config, Outlook, State};
use super::window::{Totals, Window};
use crate::engine::{Chance, Instant};
use std::collections::VecDeque;
use std::time::Duration;

/// The right to make one call, and the era in which it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    generation: u64,
    /// The probe's number within its generation; 0 is no probe. As wide as its neighbours: what is written and then read
    /// in other pieces keeps the processor waiting.
    probe: u64,
    /// When it was given.
    pub at: Instant,
}

impl Permit {
    /// The permit of a call that passed a closed circuit.
    #[inline]
    pub fn passed(generation: u64, at: Instant) -> Permit {
        Permit { generation, probe: 0, at }
    }

    /// All that it is.
    #[inline]
    pub(super) fn words(self) -> [u64; 3] {
        [self.generation, self.probe, self.at.0]
    }

    /// Of all that one is.
    #[inline]
    pub(super) fn of([generation, probe, at]: [u64; 3]) -> Permit {
        Permit { generation, probe, at: Instant(at) }
    }

    /// The era in which it was given.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it was given to find out if the callee works again.
    pub fn is_probe(&self) -> bool {
        self.probe != 0
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
const LENIENT: u64 = 4;
const GENERATION: u32 = 3;
/// Changes kept for listeners that are slower than the circuit; beyond that, or where nobody listens, the oldest go.
const CHANGES: usize = 4096;

impl Gate {
    /// A permit of a circuit that everybody passes.
    #[inline]
    pub fn permit(self, now: Instant) -> Option<Permit> {
        (self.0 & PASSES != 0).then_some(Permit { generation: self.0 >> GENERATION, probe: 0, at: now })
    }

    /// Whether the evidence would change nothing: it is none, of an earlier era (if that matters), or a success where no
    /// failure is counted.
    #[inline]
    pub fn ignores(self, permit: Permit, evidence: Evidence) -> bool {
        let plain = permit.probe == 0 && (evidence == Evidence::None || evidence == Evidence::Success && self.0 & COUNTS == 0);
        plain || self.0 & LENIENT == 0 && permit.generation != self.0 >> GENERATION
    }
}

/// Everything that changes.
#[derive(Debug)]
pub struct Circuit {
    mode: State,
    cause: Cause,
    since: Instant,
    generation: u64,
    consecutive: u32,
    window: Option<Window>,
    lenient: bool,
    open_until: Instant,
    opened: Option<Instant>,
    /// The recovery time of the last opening: a decorrelated jitter builds on it.
    last_recovery: Option<Duration>,
    /// Openings since it was last closed.
    openings_in_a_row: u32,
    /// Openings, ever.
    openings: u64,
    /// Probes out, with the time each was given.
    probes: Vec<(u64, Instant)>,
    next_probe: u64,
    probe_successes: u32,
    /// Calls turned away, ever.
    rejected: u64,
    /// Who isolates it; when the last one ends, it goes back to `before`.
    isolations: Vec<u64>,
    next_isolation: u64,
    before: State,
    changes: VecDeque<Change>,
}

impl Circuit {
    /// A closed circuit that has seen nothing.
    pub fn new(config: &Config) -> Circuit {
        Circuit {
            mode: State::Closed,
            cause: Cause::Made,
            since: Instant(0),
            generation: 0,
            consecutive: 0,
            window: config.window().map(Window::new),
            lenient: config.lenient,
            open_until: Instant(0),
            opened: None,
            last_recovery: None,
            openings_in_a_row: 0,
            openings: 0,
            probes: Vec::new(),
            next_probe: 1,
            probe_successes: 0,
            rejected: 0,
            isolations: Vec::new(),
            next_isolation: 0,
            before: State::Closed,
            changes: VecDeque::new(),
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
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        (self.generation << GENERATION) | bit(passes, PASSES) | bit(counts, COUNTS) | bit(self.lenient, LENIENT)
    }

    /// Another configuration: the state stays, a window of another span begins empty.
    pub fn reconfigure(&mut self, old: &Config, new: &Config) {
        if old.window() != new.window() {
            self.window = new.window().map(Window::new);
        }
        if let (true, Some(opened)) = (self.lenient, self.opened) {
            // There the recovery time is looked up anew each time.
            self.open_until = opened.after(new.recovery);
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
            if !self.lenient {
                self.enter(State::HalfOpen, Cause::Recovering, now);
                transition = Some(Transition::HalfOpened);
            }
        }
        match self.mode {
            State::ForcedOpen => {
                self.rejected += 1;
                Err(None)
            }
            State::HalfOpen if !self.lenient => {
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
    pub fn settle(
        &mut self,
        config: &Config,
        permit: Permit,
        evidence: Evidence,
        now: Instant,
        chance: &mut dyn Chance,
    ) -> Option<Transition> {
        if self.lenient {
            let slow = config.slow.is_some_and(|s| now.since(permit.at) >= s.duration);
            return self.take(config, evidence, slow, now, chance);
        }
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
        let slow = config.slow.is_some_and(|s| now.since(permit.at) >= s.duration);
        match (self.mode, evidence) {
            (_, Evidence::None) | (State::Disabled | State::ForcedOpen | State::Open, _) => None,
            (State::HalfOpen, Evidence::Failure) => {
                self.consecutive = self.consecutive.saturating_add(1);
                Some(self.open(config, now, chance, Cause::ProbeFailed))
            }
            // Where slow calls open it, a slow probe has not shown that it recovered.
            (State::HalfOpen, Evidence::Success) if slow => Some(self.open(config, now, chance, Cause::ProbeSlow)),
            (State::HalfOpen, Evidence::Success) => self.probe_succeeded(config, now),
            (State::Closed | State::MetricsOnly, _) => self.count(config, evidence == Evidence::Failure, slow, now, chance),
        }
    }

    /// Evidence about a call that took no permit. It counts in whatever state the circuit is: a success brings an open
    /// circuit nearer to closing, a failure begins its recovery time anew.
    pub fn record(&mut self, config: &Config, evidence: Evidence, now: Instant, chance: &mut dyn Chance) -> Option<Transition> {
        if self.lenient {
            return self.take(config, evidence, false, now, chance);
        }
        match (self.mode, evidence) {
            (_, Evidence::None) | (State::Disabled | State::ForcedOpen, _) => None,
            (State::Open | State::HalfOpen, Evidence::Success) => self.probe_succeeded(config, now),
            (State::Open | State::HalfOpen, Evidence::Failure) => {
                self.consecutive = self.consecutive.saturating_add(1);
                Some(self.open(config, now, chance, Cause::Consecutive(self.consecutive)))
            }
            (State::Closed | State::MetricsOnly, _) => self.count(config, evidence == Evidence::Failure, false, now, chance),
        }
    }

    /// Evidence where nobody asks when its call began.
    fn take(&mut self, config: &Config, evidence: Evidence, slow: bool, now: Instant, chance: &mut dyn Chance) -> Option<Transition> {
        match (self.mode, evidence) {
            (_, Evidence::None) | (State::Disabled | State::ForcedOpen, _) => None,
            (State::Open | State::HalfOpen, Evidence::Success) => Some(self.close(Cause::Recovered(1), now)),
            (State::Open | State::HalfOpen, Evidence::Failure) => {
                self.consecutive = self.consecutive.saturating_add(1);
                let cause = self.trips(config, true, slow, Totals::default())?;
                Some(self.open(config, now, chance, cause))
            }
            (State::Closed | State::MetricsOnly, _) => self.count(config, evidence == Evidence::Failure, slow, now, chance),
        }
    }

    fn probe_succeeded(&mut self, config: &Config, now: Instant) -> Option<Transition> {
        self.probe_successes += 1;
        let enough = self.probe_successes >= config.success_threshold;
        enough.then(|| self.close(Cause::Recovered(self.probe_successes), now))
    }

    fn count(&mut self, config: &Config, failed: bool, slow: bool, now: Instant, chance: &mut dyn Chance) -> Option<Transition> {
        self.consecutive = if failed { self.consecutive.saturating_add(1) } else { 0 };
        if let Some(window) = &mut self.window {
            window.add(now, failed, slow);
        }
        // A good call opens nothing, and most calls are good.
        if self.mode != State::Closed || !(failed || slow) {
            return None;
        }
        let totals = self.window.as_ref().map(Window::seen).unwrap_or_default();
        let cause = self.trips(config, failed, slow, totals)?;
        Some(self.open(config, now, chance, cause))
    }

    /// Which rule trips. Only a failure trips the rules about failures, only a slow call the one about slow calls: a good
    /// call never opens the circuit, whatever it makes of the shares.
    fn trips(&self, config: &Config, failed: bool, slow: bool, totals: Totals) -> Option<Cause> {
        let enough = totals.calls >= config.minimum_calls;
        let reaches = |part: u32, limit: f64| enough && f64::from(part) >= limit * f64::from(totals.calls);
        if failed && config.consecutive.is_some_and(|n| self.consecutive >= n) {
            return Some(Cause::Consecutive(self.consecutive));
        }
        if failed && config.rate.is_some_and(|r| reaches(totals.failed, r)) {
            return Some(Cause::FailureRate(totals));
        }
        (slow && config.slow.is_some_and(|s| reaches(totals.slow, s.ratio))).then_some(Cause::SlowRate(totals))
    }

    /// Opens for the recovery time.
    fn open(&mut self, config: &Config, now: Instant, chance: &mut dyn Chance, cause: Cause) -> Transition {
        self.openings_in_a_row = self.openings_in_a_row.saturating_add(1);
        self.openings += 1;
        let recovery = match &config.recovery_backoff {
            Some(backoff) => backoff.wait(self.openings_in_a_row, self.last_recovery, &mut || chance.draw()),
            None => config.recovery,
        };
        self.last_recovery = Some(recovery);
        self.opened = Some(now);
        self.open_until = now.after(recovery);
        self.enter(State::Open, cause, now);
        Transition::Opened
    }

    /// Closes and forgets.
    fn close(&mut self, cause: Cause, now: Instant) -> Transition {
        self.enter(State::Closed, cause, now);
        self.consecutive = 0;
        self.openings_in_a_row = 0;
        self.last_recovery = None;
        if let Some(window) = &mut self.window {
            window.clear();
        }
        Transition::Closed
    }

    /// Puts the circuit into a state by hand, whoever isolates it.
    pub fn force(&mut self, config: &Config, mode: State, now: Instant, chance: &mut dyn Chance) {
        self.isolations.clear();
        match mode {
            State::Open => drop(self.open(config, now, chance, Cause::Hand)),
            State::Closed => drop(self.close(Cause::Hand, now)),
            State::HalfOpen => {
                self.open_until = now;
                self.opened = Some(Instant(now.0.saturating_sub(u64::try_from(config.recovery.as_nanos()).unwrap_or(u64::MAX))));
                self.enter(State::HalfOpen, Cause::Hand, now);
            }
            other => self.enter(other, Cause::Hand, now),
        }
    }

    /// Turns all calls away until the isolation of that number, and all others, are ended.
    pub fn isolate(&mut self, now: Instant) -> u64 {
        if self.isolations.is_empty() {
            self.before = self.mode;
            self.enter(State::ForcedOpen, Cause::Hand, now);
        }
        self.next_isolation += 1;
        self.isolations.push(self.next_isolation);
        self.next_isolation
    }

    /// Ends an isolation; after the last one the circuit is where it was before the first. Whether it was still on.
    pub fn end_isolation(&mut self, number: u64, now: Instant) -> bool {
        let Some(at) = self.isolations.iter().position(|n| *n == number) else { return false };
        self.isolations.swap_remove(at);
        if self.isolations.is_empty() {
            // Half open again means open with its time up: the next call is a probe.
            let back = if self.before == State::HalfOpen { State::Open } else { self.before };
            self.enter(back, Cause::Hand, now);
        }
        true
    }

    /// A new era: permits given before it tell nothing any more.
    fn enter(&mut self, mode: State, cause: Cause, now: Instant) {
        let from = std::mem::replace(&mut self.mode, mode);
        (self.cause, self.since) = (cause, now);
        self.generation += 1;
        self.probes.clear();
        self.probe_successes = 0;
        if from != mode {
            if self.changes.len() == CHANGES {
                self.changes.pop_front();
            }
            let opens_in = (mode == State::Open).then(|| self.open_until.since(now));
            self.changes.push_back(Change { at: now, from, to: mode, cause, opens_in });
        }
    }

    /// The changes that nobody has taken yet, oldest first.
    pub fn take_changes(&mut self) -> VecDeque<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether there are changes that nobody has taken yet.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Counts for a snapshot.
    pub fn outlook(&mut self, now: Instant) -> Outlook {
        Outlook {
            state: self.state(now),
            consecutive_failures: self.consecutive,
            totals: self.window.as_mut().map(|w| w.totals(now)).unwrap_or_default(),
            openings_in_a_row: self.openings_in_a_row,
            openings: self.openings,
            opens_in: (self.mode == State::Open).then(|| self.open_until.since(now)),
            open_until: self.open_until,
            opened: self.opened,
            probes: self.probes.len() as u32,
            probe_successes: self.probe_successes,
            rejected: self.rejected,
            cause: self.cause,
            since: self.since,
        }
    }
}
