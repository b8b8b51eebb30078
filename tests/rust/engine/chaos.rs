//! Chaos in virtual time: what it injects, and how the policies around it see that.

use super::policies::{config, guarded, retry};
use crate::virtual_time::{Answer, End, World, admitted, at, resumed, s};
use seawall::engine::{Plan, PlanBuilder, Policy, Random, Refusal, Target};
use seawall::policies::chaos::{CALL, Chaos, Config, Dose, Injecting};
use seawall::policies::circuit_breaker::{CircuitBreaker, State};
use seawall::policies::retry::Retried;
use seawall::policies::timeout::Timeout;
use std::sync::Arc;
use std::time::Duration;

const NOTHING: Config = Config { latency: (Duration::ZERO, Duration::ZERO), latency_rate: 0.0, exception_rate: 0.0, result_rate: 0.0 };
/// The call, the exception, the result.
const SCRIPT: &[&[(f64, Answer)]] = &[&[(1.0, Answer::Value(1))], &[(0.0, Answer::Error("injected"))], &[(0.0, Answer::Value(2))]];

fn on(config: Config) -> Arc<Chaos> {
    let chaos = Arc::new(Chaos::new(config, 7));
    chaos.switch(true);
    chaos
}

/// `policies` around the chaos around the call.
fn around(policies: Vec<Arc<dyn Policy>>, chaos: &Arc<Chaos>) -> Arc<Plan> {
    let mut builder = PlanBuilder::default();
    let branches = (0..3).map(|target| builder.leaf(Target(target))).collect();
    let mut inner = builder.layer(Arc::new(Injecting(chaos.clone())), branches);
    for policy in policies.into_iter().rev() {
        inner = builder.layer(policy, vec![inner]);
    }
    builder.build(inner)
}

#[test]
fn an_exception_is_a_failure_like_any_other() {
    let chaos = on(Config { exception_rate: 1.0, ..NOTHING });
    let breaker = Arc::new(CircuitBreaker::new(config(2, 30.0)));
    let mut world = World::new(SCRIPT);
    let (end, _) = world.run(&around(vec![Arc::new(Retried::new(retry(2, 1.0))), guarded(&breaker)], &chaos));
    assert_eq!(end, End::Error("injected"));
    assert_eq!(world.calls.iter().map(|c| c.0).collect::<Vec<_>>(), [1, 1], "the function itself is not called");
    assert_eq!(breaker.state(world.now), State::Open);
    assert_eq!(world.names(), ["chaos.injected", "retry.scheduled", "chaos.injected", "circuit.opened", "retry.exhausted"]);
}

#[test]
fn a_result_comes_in_place_of_the_call() {
    let chaos = on(Config { result_rate: 1.0, ..NOTHING });
    let mut world = World::new(SCRIPT);
    assert_eq!(world.run(&around(vec![], &chaos)).0, End::Value(2));
    assert_eq!(world.events.last().map(|e| e.reason), Some("result"));
}

#[test]
fn latency_comes_before_the_call_and_a_time_limit_ends_it() {
    let chaos = on(Config { latency: (s(4.0), s(4.0)), latency_rate: 1.0, ..NOTHING });
    let mut world = World::new(SCRIPT);
    assert_eq!(world.run(&around(vec![], &chaos)).0, End::Value(1));
    assert_eq!((world.calls[0].1, world.elapsed()), (4.0, 5.0));
    let mut world = World::new(SCRIPT);
    let (end, _) = world.run(&around(vec![Arc::new(Timeout { limit: s(3.0) })], &chaos));
    assert_eq!((end, world.calls.len(), world.elapsed()), (End::Refused(Refusal::TimedOut), 0, 3.0));
}

#[test]
fn latency_and_exception_are_drawn_apart() {
    let chaos = on(Config { latency: (s(2.0), s(2.0)), latency_rate: 1.0, exception_rate: 1.0, ..NOTHING });
    let mut world = World::new(SCRIPT);
    assert_eq!(world.run(&around(vec![], &chaos)).0, End::Error("injected"));
    assert_eq!(world.elapsed(), 2.0);
    assert_eq!(world.events.iter().map(|e| e.reason).collect::<Vec<_>>(), ["latency", "exception"]);
}

#[test]
fn calls_pass_by_the_lane_while_it_is_off_and_only_then() {
    let chaos = on(Config { exception_rate: 1.0, ..NOTHING });
    let plan = around(vec![Arc::new(Retried::new(retry(1, 0.0)))], &chaos);
    let mut world = World::new(SCRIPT);
    assert_eq!(world.run_by_lane(&plan, true), (End::Error("injected"), false));
    chaos.switch(false);
    assert_eq!(world.run_by_lane(&plan, true), (End::Value(1), true));
    admitted(&plan, world.now);
}

