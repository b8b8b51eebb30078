//! The state machine of one guarded call. Std only: no clock, no thread, no I/O, no policy by name.
//!
//! A driver owns an [`Execution`] and asks it what to do next; the machine answers with a [`Step`] and never does it
//! itself. Values stay with the driver: the machine holds [`Ticket`]s. Time is an argument, chance is seeded.
//!
//! ```text
//!            ┌──────────── step(now) ────────────┐
//!  driver ───┤  Start · Cancel · Judge · Wait ·  ├─── Execution ── layers of the Plan
//!            │  Deliver · Done                   │
//!            └── ended · opened · verdict ───────┘
//! ```

mod execution;
mod lane;
mod layer;
mod outcome;
mod plan;
mod queue;
mod random;
mod signal;
mod spare;
mod step;
pub(crate) mod sync;
mod time;

pub use execution::{Execution, Idle};
pub use lane::{Pass, Way};
pub use layer::{Child, Cx, Event, Flow, Input, Lane, Layer, Policy};
pub use outcome::{Outcome, Refusal, Rejection, Ticket};
pub use plan::{Plan, PlanBuilder, StageId, Target};
pub use random::{Chance, Random};
pub use signal::Signal;
pub use spare::Spare;
pub use step::{Ask, CallId, Count, Step, Verdict, WaitHint};
pub use time::Instant;
