//! What the core costs with no Python around it: `cargo bench --no-default-features`. Prints nanoseconds of CPU per operation.

use seawall::drive::clock;
use seawall::drive::inline::{self, Called, Host, Wait};
use seawall::engine::{Ask, CallId, Event, Execution, Instant, Outcome, Plan, PlanBuilder, Target, Ticket, Verdict};
use seawall::monitor::{Monitor, Source};
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Evidence, Guarded, Span};
use seawall::policies::retry::{Retried, Retry, backoff::Backoff};
use std::convert::Infallible;
use std::hint::black_box;
use std::io::Write;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use std::vec::Drain;

/// CPU time of this thread, where the system tells it.
#[cfg(unix)]
fn spent() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(not(unix))]
fn spent() -> Duration {
    Duration::from_nanos(clock::now().0)
}

/// Nanoseconds for each of `turns`, less the loop itself.
fn once(turns: u64, mut work: impl FnMut(u64)) -> f64 {
    let begun = spent();
    for turn in 0..turns {
        work(turn);
    }
    let whole = spent() - begun;
    let begun = spent();
    for turn in 0..turns {
        black_box(turn);
    }
    whole.saturating_sub(spent() - begun).as_nanos() as f64 / turns as f64
}

struct Row {
    name: String,
    work: Box<dyn Fn(u32) -> f64>,
    taken: Vec<f64>,
}

fn breaker(rate: Option<f64>, span: Span) -> CircuitBreaker {
    CircuitBreaker::new(Config {
        consecutive: Some(1_000_000),
        rate,
        slow: None,
        span,
        minimum_calls: 100,
        recovery: Duration::from_secs(30),
        recovery_backoff: None,
        half_open_max_calls: 1,
        success_threshold: 1,
        max_half_open_time: Duration::from_secs(60),
        lenient: false,
    })
}

/// A call through a breaker: admit, settle. A tenth fails, or none; the clock goes on by `step` nanoseconds a call.
fn pass(breaker: &CircuitBreaker, turn: u64, fails: bool, step: u64) {
    let now = Instant(1 + turn * step);
    if let Ok((permit, _)) = breaker.admit(black_box(now)) {
        let evidence = if fails && turn % 10 == 9 { Evidence::Failure } else { Evidence::Success };
        black_box(breaker.settle(permit, evidence, now, &mut || 0.5));
    }
}

/// The same from one thread or two at once; the mean of the threads, which have to run long enough to meet, and for their
/// start not to count.
fn passes(turns: u64, threads: u32, make: impl Fn() -> CircuitBreaker, fails: bool, step: u64) -> f64 {
    let breaker = Arc::new(make());
    let start = Arc::new(Barrier::new(threads as usize));
    let turns = turns * 8;
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (breaker, start) = (breaker.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                once(turns, |turn| pass(&breaker, turn, fails, step))
            })
        })
        .collect();
    let taken: f64 = workers.into_iter().filter_map(|worker| worker.join().ok()).sum();
    taken / f64::from(threads)
}

/// A callee that answers at once.
struct Answers;

impl Host for Answers {
    type Interrupt = Infallible;

    fn now(&mut self) -> Instant {
        clock::now()
    }

    fn call(&mut self, _: CallId, _: Target, _: Instant, _: impl Fn() -> Instant) -> Result<Called, Infallible> {
        Ok(Called::Ended(Outcome::Value(Ticket(0)), clock::now()))
    }

    fn judge(&mut self, _: Ask, now: Instant) -> Result<(Verdict, Instant), Infallible> {
        Ok((Verdict::Success, now))
    }

    fn wait(&mut self, wait: &Wait) -> Result<Instant, Infallible> {
        Ok(wait.until)
    }

