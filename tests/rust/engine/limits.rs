//! RateLimit and Bulkhead against models that know no arithmetic but steps of a second, and several calls on one clock.

use super::naive_limit::Naive;
use crate::virtual_time::{at, s};
use proptest::prelude::*;
use seawall::engine::{
    CallId, Execution, Instant, Outcome, Plan, PlanBuilder, Policy, Refusal, Signal, Step, Target, Ticket, Verdict, WaitHint,
};
use seawall::policies::bulkhead::{self, Bounded, Bulkhead, Entry, Permit};
use seawall::policies::rate_limit::{Config, Limited, Place, RateLimit, Said, Turn};
use seawall::policies::retry::{Counts, Retried, Retry, backoff::Backoff};
use seawall::policies::timeout::Timeout;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

/// A signal as an execution makes it.
pub fn signal() -> Arc<Signal> {
    struct Taken(Mutex<Option<Arc<Signal>>>);
    struct Asks(Arc<Taken>);
    impl seawall::engine::Layer for Asks {
        fn on(&mut self, _: seawall::engine::Input, cx: &mut seawall::engine::Cx<'_>) -> seawall::engine::Flow {
            *self.0.0.lock().unwrap() = Some(cx.listen());
            seawall::engine::Flow::Hold
        }
    }
    impl Policy for Asks {
        fn enter(&self) -> Box<dyn seawall::engine::Layer> {
            Box::new(Asks(self.0.clone()))
        }
    }
    let taken = Arc::new(Taken(Mutex::new(None)));
    let mut execution = Execution::new(plan(vec![Arc::new(Asks(taken.clone()))]), 1, at(0.0));
    execution.step(at(0.0));
    taken.0.lock().unwrap().take().expect("it listens")
}

/// These policies around one target, outermost first.
pub fn plan(policies: Vec<Arc<dyn Policy>>) -> Arc<Plan> {
    let mut builder = PlanBuilder::default();
    let mut inner = builder.leaf(Target(0));
    for policy in policies.into_iter().rev() {
        inner = builder.layer(policy, vec![inner]);
    }
    builder.build(inner)
}

/// A hundred in 98 seconds, of which 98 are used: one request a second, ten tokens a second.
pub fn by_the_second(burst: f64, tokens: bool) -> Config {
    Config {
        requests: Some(100.0),
        tokens: tokens.then_some(1000.0),
        per: s(98.0),
        burst: Some(burst),
        settles: true,
        max_queue: 50,
        max_wait: None,
    }
}

#[derive(Clone, Copy, Debug)]
enum Move {
    /// So many seconds pass.
    Pass(u8),
    /// Somebody comes with so many tens of tokens.
    Come(u8),
    /// The n-th of those that wait goes away.
    Leave(u8),
    /// One that went has used so many tens of tokens more or less than it took.
    Settle(i8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => (0..9_u8).prop_map(Move::Pass),
        6 => (0..30_u8).prop_map(Move::Come),
        1 => any::<u8>().prop_map(Move::Leave),
        2 => (-9..9_i8).prop_map(Move::Settle),
    ];
    proptest::collection::vec(one, 1..120)
}

