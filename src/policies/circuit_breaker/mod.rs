//! Circuit breaker: stop calling what is known to be broken (Nygard, *Release It!*, 2nd ed., chapter 5).

mod circuit;
mod window;

pub use circuit::{Evidence, Permit, Transition};
pub use window::{Span, Totals};

use crate::engine::{Cx, Flow, Input, Instant, Lane, Layer, Outcome, Policy, Refusal, Rejection, Verdict};
use crate::events;
use crate::policies::retry::backoff::Backoff;
use circuit::{Circuit, Gate};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What callers meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are turned away.
    Open,
    /// Some calls pass, to find out.
    HalfOpen,
    /// Turned away until told otherwise.
    ForcedOpen,
    /// Calls pass and nothing is counted.
    Disabled,
    /// Calls pass and everything is counted; it never opens.
    MetricsOnly,
}

impl State {
    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
            State::ForcedOpen => "forced_open",
            State::Disabled => "disabled",
            State::MetricsOnly => "metrics_only",
        }
    }
}

/// Calls slower than `duration` count as slow; a share of `ratio` of them trips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    /// From when on a call is slow.
    pub duration: Duration,
    /// The share that trips, 0–1.
    pub ratio: f64,
}

/// When the circuit opens and how it recovers.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Opens after so many failures in a row.
    pub consecutive: Option<u32>,
    /// Opens at that share of failures, 0–1, over `span`.
    pub rate: Option<f64>,
    /// Opens at a share of slow calls over `span`.
    pub slow: Option<Slow>,
    /// How far back the shares look.
    pub span: Span,
    /// Shares mean nothing below so many calls.
    pub minimum_calls: u32,
    /// How long it stays open.
    pub recovery: Duration,
    /// Instead of `recovery`: by number of openings since it was last closed.
    pub recovery_backoff: Option<Arc<Backoff>>,
    /// Probes at a time.
    pub half_open_max_calls: u32,
    /// Probes that must succeed to close it.
    pub success_threshold: u32,
    /// After so long a probe that has not come back is given up.
    pub max_half_open_time: Duration,
}

impl Config {
    fn window(&self) -> Option<Span> {
        (self.rate.is_some() || self.slow.is_some()).then_some(self.span)
    }
}

/// A look at a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// The state callers meet.
    pub state: State,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Over the window, if there is one.
    pub totals: Totals,
    /// Openings since it was last closed.
    pub openings: u32,
    /// Time until a probe is let through, while open.
    pub opens_in: Option<Duration>,
    /// The end of the last opening.
    pub open_until: Instant,
    /// Probes that are out.
    pub probes: u32,
    /// Calls turned away, ever.
    pub rejected: u64,
}

/// A breaker: configuration and the one state that all its users share.
#[derive(Debug)]
pub struct CircuitBreaker {
    /// The state's shadow, written under the lock and read without it, so that a call without trouble takes no lock.
    gate: AtomicU64,
    /// From how many nanoseconds on a call is slow; `u64::MAX` for never. Written under the lock.
    slow_from: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    circuit: Circuit,
}

impl CircuitBreaker {
    /// A closed breaker.
    pub fn new(config: Config) -> CircuitBreaker {
        let circuit = Circuit::new(&config);
        let (gate, slow_from) = (AtomicU64::new(circuit.gate()), AtomicU64::new(slow_from(&config)));
        CircuitBreaker { gate, slow_from, inner: Mutex::new(Inner { config, circuit }) }
    }

    /// Runs `change` under the lock and renews the shadow. Nothing but arithmetic happens in there.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        // Nothing panics under this lock; if it ever did, the state is still a valid one.
        let mut inner = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let result = change(&mut inner);
        self.gate.store(inner.circuit.gate(), Ordering::Release);
        result
    }

    #[inline]
    fn gate(&self) -> Gate {
        Gate(self.gate.load(Ordering::Acquire))
    }

    /// A copy of its configuration.
    pub fn config(&self) -> Config {
        self.change(|inner| inner.config.clone())
    }

    /// Another configuration from now on. The state stays; a window of another span begins empty.
    pub fn reconfigure(&self, config: Config) {
        self.change(|inner| {
            inner.circuit.reconfigure(&inner.config, &config);
            self.slow_from.store(slow_from(&config), Ordering::Release);
            inner.config = config;
        });
    }

    /// A permit, or the time until one may be had.
    pub fn admit(&self, now: Instant) -> Result<(Permit, Option<Transition>), Option<Duration>> {
        match self.gate().permit(now) {
            Some(permit) => Ok((permit, None)),
            None => self.change(|inner| inner.circuit.admit(&inner.config, now)),
        }
    }

    /// Takes a permit back; `chance` in `[0, 1)` feeds the jitter of a growing recovery time.
    pub fn settle(&self, permit: Permit, evidence: Evidence, now: Instant, chance: f64) -> Option<Transition> {
        if self.gate().ignores(permit, evidence) {
            return None;
        }
        self.change(|inner| inner.circuit.settle(&inner.config, permit, evidence, now, chance))
    }

    /// The state callers meet at `now`.
    pub fn state(&self, now: Instant) -> State {
        self.change(|inner| inner.circuit.state(now))
    }

    /// Counts at `now`.
    pub fn outlook(&self, now: Instant) -> Outlook {
        self.change(|inner| inner.circuit.outlook(now))
    }

    /// Closes and forgets. Calls in flight tell nothing any more.
    pub fn reset(&self) {
        self.change(|inner| inner.circuit.close());
    }

    /// Puts it into a state by hand; calls in flight tell nothing any more.
    pub fn force(&self, state: State, now: Instant) {
        self.change(|inner| match state {
            State::Open => {
                inner.circuit.open(&inner.config, now, 0.5);
            }
            State::Closed => {
                inner.circuit.close();
            }
            other => inner.circuit.force(other),
        });
    }
}

