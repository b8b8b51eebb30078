//! What the machine asks of its driver, and what the driver answers.

use super::outcome::{Outcome, Ticket};
use super::plan::{StageId, Target};
use super::time::Instant;
use std::time::Duration;

/// One started call of a target: an attempt. Unique within an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

impl CallId {
    /// The first call of an execution.
    pub const FIRST: CallId = CallId(0);
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Call `target`; tell the end by `ended` (or the first content by `opened`).
    Start { call: CallId, target: Target, deadline: Instant },
    /// Give up on a running call; its end will be ignored. `beaten`: not because it is late, but because another one's outcome
    /// is that of both.
    Cancel { call: CallId, beaten: bool },
    /// Say by `verdict` what this outcome is to that stage.
    Judge(Ask),
    /// Nothing to do until a call ends, `until` comes, or the execution's signal is given.
    Wait { until: Instant },
    /// Hand out the open stream and go on reporting.
    Deliver(Ticket),
    /// The end.
    Done(Outcome),
}

/// A question about an outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// What it asks about.
    pub outcome: Outcome,
    /// When this passage began.
    pub begun: Instant,
    /// The stage in the low half, the attempt in the high one: whole words are handed on inside the processor.
    place: u64,
}

impl Ask {
    /// A question of that stage's.
    pub fn new(stage: StageId, outcome: Outcome, attempt: u32, begun: Instant) -> Ask {
        Ask { outcome, begun, place: u64::from(stage.0) | u64::from(attempt) << 32 }
    }

    /// The stage that asks.
    pub fn stage(&self) -> StageId {
        StageId(self.place as u16)
    }

    /// How many calls this layer has made in this passage.
    pub fn attempt(&self) -> u32 {
        (self.place >> 32) as u32
    }
}

/// What an outcome is to the layer that asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// As it should be.
    Success,
    /// A failure that counts and may be tried again.
    Failure {
        /// What is known of the wait before another try.
        wait: WaitHint,
        /// Bit `i` set: branch `i` may help (fallback).
        branches: u64,
    },
    /// A failure that trying again cannot mend.
    Final,
    /// A failure that could be tried again, but the user's stop condition says enough.
    Stop,
    /// No evidence: neither success nor failure.
    Ignore,
    /// As it should be, with what it says of something that the layer counts.
    Counted(Count),
}

/// What an outcome says of what a layer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// How much it has used.
    pub used: Option<u64>,
    /// How much the callee says is left: of calls, and of what they use.
    pub left: [Option<u32>; 2],
}

impl Verdict {
    /// So much was used; nothing is known of what is left.
    pub fn used(amount: u64) -> Verdict {
        Verdict::Counted(Count { used: Some(amount), left: [None; 2] })
    }

    /// A failure about which nothing more is known.
    pub const FAILURE: Verdict = Verdict::Failure { wait: WaitHint::None, branches: u64::MAX };
}

/// What a judge knows of the wait before another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitHint {
    /// Nothing: the policy's own backoff applies.
    None,
    /// The server asked for it (RFC 9110 section 10.2.3): never earlier.
    RetryAfter(Duration),
    /// The user's own wait strategy computed it.
    Exactly(Duration),
}
