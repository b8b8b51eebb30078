//! The breaker's gate, the latch, a bulkhead's queue, a cache's line and the signal to who waits there under every order of steps that two threads can take: `make loom`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use seawall::engine::{Cx, Execution, Flow, Input, Instant, Layer, PlanBuilder, Policy, Signal, Target};
use seawall::policies::bulkhead::{self, Bulkhead, Entry, Permit, Place};
use seawall::policies::cache::{self, Arrival, Cache, Key, Lead, Offer, Request, Turn};
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Evidence, Span, State};
use seawall::stats::Latch;
use std::sync::Arc as Shared;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

const NOW: Instant = Instant(1_000);

fn config(consecutive: u32, recovery: Duration) -> Config {
    Config {
        consecutive: Some(consecutive),
        rate: None,
        slow: None,
        span: Span::Calls(4),
        minimum_calls: 2,
        recovery,
        recovery_backoff: None,
        half_open_max_calls: 1,
        success_threshold: 1,
        max_half_open_time: Duration::from_secs(60),
        lenient: false,
    }
}

fn closed(consecutive: u32) -> Arc<CircuitBreaker> {
    Arc::new(CircuitBreaker::new(config(consecutive, Duration::from_secs(30))))
}

fn both(breaker: &Arc<CircuitBreaker>, one: fn(&CircuitBreaker) -> bool, two: fn(&CircuitBreaker) -> bool) -> (bool, bool) {
    let other = {
        let breaker = breaker.clone();
        thread::spawn(move || one(&breaker))
    };
    let second = two(breaker);
    let first = other.join().expect("no panic");
    // Looked at before anything else: every other look renews the gate.
    assert!(breaker.gate_is_true(), "the gate is not the state's");
    (first, second)
}

#[test]
fn half_open_admits_one_of_two() {
    loom::model(|| {
        let breaker = Arc::new(CircuitBreaker::new(config(1, Duration::ZERO)));
        let (permit, _) = breaker.admit(NOW).expect("closed");
        breaker.settle(permit, Evidence::Failure, NOW, &mut || 0.0);
        let (one, two) = both(&breaker, |b| b.admit(NOW).is_ok(), |b| b.admit(NOW).is_ok());
        assert!(one != two, "exactly one probe");
    });
}

#[test]
fn a_success_that_races_the_trip_never_closes_it() {
    loom::model(|| {
        let breaker = closed(1);
        let fail = |b: &CircuitBreaker| b.admit(NOW).is_ok_and(|(p, _)| b.settle(p, Evidence::Failure, NOW, &mut || 0.0).is_some());
        let succeed = |b: &CircuitBreaker| b.admit(NOW).is_ok_and(|(p, _)| b.settle(p, Evidence::Success, NOW, &mut || 0.0).is_some());
        both(&breaker, fail, succeed);
        assert_eq!(breaker.state(NOW), State::Open);
    });
}

#[test]
fn no_failure_is_lost_and_one_of_them_trips() {
    loom::model(|| {
        let breaker = closed(2);
        let fail = |b: &CircuitBreaker| b.admit(NOW).is_ok_and(|(p, _)| b.settle(p, Evidence::Failure, NOW, &mut || 0.0).is_some());
        let (one, two) = both(&breaker, fail, fail);
        assert!(one != two, "exactly one of the two trips it");
        assert_eq!((breaker.state(NOW), breaker.outlook(NOW).consecutive_failures), (State::Open, 2));
        assert_eq!(breaker.take_changes().len(), 1);
    });
}

#[test]
fn a_success_beside_a_failure_leaves_a_row_of_nought_or_one() {
    loom::model(|| {
        let breaker = closed(5);
        let fail = |b: &CircuitBreaker| b.admit(NOW).is_ok_and(|(p, _)| b.settle(p, Evidence::Failure, NOW, &mut || 0.0).is_some());
        let succeed = |b: &CircuitBreaker| b.admit(NOW).is_ok_and(|(p, _)| b.settle(p, Evidence::Success, NOW, &mut || 0.0).is_some());
        both(&breaker, fail, succeed);
        assert!(breaker.outlook(NOW).consecutive_failures <= 1);
        // What is counted is what the next success is told of: the gate does not hide it.
        succeed(&breaker);
        assert_eq!(breaker.outlook(NOW).consecutive_failures, 0);
    });
}

#[test]
fn a_reset_beside_a_call_leaves_it_closed_or_counts_what_came_after() {
    loom::model(|| {
        let breaker = closed(1);
        let fail = |b: &CircuitBreaker| b.admit(NOW).is_ok_and(|(p, _)| b.settle(p, Evidence::Failure, NOW, &mut || 0.0).is_some());
        let reset = |b: &CircuitBreaker| {
            b.reset(NOW);
            true
        };
        both(&breaker, fail, reset);
        let failures = breaker.outlook(NOW).consecutive_failures;
        assert_eq!(breaker.state(NOW) == State::Open, failures == 1, "a trip and its failure stand or fall together");
    });
}

