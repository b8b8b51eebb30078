//! Guardrails in a plan: a layer that says what they have done with an answer.
//!
//! The rules themselves are the driver's to ask, as values are: what is asked was looked at before the call began, and the
//! answer is when the layer's judge is asked. [`Verdict::Final`] of a value means that its ticket now holds an error.

use crate::engine::{Count, Cx, Flow, Input, Layer, Outcome, Policy, Verdict};
use crate::events;
use std::time::Duration;

/// A place in a plan where answers are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Guardrails;

/// What is said of an answer that passes: how much was cut out of it, and how often it was mended.
pub fn passed(redacted: u32, repaired: u32) -> Verdict {
    Verdict::Counted(Count { used: Some(redacted.into()), left: [Some(repaired), None] })
}

impl Policy for Guardrails {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage)
    }
}

struct Passage;

impl Layer for Passage {
    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        matches!(outcome, Outcome::Value(_) | Outcome::Error(_)).then_some(1)
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => Flow::Inward(0),
            Input::Child(stream @ Outcome::Stream(_), _) => Flow::PassOn(stream),
            Input::Child(outcome, verdict) | Input::Ended(outcome, verdict) => Flow::Resolve(seen(outcome, verdict, cx)),
            Input::Wake | Input::Abandoned => Flow::Hold,
        }
    }
}

fn seen(outcome: Outcome, verdict: Option<&Verdict>, cx: &mut Cx<'_>) -> Outcome {
    match verdict {
        Some(Verdict::Final) => {
            let outcome = match outcome {
                Outcome::Value(ticket) => Outcome::Error(ticket),
                other => other,
            };
            cx.emit(events::GUARDRAIL_REFUSED, 0, Duration::ZERO, Some(outcome), "output");
            outcome
        }
        Some(Verdict::Counted(count)) => {
            let redacted = count.used.map_or(0, |used| u32::try_from(used).unwrap_or(u32::MAX));
            let repaired = count.left[0].unwrap_or(0);
            for (event, number) in [(events::GUARDRAIL_REDACTED, redacted), (events::GUARDRAIL_REPAIRED, repaired)] {
                if number > 0 {
                    cx.emit(event, number, Duration::ZERO, None, "output");
                }
            }
            outcome
        }
        _ => outcome,
    }
}
