//! Pairs of policies, in virtual time: given this order, when the callee does that, then so.

use super::policies::{FAIL, config, guarded, retry};
use crate::virtual_time::{Answer, End, World, plan, s};
use seawall::engine::{PlanBuilder, Policy, Refusal, StageId, Target};
use seawall::policies::circuit_breaker::{CircuitBreaker, State};
use seawall::policies::fallback::Fallback;
use seawall::policies::retry::Retried;
use seawall::policies::timeout::Timeout;
use std::sync::Arc;

fn timeout(seconds: f64) -> Arc<dyn Policy> {
    Arc::new(Timeout { limit: s(seconds) })
}

/// A fallback around a primary with policies, and one alternative.
fn with_alternative(primary: Vec<Arc<dyn Policy>>) -> Arc<seawall::engine::Plan> {
    let mut builder = PlanBuilder::default();
    let mut inner: StageId = builder.leaf(Target(0));
    for policy in primary.into_iter().rev() {
        inner = builder.layer(policy, vec![inner]);
    }
    let alternative = builder.leaf(Target(1));
    let root = builder.layer(Arc::new(Fallback { judges_values: false }), vec![inner, alternative]);
    builder.build(root)
}

#[test]
fn retry_around_breaker_the_last_real_error_is_raised_when_it_opens_during_the_call() {
    let breaker = Arc::new(CircuitBreaker::new(config(2, 60.0)));
    let plan = plan(vec![Arc::new(Retried::new(retry(5, 1.0))), guarded(&breaker)]);
    let mut world = World::new(&[&[(0.0, Answer::Error("one")), (0.0, Answer::Error("two"))]]);
    let (end, _) = world.run(&plan);
    assert_eq!((end, world.calls.len()), (End::Error("two"), 2));
    assert_eq!(world.events.last().map(|e| (e.number, e.reason)), Some((2, "the circuit opened")), "a refusal is no attempt");
    // The next call meets an open circuit and is not retried: there is nothing to wait for.
    let before = world.now;
    assert_eq!(world.run(&plan).0, End::Refused(Refusal::CircuitOpen));
    assert_eq!((world.calls.len(), world.now), (2, before));
}

#[test]
fn breaker_around_retry_counts_calls_not_attempts() {
    let breaker = Arc::new(CircuitBreaker::new(config(2, 60.0)));
    let plan = plan(vec![guarded(&breaker), Arc::new(Retried::new(retry(3, 0.0)))]);
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    world.run(&plan);
    assert_eq!(breaker.state(world.now), State::Closed);
    world.run(&plan);
    assert_eq!((breaker.state(world.now), world.calls.len()), (State::Open, 6));
}

#[test]
fn timeout_around_retry_ends_attempts_and_waits_together() {
    let mut world = World::new(&[&[(1.0, FAIL), (1.0, Answer::Hang)]]);
    let (end, _) = world.run(&plan(vec![timeout(5.0), Arc::new(Retried::new(retry(9, 1.0)))]));
    assert_eq!((end, world.elapsed(), world.calls.len(), world.cancelled), (End::Refused(Refusal::TimedOut), 5.0, 2, 1));
}

#[test]
fn timeout_around_retry_begins_no_wait_that_cannot_end_in_time() {
    let mut world = World::new(&[&[(1.0, FAIL)]]);
    let (end, _) = world.run(&plan(vec![timeout(5.0), Arc::new(Retried::new(retry(9, 3.0)))]));
    // Attempts at 0 and 4; at 5 the limit passes while the second runs to its end at 5: its error is there in time.
    assert_eq!((end, world.calls.len()), (End::Error("down"), 2));
}

#[test]
fn retry_around_timeout_each_attempt_has_its_own_limit() {
    let mut world = World::new(&[&[(0.0, Answer::Hang), (0.0, Answer::Hang), (0.5, Answer::Value(1))]]);
    let (end, _) = world.run(&plan(vec![Arc::new(Retried::new(retry(3, 1.0))), timeout(2.0)]));
    assert_eq!((end, world.elapsed(), world.cancelled), (End::Value(1), 2.0 + 1.0 + 2.0 + 1.0 + 0.5, 2));
}

#[test]
fn breaker_around_timeout_a_timeout_is_a_failure() {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 60.0)));
    let mut world = World::new(&[&[(0.0, Answer::Hang)]]);
    world.run(&plan(vec![guarded(&breaker), timeout(2.0)]));
    assert_eq!(breaker.state(world.now), State::Open);
}

#[test]
fn timeout_around_breaker_an_abandoned_call_is_no_evidence() {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 60.0)));
    let mut world = World::new(&[&[(0.0, Answer::Hang)]]);
    world.run(&plan(vec![timeout(2.0), guarded(&breaker)]));
    assert_eq!(breaker.state(world.now), State::Closed);
}

#[test]
fn breaker_around_breaker_a_rejection_further_in_is_neutral() {
    let (outer, inner) = (Arc::new(CircuitBreaker::new(config(1, 60.0))), Arc::new(CircuitBreaker::new(config(1, 60.0))));
    inner.force(State::ForcedOpen, seawall::engine::Instant(1));
    let mut world = World::new(&[&[(0.0, Answer::Value(1))]]);
    let (end, _) = world.run(&plan(vec![guarded(&outer), guarded(&inner)]));
    assert_eq!((end, outer.state(world.now)), (End::Refused(Refusal::CircuitOpen), State::Closed));
}

