//! An hour of traffic in virtual time: what is held at its end is what was held after its first minutes.

#[allow(dead_code)] // the other binary's part of it
mod virtual_time;

use seawall::engine::{Execution, Outcome, Plan, PlanBuilder, Policy, Step, Target, Ticket, Verdict};
use seawall::monitor::{Monitor, Record};
use seawall::policies::budget::Budget;
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Guarded, Slow, Span};
use seawall::policies::fallback::Fallback;
use seawall::policies::retry::{Retried, Retry, backoff::Backoff};
use seawall::policies::timeout::Timeout;
use seawall::stats::Ring;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use virtual_time::{Answer, End, World, s};

/// Counts the bytes that are held.
struct Counting;

thread_local! {
    /// By this thread: each test has one of its own, and the harness's are no matter of theirs.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn held_now() -> isize {
    HELD.get()
}

fn count(bytes: isize) {
    // A thread that is ending has nothing to count with any more.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn plan(breaker: &Arc<CircuitBreaker>) -> Arc<Plan> {
    let mut plan = PlanBuilder::default();
    let mut inner = plan.leaf(Target(0));
    let budget = Some(Arc::new(Budget::new(0.2, 1.0, 10.0)));
    let retry = Retry {
        attempts: 4,
        wait: Arc::new(Backoff::Sdk),
        timeout: Some(s(20.0)),
        max_retry_after: s(120.0),
        budget,
        judges_values: false,
        counts: Arc::default(),
    };
    let policies: Vec<Arc<dyn Policy>> = vec![
        Arc::new(Timeout { limit: s(2.0) }),
        Arc::new(Guarded { breaker: breaker.clone(), judges_values: false }),
        Arc::new(Retried::new(retry)),
        Arc::new(Timeout { limit: s(30.0) }),
    ];
    for policy in policies {
        inner = plan.layer(policy, vec![inner]);
    }
    let alternative = plan.leaf(Target(1));
    let root = plan.layer(Arc::new(Fallback { judges_values: false }), vec![inner, alternative]);
    plan.build(root)
}

/// Good hours and bad ones, in an order that is the same each time.
fn answer(call: u64) -> (f64, Answer) {
    let bad = (call / 5_000) % 4 == 3;
    match (call.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 59, bad) {
        (0..=15, true) | (0, false) => (0.01, Answer::Error("down")),
        (16, _) => (0.0, Answer::Busy(s(0.5))),
        (17, _) => (5.0, Answer::Hang),
        (18, _) => (0.01, Answer::Stream(s(0.05), if bad { Err("cut") } else { Ok(()) })),
        (19, _) => (0.0, Answer::Error("neutral")),
        (_, _) => (if call % 4 < 2 { 0.0 } else { 0.02 }, Answer::Value(1)),
    }
}

#[test]
fn an_hour_of_traffic_holds_no_more_than_its_first_minutes() {
    let config = Config {
        consecutive: Some(50),
        rate: Some(0.5),
        slow: Some(Slow { duration: s(1.0), ratio: 0.9 }),
        span: Span::Time(s(30.0)),
        minimum_calls: 20,
        recovery: s(5.0),
        recovery_backoff: Some(Arc::new(Backoff::Sdk)),
        half_open_max_calls: 2,
        success_threshold: 2,
        max_half_open_time: s(60.0),
        lenient: false,
    };
    let breaker = Arc::new(CircuitBreaker::new(config));
    let plan = plan(&breaker);
    let monitor = Monitor::new(100);
    let (mut call, mut seconds, mut held, mut tally) = (0_u64, 0.0, Vec::new(), [0_u64; 3]);
    while seconds < 3_600.0 {
        let (takes, answered) = answer(call);
        // One world for each call: what the test itself remembers does not count.
        let mut world = World::new(&[&[(takes, answered)], &[(0.01, Answer::Value(2))]]);
        world.now = virtual_time::at(1.0 + seconds);
        let begun = world.now;
        let (end, by_lane) = if call.is_multiple_of(2) { (world.run(&plan).0, false) } else { world.run_by_lane(&plan, false) };
        let took = world.now.since(begun);
        let ok = matches!(end, End::Value(_) | End::Streamed);
        tally[if by_lane { 0 } else { 1 + usize::from(ok) }] += 1;
        monitor.record(call, Record { ok, latency_ns: took.as_nanos() as u64, ..Record::default() });
        drop(world);
        // As drivers do: what nobody takes is kept for listeners, up to a limit.
        breaker.take_changes();
        seconds += 0.01;
        call += 1;
        if call.is_multiple_of(30_000) {
            held.push(held_now());
        }
    }
    assert!(tally.iter().all(|calls| *calls > 1_000), "every way was gone: {tally:?}");
    // The monitor's last alerts have texts of different lengths; nothing else may differ.
    let (early, last) = (held[1], held[held.len() - 1]);
    assert!((last - early).abs() < 8_192, "{held:?}");
}

#[test]
fn a_call_that_is_tried_ten_thousand_times_holds_no_more_than_one_that_was_tried_a_few() {
    let mut plan = PlanBuilder::default();
    let mut inner = plan.leaf(Target(0));
    let retry = Retry {
        attempts: u32::MAX,
        wait: Arc::new(Backoff::Fixed { wait: 1.0 }),
        timeout: None,
        max_retry_after: s(1.0),
        budget: None,
        judges_values: false,
        counts: Arc::default(),
    };
    for policy in [Arc::new(Timeout { limit: s(2.0) }) as Arc<dyn Policy>, Arc::new(Retried::new(retry))] {
        inner = plan.layer(policy, vec![inner]);
    }
    let mut now = virtual_time::at(1.0);
    let mut execution = Execution::new(plan.build(inner), 7, now);
    let (mut tried, mut held) = (0, Vec::new());
    while tried < 10_000 {
        match execution.step(now) {
            Step::Start { call, .. } => {
                tried += 1;
                // Every other attempt runs into its limit instead.
                if tried % 2 == 0 {
                    execution.ended(call, Outcome::Error(Ticket(0)));
                }
            }
            Step::Judge(_) => execution.verdict(Verdict::FAILURE, now),
            Step::Wait { until } => now = until,
            Step::Cancel { .. } => {}
            Step::Deliver(_) | Step::Done(_) => unreachable!("it goes on for ever"),
        }
        drop(execution.take_events());
        if tried == 10 || tried == 10_000 {
            held.push(held_now());
        }
    }
    let (early, last) = (held[0], held[held.len() - 1]);
    assert!((last - early).abs() < 8_192, "{early} bytes after ten attempts, {last} after ten thousand");
}

#[test]
fn a_ring_holds_what_it_keeps_and_a_full_one_wastes_nothing() {
    let before = held_now();
    let mut ring = Ring::new(100_000);
    for number in 1..=300_000_u64 {
        ring.push(|| number, |_| {});
        // Room for a few at first, then twice as much each time, and in the end for what it keeps.
        let room = match number {
            10 => 16,
            50_000 => 65_536,
            100_000 | 300_000 => 100_000,
            _ => continue,
        };
        let words = (held_now() - before) / 8;
        assert!(words == room, "{words} words after {number}");
    }
}

#[test]
fn budgets_that_nobody_has_any_more_are_forgotten() {
    let many = |times: u32| (0..times).for_each(|number| drop(Budget::shared(&format!("pipeline {number}"), 0.2)));
    many(10);
    let before = held_now();
    many(10_000);
    let more = held_now() - before;
    assert!(more.abs() < 8_192, "{more} bytes for ten thousand names");
}
