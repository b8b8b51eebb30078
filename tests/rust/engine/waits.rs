//! What an execution waits for, what wakes it, and whom.

use super::limits::plan;
use crate::virtual_time::{at, s};
use seawall::engine::{CallId, Execution, Instant, Outcome, Policy, Step, Target, Ticket, Verdict};
use seawall::policies::bulkhead::{Bounded, Bulkhead, Config};
use seawall::policies::retry::{Counts, Retried, Retry, backoff::Backoff};
use std::sync::Arc;

fn retry(wait: f64) -> Arc<dyn Policy> {
    Arc::new(Retried::new(Retry {
        attempts: 5,
        wait: Arc::new(Backoff::Fixed { wait }),
        timeout: None,
        max_retry_after: s(120.0),
        budget: None,
        judges_values: false,
        counts: Arc::new(Counts::default()),
    }))
}

#[test]
fn a_place_is_waited_for_by_its_own_layer_alone_and_no_longer_than_it_takes() {
    let bulkhead = Arc::new(Bulkhead::new(Config { max_concurrency: 1, max_queue: 1, max_wait: Some(s(5.0)) }));
    let held = bulkhead.try_enter().expect("there is room");
    let mut execution = Execution::new(plan(vec![retry(0.0), Arc::new(Bounded(bulkhead.clone()))]), 1, at(0.0));
    assert!(execution.signal().is_none());
    assert_eq!(execution.step(at(0.0)), Step::Wait { until: at(5.0) });
    // The limit cuts the wait short; no time has to pass for it.
    assert!(execution.signal().is_some() && !execution.passes_time());
    bulkhead.leave(held);
    assert_eq!(execution.step(at(1.0)), Step::Start { call: CallId::FIRST, target: Target(0), deadline: Instant::NEVER });
    // Nobody else was woken, nothing listens any more, and the limit is gone.
    assert_eq!(execution.step(at(1.0)), Step::Wait { until: Instant::NEVER });
    assert!(execution.signal().is_none());
    // Somebody comes and goes beside it: the signal is not this call's any more.
    execution.bell().give();
    assert_eq!(execution.step(at(9.0)), Step::Wait { until: Instant::NEVER });
}

#[test]
fn a_wait_between_attempts_passes_time() {
    let mut execution = Execution::new(plan(vec![retry(3.0)]), 1, at(0.0));
    assert!(matches!(execution.step(at(0.0)), Step::Start { .. }));
    assert!(!execution.passes_time());
    execution.ended(CallId::FIRST, Outcome::Error(Ticket(0)));
    assert!(matches!(execution.step(at(1.0)), Step::Judge(_)));
    execution.verdict(Verdict::FAILURE, at(1.0));
    assert_eq!(execution.step(at(1.0)), Step::Wait { until: at(4.0) });
    assert!(execution.passes_time());
    assert!(matches!(execution.step(at(4.0)), Step::Start { .. }));
    assert!(!execution.passes_time());
}