fn slow_from(config: &Config) -> u64 {
    config.slow.map_or(u64::MAX, |slow| u64::try_from(slow.duration.as_nanos()).unwrap_or(u64::MAX))
}

/// A breaker in a plan. `judges_values`: a predicate on results was given.
pub struct Guarded {
    /// The shared breaker.
    pub breaker: Arc<CircuitBreaker>,
    /// Whether results are judged too.
    pub judges_values: bool,
}

impl Policy for Guarded {
    fn kind(&self) -> &'static str {
        "circuit_breaker"
    }

    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage { breaker: self.breaker.clone(), judges_values: self.judges_values, permit: None })
    }

    fn lane(&self) -> Lane {
        if self.judges_values { Lane::Machine } else { Lane::Watched }
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        self.breaker.gate().permit(now).map(|permit| permit.generation())
    }

    fn is_plain(&self, begun: Instant, now: &dyn Fn() -> Instant) -> bool {
        match self.breaker.slow_from.load(Ordering::Acquire) {
            u64::MAX => true,
            slow => now().0.saturating_sub(begun.0) < slow,
        }
    }

    #[inline]
    fn settle(&self, permit: u64, begun: Instant, now: &dyn Fn() -> Instant) -> bool {
        let permit = Permit::passed(permit, begun);
        if self.breaker.gate().ignores(permit, Evidence::Success) {
            return true;
        }
        let now = now();
        if !self.is_plain(begun, &|| now) {
            return false;
        }
        // A success that was not slow trips nothing: there is nothing to tell.
        self.breaker.settle(permit, Evidence::Success, now, 0.0);
        true
    }

    fn enter_with(&self, permit: u64, begun: Instant) -> Box<dyn Layer> {
        let permit = Some(Permit::passed(permit, begun));
        Box::new(Passage { breaker: self.breaker.clone(), judges_values: self.judges_values, permit })
    }
}

struct Passage {
    breaker: Arc<CircuitBreaker>,
    judges_values: bool,
    permit: Option<Permit>,
}

impl Passage {
    fn settle(&mut self, evidence: Evidence, cx: &mut Cx<'_>) {
        let Some(permit) = self.permit.take() else { return };
        let chance = cx.random();
        report(self.breaker.settle(permit, evidence, cx.now(), chance), &self.breaker, cx);
    }
}

fn report(transition: Option<Transition>, breaker: &CircuitBreaker, cx: &mut Cx<'_>) {
    match transition {
        Some(Transition::Opened) => {
            let outlook = breaker.outlook(cx.now());
            cx.emit(events::CIRCUIT_OPENED, outlook.consecutive_failures, outlook.opens_in.unwrap_or_default(), None, "");
        }
        Some(Transition::HalfOpened) => cx.emit(events::CIRCUIT_HALF_OPENED, 0, Duration::ZERO, None, ""),
        Some(Transition::Closed) => cx.emit(events::CIRCUIT_CLOSED, 0, Duration::ZERO, None, ""),
        None => {}
    }
}

fn evidence(outcome: &Outcome, verdict: Option<Verdict>) -> Evidence {
    match verdict {
        Some(Verdict::Success) => Evidence::Success,
        Some(Verdict::Failure { .. } | Verdict::Final | Verdict::Stop) => Evidence::Failure,
        Some(Verdict::Ignore) => Evidence::None,
        None if matches!(outcome, Outcome::Value(_)) => Evidence::Success,
        None => Evidence::None,
    }
}

impl Layer for Passage {
    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        match outcome {
            Outcome::Value(_) => self.judges_values.then_some(1),
            Outcome::Error(_) => Some(1),
            Outcome::Rejected(_) => (!outcome.is_refusal()).then_some(1),
            Outcome::Stream(_) => None,
        }
    }

    fn on(&mut self, input: Input, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin if self.permit.is_some() => Flow::Inward(0),
            Input::Begin => match self.breaker.admit(cx.now()) {
                Ok((permit, transition)) => {
                    self.permit = Some(permit);
                    report(transition, &self.breaker, cx);
                    Flow::Inward(0)
                }
                Err(retry_after) => {
                    cx.emit(events::CIRCUIT_REJECTED, 0, retry_after.unwrap_or_default(), None, "");
                    let rejection = Rejection { refusal: Refusal::CircuitOpen, stage: cx.stage(), retry_after, limit: Duration::ZERO };
                    Flow::Resolve(Outcome::Rejected(rejection))
                }
            },
            Input::Child(stream @ Outcome::Stream(_), _) => Flow::PassOn(stream),
            Input::Child(outcome, verdict) | Input::Ended(outcome, verdict) => {
                self.settle(evidence(&outcome, verdict), cx);
                Flow::Resolve(outcome)
            }
            Input::Abandoned => {
                self.settle(Evidence::None, cx);
                Flow::Hold
            }
            Input::Wake => Flow::Hold,
        }
    }
}
