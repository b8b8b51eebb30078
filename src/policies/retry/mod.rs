//! Retry: call again what failed for a passing reason, after a wait, within one deadline.

pub mod backoff;
mod counts;

pub use counts::{Counts, Totals};

use super::budget::Budget;
use crate::engine::{Cx, Flow, Input, Instant, Lane, Layer, Outcome, Policy, Refusal, Verdict, WaitHint};
use crate::events;
use backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;

/// When and how often to call again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Calls, all told.
    pub attempts: u32,
    /// The waits between them.
    pub wait: Arc<Backoff>,
    /// One limit over all calls and waits.
    pub timeout: Option<Duration>,
    /// A longer `Retry-After` means giving up now.
    pub max_retry_after: Duration,
    /// Shared cap on retries.
    pub budget: Option<Arc<Budget>>,
    /// Whether results are judged too.
    pub judges_values: bool,
    /// What it has done so far.
    pub counts: Arc<Counts>,
}

/// A retry in a plan. Its passages share it: a copy would be a part of what a call costs that is tried again once.
pub struct Retried(pub Arc<Retry>);

impl Retried {
    /// Of this configuration.
    pub fn new(retry: Retry) -> Retried {
        Retried(Arc::new(retry))
    }
}

impl Policy for Retried {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage::of(self.0.clone()))
    }

    fn lane(&self) -> Lane {
        match (&self.0.budget, self.0.judges_values) {
            (_, true) => Lane::Machine,
            (Some(_), false) => Lane::Watched,
            (None, false) => Lane::Free,
        }
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        if let Some(budget) = &self.0.budget {
            budget.deposit(now);
        }
        Some(0)
    }
}

struct Passage {
    config: Arc<Retry>,
    attempt: u32,
    /// Calls that the whole call had made before this attempt.
    calls_before: u32,
    /// What it has done and not told yet: it is told when an attempt has ended.
    done: Totals,
    /// The budget knows of this call already.
    deposited: bool,
    waited: Option<Duration>,
    last: Option<Outcome>,
}

/// Why no further attempt is made, as the note on the error says it.
pub mod reason {
    /// All attempts were made.
    pub const ATTEMPTS: &str = "attempts used up";
    /// The next attempt would come too late.
    pub const DEADLINE: &str = "no time left for another attempt";
    /// The server asked for a longer wait than is allowed.
    pub const RETRY_AFTER: &str = "the server asked for a longer wait than allowed";
    /// The circuit opened during this call.
    pub const CIRCUIT: &str = "the circuit opened";
    /// The shared retry budget is spent.
    pub const BUDGET: &str = "the retry budget is spent";
    /// The user's stop condition said so.
    pub const STOPPED: &str = "the stop condition was met";
    /// Nothing was answered for as long as the batch waits.
    pub const PATIENCE: &str = "the patience is used up";
    /// The kind of failure is not retried.
    pub const FINAL: &str = "not retryable";
}

impl Passage {
    fn of(config: Arc<Retry>) -> Passage {
        Passage { config, attempt: 0, calls_before: 0, done: Totals::default(), deposited: false, waited: None, last: None }
    }

    fn tell(&mut self, cx: &Cx<'_>) {
        self.config.counts.add(&std::mem::take(&mut self.done), cx.is_in_turn());
    }

    fn give_up(&mut self, outcome: Outcome, why: &'static str, cx: &mut Cx<'_>) -> Flow {
        if why != reason::FINAL {
            self.done.exhausted += 1;
        }
        cx.emit(events::RETRY_EXHAUSTED, self.attempt, cx.now().since(cx.begun()), Some(outcome), why);
        Flow::Resolve(outcome)
    }

    #[inline]
    fn wait(&mut self, outcome: Outcome, wait: Duration, cx: &mut Cx<'_>) -> Flow {
        let at = cx.now().after(wait);
        if at >= cx.deadline() && at != cx.now() {
            return self.give_up(outcome, reason::DEADLINE, cx);
        }
        if !outcome.is_refusal() {
            self.done.retries += 1;
            if !wait.is_zero() {
                self.done.waited = self.done.waited.saturating_add(wait);
            }
        }
        self.waited = Some(wait);
        self.last = Some(outcome);
        cx.emit(events::RETRY_SCHEDULED, self.attempt, wait, Some(outcome), "");
        // A limit that is full stays so until its time comes.
        if !outcome.is_refusal() && (cx.hurries() || at == cx.now()) {
            self.tell(cx);
            return self.go(cx);
        }
        cx.wake_at(at);
        Flow::Hold
    }

