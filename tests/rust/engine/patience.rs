//! Patience: several calls on one clock, and what an outage costs.

use crate::virtual_time::{at, s};
use seawall::engine::{
    CallId, Execution, Instant, Outcome, Plan, PlanBuilder, Refusal, Rejection, StageId, Step, Target, Ticket, Verdict, WaitHint,
};
use seawall::policies::patience::{Patience, whose};
use seawall::policies::retry::{Counts, Retry, backoff::Backoff};
use std::sync::Arc;
use std::time::Duration;

/// How an attempt comes out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Came {
    Fine,
    Final,
    Failed(u64, Option<f64>),
    Open(f64),
}

const DOWN: Came = Came::Failed(whose::CALLEE, None);
const BROKEN: Came = Came::Failed(whose::CALL, None);

/// How each call came out: `Ok`, or the failure with which it gave up; and when.
type Ends = Vec<(Came, f64)>;

fn plan(attempts: u32, limit: Option<f64>) -> Arc<Plan> {
    let retry = Retry {
        attempts,
        wait: Arc::new(Backoff::Fixed { wait: 1.0 }),
        timeout: None,
        max_retry_after: s(120.0),
        budget: None,
        judges_values: false,
        counts: Arc::new(Counts::default()),
    };
    let mut builder = PlanBuilder::default();
    let leaf = builder.leaf(Target(0));
    let root = builder.layer(Arc::new(Patience::new(retry, limit.map(s))), vec![leaf]);
    builder.build(root)
}

/// So many calls at once, each attempt taking so long and coming out as `callee` says of the call and the time.
fn run(calls: usize, takes: f64, plan: &Arc<Plan>, deadline: Instant, callee: impl Fn(usize, f64) -> Came) -> (Ends, Vec<(f64, usize)>) {
    run_taking(calls, |_| takes, plan, deadline, callee)
}

