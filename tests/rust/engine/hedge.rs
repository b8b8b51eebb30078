//! Hedge in virtual time: alone, with what stands inside of it, against a naive model, and on a server with a tail.

use super::policies::{config, guarded, retry};
use crate::virtual_time::{Answer, End, World, at, plan, s};
use proptest::prelude::*;
use seawall::engine::{CallId, Execution, Instant, Policy, Random, Refusal, Step, Ticket};
use seawall::policies::bulkhead::{self, Bounded, Bulkhead};
use seawall::policies::circuit_breaker::{self, CircuitBreaker};
use seawall::policies::hedge::{Config, Delay, Hedge, Hedged};
use seawall::policies::retry::Retried;
use seawall::policies::timeout::Timeout;
use std::sync::Arc;
use std::time::Duration;

const SLOW: (f64, Answer) = (9.0, Answer::Value(1));
const QUICK: (f64, Answer) = (0.1, Answer::Value(2));

fn hedge(delay: f64, max_hedges: u32, budget: f64) -> Arc<Hedge> {
    Arc::new(Hedge::new(Config { delay: Delay::Fixed(s(delay)), max_hedges, budget }))
}

fn around(hedge: &Arc<Hedge>, inside: Vec<Arc<dyn Policy>>) -> Arc<seawall::engine::Plan> {
    plan([vec![Arc::new(Hedged(hedge.clone())) as Arc<dyn Policy>], inside].concat())
}

fn room(places: usize) -> Arc<Bulkhead> {
    Arc::new(Bulkhead::new(bulkhead::Config { max_concurrency: places, max_queue: 9, max_wait: None }))
}

/// A breaker that counts, and never opens.
fn counting() -> Arc<CircuitBreaker> {
    Arc::new(CircuitBreaker::new(circuit_breaker::Config { consecutive: None, rate: Some(1.0), minimum_calls: 90, ..config(1, 1.0) }))
}

#[test]
fn a_slow_call_is_made_once_more_and_the_first_answer_is_the_answer() {
    let (hedge, room) = (hedge(1.0, 1, 1.0), room(5));
    let mut world = World::new(&[&[SLOW, QUICK]]);
    let (end, execution) = world.run(&around(&hedge, vec![Arc::new(Bounded(room.clone()))]));
    assert_eq!((end, world.elapsed()), (End::Value(2), 1.1));
    assert_eq!((world.calls.len(), world.cancelled, execution.calls()), (2, 1, 2));
    assert_eq!(world.names(), ["hedge.started", "hedge.won"]);
    assert_eq!(room.counts(), (0, 0));
    let totals = hedge.totals();
    assert_eq!((totals.calls, totals.hedges, totals.wins, totals.denied), (1, 1, 1, 0));
}

#[test]
fn an_answer_in_time_and_one_that_comes_first_all_the_same_win_nothing() {
    let mut world = World::new(&[&[(0.9, Answer::Value(1)), (1.5, Answer::Value(2)), SLOW]]);
    let hedge = hedge(1.0, 1, 1.0);
    assert_eq!(world.run(&around(&hedge, vec![])).0, End::Value(1));
    assert_eq!(world.run(&around(&hedge, vec![])).0, End::Value(2));
    assert_eq!((world.calls.len(), world.names()), (3, vec!["hedge.started"]));
    assert_eq!(hedge.totals().wins, 0);
}

/// A call that is hedged, and both of its attempts.
fn two_under_way() -> (Execution, CallId, CallId) {
    let mut execution = Execution::new(around(&hedge(1.0, 1, 1.0), vec![]), 7, at(1.0));
    let started = |step| match step {
        Step::Start { call, .. } => call,
        other => panic!("{other:?}"),
    };
    let first = started(execution.step(at(1.0)));
    assert_eq!(execution.step(at(1.0)), Step::Wait { until: at(2.0) });
    assert!(!execution.passes_time(), "nobody waits for a hedge's time: it cuts in");
    let second = started(execution.step(at(2.0)));
    (execution, first, second)
}

