//! Circuit breaker: stop calling what is known to be broken (Nygard, *Release It!*, 2nd ed., chapter 5).

mod circuit;
mod config;
mod window;
pub mod words;

pub use circuit::{Evidence, Permit, Transition};
pub use config::{Cause, Change, Config, Outlook, Slow, State};
pub use window::{Span, Totals};

use crate::engine::sync::AtomicU64;
use crate::engine::{Chance, Cx, Flow, Input, Instant, Lane, Layer, Outcome, Policy, Refusal, Rejection, Verdict};
use crate::events;
use crate::stats::Latch;
use circuit::{Circuit, Gate};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A breaker: configuration and the one state that all its users share.
#[derive(Debug)]
pub struct CircuitBreaker {
    /// The state's shadow, written under the lock and read without it, so that a call without trouble takes no lock.
    gate: AtomicU64,
    /// From how many nanoseconds on a call is slow; `u64::MAX` for never. Written under the lock.
    slow_from: AtomicU64,
    inner: Latch<Inner>,
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
        CircuitBreaker { gate, slow_from, inner: Latch::new(Inner { config, circuit }) }
    }

    /// Runs `change` under the lock and renews the shadow. Nothing but arithmetic happens in there.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.hold();
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
    #[inline]
    pub fn admit(&self, now: Instant) -> Result<(Permit, Option<Transition>), Option<Duration>> {
        match self.gate().permit(now) {
            Some(permit) => Ok((permit, None)),
            None => {
                let mut words = [0; 3];
                let transition = self.ask(now, &mut words)?;
                Ok((Permit::of(words), transition))
            }
        }
    }

    /// Leaves the permit in `words`: a whole one would lie in memory on the short way as well.
    #[cold]
    fn ask(&self, now: Instant, words: &mut [u64; 3]) -> Result<Option<Transition>, Option<Duration>> {
        let (permit, transition) = self.change(|inner| inner.circuit.admit(&inner.config, now))?;
        *words = permit.words();
        Ok(transition)
    }

    /// Takes a permit back; `chance` is drawn for the jitter of a growing recovery time, should it open.
    #[inline]
    pub fn settle(&self, permit: Permit, evidence: Evidence, now: Instant, chance: &mut dyn Chance) -> Option<Transition> {
        if self.gate().ignores(permit, evidence) {
            return None;
        }
        let [generation, probe, at] = permit.words();
        self.weigh(generation, probe, at, evidence, now, chance)
    }

    /// Takes a permit word by word, in registers: as a whole it would lie in memory, on the way of those that need none as well.
    #[inline(never)]
    fn weigh(&self, generation: u64, probe: u64, at: u64, evidence: Evidence, now: Instant, chance: &mut dyn Chance) -> Option<Transition> {
        let permit = Permit::of([generation, probe, at]);
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

    /// Evidence about a call that took no permit: a health check, a result seen elsewhere. It counts in whatever state the
    /// circuit is, so a success may close an open one.
    pub fn record(&self, evidence: Evidence, now: Instant, chance: &mut dyn Chance) -> Option<Transition> {
        self.change(|inner| inner.circuit.record(&inner.config, evidence, now, chance))
    }

    /// Closes and forgets. Calls in flight tell nothing any more.
    pub fn reset(&self, now: Instant) {
        self.force(State::Closed, now);
    }

    /// Puts it into a state by hand; calls in flight tell nothing any more.
    pub fn force(&self, state: State, now: Instant) {
        self.change(|inner| inner.circuit.force(&inner.config, state, now, &mut || 0.5));
    }

    /// Turns all calls away until [`CircuitBreaker::end_isolation`] with the number given, or a state set by hand.
    pub fn isolate(&self, now: Instant) -> u64 {
        self.change(|inner| inner.circuit.isolate(now))
    }

    /// Ends an isolation: after the last one it is where it was before the first. Whether this one was still on.
    pub fn end_isolation(&self, number: u64, now: Instant) -> bool {
        self.change(|inner| inner.circuit.end_isolation(number, now))
    }

    /// The changes of state that nobody has taken yet, oldest first.
    pub fn take_changes(&self) -> VecDeque<Change> {
        self.change(|inner| inner.circuit.take_changes())
    }

    /// Whether there are changes that nobody has taken yet.
    pub fn has_changes(&self) -> bool {
        self.change(|inner| inner.circuit.has_changes())
    }

    /// Whether the shadow is the one of the state: for the models that try every order of steps.
    #[doc(hidden)]
    pub fn gate_is_true(&self) -> bool {
        let inner = self.inner.hold();
        inner.circuit.gate() == self.gate.load(Ordering::Acquire)
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
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage { breaker: self.breaker.clone(), judges_values: self.judges_values, permit: None, queued: Duration::ZERO })
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
        let [generation, probe, at] = permit.words();
        self.breaker.weigh(generation, probe, at, Evidence::Success, now, &mut || 0.0);
        true
    }
}

