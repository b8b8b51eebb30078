//! The virtual driver: runs executions against a scripted callee on a clock that jumps from event to event.

use seawall::engine::{
    Ask, CallId, Event, Execution, Idle, Instant, Outcome, Pass, Plan, Refusal, StageId, Step, Target, Ticket, Verdict, WaitHint,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How a scripted call comes out, after a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Value(u32),
    Error(&'static str),
    /// An error whose server asks for a wait.
    Busy(Duration),
    /// Nothing ever comes.
    Hang,
    /// A stream opens, and ends so after a further while.
    Stream(Duration, Result<(), &'static str>),
}

pub fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub fn at(seconds: f64) -> Instant {
    Instant(0).after(s(seconds))
}

/// A call that began on the fast lane and has met trouble there.
pub fn resumed(plan: Arc<Plan>, seed: u64, pass: &Pass, deadline: Instant) -> Execution {
    let mut execution = Execution::idle(plan, seed);
    execution.resume(pass, deadline);
    execution
}

/// A call under way.
pub struct Running {
    end: Instant,
    call: CallId,
    answer: Answer,
    /// Its stream has been opened.
    open: bool,
}

/// A callee, a clock and a record of what happened.
pub struct World {
    pub now: Instant,
    /// Per target: how long each call takes and how it comes out. The last entry repeats.
    script: Vec<VecDeque<(Duration, Answer)>>,
    values: Vec<Answer>,
    /// Target and time of each call.
    pub calls: Vec<(usize, f64)>,
    pub cancelled: usize,
    pub delivered: Vec<f64>,
    pub events: Vec<Event>,
    /// What open streams gave out is taken back when they fail.
    pub takes_back: bool,
    /// Its driver is the one of a plain call of Python's: it answers questions from within a step, hands an end in with it, and counts in turn.
    pub at_once: bool,
    /// An end that is still to be handed in.
    ended: Option<(CallId, Outcome)>,
    /// Who asked, and of how many events it was known by then.
    pub asked: RefCell<Vec<(StageId, usize)>>,
    /// Whether a machine that is over is the next call's, as Python's drivers have it.
    pub keeps: bool,
    kept: Option<Idle>,
}

/// How a guarded call came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Value(u32),
    Error(&'static str),
    Busy,
    Streamed,
    Refused(Refusal),
}

impl World {
    pub fn new(script: &[&[(f64, Answer)]]) -> World {
        let script = script.iter().map(|t| t.iter().map(|(d, a)| (s(*d), *a)).collect()).collect();
        World {
            now: at(1.0),
            script,
            values: Vec::new(),
            calls: Vec::new(),
            cancelled: 0,
            delivered: Vec::new(),
            events: Vec::new(),
            takes_back: false,
            at_once: false,
            ended: None,
            asked: RefCell::default(),
            keeps: false,
            kept: None,
        }
    }

    fn keep(&mut self, answer: Answer) -> Outcome {
        let ticket = Ticket(self.values.len() as u64);
        self.values.push(answer);
        match answer {
            Answer::Value(_) | Answer::Stream(_, Ok(())) => Outcome::Value(ticket),
            _ => Outcome::Error(ticket),
        }
    }

    fn judge(&self, ask: Ask) -> Verdict {
        self.asked.borrow_mut().push((ask.stage(), self.events.len()));
        match ask.outcome {
            Outcome::Value(_) | Outcome::Stream(_) => Verdict::Success,
            Outcome::Rejected(_) => Verdict::FAILURE,
            Outcome::Error(ticket) => match self.values[ticket.0 as usize] {
                Answer::Error(name) | Answer::Stream(_, Err(name)) if name.starts_with("final") => Verdict::Final,
                Answer::Error(name) if name.starts_with("neutral") => Verdict::Ignore,
                Answer::Busy(wait) => Verdict::Failure { wait: WaitHint::RetryAfter(wait), branches: u64::MAX },
                _ => Verdict::FAILURE,
            },
        }
    }

    pub fn end(&self, outcome: Outcome) -> End {
        match outcome {
            Outcome::Rejected(r) => End::Refused(r.refusal()),
            Outcome::Value(t) | Outcome::Error(t) | Outcome::Stream(t) => match self.values[t.0 as usize] {
                Answer::Value(n) => End::Value(n),
                Answer::Error(name) | Answer::Stream(_, Err(name)) => End::Error(name),
                Answer::Busy(_) => End::Busy,
                Answer::Stream(_, Ok(())) => End::Streamed,
                Answer::Hang => unreachable!("a call that hangs does not end"),
            },
        }
    }

    /// Runs one call to its end.
    pub fn run(&mut self, plan: &Arc<Plan>) -> (End, Execution) {
        let mut execution = Execution::new(plan.clone(), 7, self.now);
        if self.at_once {
            execution.in_turn();
        }
        let mut running = Vec::new();
        let outcome = self.drive(&mut execution, &mut running, Instant::NEVER).expect("it ends");
        (self.end(outcome), execution)
    }

    /// Runs one call to its end, by the machine of the one before it where there is one. All are by one plan.
    pub fn run_again(&mut self, plan: &Arc<Plan>) -> End {
        let mut execution = self.machine(plan);
        if self.at_once {
            execution.in_turn();
        }
        execution.begin(self.now, Instant::NEVER);
        self.drive_to_end(execution, &mut Vec::new())
    }

    fn machine(&mut self, plan: &Arc<Plan>) -> Execution {
        match self.kept.take() {
            Some(kept) => kept.wakes_up(7),
            None => Execution::idle(plan.clone(), 7),
        }
    }

    fn drive_to_end(&mut self, mut execution: Execution, running: &mut Vec<Running>) -> End {
        let outcome = self.drive(&mut execution, running, Instant::NEVER).expect("it ends");
        if self.keeps {
            self.kept = execution.rests();
            assert!(self.kept.is_some(), "nothing in a call that is over goes on");
        }
        self.end(outcome)
    }

    /// Runs one call by the fast lane, as drivers do: a machine is built only for trouble. `patient`: nothing in the plan
    /// limits the call's time, so that it may suspend without one. Says whether it passed without a machine.
    pub fn run_by_lane(&mut self, plan: &Arc<Plan>, patient: bool) -> (End, bool) {
        let Some(way) = plan.way() else { return (self.run(plan).0, false) };
        let mut running = Vec::new();
        let mut pass = Pass::new(self.now);
        if way.admit(&mut pass) {
            let (takes, answer) = self.next_answer(0);
            let opens = matches!(answer, Answer::Stream(..) | Answer::Hang);
            if opens || !patient && !takes.is_zero() {
                let end = if answer == Answer::Hang { Instant::NEVER } else { self.now.after(takes) };
                running.push(Running { end, call: CallId::FIRST, answer, open: false });
            } else {
                self.now = self.now.after(takes);
                let outcome = self.keep(answer);
                let now = self.now;
                if matches!(outcome, Outcome::Value(_)) && way.settle(&pass, &|| now) {
                    return (self.end(outcome), true);
                }
                let mut execution = self.machine(plan);
                execution.resume(&pass, Instant::NEVER);
                execution.ended(CallId::FIRST, outcome);
                return (self.drive_to_end(execution, &mut running), false);
            }
        }
        let mut execution = self.machine(plan);
        execution.resume(&pass, Instant::NEVER);
        (self.drive_to_end(execution, &mut running), false)
    }

    /// The first call, begun on the fast lane, has failed: runs on to the end.
    pub fn failed_first(&mut self, execution: &mut Execution) -> Outcome {
        let (takes, answer) = self.next_answer(0);
        self.now = self.now.after(takes);
        let outcome = self.keep(answer);
        execution.ended(CallId::FIRST, outcome);
        self.drive(execution, &mut Vec::new(), Instant::NEVER).expect("it ends")
    }

    fn next_answer(&mut self, target: usize) -> (Duration, Answer) {
        let script = &mut self.script[target];
        let (takes, answer) = if script.len() > 1 { script.pop_front().expect("not empty") } else { script[0] };
        self.calls.push((target, self.now.since(at(1.0)).as_secs_f64()));
        (takes, answer)
    }

    /// Runs until the end, or until `stop`.
    pub fn drive(&mut self, execution: &mut Execution, running: &mut Vec<Running>, stop: Instant) -> Option<Outcome> {
        for _ in 0..100_000 {
            let ended = self.ended.take();
            let answer = |ask: &Ask| self.at_once.then(|| &*Box::leak(Box::new(self.judge(*ask))));
            let step = match ended {
                Some((call, outcome)) => execution.ended_answered(call, outcome, self.now, answer),
                None => execution.step_answered(self.now, answer),
            };
            self.events.extend(execution.take_events());
            match step {
                Step::Start { call, target, .. } => {
                    let (takes, answer) = self.next_answer(target.0);
                    let end = if answer == Answer::Hang { Instant::NEVER } else { self.now.after(takes) };
                    running.push(Running { end, call, answer, open: false });
                }
                Step::Cancel { call, .. } => {
                    running.retain(|r| r.call != call);
                    self.cancelled += 1;
                }
                Step::Judge(ask) => {
                    let verdict = self.judge(ask);
                    execution.verdict(verdict, self.now);
                }
                Step::Wait { until } => {
                    let first = running.iter().enumerate().min_by_key(|(_, r)| r.end).map(|(i, r)| (i, r.end));
                    let next = first.map_or(until, |(_, end)| end.min(until));
                    if next >= stop {
                        self.now = stop;
                        return None;
                    }
                    self.now = next;
                    if let Some((i, end)) = first
                        && end <= until
                    {
                        self.come_out(execution, running, i);
                    } else if self.takes_back {
                        running.iter().filter(|r| r.open).for_each(|r| execution.taken_back(r.call));
                    }
                }
                Step::Deliver(_) => {
                    self.delivered.push(self.now.since(at(1.0)).as_secs_f64());
                    // A limit that has passed over it already.
                    if self.takes_back && execution.next_wake() <= self.now {
                        running.iter().filter(|r| r.open).for_each(|r| execution.taken_back(r.call));
                    }
                }
                Step::Done(outcome) => {
                    assert!(running.iter().all(|r| execution.is_over(r.call)), "what is over leaves no call behind");
                    assert!(running.is_empty(), "a call that is given up is cancelled");
                    return Some(outcome);
                }
            }
        }
        panic!("the machine does not come to an end");
    }

    /// A call ends, or opens its stream.
    fn come_out(&mut self, execution: &mut Execution, running: &mut Vec<Running>, i: usize) {
        let Running { call, answer, open, .. } = running.remove(i);
        let outcome = self.keep(answer);
        match (answer, outcome) {
            (Answer::Stream(then, _), Outcome::Value(ticket) | Outcome::Error(ticket)) if !open => {
                execution.opened(call, ticket);
                running.push(Running { end: self.now.after(then), call, answer, open: true });
            }
            _ => {
                if open && self.takes_back {
                    execution.taken_back(call);
                }
                match self.at_once {
                    true => self.ended = Some((call, outcome)),
                    false => execution.ended(call, outcome),
                }
            }
        }
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.events.iter().map(|e| e.name.as_str()).filter(|n| *n != "attempt.started").collect()
    }

    pub fn elapsed(&self) -> f64 {
        self.now.since(at(1.0)).as_secs_f64()
    }
}

/// Builders of plans, outermost last: `around(leaf, [inner, …, outer])`.
pub fn plan(policies: Vec<Arc<dyn seawall::engine::Policy>>) -> Arc<Plan> {
    let mut builder = seawall::engine::PlanBuilder::default();
    let mut inner = builder.leaf(Target(0));
    for policy in policies.into_iter().rev() {
        inner = builder.layer(policy, vec![inner]);
    }
    builder.build(inner)
}

/// A call that the policies on the plan's way let in.
pub fn admitted(plan: &Plan, now: Instant) -> Pass {
    let mut pass = Pass::new(now);
    assert!(plan.way().is_some_and(|way| way.admit(&mut pass)), "all of them let it in");
    pass
}

/// Settles a success; whether that was all.
pub fn settles(plan: &Plan, pass: &Pass, now: &dyn Fn() -> Instant) -> bool {
    plan.way().is_some_and(|way| way.settle(pass, now))
}
