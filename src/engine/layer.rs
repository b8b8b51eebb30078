//! What a policy's author reads.
//!
//! A [`Policy`] holds configuration and the state that all calls share; it makes a [`Layer`] for each passage of a call.
//! A layer reacts to inputs. It takes `now` from [`Cx`]; it never sleeps, spawns, logs or calls out; it locks, decides,
//! unlocks and returns a [`Flow`]. Every permit taken in `Begin` is given back in exactly one of `Child`, `Ended`,
//! `Abandoned`.

use super::outcome::Outcome;
use super::plan::{Plan, StageId};
use super::random::{Chance, Random};
use super::signal::Signal;
use super::step::Verdict;
use super::time::Instant;
use crate::events::Name;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// Configuration and shared state; one object may stand in many plans.
pub trait Policy: Send + Sync {
    /// A new passage.
    fn enter(&self) -> Box<dyn Layer>;

    /// How a call without trouble passes.
    fn lane(&self) -> Lane {
        Lane::Machine
    }
    /// On a watched lane: a permit, if that changes no state that anybody has to be told of.
    fn admit(&self, now: Instant) -> Option<u64> {
        let _ = now;
        None
    }
    /// On a watched lane: whether a success of a call that began at `begun` would be settled without anything to tell.
    fn is_plain(&self, begun: Instant, now: &dyn Fn() -> Instant) -> bool {
        let _ = (begun, now);
        true
    }
    /// On a watched lane: takes the permit of a plain success back; `false`, and nothing changed, if it is not plain.
    fn settle(&self, permit: u64, begun: Instant, now: &dyn Fn() -> Instant) -> bool {
        let _ = (permit, begun, now);
        true
    }
    /// On a watched lane: takes a permit back without evidence.
    fn release(&self, permit: u64) {
        let _ = permit;
    }
}

/// How a call that meets no trouble passes a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// By the machine: every outcome has to be judged or told.
    Machine,
    /// Freely: a success is none of its business.
    Free,
    /// By `admit` and `settle`.
    Watched,
}

/// One call's passage through a policy.
pub trait Layer: Send {
    /// Reacts to an input.
    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow;

    /// The attempt number, if this outcome must be judged before it is handed in; `None` if not.
    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        let _ = outcome;
        None
    }

    /// Makes a passage that has ended a new one, as [`Policy::enter`] would; `false` if that takes a new layer. For what stands in a
    /// retry, where each attempt is a passage, and for what a machine keeps from call to call.
    fn renew(&mut self) -> bool {
        false
    }

    /// Of a new passage: the call was let in at `begun`, on the lane, and holds that permit.
    fn let_in(&mut self, _permit: u64, _begun: Instant) {}
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input<'a> {
    /// The call has reached this layer.
    Begin,
    /// What is inside came out so; with a verdict if the layer asked.
    Child(Outcome, Option<&'a Verdict>),
    /// The time that the layer set has come, or the signal that it listens to was given.
    Wake,
    /// A stream that the layer passed on has ended; with a verdict if the layer asked.
    Ended(Outcome, Option<&'a Verdict>),
    /// The caller went away, or an outer layer gave up: no evidence, permits back.
    Abandoned,
}

/// What the layer does about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flow {
    /// Go inward by that branch; what runs inside already goes on beside it.
    Inward(usize),
    /// Wait for the next input.
    Hold,
    /// This passage came out so; what still runs inside is cancelled.
    Resolve(Outcome),
    /// Hand an open stream outward and stay until it ends; what runs beside it is cancelled.
    PassOn(Outcome),
}

/// Something that happened, as data; published by the driver after the step, never under a lock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// At which stage.
    pub stage: StageId,
    /// The event's name in the table of events.
    pub name: Name,
    /// Attempts made, or the branch taken.
    pub number: u32,
    /// The wait, or the time taken.
    pub span: Duration,
    /// When this passage began.
    pub begun: Instant,
    /// What it is about.
    pub outcome: Option<Outcome>,
    /// Why, where an event has several reasons.
    pub reason: &'static str,
}

impl Event {
    /// Since this passage began.
    pub fn elapsed(&self) -> Duration {
        self.at.since(self.begun)
    }
}

/// The child of a layer's that an input is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Which of its children, from 0.
    pub number: u32,
    /// When it began.
    pub begun: Instant,
}

/// What wakes a layer beside what comes from inside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hears {
    /// Its time is a limit: nobody waits for it.
    pub limit: bool,
    /// The execution's signal.
    pub signal: bool,
}

/// Where a passage stands.
#[derive(Default)]
pub(super) struct Place {
    pub stage: StageId,
    pub begun: Instant,
    /// By when everything inside has to be over.
    pub deadline: Instant,
    pub wake: Option<Instant>,
    pub hears: Hears,
    /// Which of its parent's children it is.
    pub number: u32,
    /// How many it has had itself.
    pub children: u32,
    /// How many of those have not ended. Wider than what is beside it: the two of one width are changed as one, and the processor waits
    /// where one alone was changed before.
    pub live: usize,
}

