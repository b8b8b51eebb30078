//! What tests may ask of an execution: not to wait, to make few attempts.

use super::policies::{FAIL, config, guarded, retry};
use crate::virtual_time::{Answer, End, World, plan, s};
use seawall::engine::{Execution, Instant, Plan, Policy, Refusal};
use seawall::policies::circuit_breaker::CircuitBreaker;
use seawall::policies::retry::Retried;
use std::sync::Arc;

fn run(world: &mut World, plan: &Arc<Plan>, dress: impl Fn(&mut Execution)) -> End {
    let mut execution = Execution::new(plan.clone(), 7, world.now);
    dress(&mut execution);
    let outcome = world.drive(&mut execution, &mut Vec::new(), Instant::NEVER).expect("it ends");
    world.end(outcome)
}

#[test]
fn hurried_retries_follow_at_once_and_tell_the_wait_left_out() {
    let mut world = World::new(&[&[(1.0, FAIL), (1.0, Answer::Busy(s(60.0))), (1.0, Answer::Value(3))]]);
    let plan = plan(vec![Arc::new(Retried::new(retry(3, 30.0)))]);
    assert_eq!(run(&mut world, &plan, Execution::hurry), End::Value(3));
    assert_eq!(world.calls.iter().map(|c| c.1).collect::<Vec<_>>(), [0.0, 1.0, 2.0]);
    assert_eq!(world.events.iter().map(|e| e.span).collect::<Vec<_>>(), [s(30.0), s(60.0)]);
}

#[test]
fn a_wait_that_comes_too_late_is_too_late_for_the_hurried_too() {
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    let mut policy = retry(3, 30.0);
    policy.timeout = Some(s(20.0));
    let plan = plan(vec![Arc::new(Retried::new(policy))]);
    assert_eq!(run(&mut world, &plan, Execution::hurry), End::Error("down"));
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn a_cap_holds_for_each_retry_and_only_lowers() {
    for (cap, calls) in [(1, 1), (2, 2), (9, 3)] {
        let mut world = World::new(&[&[(0.0, FAIL)]]);
        let plan = plan(vec![Arc::new(Retried::new(retry(3, 1.0)))]);
        assert_eq!(run(&mut world, &plan, |e| e.cap(cap)), End::Error("down"));
        assert_eq!(world.calls.len(), calls);
        assert_eq!(world.events.last().map(|e| (e.number as usize, e.reason)), Some((calls, "attempts used up")));
    }
}

#[test]
fn a_hurried_call_asks_an_open_circuit_once() {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 60.0)));
    let policies: Vec<Arc<dyn Policy>> = vec![Arc::new(Retried::new(retry(5, 1.0))), guarded(&breaker)];
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    let plan = plan(policies);
    assert_eq!(run(&mut world, &plan, Execution::hurry), End::Error("down"));
    assert_eq!(run(&mut world, &plan, Execution::hurry), End::Refused(Refusal::CircuitOpen));
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn attempts_are_told_to_whoever_asks() {
    let mut world = World::new(&[&[(1.0, FAIL), (1.0, Answer::Value(3))]]);
    let plan = plan(vec![Arc::new(Retried::new(retry(3, 2.0)))]);
    assert_eq!(run(&mut world, &plan, Execution::announce), End::Value(3));
    let told: Vec<_> = world.events.iter().map(|e| (e.name.as_str(), e.number, e.span, e.elapsed())).collect();
    let wanted = [("attempt.started", 1, 0.0, 0.0), ("retry.scheduled", 1, 2.0, 1.0), ("attempt.started", 2, 3.0, 3.0)];
    assert_eq!(told, wanted.map(|(name, number, span, elapsed)| (name, number, s(span), s(elapsed))));
    let mut world = World::new(&[&[(0.0, Answer::Value(3))]]);
    run(&mut world, &plan, |_| {});
    assert_eq!(world.events, []);
}
