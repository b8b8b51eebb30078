//! What a breaker decides by its shadow alone, and what it tells about itself.

use super::policies::{FAIL, config, guarded, retry};
use crate::virtual_time::{End, World, at, plan, s};
use seawall::engine::{CallId, Execution, Instant, Outcome, Pass, Plan, PlanBuilder, Policy, Refusal, Target, Ticket};
use seawall::policies::POLICIES;
use seawall::policies::chaos::{Chaos, Config as Doses, Injecting};
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Evidence, Slow, State, Transition};
use seawall::policies::fallback::Fallback;
use seawall::policies::guardrails::Guardrails;
use seawall::policies::hedge::{self, Hedge, Hedged};
use seawall::policies::timeout::{Threaded, Timeout};
use std::sync::Arc;
use std::time::Duration;

/// A success on the lane whose driver must not be asked for the time.
fn settles_without_a_clock(plan: &Plan, pass: &Pass) -> bool {
    plan.settle(pass, &|| panic!("nothing changes, so no time is needed"))
}

fn admitted(plan: &Plan) -> Pass {
    let mut pass = Pass::new(at(1.0));
    assert!(plan.admit(&mut pass));
    pass
}

fn windowed(consecutive: u32) -> Config {
    Config { rate: Some(1.0), ..config(consecutive, 10.0) }
}

#[test]
fn a_success_that_changes_nothing_needs_no_time() {
    let breaker = Arc::new(CircuitBreaker::new(config(3, 10.0)));
    let plan = plan(vec![guarded(&breaker)]);
    assert!(settles_without_a_clock(&plan, &admitted(&plan)));
    for state in [State::Disabled, State::MetricsOnly, State::Closed] {
        breaker.force(state, at(1.0));
        assert!(settles_without_a_clock(&plan, &admitted(&plan)), "{state:?}");
    }
}

#[test]
fn a_success_from_an_earlier_era_needs_no_time() {
    // With a window every success of this era counts, so only the era can be the reason.
    let breaker = Arc::new(CircuitBreaker::new(windowed(3)));
    let plan = plan(vec![guarded(&breaker)]);
    let pass = admitted(&plan);
    breaker.reset(at(2.0));
    assert!(settles_without_a_clock(&plan, &pass));
    assert_eq!(breaker.outlook(at(2.0)).totals.calls, 0);
}

#[test]
fn a_success_that_is_counted_asks_for_the_time() {
    let breaker = Arc::new(CircuitBreaker::new(windowed(3)));
    let plan = plan(vec![guarded(&breaker)]);
    let pass = admitted(&plan);
    assert!(plan.settle(&pass, &|| at(2.0)));
    assert_eq!(breaker.outlook(at(2.0)).totals.calls, 1);
}

#[test]
fn a_slow_call_is_plain_where_nobody_asked_for_speed() {
    let breaker = Arc::new(CircuitBreaker::new(windowed(3)));
    let plain = plan(vec![guarded(&breaker)]);
    assert!(plain.settle(&admitted(&plain), &|| at(1e6)));
    // Reconfigured so that it is asked, a call of that length is the machine's.
    breaker.reconfigure(Config { slow: Some(Slow { duration: s(2.0), ratio: 1.0 }), ..windowed(3) });
    assert!(plain.settle(&admitted(&plain), &|| at(2.9)));
    assert!(!plain.settle(&admitted(&plain), &|| at(3.0)));
}

#[test]
fn a_call_let_in_by_the_lane_goes_on_although_the_circuit_has_opened_since() {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 10.0)));
    let plan = plan(vec![guarded(&breaker)]);
    let pass = admitted(&plan);
    breaker.force(State::Open, at(1.0));
    let mut execution = Execution::resumed(plan, 7, &pass, Instant::NEVER);
    execution.ended(CallId::FIRST, Outcome::Value(Ticket(0)));
    assert_eq!(execution.step(at(2.0)), seawall::engine::Step::Done(Outcome::Value(Ticket(0))));
    // Of an earlier era: it tells nothing.
    assert_eq!((breaker.state(at(2.0)), breaker.outlook(at(2.0)).rejected), (State::Open, 0));
}

