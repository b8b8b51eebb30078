//! Rate limit: requests and tokens per span together. A call takes its estimate at its turn, first come first served, and what it
//! really used settles it (token bucket; GCRA, ITU-T I.371, with a queue in front).

mod keyed;
mod levels;
mod limit;
mod said;

pub use keyed::Keyed;
pub use limit::{Config, Mark, Outlook, Place, RateLimit, Said, Turn};
pub use said::said;

use crate::engine::{Count, Cx, Flow, Input, Instant, Lane, Layer, Outcome, Policy, Refusal, Rejection, Verdict, WaitHint};
use crate::events;
use std::sync::Arc;
use std::time::Duration;

/// A limit in a plan.
pub struct Limited {
    /// The shared limit.
    pub limit: Arc<RateLimit>,
    /// Whether each call brings the limit of its key along, to pass that one.
    pub is_keyed: bool,
    /// Whether answers are looked at: for the tokens that they used, or for what the server says is left.
    pub looks: bool,
}

impl Policy for Limited {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage { limit: self.limit.clone(), looks: self.looks, at: At::Outside, tokens: 0, calls: 0, mark: None })
    }

    fn lane(&self) -> Lane {
        if self.looks || self.is_keyed { Lane::Machine } else { Lane::Watched }
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        self.limit.try_go(0, now).map(|_| 0)
    }
}

#[derive(Clone, Copy)]
enum At {
    Outside,
    Queued(Place),
    /// It had its turn.
    Gone,
}

struct Passage {
    limit: Arc<RateLimit>,
    looks: bool,
    at: At,
    /// What it took.
    tokens: u64,
    /// Calls that the whole call had made when it went.
    calls: u32,
    mark: Option<Mark>,
}

impl Passage {
    fn go(&mut self, cx: &Cx<'_>) -> Flow {
        (self.at, self.calls) = (At::Gone, cx.calls());
        Flow::Inward(0)
    }

    /// By when it has to have gone.
    fn until(&self, cx: &Cx<'_>) -> Instant {
        // At its deadline it would be too late.
        let deadline = if cx.deadline() == Instant::NEVER { Instant::NEVER } else { Instant(cx.deadline().0.saturating_sub(1)) };
        deadline.min(self.limit.config().max_wait.map_or(Instant::NEVER, |wait| cx.begun().after(wait)))
    }

    fn turn(&mut self, turn: Turn, cx: &mut Cx<'_>) -> Flow {
        match turn {
            Turn::Now(mark) => {
                self.mark = Some(mark);
                let waited = cx.now().since(cx.begun());
                if !waited.is_zero() {
                    cx.no_wake();
                    cx.has_queued(waited);
                    cx.emit(events::RATE_LIMIT_WAITED, 0, waited, None, "");
                }
                self.go(cx)
            }
            Turn::At(place, turn) => {
                self.at = At::Queued(place);
                cx.wake_at(turn);
                Flow::Hold
            }
            Turn::Never(after) => {
                self.leave(cx);
                cx.emit(events::RATE_LIMIT_REJECTED, 0, after, None, "");
                Flow::Resolve(Outcome::Rejected(Rejection::new(Refusal::RateLimited, cx.stage(), Some(after))))
            }
        }
    }

    /// Goes away; what it took is given back, unless a call was made with it.
    fn leave(&mut self, cx: &Cx<'_>) {
        match std::mem::replace(&mut self.at, At::Outside) {
            At::Queued(place) => self.limit.withdraw(place, cx.now()),
            At::Gone if cx.calls() == self.calls => self.limit.give_back(self.tokens, cx.now()),
            At::Gone | At::Outside => {}
        }
    }

    fn ended(&mut self, outcome: &Outcome, verdict: Option<&Verdict>, cx: &mut Cx<'_>) {
        match verdict {
            Some(&Verdict::Counted(Count { used, left })) => {
                if let Some(used) = used {
                    self.limit.settle(self.tokens, used, cx.now());
                }
                if let (Some(mark), [Some(_), _] | [_, Some(_)]) = (self.mark, left) {
                    self.limit.left(mark, left, cx.now());
                }
            }
            Some(&Verdict::Failure { wait, .. }) => {
                let span = match wait {
                    WaitHint::RetryAfter(span) | WaitHint::Exactly(span) => span,
                    WaitHint::None => Duration::ZERO,
                };
                self.limit.pause(span, cx.now());
                cx.emit(events::RATE_LIMIT_PAUSED, 0, span, Some(*outcome), "");
            }
            _ => {}
        }
        self.leave(cx);
    }
}

impl Layer for Passage {
    fn let_in(&mut self, _permit: u64, _begun: Instant) {
        self.at = At::Gone;
    }

    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        match outcome {
            Outcome::Value(_) => self.looks.then_some(1),
            Outcome::Error(_) => Some(1),
            Outcome::Rejected(_) | Outcome::Stream(_) => None,
        }
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match (input, self.at) {
            (Input::Begin, At::Gone) => self.go(cx),
            (Input::Begin, _) => {
                if let Some(own) = cx.brought().and_then(|brought| brought.clone().downcast::<RateLimit>().ok()) {
                    self.limit = own;
                }
                self.tokens = cx.weight();
                self.mark = self.limit.try_go(self.tokens, cx.now());
                if self.mark.is_some() {
                    return self.go(cx);
                }
                let turn = self.limit.ask(self.tokens, cx.now(), self.until(cx), cx.listen());
                self.turn(turn, cx)
            }
            (Input::Wake, At::Queued(place)) => {
                let turn = self.limit.look(place, cx.now(), self.until(cx));
                self.turn(turn, cx)
            }
            (Input::Wake, _) => Flow::Hold,
            (Input::Child(stream @ Outcome::Stream(_), _), _) => Flow::PassOn(stream),
            (Input::Child(outcome, verdict) | Input::Ended(outcome, verdict), _) => {
                self.ended(&outcome, verdict, cx);
                Flow::Resolve(outcome)
            }
            (Input::Abandoned, _) => {
                self.leave(cx);
                Flow::Hold
            }
        }
    }
}
