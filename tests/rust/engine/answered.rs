//! Questions that are answered from within a step come out as those that are handed out.

use super::policies::{FAIL, config, guarded, retry};
use crate::virtual_time::{Answer, End, World, s};
use proptest::prelude::*;
use seawall::engine::{Event, Plan, PlanBuilder, Policy, StageId, Target};
use seawall::policies::circuit_breaker::CircuitBreaker;
use seawall::policies::fallback::Fallback;
use seawall::policies::retry::{Counts, Retried, Retry, Totals};
use seawall::policies::timeout::Timeout;
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Retry { attempts: u32, wait: u64 },
    Breaker { failures: u32 },
    Timeout { tenths: u64 },
}

fn policy(kind: Kind, counts: &Arc<Counts>) -> Arc<dyn Policy> {
    match kind {
        Kind::Retry { attempts, wait } => Arc::new(Retried::new(Retry { counts: counts.clone(), ..retry(attempts, wait as f64 / 10.0) })),
        Kind::Breaker { failures } => guarded(&Arc::new(CircuitBreaker::new(config(failures, 0.5)))),
        Kind::Timeout { tenths } => Arc::new(Timeout { limit: s(tenths as f64 / 10.0) }),
    }
}

/// Policies around a primary, outermost first, and an alternative where there is to be one.
fn build(kinds: &[Kind], alternative: bool, counts: &Arc<Counts>) -> Arc<Plan> {
    let mut builder = PlanBuilder::default();
    let mut root = builder.leaf(Target(0));
    for kind in kinds.iter().rev() {
        root = builder.layer(policy(*kind, counts), vec![root]);
    }
    if alternative {
        let other = builder.leaf(Target(1));
        root = builder.layer(Arc::new(Fallback { judges_values: false }), vec![root, other]);
    }
    builder.build(root)
}

type Told = (Vec<End>, Vec<(usize, f64)>, Vec<Event>, Vec<(StageId, usize)>, usize, f64, Totals);

/// A few calls after each other, and all that can be told of them.
fn told(kinds: &[Kind], alternative: bool, script: &[(f64, Answer)], at_once: bool) -> Told {
    let counts = Arc::default();
    let plan = build(kinds, alternative, &counts);
    let mut world = World::new(&[script, &[(0.1, FAIL), (0.0, Answer::Value(2))]]);
    // As Python's driver of plain calls has it, one machine makes all calls.
    (world.at_once, world.keeps) = (at_once, at_once);
    let ends = (0..3).map(|_| if at_once { world.run_again(&plan) } else { world.run(&plan).0 }).collect();
    let elapsed = world.elapsed();
    (ends, world.calls, world.events, world.asked.into_inner(), world.cancelled, elapsed, counts.totals())
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let kind = prop_oneof![
        3 => (1..5_u32, 0..4_u64).prop_map(|(attempts, wait)| Kind::Retry { attempts, wait }),
        3 => (1..4_u32).prop_map(|failures| Kind::Breaker { failures }),
        1 => (1..15_u64).prop_map(|tenths| Kind::Timeout { tenths }),
    ];
    prop::collection::vec(kind, 1..5)
}

fn answers() -> impl Strategy<Value = Vec<(f64, Answer)>> {
    let answer = prop_oneof![
        2 => Just(Answer::Value(1)),
        6 => Just(FAIL),
        1 => Just(Answer::Error("final: 401")),
        1 => Just(Answer::Error("neutral: cancelled")),
        1 => (0..20_u64).prop_map(|tenths| Answer::Busy(s(tenths as f64 / 10.0))),
        1 => Just(Answer::Stream(s(0.1), Err("cut"))),
    ];
    prop::collection::vec((prop_oneof![Just(0.0), Just(0.2)], answer), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn answered_at_once_or_later_a_call_goes_the_same_way(kinds in kinds(), alternative: bool, script in answers()) {
        prop_assert_eq!(told(&kinds, alternative, &script, true), told(&kinds, alternative, &script, false));
    }
}

#[test]
fn nobody_is_asked_before_what_has_happened_was_published() {
    let kinds = [Kind::Retry { attempts: 3, wait: 0 }, Kind::Breaker { failures: 2 }];
    let (ends, _, events, asked, ..) = told(&kinds, false, &[(0.0, FAIL)], true);
    assert_eq!(ends[0], End::Error("down"));
    // The breaker and the retry of the first attempt, the breaker of the second; then it has opened, and the retry hears of it last.
    let opened = events.iter().position(|event| event.name.as_str() == "circuit.opened").expect("it opens");
    let known: Vec<usize> = asked.iter().map(|(_, known)| *known).collect();
    assert_eq!((opened, &known[..4]), (1, &[0, 0, 1, 2][..]));
}
