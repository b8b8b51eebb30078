//! Fallback: ordered alternatives, each with its own policies inside its branch.

use crate::engine::{Cx, Flow, Input, Lane, Layer, Outcome, Policy, Verdict};
use crate::events;
use std::time::Duration;

/// Tries branch after branch; branch 0 is the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Whether results are judged too: a bad result counts as a failure.
    pub judges_values: bool,
}

impl Policy for Fallback {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage { config: *self, branch: 0, first: None })
    }

    fn lane(&self) -> Lane {
        if self.judges_values { Lane::Machine } else { Lane::Free }
    }
}

struct Passage {
    config: Fallback,
    branch: usize,
    first: Option<Outcome>,
}

impl Layer for Passage {
    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        match outcome {
            Outcome::Value(_) => self.config.judges_values.then_some(self.branch as u32 + 1),
            Outcome::Stream(_) => None,
            Outcome::Error(_) | Outcome::Rejected(_) => Some(self.branch as u32 + 1),
        }
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => Flow::Inward(0),
            Input::Child(stream @ Outcome::Stream(_), _) => Flow::PassOn(stream),
            Input::Child(outcome, Some(&Verdict::Failure { branches, .. })) => {
                let next = (self.branch + 1..cx.branches()).find(|b| branches.checked_shr(*b as u32).is_none_or(|bits| bits & 1 == 1));
                let Some(next) = next else { return self.resolve(outcome, cx) };
                cx.emit(events::FALLBACK_USED, next as u32, Duration::ZERO, Some(outcome), "");
                match self.first {
                    None => self.first = Some(outcome),
                    Some(_) => cx.attach(outcome),
                }
                self.branch = next;
                Flow::Inward(next)
            }
            Input::Child(outcome, Some(Verdict::Final | Verdict::Stop | Verdict::Ignore)) => self.resolve(outcome, cx),
            Input::Child(outcome, _) | Input::Ended(outcome, _) => Flow::Resolve(outcome),
            Input::Wake | Input::Abandoned => Flow::Hold,
        }
    }
}

impl Passage {
    /// The first failure is the one to raise; the others go with it.
    fn resolve(&mut self, outcome: Outcome, cx: &mut Cx<'_>) -> Flow {
        match self.first {
            Some(first) => {
                cx.attach(outcome);
                cx.emit(events::FALLBACK_EXHAUSTED, self.branch as u32, Duration::ZERO, Some(first), "");
                Flow::Resolve(first)
            }
            None => Flow::Resolve(outcome),
        }
    }
}