#[test]
fn fallback_around_breaker_skips_the_primary_without_a_call() {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 60.0)));
    let plan = with_alternative(vec![guarded(&breaker)]);
    let mut world = World::new(&[&[(0.0, FAIL)], &[(0.0, Answer::Value(2))]]);
    assert_eq!(world.run(&plan).0, End::Value(2));
    assert_eq!(world.run(&plan).0, End::Value(2));
    assert_eq!(world.calls.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1, 1]);
}

#[test]
fn fallback_around_timeout_serves_when_the_primary_is_too_slow() {
    let mut world = World::new(&[&[(0.0, Answer::Hang)], &[(0.5, Answer::Value(2))]]);
    let (end, _) = world.run(&with_alternative(vec![timeout(3.0), Arc::new(Retried::new(retry(3, 1.0)))]));
    assert_eq!((end, world.elapsed()), (End::Value(2), 3.5));
}

#[test]
fn timeout_around_fallback_is_the_limit_of_everything() {
    let mut builder = PlanBuilder::default();
    let branches = (0..2).map(|t| builder.leaf(Target(t))).collect();
    let fallback = builder.layer(Arc::new(Fallback { judges_values: false }), branches);
    let root = builder.layer(timeout(2.0), vec![fallback]);
    let plan = builder.build(root);
    let mut world = World::new(&[&[(1.0, FAIL)], &[(0.0, Answer::Hang)]]);
    let (end, _) = world.run(&plan);
    assert_eq!((end, world.elapsed(), world.cancelled), (End::Refused(Refusal::TimedOut), 2.0, 1));
}

#[test]
fn fallback_around_retry_first_runs_out_of_attempts() {
    let mut world = World::new(&[&[(0.0, FAIL)], &[(0.0, Answer::Value(2))]]);
    let (end, _) = world.run(&with_alternative(vec![Arc::new(Retried::new(retry(3, 1.0)))]));
    assert_eq!(end, End::Value(2));
    assert_eq!(world.calls, [(0, 0.0), (0, 1.0), (0, 2.0), (1, 2.0)]);
}

#[test]
fn a_stream_that_opens_is_handed_out_and_judged_at_its_end() {
    let breaker = Arc::new(CircuitBreaker::new(config(2, 60.0)));
    let plan = plan(vec![Arc::new(Retried::new(retry(3, 1.0))), guarded(&breaker)]);
    let mut world = World::new(&[&[(0.5, FAIL), (0.5, Answer::Stream(s(4.0), Err("cut")))]]);
    let (end, _) = world.run(&plan);
    // The first failure was retried; after the first content nothing restarts, and the breaker hears of the end.
    assert_eq!((end, world.calls.len(), world.elapsed()), (End::Error("cut"), 2, 0.5 + 1.0 + 0.5 + 4.0));
    assert_eq!(world.delivered, [2.0]);
    assert_eq!(breaker.state(world.now), State::Open);
}

#[test]
fn the_total_limit_interrupts_an_open_stream() {
    let mut world = World::new(&[&[(0.5, Answer::Stream(s(60.0), Ok(())))]]);
    let (end, _) = world.run(&plan(vec![timeout(5.0), Arc::new(Retried::new(retry(3, 1.0)))]));
    assert_eq!((end, world.elapsed(), world.cancelled), (End::Refused(Refusal::TimedOut), 5.0, 1));
}

#[test]
fn a_stream_whose_pieces_are_taken_back_is_a_failed_attempt() {
    let breaker = Arc::new(CircuitBreaker::new(config(2, 60.0)));
    let whole = plan(vec![Arc::new(Retried::new(retry(3, 1.0))), guarded(&breaker), timeout(8.0)]);
    let cut = Answer::Stream(s(4.0), Err("cut"));
    let mut world = World::new(&[&[(0.5, cut), (0.5, Answer::Stream(s(4.0), Ok(())))]]);
    world.takes_back = true;
    let (end, execution) = world.run(&whole);
    assert_eq!((end, execution.calls(), world.elapsed()), (End::Streamed, 2, 0.5 + 4.0 + 1.0 + 0.5 + 4.0));
    assert_eq!((world.delivered.as_slice(), world.names()), (&[0.5, 6.0][..], vec!["retry.scheduled"]));
    // The second was good, so the breaker begins to count anew; then two are enough, and the third is not let in.
    world = World::new(&[&[(0.5, cut)]]);
    world.takes_back = true;
    let (end, execution) = world.run(&whole);
    assert_eq!((end, execution.calls()), (End::Error("cut"), 2));
    assert_eq!((breaker.state(world.now), world.events.last().map(|e| e.reason)), (State::Open, Some("the circuit opened")));
}

#[test]
fn a_limit_that_passes_over_such_a_stream_is_judged_too() {
    let limited = plan(vec![Arc::new(Retried::new(retry(2, 1.0))), timeout(2.0)]);
    let mut world = World::new(&[&[(0.5, Answer::Stream(s(60.0), Ok(()))), (0.5, Answer::Value(1))]]);
    world.takes_back = true;
    let (end, _) = world.run(&limited);
    assert_eq!((end, world.elapsed(), world.cancelled), (End::Value(1), 3.5, 1));
}
