//! Answers that are kept for those who ask the same again: under which key, and what of them.

use super::chat::ChatReply;
use super::delta::Delta;
use super::embeddings::EmbeddingsReply;
use super::endpoint::is_credential;
use super::order::{Order, Task};
use super::route::{Answer, Failure, Flight, Leg, Route};
use super::stream::ChatStream;
use crate::drive::trial;
use crate::engine::{Ask, Execution, Instant, Outcome, StageId, Target, Verdict};
use crate::events;
use crate::policies::cache::{Cache, Digest, Key, Offer, Request, Value};
use crate::policies::class::Class;
use crate::stats::Word;
use crate::telemetry::{self, Note};
use std::sync::Arc;

/// The cache of a route.
pub struct Keeping {
    /// Where answers are kept.
    pub cache: Arc<Cache>,
    /// Its stage in the plan.
    pub stage: StageId,
    /// What was found there.
    pub target: Target,
    /// What all questions to the primary begin with.
    begun: Digest,
    /// What it is called in stories.
    place: Word,
}

/// An answer, as it is kept.
enum Kept {
    Chat(Arc<ChatReply>),
    Embeddings(Arc<EmbeddingsReply>),
    Stream(Arc<[Delta]>),
}

struct Answered {
    kept: Kept,
    /// Which alternative gave it.
    by: Target,
}

impl Keeping {
    /// Of a route whose primary that is. Its place counts, and all that it sends along but credentials.
    /// `rails`: what the answers that are kept have passed.
    pub fn new(cache: Arc<Cache>, stage: StageId, target: Target, name: &str, primary: &Leg, rails: Option<&str>) -> Keeping {
        let mut begun = Digest::default();
        begun.part(primary.model.as_bytes());
        for (name, value) in primary.endpoint.described() {
            begun.part(name.as_bytes());
            begun.part(value.as_bytes());
        }
        if let Some(rails) = rails {
            begun.part(b"guardrails");
            begun.part(rails.as_bytes());
        }
        Keeping { cache, stage, target, begun, place: Word::of(name) }
    }

    /// What a call asks for: the primary's answer to these messages, with these parameters in whatever order.
    pub fn key(&self, order: &Order, primary: &Leg) -> Option<Key> {
        let task: &[u8] = match order.task {
            Task::Chat => b"chat",
            Task::Stream => b"stream",
            Task::Embeddings => b"embeddings",
            Task::Models => return None,
        };
        let mut digest = self.begun.clone();
        digest.part(task);
        digest.part(&order.content);
        let mut params: Vec<_> = order.params_at(primary).collect();
        params.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in params {
            digest.part(name.as_bytes());
            digest.part(value);
        }
        let headers = order.extras.headers.iter().filter(|(_, value)| !value.is_sensitive());
        let mut beside: Vec<(&str, &[u8])> = headers.map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let query = order.extras.query.iter().filter(|(name, _)| !is_credential(name));
        beside.extend(query.map(|(name, value)| (name.as_str(), value.as_bytes())));
        beside.sort_unstable();
        for (name, value) in beside {
            digest.part(name.as_bytes());
            digest.part(value);
        }
        Some(digest.key())
    }
}

impl Answered {
    fn answer(&self) -> Answer {
        match &self.kept {
            Kept::Chat(reply) => Answer::Chat(reply.clone()),
            Kept::Embeddings(reply) => Answer::Embeddings(reply.clone()),
            Kept::Stream(pieces) => Answer::Stream(Box::new(ChatStream::replayed(pieces)), Vec::new()),
        }
    }
}

