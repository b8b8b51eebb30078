//! The machine under a driver that looks at it between the steps.

use super::policies::{FAIL, retry};
use crate::virtual_time::{World, at, plan, s};
use seawall::engine::{CallId, Execution, Instant, Outcome, Step, Ticket};
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