    fn publish(&mut self, _: Drain<'_, Event>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A callee that fails so often and then answers, with its driver's part left out: what the machine itself costs.
struct Fails(u32);

impl Host for Fails {
    type Interrupt = Infallible;

    fn now(&mut self) -> Instant {
        Instant(1)
    }

    fn call(&mut self, _: CallId, _: Target, _: Instant, _: impl Fn() -> Instant) -> Result<Called, Infallible> {
        let fails = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        let outcome = if fails { Outcome::Error(Ticket(0)) } else { Outcome::Value(Ticket(0)) };
        Ok(Called::Ended(outcome, Instant(1)))
    }

    fn answer(&mut self, ask: &Ask) -> Option<&'static Verdict> {
        black_box(ask.attempt());
        Some(&Verdict::FAILURE)
    }

    fn judge(&mut self, _: Ask, now: Instant) -> Result<(Verdict, Instant), Infallible> {
        Ok((Verdict::FAILURE, now))
    }

    fn wait(&mut self, wait: &Wait) -> Result<Instant, Infallible> {
        Ok(wait.until)
    }

    fn publish(&mut self, events: Drain<'_, Event>) -> Result<(), Infallible> {
        black_box(events.as_slice());
        Ok(())
    }
}

const FAILS: u32 = 200;

/// One call with so many failed attempts; a part of the whole for each.
fn failing(turns: u64, plan: &Arc<Plan>) -> f64 {
    let whole = once(turns / u64::from(FAILS), |_| {
        let mut execution = Execution::new(plan.clone(), 7, Instant(1));
        let Ok(outcome) = inline::run(&mut execution, &mut Fails(FAILS), None);
        black_box(outcome);
    });
    whole / f64::from(FAILS)
}

fn plan(retry: bool, guarded: bool) -> Arc<Plan> {
    let mut plan = PlanBuilder::default();
    let mut inner = plan.leaf(Target(0));
    if guarded {
        let breaker = Arc::new(breaker(None, Span::Calls(100)));
        inner = plan.layer(Arc::new(Guarded { breaker, judges_values: false }), vec![inner]);
    }
    if retry {
        let max_retry_after = Duration::from_secs(120);
        let retry = Retry {
            attempts: 3 + FAILS,
            wait: Arc::new(Backoff::Fixed { wait: 0.0 }),
            timeout: None,
            max_retry_after,
            budget: None,
            judges_values: false,
            counts: Arc::default(),
        };
        inner = plan.layer(Arc::new(Retried::new(retry)), vec![inner]);
    }
    plan.build(inner)
}

fn whole(turns: u64, plan: &Arc<Plan>) -> f64 {
    once(turns, |_| {
        let mut execution = Execution::new(plan.clone(), clock::seed(), clock::now());
        let Ok(outcome) = inline::run(&mut execution, &mut Answers, None);
        black_box(outcome);
    })
}

fn rows(turns: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: String, work: Box<dyn Fn(u32) -> f64>| rows.push(Row { name, work, taken: Vec::new() });
    row(
        "reading the clock once".into(),
        Box::new(move |_| {
            once(turns, |_| {
                black_box(clock::now());
            })
        }),
    );
    let kinds: [(&str, Option<f64>, Span, u64); 4] = [
        ("consecutive", None, Span::Calls(100), 0),
        ("window of 100", Some(0.5), Span::Calls(100), 0),
        ("window of 30 s, one bucket", Some(0.5), Span::Time(Duration::from_secs(30)), 0),
        ("window of 30 s, 1,000 calls/s", Some(0.5), Span::Time(Duration::from_secs(30)), 1_000_000),
    ];
    for (name, rate, span, step) in kinds {
        for threads in [1, 2] {
            for fails in [false, true] {
                let share = if fails { "1 in 10 fails" } else { "all ok" };
                let name = format!("breaker, {name}, {share}, {threads} thread{}", if threads == 1 { "" } else { "s" });
                row(name, Box::new(move |_| passes(turns, threads, || breaker(rate, span), fails, step)));
            }
        }
    }
    for window in [100, 10_000] {
        let monitor = Monitor::new(window);
        let record = move |_| {
            once(turns, |turn| {
                black_box(monitor.passed(black_box(Instant(turn)), turn, black_box(40), Source::NONE));
            })
        };
        row(format!("monitor, window of {window}, a success"), Box::new(record));
    }
    for (name, retry, guarded) in [("nothing", false, false), ("breaker", false, true), ("retry + breaker", true, true)] {
        let plan = plan(retry, guarded);
        row(format!("machine with inline driver, {name}"), Box::new(move |_| whole(turns / 4, &plan)));
    }
    for (name, guarded) in [("retry", false), ("retry + breaker", true)] {
        let plan = plan(true, guarded);
        row(format!("a failed attempt in the machine, {name}"), Box::new(move |_| failing(turns, &plan)));
    }
    rows
}

fn main() {
    // `cargo bench` adds --bench; `cargo test --benches` adds nothing and gets a look only.
    let quick = std::env::args().any(|argument| argument == "--quick") || !std::env::args().any(|argument| argument == "--bench");
    let (rounds, turns) = if quick { (3, 20_000) } else { (9, 400_000) };
    let mut rows = rows(turns);
    for round in 0..rounds {
        for row in &mut rows {
            row.taken.push((row.work)(round));
        }
    }
    let mut out = std::io::stdout().lock();
    for row in &mut rows {
        row.taken.sort_by(f64::total_cmp);
        let (median, least) = (row.taken[row.taken.len() / 2], row.taken[0]);
        // Whoever closed the other end wants no more.
        let _ = writeln!(out, "{:<64} {median:>9.2} {least:>9.2} ns", row.name);
    }
}