proptest! {
    #[test]
    fn calls_go_when_buckets_and_a_line_of_people_let_them(burst in 1..12_u8, moves in moves()) {
        let burst = i64::from(burst);
        let limit = RateLimit::new(by_the_second(burst as f64, true));
        let mut naive = Naive::full(burst);
        let (mut now, mut comers, mut waiting, mut went) = (0_u64, 0, Vec::<(usize, Place, Instant)>::new(), Vec::new());
        let time = |seconds: u64| at(seconds as f64);
        for step in moves {
            match step {
                Move::Pass(seconds) => for _ in 0..seconds {
                    now += 1;
                    naive.second();
                    let mut left = Vec::new();
                    // In any order: whoever looks lets those before it go too.
                    for (who, place, due) in waiting.drain(..).rev().collect::<Vec<_>>() {
                        match limit.look(place, time(now), Instant::NEVER) {
                            Turn::Now(_) => went.push(who),
                            Turn::At(_, due) => left.push((who, place, due)),
                            Turn::Never(_) => prop_assert!(false, "nothing limits the wait"),
                        }
                        let _ = due;
                    }
                    left.reverse();
                    waiting = left;
                },
                Move::Come(tens) => {
                    let tokens = i64::from(tens) * 10;
                    let had = naive.line.len();
                    let room = had < 50;
                    if room {
                        naive.line.push_back((comers, tokens));
                        naive.lets_go();
                    }
                    let quick = if comers % 2 == 0 { limit.try_go(tokens as u64, time(now)) } else { None };
                    match quick.map_or_else(|| limit.ask(tokens as u64, time(now), Instant::NEVER, signal()), Turn::Now) {
                        Turn::Now(_) => went.push(comers),
                        Turn::At(place, due) => waiting.push((comers, place, due)),
                        Turn::Never(after) => {
                            prop_assert!(!room && !after.is_zero());
                        }
                    }
                    comers += 1;
                }
                Move::Leave(which) if !waiting.is_empty() => {
                    let (who, place, _) = waiting.remove(usize::from(which) % waiting.len());
                    limit.withdraw(place, time(now));
                    naive.line.retain(|(other, _)| *other != who);
                    naive.lets_go();
                }
                Move::Leave(_) => {}
                Move::Settle(tens) => {
                    limit.settle(500, (500 - i64::from(tens) * 10) as u64, time(now));
                    naive.levels.1 += i64::from(tens) * 10;
                    naive.lets_go();
                }
            }
            // Those that were told, or would look now.
            let looked: Vec<_> = std::mem::take(&mut waiting);
            for (who, place, _) in looked {
                match limit.look(place, time(now), Instant::NEVER) {
                    Turn::Now(_) => went.push(who),
                    Turn::At(_, due) => waiting.push((who, place, due)),
                    Turn::Never(_) => prop_assert!(false),
                }
            }
            let (mut ours, mut theirs) = (went.clone(), naive.went.clone());
            ours.sort_unstable();
            theirs.sort_unstable();
            prop_assert_eq!(ours, theirs, "at {} s", now);
            let outlook = limit.outlook(time(now));
            prop_assert_eq!(outlook.queued, naive.line.len());
            prop_assert!((outlook.requests.unwrap() - naive.levels.0 as f64).abs() < 1e-3, "{:?} {:?}", outlook, naive.levels);
            prop_assert!((outlook.tokens.unwrap() - naive.levels.1 as f64).abs() < 1e-3, "{:?} {:?}", outlook, naive.levels);
        }
        // What was foretold comes true, if nothing else happens.
        if let Some((_, place, due)) = waiting.last().copied() {
            prop_assert!(matches!(limit.look(place, Instant(due.0), Instant::NEVER), Turn::Now(_)));
        }
    }

    /// However a server lets its spans begin, none sees more than the limit; and 98 of a hundred are used.
    #[test]
    fn no_span_sees_more_than_the_limit(requests in 1..400_u32, per in 1..120_u32, idle in 0..200_u32) {
        let per = Duration::from_secs(per.into());
        let config = Config { requests: Some(requests.into()), tokens: None, per, burst: None, settles: true, max_queue: 1, max_wait: None };
        let limit = RateLimit::new(config);
        let mut now = at(f64::from(idle));
        let mut went: Vec<Instant> = Vec::new();
        for _ in 0..requests * 3 {
            match limit.ask(0, now, Instant::NEVER, signal()) {
                Turn::Now(_) => {}
                Turn::At(place, turn) => {
                    now = turn;
                    prop_assert!(matches!(limit.look(place, now, Instant::NEVER), Turn::Now(_)));
                }
                Turn::Never(_) => prop_assert!(false, "it waits alone"),
            }
            went.push(now);
        }
        for (i, begun) in went.iter().enumerate() {
            let within = went[i..].iter().take_while(|t| t.since(*begun) < per).count();
            prop_assert!(within <= requests as usize, "{} in a span", within);
        }
        let (spent, spans) = (went.len() as f64 - 1.0, went[went.len() - 1].since(went[0]).as_secs_f64() / per.as_secs_f64());
        prop_assert!(spent / spans >= 0.97 * f64::from(requests), "{} in {} spans", spent, spans);
    }
}

#[test]
fn what_cannot_make_it_is_refused_at_once_and_told_when_it_could() {
    let limit = RateLimit::new(by_the_second(1.0, false));
    assert!(limit.try_go(0, at(0.0)).is_some());
    assert_eq!(limit.ask(0, at(0.25), at(0.9), signal()), Turn::Never(s(0.75)));
    assert!(matches!(limit.ask(0, at(0.25), at(1.0), signal()), Turn::At(_, turn) if turn == at(1.0)));
    assert_eq!(limit.ask(0, at(0.25), at(1.9), signal()), Turn::Never(s(1.75)));
    let bounded = RateLimit::new(Config { max_queue: 0, ..by_the_second(1.0, false) });
    assert!(bounded.try_go(0, at(0.0)).is_some());
    assert_eq!(bounded.ask(0, at(0.5), Instant::NEVER, signal()), Turn::Never(s(0.5)));
}

