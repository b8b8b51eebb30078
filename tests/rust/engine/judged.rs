//! What policies ask about, what they make of the answer, and how Retry takes a limit that has no room.

use super::policies::{FAIL, config, guarded, retry};
use crate::virtual_time::{Answer, End, World, at, plan, s};
use seawall::engine::{Cx, Event, Execution, Flow, Input, Instant, Layer, Outcome, Plan, PlanBuilder, Policy, Refusal, Rejection};
use seawall::engine::{Step, Target, Ticket, Verdict, WaitHint};
use seawall::policies::circuit_breaker::{CircuitBreaker, Guarded, State};
use seawall::policies::fallback::Fallback;
use seawall::policies::retry::{Retried, Retry, Totals, reason};
use seawall::policies::timeout::Timeout;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How a call went whose outcomes and verdicts are given by hand.
struct Told {
    end: Outcome,
    /// Attempt numbers of the questions.
    asked: Vec<u32>,
    targets: Vec<usize>,
    events: Vec<Event>,
    at: Instant,
}

/// Every call ends at once as `outcome` makes it of its number; `verdict` answers the question of that number.
fn by_hand(plan: Arc<Plan>, outcome: fn(Ticket) -> Outcome, verdict: impl Fn(usize) -> Verdict) -> Told {
    let mut execution = Execution::new(plan, 7, at(1.0));
    let (mut now, mut asked, mut targets) = (at(1.0), Vec::new(), Vec::new());
    for _ in 0..1_000 {
        match execution.step(now) {
            Step::Start { call, target, .. } => {
                targets.push(target.0);
                execution.ended(call, outcome(Ticket(call.0)));
            }
            Step::Judge(ask) => {
                asked.push(ask.attempt());
                execution.verdict(verdict(asked.len() - 1), now);
            }
            Step::Wait { until } => now = until,
            Step::Done(end) => return Told { end, asked, targets, events: execution.take_events().collect(), at: now },
            Step::Cancel { .. } | Step::Deliver(_) => unreachable!("nothing runs on"),
        }
    }
    panic!("it does not end")
}

fn always(verdict: Verdict) -> impl Fn(usize) -> Verdict {
    move |_| verdict
}

fn failure(wait: WaitHint, branches: u64) -> Verdict {
    Verdict::Failure { wait, branches }
}

fn alternatives(count: usize, judges_values: bool) -> Arc<Plan> {
    let mut builder = PlanBuilder::default();
    let branches = (0..count).map(|target| builder.leaf(Target(target))).collect();
    let root = builder.layer(Arc::new(Fallback { judges_values }), branches);
    builder.build(root)
}

#[test]
fn a_retry_that_judges_results_asks_about_each_and_tries_bad_ones_again() {
    let judging = || plan(vec![Arc::new(Retried::new(Retry { judges_values: true, ..retry(3, 1.0) }))]);
    let told = by_hand(judging(), Outcome::Value, always(Verdict::FAILURE));
    assert_eq!((told.end, told.asked), (Outcome::Value(Ticket(2)), vec![1, 2, 3]));
    let told = by_hand(judging(), Outcome::Value, |question| if question == 0 { Verdict::FAILURE } else { Verdict::Success });
    assert_eq!((told.end, told.asked), (Outcome::Value(Ticket(1)), vec![1, 2]));
    let told = by_hand(plan(vec![Arc::new(Retried::new(retry(3, 1.0)))]), Outcome::Value, always(Verdict::FAILURE));
    assert_eq!((told.end, told.asked), (Outcome::Value(Ticket(0)), vec![]));
}

#[test]
fn a_fallback_asks_by_the_number_of_the_branch() {
    let told = by_hand(alternatives(3, true), Outcome::Value, always(Verdict::FAILURE));
    assert_eq!((told.end, told.asked, told.targets), (Outcome::Value(Ticket(0)), vec![1, 2, 3], vec![0, 1, 2]));
    let told = by_hand(alternatives(3, false), Outcome::Error, always(Verdict::FAILURE));
    assert_eq!((told.end, told.asked), (Outcome::Error(Ticket(0)), vec![1, 2, 3]));
    let told = by_hand(alternatives(3, false), Outcome::Value, always(Verdict::FAILURE));
    assert_eq!((told.end, told.asked), (Outcome::Value(Ticket(0)), vec![]));
}

#[test]
fn a_fallback_that_judges_results_has_no_lane() {
    assert!(alternatives(2, false).way().is_some());
    assert!(alternatives(2, true).way().is_none());
}

#[test]
fn a_fallback_tries_the_branches_that_may_help_and_no_others() {
    for (branches, tried) in [(0b101, vec![0, 2]), (0b011, vec![0, 1]), (0b1, vec![0]), (0, vec![0]), (0b110, vec![0, 1, 2])] {
        let told = by_hand(alternatives(3, false), Outcome::Error, always(failure(WaitHint::None, branches)));
        let exhausted = told.events.iter().any(|event| event.name == "fallback.exhausted");
        assert_eq!(exhausted, tried.len() > 1, "alternatives that nobody tried are not used up");
        assert_eq!(told.targets, tried);
    }
    // There are 64 bits; of branches beyond them nothing is known, so they are tried.
    let told = by_hand(alternatives(66, false), Outcome::Error, always(failure(WaitHint::None, 0)));
    assert_eq!(told.targets, [0, 64, 65]);
}

