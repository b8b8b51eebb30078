//! A limit with keys against a naive limit for each of them, none of which is ever forgotten.

use super::limits::{by_the_second, signal};
use super::naive_limit::Naive;
use crate::virtual_time::{at, s};
use proptest::prelude::*;
use seawall::engine::{Execution, Instant, PlanBuilder, StageId, Step, Target};
use seawall::policies::rate_limit::{Keyed, Limited, Place, RateLimit, Turn};
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
enum Move {
    /// So many seconds pass.
    Pass(u8),
    /// A call comes, of a key, with so many tens of tokens.
    Come(u8, u8),
    /// The n-th of those that wait goes away.
    Leave(u8),
    /// The n-th of those under way has used so many tens of tokens more or less than it took.
    End(u8, i8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => (0..40_u8).prop_map(Move::Pass),
        6 => (0..6_u8, 0..20_u8).prop_map(|(key, tens)| Move::Come(key, tens)),
        1 => any::<u8>().prop_map(Move::Leave),
        3 => (any::<u8>(), -9..9_i8).prop_map(|(which, tens)| Move::End(which, tens)),
    ];
    proptest::collection::vec(one, 1..120)
}

struct Waiting {
    who: usize,
    key: usize,
    limit: Arc<RateLimit>,
    place: Place,
}

proptest! {
    #[test]
    fn each_key_has_its_own_and_forgetting_changes_nothing(burst in 1..6_u8, most in 1..5_usize, moves in moves()) {
        let burst = i64::from(burst);
        let keyed = Keyed::new(by_the_second(burst as f64, true), most);
        let mut naive: Vec<Naive> = (0..6).map(|_| Naive::full(burst)).collect();
        let (mut now, mut comers, mut waiting, mut under_way) = (0_u64, 0, Vec::<Waiting>::new(), Vec::<(usize, Arc<RateLimit>)>::new());
        let mut went = vec![Vec::new(); 6];
        let time = |seconds: u64| at(seconds as f64);
        let name = |key: usize| format!("tenant {key}");
        for step in moves {
            match step {
                Move::Pass(seconds) => {
                    for _ in 0..seconds {
                        naive.iter_mut().for_each(Naive::second);
                    }
                    now += u64::from(seconds);
                }
                Move::Come(key, tens) => {
                    let (key, tokens) = (usize::from(key), i64::from(tens) * 10);
                    naive[key].line.push_back((comers, tokens));
                    naive[key].lets_go();
                    let limit = keyed.of(&name(key), time(now));
                    let quick = limit.try_go(tokens as u64, time(now));
                    match quick.map_or_else(|| limit.ask(tokens as u64, time(now), Instant::NEVER, signal()), Turn::Now) {
                        Turn::Now(_) => {
                            went[key].push(comers);
                            under_way.push((key, limit));
                        }
                        Turn::At(place, _) => waiting.push(Waiting { who: comers, key, limit, place }),
                        Turn::Never(_) => {
                            naive[key].line.pop_back();
                        }
                    }
                    comers += 1;
                }
                Move::Leave(which) if !waiting.is_empty() => {
                    let Waiting { who, key, limit, place } = waiting.remove(usize::from(which) % waiting.len());
                    limit.withdraw(place, time(now));
                    naive[key].line.retain(|(other, _)| *other != who);
                    naive[key].lets_go();
                }
                Move::End(which, tens) if !under_way.is_empty() => {
                    let (key, limit) = under_way.swap_remove(usize::from(which) % under_way.len());
                    limit.settle(500, (500 - i64::from(tens) * 10) as u64, time(now));
                    naive[key].levels.1 += i64::from(tens) * 10;
                    naive[key].lets_go();
                }
                Move::Leave(_) | Move::End(..) => {}
            }
            let mut left = Vec::new();
            for one in std::mem::take(&mut waiting) {
                match one.limit.look(one.place, time(now), Instant::NEVER) {
                    Turn::Now(_) => {
                        went[one.key].push(one.who);
                        under_way.push((one.key, one.limit));
                    }
                    _ => left.push(one),
                }
            }
            waiting = left;
            for (key, naive) in naive.iter().enumerate() {
                let (mut ours, mut theirs) = (went[key].clone(), naive.went.clone());
                ours.sort_unstable();
                theirs.sort_unstable();
                prop_assert_eq!(ours, theirs, "of key {} at {} s", key, now);
                let outlook = keyed.of(&name(key), time(now)).outlook(time(now));
                prop_assert_eq!(outlook.queued, naive.line.len());
                prop_assert!((outlook.requests.unwrap() - naive.levels.0 as f64).abs() < 1e-3, "{}: {:?} {:?}", key, outlook, naive.levels);
                prop_assert!((outlook.tokens.unwrap() - naive.levels.1 as f64).abs() < 1e-3, "{}: {:?} {:?}", key, outlook, naive.levels);
            }
            prop_assert_eq!(keyed.outlook(time(now)).0, naive.iter().map(|one| one.line.len()).sum::<usize>());
        }
    }
}