#[test]
fn where_the_server_goes_by_what_was_asked_for_that_holds() {
    let limit = RateLimit::new(Config { settles: false, ..by_the_second(10.0, true) });
    assert!(limit.try_go(60, at(0.0)).is_some());
    limit.settle(60, 10, at(0.0));
    assert_eq!(limit.outlook(at(0.0)).tokens, Some(40.0));
}

/// Both ways of a server to count: what it tells is what holds, whoever else has used the limit, and those that went since are
/// counted as not told of.
#[test]
fn what_an_answer_says_is_left_holds_for_those_that_follow() {
    let limit = RateLimit::new(by_the_second(50.0, true));
    let Some(first) = limit.try_go(100, at(0.0)) else { panic!("it is full") };
    assert!(limit.try_go(100, at(0.0)).is_some());
    limit.left(first, [Some(30), Some(250)], at(0.0));
    let outlook = limit.outlook(at(0.0));
    assert_eq!((outlook.requests, outlook.tokens), (Some(29.0), Some(150.0)));
    // All that a call may need has to be there: nothing is owed to a server.
    let Turn::At(_, turn) = limit.ask(300, at(0.0), Instant::NEVER, signal()) else { panic!("there is not enough") };
    assert_eq!(turn, at(15.0));
    // More is no more than our own; who waited for it goes.
    limit.left(first, [Some(1_000_000), Some(1_000_000)], at(0.0));
    let outlook = limit.outlook(at(0.0));
    assert_eq!((outlook.requests, outlook.tokens, outlook.queued), (Some(47.0), Some(0.0), 0));
}

#[test]
fn a_server_that_had_enough_holds_everybody_up_and_then_one_goes_first() {
    let limit = RateLimit::new(by_the_second(10.0, true));
    limit.pause(s(30.0), at(1.0));
    assert!(limit.try_go(0, at(30.9)).is_none());
    assert_eq!(limit.outlook(at(11.0)).paused, Some(s(20.0)));
    let Turn::At(first, turn) = limit.ask(0, at(2.0), Instant::NEVER, signal()) else { panic!("it is paused") };
    assert_eq!(turn, at(31.0));
    let Turn::At(_, next) = limit.ask(0, at(2.0), Instant::NEVER, signal()) else { panic!("it is paused") };
    assert_eq!(next, at(32.0));
    // A second answer like it does not shorten the pause; a longer one is believed for two minutes.
    limit.pause(s(1.0), at(2.0));
    assert_eq!(limit.look(first, at(30.9), Instant::NEVER), Turn::At(first, at(31.0)));
    assert!(matches!(limit.look(first, at(31.0), Instant::NEVER), Turn::Now(_)));
    limit.pause(s(86_400.0), at(40.0));
    assert_eq!(limit.outlook(at(40.0)).paused, Some(s(120.0)));
}

#[test]
fn what_a_server_says_tightens_and_never_loosens() {
    let limit = RateLimit::new(by_the_second(10.0, true));
    let said = |limit: Option<f64>, remaining: Option<f64>| Said { limit, remaining };
    limit.learn(said(Some(1e9), Some(1e9)), said(None, Some(1e9)), at(0.0));
    let outlook = limit.outlook(at(0.0));
    assert_eq!((outlook.requests, outlook.tokens), (Some(10.0), Some(100.0)));
    limit.learn(said(None, Some(2.0)), said(None, Some(30.0)), at(0.0));
    let outlook = limit.outlook(at(0.0));
    assert_eq!((outlook.requests, outlook.tokens), (Some(2.0), Some(30.0)));
    // Half of ours: 1 in 2 s at most; the old pace comes back with the old limit.
    limit.learn(said(Some(100.0 / 98.0 * 30.0), Some(0.0)), Said::default(), at(0.0));
    assert!(limit.try_go(0, at(1.9)).is_none() && limit.try_go(0, at(2.0)).is_some());
    limit.learn(said(Some(1e9), None), Said::default(), at(2.0));
    assert!(limit.try_go(0, at(2.9)).is_none() && limit.try_go(0, at(3.0)).is_some());
}

