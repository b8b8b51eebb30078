//! Cache against a model that is a list and a line of people, with many calls on one clock; and what else it promises.

use crate::virtual_time::{at, s};
use proptest::prelude::*;
use seawall::engine::{CallId, Execution, Instant, Outcome, Plan, PlanBuilder, Policy, Refusal, StageId, Step, Target, Ticket, Verdict};
use seawall::policies::cache::{Cache, Cached, Config, Counts, Key, Offer, Request};
use seawall::policies::timeout::Timeout;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

const TTL: u64 = 10;
const STALE: u64 = 20;
const BYTES: usize = 10;

fn config() -> Config {
    Config { ttl: Some(s(TTL as f64)), max_items: 3, max_bytes: 2 * BYTES + 5, stale_if_error: s(STALE as f64) }
}

fn key(number: u8) -> Key {
    Key(u128::from(number))
}

/// Outside, the cache, the call and what was found.
fn plan(cache: &Arc<Cache>, outside: Vec<Arc<dyn Policy>>) -> (Arc<Plan>, StageId) {
    let mut builder = PlanBuilder::default();
    let branches = vec![builder.leaf(Target(0)), builder.ready(Target(1))];
    let stage = builder.layer(Arc::new(Cached(cache.clone())), branches);
    let root = outside.into_iter().rev().fold(stage, |inner, policy| builder.layer(policy, vec![inner]));
    (builder.build(root), stage)
}

/// How a call comes out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// With a value for all.
    Keep,
    /// With one that is not to be kept.
    Share,
    /// With one that nobody else can have.
    Own,
    Fail,
}

/// One call: asks the cache, and calls when it has to.
struct Call {
    execution: Execution,
    request: Arc<Request>,
    running: Option<CallId>,
    end: End,
    done: Option<Option<u64>>,
    events: Vec<&'static str>,
}

impl Call {
    fn new(cache: &Arc<Cache>, key: Key, now: Instant) -> Call {
        Call::of(cache, Request::new(key, key), vec![], now)
    }

    fn of(cache: &Arc<Cache>, request: Request, outside: Vec<Arc<dyn Policy>>, now: Instant) -> Call {
        let (plan, stage) = plan(cache, outside);
        let mut execution = Execution::new(plan, 1, now);
        let request = Arc::new(request);
        execution.brings(stage, request.clone());
        let mut call = Call { execution, request, running: None, end: End::Keep, done: None, events: vec![] };
        call.go_on(now);
        call
    }

    fn go_on(&mut self, now: Instant) {
        while self.done.is_none() {
            let step = self.execution.step(now);
            self.events.extend(self.execution.take_events().map(|event| event.name.as_str()));
            match step {
                Step::Start { call, target: Target(1), .. } => {
                    let value = self.request.take().expect("what was found is at hand");
                    self.execution.ended(call, Outcome::Value(Ticket(*value.downcast_ref::<u64>().expect("a number"))));
                }
                Step::Start { call, .. } => self.running = Some(call),
                Step::Judge(ask) => {
                    let verdict = match (ask.outcome, self.end) {
                        (Outcome::Value(Ticket(value)), End::Keep | End::Share) => {
                            self.request.offer(Offer { value: Arc::new(value), bytes: BYTES, keep: self.end == End::Keep, kept: None });
                            Verdict::Success
                        }
                        (Outcome::Value(_), _) => Verdict::Ignore,
                        _ => Verdict::FAILURE,
                    };
                    self.execution.verdict(verdict, now);
                }
                Step::Done(Outcome::Value(Ticket(value))) => self.done = Some(Some(value)),
                Step::Done(_) => self.done = Some(None),
                Step::Wait { .. } => return,
                Step::Cancel { .. } | Step::Deliver(_) => {}
            }
        }
    }

    fn ends(&mut self, end: End, value: u64, now: Instant) {
        let call = self.running.take().expect("it runs");
        self.end = end;
        self.execution.ended(call, if end == End::Fail { Outcome::Error(Ticket(value)) } else { Outcome::Value(Ticket(value)) });
        self.go_on(now);
    }
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Come(u8),
    /// The n-th of those that run comes out so.
    End(usize, End),
    /// The n-th of those that run or wait goes away.
    Cancel(usize),
    Pass(u64),
    Clear,
    Forget(u8),
}

