//! A deadline that comes from the call around.

use super::policies::{FAIL, retry};
use crate::virtual_time::{Answer, End, World, admitted, at, plan, resumed, s};
use seawall::engine::{CallId, Execution, Instant, Policy, Refusal, Step};
use seawall::policies::retry::Retried;
use seawall::policies::timeout::{Threaded, Timeout};
use std::sync::Arc;

fn run(world: &mut World, policies: Vec<Arc<dyn Policy>>, deadline: f64) -> (End, f64) {
    let mut execution = Execution::within(plan(policies), 7, world.now, world.now.after(s(deadline)));
    let outcome = world.drive(&mut execution, &mut Vec::new(), Instant::NEVER).expect("it ends");
    if let seawall::engine::Outcome::Rejected(rejection) = outcome {
        assert_eq!(rejection.limit(), s(deadline), "the limit that really was the limit is told");
    }
    (world.end(outcome), world.elapsed())
}

#[test]
fn a_looser_limit_ends_its_call_with_the_callers() {
    let mut world = World::new(&[&[(0.0, Answer::Hang)]]);
    let ended = run(&mut world, vec![Arc::new(Timeout { limit: s(60.0) })], 10.0);
    assert_eq!(ended, (End::Refused(Refusal::TimedOut), 10.0));
    assert_eq!(world.events.last().map(|e| e.span), Some(s(10.0)));
}

#[test]
fn a_wait_that_the_caller_has_no_time_for_is_not_begun() {
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    assert_eq!(run(&mut world, vec![Arc::new(Retried::new(retry(9, 4.0)))], 10.0), (End::Error("down"), 8.0));
    assert_eq!(world.calls.len(), 3);
}

#[test]
fn nested_limits_are_all_cut_and_one_of_them_says_so() {
    let mut world = World::new(&[&[(0.0, Answer::Hang)]]);
    let limits: Vec<Arc<dyn Policy>> =
        vec![Arc::new(Timeout { limit: s(60.0) }), Arc::new(Retried::new(retry(3, 0.0))), Arc::new(Timeout { limit: s(30.0) })];
    assert_eq!(run(&mut world, limits, 10.0), (End::Refused(Refusal::TimedOut), 10.0));
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn a_call_resumed_from_the_lane_inherits_it_and_tells_its_own_deadline() {
    let world = World::new(&[&[(0.0, Answer::Hang)]]);
    let policies: Vec<Arc<dyn Policy>> = vec![Arc::new(Retried::new(retry(2, 0.0))), Arc::new(Timeout { limit: s(4.0) })];
    let plan = plan(policies);
    let pass = admitted(&plan, world.now);
    let execution = resumed(plan.clone(), 7, &pass, world.now.after(s(10.0)));
    assert_eq!(execution.deadline_of(CallId::FIRST), at(5.0));
    assert_eq!(execution.deadline_of(CallId(7)), Instant::NEVER);
    let tight = resumed(plan, 7, &pass, world.now.after(s(3.0)));
    assert_eq!((tight.deadline_of(CallId::FIRST), tight.next_wake()), (at(4.0), at(4.0)));
}

#[test]
fn a_limit_kept_by_threads_is_never_the_lanes() {
    let limit = Timeout { limit: s(4.0) };
    assert!(plan(vec![Arc::new(limit)]).way().is_some());
    let threaded = plan(vec![Arc::new(Threaded(limit))]);
    assert!(threaded.way().is_none());
    let mut execution = Execution::new(threaded, 7, at(1.0));
    assert!(matches!(execution.step(at(1.0)), Step::Start { deadline, .. } if deadline == at(5.0)));
    assert_eq!(execution.next_wake(), at(5.0));
}

#[test]
fn a_retry_counts_calls_attempts_and_waits() {
    let policy = Arc::new(Retried::new(retry(3, 2.0)));
    let counts = policy.0.counts.clone();
    for (script, _) in [([(0.0, FAIL); 1], 0), ([(0.0, Answer::Value(1)); 1], 0), ([(0.0, Answer::Error("final: 401")); 1], 0)] {
        World::new(&[&script]).run(&plan(vec![policy.clone()]));
    }
    let seen = counts.totals();
    assert_eq!((seen.calls, seen.attempts, seen.retries, seen.exhausted, seen.waited), (3, 5, 2, 1, s(4.0)));
    counts.passed(4);
    assert_eq!((counts.totals().calls, counts.totals().attempts), (7, 9));
}
