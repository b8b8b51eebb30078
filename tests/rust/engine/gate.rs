//! What a breaker decides by its shadow alone, and what it tells about itself.

use super::policies::{FAIL, config, guarded};
use crate::virtual_time::{End, World, admitted, at, plan, resumed, s, settles};
use seawall::engine::{CallId, Instant, Outcome, Pass, Plan, Refusal, Ticket};
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Evidence, Slow, State, Transition};
use std::sync::Arc;

/// A success on the lane whose driver must not be asked for the time.
fn settles_without_a_clock(plan: &Plan, pass: &Pass) -> bool {
    settles(plan, pass, &|| panic!("nothing changes, so no time is needed"))
}

fn windowed(consecutive: u32) -> Config {
    Config { rate: Some(1.0), ..config(consecutive, 10.0) }
}

#[test]
fn a_success_that_changes_nothing_needs_no_time() {
    let breaker = Arc::new(CircuitBreaker::new(config(3, 10.0)));
    let plan = plan(vec![guarded(&breaker)]);
    assert!(settles_without_a_clock(&plan, &admitted(&plan, at(1.0))));
    for state in [State::Disabled, State::MetricsOnly, State::Closed] {
        breaker.force(state, at(1.0));
        assert!(settles_without_a_clock(&plan, &admitted(&plan, at(1.0))), "{state:?}");
    }
}

#[test]
fn a_success_from_an_earlier_era_needs_no_time() {
    // With a window every success of this era counts, so only the era can be the reason.
    let breaker = Arc::new(CircuitBreaker::new(windowed(3)));
    let plan = plan(vec![guarded(&breaker)]);
    let pass = admitted(&plan, at(1.0));
    breaker.reset(at(2.0));
    assert!(settles_without_a_clock(&plan, &pass));
    assert_eq!(breaker.outlook(at(2.0)).totals.calls, 0);
}

#[test]
fn a_success_that_is_counted_asks_for_the_time() {
    let breaker = Arc::new(CircuitBreaker::new(windowed(3)));
    let plan = plan(vec![guarded(&breaker)]);
    let pass = admitted(&plan, at(1.0));
    assert!(settles(&plan, &pass, &|| at(2.0)));
    assert_eq!(breaker.outlook(at(2.0)).totals.calls, 1);
}

#[test]
fn a_slow_call_is_plain_where_nobody_asked_for_speed() {
    let breaker = Arc::new(CircuitBreaker::new(windowed(3)));
    let plain = plan(vec![guarded(&breaker)]);
    assert!(settles(&plain, &admitted(&plain, at(1.0)), &|| at(1e6)));
    // Reconfigured so that it is asked, a call of that length is the machine's.
    breaker.reconfigure(Config { slow: Some(Slow { duration: s(2.0), ratio: 1.0 }), ..windowed(3) });
    assert!(settles(&plain, &admitted(&plain, at(1.0)), &|| at(2.9)));
    assert!(!settles(&plain, &admitted(&plain, at(1.0)), &|| at(3.0)));
}

#[test]
fn a_call_let_in_by_the_lane_goes_on_although_the_circuit_has_opened_since() {
    let breaker = Arc::new(CircuitBreaker::new(config(1, 10.0)));
    let plan = plan(vec![guarded(&breaker)]);
    let pass = admitted(&plan, at(1.0));
    breaker.force(State::Open, at(1.0));
    let mut execution = resumed(plan, 7, &pass, Instant::NEVER);
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
    breaker.settle(permit, Evidence::Failure, at(0.0), &mut || 0.0);
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
        breaker.settle(permit, Evidence::Success, at(1.0 + seconds), &mut || 0.5)
    };
    assert_eq!([took(1.9), took(1.9), took(2.0), took(2.0)], [None, None, None, Some(Transition::Opened)]);
}
