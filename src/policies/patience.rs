//! Patience: what a long batch has in place of each call's own retries. What keeps one call from being answered keeps all of them
//! from it, most often, so they wait together and one of them looks whether it is over: an outage costs probes, not attempts.
//!
//! After a rest one call goes, and with each that is answered one more may be under way, as in TCP's slow start.

use super::retry::{Retry, Totals, reason};
use crate::engine::{Cx, Flow, Input, Instant, Layer, Outcome, Policy, Refusal, Rejection, Signal, Verdict, WaitHint};
use crate::events;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a verdict's branches say here: whose failure it is.
pub mod whose {
    /// The callee has had enough: nobody is to go for a while.
    pub const LIMIT: u64 = 1;
    /// The callee is not there. Unless it answers others, it is no failure of this call's.
    pub const CALLEE: u64 = 2;
    /// It may be this call's own.
    pub const CALL: u64 = 4;
}

/// So many failures in a row, of so many calls, are nobody's own.
const IN_A_ROW: u32 = 5;
const OF_CALLS: usize = 3;

/// The policy: `retry` says what is tried again, how often where it is the call's own failure, and after which waits.
#[derive(Clone)]
pub struct Patience {
    /// The model's retries.
    pub retry: Retry,
    /// How long nothing may be answered; `None`: as long as it takes.
    pub limit: Option<Duration>,
    gate: Arc<Gate>,
}

/// Where the calls of a batch wait together.
#[derive(Default)]
struct Gate(Mutex<State>);

struct State {
    /// Nobody goes before.
    rests_until: Instant,
    /// How many may be under way after a rest; `None`: all.
    window: Option<usize>,
    /// Of those that went since the last rest.
    under_way: usize,
    /// Which rest was the last. What was sent before it tells nothing of what came after.
    era: u64,
    /// Rests since the last answer.
    rests: u32,
    in_a_row: u32,
    /// Whose failures these are.
    of_calls: Vec<u64>,
    /// Since when nothing was answered.
    troubled_since: Option<Instant>,
    answers: u64,
    next: u64,
    queue: VecDeque<(u64, Arc<Signal>)>,
}

impl Default for State {
    fn default() -> State {
        State {
            rests_until: Instant(0),
            window: None,
            under_way: 0,
            era: 0,
            rests: 0,
            in_a_row: 0,
            of_calls: Vec::new(),
            troubled_since: None,
            answers: 0,
            next: 0,
            queue: VecDeque::new(),
        }
    }
}

/// What was so when an attempt went.
#[derive(Clone, Copy)]
struct Pass {
    era: u64,
    answers: u64,
}

enum Turn {
    Go(Pass),
    /// When to look again; `None`: when the signal is given.
    Wait(Option<Instant>),
}

/// What a failure means.
enum Means {
    /// It is one of this call's own.
    Own,
    /// It is not, and it goes again: when the gate lets it, if that rests for so long.
    Shared(Option<Duration>),
    /// Nothing was answered for as long as is waited.
    Enough,
}

impl State {
    fn may_go(&self, now: Instant) -> bool {
        now >= self.rests_until && self.window.is_none_or(|window| self.under_way < window)
    }

    fn go(&mut self) -> Turn {
        self.under_way += 1;
        Turn::Go(Pass { era: self.era, answers: self.answers })
    }

    fn head(&self) -> Option<Arc<Signal>> {
        self.queue.front().map(|(_, signal)| signal.clone())
    }

    /// One that went is over.
    fn left(&mut self, pass: Pass) {
        if pass.era == self.era {
            self.under_way -= 1;
        }
    }

    fn rest(&mut self, wait: Duration, now: Instant) {
        (self.era, self.window, self.rests, self.under_way) = (self.era + 1, Some(1), self.rests + 1, 0);
        self.rests_until = self.rests_until.max(now.after(wait));
    }
}

