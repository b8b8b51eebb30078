//! Timeout: one policy, at two places of a pipeline the total and the attempt limit.

use crate::engine::{Cx, Flow, Input, Lane, Layer, Outcome, Policy, Refusal, Rejection};
use crate::events;
use std::time::Duration;

/// Everything inside has to be over within `limit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeout {
    /// How long.
    pub limit: Duration,
}

impl Policy for Timeout {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(*self)
    }

    fn lane(&self) -> Lane {
        Lane::Free
    }
}

/// A limit whose calls run on threads of their own, so that it can be kept: never by the fast lane.
pub struct Threaded(pub Timeout);

impl Policy for Threaded {
    fn enter(&self) -> Box<dyn Layer> {
        self.0.enter()
    }
}

impl Layer for Timeout {
    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => {
                let end = cx.now().after(self.limit);
                cx.limit(end);
                // The caller's own limit ends the call too, and nobody out there can.
                cx.limit_at(end.min(cx.inherited()));
                Flow::Inward(0)
            }
            Input::Wake => {
                let limit = self.limit.min(cx.inherited().since(cx.begun()));
                cx.emit(events::TIMEOUT_ELAPSED, 0, limit, None, "");
                Flow::Resolve(Outcome::Rejected(Rejection::new(Refusal::TimedOut, cx.stage(), Some(limit))))
            }
            Input::Child(stream @ Outcome::Stream(_), _) => Flow::PassOn(stream),
            // An answer that came late in a call nobody could stop is still an answer.
            Input::Child(outcome, _) | Input::Ended(outcome, _) => Flow::Resolve(outcome),
            Input::Abandoned => Flow::Hold,
        }
    }
}