#[test]
fn losers_are_cancelled_as_beaten_and_those_that_are_late_are_not() {
    let (mut execution, first, second) = two_under_way();
    execution.ended(second, seawall::engine::Outcome::Value(Ticket(0)));
    assert_eq!(execution.step(at(2.5)), Step::Cancel { call: first, beaten: true });
    assert!(matches!(execution.step(at(2.5)), Step::Done(_)));

    let limit: Vec<Arc<dyn Policy>> = vec![Arc::new(Timeout { limit: s(3.0) }), Arc::new(Hedged(hedge(1.0, 1, 1.0)))];
    let mut world = World::new(&[&[(0.0, Answer::Hang)]]);
    assert_eq!(world.run(&plan(limit)).0, End::Refused(Refusal::TimedOut));
    assert_eq!((world.calls.len(), world.cancelled, world.elapsed()), (2, 2, 3.0));
}

#[test]
fn a_failure_waits_for_the_other_unless_that_must_fail_alike() {
    let fails = (2.0, Answer::Error("down"));
    for (script, end, elapsed, calls) in [
        (vec![fails, (3.0, Answer::Value(2))], End::Value(2), 4.0, 2),
        (vec![fails, (3.0, Answer::Error("later"))], End::Error("down"), 4.0, 2),
        (vec![(2.0, Answer::Error("final")), (3.0, Answer::Value(2))], End::Error("final"), 2.0, 2),
        (vec![(0.5, Answer::Error("down")), QUICK], End::Error("down"), 0.5, 1),
    ] {
        let mut world = World::new(&[&script]);
        assert_eq!(world.run(&around(&hedge(1.0, 1, 1.0), vec![])).0, end, "{script:?}");
        assert_eq!((world.elapsed(), world.calls.len()), (elapsed, calls), "{script:?}");
    }
}

#[test]
fn a_hedge_that_is_turned_away_is_none() {
    let narrow = Arc::new(Bulkhead::new(bulkhead::Config { max_concurrency: 1, max_queue: 0, max_wait: None }));
    let mut world = World::new(&[&[(3.0, Answer::Value(1))]]);
    assert_eq!(world.run(&around(&hedge(1.0, 2, 1.0), vec![Arc::new(Bounded(narrow.clone()))])).0, End::Value(1));
    assert_eq!((world.calls.len(), world.elapsed(), narrow.counts()), (1, 3.0, (0, 0)));
    // Turned away with nothing else under way, the call is.
    assert!(narrow.try_enter().is_some());
    assert_eq!(world.run(&around(&hedge(1.0, 1, 1.0), vec![Arc::new(Bounded(narrow))])).0, End::Refused(Refusal::BulkheadFull));
}

#[test]
fn what_stands_in_a_queue_is_not_hedged() {
    let (room, hedge) = (room(1), hedge(1.0, 1, 1.0));
    let held = room.try_enter().expect("empty");
    let mut execution = Execution::new(around(&hedge, vec![Arc::new(Bounded(room.clone()))]), 7, at(1.0));
    for time in [1.0, 2.0, 3.0, 4.0] {
        assert!(matches!(execution.step(at(time)), Step::Wait { .. }));
    }
    assert_eq!(hedge.totals().hedges, 0);
    execution.take_events();
    room.leave(held);
    assert!(matches!(execution.step(at(4.5)), Step::Start { call: CallId::FIRST, .. }));
    // Late is late from then on: counted from when it could begin.
    assert_eq!(execution.step(at(5.0)), Step::Wait { until: at(5.5) });
    assert!(matches!(execution.step(at(5.5)), Step::Wait { .. }), "the second one has to wait for its place");
    assert_eq!((hedge.totals().hedges, room.counts()), (1, (1, 1)));
    execution.abandon(at(6.0));
    assert_eq!(room.counts(), (0, 0));
}

