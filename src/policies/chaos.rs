//! Chaos: harm on purpose, at a seeded rate, next to the call.
//!
//! What it injects is a branch of its own beside the call: the driver raises the exception or gives the result there.

use crate::engine::{Cx, Flow, Input, Instant, Lane, Layer, Outcome, Policy, Random};
use crate::events;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The branch on which the call itself lies.
pub const CALL: usize = 0;
/// The branch on which the exception lies.
pub const EXCEPTION: usize = 1;
/// The branch on which the result lies.
pub const RESULT: usize = 2;

/// What is injected into which share of the calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// A wait before the call, anywhere between the two.
    pub latency: (Duration, Duration),
    /// From 0 to 1.
    pub latency_rate: f64,
    /// An exception in place of the call: from 0 to 1.
    pub exception_rate: f64,
    /// A result in place of the call: from 0 to 1, of those that no exception hits.
    pub result_rate: f64,
}

/// When it is on. Off unless somebody said so.
struct State {
    random: Random,
    on: bool,
    /// Stretches during which it is on: who switched it on, and until when.
    stretches: Vec<(u64, Instant)>,
    next: u64,
}

/// Shared by all pipelines in which it stands.
pub struct Chaos {
    config: Config,
    /// A quick look for calls that pass: whether it may be on.
    active: AtomicBool,
    state: Mutex<State>,
}

/// What one call gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dose {
    /// A wait first.
    pub latency: Duration,
    /// Then that branch.
    pub branch: usize,
}

impl Chaos {
    /// One that is off; the same seed gives the same doses in the same order.
    pub fn new(config: Config, seed: u64) -> Chaos {
        let state = State { random: Random::seeded(seed), on: false, stretches: Vec::new(), next: 0 };
        Chaos { config, active: AtomicBool::new(false), state: Mutex::new(state) }
    }

    fn change<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let mut state: MutexGuard<'_, State> = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let given = step(&mut state);
        self.active.store(state.on || !state.stretches.is_empty(), Ordering::Release);
        given
    }

    /// Switches it on, or off for good: stretches end too.
    pub fn switch(&self, on: bool) {
        self.change(|state| {
            state.on = on;
            if !on {
                state.stretches.clear();
            }
        });
    }

    /// Whether it was switched on for good.
    pub fn is_switched_on(&self) -> bool {
        self.change(|state| state.on)
    }

    /// On until then at most; gives the number under which [`Chaos::end`] ends it.
    pub fn begin(&self, until: Instant) -> u64 {
        self.change(|state| {
            state.next += 1;
            state.stretches.push((state.next, until));
            state.next
        })
    }

    /// Ends a stretch.
    pub fn end(&self, number: u64) {
        self.change(|state| state.stretches.retain(|(n, _)| *n != number));
    }

    /// Whether calls are harmed at that time.
    pub fn is_on(&self, now: Instant) -> bool {
        self.active.load(Ordering::Acquire) && self.change(|state| state.is_on(now))
    }

    /// What the next call gets; nothing while it is off.
    pub fn dose(&self, now: Instant) -> Option<Dose> {
        if !self.active.load(Ordering::Acquire) {
            return None;
        }
        self.change(|state| {
            if !state.is_on(now) {
                return None;
            }
            // As many draws for every call, so that what one call gets does not depend on what another one got.
            let [slow, long, raises, gives] = [(); 4].map(|()| state.random.unit());
            let (least, most) = self.config.latency;
            let latency = if slow < self.config.latency_rate { least + most.saturating_sub(least).mul_f64(long) } else { Duration::ZERO };
            let branch = match () {
                () if raises < self.config.exception_rate => EXCEPTION,
                () if gives < self.config.result_rate => RESULT,
                () => CALL,
            };
            Some(Dose { latency, branch })
        })
    }
}

impl State {
    fn is_on(&self, now: Instant) -> bool {
        self.on || self.stretches.iter().any(|(_, until)| now < *until)
    }
}

/// A chaos policy in a plan.
pub struct Injecting(pub Arc<Chaos>);

impl Policy for Injecting {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage { chaos: self.0.clone(), branch: CALL, is_spared: false })
    }

    fn lane(&self) -> Lane {
        Lane::Watched
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        (!self.0.is_on(now)).then_some(0)
    }
}

struct Passage {
    chaos: Arc<Chaos>,
    branch: usize,
    /// It was let in while chaos was off: whatever happened since, this attempt is left alone.
    is_spared: bool,
}

impl Passage {
    fn go(&self, cx: &mut Cx<'_>) -> Flow {
        match self.branch {
            EXCEPTION => cx.emit(events::CHAOS_INJECTED, 0, Duration::ZERO, None, "exception"),
            RESULT => cx.emit(events::CHAOS_INJECTED, 0, Duration::ZERO, None, "result"),
            _ => {}
        }
        Flow::Inward(self.branch)
    }
}

impl Layer for Passage {
    fn let_in(&mut self, _permit: u64, _begun: Instant) {
        self.is_spared = true;
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin if self.is_spared => Flow::Inward(CALL),
            Input::Begin => {
                let Some(dose) = self.chaos.dose(cx.now()) else { return Flow::Inward(CALL) };
                self.branch = dose.branch;
                if dose.latency.is_zero() {
                    return self.go(cx);
                }
                cx.emit(events::CHAOS_INJECTED, 0, dose.latency, None, "latency");
                cx.wake_at(cx.now().after(dose.latency));
                Flow::Hold
            }
            Input::Wake => self.go(cx),
            Input::Child(stream @ Outcome::Stream(_), _) => Flow::PassOn(stream),
            Input::Child(outcome, _) | Input::Ended(outcome, _) => Flow::Resolve(outcome),
            Input::Abandoned => Flow::Hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Config =
        Config { latency: (Duration::ZERO, Duration::from_secs(2)), latency_rate: 0.5, exception_rate: 0.2, result_rate: 0.5 };

    fn doses(seed: u64) -> Vec<Dose> {
        let chaos = Chaos::new(HALF, seed);
        chaos.switch(true);
        (0..10_000).filter_map(|_| chaos.dose(Instant(1))).collect()
    }

    #[test]
    fn a_seed_gives_its_doses_again_at_their_rates() {
        let given = doses(7);
        assert_eq!(given, doses(7));
        assert_ne!(given, doses(8));
        let share = |wanted: &dyn Fn(&Dose) -> bool| given.iter().filter(|d| wanted(d)).count();
        assert!((4800..5200).contains(&share(&|d| !d.latency.is_zero())));
        assert!((1850..2150).contains(&share(&|d| d.branch == EXCEPTION)));
        // Half of the four fifths that no exception hit.
        assert!((3800..4200).contains(&share(&|d| d.branch == RESULT)));
        assert!(given.iter().all(|d| d.latency <= Duration::from_secs(2)));
    }

    #[test]
    fn it_is_on_while_somebody_says_so() {
        let chaos = Chaos::new(HALF, 1);
        assert_eq!(chaos.dose(Instant(1)), None);
        let first = chaos.begin(Instant(10));
        let second = chaos.begin(Instant(20));
        assert!(chaos.dose(Instant(9)).is_some() && chaos.dose(Instant(19)).is_some() && chaos.dose(Instant(20)).is_none());
        chaos.end(second);
        assert!(chaos.dose(Instant(9)).is_some() && chaos.dose(Instant(10)).is_none());
        chaos.end(first);
        assert_eq!(chaos.dose(Instant(1)), None);
        chaos.begin(Instant::NEVER);
        chaos.switch(true);
        chaos.switch(false);
        assert!(!chaos.is_on(Instant(1)));
    }
}
