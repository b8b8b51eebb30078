//! Patience: several calls on one clock, and what an outage costs.

use crate::virtual_time::{at, s};
use seawall::engine::{
    CallId, Execution, Instant, Outcome, Plan, PlanBuilder, Refusal, Rejection, StageId, Step, Target, Ticket, Verdict, WaitHint,
};
use seawall::policies::patience::{Patience, whose};
use seawall::policies::retry::{
    Counts, Retry, Totals,
    backoff::{Backoff, Growth},
    reason,
};
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
    waiting(Backoff::Fixed { wait: 1.0 }, attempts, limit, Arc::default())
}

fn waiting(wait: Backoff, attempts: u32, limit: Option<f64>, counts: Arc<Counts>) -> Arc<Plan> {
    let retry =
        Retry { attempts, wait: Arc::new(wait), timeout: None, max_retry_after: s(120.0), budget: None, judges_values: false, counts };
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
fn who_waits_alone_wakes_by_itself() {
    let busy = Came::Failed(whose::LIMIT, Some(7.0));
    let (ends, asked) = run(1, 0.1, &plan(3, None), Instant::NEVER, |_, at| if at < 0.05 { busy } else { Came::Fine });
    assert_eq!((ends, asked), (vec![(Came::Fine, 7.2)], vec![(0.0, 0), (7.1, 0)]));
}

#[test]
fn each_rest_is_longer_until_an_answer_comes() {
    let wait = Backoff::Exponential(Growth { multiplier: 1.0, base: 2.0, min: 0.0, max: 1000.0 });
    let busy = Came::Failed(whose::LIMIT, None);
    let callee = |_, at: f64| if at < 6.5 { busy } else { Came::Fine };
    let (ends, asked) = run(2, 1.0, &waiting(wait, 3, None, Arc::default()), Instant::NEVER, callee);
    assert!(all_fine(&ends), "{ends:?}");
    let times: Vec<f64> = asked.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0.0, 0.0, 2.0, 5.0, 10.0, 11.0], "1, 2 and 4 seconds after the failure");
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

/// Calls that are looked at one by one.
struct ByHand {
    plan: Arc<Plan>,
    calls: Vec<Execution>,
    running: Vec<CallId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Go,
    /// Until then, or until it is told.
    Wait(Instant),
    Give(Outcome),
}

impl ByHand {
    fn new(plan: Arc<Plan>) -> ByHand {
        ByHand { plan, calls: Vec::new(), running: Vec::new() }
    }

    /// A call comes, with its number.
    fn comes(&mut self, now: f64) -> (usize, Does) {
        self.calls.push(Execution::new(self.plan.clone(), self.calls.len() as u64, at(now)));
        self.running.push(CallId::FIRST);
        let n = self.calls.len() - 1;
        (n, self.does(n, now))
    }

    fn does(&mut self, n: usize, now: f64) -> Does {
        match self.calls[n].step(at(now)) {
            Step::Start { call, .. } => {
                self.running[n] = call;
                Does::Go
            }
            Step::Wait { until } => Does::Wait(until),
            Step::Done(outcome) => Does::Give(outcome),
            other => panic!("{other:?}"),
        }
    }

    fn is_answered(&mut self, n: usize, now: f64) {
        self.calls[n].ended(self.running[n], Outcome::Value(Ticket(0)));
        assert_eq!(self.does(n, now), Does::Give(Outcome::Value(Ticket(0))));
    }

    fn fails(&mut self, n: usize, now: f64, whose: u64, asked: Option<f64>) -> Does {
        self.calls[n].ended(self.running[n], Outcome::Error(Ticket(0)));
        assert!(matches!(self.calls[n].step(at(now)), Step::Judge(_)));
        let wait = asked.map_or(WaitHint::None, |span| WaitHint::RetryAfter(s(span)));
        self.calls[n].verdict(Verdict::Failure { wait, branches: whose }, at(now));
        self.does(n, now)
    }
}

#[test]
fn the_first_in_line_wakes_by_itself_and_the_others_are_told() {
    let mut batch = ByHand::new(plan(3, None));
    let (first, _) = batch.comes(0.0);
    assert_eq!(batch.fails(first, 0.0, whose::LIMIT, Some(5.0)), Does::Wait(at(5.0)));
    let (second, does) = batch.comes(1.0);
    assert_eq!((does, batch.does(first, 2.0)), (Does::Wait(Instant::NEVER), Does::Wait(at(5.0))));
    assert_eq!(batch.does(first, 5.0), Does::Go);
    // The rest is over: it is no time that they wait for.
    assert_eq!(batch.does(second, 5.0), Does::Wait(Instant::NEVER));
    batch.calls[second].abandon(at(5.0));
    assert_eq!(batch.comes(5.0).1, Does::Wait(Instant::NEVER));
}