#[test]
fn losers_are_no_evidence_and_each_hedge_is_let_in_by_itself() {
    let breaker = counting();
    let mut world = World::new(&[&[SLOW, QUICK]]);
    assert_eq!(world.run(&around(&hedge(1.0, 1, 1.0), vec![guarded(&breaker)])).0, End::Value(2));
    let totals = breaker.outlook(world.now).totals;
    assert_eq!((totals.calls, totals.failed), (1, 0), "{totals:?}");
    let breaker = Arc::new(CircuitBreaker::new(config(1, 100.0)));
    // Opened by the first failure, it lets no hedge in.
    let mut world = World::new(&[&[(0.5, Answer::Error("down")), QUICK]]);
    let policies: Vec<Arc<dyn Policy>> =
        vec![Arc::new(Retried::new(retry(2, 1.0))), Arc::new(Hedged(hedge(0.1, 1, 1.0))), guarded(&breaker)];
    world.run(&plan(policies));
    assert_eq!(world.calls.len(), 2, "hedged once before it failed, and not tried again behind an open circuit");
}

#[test]
fn the_first_stream_to_open_is_the_one_and_ends_as_its_own() {
    let slow = (9.0, Answer::Stream(s(1.0), Ok(())));
    for (end, expected) in [(Ok(()), End::Streamed), (Err("cut"), End::Error("cut"))] {
        let room = room(5);
        let mut world = World::new(&[&[slow, (0.5, Answer::Stream(s(2.0), end))]]);
        let (came, _) = world.run(&around(&hedge(1.0, 1, 1.0), vec![Arc::new(Bounded(room.clone()))]));
        assert_eq!((came, &*world.delivered, world.elapsed()), (expected, &[1.5][..], 3.5));
        assert_eq!((world.cancelled, world.calls.len(), room.counts()), (1, 2, (0, 0)));
    }
    // What runs beside it is given up before it is handed out.
    let mut execution = Execution::new(around(&hedge(1.0, 1, 1.0), vec![]), 7, at(1.0));
    execution.step(at(1.0));
    assert!(matches!(execution.step(at(2.0)), Step::Start { call: CallId(1), .. }));
    execution.opened(CallId(1), Ticket(5));
    assert_eq!(execution.step(at(2.5)), Step::Cancel { call: CallId::FIRST, beaten: true });
    assert_eq!(execution.step(at(2.5)), Step::Deliver(Ticket(5)));
    assert!(!execution.is_over(CallId(1)));
    // Taken back, it is tried again by the retry outside, and may be hedged again.
    let hedge = hedge(1.0, 1, 1.0);
    let mut world = World::new(&[&[slow, (0.5, Answer::Stream(s(2.0), Err("cut"))), slow, (0.5, Answer::Stream(s(2.0), Ok(())))]]);
    world.takes_back = true;
    let (came, _) = world.run(&plan(vec![Arc::new(Retried::new(retry(2, 1.0))), Arc::new(Hedged(hedge.clone()))]));
    assert_eq!((came, world.calls.len(), hedge.totals().wins), (End::Streamed, 4, 2));
}

#[test]
fn one_of_several_can_go_on_alone() {
    let room = room(5);
    let mut execution = Execution::new(around(&hedge(1.0, 2, 1.0), vec![Arc::new(Bounded(room.clone()))]), 7, at(1.0));
    execution.step(at(1.0));
    execution.step(at(2.0));
    execution.step(at(3.0));
    assert_eq!(room.counts(), (3, 0));
    execution.goes_on_with(CallId(1), at(3.5));
    assert_eq!(room.counts(), (1, 0));
    let cancelled = [execution.step(at(3.5)), execution.step(at(3.5))];
    for call in [CallId::FIRST, CallId(2)] {
        assert!(cancelled.contains(&Step::Cancel { call, beaten: true }) && execution.is_over(call));
    }
    execution.ended(CallId(1), seawall::engine::Outcome::Value(Ticket(0)));
    assert!(matches!(execution.step(at(4.0)), Step::Done(_)));
}

