//! The inline driver: runs one call to its end on the caller's thread.

use crate::engine::{Ask, CallId, Event, Execution, Instant, Outcome, Signal, Step, Target, Verdict};
use std::sync::Arc;
use std::vec::Drain;

/// What the inline driver needs from whoever owns the values.
pub trait Host {
    /// Why the caller went away: an interrupt, not an outcome.
    type Interrupt;

    /// The time.
    fn now(&mut self) -> Instant;
    /// Calls the target. `deadline` is what the call may be told of, `limit` says when the machine will act on its time.
    fn call(&mut self, call: CallId, target: Target, deadline: Instant, limit: impl Fn() -> Instant) -> Result<Called, Self::Interrupt>;
    /// A call that runs apart and has ended.
    fn ended(&mut self) -> Result<Option<(CallId, Called)>, Self::Interrupt> {
        Ok(None)
    }
    /// A call that runs apart is given up; `beaten` as in [`Step::Cancel`].
    fn cancelled(&mut self, call: CallId, beaten: bool) {
        let _ = (call, beaten);
    }
    /// Says what an outcome is to a stage, where that is known at once and nobody's code is asked.
    fn answer(&mut self, ask: &Ask) -> Option<&'static Verdict> {
        let _ = ask;
        None
    }
    /// Says what an outcome is to a stage, and what time it is then: still `now`, if nobody outside was asked.
    fn judge(&mut self, ask: Ask, now: Instant) -> Result<(Verdict, Instant), Self::Interrupt>;
    /// Waits as it is said; gives what time it is then.
    fn wait(&mut self, wait: &Wait) -> Result<Instant, Self::Interrupt>;
    /// Publishes what happened.
    fn publish(&mut self, events: Drain<'_, Event>) -> Result<(), Self::Interrupt>;
}

/// A wait on the caller's thread.
pub struct Wait {
    /// Until when.
    pub until: Instant,
    /// What ends it before.
    pub signal: Option<Arc<Signal>>,
    /// Whether it is time that is waited for; else `until` only cuts it short.
    pub passes_time: bool,
}

impl Wait {
    /// What an execution that has nothing to do waits for.
    pub fn of(execution: &Execution, until: Instant) -> Wait {
        Wait { until, signal: execution.signal().cloned(), passes_time: execution.passes_time() }
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Called {
    /// It has ended, at that time.
    Ended(Outcome, Instant),
    /// It gave something that has still to be run.
    Given,
    /// It runs on a thread of its own: how it ends is asked for.
    Apart,
    /// It still runs, on a thread of its own, though its limit has passed: nobody will hear how it ends.
    GivenUp,
}

/// Where the driver stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// The end, and when it came.
    Done(Outcome, Instant),
    /// A call has given a coroutine or a generator: another driver goes on with it.
    Given(CallId),
}

/// Runs `execution` to its end; from how its first call ended, and when, if that was made already. An interrupt abandons it: permits go
/// back, nothing counts.
pub fn run<H: Host>(execution: &mut Execution, host: &mut H, first: Option<(Outcome, Instant)>) -> Result<End, H::Interrupt> {
    let result = drive(execution, host, first);
    if result.is_err() {
        let now = host.now();
        execution.abandon(now);
    }
    result
}

fn drive<H: Host>(execution: &mut Execution, host: &mut H, first: Option<(Outcome, Instant)>) -> Result<End, H::Interrupt> {
    let mut now = first.map_or_else(|| host.now(), |(_, at)| at);
    let mut ended = first.map(|(outcome, _)| (CallId::FIRST, outcome));
    loop {
        let step = match ended.take() {
            Some((call, outcome)) => execution.ended_answered(call, outcome, now, |ask| host.answer(ask)),
            None => execution.step_answered(now, |ask| host.answer(ask)),
        };
        if execution.has_events() {
            host.publish(execution.take_events())?;
        }
        match step {
            Step::Start { call, target, deadline } => {
                let limit = || execution.next_wake();
                match host.call(call, target, deadline, limit)? {
                    Called::Ended(outcome, at) => {
                        now = at;
                        ended = Some((call, outcome));
                    }
                    Called::Apart => {}
                    Called::GivenUp => now = host.now().max(execution.next_wake()),
                    Called::Given => return Ok(End::Given(call)),
                }
            }
            Step::Judge(ask) => {
                let (verdict, then) = host.judge(ask, now)?;
                now = then;
                execution.verdict(verdict, now);
            }
            Step::Wait { until } => match host.ended()? {
                Some((call, Called::Ended(outcome, at))) => {
                    now = at;
                    execution.ended(call, outcome);
                }
                Some((call, _)) => {
                    execution.goes_on_with(call, host.now());
                    return Ok(End::Given(call));
                }
                None => now = host.wait(&Wait::of(execution, until))?,
            },
            Step::Done(outcome) => return Ok(End::Done(outcome, now)),
            // A call on this thread has ended before anything can cancel it.
            Step::Cancel { call, beaten } => host.cancelled(call, beaten),
            // Nothing is delivered before its end.
            Step::Deliver(_) => {}
        }
    }
}
