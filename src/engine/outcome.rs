//! How a call, or a passage through a layer, came out.

use super::plan::StageId;
use std::time::Duration;

/// A number under which the driver keeps a value, an exception or an open stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u32);

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The call returned.
    Value(Ticket),
    /// The call raised.
    Error(Ticket),
    /// The call delivered its first content; it has not ended.
    Stream(Ticket),
    /// A policy decided without, or against, the call.
    Rejected(Rejection),
}

/// Why a policy decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The circuit is open, or half open with all its probes out.
    CircuitOpen,
    /// A time limit passed. The only one that tells something of the callee.
    TimedOut,
    /// The rate limit has no room.
    RateLimited,
    /// The bulkhead has no room.
    BulkheadFull,
}

/// A policy's decision: which one, why, and how long it may last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rejection {
    /// Why.
    pub refusal: Refusal,
    /// The stage of the plan that decided.
    pub stage: StageId,
    /// When another try may be let through.
    pub retry_after: Option<Duration>,
    /// The limit that passed, for [`Refusal::TimedOut`].
    pub limit: Duration,
}

impl Outcome {
    /// Whether a policy turned the call away without evidence about the callee.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Outcome::Rejected(r) if r.refusal != Refusal::TimedOut)
    }
}