struct Passage {
    breaker: Arc<CircuitBreaker>,
    judges_values: bool,
    permit: Option<Permit>,
    /// How long the call had waited in queues before.
    queued: Duration,
}

impl Passage {
    fn settle(&mut self, evidence: Evidence, cx: &mut Cx<'_>) {
        let Some(mut permit) = self.permit.take() else { return };
        let queued = cx.queued();
        if queued != self.queued {
            // What waited for its turn further in was not slow.
            permit.at = permit.at.after(queued.saturating_sub(self.queued));
        }
        if let Some(transition) = self.breaker.settle(permit, evidence, cx.now(), cx.chance()) {
            report(transition, &self.breaker, cx);
        }
    }
}

#[cold]
fn report(transition: Transition, breaker: &CircuitBreaker, cx: &mut Cx<'_>) {
    match transition {
        Transition::Opened => {
            let outlook = breaker.outlook(cx.now());
            cx.emit(events::CIRCUIT_OPENED, outlook.consecutive_failures, outlook.opens_in.unwrap_or_default(), None, "");
        }
        Transition::HalfOpened => cx.emit(events::CIRCUIT_HALF_OPENED, 0, Duration::ZERO, None, ""),
        Transition::Closed => cx.emit(events::CIRCUIT_CLOSED, 0, Duration::ZERO, None, ""),
    }
}

fn evidence(outcome: &Outcome, verdict: Option<&Verdict>) -> Evidence {
    match verdict {
        Some(Verdict::Success | Verdict::Counted(_)) => Evidence::Success,
        Some(Verdict::Failure { .. } | Verdict::Final | Verdict::Stop) => Evidence::Failure,
        Some(Verdict::Ignore) => Evidence::None,
        None if matches!(outcome, Outcome::Value(_)) => Evidence::Success,
        None => Evidence::None,
    }
}

impl Layer for Passage {
    fn renew(&mut self) -> bool {
        (self.permit, self.queued) = (None, Duration::ZERO);
        true
    }

    fn let_in(&mut self, permit: u64, begun: Instant) {
        self.permit = Some(Permit::passed(permit, begun));
    }

    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        match outcome {
            Outcome::Value(_) => self.judges_values.then_some(1),
            Outcome::Error(_) => Some(1),
            Outcome::Rejected(_) => (!outcome.is_refusal()).then_some(1),
            Outcome::Stream(_) => None,
        }
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin if self.permit.is_some() => Flow::Inward(0),
            Input::Begin => match self.breaker.admit(cx.now()) {
                Ok((permit, transition)) => {
                    (self.permit, self.queued) = (Some(permit), cx.queued());
                    if let Some(transition) = transition {
                        report(transition, &self.breaker, cx);
                    }
                    Flow::Inward(0)
                }
                Err(retry_after) => {
                    cx.emit(events::CIRCUIT_REJECTED, 0, retry_after.unwrap_or_default(), None, "");
                    let rejection = Rejection::new(Refusal::CircuitOpen, cx.stage(), retry_after);
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