#[test]
fn a_call_that_was_let_in_before_it_was_switched_on_is_left_alone() {
    let chaos = Arc::new(Chaos::new(Config { exception_rate: 1.0, ..NOTHING }, 7));
    let plan = around(vec![Arc::new(Retried::new(retry(2, 1.0)))], &chaos);
    let mut world = World::new(&[&[(1.0, Answer::Error("its own")), (1.0, Answer::Value(1))], SCRIPT[1], SCRIPT[2]]);
    let pass = admitted(&plan, world.now);
    chaos.switch(true);
    let mut execution = resumed(plan, 7, &pass, seawall::engine::Instant::NEVER);
    let outcome = world.failed_first(&mut execution);
    // The second attempt comes to it anew.
    assert_eq!(world.end(outcome), End::Error("injected"));
}

#[test]
fn waits_lie_between_the_two_that_were_given() {
    let chaos = on(Config { latency: (s(1.0), s(3.0)), latency_rate: 1.0, ..NOTHING });
    let waits: Vec<Duration> = (0..1_000).filter_map(|_| chaos.dose(at(1.0))).map(|dose| dose.latency).collect();
    assert!(waits.len() == 1_000 && waits.iter().all(|wait| (s(1.0)..=s(3.0)).contains(wait)));
    assert!(waits.iter().any(|wait| *wait < s(1.1)) && waits.iter().any(|wait| *wait > s(2.9)));
}

#[test]
fn a_rate_of_nothing_hits_nothing() {
    let chaos = on(NOTHING);
    assert!((0..1_000).filter_map(|_| chaos.dose(at(1.0))).all(|dose| dose == Dose { latency: Duration::ZERO, branch: CALL }));
    let mut world = World::new(SCRIPT);
    assert_eq!((world.run(&around(vec![], &chaos)).0, world.events.len()), (End::Value(1), 0));
}

#[test]
fn a_rate_of_nothing_is_not_met_by_a_draw_of_nothing() {
    // The seeds whose first, third or fourth number is exactly 0: how slow, whether it raises, whether it gives.
    for draws in [1, 3, 4] {
        let seed = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(draws).wrapping_neg();
        let mut random = Random::seeded(seed);
        assert_eq!((1..=draws).map(|_| random.unit()).last(), Some(0.0));
        let chaos = Chaos::new(Config { latency: (s(1.0), s(1.0)), ..NOTHING }, seed);
        chaos.switch(true);
        assert_eq!(chaos.dose(at(1.0)), Some(Dose { latency: Duration::ZERO, branch: CALL }));
    }
}

#[test]
fn a_stretch_is_on_until_its_end_and_is_no_switch() {
    let chaos = Chaos::new(NOTHING, 7);
    let plan = around(vec![], &Arc::new(Chaos::new(NOTHING, 7)));
    // Off: calls pass by the lane.
    admitted(&plan, at(1.0));
    chaos.begin(at(5.0));
    assert_eq!([at(4.9), at(5.0)].map(|now| chaos.is_on(now)), [true, false]);
    assert!(!chaos.is_switched_on());
    chaos.switch(true);
    assert!(chaos.is_switched_on() && chaos.is_on(at(5.0)));
    chaos.switch(false);
    assert!(!chaos.is_switched_on() && !chaos.is_on(at(1.0)));
    chaos.begin(at(5.0));
    chaos.switch(false);
    assert!(!chaos.is_on(at(1.0)), "switched off is off: stretches end too");
}

#[test]
fn a_stream_beside_chaos_is_handed_out_and_judged_at_its_end() {
    let chaos = Arc::new(Chaos::new(NOTHING, 7));
    let breaker = Arc::new(CircuitBreaker::new(config(1, 30.0)));
    let plan = around(vec![guarded(&breaker)], &chaos);
    // By the machine from the beginning, and let in by the lane before.
    for by_lane in [false, true] {
        breaker.reset(at(1.0));
        let mut world = World::new(&[&[(0.5, Answer::Stream(s(4.0), Err("cut")))], SCRIPT[1], SCRIPT[2]]);
        let end = if by_lane { world.run_by_lane(&plan, false).0 } else { world.run(&plan).0 };
        assert_eq!((end, world.delivered.as_slice(), world.elapsed()), (End::Error("cut"), &[0.5][..], 4.5));
        assert_eq!(breaker.state(world.now), State::Open);
    }
}