    #[inline]
    fn failed(&mut self, outcome: Outcome, hint: WaitHint, cx: &mut Cx<'_>) -> Flow {
        if self.attempt >= cx.capped(self.config.attempts) {
            return self.give_up(outcome, reason::ATTEMPTS, cx);
        }
        if cx.now() >= cx.deadline() {
            return self.give_up(outcome, reason::DEADLINE, cx);
        }
        let wait = match hint {
            WaitHint::RetryAfter(asked) if asked > self.config.max_retry_after => return self.give_up(outcome, reason::RETRY_AFTER, cx),
            WaitHint::RetryAfter(asked) | WaitHint::Exactly(asked) => asked,
            WaitHint::None => self.config.wait.wait(self.attempt, self.waited, &mut || cx.random()),
        };
        if self.config.budget.as_ref().is_some_and(|b| !b.withdraw(cx.now())) {
            return self.give_up(outcome, reason::BUDGET, cx);
        }
        self.wait(outcome, wait, cx)
    }

    /// Turned away further in. If no call was made on the way (an alternative's may have been), it was no attempt.
    fn refused(&mut self, cx: &Cx<'_>) {
        if cx.calls() == self.calls_before {
            self.attempt -= 1;
            self.done.attempts -= 1;
        }
    }

    #[inline]
    fn go(&mut self, cx: &mut Cx<'_>) -> Flow {
        self.attempt += 1;
        self.calls_before = cx.calls();
        self.done.attempts += 1;
        if cx.announces() {
            cx.emit(events::ATTEMPT_STARTED, self.attempt, cx.now().since(cx.begun()), None, "");
        }
        if let (false, Some(budget)) = (self.deposited, &self.config.budget) {
            budget.deposit(cx.now());
        }
        self.deposited = true;
        Flow::Inward(0)
    }
}

impl Layer for Passage {
    fn renew(&mut self) -> bool {
        // Part by part where it lies, without a count up and down of the configuration. What it has done was told when it ended.
        let Passage { config: _, attempt, calls_before, done: _, deposited, waited, last } = self;
        (*attempt, *calls_before, *deposited) = (0, 0, false);
        (*waited, *last) = (None, None);
        true
    }

    fn let_in(&mut self, _permit: u64, _begun: Instant) {
        self.deposited = true;
    }

    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        match outcome {
            Outcome::Value(_) => self.config.judges_values.then_some(self.attempt),
            Outcome::Error(_) => Some(self.attempt),
            Outcome::Rejected(_) => (!outcome.is_refusal()).then_some(self.attempt),
            Outcome::Stream(_) => None,
        }
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        let flow = self.react(input, cx);
        if !matches!(flow, Flow::Inward(_)) {
            self.tell(cx);
        }
        flow
    }
}

impl Passage {
    fn react(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => {
                self.done.calls = 1;
                if let Some(timeout) = self.config.timeout {
                    cx.limit(cx.begun().after(timeout));
                }
                self.go(cx)
            }
            // Woken late, as by a loop that was busy: an attempt that has no time left is not begun.
            Input::Wake => match self.last {
                Some(last) if cx.now() >= cx.deadline() => self.give_up(last, reason::DEADLINE, cx),
                _ => self.go(cx),
            },
            Input::Child(stream @ Outcome::Stream(_), _) => Flow::PassOn(stream),
            Input::Child(outcome, Some(&Verdict::Failure { wait, .. })) => self.failed(outcome, wait, cx),
            Input::Child(outcome, Some(Verdict::Final)) => self.give_up(outcome, reason::FINAL, cx),
            Input::Child(outcome, Some(Verdict::Stop)) => self.give_up(outcome, reason::STOPPED, cx),
            Input::Child(outcome @ Outcome::Rejected(rejection), None) => match (rejection.refusal(), self.last) {
                (Refusal::CircuitOpen, Some(last)) => {
                    self.refused(cx);
                    self.give_up(last, reason::CIRCUIT, cx)
                }
                // As a server's: one that is too long, or that nobody knows, is not waited for.
                (Refusal::RateLimited | Refusal::BulkheadFull, _)
                    if rejection.retry_after().is_some_and(|after| after <= self.config.max_retry_after) =>
                {
                    self.refused(cx);
                    self.wait(outcome, rejection.retry_after().unwrap_or_default(), cx)
                }
                _ => {
                    self.refused(cx);
                    Flow::Resolve(outcome)
                }
            },
            Input::Child(outcome, _) | Input::Ended(outcome, _) => Flow::Resolve(outcome),
            Input::Abandoned => Flow::Hold,
        }
    }
}