/// What all layers of a call share.
pub(super) struct Common {
    /// What other calls wake this one by; made for the first layer that listens.
    pub signal: Option<Arc<Signal>>,
    /// How long it has waited in queues.
    pub queued: Duration,
    pub random: Random,
    pub events: Vec<Event>,
    pub attached: Vec<Outcome>,
    /// Calls of targets, without answers that were ready.
    pub calls: u32,
    pub announces: bool,
    pub hurries: bool,
    pub is_in_turn: bool,
    pub cap: u32,
    /// By when the caller has to be over.
    pub inherited: Instant,
    /// What the call weighs at some stages.
    pub weights: Vec<(StageId, u64)>,
    /// What its driver has brought along for some stages.
    pub baggage: Vec<(StageId, Arc<dyn Any + Send + Sync>)>,
}

/// What a layer may use.
pub struct Cx<'a> {
    pub(super) now: Instant,
    pub(super) place: &'a mut Place,
    pub(super) common: &'a mut Common,
    pub(super) plan: &'a Plan,
    pub(super) child: Option<Child>,
    pub(super) running: usize,
}

impl Cx<'_> {
    /// The time of this step.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// This layer's place in the plan.
    pub fn stage(&self) -> StageId {
        self.place.stage
    }

    /// When this passage began.
    pub fn begun(&self) -> Instant {
        self.place.begun
    }

    /// By when everything inside this layer has to be over.
    pub fn deadline(&self) -> Instant {
        self.place.deadline
    }

    /// Tightens the deadline for all that is inside.
    pub fn limit(&mut self, deadline: Instant) {
        self.place.deadline = deadline.min(self.place.deadline);
    }

    /// Asks for [`Input::Wake`] at that time, which is waited for; replaces an earlier wish.
    pub fn wake_at(&mut self, at: Instant) {
        self.place.wake = Some(at);
        self.place.hears.limit = false;
    }

    /// Asks for [`Input::Wake`] at that time, if nothing else happens before; replaces an earlier wish. A limit alone is
    /// nothing that is waited for: where time is moved by hand it is not what moves it.
    pub fn limit_at(&mut self, at: Instant) {
        self.place.wake = Some(at);
        self.place.hears.limit = true;
    }

    /// Takes a wish for [`Input::Wake`] at some time back.
    pub fn no_wake(&mut self) {
        self.place.wake = None;
    }

    /// What another call may give to have this layer woken, until it goes inward or resolves.
    pub fn listen(&mut self) -> Arc<Signal> {
        self.place.hears.signal = true;
        self.common.signal.get_or_insert_with(|| Arc::new(Signal::new())).clone()
    }

    /// What this call weighs here, as its driver said: the tokens that it is expected to use; 0 if it said nothing.
    pub fn weight(&self) -> u64 {
        // Few calls weigh anything anywhere.
        self.common.weights.iter().find(|(at, _)| *at == self.place.stage).map_or(0, |(_, amount)| *amount)
    }

    /// What its driver has brought along for this layer, and the two of them understand.
    pub fn brought(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.common.baggage.iter().find(|(at, _)| *at == self.place.stage).map(|(_, what)| what)
    }

    /// How long this call has waited in queues of its own, all told.
    pub fn queued(&self) -> Duration {
        self.common.queued
    }

    /// It has waited so long in a queue: that is no part of what the callee took.
    pub fn has_queued(&mut self, span: Duration) {
        self.common.queued += span;
    }

    /// A number in `[0, 1)`.
    pub fn random(&mut self) -> f64 {
        self.common.random.unit()
    }

    /// Where such numbers come from, for who may need none.
    pub fn chance(&mut self) -> &mut dyn Chance {
        &mut self.common.random
    }

    /// Whether somebody wants to be told of each attempt.
    pub fn announces(&self) -> bool {
        self.common.announces
    }

    /// Whether waits between attempts are left out.
    pub fn hurries(&self) -> bool {
        self.common.hurries
    }

    /// Whether all who drive such calls hold one lock while they do: what they count together takes no exchange.
    pub fn is_in_turn(&self) -> bool {
        self.common.is_in_turn
    }

    /// So many attempts, or fewer where this call may make fewer.
    pub fn capped(&self, attempts: u32) -> u32 {
        attempts.min(self.common.cap)
    }

    /// By when the caller of the whole call has to be over.
    pub fn inherited(&self) -> Instant {
        self.common.inherited
    }

    /// Which of its children what comes from inside comes from; `None` for all other inputs.
    pub fn child(&self) -> Option<Child> {
        self.child
    }

    /// How many further children are running: of a layer that has gone inward more than once.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many calls of targets the whole call has made so far.
    pub fn calls(&self) -> u32 {
        self.common.calls
    }

    /// How many branches are inside.
    pub fn branches(&self) -> usize {
        self.plan.branches(self.place.stage)
    }

    /// Attaches an outcome to the error that is about to be raised.
    pub fn attach(&mut self, outcome: Outcome) {
        self.common.attached.push(outcome);
    }

    /// Reports something that happened here and now.
    pub fn emit(&mut self, name: Name, number: u32, span: Duration, outcome: Option<Outcome>, reason: &'static str) {
        let (stage, begun) = (self.place.stage, self.place.begun);
        self.common.events.push(Event { at: self.now, stage, name, number, span, begun, outcome, reason });
    }
}