#[test]
fn events_of_a_fallback_tell_the_branch() {
    let told = by_hand(alternatives(3, false), Outcome::Error, always(Verdict::FAILURE));
    let seen: Vec<_> = told.events.iter().map(|e| (e.name.as_str(), e.number, e.outcome)).collect();
    let error = |number| Some(Outcome::Error(Ticket(number)));
    assert_eq!(seen, [("fallback.used", 1, error(0)), ("fallback.used", 2, error(1)), ("fallback.exhausted", 2, error(0))]);
}

#[test]
fn a_breaker_that_judges_results_asks_and_counts_what_it_hears() {
    for (judges_values, asked, state) in [(true, vec![1], State::Open), (false, vec![], State::Closed)] {
        let breaker = Arc::new(CircuitBreaker::new(config(1, 10.0)));
        let guarded = plan(vec![Arc::new(Guarded { breaker: breaker.clone(), judges_values })]);
        assert_eq!(guarded.way().is_some(), !judges_values);
        assert_eq!(by_hand(guarded, Outcome::Value, always(Verdict::FAILURE)).asked, asked);
        assert_eq!(breaker.state(at(1.0)), state);
    }
}

#[test]
fn a_retry_asks_about_limits_that_passed_and_not_about_calls_turned_away() {
    let mut world = World::new(&[&[(0.0, Answer::Hang)]]);
    let limited = plan(vec![Arc::new(Retried::new(Retry { judges_values: true, ..retry(3, 0.0) })), Arc::new(Timeout { limit: s(2.0) })]);
    assert_eq!(world.run(&limited).0, End::Refused(Refusal::TimedOut));
    assert_eq!(world.calls.len(), 3);
    let rejecting = plan(vec![Arc::new(Retried::new(retry(3, 0.0))), full(Refusal::CircuitOpen, None, 9)]);
    let told = by_hand(rejecting, Outcome::Value, always(Verdict::FAILURE));
    assert_eq!((told.asked, told.targets, told.events), (vec![], vec![], vec![]));
}

#[test]
fn the_users_own_wait_goes_before_the_policys_and_knows_no_cap() {
    let policy = Arc::new(Retried::new(Retry { max_retry_after: s(5.0), ..retry(3, 1.0) }));
    let counts = policy.0.counts.clone();
    let told = by_hand(plan(vec![policy]), Outcome::Error, always(failure(WaitHint::Exactly(s(7.0)), 0)));
    assert_eq!((told.at, counts.totals().waited), (at(1.0 + 14.0), s(14.0)));
}

#[test]
fn a_server_may_ask_for_as_long_as_is_allowed() {
    for (asked, calls) in [(5.0, 3), (5.1, 1)] {
        let policy = Arc::new(Retried::new(Retry { max_retry_after: s(5.0), ..retry(3, 1.0) }));
        let told = by_hand(plan(vec![policy]), Outcome::Error, always(failure(WaitHint::RetryAfter(s(asked)), 0)));
        assert_eq!(told.targets.len(), calls);
    }
}

#[test]
fn a_stop_condition_is_told_and_counts_as_given_up() {
    let policy = Arc::new(Retried::new(retry(3, 1.0)));
    let counts = policy.0.counts.clone();
    let told = by_hand(plan(vec![policy.clone()]), Outcome::Error, always(Verdict::Stop));
    assert_eq!((told.targets.len(), told.events[0].reason, counts.totals().exhausted), (1, reason::STOPPED, 1));
    let told = by_hand(plan(vec![policy]), Outcome::Error, always(Verdict::Ignore));
    assert_eq!((told.end, told.targets.len(), told.events), (Outcome::Error(Ticket(0)), 1, vec![]));
}

/// A limit without room, so many times.
struct Full {
    refusal: Refusal,
    retry_after: Option<Duration>,
    times: Arc<AtomicU32>,
}

fn full(refusal: Refusal, retry_after: Option<Duration>, times: u32) -> Arc<dyn Policy> {
    Arc::new(Full { refusal, retry_after, times: Arc::new(AtomicU32::new(times)) })
}

impl Policy for Full {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Full { refusal: self.refusal, retry_after: self.retry_after, times: self.times.clone() })
    }
}

impl Layer for Full {
    fn on(&mut self, input: Input, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => match self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1)) {
                Ok(_) => {
                    let (refusal, retry_after) = (self.refusal, self.retry_after);
                    Flow::Resolve(Outcome::Rejected(Rejection::new(refusal, cx.stage(), retry_after)))
                }
                Err(_) => Flow::Inward(0),
            },
            Input::Child(outcome, _) | Input::Ended(outcome, _) => Flow::Resolve(outcome),
            Input::Wake | Input::Abandoned => Flow::Hold,
        }
    }
}

