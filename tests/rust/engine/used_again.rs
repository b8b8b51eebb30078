//! A machine whose call is over does for another what a new one would.

use super::policies::{FAIL, config, guarded, retry};
use crate::virtual_time::{Answer, End, World, at, s};
use proptest::prelude::*;
use seawall::engine::{CallId, Event, Execution, Instant, Outcome, Pass, Plan, Policy, Step, Ticket};
use seawall::policies::budget::Budget;
use seawall::policies::circuit_breaker::{self, CircuitBreaker, State};
use seawall::policies::retry::{Counts, Retry, Totals, backoff::Backoff};
use seawall::policies::timeout::Timeout;
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
struct Shape {
    outer: u32,
    inner: u32,
    budget: bool,
    failures: u32,
    limit: Option<u64>,
}

/// Retries inside each other, with waits by chance: all that a passage has to forget.
fn build(shape: Shape, counts: &[Arc<Counts>; 2]) -> Arc<Plan> {
    let wait = || Arc::new(Backoff::DecorrelatedJitter { initial: 0.1, max: 5.0 });
    let budget = shape.budget.then(|| Arc::new(Budget::new(0.5, 0.0, 3.0)));
    let inner = Retry { wait: wait(), budget, counts: counts[0].clone(), ..retry(shape.inner, 0.0) };
    let outer = Retry { wait: wait(), counts: counts[1].clone(), ..retry(shape.outer, 0.0) };
    let recovery_backoff = Some(Arc::new(Backoff::DecorrelatedJitter { initial: 0.5, max: 5.0 }));
    let breaker = CircuitBreaker::new(circuit_breaker::Config { recovery_backoff, ..config(shape.failures, 0.5) });
    let mut policies: Vec<Arc<dyn Policy>> = vec![Arc::new(outer), Arc::new(inner), guarded(&Arc::new(breaker))];
    policies.extend(shape.limit.map(|tenths| Arc::new(Timeout { limit: s(tenths as f64 / 10.0) }) as Arc<dyn Policy>));
    crate::virtual_time::plan(policies)
}

type Told = (Vec<(End, bool)>, Vec<(usize, f64)>, Vec<Event>, [Totals; 2]);

fn told(shape: Shape, script: &[(f64, Answer)], calls: u64, anew: bool) -> Told {
    let counts = [Arc::default(), Arc::default()];
    let plan = build(shape, &counts);
    let mut world = World::new(&[script]);
    world.anew = anew;
    let mut ends = Vec::new();
    for call in 0..calls {
        world.seed = call;
        ends.push(world.run_by_lane(&plan, shape.limit.is_none()));
    }
    (ends, world.calls, world.events, counts.map(|counts| counts.totals()))
}

fn shapes() -> impl Strategy<Value = Shape> {
    (1..4_u32, 1..4_u32, any::<bool>(), 1..5_u32, prop::option::of(1..9_u64)).prop_map(|(outer, inner, budget, failures, limit)| Shape {
        outer,
        inner,
        budget,
        failures,
        limit,
    })
}

fn answers() -> impl Strategy<Value = Vec<(f64, Answer)>> {
    let answer = prop_oneof![
        3 => Just(Answer::Value(1)),
        6 => Just(FAIL),
        1 => Just(Answer::Error("final: 401")),
        1 => Just(Answer::Error("neutral: cancelled")),
        1 => (0..20_u64).prop_map(|tenths| Answer::Busy(s(tenths as f64 / 10.0))),
    ];
    prop::collection::vec((prop_oneof![Just(0.0), Just(0.4)], answer), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_machine_that_is_used_again_is_as_good_as_new(shape in shapes(), script in answers(), calls in 2..8_u64) {
        prop_assert_eq!(told(shape, &script, calls, false), told(shape, &script, calls, true));
    }
}

#[test]
fn a_retry_inside_another_pays_into_its_budget_each_time_it_begins() {
    let budget = Some(Arc::new(Budget::new(1.0, 0.0, 1.0)));
    let plan = crate::virtual_time::plan(vec![Arc::new(retry(3, 0.0)), Arc::new(Retry { budget, ..retry(2, 0.0) })]);
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    for calls in [6, 12] {
        assert_eq!(world.run_by_lane(&plan, true), (End::Error("down"), false));
        assert_eq!(world.calls.len(), calls, "each of three passages may try once more");
    }
}

#[test]
fn a_call_that_was_let_in_stays_so_by_a_machine_that_is_used_again() {
    let breaker = Arc::new(CircuitBreaker::new(config(9, 5.0)));
    let plan = crate::virtual_time::plan(vec![guarded(&breaker)]);
    let way = plan.way().expect("a lane");
    let mut pass = Pass::new(at(1.0));
    assert!(way.admit(&mut pass));
    let mut execution = Execution::resumed(plan.clone(), 7, &pass, Instant::NEVER);
    execution.ended(CallId::FIRST, Outcome::Value(Ticket(0)));
    assert_eq!(execution.step(at(1.0)), Step::Done(Outcome::Value(Ticket(0))));
    assert!(way.admit(&mut pass) && execution.clear());
    breaker.force(State::Open, at(1.0));
    execution.resumes(7, &pass, Instant::NEVER);
    execution.ended(CallId::FIRST, Outcome::Value(Ticket(1)));
    assert_eq!(execution.step(at(1.0)), Step::Done(Outcome::Value(Ticket(1))));
    assert_eq!(breaker.state(at(1.0)), State::Open);
}

#[test]
fn one_whose_call_is_not_over_is_not_used_again() {
    let plan = crate::virtual_time::plan(vec![Arc::new(retry(2, 1.0))]);
    let mut execution = Execution::new(plan, 7, at(1.0));
    assert!(!execution.clear());
    execution.abandon(at(1.0));
    assert!(execution.clear());
}