impl Route {
    /// The fast lane: the answer that the cache has, which alternative gave it, and what there is to tell. Only where nobody
    /// listens: what is told is the machine's to tell.
    pub fn at_hand(&self, order: &Order, now: Instant) -> Option<(Answer, Target, Note)> {
        let (keeping, key) = (self.keeping.as_ref()?, order.key?);
        if order.screened.redactions() > 0 || self.is_counted || order.trace.is_some() || telemetry::is_on() || trial::is_recorded() {
            return None;
        }
        let (value, stored) = keeping.cache.hit(&key, now)?;
        let answered = value.downcast_ref::<Answered>()?;
        let age = u64::try_from(now.since(stored).as_nanos()).unwrap_or(u64::MAX);
        let note = Note { name: events::CACHE_HIT, place: keeping.place, at_ns: 0, number: 0, span_ns: age, reason: "", error: Word::NONE };
        Some((answered.answer(), answered.by, note))
    }
}

impl Answer {
    /// As it is kept, what that takes up, and whether it is an answer that others would want later.
    fn kept(&self) -> Option<(Kept, usize, bool)> {
        match self {
            Answer::Chat(reply) => {
                let is_filtered = reply.choices().any(|choice| choice.finish_reason.as_deref() == Some("content_filter"));
                let bytes = size_of::<ChatReply>() + 2 * reply.raw.len();
                Some((Kept::Chat(reply.clone()), bytes, !is_filtered))
            }
            Answer::Embeddings(reply) => {
                let bytes = reply.vectors.iter().map(|vector| size_of_val(&**vector)).sum::<usize>() + size_of::<EmbeddingsReply>();
                Some((Kept::Embeddings(reply.clone()), bytes, true))
            }
            Answer::Stream(..) | Answer::Streamed | Answer::Models(_) => None,
        }
    }
}

impl Flight {
    /// Tells the execution what the call asks of the cache.
    pub fn asks_cache(&mut self, execution: &mut Execution) {
        if let (Some(keeping), Some(key)) = (&self.route.keeping, self.order.key) {
            let request = Request::new(key, Digest::of(&self.order.content));
            // A reader may stop reading, and nobody waits for that.
            let request = Arc::new(if self.order.task == Task::Stream { request.alone() } else { request });
            execution.brings(keeping.stage, request.clone());
            self.request = Some(request);
        }
    }

    /// What the cache has found.
    pub(super) fn found(&mut self, target: Target) -> Option<Answer> {
        if self.route.keeping.as_ref()?.target != target {
            return None;
        }
        let value: Value = self.request.as_ref()?.take()?;
        let answered = value.downcast_ref::<Answered>()?;
        self.found = Some(answered.by);
        Some(answered.answer())
    }

    /// What may be kept of an outcome, and what an older answer may stand in for; `None` at another stage.
    pub(super) fn judge_for_cache(&self, ask: &Ask) -> Option<Verdict> {
        self.route.keeping.as_ref().filter(|keeping| keeping.stage == ask.stage)?;
        let Outcome::Value(ticket) = ask.outcome else {
            let passes = self.failure(&ask.outcome).is_none_or(|failure| match failure {
                Failure::Rejected(_) => true,
                Failure::Api(error) => {
                    matches!(error.class(), Class::Transient | Class::RateLimited | Class::Quota | Class::Malformed)
                }
            });
            return Some(if passes { Verdict::FAILURE } else { Verdict::Final });
        };
        let by = self.attempts.last().map_or(Target(0), |attempt| attempt.target);
        let kept = match (self.kept.get(ticket.0 as usize).and_then(|kept| kept.as_ref().ok()), &self.recorded) {
            (Some(Answer::Streamed), Some(pieces)) => {
                let is_filtered = pieces.iter().any(|piece| piece.finish_reason.as_deref() == Some("content_filter"));
                Some((Kept::Stream(pieces.clone()), pieces.iter().map(Delta::size).sum(), !is_filtered))
            }
            (answer, _) => answer.and_then(Answer::kept),
        };
        Some(match (kept, &self.request) {
            (Some((kept, bytes, keep)), Some(request)) => {
                // An alternative's answer is for those who asked meanwhile, and never for later in the primary's name.
                request.offer(Offer { value: Arc::new(Answered { kept, by }), bytes, keep: keep && by == Target(0) });
                Verdict::Success
            }
            _ => Verdict::Ignore,
        })
    }
}
