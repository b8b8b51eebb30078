//! Each policy alone, in virtual time.

use crate::virtual_time::{Answer, End, World, at, plan, s};
use seawall::engine::{Execution, Instant, PlanBuilder, Policy, Refusal, Target};
use seawall::policies::budget::Budget;
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Evidence, Guarded, Slow, Span, State, Transition};
use seawall::policies::fallback::Fallback;
use seawall::policies::retry::{Retried, Retry, backoff::Backoff};
use seawall::policies::timeout::Timeout;
use std::sync::Arc;
use std::time::Duration;

pub const FAIL: Answer = Answer::Error("down");

pub fn retry(attempts: u32, wait: f64) -> Retry {
    Retry {
        attempts,
        wait: Arc::new(Backoff::Fixed { wait }),
        timeout: None,
        max_retry_after: s(120.0),
        budget: None,
        judges_values: false,
        counts: Arc::default(),
    }
}

pub fn config(consecutive: u32, recovery: f64) -> Config {
    Config {
        consecutive: Some(consecutive),
        rate: None,
        slow: None,
        span: Span::Calls(100),
        minimum_calls: 10,
        recovery: s(recovery),
        recovery_backoff: None,
        half_open_max_calls: 1,
        success_threshold: 1,
        max_half_open_time: s(60.0),
        lenient: false,
    }
}

pub fn guarded(breaker: &Arc<CircuitBreaker>) -> Arc<dyn Policy> {
    Arc::new(Guarded { breaker: breaker.clone(), judges_values: false })
}

#[test]
fn retry_counts_calls_all_told_and_waits_between_them() {
    let mut world = World::new(&[&[(0.1, FAIL), (0.1, FAIL), (0.1, Answer::Value(3))]]);
    let (end, _) = world.run(&plan(vec![Arc::new(Retried::new(retry(3, 1.0)))]));
    assert_eq!(end, End::Value(3));
    let times: Vec<f64> = world.calls.iter().map(|c| c.1).collect();
    assert_eq!(times, [0.0, 1.1, 2.2]);
}

#[test]
fn retry_raises_the_last_error_and_says_why_it_stopped() {
    let mut world = World::new(&[&[(0.0, Answer::Error("first")), (0.0, Answer::Error("second"))]]);
    let (end, _) = world.run(&plan(vec![Arc::new(Retried::new(retry(2, 0.5)))]));
    assert_eq!(end, End::Error("second"));
    assert_eq!(world.names(), ["retry.scheduled", "retry.exhausted"]);
    assert_eq!(world.events.last().map(|e| (e.number, e.reason)), Some((2, "attempts used up")));
}

#[test]
fn what_is_final_is_called_once() {
    let mut world = World::new(&[&[(0.0, Answer::Error("final: 401"))]]);
    let (end, _) = world.run(&plan(vec![Arc::new(Retried::new(retry(5, 1.0)))]));
    assert_eq!((end, world.calls.len()), (End::Error("final: 401"), 1));
}

#[test]
fn retry_after_wins_over_the_wait() {
    let mut world = World::new(&[&[(0.0, Answer::Busy(s(3.0))), (0.0, Answer::Value(1))]]);
    let (end, _) = world.run(&plan(vec![Arc::new(Retried::new(retry(3, 0.1)))]));
    assert_eq!((end, world.elapsed()), (End::Value(1), 3.0));
}

#[test]
fn a_retry_after_beyond_the_cap_gives_up_at_once() {
    let mut world = World::new(&[&[(0.0, Answer::Busy(s(121.0)))]]);
    let (end, _) = world.run(&plan(vec![Arc::new(Retried::new(retry(3, 0.1)))]));
    assert_eq!((end, world.calls.len(), world.elapsed()), (End::Busy, 1, 0.0));
    assert_eq!(world.events.last().map(|e| e.reason), Some("the server asked for a longer wait than allowed"));
}