#[test]
fn the_budget_bounds_the_hedges() {
    let hedge = hedge(1.0, 1, 0.05);
    let mut world = World::new(&[&[(2.0, Answer::Value(1))]]);
    for _ in 0..1000 {
        world.run(&around(&hedge, vec![]));
    }
    let totals = hedge.totals();
    assert!((55..=60).contains(&totals.hedges), "a twentieth of them, and ten saved up: {totals:?}");
    assert_eq!(totals.hedges + totals.denied, 1000);
}

fn percentile(share: f64, minimum_calls: u32, initial: Option<Duration>, floor: Duration) -> Arc<Hedge> {
    let delay = Delay::Percentile { share, minimum_calls, initial, floor };
    Arc::new(Hedge::new(Config { delay, max_hedges: 1, budget: 0.05 }))
}

#[test]
fn a_percentile_is_learnt_and_forgotten() {
    let hedge = percentile(0.9, 20, None, s(0.001));
    let mut world = World::new(&[&[(0.1, Answer::Value(1))]]);
    for _ in 0..19 {
        world.run(&around(&hedge, vec![]));
        assert_eq!(hedge.delay(), None);
    }
    world.run(&around(&hedge, vec![]));
    let delay = hedge.delay().expect("known").as_secs_f64();
    assert!((0.1..0.1032).contains(&delay), "what all take is no reason to hedge: {delay}");
    assert_eq!(hedge.totals().hedges, 0);
    // Twice as slow from now on: nobody hears of the old times any more after two generations.
    let mut world = World::new(&[&[(0.2, Answer::Value(1))]]);
    for _ in 0..2100 {
        world.run(&around(&hedge, vec![]));
    }
    let delay = hedge.delay().expect("known").as_secs_f64();
    assert!((0.2..0.2064).contains(&delay), "{delay}");
    let hedge = percentile(0.9, 20, Some(s(3.0)), s(0.5));
    assert_eq!(hedge.delay(), Some(s(3.0)));
    let mut world = World::new(&[&[(0.1, Answer::Value(1))]]);
    for _ in 0..20 {
        world.run(&around(&hedge, vec![]));
    }
    assert_eq!(hedge.delay(), Some(s(0.5)), "never earlier");
}

#[test]
fn few_calls_are_forgotten_by_their_age() {
    let hedge = percentile(0.5, 5, None, Duration::ZERO);
    let run = |took: f64, times: usize, from: f64| {
        let mut world = World::new(&[&[(took, Answer::Value(1))]]);
        world.now = at(from);
        (0..times).for_each(|_| drop(world.run(&around(&hedge, vec![]))));
        hedge.delay().expect("known").as_secs_f64()
    };
    assert!(run(1.0, 10, 1.0) < 1.1);
    assert!(run(9.0, 4, 400.0) < 1.1, "the last minutes' calls, and those before");
    assert!(run(9.0, 6, 1000.0) > 8.9, "and not those of yesterday");
}

#[test]
fn while_few_are_known_each_of_them_tells() {
    let delay = Delay::Percentile { share: 0.5, minimum_calls: 5, initial: None, floor: Duration::ZERO };
    let hedge = Arc::new(Hedge::new(Config { delay, max_hedges: 0, budget: 1.0 }));
    let after = |times: usize, took: f64| {
        let mut world = World::new(&[&[(took, Answer::Value(1))]]);
        (0..times).for_each(|_| drop(world.run(&around(&hedge, vec![]))));
        hedge.delay().expect("known").as_secs_f64()
    };
    assert!(after(25, 0.1) < 0.11);
    assert!(after(25, 0.4) < 0.11, "half of them took no longer");
    assert!(after(1, 0.4) > 0.39);
}

