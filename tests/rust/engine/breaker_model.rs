//! The breaker against a model that is nothing but a list of all that happened, looked through anew each time.

use crate::virtual_time::s;
use proptest::prelude::*;
use seawall::engine::Instant;
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Evidence, Permit, Slow, Span, State, Transition};
use seawall::policies::retry::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;

/// What happens to a breaker. Permits are meant by their place in the list of those given.
#[derive(Clone, Debug)]
enum Deed {
    Wait(u64),
    Admit,
    Settle(usize, Evidence),
    Record(Evidence),
    Force(State),
    Isolate,
    EndIsolation(usize),
    Reconfigure(Config),
}

/// A line of the model's diary.
#[derive(Clone, Copy, Debug)]
enum Line {
    /// A call counted in the closed circuit: when, how, how long.
    Counted {
        at: u64,
        failed: bool,
        slow: bool,
    },
    /// Evidence that only the row of failures knows: a failed probe.
    Failed,
    /// Everything counted before is forgotten.
    Forgotten,
    /// The window begins anew, the row of failures goes on.
    OtherWindow,
    Opened,
    Closed,
}

/// A permit as the model sees it.
#[derive(Clone, Copy, Debug)]
struct Given {
    at: u64,
    era: usize,
    probe: bool,
    back: bool,
}

struct Model {
    config: Config,
    diary: Vec<Line>,
    mode: State,
    /// How often the mode was entered: permits of an earlier era tell nothing.
    era: usize,
    open_until: u64,
    /// When it last opened.
    opened: Option<u64>,
    /// When the mode was last entered.
    since: u64,
    given: Vec<Given>,
    probe_successes: u32,
    rejected: u64,
    isolated: Vec<(u64, State)>,
    begun: Vec<u64>,
}

impl Model {
    fn new(config: Config) -> Model {
        Model {
            config,
            diary: Vec::new(),
            mode: State::Closed,
            era: 0,
            open_until: 0,
            opened: None,
            since: 0,
            given: Vec::new(),
            probe_successes: 0,
            rejected: 0,
            isolated: Vec::new(),
            begun: Vec::new(),
        }
    }

    fn enter(&mut self, mode: State, now: u64) {
        self.mode = mode;
        self.since = now;
        self.era += 1;
        self.probe_successes = 0;
    }

    fn state(&self, now: u64) -> State {
        if self.mode == State::Open && now >= self.open_until { State::HalfOpen } else { self.mode }
    }

    /// Failures since the last success, or since all was forgotten.
    fn in_a_row(&self) -> u32 {
        let mut row = 0;
        for line in self.diary.iter().rev() {
            match line {
                Line::Counted { failed: true, .. } | Line::Failed => row += 1,
                Line::Counted { failed: false, .. } | Line::Forgotten => break,
                Line::OtherWindow | Line::Opened | Line::Closed => {}
            }
        }
        row
    }

    fn openings_in_a_row(&self) -> u32 {
        self.diary.iter().rev().take_while(|l| !matches!(l, Line::Closed)).filter(|l| matches!(l, Line::Opened)).count() as u32
    }

    /// Calls, failed and slow ones that the window sees at `now`.
    fn window(&self, now: u64) -> (u32, u32, u32) {
        let Some(span) = self.config.window() else { return (0, 0, 0) };
        let since = self.diary.iter().rposition(|l| matches!(l, Line::Forgotten | Line::OtherWindow)).map_or(0, |i| i + 1);
        let mut calls: Vec<(u64, bool, bool)> = self.diary[since..]
            .iter()
            .filter_map(|l| if let Line::Counted { at, failed, slow } = l { Some((*at, *failed, *slow)) } else { None })
            .collect();
        match span {
            Span::Calls(n) => drop(calls.drain(..calls.len().saturating_sub(n as usize))),
            Span::Time(time) => {
                // The oldest tenth of the span goes as a whole.
                let tenth = (time.as_nanos() as u64 / 10).max(1);
                calls.retain(|c| c.0 / tenth + 10 > now / tenth);
            }
        }
        let count = |which: fn(&(u64, bool, bool)) -> bool| calls.iter().filter(|c| which(c)).count() as u32;
        (calls.len() as u32, count(|c| c.1), count(|c| c.2))
    }