#[test]
fn only_what_is_idle_and_full_again_is_forgotten_the_oldest_first() {
    let keyed = Keyed::new(by_the_second(1.0, false), 4);
    let held = keyed.of("held", at(0.0));
    for (key, used) in [("used", 0.0), ("old", 0.0), ("young", 1.0)] {
        assert!(keyed.of(key, at(used)).try_go(0, at(used)).is_some());
    }
    keyed.of("old", at(1.0));
    assert_eq!(keyed.keys(), ["held", "old", "used", "young"]);
    // A second later: "young" lacks something yet, "held" is in somebody's hands, "used" was asked for before "old".
    keyed.of("new", at(1.5));
    assert_eq!(keyed.keys(), ["held", "new", "young"]);
    assert!(keyed.of("young", at(1.5)).try_go(0, at(1.5)).is_none());
    assert!(Arc::ptr_eq(&held, &keyed.of("held", at(9.0))));
}

#[test]
fn those_that_were_not_asked_for_for_longest_go_first_and_no_pause_is_forgotten() {
    let keyed = Keyed::new(by_the_second(1.0, false), 4);
    for key in ["a", "b", "c", "d", "a"] {
        keyed.of(key, at(0.0));
    }
    keyed.of("new", at(1.0));
    assert_eq!(keyed.keys(), ["a", "d", "new"]);
    // One request is all that there is at once, and it is there; but not before a minute has passed.
    keyed.of("a", at(1.0)).pause(s(60.0), at(1.0));
    for n in 0..20 {
        keyed.of(&n.to_string(), at(2.0));
    }
    assert!(keyed.of("a", at(2.0)).try_go(0, at(60.9)).is_none());
    assert_eq!(keyed.outlook(at(2.0)), (0, Some(s(59.0))));
}

#[test]
fn keys_that_come_once_take_no_more_room_than_is_needed() {
    let keyed = Keyed::new(by_the_second(1.0, false), 100);
    for n in 0..2000 {
        let now = at(f64::from(n) / 1000.0);
        assert!(keyed.of(&n.to_string(), now).try_go(0, now).is_some());
    }
    // A thousand came in the last second: what they have taken is not there again.
    assert!((1000..1600).contains(&keyed.keys().len()), "{}", keyed.keys().len());
    assert!(keyed.of("1999", at(1.9995)).try_go(0, at(1.9995)).is_none());
    for n in 0..2000 {
        keyed.of(&format!("later {n}"), at(10.0));
    }
    assert!(keyed.keys().len() <= 100, "{}", keyed.keys().len());
}

#[test]
fn where_nothing_could_be_forgotten_it_is_not_looked_for_at_each_new_key() {
    let keyed = Keyed::new(by_the_second(1.0, false), 100);
    assert_eq!(keyed.most(), 100);
    for n in 0..200 {
        assert!(keyed.of(&n.to_string(), at(0.0)).try_go(0, at(0.0)).is_some());
    }
    assert_eq!(keyed.keys().len(), 200, "all of them are used");
    // It was looked for at 100, 126, 158 and 198, each a quarter and one more than the one before; so it is at 248.
    let mut come = (0..).map(|n| keyed.of(&format!("later {n}"), at(10.0)).outlook(at(10.0)));
    assert_eq!(come.by_ref().take(48).count(), 48);
    assert_eq!(keyed.keys().len(), 248);
    assert!(come.next().is_some());
    assert_eq!(keyed.keys().len(), 75, "a quarter more than has to go");
    assert_eq!(come.take(25).count(), 25);
    assert_eq!(keyed.keys().len(), 100, "and as many as it takes until it is looked for again");
}

#[test]
fn a_child_forgets_who_waits_under_every_key() {
    let keyed = Keyed::new(by_the_second(1.0, false), 4);
    for key in ["a", "b"] {
        let limit = keyed.of(key, at(0.0));
        assert!(limit.try_go(0, at(0.0)).is_some());
        assert!(matches!(limit.ask(0, at(0.0), Instant::NEVER, signal()), Turn::At(..)));
    }
    assert_eq!(keyed.outlook(at(0.0)), (2, None));
    keyed.clear();
    assert_eq!((keyed.outlook(at(0.0)), keyed.keys().len()), ((0, None), 2));
}

#[test]
fn a_call_passes_the_limit_of_its_key() {
    let keyed = Keyed::new(by_the_second(1.0, false), 10);
    let mut builder = PlanBuilder::default();
    let leaf = builder.leaf(Target(0));
    let limited = Limited { limit: Arc::new(RateLimit::new(by_the_second(1.0, false))), is_keyed: true, looks: false };
    let root = builder.layer(Arc::new(limited), vec![leaf]);
    let plan = builder.build(root);
    assert!(plan.way().is_none());
    let goes = |key: &str| {
        let mut execution = Execution::new(plan.clone(), 1, at(0.0));
        execution.brings(StageId(1), keyed.of(key, at(0.0)));
        matches!(execution.step(at(0.0)), Step::Start { .. })
    };
    assert_eq!((goes("a"), goes("b"), goes("a"), goes("b")), (true, true, false, false));
}