#[test]
fn a_window_that_comes_while_calls_pass_sees_those_that_follow() {
    loom::model(|| {
        let breaker = closed(5);
        let reconfigure = |b: &CircuitBreaker| {
            b.reconfigure(Config { rate: Some(1.0), ..config(5, Duration::from_secs(30)) });
            true
        };
        let succeed = |b: &CircuitBreaker| b.admit(NOW).is_ok_and(|(p, _)| b.settle(p, Evidence::Success, NOW, &mut || 0.0).is_some());
        both(&breaker, reconfigure, succeed);
        let before = breaker.outlook(NOW).totals.calls;
        assert!(before <= 1);
        succeed(&breaker);
        assert_eq!(breaker.outlook(NOW).totals.calls, before + 1);
    });
}

#[test]
fn an_isolation_beside_a_probe_ends_with_it_half_open() {
    loom::model(|| {
        let breaker = Arc::new(CircuitBreaker::new(config(1, Duration::ZERO)));
        let (permit, _) = breaker.admit(NOW).expect("closed");
        breaker.settle(permit, Evidence::Failure, NOW, &mut || 0.0);
        let isolate = |b: &CircuitBreaker| {
            let number = b.isolate(NOW);
            b.end_isolation(number, NOW)
        };
        let probe = |b: &CircuitBreaker| b.admit(NOW).is_ok_and(|(p, _)| b.settle(p, Evidence::Success, NOW, &mut || 0.0).is_some());
        let (ended, closed) = both(&breaker, isolate, probe);
        assert!(ended);
        // A probe that the isolation overtook tells nothing; one that was back before it closed the circuit.
        assert_eq!(breaker.state(NOW), if closed { State::Closed } else { State::HalfOpen });
    });
}

#[test]
fn three_calls_share_two_probes() {
    loom::model(|| {
        let two = Config { half_open_max_calls: 2, success_threshold: 2, ..config(1, Duration::ZERO) };
        let breaker = Arc::new(CircuitBreaker::new(two));
        let (permit, _) = breaker.admit(NOW).expect("closed");
        breaker.settle(permit, Evidence::Failure, NOW, &mut || 0.0);
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || (0..2).filter(|_| breaker.admit(NOW).is_ok()).count())
        };
        let mine = breaker.admit(NOW).is_ok();
        assert_eq!(other.join().expect("no panic") + usize::from(mine), 2);
    });
}

#[test]
fn a_latch_is_held_by_one_at_a_time() {
    loom::model(|| {
        let latch = Arc::new(Latch::new(0));
        let add = |latch: &Latch<u32>| {
            let mut held = latch.hold();
            let seen = *held;
            *held = seen + 1;
        };
        let other = {
            let latch = latch.clone();
            thread::spawn(move || add(&latch))
        };
        add(&latch);
        other.join().expect("no panic");
        assert_eq!(*latch.hold(), 2, "no addition is lost");
    });
}

/// A signal as an execution makes it.
fn signal() -> Shared<Signal> {
    struct Asks(Shared<std::sync::Mutex<Option<Shared<Signal>>>>);
    impl Layer for Asks {
        fn on(&mut self, _: Input, cx: &mut Cx<'_>) -> Flow {
            *self.0.lock().expect("nobody panics") = Some(cx.listen());
            Flow::Hold
        }
    }
    impl Policy for Asks {
        fn enter(&self) -> Box<dyn Layer> {
            Box::new(Asks(self.0.clone()))
        }
    }
    let taken = Shared::new(std::sync::Mutex::new(None));
    let mut builder = PlanBuilder::default();
    let leaf = builder.leaf(Target(0));
    let root = builder.layer(Shared::new(Asks(taken.clone())), vec![leaf]);
    Execution::new(builder.build(root), 1, NOW).step(NOW);
    let signal = taken.lock().expect("nobody panics").take();
    signal.expect("it listens")
}

#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Shared<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_signal_given_while_somebody_begins_to_wait_is_not_lost() {
    loom::model(|| {
        let signal = signal();
        let counted = Shared::new(Counted::default());
        let giver = {
            let signal = signal.clone();
            thread::spawn(move || signal.give())
        };
        let given = signal.listen(&Waker::from(counted.clone()));
        giver.join().expect("no panic");
        assert!(given != (counted.0.load(Ordering::SeqCst) == 1), "it is seen, or wakes");
        assert!(signal.listen(&Waker::from(counted)));
    });
}

fn full(queue: usize) -> (Shared<Bulkhead>, Permit, Vec<(Place, Shared<Signal>)>) {
    let bulkhead = Shared::new(Bulkhead::new(bulkhead::Config { max_concurrency: 1, max_queue: queue, max_wait: None }));
    let held = bulkhead.try_enter().expect("it is empty");
    let wait = |_| {
        let signal = signal();
        match bulkhead.enter(signal.clone()) {
            Entry::Queued(place) => (place, signal),
            _ => panic!("it is full, and there is room to wait"),
        }
    };
    let line = (0..queue).map(wait).collect();
    (bulkhead, held, line)
}