impl Gate {
    /// Runs `change` under the lock, and wakes the first of those that wait.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state: MutexGuard<'_, State> = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut state);
        let head = state.head();
        drop(state);
        if let Some(head) = head {
            head.give();
        }
        changed
    }

    fn number(&self) -> u64 {
        self.change(|state| {
            state.next += 1;
            state.next
        })
    }

    /// Goes, or waits at the end of the line.
    fn ask(&self, call: u64, now: Instant, signal: impl FnOnce() -> Arc<Signal>) -> Turn {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.queue.is_empty() && state.may_go(now) {
            return state.go();
        }
        state.queue.push_back((call, signal()));
        let is_first = state.queue.len() == 1;
        Turn::Wait((is_first && now < state.rests_until).then_some(state.rests_until))
    }

    /// Whether one that waits has its turn.
    fn look(&self, call: u64, now: Instant) -> Turn {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.queue.front().is_none_or(|(first, _)| *first != call) {
            return Turn::Wait(None);
        }
        if !state.may_go(now) {
            return Turn::Wait((now < state.rests_until).then_some(state.rests_until));
        }
        state.queue.pop_front();
        let turn = state.go();
        let next = state.head();
        drop(state);
        if let Some(next) = next {
            next.give();
        }
        turn
    }

    fn withdraw(&self, call: u64) {
        self.change(|state| state.queue.retain(|(waits, _)| *waits != call));
    }

    fn abandoned(&self, pass: Pass) {
        self.change(|state| state.left(pass));
    }

    fn answered(&self, pass: Pass, now: Instant) {
        self.change(|state| {
            state.left(pass);
            if pass.era != state.era {
                return;
            }
            state.answers += 1;
            (state.in_a_row, state.rests, state.troubled_since) = (0, 0, None);
            state.of_calls.clear();
            state.rests_until = state.rests_until.min(now);
            state.window = state.window.map(|window| window + 1).filter(|window| *window < state.under_way + state.queue.len());
        });
    }

    fn failed(
        &self,
        (call, pass, before, now): (u64, Pass, u64, Instant),
        (whose, asked): (u64, Option<Duration>),
        limit: Option<Duration>,
        backoff: impl FnOnce(u32) -> Duration,
    ) -> (Means, u64) {
        self.change(|state| {
            state.left(pass);
            let is_shared = whose & whose::CALL == 0;
            if pass.era == state.era {
                state.in_a_row += 1;
                state.troubled_since.get_or_insert(now);
                if !state.of_calls.contains(&call) && state.of_calls.len() < OF_CALLS {
                    state.of_calls.push(call);
                }
                let is_asked = is_shared && asked.is_some();
                let is_down = state.in_a_row >= IN_A_ROW && state.of_calls.len() >= OF_CALLS;
                if whose & whose::LIMIT != 0 || is_asked || is_down || state.window.is_some() {
                    let wait = asked.unwrap_or_else(|| backoff(state.rests + 1));
                    state.rest(wait, now);
                }
            } else if let (true, Some(asked)) = (is_shared, asked) {
                // Sent before the rest: it makes it longer, at the most.
                state.rests_until = state.rests_until.max(now.after(asked));
            }
            if let (Some(since), Some(limit)) = (state.troubled_since, limit)
                && state.rests_until.max(now) >= since.after(limit)
            {
                return (Means::Enough, state.answers);
            }
            let others_are_answered = state.answers > before;
            let is_own = match whose {
                w if w & whose::CALL != 0 => others_are_answered || state.window.is_none(),
                w if w & whose::CALLEE != 0 => others_are_answered,
                _ => false,
            };
            let means = match is_own {
                true => Means::Own,
                false => Means::Shared(state.window.map(|_| state.rests_until.since(now))),
            };
            (means, state.answers)
        })
    }
}

impl Patience {
    /// For the calls of one batch.
    pub fn new(retry: Retry, limit: Option<Duration>) -> Patience {
        Patience { retry, limit, gate: Arc::default() }
    }
}