#[test]
fn an_attempt_that_was_cut_off_has_taken_so_long_and_a_failure_says_nothing() {
    let full = Arc::new(Bulkhead::new(bulkhead::Config { max_concurrency: 0, max_queue: 0, max_wait: None }));
    let limit: Arc<dyn Policy> = Arc::new(Timeout { limit: s(2.0) });
    for (inside, answer, learnt) in [
        (vec![limit], Answer::Hang, true),
        (vec![], Answer::Error("down"), false),
        (vec![Arc::new(Bounded(full)) as Arc<dyn Policy>], Answer::Value(1), false),
    ] {
        let hedge = percentile(0.5, 5, None, Duration::ZERO);
        let mut world = World::new(&[&[(3.0, answer)]]);
        (0..5).for_each(|_| drop(world.run(&around(&hedge, inside.clone()))));
        assert_eq!(hedge.delay().map(|delay| delay.as_secs_f64().round()), learnt.then_some(2.0), "{answer:?}");
    }
}

#[test]
fn of_a_call_that_has_no_hedge_nobody_is_asked_whether_others_would_fail_alike() {
    let mut execution = Execution::new(around(&hedge(1.0, 1, 1.0), vec![]), 7, at(1.0));
    assert!(matches!(execution.step(at(1.0)), Step::Start { .. }));
    let failed = seawall::engine::Outcome::Error(Ticket(0));
    execution.ended(CallId::FIRST, failed);
    assert_eq!(execution.step(at(1.5)), Step::Done(failed));
}

/// A server where 2 % of the replies are 20 times slower: some hundred milliseconds, or some seconds.
fn tailed(chance: &mut Random) -> (f64, Answer) {
    let took = 0.08 + 0.04 * chance.unit();
    (if chance.unit() < 0.02 { 20.0 * took } else { took }, Answer::Value(1))
}

fn p99(hedge: Option<&Arc<Hedge>>, calls: usize) -> (f64, usize) {
    let mut chance = Random::seeded(11);
    let script: Vec<_> = (0..2 * calls).map(|_| tailed(&mut chance)).collect();
    let mut world = World::new(&[&script]);
    let plan = hedge.map_or_else(|| plan(vec![]), |hedge| around(hedge, vec![]));
    let mut took: Vec<f64> = (0..calls)
        .map(|_| {
            let begun = world.now;
            world.run(&plan);
            world.now.since(begun).as_secs_f64()
        })
        .collect();
    took.sort_by(f64::total_cmp);
    (took[calls * 99 / 100], world.calls.len())
}

#[test]
fn hedging_at_the_95th_percentile_cuts_the_99th_to_under_half_for_six_percent_more_requests() {
    let calls = 5000;
    let (without, _) = p99(None, calls);
    let (with, requests) = p99(Some(&percentile(0.95, 20, None, s(0.001))), calls);
    assert!(with < without / 2.0, "{without} became {with}");
    assert!(requests <= calls * 106 / 100, "{requests} requests");
}

#[test]
fn those_that_were_given_up_late_count_as_late() {
    let calls = 5000;
    let mut chance = Random::seeded(3);
    let mut reply = || if chance.unit() < 0.04 { (30.0, Answer::Value(1)) } else { (0.05 * (3.0 * chance.unit()).exp(), Answer::Value(1)) };
    let script: Vec<_> = (0..2 * calls).map(|_| reply()).collect();
    let delay = Delay::Percentile { share: 0.95, minimum_calls: 20, initial: None, floor: s(0.001) };
    let hedge = Arc::new(Hedge::new(Config { delay, max_hedges: 1, budget: 1.0 }));
    let mut world = World::new(&[&script]);
    for _ in 0..calls {
        world.run(&around(&hedge, vec![]));
    }
    // One in twenty is later than that: those that never came included, although there is room for more.
    let hedges = hedge.totals().hedges;
    assert!((200..325).contains(&hedges), "{hedges}");
}