fn run_taking(
    calls: usize,
    takes: impl Fn(usize) -> f64,
    plan: &Arc<Plan>,
    deadline: Instant,
    callee: impl Fn(usize, f64) -> Came,
) -> (Ends, Vec<(f64, usize)>) {
    let mut now = at(0.0);
    let mut executions: Vec<Execution> = (0..calls).map(|n| Execution::within(plan.clone(), n as u64, now, deadline)).collect();
    let mut ends: Vec<Option<(Came, f64)>> = vec![None; calls];
    let mut running: Vec<(Instant, usize, CallId)> = Vec::new();
    let mut asked: Vec<(f64, usize)> = Vec::new();
    let mut values: Vec<Came> = Vec::new();
    let seconds = |now: Instant| now.since(at(0.0)).as_secs_f64();
    for _ in 0..1_000_000 {
        let mut next = Instant::NEVER;
        let mut moved = false;
        for (n, execution) in executions.iter_mut().enumerate() {
            while ends[n].is_none() {
                match execution.step(now) {
                    Step::Start { call, .. } => {
                        asked.push((seconds(now), n));
                        running.push((now.after(s(takes(n))), n, call));
                    }
                    Step::Judge(ask) => {
                        let Outcome::Error(Ticket(value)) = ask.outcome else { panic!("{:?}", ask.outcome) };
                        let verdict = match values[value as usize] {
                            Came::Failed(whose, asked) => Verdict::Failure {
                                wait: asked.map_or(WaitHint::None, |span| WaitHint::RetryAfter(s(span))),
                                branches: whose,
                            },
                            _ => Verdict::Final,
                        };
                        execution.verdict(verdict, now);
                    }
                    Step::Wait { until } => {
                        next = next.min(until);
                        break;
                    }
                    Step::Done(outcome) => {
                        moved = true;
                        ends[n] = Some((
                            match outcome {
                                Outcome::Error(Ticket(value)) => values[value as usize],
                                Outcome::Rejected(r) if r.refusal() == Refusal::CircuitOpen => Came::Open(0.0),
                                Outcome::Rejected(_) => DOWN,
                                _ => Came::Fine,
                            },
                            seconds(now),
                        ));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        if ends.iter().all(Option::is_some) {
            return (ends.into_iter().flatten().collect(), asked);
        }
        // What one has done may have given another its turn.
        if executions
            .iter()
            .zip(&ends)
            .any(|(e, end)| end.is_none() && e.signal().is_some_and(|signal| signal.listen(std::task::Waker::noop())))
        {
            continue;
        }
        if moved {
            continue;
        }
        let ended = running.iter().map(|(end, ..)| *end).min().unwrap_or(Instant::NEVER);
        assert_ne!(next.min(ended), Instant::NEVER, "they wait for nothing");
        now = now.max(next.min(ended));
        running.sort_by_key(|(end, n, _)| (*end, *n));
        while running.first().is_some_and(|(end, ..)| *end <= now) {
            let (_, n, call) = running.remove(0);
            let came = callee(n, seconds(now) - takes(n));
            let outcome = match came {
                Came::Fine => Outcome::Value(Ticket(0)),
                Came::Open(span) => Outcome::Rejected(Rejection::new(Refusal::CircuitOpen, StageId(0), Some(s(span)))),
                _ => {
                    values.push(came);
                    Outcome::Error(Ticket(values.len() as u64 - 1))
                }
            };
            executions[n].ended(call, outcome);
        }
    }
    panic!("it does not come to an end");
}

fn all_fine(ends: &Ends) -> bool {
    ends.iter().all(|(came, _)| *came == Came::Fine)
}

#[test]
fn without_trouble_all_go_at_once() {
    let (ends, asked) = run(50, 1.0, &plan(3, None), Instant::NEVER, |_, _| Came::Fine);
    assert!(all_fine(&ends));
    assert_eq!(asked.len(), 50);
    assert!(ends.iter().all(|(_, at)| *at == 1.0));
}

#[test]
fn an_outage_costs_one_probe_after_each_rest_and_nobody_gives_up() {
    for down in [DOWN, BROKEN] {
        let (ends, asked) = run(50, 0.1, &plan(3, Some(1000.0)), Instant::NEVER, |_, at| if at < 60.0 { down } else { Came::Fine });
        assert!(all_fine(&ends));
        let failures = asked.iter().filter(|(at, _)| *at < 60.0).count();
        // The first of all, which nobody could know of, and one a second.
        assert!((50..50 + 60).contains(&failures), "{failures}");
        let mut probes: Vec<usize> = asked.iter().filter(|(at, _)| (1.0..40.0).contains(at)).map(|(_, n)| *n).collect();
        probes.dedup();
        assert!(probes.len() > 30, "it is another's turn each time: {probes:?}");
    }
}

#[test]
fn after_a_rest_they_come_back_one_more_for_each_answer() {
    let (ends, asked) = run(40, 1.0, &plan(3, None), Instant::NEVER, |_, at| if at < 5.0 { DOWN } else { Came::Fine });
    assert!(all_fine(&ends));
    let mut by_turn: Vec<usize> = Vec::new();
    let mut turns: Vec<f64> = asked.iter().map(|(at, _)| *at).filter(|at| *at >= 5.0).collect();
    while let Some(first) = turns.first().copied() {
        by_turn.push(turns.iter().filter(|at| **at < first + 0.5).count());
        turns.retain(|at| *at >= first + 0.5);
    }
    assert_eq!(by_turn[..5], [1, 2, 4, 8, 16], "{by_turn:?}");
}

#[test]
fn what_a_server_asks_for_holds_for_all() {
    let busy = Came::Failed(whose::LIMIT, Some(7.0));
    let (ends, asked) = run(20, 0.1, &plan(3, None), Instant::NEVER, |n, at| if at < 0.05 && n == 3 { busy } else { Came::Fine });
    assert!(all_fine(&ends));
    assert_eq!(asked.len(), 21);
    // Its own call goes again when the server said, and no other was sent in between.
    assert!((ends[3].1 - 7.2).abs() < 0.01, "{}", ends[3].1);
}

#[test]
fn an_open_circuit_is_waited_for_and_is_no_attempt() {
    let (ends, _) = run(10, 0.1, &plan(1, None), Instant::NEVER, |_, at| if at < 30.0 { Came::Open(30.0 - at) } else { Came::Fine });
    assert!(all_fine(&ends));
    assert!(ends.iter().all(|(_, at)| (30.0..33.0).contains(at)), "{ends:?}");
}

#[test]
fn a_call_that_fails_while_others_are_answered_has_its_attempts_and_no_more() {
    for whose in [DOWN, BROKEN] {
        // The others are answered all the time, one after another.
        let takes = |n| if n == 7 { 0.1 } else { 0.3 * (n + 1) as f64 };
        let (ends, asked) = run_taking(30, takes, &plan(3, None), Instant::NEVER, |n, _| if n == 7 { whose } else { Came::Fine });
        assert_eq!(ends[7].0, whose);
        let attempts = asked.iter().filter(|(_, n)| *n == 7).count();
        assert!((3..=4).contains(&attempts), "{attempts}");
        assert!(ends[7].1 < 5.0);
    }
}

#[test]
fn the_last_call_fails_by_itself_where_it_may_be_to_blame() {
    let (ends, asked) = run(1, 0.1, &plan(3, None), Instant::NEVER, |_, _| BROKEN);
    assert_eq!((ends[0].0, asked.len()), (BROKEN, 3));
    // Of a callee that is not there it waits for the end.
    let (ends, asked) = run(1, 0.1, &plan(3, Some(30.0)), Instant::NEVER, |_, _| DOWN);
    assert_eq!(ends[0].0, DOWN);
    assert!((25..40).contains(&asked.len()), "{}", asked.len());
}

#[test]
fn patience_has_an_end_and_an_answer_begins_it_anew() {
    let (ends, _) = run(20, 0.1, &plan(3, Some(20.0)), Instant::NEVER, |_, at| if at < 19.0 { DOWN } else { Came::Fine });
    assert!(all_fine(&ends));
    let (ends, _) = run(20, 0.1, &plan(3, Some(20.0)), Instant::NEVER, |_, at| if at < 25.0 { DOWN } else { Came::Fine });
    assert!(ends.iter().any(|(came, at)| *came == DOWN && (*at - 20.0).abs() < 2.0), "{ends:?}");
    // Asked to wait longer than that, it does not.
    let (ends, asked) = run(1, 0.1, &plan(3, Some(20.0)), Instant::NEVER, |_, _| Came::Failed(whose::LIMIT, Some(3600.0)));
    assert_eq!((asked.len(), ends[0].1), (1, 0.1));
}

#[test]
fn a_final_failure_is_an_answer() {
    let (ends, asked) = run(4, 0.1, &plan(3, None), Instant::NEVER, |n, _| if n == 2 { Came::Final } else { Came::Fine });
    assert_eq!((ends[2].0, asked.len()), (Came::Final, 4));
}

#[test]
fn the_callers_deadline_ends_the_wait() {
    let (ends, _) = run(5, 0.1, &plan(3, None), at(10.0), |_, _| DOWN);
    assert!(ends.iter().all(|(came, at)| *came == DOWN && *at <= 10.1), "{ends:?}");
}

#[test]
fn whoever_goes_away_leaves_its_place_to_the_next() {
    let plan = plan(3, None);
    let mut executions: Vec<Execution> = (0..3).map(|n| Execution::new(plan.clone(), n, at(0.0))).collect();
    let started = |execution: &mut Execution, now| match execution.step(now) {
        Step::Start { call, .. } => Some(call),
        Step::Wait { .. } => None,
        other => panic!("{other:?}"),
    };
    let call = started(&mut executions[0], at(0.0)).expect("goes");
    executions[0].ended(call, Outcome::Rejected(Rejection::new(Refusal::CircuitOpen, StageId(0), Some(Duration::from_secs(5)))));
    assert_eq!(started(&mut executions[0], at(0.0)), None);
    assert_eq!(started(&mut executions[1], at(1.0)), None);
    assert_eq!(started(&mut executions[2], at(1.0)), None);
    // The first in line is given up, then the probe too.
    executions[0].abandon(at(2.0));
    assert!(started(&mut executions[1], at(5.0)).is_some());
    assert_eq!(started(&mut executions[2], at(5.0)), None, "one at a time");
    executions[1].abandon(at(6.0));
    assert!(started(&mut executions[2], at(6.0)).is_some());
}