#[test]
fn a_limit_without_room_is_waited_for_and_is_no_attempt() {
    for refusal in [Refusal::RateLimited, Refusal::BulkheadFull] {
        for hurried in [false, true] {
            let policy = Arc::new(Retried::new(retry(2, 1.0)));
            let counts = policy.0.counts.clone();
            let plan = plan(vec![policy, full(refusal, Some(s(2.0)), 3)]);
            let mut world = World::new(&[&[(0.0, FAIL), (0.0, Answer::Value(1))]]);
            let mut execution = Execution::new(plan, 7, world.now);
            if hurried {
                execution.hurry();
            }
            let outcome = world.drive(&mut execution, &mut Vec::new(), Instant::NEVER).expect("it ends");
            assert_eq!(world.end(outcome), End::Value(1));
            // Hurry leaves out waits of ours; a limit is full as long as it is full.
            let second = if hurried { 6.0 } else { 7.0 };
            assert_eq!(world.calls, [(0, 6.0), (0, second)]);
            let wanted = Totals { calls: 1, attempts: 2, retries: 1, exhausted: 0, waited: s(1.0) };
            assert_eq!(counts.totals(), wanted);
        }
    }
}

#[test]
fn a_limit_that_does_not_say_when_is_not_waited_for() {
    let told = by_hand(
        plan(vec![Arc::new(Retried::new(retry(3, 1.0))), full(Refusal::BulkheadFull, None, 1)]),
        Outcome::Value,
        always(Verdict::Success),
    );
    assert!(matches!(told.end, Outcome::Rejected(_)), "{:?}", told.end);
    assert_eq!(told.at, at(1.0));
}

/// A retry around a circuit that opens at the first failure, with an alternative between the two or without.
fn around_a_circuit(policy: Arc<Retried>, with_alternative: bool) -> Arc<Plan> {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 60.0)));
    let mut builder = PlanBuilder::default();
    let primary = builder.leaf(Target(0));
    let mut inner = builder.layer(guarded(&breaker), vec![primary]);
    if with_alternative {
        let alternative = builder.leaf(Target(1));
        inner = builder.layer(Arc::new(Fallback { judges_values: false }), vec![inner, alternative]);
    }
    let root = builder.layer(policy, vec![inner]);
    builder.build(root)
}

#[test]
fn what_is_turned_away_is_an_attempt_only_if_something_was_called_on_the_way() {
    for (with_alternative, attempts) in [(false, 1), (true, 2)] {
        let policy = Arc::new(Retried::new(retry(5, 1.0)));
        let plan = around_a_circuit(policy.clone(), with_alternative);
        let mut world = World::new(&[&[(0.0, FAIL)], &[(0.0, Answer::Error("the alternative's"))]]);
        assert_eq!(world.run(&plan).0, End::Error("down"));
        let told = world.events.iter().rev().find(|event| event.name == "retry.exhausted").map(|event| (event.number, event.reason));
        assert_eq!(told, Some((attempts, reason::CIRCUIT)));
        let made = Totals { calls: 1, attempts: u64::from(attempts), retries: 1, exhausted: 1, waited: s(1.0) };
        assert_eq!(policy.0.counts.totals(), made);
        // Of the next call nothing but the alternative is an attempt.
        assert_eq!(world.run(&plan).0, End::Refused(Refusal::CircuitOpen));
        let more = u64::from(with_alternative);
        assert_eq!(policy.0.counts.totals(), Totals { calls: 2, attempts: made.attempts + more, ..made });
    }
}

#[test]
fn a_retry_that_a_limit_ends_has_counted_what_it_did() {
    for (script, counted) in [
        (&[(0.0, Answer::Hang)][..], Totals { calls: 1, attempts: 1, ..Totals::default() }),
        (&[(0.0, FAIL), (0.0, Answer::Hang)], Totals { calls: 1, attempts: 2, retries: 1, waited: s(1.0), ..Totals::default() }),
    ] {
        let policy = Arc::new(Retried::new(retry(5, 1.0)));
        let mut world = World::new(&[script]);
        assert_eq!(world.run(&plan(vec![Arc::new(Timeout { limit: s(5.0) }), policy.clone()])).0, End::Refused(Refusal::TimedOut));
        assert_eq!(policy.0.counts.totals(), counted);
    }
}

#[test]
fn an_attempt_that_another_follows_at_once_is_counted_before_that_one_begins() {
    let policy = Arc::new(Retried::new(retry(9, 0.0)));
    let mut execution = Execution::new(plan(vec![policy.clone()]), 7, at(1.0));
    for made in 1..4 {
        let Step::Start { call, .. } = execution.step(at(1.0)) else { panic!("an attempt") };
        execution.ended(call, Outcome::Error(Ticket(0)));
        assert!(matches!(execution.step(at(1.0)), Step::Judge(_)));
        execution.verdict(Verdict::FAILURE, at(1.0));
        assert_eq!(policy.0.counts.totals(), Totals { calls: 1, attempts: made, retries: made, ..Totals::default() });
    }
}
