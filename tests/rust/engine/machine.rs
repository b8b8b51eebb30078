//! The machine under a driver that looks at it between the steps.

use super::policies::{FAIL, retry};
use crate::virtual_time::{World, at, plan, s};
use seawall::engine::{CallId, Execution, Instant, Outcome, Policy, Refusal, Step, Ticket, Verdict};
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
    assert_eq!(execution.step(at(3.0)), Step::Cancel { call: CallId::FIRST });
    assert!(matches!(execution.step(at(3.0)), Step::Done(Outcome::Rejected(_))));
}

#[test]
fn calls_are_counted_over_all_attempts() {
    let (_, execution) = World::new(&[&[(0.0, FAIL)]]).run(&plan(vec![Arc::new(retry(3, 1.0))]));
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

#[test]
fn an_attempt_that_its_limit_overtook_is_not_begun() {
    let limit = |seconds| Arc::new(Timeout { limit: s(seconds) }) as Arc<dyn Policy>;
    // The attempt is the call itself, or another policy around it that has not heard of its beginning yet.
    for inside in [vec![], vec![limit(2.0)]] {
        let policies = [vec![limit(5.0), Arc::new(retry(9, 4.0))], inside].concat();
        let mut execution = Execution::new(plan(policies), 7, at(1.0));
        assert!(matches!(execution.step(at(1.0)), Step::Start { .. }));
        execution.ended(CallId::FIRST, Outcome::Error(Ticket(0)));
        assert!(matches!(execution.step(at(1.0)), Step::Judge(_)));
        execution.verdict(Verdict::FAILURE, at(1.0));
        assert_eq!(execution.step(at(1.0)), Step::Wait { until: at(5.0) });
        // A driver that comes late: the wait is over, and so is the limit around it.
        execution.wake(at(7.0));
        let end = execution.step(at(7.0));
        assert!(matches!(end, Step::Done(Outcome::Rejected(rejection)) if rejection.refusal == Refusal::TimedOut), "{end:?}");
        assert_eq!(execution.next_wake(), Instant::NEVER);
    }
}