/// Wakes nobody, and counts.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A call and its driver: steps when it is woken, when its time has come, or when its target answers.
struct Caller {
    execution: Execution,
    counted: Arc<Counted>,
    running: Option<CallId>,
    until: Instant,
    end: Option<Outcome>,
    /// How its answer is judged.
    verdict: Verdict,
}

impl Caller {
    fn new(plan: &Arc<Plan>, now: Instant) -> Caller {
        let execution = Execution::new(plan.clone(), 7, now);
        Caller { execution, counted: Arc::default(), running: None, until: now, end: None, verdict: Verdict::Success }
    }

    /// Steps until it has to wait.
    fn go(&mut self, now: Instant) {
        let waker = Waker::from(self.counted.clone());
        loop {
            match self.execution.step(now) {
                Step::Start { call, .. } => self.running = Some(call),
                Step::Cancel { .. } => self.running = None,
                Step::Judge(_) => self.execution.verdict(self.verdict, now),
                Step::Deliver(_) => {}
                Step::Done(outcome) => {
                    self.end = Some(outcome);
                    return;
                }
                Step::Wait { until } => {
                    self.until = until;
                    if !self.execution.signal().is_some_and(|signal| signal.listen(&waker)) {
                        return;
                    }
                }
            }
        }
    }

    fn woken(&self) -> bool {
        self.counted.0.swap(0, Ordering::SeqCst) > 0
    }

    fn answers(&mut self, now: Instant) {
        if let Some(call) = self.running.take() {
            self.execution.ended(call, Outcome::Value(Ticket(0)));
            self.go(now);
        }
    }
}

fn bounded(max_concurrency: usize, max_queue: usize, max_wait: Option<f64>) -> (Arc<Bulkhead>, Arc<Plan>) {
    let config = bulkhead::Config { max_concurrency, max_queue, max_wait: max_wait.map(s) };
    let bulkhead = Arc::new(Bulkhead::new(config));
    (bulkhead.clone(), plan(vec![Arc::new(Bounded(bulkhead))]))
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    Comes,
    Answers(u8),
    Cancelled(u8),
    Waits(u8),
}

fn doings() -> impl Strategy<Value = Vec<Doing>> {
    let one = prop_oneof![
        4 => Just(Doing::Comes),
        3 => any::<u8>().prop_map(Doing::Answers),
        2 => any::<u8>().prop_map(Doing::Cancelled),
        1 => (1..4_u8).prop_map(Doing::Waits),
    ];
    proptest::collection::vec(one, 1..150)
}

proptest! {
    /// First come, first served, whoever is cancelled at whatever moment: also between being called and hearing of it.
    #[test]
    fn a_place_goes_from_hand_to_hand(room in 1..4_usize, queue in 0..5_usize, doings in doings(), lazy in any::<u64>()) {
        let (bulkhead, plan) = bounded(room, queue, Some(5.0));
        let mut callers: Vec<Caller> = Vec::new();
        // The model: who is inside, who waits since when.
        let (mut inside, mut line) = (Vec::<usize>::new(), VecDeque::<(usize, u64)>::new());
        let mut now = 0_u64;
        for (turn, doing) in doings.into_iter().enumerate() {
            let time = |now: u64| at(now as f64);
            match doing {
                Doing::Comes => {
                    let mut caller = Caller::new(&plan, time(now));
                    caller.go(time(now));
                    let who = callers.len();
                    let end = caller.end;
                    callers.push(caller);
                    if inside.len() < room {
                        inside.push(who);
                    } else if line.len() < queue {
                        line.push_back((who, now));
                    } else {
                        prop_assert!(matches!(end, Some(Outcome::Rejected(r)) if r.refusal() == Refusal::BulkheadFull && r.retry_after().is_none()));
                    }
                }
                Doing::Answers(n) | Doing::Cancelled(n) => {
                    let cancelled = matches!(doing, Doing::Cancelled(_));
                    // Anybody may be cancelled; only who knows that it is inside can answer.
                    let at_work: Vec<usize> = inside.iter().copied().filter(|w| cancelled || callers[*w].running.is_some()).collect();
                    let all: Vec<usize> = at_work.into_iter().chain(line.iter().map(|(w, _)| *w).filter(|_| cancelled)).collect();
                    if !all.is_empty() {
                        let who = all[usize::from(n) % all.len()];
                        if cancelled {
                            callers[who].execution.abandon(time(now));
                            callers[who].end = Some(Outcome::Value(Ticket(9)));
                        } else {
                            callers[who].answers(time(now));
                        }
                        line.retain(|(w, _)| *w != who);
                        if inside.contains(&who) {
                            inside.retain(|w| *w != who);
                            if let Some((next, _)) = line.pop_front() {
                                inside.push(next);
                                prop_assert!(callers[next].counted.0.load(Ordering::SeqCst) > 0, "it is told");
                            }
                        }
                    }
                }
                Doing::Waits(seconds) => now += u64::from(seconds),
            }
            // Some drivers are slow to notice; but at their time they look.
            for (who, caller) in callers.iter_mut().enumerate().filter(|(_, c)| c.end.is_none() && c.running.is_none()) {
                let late = caller.until <= time(now);
                if late || (lazy >> ((turn + who) % 64)) & 1 == 0 && caller.woken() {
                    caller.go(time(now));
                }
                if late && line.iter().any(|(w, since)| *w == who && since + 5 <= now) {
                    prop_assert!(caller.end.is_some_and(|end| end.is_refusal()));
                    line.retain(|(w, _)| *w != who);
                }
            }
            prop_assert_eq!(bulkhead.counts(), (inside.len(), line.len()));
        }
        // In the end they all come through.
        for _ in 0..callers.len() {
            for caller in callers.iter_mut().filter(|c| c.end.is_none()) {
                if caller.woken() {
                    caller.go(at(now as f64));
                }
                caller.answers(at(now as f64));
            }
        }
        prop_assert!(callers.iter().all(|c| c.end.is_some()));
        prop_assert_eq!(bulkhead.counts(), (0, 0));
    }
}