#[test]
fn a_pause_that_a_server_asks_for_is_everybodys_unless_it_is_this_calls_failure() {
    for (whose, next) in [(whose::CALLEE, Does::Wait(at(8.0))), (whose::CALL, Does::Go)] {
        let mut batch = ByHand::new(plan(3, None));
        let (call, _) = batch.comes(0.0);
        assert_eq!(batch.fails(call, 1.0, whose, Some(7.0)), Does::Wait(at(8.0)));
        let (_, does) = batch.comes(2.0);
        assert_eq!(does, if whose == whose::CALL { next } else { Does::Wait(Instant::NEVER) });
    }
    // What was sent before a rest makes it longer, in the same way.
    for (whose, until) in [(whose::CALLEE, 9.0), (whose::CALL, 4.0)] {
        let mut batch = ByHand::new(plan(3, None));
        let (first, second) = (batch.comes(0.0).0, batch.comes(0.0).0);
        assert_eq!(batch.fails(first, 1.0, whose::LIMIT, Some(3.0)), Does::Wait(at(4.0)));
        batch.fails(second, 2.0, whose, Some(7.0));
        let goes = batch.does(first, 4.0);
        assert_eq!(goes, if until == 4.0 { Does::Go } else { Does::Wait(at(until)) });
    }
}

#[test]
fn once_there_is_room_for_all_who_come_they_all_go() {
    let mut batch = ByHand::new(plan(3, None));
    let calls = [batch.comes(0.0).0, batch.comes(0.0).0, batch.comes(0.0).0];
    for call in calls {
        batch.fails(call, 0.0, whose::LIMIT, Some(5.0));
    }
    assert_eq!(batch.does(calls[0], 5.0), Does::Go);
    batch.is_answered(calls[0], 6.0);
    assert_eq!([batch.does(calls[1], 6.0), batch.does(calls[2], 6.0), batch.comes(6.0).1], [Does::Go; 3]);
}

#[test]
fn it_takes_five_failures_of_three_calls_to_say_that_nobody_is_there() {
    // Of one call: they are its own.
    let (ends, asked) = run(1, 0.1, &plan(10, None), Instant::NEVER, |_, _| BROKEN);
    assert_eq!((ends[0].0, asked.len()), (BROKEN, 10));
    // Four in a row: each goes again when it would.
    let again = |calls| run(calls, 0.1, &plan(3, None), Instant::NEVER, |_, at| if at < 0.05 { DOWN } else { Came::Fine }).1;
    assert_eq!(again(4).iter().filter(|(at, _)| *at == 1.1).count(), 4);
    assert_eq!(again(5).iter().filter(|(at, _)| *at == 1.1).count(), 1);
}

#[test]
fn a_limit_is_nobodys_own_failure_though_others_are_answered() {
    let takes = |n| if n == 1 { 1.0 } else { 0.5 };
    for (whose, comes) in [(whose::LIMIT, Came::Fine), (whose::CALLEE, DOWN), (whose::CALL, BROKEN)] {
        let callee = |n, at: f64| if n == 1 && at < 0.5 { Came::Failed(whose, None) } else { Came::Fine };
        let (ends, _) = run_taking(2, takes, &plan(1, None), Instant::NEVER, callee);
        assert_eq!([ends[0].0, ends[1].0], [Came::Fine, comes]);
    }
}

#[test]
fn what_was_tried_is_counted() {
    let busy = Came::Failed(whose::LIMIT, Some(7.0));
    let totals = |attempts, retries, exhausted, waited| Totals { calls: 1, attempts, retries, exhausted, waited: s(waited) };
    for (first, then, expected) in
        [(busy, Came::Fine, totals(2, 1, 0, 7.0)), (BROKEN, BROKEN, totals(2, 1, 1, 1.0)), (Came::Final, Came::Fine, totals(1, 0, 0, 0.0))]
    {
        let counts = Arc::new(Counts::default());
        let plan = waiting(Backoff::Fixed { wait: 1.0 }, 2, None, counts.clone());
        run(1, 0.1, &plan, Instant::NEVER, |_, at| if at < 0.05 { first } else { then });
        assert_eq!(counts.totals(), expected, "{first:?}");
    }
}

#[test]
fn who_hurries_waits_for_nothing_but_what_is_full() {
    for asked in [None, Some(7.0)] {
        let mut batch = ByHand::new(plan(3, None));
        let mut hurried = Execution::new(batch.plan.clone(), 0, at(0.0));
        hurried.hurry();
        batch.calls.push(hurried);
        batch.running.push(CallId::FIRST);
        assert_eq!(batch.does(0, 0.0), Does::Go);
        assert_eq!(batch.fails(0, 1.0, whose::LIMIT, asked), Does::Go);
        let open = Rejection::new(Refusal::CircuitOpen, StageId(0), Some(s(5.0)));
        batch.calls[0].ended(batch.running[0], Outcome::Rejected(open));
        assert_eq!(batch.does(0, 2.0), Does::Wait(at(7.0)));
    }
}

#[test]
fn a_failure_after_the_deadline_is_what_the_call_ends_with() {
    let mut batch = ByHand::new(plan(3, None));
    batch.calls.push(Execution::within(batch.plan.clone(), 0, at(0.0), at(1.0)));
    batch.running.push(CallId::FIRST);
    assert_eq!(batch.does(0, 0.0), Does::Go);
    assert_eq!(batch.fails(0, 1.0, whose::LIMIT, None), Does::Give(Outcome::Error(Ticket(0))));
    assert_eq!(batch.calls[0].take_events().next_back().map(|event| event.reason), Some(reason::DEADLINE));
}
