//! Hedge: a second request where the first takes long; whichever answers first is the answer (Dean and Barroso, "The Tail at
//! Scale", CACM 56(2), 2013).

use super::budget::Budget;
use crate::engine::{Cx, Flow, Input, Instant, Layer, Outcome, Policy, Verdict};
use crate::events;
use crate::stats::Histogram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After how long without an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delay {
    /// Always the same.
    Fixed(Duration),
    /// What that share of the attempts took at most.
    Percentile {
        /// Between 0 and 1.
        share: f64,
        /// So many attempts have to be known.
        minimum_calls: u32,
        /// Until then; `None`: nothing is hedged.
        initial: Option<Duration>,
        /// Never earlier.
        floor: Duration,
    },
}

/// When and how often to ask once more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// After how long without an answer, each time.
    pub delay: Delay,
    /// Further requests of one call, at most.
    pub max_hedges: u32,
    /// The share of the calls that may be hedged.
    pub budget: f64,
}

/// So many hedges may be saved up.
const SAVED: f64 = 10.0;
/// A generation of latencies ends with so many, or after so long; the one before it counts too.
const GENERATION: u64 = 1000;
const AGE: Duration = Duration::from_secs(300);
/// The quantile is looked up again after so many.
const LOOK: u64 = 16;

/// How long attempts have taken, of late: by number where there are many, by age where there are few.
#[derive(Debug, Default)]
struct Latencies {
    current: Histogram,
    before: Histogram,
    began: Instant,
    /// What the share asked for did not exceed when it was last looked up.
    bound: Option<Duration>,
}

impl Latencies {
    fn add(&mut self, took: Duration, share: f64, minimum: u32, now: Instant) {
        // It never knows less than it must.
        let is_old = now.since(self.began) >= AGE && self.current.len() >= u64::from(minimum);
        if self.current.len() >= GENERATION.max(u64::from(minimum)) || is_old {
            self.before = std::mem::take(&mut self.current);
        }
        if self.current.is_empty() {
            self.began = now;
        }
        self.current.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let known = self.current.len() + self.before.len();
        if known >= u64::from(minimum) && (self.bound.is_none() || known < 4 * LOOK || known.is_multiple_of(LOOK)) {
            let mut all = self.before.clone();
            all.merge(&self.current);
            self.bound = all.bound(share).map(Duration::from_nanos);
        }
    }
}

/// What it has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that came to it.
    pub calls: u64,
    /// Further requests.
    pub hedges: u64,
    /// Answers that came from one of these.
    pub wins: u64,
    /// Further requests that the budget had no room for.
    pub denied: u64,
}

#[derive(Debug, Default)]
struct State {
    latencies: Latencies,
    totals: Totals,
}

/// Shared by all pipelines in which it stands.
#[derive(Debug)]
pub struct Hedge {
    config: Config,
    budget: Budget,
    state: Mutex<State>,
}

impl Hedge {
    /// One that knows nothing yet.
    pub fn new(config: Config) -> Hedge {
        Hedge { config, budget: Budget::new(config.budget, 0.0, SAVED), state: Mutex::new(State::default()) }
    }

    /// When and how often it asks once more.
    pub fn config(&self) -> Config {
        self.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has done so far.
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    /// After how long without an answer it would hedge now; `None`: that is not known yet.
    pub fn delay(&self) -> Option<Duration> {
        match self.config.delay {
            Delay::Fixed(delay) => Some(delay),
            Delay::Percentile { initial, floor, .. } => self.state().latencies.bound.map(|bound| bound.max(floor)).or(initial),
        }
    }

    fn began(&self, now: Instant) -> Option<Duration> {
        self.budget.deposit(now);
        self.state().totals.calls += 1;
        self.delay()
    }

    fn may_hedge(&self, now: Instant) -> bool {
        let granted = self.budget.withdraw(now);
        let totals = &mut self.state().totals;
        *(if granted { &mut totals.hedges } else { &mut totals.denied }) += 1;
        granted
    }

    fn took(&self, span: Duration, now: Instant) {
        if let Delay::Percentile { share, minimum_calls, .. } = self.config.delay {
            self.state().latencies.add(span, share, minimum_calls, now);
        }
    }

    fn won(&self) {
        self.state().totals.wins += 1;
    }
}

/// A hedge in a plan.
pub struct Hedged(pub Arc<Hedge>);

impl Policy for Hedged {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage { hedge: self.0.clone(), delay: None, tries: Vec::with_capacity(2), calls: 0, failed: None, is_open: false })
    }
}