#[test]
fn a_place_given_to_one_that_goes_away_goes_on_to_the_next() {
    loom::model(|| {
        let (bulkhead, held, line) = full(2);
        let first = line[0].0;
        let leaves = {
            let bulkhead = bulkhead.clone();
            thread::spawn(move || bulkhead.leave(held))
        };
        if let Some(permit) = bulkhead.withdraw(first) {
            bulkhead.leave(permit);
        }
        leaves.join().expect("no panic");
        let counted = Shared::new(Counted::default());
        assert!(line[1].1.listen(&Waker::from(counted)), "the second is told");
        let permit = bulkhead.look(line[1].0).expect("it has its turn");
        assert_eq!(bulkhead.counts(), (1, 0));
        bulkhead.leave(permit);
        assert_eq!(bulkhead.counts(), (0, 0));
    });
}

#[test]
fn one_who_comes_while_the_last_leaves_is_let_in_or_called() {
    loom::model(|| {
        let bulkhead = Shared::new(Bulkhead::new(bulkhead::Config { max_concurrency: 1, max_queue: 1, max_wait: None }));
        let permit = bulkhead.try_enter().expect("it is empty");
        let leaves = {
            let bulkhead = bulkhead.clone();
            thread::spawn(move || bulkhead.leave(permit))
        };
        let entry = bulkhead.enter(signal());
        leaves.join().expect("no panic");
        match entry {
            Entry::In(permit) => bulkhead.leave(permit),
            Entry::Queued(place) => bulkhead.leave(bulkhead.look(place).expect("it has its turn")),
            Entry::Full => panic!("there was room to wait"),
        }
        assert_eq!(bulkhead.counts(), (0, 0));
    });
}

fn cache() -> Shared<Cache> {
    let config = cache::Config { ttl: None, max_items: 9, max_bytes: 9, stale_if_error: Duration::ZERO };
    Shared::new(Cache::new(config))
}

fn arrive(cache: &Cache) -> Arrival {
    cache.arrive(&Request::new(Key(1), Key(1)), signal, NOW)
}

fn land(cache: &Cache, lead: Lead) {
    cache.land(lead, Offer { value: Shared::new(()), bytes: 1, keep: true, kept: None }, NOW);
}

/// Two equal calls at once, of which the one that asks goes on by `asks`: how many have asked, and the place of one that waits.
fn both_ask(cache: &Shared<Cache>, asks: fn(&Cache, Lead)) -> (usize, Vec<cache::Place>) {
    let come = move |cache: &Cache| match arrive(cache) {
        Arrival::Hit(..) => (0, None),
        Arrival::Joined(place) => (0, Some(place)),
        Arrival::Ask(lead, _) => {
            asks(cache, lead);
            (1, None)
        }
    };
    let other = {
        let cache = cache.clone();
        thread::spawn(move || come(&cache))
    };
    let (first, second) = (come(cache), other.join().expect("no panic"));
    (first.0 + second.0, [first.1, second.1].into_iter().flatten().collect())
}

#[test]
fn of_two_equal_calls_one_asks_and_both_have_its_answer() {
    loom::model(|| {
        let cache = cache();
        let (asked, waiting) = both_ask(&cache, land);
        assert_eq!(asked, 1);
        for place in waiting {
            assert!(matches!(cache.look(place, NOW), Some(Turn::Given(_))), "it waits for nothing");
        }
        assert_eq!(cache.waiting(), (0, 0));
    });
}

#[test]
fn one_that_waits_for_a_call_that_comes_to_nothing_asks_itself() {
    loom::model(|| {
        let cache = cache();
        let (asked, waiting) = both_ask(&cache, |cache, lead| cache.give_up(lead));
        assert_eq!(asked + waiting.len(), 2);
        for place in waiting {
            let Some(Turn::Ask(lead, None)) = cache.look(place, NOW) else { panic!("it waits for nothing") };
            cache.give_up(lead);
        }
        assert_eq!(cache.waiting(), (0, 0));
    });
}

#[test]
fn the_lead_of_one_that_goes_away_goes_on_to_the_next() {
    for ends in [land, |cache: &Cache, lead| cache.give_up(lead)] {
        loom::model(move || {
            let cache = cache();
            let Arrival::Ask(lead, _) = arrive(&cache) else { panic!("nobody has asked") };
            let (Arrival::Joined(first), Arrival::Joined(second)) = (arrive(&cache), arrive(&cache)) else { panic!("one asks") };
            let ended = {
                let cache = cache.clone();
                thread::spawn(move || ends(&cache, lead))
            };
            cache.withdraw(first);
            ended.join().expect("no panic");
            match cache.look(second, NOW) {
                Some(Turn::Given(_)) => {}
                Some(Turn::Ask(lead, _)) => cache.give_up(lead),
                _ => panic!("nobody asks for it"),
            }
            assert_eq!(cache.waiting(), (0, 0));
        });
    }
}
