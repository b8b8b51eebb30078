//! The tokio driver: runs one call without anybody's thread waiting for it.

use crate::drive::clock;
use crate::drive::still::{self, Still};
use crate::engine::{Ask, CallId, Event, Execution, Instant, Outcome, Step, Target, Ticket, Verdict};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use std::vec::Drain;

/// A started call.
pub type Call<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// An answer that is there, or that somebody else's thread has to give.
pub enum Asked<T> {
    /// It is there.
    Now(T),
    /// It will be.
    Later(Call<T>),
}

impl<T> Asked<T> {
    async fn answer(self) -> T {
        match self {
            Asked::Now(answer) => answer,
            Asked::Later(answer) => answer.await,
        }
    }
}

/// What the tokio driver needs from whoever owns the values.
pub trait Host: Send {
    /// How a call came out, before it is kept.
    type Result: Send;
    /// Why the caller has to know at once: an interrupt, not an outcome.
    type Interrupt: Send;

    /// Starts a call of the target.
    fn start(&mut self, call: CallId, target: Target, deadline: Instant) -> Call<Self::Result>;
    /// Keeps how a call came out. An opened stream is `Outcome::Stream`.
    fn keep(&mut self, call: CallId, result: Self::Result) -> Outcome;
    /// A started call was given up; `beaten` as in [`Step::Cancel`].
    fn cancelled(&mut self, call: CallId, beaten: bool);
    /// Says what an outcome is to a stage.
    fn judge(&mut self, ask: Ask) -> Asked<Result<Verdict, Self::Interrupt>>;
    /// Publishes what happened. The call goes on once that is done.
    fn publish(&mut self, events: Drain<'_, Event>) -> Asked<Result<(), Self::Interrupt>>;
}

/// A call under way. Dropping it abandons the call: requests are cut, permits go back, nothing counts.
pub struct Drive<H: Host> {
    execution: Execution,
    /// Who owns the values.
    pub host: H,
    running: Vec<(CallId, Call<H::Result>)>,
    /// Of a call that waits while time is moved by hand.
    still: Option<Still>,
}

/// Where the driver stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    /// A stream is open; go on with [`Drive::stream_ended`] and [`Drive::advance`].
    Delivered(Ticket),
    /// The end.
    Done(Outcome),
}

impl<H: Host> Drive<H> {
    /// A call that has not begun.
    pub fn new(execution: Execution, host: H) -> Drive<H> {
        Drive { execution, host, running: Vec::with_capacity(1), still: None }
    }

    /// The machine, for what it knows of the call.
    pub fn execution(&self) -> &Execution {
        &self.execution
    }

    /// Tells how the delivered stream of `call` ended.
    pub fn stream_ended(&mut self, call: CallId, outcome: Outcome) {
        self.execution.ended(call, outcome);
    }

    /// What the delivered stream of `call` gave out no longer binds: its failure is one that may be tried again.
    pub fn taken_back(&mut self, call: CallId) {
        self.execution.taken_back(call);
    }

    /// Sleeps until a time limit passes over an open stream.
    pub fn limit(&self) -> impl Future<Output = ()> + Send + use<H> {
        sleep_until(self.execution.next_wake())
    }

    /// Runs until something has to be handed out. After an interrupt the call is to be dropped.
    pub async fn advance(&mut self) -> Result<Turn, H::Interrupt> {
        loop {
            let step = self.execution.step(clock::now());
            if !matches!(step, Step::Wait { .. }) {
                self.still = None;
            }
            if self.execution.has_events() {
                self.host.publish(self.execution.take_events()).answer().await?;
            }
            match step {
                Step::Start { call, target, deadline } => {
                    let started = self.host.start(call, target, deadline);
                    still::begun();
                    self.running.push((call, started));
                }
                Step::Cancel { call, beaten } => {
                    let before = self.running.len();
                    self.running.retain(|(id, _)| *id != call);
                    still::ended(before - self.running.len());
                    self.host.cancelled(call, beaten);
                }
                Step::Judge(ask) => {
                    let verdict = self.host.judge(ask).answer().await?;
                    self.execution.verdict(verdict, clock::now());
                }
                Step::Wait { until } => {
                    if self.running.is_empty() && clock::is_by_hand() && self.execution.passes_time() {
                        self.still.get_or_insert_default().pass(until);
                    }
                    let span = clock::now().until(until).map(clock::slice);
                    if let Some((call, result)) = self.next_end(span).await {
                        match self.host.keep(call, result) {
                            Outcome::Stream(ticket) => self.execution.opened(call, ticket),
                            outcome => self.execution.ended(call, outcome),
                        }
                    }
                }
                Step::Deliver(ticket) => return Ok(Turn::Delivered(ticket)),
                Step::Done(outcome) => return Ok(Turn::Done(outcome)),
            }
        }
    }

    /// The next call to end; nothing once `span` has passed or the execution's signal is given.
    async fn next_end(&mut self, span: Option<Duration>) -> Option<(CallId, H::Result)> {
        let running = &mut self.running;
        let signal = self.execution.signal();
        let ended = poll_fn(|cx| {
            if signal.is_some_and(|signal| signal.listen(cx.waker())) {
                return Poll::Ready(None);
            }
            for at in 0..running.len() {
                if let Poll::Ready(result) = running[at].1.as_mut().poll(cx) {
                    let (call, _) = running.swap_remove(at);
                    still::ended(1);
                    return Poll::Ready(Some((call, result)));
                }
            }
            Poll::Pending
        });
        match span {
            None => ended.await,
            Some(span) => tokio::select! {
                biased;
                end = ended => end,
                () = tokio::time::sleep(span) => None,
            },
        }
    }
}

/// Sleeps until then, by the clock that calls go by.
pub async fn sleep_until(until: Instant) {
    while let Some(span) = clock::now().until(until) {
        if span.is_zero() {
            return;
        }
        tokio::time::sleep(clock::slice(span)).await;
    }
    std::future::pending().await
}

impl<H: Host> Drop for Drive<H> {
    fn drop(&mut self) {
        still::ended(self.running.len());
        self.execution.abandon(clock::now());
    }
}