/// One of the attempts.
struct Try {
    began: Instant,
    /// How long the call had waited in queues before.
    queued: Duration,
    is_over: bool,
}

struct Passage {
    hedge: Arc<Hedge>,
    delay: Option<Duration>,
    tries: Vec<Try>,
    /// Calls that the whole call had made before the last of them.
    calls: u32,
    /// How the first that failed came out.
    failed: Option<Outcome>,
    /// A stream was handed out.
    is_open: bool,
}

impl Passage {
    fn go(&mut self, cx: &mut Cx<'_>) -> Flow {
        self.tries.push(Try { began: cx.now(), queued: cx.queued(), is_over: false });
        self.calls = cx.calls();
        match self.delay {
            Some(delay) if self.tries.len() <= self.hedge.config.max_hedges as usize => cx.limit_at(cx.now().after(delay)),
            _ => cx.no_wake(),
        }
        Flow::Inward(0)
    }

    fn wake(&mut self, cx: &mut Cx<'_>) -> Flow {
        let (Some(delay), Some(last)) = (self.delay, self.tries.last()) else { return Flow::Hold };
        // What stands in a queue further in has asked nobody yet: a second one would only stand behind it.
        let waits = cx.calls() == self.calls;
        let due = if waits { cx.now() } else { last.began }.after(delay).after(cx.queued().saturating_sub(last.queued));
        if waits || due > cx.now() {
            cx.limit_at(due);
            return Flow::Hold;
        }
        cx.no_wake();
        if cx.now() >= cx.deadline() || !self.hedge.may_hedge(cx.now()) {
            return Flow::Hold;
        }
        cx.emit(events::HEDGE_STARTED, self.tries.len() as u32, delay, None, "");
        self.go(cx)
    }

    /// How long an attempt has taken.
    fn took(tried: &Try, cx: &Cx<'_>) -> Duration {
        cx.now().since(tried.began).saturating_sub(cx.queued().saturating_sub(tried.queued))
    }

    fn answered(&mut self, cx: &mut Cx<'_>) {
        let number = cx.child().map(|child| child.number as usize);
        let late = self.delay.unwrap_or(Duration::MAX);
        for (at, tried) in self.tries.iter().enumerate().filter(|(_, tried)| !tried.is_over) {
            let took = Passage::took(tried, cx);
            // Those that are given up now take longer than that. Of one that is not late yet that says nothing.
            if Some(at) == number || took >= late {
                self.hedge.took(took, cx.now());
            }
        }
        cx.no_wake();
        if let Some(child) = cx.child().filter(|child| child.number > 0) {
            self.hedge.won();
            cx.emit(events::HEDGE_WON, child.number, cx.now().since(child.begun), None, "");
        }
    }

    fn failed(&mut self, outcome: Outcome, verdict: Option<&Verdict>, cx: &mut Cx<'_>) -> Flow {
        // A stream that was handed out and then taken back is the only one left.
        if self.is_open || matches!(verdict, Some(Verdict::Final | Verdict::Stop)) {
            return Flow::Resolve(outcome);
        }
        if let Some(tried) = cx.child().and_then(|child| self.tries.get_mut(child.number as usize)) {
            tried.is_over = true;
            if matches!(outcome, Outcome::Rejected(_)) && !outcome.is_refusal() {
                self.hedge.took(Passage::took(tried, cx), cx.now()); // a time limit: it would have taken longer
            }
        }
        if cx.running() == 0 {
            return Flow::Resolve(self.failed.unwrap_or(outcome));
        }
        // One that was turned away further in is no hedge.
        if !outcome.is_refusal() {
            self.failed.get_or_insert(outcome);
        }
        Flow::Hold
    }
}

impl Layer for Passage {
    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        // Whether the others would fail alike.
        let failed = matches!(outcome, Outcome::Error(_));
        (failed && self.tries.len() > 1 && !self.is_open).then_some(self.tries.len() as u32)
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => {
                self.delay = self.hedge.began(cx.now());
                self.go(cx)
            }
            Input::Wake => self.wake(cx),
            Input::Child(stream @ Outcome::Stream(_), _) => {
                self.answered(cx);
                self.is_open = true;
                Flow::PassOn(stream)
            }
            Input::Child(value @ Outcome::Value(_), _) => {
                if !self.is_open {
                    self.answered(cx);
                }
                Flow::Resolve(value)
            }
            Input::Child(outcome, verdict) => self.failed(outcome, verdict, cx),
            Input::Ended(outcome, _) => Flow::Resolve(outcome),
            Input::Abandoned => Flow::Hold,
        }
    }
}