    fn open(&mut self, now: u64) {
        self.diary.push(Line::Opened);
        let recovery = match &self.config.recovery_backoff {
            Some(backoff) => backoff.wait(self.openings_in_a_row(), None, &mut || 0.5),
            None => self.config.recovery,
        };
        self.enter(State::Open, now);
        self.opened = Some(now);
        self.open_until = now + recovery.as_nanos() as u64;
    }

    fn close(&mut self, now: u64) {
        self.diary.extend([Line::Closed, Line::Forgotten]);
        self.enter(State::Closed, now);
    }

    fn admit(&mut self, now: u64) -> bool {
        if self.state(now) == State::HalfOpen && self.mode == State::Open {
            self.enter(State::HalfOpen, now);
        }
        let limit = self.config.max_half_open_time.as_nanos() as u64;
        let era = self.era;
        // A probe that has been out too long is given up when somebody asks.
        let half_open = self.mode == State::HalfOpen;
        for permit in self.given.iter_mut().filter(|p| half_open && p.probe && p.era == era && !p.back) {
            permit.back = now - permit.at >= limit;
        }
        let out = self.probes();
        let admitted = match self.mode {
            State::Open | State::ForcedOpen => false,
            State::HalfOpen => out < self.config.half_open_max_calls,
            State::Closed | State::Disabled | State::MetricsOnly => true,
        };
        if admitted {
            self.given.push(Given { at: now, era, probe: half_open, back: false });
        } else {
            self.rejected += 1;
        }
        admitted
    }

    /// Probes that are out.
    fn probes(&self) -> u32 {
        self.given.iter().filter(|p| p.probe && p.era == self.era && !p.back).count() as u32
    }

    fn settle(&mut self, which: usize, evidence: Evidence, now: u64) {
        let permit = self.given[which];
        self.given[which].back = permit.probe || permit.back;
        if permit.era != self.era || permit.back || evidence == Evidence::None {
            return;
        }
        let slow = self.config.slow.is_some_and(|s| Duration::from_nanos(now - permit.at) >= s.duration);
        match (self.mode, evidence == Evidence::Failure) {
            (State::Closed | State::MetricsOnly, failed) => self.count(failed, slow, now),
            (State::HalfOpen, true) => {
                self.diary.push(Line::Failed);
                self.open(now);
            }
            (State::HalfOpen, false) if slow => self.open(now),
            (State::HalfOpen, false) => self.succeed(now),
            _ => {}
        }
    }

    fn succeed(&mut self, now: u64) {
        self.probe_successes += 1;
        if self.probe_successes >= self.config.success_threshold {
            self.close(now);
        }
    }

    fn count(&mut self, failed: bool, slow: bool, now: u64) {
        self.diary.push(Line::Counted { at: now, failed, slow });
        let (calls, bad, late) = self.window(now);
        let enough = calls >= self.config.minimum_calls;
        let share = |part: u32| f64::from(part) / f64::from(calls.max(1));
        let trips = failed && self.config.consecutive.is_some_and(|n| self.in_a_row() >= n)
            || failed && enough && self.config.rate.is_some_and(|r| share(bad) >= r)
            || slow && enough && self.config.slow.is_some_and(|s| share(late) >= s.ratio);
        if trips && self.mode == State::Closed {
            self.open(now);
        }
    }

    fn record(&mut self, evidence: Evidence, now: u64) {
        match (self.mode, evidence) {
            (_, Evidence::None) | (State::Disabled | State::ForcedOpen, _) => {}
            (State::Open | State::HalfOpen, Evidence::Success) => self.succeed(now),
            (State::Open | State::HalfOpen, Evidence::Failure) => {
                self.diary.push(Line::Failed);
                self.open(now);
            }
            (_, evidence) => self.count(evidence == Evidence::Failure, false, now),
        }
    }

    fn force(&mut self, state: State, now: u64) {
        self.isolated.clear();
        match state {
            State::Open => self.open(now),
            State::Closed => self.close(now),
            State::HalfOpen => {
                // As if the usual recovery time had just passed.
                (self.open_until, self.opened) = (now, Some(now.saturating_sub(self.config.recovery.as_nanos() as u64)));
                self.enter(state, now);
            }
            other => self.enter(other, now),
        }
    }