impl Policy for Patience {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage {
            policy: self.clone(),
            call: self.gate.number(),
            at: At::Outside,
            attempt: 0,
            own: 0,
            answers: None,
            waited: None,
        })
    }
}

#[derive(Clone, Copy)]
enum At {
    Outside,
    /// It waits for its own next attempt.
    Waits,
    Queued,
    Gone(Pass),
}

struct Passage {
    policy: Patience,
    call: u64,
    at: At,
    attempt: u32,
    /// Failures that are this call's own.
    own: u32,
    /// How many others had been answered when it failed last.
    answers: Option<u64>,
    waited: Option<Duration>,
}

impl Passage {
    fn turn(&mut self, turn: Turn, cx: &mut Cx<'_>) -> Flow {
        match turn {
            Turn::Go(pass) => {
                cx.no_wake();
                self.at = At::Gone(pass);
                self.attempt += 1;
                self.count(cx, |done| done.attempts = 1);
                if cx.announces() {
                    cx.emit(events::ATTEMPT_STARTED, self.attempt, cx.now().since(cx.begun()), None, "");
                }
                Flow::Inward(0)
            }
            Turn::Wait(until) => {
                self.at = At::Queued;
                match (until, cx.deadline()) {
                    (Some(until), deadline) => cx.wake_at(until.min(deadline)),
                    (None, Instant::NEVER) => cx.no_wake(),
                    (None, deadline) => cx.limit_at(deadline),
                }
                Flow::Hold
            }
        }
    }

    /// The caller has no more time.
    fn late(&mut self, cx: &mut Cx<'_>) -> Flow {
        if let At::Queued = std::mem::replace(&mut self.at, At::Outside) {
            self.policy.gate.withdraw(self.call);
        }
        let rejection = Rejection::new(Refusal::TimedOut, cx.stage(), Some(cx.deadline().since(cx.begun())));
        self.give_up(Outcome::Rejected(rejection), reason::DEADLINE, cx)
    }

    fn ask(&mut self, cx: &mut Cx<'_>) -> Flow {
        if cx.now() >= cx.deadline() {
            return self.late(cx);
        }
        let turn = self.policy.gate.clone().ask(self.call, cx.now(), || cx.listen());
        self.turn(turn, cx)
    }

    fn count(&self, cx: &Cx<'_>, what: impl FnOnce(&mut Totals)) {
        let mut done = Totals::default();
        what(&mut done);
        self.policy.retry.counts.add(&done, cx.is_in_turn());
    }

    fn give_up(&mut self, outcome: Outcome, why: &'static str, cx: &mut Cx<'_>) -> Flow {
        if why != reason::FINAL {
            self.count(cx, |done| done.exhausted = 1);
        }
        cx.emit(events::RETRY_EXHAUSTED, self.attempt, cx.now().since(cx.begun()), Some(outcome), why);
        Flow::Resolve(outcome)
    }

    fn failed(&mut self, pass: Pass, outcome: Outcome, whose: u64, wait: WaitHint, cx: &mut Cx<'_>) -> Flow {
        let retry = &self.policy.retry;
        // A limit that is full stays so until its time comes; other waits are left out where a test says so.
        let hurries = cx.hurries() && !outcome.is_refusal();
        let asked = match wait {
            WaitHint::RetryAfter(_) | WaitHint::Exactly(_) | WaitHint::None if hurries => Some(Duration::ZERO),
            WaitHint::RetryAfter(span) | WaitHint::Exactly(span) => Some(span),
            WaitHint::None => None,
        };
        let (rest, now) = (retry.wait.clone(), cx.now());
        let (before, limit) = (self.answers.unwrap_or(pass.answers), self.policy.limit);
        let backoff = |rests| rest.wait(rests, None, &mut || cx.random());
        let (means, answers) = self.policy.gate.failed((self.call, pass, before, now), (whose, asked), limit, backoff);
        self.answers = Some(answers);
        match means {
            _ if now >= cx.deadline() => self.give_up(outcome, reason::DEADLINE, cx),
            Means::Enough => self.give_up(outcome, reason::PATIENCE, cx),
            Means::Own if self.own + 1 >= cx.capped(retry.attempts) => self.give_up(outcome, reason::ATTEMPTS, cx),
            Means::Own => {
                self.own += 1;
                self.wait(self.own, asked, outcome, cx)
            }
            // Nobody else has noticed yet.
            Means::Shared(None) => self.wait(self.attempt, asked, outcome, cx),
            Means::Shared(Some(rest)) => {
                self.scheduled(rest, outcome, cx);
                self.ask(cx)
            }
        }
    }

