//! The machine under a driver that looks at it between the steps.

use super::policies::{FAIL, retry};
use crate::virtual_time::{World, at, plan, s};
use seawall::engine::{
    CallId, Cx, Execution, Flow, Input, Instant, Layer, Outcome, PlanBuilder, Policy, Refusal, Step, Target, Ticket, Verdict,
};
use seawall::policies::retry::{Retried, Retry};
use seawall::policies::timeout::Timeout;
use std::sync::Arc;

const VALUE: Outcome = Outcome::Value(Ticket(0));

#[test]
fn a_call_that_nobody_could_stop_is_over_once_somebody_looks_at_the_time() {
    let mut execution = Execution::new(plan(vec![Arc::new(Timeout { limit: s(2.0) })]), 7, at(1.0));
    assert!(matches!(execution.step(at(1.0)), Step::Start { call: CallId::FIRST, .. }));
    execution.wake(at(2.9));
    assert!(!execution.is_over(CallId::FIRST) && !execution.has_events());
    execution.wake(at(3.0));
    assert!(execution.is_over(CallId::FIRST) && execution.has_events());
    assert_eq!(execution.take_events().len(), 1);
    assert!(!execution.has_events());
    // Its answer comes too late for anybody to hear.
    execution.ended(CallId::FIRST, VALUE);
    execution.opened(CallId::FIRST, Ticket(1));
    assert_eq!(execution.step(at(3.0)), Step::Cancel { call: CallId::FIRST, beaten: false });
    assert!(matches!(execution.step(at(3.0)), Step::Done(Outcome::Rejected(_))));
}

#[test]
fn calls_are_counted_over_all_attempts() {
    let (_, execution) = World::new(&[&[(0.0, FAIL)]]).run(&plan(vec![Arc::new(Retried::new(retry(3, 1.0)))]));
    assert_eq!(execution.calls(), 3);
}

#[test]
fn a_call_that_is_over_asks_for_no_time() {
    let mut execution = Execution::new(plan(vec![Arc::new(Timeout { limit: s(2.0) })]), 7, at(1.0));
    execution.step(at(1.0));
    assert_eq!(execution.next_wake(), at(3.0));
    execution.ended(CallId::FIRST, VALUE);
    assert_eq!(execution.step(at(1.5)), Step::Done(VALUE));
    assert_eq!(execution.next_wake(), Instant::NEVER);
}

/// A call that failed at once and waits for its next attempt.
fn waiting_until_five(policies: Vec<Arc<dyn Policy>>) -> Execution {
    let mut execution = Execution::new(plan(policies), 7, at(1.0));
    assert!(matches!(execution.step(at(1.0)), Step::Start { .. }));
    execution.ended(CallId::FIRST, Outcome::Error(Ticket(0)));
    assert!(matches!(execution.step(at(1.0)), Step::Judge(_)));
    execution.verdict(Verdict::FAILURE, at(1.0));
    assert_eq!(execution.step(at(1.0)), Step::Wait { until: at(5.0) });
    execution
}

#[test]
fn a_wait_that_ends_after_the_limit_begins_no_attempt() {
    let limited: [Vec<Arc<dyn Policy>>; 2] = [
        vec![Arc::new(Timeout { limit: s(5.0) }), Arc::new(Retried::new(retry(9, 4.0)))],
        vec![Arc::new(Retried::new(Retry { timeout: Some(s(5.0)), ..retry(9, 4.0) }))],
    ];
    for policies in limited {
        let mut execution = waiting_until_five(policies);
        // Something kept the driver from looking in time.
        assert_eq!(execution.step(at(6.0)), Step::Done(Outcome::Error(Ticket(0))));
        assert_eq!(execution.take_events().next_back().map(|e| e.reason), Some("no time left for another attempt"));
        assert_eq!(execution.calls(), 1);
    }
}

#[test]
fn an_attempt_that_its_limit_overtook_is_not_begun() {
    let limit = |seconds| Arc::new(Timeout { limit: s(seconds) }) as Arc<dyn Policy>;
    // The attempt is the call itself, or another policy around it that has not heard of its beginning yet.
    for inside in [vec![], vec![limit(2.0)]] {
        let policies = [vec![limit(5.0), Arc::new(Retried::new(retry(9, 4.0)))], inside].concat();
        let mut execution = waiting_until_five(policies);
        // A driver that comes late: the wait is over, and so is the limit around it.
        execution.wake(at(7.0));
        let end = execution.step(at(7.0));
        assert!(matches!(end, Step::Done(Outcome::Rejected(rejection)) if rejection.refusal() == Refusal::TimedOut), "{end:?}");
        assert_eq!(execution.next_wake(), Instant::NEVER);
    }
}

/// Goes in by the second branch after a second, beside the first; whichever answers first answers.
#[derive(Clone, Copy)]
struct Racing;

impl Policy for Racing {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(*self)
    }
}

impl Layer for Racing {
    fn on(&mut self, input: Input, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => {
                cx.wake_at(cx.now().after(s(1.0)));
                Flow::Inward(0)
            }
            Input::Wake => Flow::Inward(1),
            Input::Child(outcome @ Outcome::Value(_), _) => Flow::Resolve(outcome),
            _ => Flow::Hold,
        }
    }
}

#[test]
fn an_answer_outlives_a_limit_that_passes_beside_it() {
    let mut builder = PlanBuilder::default();
    let slow = builder.leaf(Target(0));
    let limited = builder.layer(Arc::new(Timeout { limit: s(2.0) }), vec![slow]);
    let quick = builder.leaf(Target(1));
    let root = builder.layer(Arc::new(Racing), vec![limited, quick]);
    let mut execution = Execution::new(builder.build(root), 7, at(1.0));
    assert!(matches!(execution.step(at(1.0)), Step::Start { target: Target(0), .. }));
    assert_eq!(execution.step(at(1.0)), Step::Wait { until: at(2.0) });
    let Step::Start { call, target: Target(1), .. } = execution.step(at(2.0)) else { panic!("the second branch") };
    execution.ended(call, VALUE);
    execution.wake(at(3.0));
    assert_eq!(execution.step(at(3.0)), Step::Cancel { call: CallId::FIRST, beaten: false });
    assert_eq!(execution.step(at(3.0)), Step::Done(VALUE));
}
