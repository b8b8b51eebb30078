//! The fast lane is a shortcut through the machine: the same story gives the same end, events and state on both.

use super::limits::by_the_second;
use super::policies::{FAIL, config, guarded, retry};
use crate::virtual_time::{Answer, World, at, s};
use proptest::prelude::*;
use seawall::engine::{Plan, PlanBuilder, Policy, Target};
use seawall::policies::budget::Budget;
use seawall::policies::bulkhead::{self, Bounded, Bulkhead};
use seawall::policies::circuit_breaker::{self, CircuitBreaker, Slow, Span, State};
use seawall::policies::fallback::Fallback;
use seawall::policies::rate_limit::{Config, Limited, RateLimit};
use seawall::policies::retry::{Retried, Retry};
use seawall::policies::timeout::Timeout;
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
struct Shape {
    breaker: u8,
    attempts: u32,
    budget: bool,
    limit: Option<u8>,
    fallback: bool,
    /// A rate limit of one request a second, and a place in a bulkhead.
    limited: (bool, bool),
}

fn breaker(kind: u8) -> circuit_breaker::Config {
    let windowed = |span| circuit_breaker::Config { consecutive: None, rate: Some(0.5), span, minimum_calls: 3, ..config(1, 2.0) };
    match kind {
        0 => config(2, 2.0),
        1 => windowed(Span::Calls(5)),
        2 => windowed(Span::Time(s(4.0))),
        3 => circuit_breaker::Config { slow: Some(Slow { duration: s(0.5), ratio: 0.5 }), ..windowed(Span::Calls(4)) },
        4 => circuit_breaker::Config { lenient: true, ..config(2, 1.5) },
        _ => circuit_breaker::Config { success_threshold: 2, half_open_max_calls: 2, ..config(3, 1.0) },
    }
}

/// One set of policies; built twice, it gives two worlds that share nothing.
fn build(shape: Shape) -> (Arc<Plan>, Arc<CircuitBreaker>) {
    let shared = Arc::new(CircuitBreaker::new(breaker(shape.breaker)));
    let budget = shape.budget.then(|| Arc::new(Budget::new(0.5, 0.0, 2.0)));
    let mut plan = PlanBuilder::default();
    let mut inner = plan.leaf(Target(0));
    let (limited, bounded) = shape.limited;
    let mut policies: Vec<Arc<dyn Policy>> = Vec::new();
    let room = bulkhead::Config { max_concurrency: 1, max_queue: 0, max_wait: None };
    policies.extend(bounded.then(|| Arc::new(Bounded(Arc::new(Bulkhead::new(room)))) as Arc<dyn Policy>));
    let limit = || Arc::new(RateLimit::new(Config { max_queue: 1, ..by_the_second(2.0, false) }));
    policies.extend(limited.then(|| Arc::new(Limited { limit: limit(), is_keyed: false, looks: false }) as Arc<dyn Policy>));
    policies.extend([guarded(&shared), Arc::new(Retried::new(Retry { budget, ..retry(shape.attempts, 0.25) }))]);
    policies.extend(shape.limit.map(|tenths| Arc::new(Timeout { limit: s(f64::from(tenths) / 10.0) }) as Arc<dyn Policy>));
    for policy in policies {
        inner = plan.layer(policy, vec![inner]);
    }
    if shape.fallback {
        let alternative = plan.leaf(Target(1));
        inner = plan.layer(Arc::new(Fallback { judges_values: false }), vec![inner, alternative]);
    }
    (plan.build(inner), shared)
}

fn shapes() -> impl Strategy<Value = Shape> {
    (0u8..6, 1u32..4, any::<bool>(), proptest::option::of(1u8..20), any::<bool>(), any::<(bool, bool)>())
        .prop_map(|(breaker, attempts, budget, limit, fallback, limited)| Shape { breaker, attempts, budget, limit, fallback, limited })
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Value(1)),
        3 => Just(FAIL),
        1 => Just(Answer::Error("final: 401")),
        1 => Just(Answer::Error("neutral")),
        1 => Just(Answer::Busy(s(0.5))),
        1 => Just(Answer::Stream(s(0.25), Ok(()))),
        1 => Just(Answer::Stream(s(0.25), Err("cut"))),
    ]
}

/// How long a call takes, how it comes out, and the pause after the guarded call that began with it.
fn stories() -> impl Strategy<Value = Vec<(u8, Answer, u8)>> {
    proptest::collection::vec((prop_oneof![3 => Just(0u8), 1 => 1u8..9], answers(), 0u8..30), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn lane_and_machine_tell_the_same_story(shape in shapes(), story in stories()) {
        let script: Vec<(f64, Answer)> = story.iter().map(|(takes, answer, _)| (f64::from(*takes) / 10.0, *answer)).collect();
        let spare = [(0.0, Answer::Value(2))];
        let (by_machine, by_lane, by_one) = (build(shape), build(shape), build(shape));
        let (mut machine, mut lane) = (World::new(&[&script, &spare]), World::new(&[&script, &spare]));
        // One machine for all calls, whether they began on the lane or not.
        let mut one = World::new(&[&script, &spare]);
        one.keeps = true;
        for (_, _, pause) in &story {
            let (end, _) = machine.run(&by_machine.0);
            let (same, _) = lane.run_by_lane(&by_lane.0, shape.limit.is_none());
            let again = if pause % 3 == 0 { one.run_again(&by_one.0) } else { one.run_by_lane(&by_one.0, shape.limit.is_none()).0 };
            prop_assert_eq!((end, end), (same, again));
            prop_assert_eq!((machine.now, machine.now), (lane.now, one.now));
            prop_assert_eq!(by_machine.1.outlook(machine.now), by_lane.1.outlook(lane.now));
            prop_assert_eq!(by_machine.1.outlook(machine.now), by_one.1.outlook(one.now));
            machine.now = machine.now.after(s(f64::from(*pause) / 10.0));
            (lane.now, one.now) = (machine.now, machine.now);
        }
        for other in [&lane, &one] {
            prop_assert_eq!(&machine.calls, &other.calls);
            prop_assert_eq!(&machine.events, &other.events);
            prop_assert_eq!(&machine.delivered, &other.delivered);
        }
    }
}

#[test]
fn a_call_without_trouble_takes_the_lane_and_one_with_trouble_does_not() {
    let (plan, breaker) = build(Shape { breaker: 0, attempts: 2, budget: true, limit: Some(10), fallback: true, limited: (false, false) });
    let mut world =
        World::new(&[&[(0.0, Answer::Value(1)), (0.0, FAIL), (0.0, FAIL), (0.0, Answer::Value(1))], &[(0.0, Answer::Value(2))]]);
    let lanes: Vec<bool> = (0..3).map(|_| world.run_by_lane(&plan, false).1).collect();
    // The second call's failures open the circuit; the third is turned away.
    assert_eq!(lanes, [true, false, false]);
    assert_eq!(breaker.state(world.now), State::Open);
    world.now = at(100.0);
    // A probe is the machine's, and once it has closed the circuit the lane is free again.
    assert_eq!((0..2).map(|_| world.run_by_lane(&plan, false).1).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_policy_that_judges_results_has_no_lane() {
    let (plan, _) = build(Shape { breaker: 0, attempts: 2, budget: false, limit: None, fallback: false, limited: (false, false) });
    assert!(plan.way().is_some());
    let mut builder = PlanBuilder::default();
    let leaf = builder.leaf(Target(0));
    let root = builder.layer(Arc::new(Retried::new(Retry { judges_values: true, ..retry(2, 0.0) })), vec![leaf]);
    assert!(builder.build(root).way().is_none());
}