#[test]
fn a_rejection_further_in_leaves_a_row_of_failures_as_it_is() {
    let outer = Arc::new(CircuitBreaker::new(config(2, 60.0)));
    let inner = Arc::new(CircuitBreaker::new(config(9, 60.0)));
    let plan = plan(vec![guarded(&outer), guarded(&inner)]);
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    world.run(&plan);
    inner.force(State::ForcedOpen, world.now);
    assert_eq!(world.run(&plan).0, End::Refused(Refusal::CircuitOpen));
    assert_eq!(outer.outlook(world.now).consecutive_failures, 1);
}

#[test]
fn a_permit_says_whether_it_is_a_probes() {
    let breaker = CircuitBreaker::new(config(1, 10.0));
    let (permit, _) = breaker.admit(at(0.0)).expect("closed");
    assert!(!permit.is_probe());
    breaker.settle(permit, Evidence::Failure, at(0.0), 0.0);
    assert!(breaker.admit(at(10.0)).expect("a probe").0.is_probe());
}

#[test]
fn there_are_changes_to_take_until_somebody_takes_them() {
    let breaker = CircuitBreaker::new(config(1, 10.0));
    assert!(!breaker.has_changes());
    breaker.force(State::Disabled, at(0.0));
    assert!(breaker.has_changes());
    assert_eq!(breaker.take_changes().len(), 1);
    assert!(!breaker.has_changes());
}

#[test]
fn a_lenient_circuit_knows_slow_calls_too() {
    let slow = Some(Slow { duration: s(2.0), ratio: 0.5 });
    let breaker = CircuitBreaker::new(Config { lenient: true, consecutive: None, slow, minimum_calls: 2, ..config(1, 10.0) });
    let took = |seconds: f64| {
        let (permit, _) = breaker.admit(at(1.0)).expect("closed");
        breaker.settle(permit, Evidence::Success, at(1.0 + seconds), 0.5)
    };
    assert_eq!([took(1.9), took(1.9), took(2.0), took(2.0)], [None, None, None, Some(Transition::Opened)]);
}

#[test]
fn every_policy_bears_its_name_in_the_table() {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 1.0)));
    let doses = Doses { latency: (Duration::ZERO, Duration::ZERO), latency_rate: 0.0, exception_rate: 0.0, result_rate: 0.0 };
    let limit = Timeout { limit: s(1.0) };
    let hedge = Hedge::new(hedge::Config { delay: hedge::Delay::Fixed(s(1.0)), max_hedges: 1, budget: 0.05 });
    let all: Vec<(Arc<dyn Policy>, &str)> = vec![
        (Arc::new(Fallback { judges_values: false }), "Fallback"),
        (Arc::new(retry(1, 0.0)), "Retry"),
        (Arc::new(Hedged(Arc::new(hedge))), "Hedge"),
        (guarded(&breaker), "CircuitBreaker"),
        (Arc::new(limit), "Timeout"),
        (Arc::new(Threaded(limit)), "Timeout"),
        (Arc::new(Injecting(Arc::new(Chaos::new(doses, 1)))), "Chaos"),
        (Arc::new(Guardrails), "Guardrails"),
    ];
    for (policy, class) in all {
        let row = POLICIES.iter().find(|row| row.class == class).expect("a row");
        let mut builder = PlanBuilder::default();
        let leaf = builder.leaf(Target(0));
        let stage = builder.layer(policy, vec![leaf]);
        let plan = builder.build(stage);
        assert_eq!(plan.policy(stage).expect("a layer").kind(), row.kind);
        assert!(plan.policy(leaf).is_none());
        assert_eq!((plan.len(), plan.is_empty()), (2, false));
    }
    // In the canonical order, each at its own place.
    assert!(POLICIES.is_sorted_by(|a, b| a.rank < b.rank));
}