fn moves() -> impl Strategy<Value = Move> {
    let end = prop_oneof![4 => Just(End::Keep), 1 => Just(End::Share), 1 => Just(End::Own), 3 => Just(End::Fail)];
    prop_oneof![
        6 => (0..4_u8).prop_map(Move::Come),
        5 => (any::<usize>(), end).prop_map(|(who, end)| Move::End(who, end)),
        2 => any::<usize>().prop_map(Move::Cancel),
        3 => (1..15_u64).prop_map(Move::Pass),
        1 => Just(Move::Clear),
        1 => (0..4_u8).prop_map(Move::Forget),
    ]
}

/// One call of the model's.
#[derive(Clone, Debug, Default)]
struct Person {
    key: u8,
    leads: bool,
    waits: bool,
    stale: Option<u64>,
    era: u64,
    done: Option<Option<u64>>,
}

/// The oldest in use first; who waits for whom is found by looking at everybody.
#[derive(Default)]
struct Naive {
    now: u64,
    era: u64,
    kept: Vec<(u8, u64, u64)>,
    people: Vec<Person>,
    counts: Counts,
}

impl Naive {
    fn find(&mut self, key: u8, within: u64) -> Option<u64> {
        let at = self.kept.iter().position(|(kept, _, stored)| *kept == key && self.now - stored < within)?;
        let entry = self.kept.remove(at);
        self.kept.push(entry);
        Some(entry.1)
    }

    fn lead(&mut self, who: usize) {
        let key = self.people[who].key;
        let stale = self.find(key, TTL + STALE);
        self.kept.retain(|(kept, ..)| *kept != key || stale.is_some());
        self.counts.misses += 1;
        let (era, person) = (self.era, &mut self.people[who]);
        (person.leads, person.waits, person.stale, person.era) = (true, false, stale, era);
    }

    fn come(&mut self, key: u8) {
        let who = self.people.len();
        self.people.push(Person { key, ..Person::default() });
        if let Some(value) = self.find(key, TTL) {
            self.counts.hits += 1;
            self.people[who].done = Some(Some(value));
        } else if self.people.iter().any(|person| person.key == key && person.leads) {
            self.people[who].waits = true;
        } else {
            self.lead(who);
        }
    }

    fn next(&mut self, key: u8) {
        if let Some(next) = self.people.iter().position(|person| person.key == key && person.waits) {
            self.lead(next);
        }
    }

    fn all(&mut self, key: u8, value: u64) -> u64 {
        let mut count = 0;
        for person in self.people.iter_mut().filter(|person| person.key == key && person.waits) {
            (person.waits, person.done) = (false, Some(Some(value)));
            count += 1;
        }
        count
    }

    fn end(&mut self, who: usize, end: End, value: u64) {
        let Person { key, stale, era, .. } = self.people[who].clone();
        self.people[who].leads = false;
        self.people[who].done = Some(if end == End::Fail { stale } else { Some(value) });
        match (end, stale) {
            (End::Keep | End::Share, _) => {
                self.counts.joined += self.all(key, value);
                if end == End::Keep && era == self.era {
                    self.kept.retain(|(kept, ..)| *kept != key);
                    self.kept.push((key, value, self.now));
                    // Three would be too many bytes.
                    let many = self.kept.len();
                    self.kept.drain(..many.saturating_sub(2));
                }
            }
            (End::Fail, Some(stale)) => self.counts.stale += 1 + self.all(key, stale),
            (End::Fail | End::Own, _) => self.next(key),
        }
    }