#[test]
fn no_wait_is_begun_that_cannot_end_in_time() {
    let mut world = World::new(&[&[(0.5, FAIL)]]);
    let limited = Retry { timeout: Some(s(2.0)), ..retry(10, 1.0) };
    let (end, _) = world.run(&plan(vec![Arc::new(Retried::new(limited))]));
    // Calls at 0 and 1.5; the next would begin at 3.
    assert_eq!((end, world.calls.len(), world.elapsed()), (End::Error("down"), 2, 2.0));
    assert_eq!(world.events.last().map(|e| e.reason), Some("no time left for another attempt"));
}

#[test]
fn a_spent_budget_ends_retries_at_once() {
    let budget = Arc::new(Budget::new(0.1, 0.0, 2.0));
    let limited = Retry { budget: Some(budget), ..retry(5, 0.0) };
    let plan = plan(vec![Arc::new(Retried::new(limited))]);
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    for _ in 0..10 {
        world.run(&plan);
    }
    // Ten calls, two retries saved up, one earned.
    assert_eq!(world.calls.len(), 10 + 2 + 1 - 1);
    assert_eq!(world.events.last().map(|e| e.reason), Some("the retry budget is spent"));
}

#[test]
fn breaker_opens_after_failures_in_a_row_and_turns_calls_away() {
    let breaker = Arc::new(CircuitBreaker::new(config(3, 10.0)));
    let plan = plan(vec![guarded(&breaker)]);
    let mut world = World::new(&[&[(0.0, FAIL), (0.0, FAIL), (0.0, Answer::Value(1)), (0.0, FAIL)]]);
    for _ in 0..6 {
        world.run(&plan);
    }
    // Two failures, a success that resets, three failures.
    assert_eq!(breaker.state(world.now), State::Open);
    let (end, _) = world.run(&plan);
    assert_eq!((end, world.calls.len()), (End::Refused(Refusal::CircuitOpen), 6));
}

#[test]
fn neutral_outcomes_neither_count_nor_reset() {
    let breaker = Arc::new(CircuitBreaker::new(config(2, 10.0)));
    let plan = plan(vec![guarded(&breaker)]);
    let mut world = World::new(&[&[(0.0, FAIL), (0.0, Answer::Error("neutral")), (0.0, FAIL)]]);
    for _ in 0..3 {
        world.run(&plan);
    }
    assert_eq!(breaker.state(world.now), State::Open);
}

#[test]
fn half_open_lets_one_probe_through_and_closes_on_its_success() {
    let breaker = CircuitBreaker::new(config(1, 10.0));
    let (permit, _) = breaker.admit(at(0.0)).expect("closed");
    assert_eq!(breaker.settle(permit, Evidence::Failure, at(0.0), &mut || 0.0), Some(Transition::Opened));
    assert_eq!(breaker.admit(at(4.0)), Err(Some(s(6.0))));
    assert_eq!(breaker.state(at(10.0)), State::HalfOpen);
    let (probe, transition) = breaker.admit(at(10.0)).expect("a probe");
    assert_eq!(transition, Some(Transition::HalfOpened));
    assert!(breaker.admit(at(10.0)).is_err(), "one probe at a time");
    assert_eq!(breaker.settle(probe, Evidence::Success, at(11.0), &mut || 0.0), Some(Transition::Closed));
    assert_eq!(breaker.state(at(11.0)), State::Closed);
}

#[test]
fn a_result_from_before_the_trip_changes_nothing() {
    let breaker = CircuitBreaker::new(config(1, 10.0));
    let (early, _) = breaker.admit(at(0.0)).expect("closed");
    let (failing, _) = breaker.admit(at(0.0)).expect("closed");
    breaker.settle(failing, Evidence::Failure, at(1.0), &mut || 0.0);
    assert_eq!(breaker.settle(early, Evidence::Success, at(2.0), &mut || 0.0), None);
    assert_eq!(breaker.state(at(2.0)), State::Open);
    // Neither does it count among the probes.
    let (_probe, _) = breaker.admit(at(11.0)).expect("a probe");
    assert_eq!(breaker.settle(early, Evidence::Success, at(11.0), &mut || 0.0), None);
    assert_eq!(breaker.state(at(11.0)), State::HalfOpen);
}