#[test]
fn a_bulkhead_that_was_emptied_hears_no_old_permits() {
    let (bulkhead, _) = bounded(1, 1, None);
    let old = bulkhead.try_enter().expect("it is empty");
    let Entry::Queued(place) = bulkhead.enter(signal()) else { panic!("it is full") };
    bulkhead.clear();
    let new = bulkhead.try_enter().expect("it is empty again");
    assert_ne!(old, new);
    bulkhead.leave(old);
    assert_eq!((bulkhead.withdraw(place), bulkhead.counts()), (None::<Permit>, (1, 0)));
    bulkhead.leave(new);
    assert_eq!(bulkhead.counts(), (0, 0));
}

fn limited(config: Config, looks: bool) -> (Arc<RateLimit>, Arc<Limited>) {
    let limit = Arc::new(RateLimit::new(config));
    (limit.clone(), Arc::new(Limited { limit, is_keyed: false, looks }))
}

#[test]
fn calls_wait_for_their_turn_and_what_they_do_not_use_lets_others_go() {
    let (limit, policy) = limited(by_the_second(10.0, true), true);
    let plan = plan(vec![policy]);
    let stage = seawall::engine::StageId(1);
    let mut callers: Vec<Caller> = (0..3).map(|_| Caller::new(&plan, at(0.0))).collect();
    for caller in &mut callers {
        caller.execution.weighs(stage, 500);
        caller.go(at(0.0));
    }
    // A hundred at once; what is more is owed: the next goes when a hundred are there again.
    assert!(callers[0].running.is_some());
    assert_eq!((callers[1].until, callers[2].until), (at(50.0), at(100.0)));
    assert_eq!(limit.outlook(at(0.0)).queued, 2);
    callers[0].verdict = Verdict::used(100);
    callers[0].answers(at(5.0));
    assert!(callers[1].woken() && !callers[2].woken(), "the first of the line hears that its turn has come closer");
    callers[1].go(at(5.0));
    assert_eq!(callers[1].until, at(10.0));
    callers[1].go(at(10.0));
    assert!(callers[1].running.is_some());
    callers[1].verdict = Verdict::used(0);
    callers[1].answers(at(10.0));
    callers[2].go(at(10.0));
    assert!(callers[2].running.is_some(), "five hundred came back");
}