    fn cancel(&mut self, who: usize) {
        let key = self.people[who].key;
        let led = self.people[who].leads;
        (self.people[who].leads, self.people[who].waits) = (false, false);
        if led {
            self.next(key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]
    #[test]
    fn calls_are_answered_as_by_a_list_and_a_line(moves in prop::collection::vec(moves(), 1..60)) {
        let cache = Arc::new(Cache::new(config()));
        let (mut model, mut calls) = (Naive::default(), Vec::<Option<Call>>::new());
        for (turn, what) in moves.into_iter().enumerate() {
            let value = 1000 + turn as u64;
            let now = at(model.now as f64);
            let pick = |among: Vec<usize>, n: usize| (!among.is_empty()).then(|| among[n % among.len()]);
            let who = |of: &dyn Fn(&Person) -> bool| model.people.iter().enumerate().filter(|(_, p)| of(p)).map(|(i, _)| i).collect::<Vec<_>>();
            match what {
                Move::Come(number) => {
                    model.come(number);
                    calls.push(Some(Call::new(&cache, key(number), now)));
                }
                Move::End(n, end) => if let Some(who) = pick(who(&|p| p.leads), n) {
                    model.end(who, end, value);
                    calls[who].as_mut().unwrap().ends(end, value, now);
                }
                Move::Cancel(n) => if let Some(who) = pick(who(&|p| p.leads || p.waits), n) {
                    model.cancel(who);
                    calls[who].take().unwrap().execution.abandon(now);
                }
                Move::Pass(seconds) => model.now += seconds,
                Move::Clear => {
                    (model.era, model.kept) = (model.era + 1, vec![]);
                    cache.clear();
                }
                Move::Forget(number) => {
                    model.era += 1;
                    model.kept.retain(|(kept, ..)| *kept != number);
                    cache.forget(&key(number));
                }
            }
            let now = at(model.now as f64);
            calls.iter_mut().flatten().for_each(|call| call.go_on(now));
            for (call, person) in calls.iter().zip(&model.people) {
                let Some(call) = call else { continue };
                prop_assert_eq!(call.done, person.done, "{:?}", &call.events);
                prop_assert_eq!(call.running.is_some(), person.leads);
            }
            let counts = Counts { items: model.kept.len(), bytes: model.kept.len() * BYTES, ..model.counts };
            prop_assert_eq!(cache.counts(), counts);
            let leads = model.people.iter().filter(|p| p.leads).count();
            let waits = model.people.iter().filter(|p| p.waits).count();
            prop_assert_eq!(cache.waiting(), (leads, waits));
        }
    }
}

#[test]
fn a_hit_is_no_attempt_and_what_happened_is_told() {
    let cache = Arc::new(Cache::new(config()));
    let mut first = Call::new(&cache, key(1), at(0.0));
    let mut joined = Call::new(&cache, key(1), at(1.0));
    first.ends(End::Keep, 7, at(2.0));
    joined.go_on(at(2.0));
    let hit = Call::new(&cache, key(1), at(11.9));
    assert_eq!([first.done, joined.done, hit.done], [Some(Some(7)); 3]);
    assert_eq!([first.execution.calls(), joined.execution.calls(), hit.execution.calls()], [1, 0, 0]);
    let mut late = Call::new(&cache, key(1), at(12.0));
    late.ends(End::Fail, 8, at(13.0));
    assert_eq!((late.done, late.execution.calls()), (Some(Some(7)), 1));
    let mut gone = Call::new(&cache, key(1), at(32.0));
    gone.ends(End::Fail, 9, at(33.0));
    assert_eq!(gone.done, Some(None), "too old to stand in for anything");
    let told = [&first, &joined, &hit, &late, &gone].map(|call| call.events.join(" "));
    assert_eq!(told, ["cache.miss", "cache.joined", "cache.hit", "cache.miss cache.stale", "cache.miss"]);
}

#[test]
fn one_that_waits_is_over_when_the_limit_around_it_is() {
    let cache = Arc::new(Cache::new(config()));
    let mut first = Call::new(&cache, key(1), at(0.0));
    let limit: Arc<dyn Policy> = Arc::new(Timeout { limit: s(2.0) });
    let mut waits = Call::of(&cache, Request::new(key(1), key(1)), vec![limit], at(1.0));
    waits.go_on(at(2.9));
    assert_eq!((waits.done, waits.execution.next_wake(), waits.execution.passes_time()), (None, at(3.0), false));
    waits.go_on(at(3.0));
    assert_eq!((waits.done, cache.waiting()), (Some(None), (1, 0)));
    // A limit of the caller's own, that no policy is about.
    let (plan, stage) = plan(&cache, vec![]);
    let mut execution = Execution::within(plan, 1, at(3.0), at(5.0));
    execution.brings(stage, Arc::new(Request::new(key(1), key(1))));
    assert_eq!(execution.step(at(3.0)), Step::Wait { until: at(5.0) });
    let Step::Done(Outcome::Rejected(rejection)) = execution.step(at(5.0)) else { panic!("it goes on") };
    assert_eq!((rejection.refusal(), rejection.limit()), (Refusal::TimedOut, s(2.0)));
    first.ends(End::Keep, 7, at(6.0));
    assert_eq!(cache.waiting(), (0, 0));
}

#[test]
fn who_asks_alone_waits_for_nobody_and_lets_nobody_wait() {
    let cache = Arc::new(Cache::new(config()));
    let alone = || Request::new(key(1), key(1)).alone();
    let mut one = Call::of(&cache, alone(), vec![], at(0.0));
    let two = Call::of(&cache, alone(), vec![], at(0.0));
    assert!(one.running.is_some() && two.running.is_some());
    assert_eq!(cache.waiting(), (0, 0));
    one.ends(End::Keep, 7, at(1.0));
    assert_eq!(Call::of(&cache, alone(), vec![], at(1.0)).done, Some(Some(7)));
    // Who would wait for himself does not.
    let own = |number| Request::new(key(number), key(number)).of(5);
    let outer = Call::of(&cache, own(2), vec![], at(1.0));
    let inner = Call::of(&cache, own(2), vec![], at(1.0));
    let other = Call::of(&cache, own(2).of(6), vec![], at(1.0));
    assert!(outer.running.is_some() && inner.running.is_some() && other.running.is_none());
}

#[test]
fn a_stream_is_kept_at_its_end_and_nobody_waits_for_its_reader() {
    let cache = Arc::new(Cache::new(config()));
    let mut first = Call::new(&cache, key(1), at(0.0));
    let mut second = Call::new(&cache, key(1), at(0.0));
    let call = first.running.expect("it runs");
    first.execution.opened(call, Ticket(3));
    first.go_on(at(1.0));
    second.go_on(at(1.0));
    assert!(second.running.is_some(), "it asks itself");
    first.ends(End::Keep, 7, at(2.0));
    assert_eq!((first.done, cache.counts().items), (Some(Some(7)), 1));
    // What broke off is not kept.
    let call = second.running.expect("it runs");
    second.execution.opened(call, Ticket(4));
    second.go_on(at(2.0));
    second.ends(End::Fail, 8, at(2.0));
    assert_eq!(second.done, Some(None), "an older answer is no end of a stream that was begun");
    cache.clear();
    let mut closed = Call::new(&cache, key(1), at(3.0));
    closed.execution.opened(closed.running.expect("it runs"), Ticket(5));
    closed.go_on(at(3.0));
    closed.execution.abandon(at(3.0));
    assert_eq!((cache.counts().items, cache.waiting()), (0, (0, 0)));
}

#[test]
fn without_a_request_the_call_is_made() {
    let cache = Arc::new(Cache::new(config()));
    let (plan, _) = plan(&cache, vec![]);
    let mut execution = Execution::new(plan, 1, at(0.0));
    assert!(matches!(execution.step(at(0.0)), Step::Start { target: Target(0), .. }));
    execution.ended(CallId::FIRST, Outcome::Value(Ticket(1)));
    assert_eq!(execution.step(at(0.0)), Step::Done(Outcome::Value(Ticket(1))));
    assert_eq!(cache.counts(), Counts::default());
}

#[test]
fn whoever_waits_is_woken_whatever_becomes_of_whom_it_waits_for() {
    struct Rings(AtomicUsize);
    impl Wake for Rings {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    for leaves in [0, 1, 2] {
        let cache = Arc::new(Cache::new(config()));
        let mut first = Call::new(&cache, key(1), at(0.0));
        let mut waits = Call::new(&cache, key(1), at(0.0));
        let rings = Arc::new(Rings(AtomicUsize::new(0)));
        let signal = waits.execution.signal().expect("it listens").clone();
        assert!(!signal.listen(&Waker::from(rings.clone())));
        match leaves {
            0 => first.ends(End::Keep, 1, at(1.0)),
            1 => first.ends(End::Fail, 1, at(1.0)),
            _ => first.execution.abandon(at(1.0)),
        }
        assert_eq!(rings.0.load(Ordering::Relaxed), 1);
        waits.go_on(at(1.0));
        assert_eq!(waits.done.is_some(), leaves == 0);
        assert_eq!(waits.running.is_some(), leaves != 0);
    }
}

#[test]
fn a_child_forgets_who_asks_and_keeps_what_is_kept() {
    let cache = Arc::new(Cache::new(config()));
    Call::new(&cache, key(1), at(0.0)).ends(End::Keep, 1, at(0.0));
    let mut asks = Call::new(&cache, key(2), at(0.0));
    cache.forget_waiters();
    assert!(Call::new(&cache, key(2), at(0.0)).running.is_some());
    assert_eq!(Call::new(&cache, key(1), at(0.0)).done, Some(Some(1)));
    asks.ends(End::Keep, 2, at(0.0));
    assert_eq!(cache.counts().items, 1, "what the parent began is not the child's");
}