#[test]
fn an_abandoned_probe_gives_its_place_back() {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 10.0)));
    let plan = plan(vec![guarded(&breaker)]);
    let mut world = World::new(&[&[(0.0, FAIL), (0.0, Answer::Hang), (0.0, Answer::Value(1))]]);
    world.run(&plan);
    world.now = world.now.after(s(10.0));
    let mut probe = Execution::new(plan.clone(), 1, world.now);
    let mut running = Vec::new();
    assert_eq!(world.drive(&mut probe, &mut running, world.now.after(s(1.0))), None);
    assert_eq!(world.run(&plan).0, End::Refused(Refusal::CircuitOpen));
    probe.abandon(world.now);
    assert_eq!(breaker.state(world.now), State::HalfOpen);
    assert_eq!(world.run(&plan).0, End::Value(1));
    assert_eq!(breaker.state(world.now), State::Closed);
}

#[test]
fn a_probe_that_hangs_cannot_wedge_it() {
    let breaker = CircuitBreaker::new(Config { max_half_open_time: s(5.0), ..config(1, 10.0) });
    let (permit, _) = breaker.admit(at(0.0)).expect("closed");
    breaker.settle(permit, Evidence::Failure, at(0.0), &mut || 0.0);
    let (hung, _) = breaker.admit(at(10.0)).expect("a probe");
    assert!(breaker.admit(at(14.9)).is_err());
    let (second, _) = breaker.admit(at(15.0)).expect("the hung probe is given up");
    assert_eq!(breaker.settle(hung, Evidence::Failure, at(16.0), &mut || 0.0), None, "given up: it tells nothing any more");
    assert_eq!(breaker.settle(second, Evidence::Success, at(16.0), &mut || 0.0), Some(Transition::Closed));
}

#[test]
fn several_probes_must_succeed_where_asked() {
    let breaker = CircuitBreaker::new(Config { success_threshold: 2, half_open_max_calls: 2, ..config(1, 1.0) });
    let (permit, _) = breaker.admit(at(0.0)).expect("closed");
    breaker.settle(permit, Evidence::Failure, at(0.0), &mut || 0.0);
    let (one, _) = breaker.admit(at(1.0)).expect("probe");
    let (two, _) = breaker.admit(at(1.0)).expect("probe");
    assert!(breaker.admit(at(1.0)).is_err());
    assert_eq!(breaker.settle(one, Evidence::Success, at(1.0), &mut || 0.0), None);
    assert_eq!(breaker.settle(two, Evidence::Success, at(1.0), &mut || 0.0), Some(Transition::Closed));
}

#[test]
fn recovery_time_grows_with_each_failed_probe() {
    let growth = Backoff::Incrementing { start: 10.0, increment: 10.0, max: 25.0 };
    let breaker = CircuitBreaker::new(Config { recovery_backoff: Some(Arc::new(growth)), ..config(1, 1.0) });
    let mut now = 0.0;
    for wait in [10.0, 20.0, 25.0] {
        let (permit, _) = breaker.admit(at(now)).expect("let through");
        breaker.settle(permit, Evidence::Failure, at(now), &mut || 0.0);
        assert_eq!(breaker.admit(at(now)), Err(Some(s(wait))));
        now += wait;
    }
}

#[test]
fn a_recovery_time_of_zero_means_zero() {
    let breaker = CircuitBreaker::new(config(1, 0.0));
    let (permit, _) = breaker.admit(at(0.0)).expect("closed");
    breaker.settle(permit, Evidence::Failure, at(0.0), &mut || 0.0);
    assert!(breaker.admit(at(0.0)).is_ok());
}

#[test]
fn a_share_of_failures_trips_once_enough_calls_were_seen() {
    let breaker =
        CircuitBreaker::new(Config { consecutive: None, rate: Some(0.5), span: Span::Calls(10), minimum_calls: 4, ..config(1, 1.0) });
    let feed = |failed: bool| {
        let (permit, _) = breaker.admit(at(0.0)).expect("closed");
        breaker.settle(permit, if failed { Evidence::Failure } else { Evidence::Success }, at(0.0), &mut || 0.0)
    };
    assert_eq!([feed(true), feed(true), feed(false)], [None; 3]);
    assert_eq!(feed(true), Some(Transition::Opened));
}