/// The attempts of one call as somebody would draw them on paper: how it ends, when, and how many are made.
fn on_paper(script: &[(f64, Answer)], delay: f64, hedges: usize) -> (End, f64, usize) {
    let (mut made, mut failed, mut open) = (1, None, vec![0]);
    let ends = |number: usize| number as f64 * delay + script[number].0;
    loop {
        let first = *open.iter().min_by(|a, b| ends(**a).total_cmp(&ends(**b))).expect("one is under way");
        if made <= hedges && made as f64 * delay < ends(first) {
            open.push(made);
            made += 1;
            continue;
        }
        open.retain(|number| *number != first);
        match script[first].1 {
            Answer::Value(value) => return (End::Value(value), ends(first), made),
            Answer::Error(name) if name == "final" && made > 1 => return (End::Error(name), ends(first), made),
            Answer::Error(name) => {
                failed.get_or_insert(name);
                if open.is_empty() {
                    return (End::Error(failed.expect("it has failed")), ends(first), made);
                }
            }
            other => unreachable!("{other:?}"),
        }
    }
}

fn answers() -> impl Strategy<Value = Vec<(f64, Answer)>> {
    // Times that no multiple of the delay meets.
    let answer = prop_oneof![
        3 => (0..9_u32).prop_map(Answer::Value),
        2 => Just(Answer::Error("down")),
        1 => Just(Answer::Error("final")),
    ];
    prop::collection::vec((1..60_u32, answer), 4).prop_map(|all| {
        let apart = |(number, (tenths, answer)): (usize, (u32, Answer))| (f64::from(tenths) / 10.0 + 0.001 * (number + 1) as f64, answer);
        all.into_iter().enumerate().map(apart).collect()
    })
}

proptest! {
    #[test]
    fn it_goes_as_it_does_on_paper(script in answers(), hedges in 0..4_usize) {
        let (room, breaker) = (room(9), counting());
        let hedge = hedge(1.0, hedges as u32, 1.0);
        let inside: Vec<Arc<dyn Policy>> = vec![guarded(&breaker), Arc::new(Bounded(room.clone()))];
        let mut world = World::new(&[&script]);
        let (end, execution) = world.run(&around(&hedge, inside));
        let (expected, elapsed, made) = on_paper(&script, 1.0, hedges);
        prop_assert_eq!(end, expected);
        prop_assert!((world.elapsed() - elapsed).abs() < 1e-6, "{} {}", world.elapsed(), elapsed);
        prop_assert_eq!((world.calls.len(), execution.calls() as usize), (made, made));
        prop_assert!(made <= 1 + hedges);
        prop_assert_eq!(room.counts(), (0, 0));
        // Those that have ended are evidence, and nothing else is.
        let ended = (0..made).filter(|number| *number as f64 + script[*number].0 <= elapsed + 1e-9);
        let seen = breaker.outlook(world.now).totals.calls as usize;
        prop_assert_eq!(ended.count(), seen);
        prop_assert_eq!(world.cancelled, made - seen);
        prop_assert_eq!(execution.next_wake(), Instant::NEVER);
    }
}

#[test]
fn of_two_ends_the_one_that_was_told_first_decides() {
    let (mut execution, first, second) = two_under_way();
    let (one, other) = (seawall::engine::Outcome::Value(Ticket(1)), seawall::engine::Outcome::Value(Ticket(2)));
    execution.ended(first, one);
    assert_eq!(execution.ended_answered(second, other, at(2.5), |_| None), Step::Cancel { call: second, beaten: true });
    assert_eq!(execution.step(at(2.5)), Step::Done(one));
}

#[test]
fn a_loser_that_was_tried_again_meanwhile_is_cancelled_all_the_same() {
    // Both fail and wait; when they go on, each takes the other one's place.
    let script = [(1.5, Answer::Error("down")), (0.6, Answer::Error("down")), (0.5, Answer::Value(1)), SLOW];
    let mut world = World::new(&[&script]);
    let (end, execution) = world.run(&around(&hedge(1.0, 1, 1.0), vec![Arc::new(Retried::new(retry(2, 2.0)))]));
    assert_eq!((end, world.calls.len(), world.cancelled, execution.calls()), (End::Value(1), 4, 1, 4));
}