    fn scheduled(&self, wait: Duration, outcome: Outcome, cx: &mut Cx<'_>) {
        if !outcome.is_refusal() {
            self.count(cx, |done| (done.retries, done.waited) = (1, wait));
        }
        cx.emit(events::RETRY_SCHEDULED, self.attempt, wait, Some(outcome), "");
    }

    /// Its own wait, while others go.
    fn wait(&mut self, failures: u32, asked: Option<Duration>, outcome: Outcome, cx: &mut Cx<'_>) -> Flow {
        let wait = asked.unwrap_or_else(|| self.policy.retry.wait.wait(failures, self.waited, &mut || cx.random()));
        (self.waited, self.at) = (Some(wait), At::Waits);
        self.scheduled(wait, outcome, cx);
        cx.wake_at(cx.now().after(wait).min(cx.deadline()));
        Flow::Hold
    }
}

impl Layer for Passage {
    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        match outcome {
            Outcome::Error(_) => Some(self.attempt),
            Outcome::Rejected(_) => (!outcome.is_refusal()).then_some(self.attempt),
            Outcome::Value(_) | Outcome::Stream(_) => None,
        }
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match (input, self.at) {
            (Input::Begin, _) => {
                self.count(cx, |done| done.calls = 1);
                self.ask(cx)
            }
            (Input::Wake, At::Waits) => self.ask(cx),
            (Input::Wake, At::Queued) if cx.now() >= cx.deadline() => self.late(cx),
            (Input::Wake, At::Queued) => {
                let turn = self.policy.gate.look(self.call, cx.now());
                self.turn(turn, cx)
            }
            (Input::Child(outcome, Some(&Verdict::Failure { wait, branches })), At::Gone(pass)) => {
                self.at = At::Outside;
                // A judge that knows no better says all.
                let whose = if branches == u64::MAX { whose::CALL } else { branches };
                self.failed(pass, outcome, whose, wait, cx)
            }
            // Turned away further in, by a circuit or a limit: no attempt, and the others would fare no better.
            (Input::Child(outcome @ Outcome::Rejected(rejection), None), At::Gone(pass)) if rejection.refusal() != Refusal::TimedOut => {
                self.at = At::Outside;
                self.attempt -= 1;
                let wait = rejection.retry_after().map_or(WaitHint::None, WaitHint::RetryAfter);
                self.failed(pass, outcome, whose::LIMIT, wait, cx)
            }
            (Input::Child(outcome, verdict), At::Gone(pass)) => {
                self.at = At::Outside;
                // A refusal of the request is an answer too.
                self.policy.gate.answered(pass, cx.now());
                match verdict {
                    Some(Verdict::Final) => self.give_up(outcome, reason::FINAL, cx),
                    Some(Verdict::Stop) => self.give_up(outcome, reason::STOPPED, cx),
                    _ => Flow::Resolve(outcome),
                }
            }
            (Input::Child(outcome, _) | Input::Ended(outcome, _), _) => Flow::Resolve(outcome),
            (Input::Abandoned, at) => {
                self.at = At::Outside;
                match at {
                    At::Queued => self.policy.gate.withdraw(self.call),
                    At::Gone(pass) => self.policy.gate.abandoned(pass),
                    At::Outside | At::Waits => {}
                }
                Flow::Hold
            }
            (Input::Wake, _) => Flow::Hold,
        }
    }
}