    fn isolate(&mut self, number: u64, now: u64) {
        let before = self.isolated.first().map_or(self.mode, |(_, before)| *before);
        if self.isolated.is_empty() {
            self.enter(State::ForcedOpen, now);
        }
        self.isolated.push((number, before));
        self.begun.push(number);
    }

    fn end_isolation(&mut self, number: u64, now: u64) -> bool {
        let Some(at) = self.isolated.iter().position(|(n, _)| *n == number) else { return false };
        let (_, before) = self.isolated.remove(at);
        if self.isolated.is_empty() {
            self.enter(if before == State::HalfOpen { State::Open } else { before }, now);
        }
        true
    }

    fn reconfigure(&mut self, config: Config) {
        if config.window() != self.config.window() {
            self.diary.push(Line::OtherWindow);
        }
        self.config = config;
    }
}

fn configs() -> impl Strategy<Value = Config> {
    let rules = (
        proptest::option::of(1u32..5),
        proptest::option::of(prop_oneof![Just(0.25), Just(0.5), Just(1.0)]),
        proptest::option::of((1u64..60, prop_oneof![Just(0.5), Just(1.0)])),
        prop_oneof![(1u32..8).prop_map(Span::Calls), (10u64..300).prop_map(|n| Span::Time(Duration::from_nanos(n)))],
        1u32..6,
    );
    let recovery = (0u64..80, proptest::bool::weighted(0.3), 1u32..4, 1u32..4, 1u64..100);
    (rules, recovery).prop_map(|((consecutive, rate, slow, span, minimum_calls), (recovery, grows, probes, successes, patience))| Config {
        consecutive: if rate.is_none() && slow.is_none() { consecutive.or(Some(2)) } else { consecutive },
        rate,
        slow: slow.map(|(ns, ratio)| Slow { duration: Duration::from_nanos(ns), ratio }),
        span,
        minimum_calls,
        recovery: Duration::from_nanos(recovery),
        recovery_backoff: grows.then(|| Arc::new(Backoff::Incrementing { start: 2e-8, increment: 3e-8, max: 1e-7 })),
        half_open_max_calls: probes,
        success_threshold: successes,
        max_half_open_time: Duration::from_nanos(patience),
        lenient: false,
    })
}

fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![3 => Just(Evidence::Failure), 3 => Just(Evidence::Success), 1 => Just(Evidence::None)]
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (0u64..40).prop_map(Deed::Wait),
        14 => Just(Deed::Admit),
        // Mostly the newest permits, but late ones too.
        14 => (prop_oneof![4 => 0usize..3, 1 => 0usize..30], evidence()).prop_map(|(which, e)| Deed::Settle(which, e)),
        1 => evidence().prop_map(Deed::Record),
        1 => proptest::sample::select(State::ALL.to_vec()).prop_map(Deed::Force),
        1 => Just(Deed::Isolate),
        2 => (0usize..4).prop_map(Deed::EndIsolation),
        1 => configs().prop_map(Deed::Reconfigure),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn the_breaker_does_what_the_list_of_all_calls_says(config in configs(), deeds in proptest::collection::vec(deeds(), 1..120)) {
        let breaker = CircuitBreaker::new(config.clone());
        let mut model = Model::new(config);
        let mut permits: Vec<Permit> = Vec::new();
        let mut now = 1000;
        for deed in deeds {
            let at = Instant(now);
            match deed.clone() {
                Deed::Wait(ns) => now += ns,
                Deed::Admit => {
                    let admitted = breaker.admit(at);
                    prop_assert_eq!(admitted.is_ok(), model.admit(now), "{:?} at {}", deed, now);
                    match admitted {
                        Ok((permit, _)) => permits.push(permit),
                        Err(Some(wait)) => prop_assert_eq!(wait.as_nanos() as u64, model.open_until - now),
                        Err(None) => prop_assert!(matches!(model.mode, State::HalfOpen | State::ForcedOpen)),
                    }
                }
                Deed::Settle(back, evidence) if back < permits.len() => {
                    // Settled more than once, some of them: a plain permit is a value, and counts each time.
                    let which = permits.len() - 1 - back;
                    breaker.settle(permits[which], evidence, at, &mut || 0.5);
                    model.settle(which, evidence, now);
                }
                Deed::Settle(..) => {}
                Deed::Record(evidence) => {
                    breaker.record(evidence, at, &mut || 0.5);
                    model.record(evidence, now);
                }
                Deed::Force(state) => {
                    breaker.force(state, at);
                    model.force(state, now);
                }
                Deed::Isolate => {
                    let number = breaker.isolate(at);
                    prop_assert!(!model.begun.contains(&number), "whoever isolates it has a number of their own");
                    model.isolate(number, now);
                }
                Deed::EndIsolation(back) => {
                    if let Some(number) = model.begun.iter().rev().nth(back).copied() {
                        prop_assert_eq!(breaker.end_isolation(number, at), model.end_isolation(number, now));
                    }
                }
                Deed::Reconfigure(config) => {
                    breaker.reconfigure(config.clone());
                    model.reconfigure(config);
                }
            }
            let seen = breaker.outlook(Instant(now));
            prop_assert_eq!(seen.state, model.state(now), "after {:?} at {}", deed, now);
            prop_assert_eq!(seen.consecutive_failures, model.in_a_row(), "after {:?}", deed);
            prop_assert_eq!((seen.totals.calls, seen.totals.failed, seen.totals.slow), model.window(now), "after {:?} at {}", deed, now);
            prop_assert_eq!(seen.rejected, model.rejected);
            prop_assert_eq!(seen.openings_in_a_row, model.openings_in_a_row());
            prop_assert_eq!(seen.openings, model.diary.iter().filter(|line| matches!(line, Line::Opened)).count() as u64);
            prop_assert_eq!((seen.opened.map(|at| at.0), seen.since.0), (model.opened, model.since));
            prop_assert_eq!((seen.probes, seen.probe_successes), (model.probes(), model.probe_successes), "after {:?}", deed);
            let opens_in = (model.mode == State::Open).then(|| Duration::from_nanos(model.open_until.saturating_sub(now)));
            prop_assert_eq!(seen.opens_in, opens_in);
            prop_assert!(breaker.gate_is_true(), "the gate is not the state's after {:?}", deed);
        }
        // The changes tell a story without gaps.
        let mut state = State::Closed;
        for change in breaker.take_changes() {
            prop_assert_eq!(change.from, state);
            prop_assert_ne!(change.to, state);
            prop_assert_eq!(change.opens_in.is_some(), change.to == State::Open);
            state = change.to;
        }
        prop_assert_eq!(state, model.mode);
    }

    #[test]
    fn a_growing_recovery_time_keeps_to_its_bounds(chances in proptest::collection::vec(0.0f64..1.0, 1..12)) {
        let rule = Backoff::DecorrelatedJitter { initial: 1.0, max: 20.0 };
        let config = Config { recovery_backoff: Some(Arc::new(rule)), ..super::policies::config(1, 1.0) };
        let breaker = CircuitBreaker::new(config);
        let (mut now, mut before) = (Instant(0), s(1.0));
        for chance in chances {
            let (permit, _) = breaker.admit(now).expect("let through");
            breaker.settle(permit, Evidence::Failure, now, &mut || chance);
            let recovery = breaker.admit(now).expect_err("open").expect("for a time");
            let slack = Duration::from_micros(1);
            prop_assert!(recovery + slack >= s(1.0) && recovery <= (before * 3).min(s(20.0)) + slack, "{recovery:?} after {before:?}");
            (now, before) = (now.after(recovery), recovery);
        }
    }
}

#[test]
fn a_number_is_drawn_only_where_the_circuit_opens() {
    let rule = Backoff::DecorrelatedJitter { initial: 1.0, max: 20.0 };
    let config = Config { recovery_backoff: Some(Arc::new(rule)), ..super::policies::config(2, 1.0) };
    let breaker = CircuitBreaker::new(config);
    let drawn = std::cell::Cell::new(0);
    let settle = |evidence| {
        let (permit, _) = breaker.admit(Instant(0)).expect("let through");
        breaker.settle(permit, evidence, Instant(0), &mut || {
            drawn.set(drawn.get() + 1);
            0.5
        })
    };
    for evidence in [Evidence::Success, Evidence::Failure, Evidence::None, Evidence::Success, Evidence::Failure] {
        assert_eq!((settle(evidence), drawn.get()), (None, 0));
    }
    assert_eq!((settle(Evidence::Failure), drawn.get()), (Some(Transition::Opened), 1));
}