#[test]
fn slow_calls_trip_where_asked() {
    let slow = Slow { duration: s(1.0), ratio: 0.5 };
    let breaker = CircuitBreaker::new(Config { consecutive: None, slow: Some(slow), minimum_calls: 2, ..config(1, 1.0) });
    let feed = |took: f64| {
        let (permit, _) = breaker.admit(at(0.0)).expect("closed");
        breaker.settle(permit, Evidence::Success, at(took), &mut || 0.0)
    };
    assert_eq!([feed(0.5), feed(1.0)], [None, Some(Transition::Opened)]);
}

#[test]
fn states_set_by_hand() {
    let breaker = CircuitBreaker::new(config(1, 10.0));
    breaker.force(State::ForcedOpen, at(0.0));
    assert_eq!(breaker.admit(at(1e6)), Err(None));
    for (state, opens) in [(State::Disabled, false), (State::MetricsOnly, false), (State::Closed, true)] {
        breaker.force(state, at(0.0));
        let (permit, _) = breaker.admit(at(0.0)).expect("let through");
        assert_eq!(breaker.settle(permit, Evidence::Failure, at(0.0), &mut || 0.0).is_some(), opens, "{state:?}");
    }
}

#[test]
fn timeout_cancels_the_call_and_says_so() {
    let mut world = World::new(&[&[(0.0, Answer::Hang)]]);
    let (end, _) = world.run(&plan(vec![Arc::new(Timeout { limit: s(2.0) })]));
    assert_eq!((end, world.elapsed(), world.cancelled), (End::Refused(Refusal::TimedOut), 2.0, 1));
    assert_eq!(world.names(), ["timeout.elapsed"]);
}

#[test]
fn an_answer_in_time_is_the_answer() {
    let mut world = World::new(&[&[(1.9, Answer::Value(1))]]);
    let (end, _) = world.run(&plan(vec![Arc::new(Timeout { limit: s(2.0) })]));
    assert_eq!((end, world.cancelled), (End::Value(1), 0));
}

#[test]
fn alternatives_are_tried_in_order_and_the_first_error_is_raised() {
    let mut builder = PlanBuilder::default();
    let branches = (0..3).map(|t| builder.leaf(Target(t))).collect();
    let root = builder.layer(Arc::new(Fallback { judges_values: false }), branches);
    let plan = builder.build(root);
    let mut world =
        World::new(&[&[(0.0, Answer::Error("a"))], &[(0.0, Answer::Error("b"))], &[(0.0, Answer::Value(3)), (0.0, Answer::Error("c"))]]);
    assert_eq!(world.run(&plan).0, End::Value(3));
    let (end, execution) = world.run(&plan);
    assert_eq!(end, End::Error("a"));
    let others: Vec<End> = execution.attached().iter().map(|o| world.end(*o)).collect();
    assert_eq!(others, [End::Error("b"), End::Error("c")]);
    assert_eq!(world.calls.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_final_error_needs_no_alternative() {
    let mut builder = PlanBuilder::default();
    let branches = (0..2).map(|t| builder.leaf(Target(t))).collect();
    let root = builder.layer(Arc::new(Fallback { judges_values: false }), branches);
    let plan = builder.build(root);
    let mut world = World::new(&[&[(0.0, Answer::Error("final"))], &[(0.0, Answer::Value(1))]]);
    assert_eq!(world.run(&plan).0, End::Error("final"));
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn time_never_runs_backwards_for_a_machine_without_limits() {
    let mut world = World::new(&[&[(1.0, Answer::Value(1))]]);
    let (end, execution) = world.run(&plan(vec![]));
    assert_eq!((end, execution.calls()), (End::Value(1), 1));
    assert_eq!(execution.next_wake(), Instant::NEVER);
    assert!(Duration::ZERO < s(0.1));
}