#[test]
fn one_that_goes_away_before_its_turn_took_nothing() {
    let (limit, policy) = limited(by_the_second(1.0, false), false);
    let plan = plan(vec![policy]);
    let mut callers: Vec<Caller> = (0..3).map(|_| Caller::new(&plan, at(0.0))).collect();
    callers.iter_mut().for_each(|c| c.go(at(0.0)));
    callers[1].execution.abandon(at(0.5));
    assert!(callers[2].woken());
    callers[2].go(at(0.5));
    assert_eq!(callers[2].until, at(1.0));
    // It has its turn but does not hear of it before it is cancelled: what it took is there for the next.
    let mut next = Caller::new(&plan, at(0.5));
    next.go(at(0.5));
    assert_eq!(next.until, at(2.0));
    assert!(limit.try_go(0, at(1.0)).is_none());
    let _ = limit.ask(0, at(1.0), at(1.0), signal());
    callers[2].execution.abandon(at(1.0));
    assert!(next.woken());
    next.go(at(1.0));
    assert!(next.running.is_some());
}

#[test]
fn a_call_that_was_refused_further_in_gives_its_turn_back() {
    let (limit, policy) = limited(by_the_second(5.0, true), true);
    let (bulkhead, _) = bounded(1, 0, None);
    let held = bulkhead.try_enter();
    let plan = plan(vec![policy, Arc::new(Bounded(bulkhead))]);
    let mut caller = Caller::new(&plan, at(0.0));
    caller.execution.weighs(seawall::engine::StageId(2), 30);
    caller.go(at(0.0));
    assert!(held.is_some() && caller.end.is_some_and(|end| end.is_refusal()));
    assert_eq!((limit.outlook(at(0.0)).requests, limit.outlook(at(0.0)).tokens), (Some(5.0), Some(50.0)));
}

#[test]
fn an_answer_that_says_enough_pauses_all() {
    let (limit, policy) = limited(by_the_second(5.0, false), true);
    let plan = plan(vec![policy]);
    let mut caller = Caller::new(&plan, at(0.0));
    caller.go(at(0.0));
    caller.verdict = Verdict::Failure { wait: WaitHint::RetryAfter(s(7.0)), branches: u64::MAX };
    let call = caller.running.expect("it runs");
    caller.execution.ended(call, Outcome::Error(Ticket(0)));
    caller.go(at(1.0));
    assert!(matches!(caller.end, Some(Outcome::Error(_))));
    let names: Vec<&str> = caller.execution.take_events().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["rate_limit.paused"]);
    assert_eq!(limit.outlook(at(1.0)).paused, Some(s(7.0)));
}

#[test]
fn retry_waits_for_a_limit_where_its_deadline_allows() {
    let retry = |timeout| {
        let (attempts, wait) = (3, Arc::new(Backoff::NONE));
        Retry {
            attempts,
            wait,
            timeout,
            max_retry_after: s(120.0),
            budget: None,
            judges_values: false,
            counts: Arc::new(Counts::default()),
        }
    };
    let full = || {
        let (limit, policy) = limited(Config { max_queue: 0, ..by_the_second(1.0, false) }, false);
        assert!(limit.try_go(0, at(0.0)).is_some());
        policy
    };
    let mut patient = Caller::new(&plan(vec![Arc::new(Retried::new(retry(Some(s(2.0))))), full()]), at(0.0));
    patient.go(at(0.0));
    assert_eq!(patient.until, at(1.0));
    patient.go(at(1.0));
    assert!(patient.running.is_some());
    let mut hasty = Caller::new(&plan(vec![Arc::new(Retried::new(retry(Some(s(0.5))))), full()]), at(0.0));
    hasty.go(at(0.0));
    assert!(matches!(hasty.end, Some(Outcome::Rejected(r)) if r.retry_after() == Some(s(1.0))), "{:?}", hasty.end);
    // As a server's word: what is farther away than anybody would wait for is said at once.
    let unwilling = Retry { max_retry_after: s(0.9), ..retry(None) };
    let mut told = Caller::new(&plan(vec![Arc::new(Retried::new(unwilling)), full()]), at(0.0));
    told.go(at(0.0));
    assert!(matches!(told.end, Some(Outcome::Rejected(r)) if r.retry_after() == Some(s(1.0))), "{:?}", told.end);
    // With room to wait, a time limit is what decides: nobody waits in vain.
    let (limit, policy) = limited(by_the_second(1.0, false), false);
    assert!(limit.try_go(0, at(0.0)).is_some());
    let mut timed = Caller::new(&plan(vec![Arc::new(Timeout { limit: s(0.5) }), policy]), at(0.0));
    timed.go(at(0.0));
    assert!(matches!(timed.end, Some(Outcome::Rejected(r)) if r.refusal() == Refusal::RateLimited), "{:?}", timed.end);
    assert_eq!(limit.outlook(at(0.0)).queued, 0);
}
