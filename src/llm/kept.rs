//! Answers that are kept for those who ask the same again: under which key, and what of them.

use super::chat::ChatReply;
use super::delta::Delta;
use super::embeddings::EmbeddingsReply;
use super::endpoint::is_credential;
use super::kept_form;
use super::order::{Order, Task};
use super::route::{Answer, Failure, Flight, Leg, Route};
use super::runtime::on_a_thread;
use super::stream::ChatStream;
use crate::cache_file::{CacheFile, FileDigest, FileKey};
use crate::drive::{clock, trial};
use crate::engine::{Ask, Execution, Instant, Outcome, StageId, Target, Verdict};
use crate::events;
use crate::policies::cache::{Cache, Caching, Digest, Key, Offer, OnceKept, Request, Value};
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
    /// Where answers outlive the process, and what questions begin with there.
    file: Option<(Arc<CacheFile>, FileDigest)>,
    /// What it is called in stories.
    place: Word,
}

/// An answer, as it is kept.
pub(super) enum Kept {
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
    pub fn new(
        cache: Arc<Cache>,
        file: Option<Arc<CacheFile>>,
        stage: StageId,
        target: Target,
        name: &str,
        primary: &Leg,
        rails: Option<&str>,
    ) -> Keeping {
        let mut begun = Digest::default();
        let mut on_disk = FileDigest::default();
        let mut part = |bytes: &[u8]| {
            begun.part(bytes);
            on_disk.part(bytes);
        };
        part(primary.model.as_bytes());
        for (name, value) in primary.endpoint.described() {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        if let Some(rails) = rails {
            part(b"guardrails");
            part(rails.as_bytes());
        }
        Keeping { cache, stage, target, file: file.map(|file| (file, on_disk)), begun, place: Word::of(name) }
    }

    /// What a call asks for: the primary's answer to these messages, with these parameters in whatever order.
    pub fn key(&self, order: &Order, primary: &Leg) -> Option<Key> {
        let mut digest = self.begun.clone();
        Keeping::said(order, primary, |part| digest.part(part)).then(|| digest.key())
    }

    /// The same for its file.
    fn file_key(&self, order: &Order, primary: &Leg) -> Option<(Arc<CacheFile>, FileKey)> {
        let (file, mut digest) = self.file.clone()?;
        Keeping::said(order, primary, |part| digest.part(part)).then(|| (file, digest.key()))
    }

    /// Says all that a call asks for, part by part; `false` where it is nothing for a cache.
    fn said(order: &Order, primary: &Leg, mut said: impl FnMut(&[u8])) -> bool {
        let task: &[u8] = match order.task {
            Task::Chat => b"chat",
            Task::Stream => b"stream",
            Task::Embeddings => b"embeddings",
            Task::Models => return false,
        };
        said(task);
        said(&order.content);
        let mut params: Vec<_> = order.params_at(primary).collect();
        params.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in params {
            said(name.as_bytes());
            said(value);
        }
        let headers = order.extras.headers.iter().filter(|(_, value)| !value.is_sensitive());
        let mut beside: Vec<(&str, &[u8])> = headers.map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let query = order.extras.query.iter().filter(|(name, _)| !is_credential(name));
        beside.extend(query.map(|(name, value)| (name.as_str(), value.as_bytes())));
        beside.sort_unstable();
        for (name, value) in beside {
            said(name.as_bytes());
            said(value);
        }
        true
    }
}

impl Kept {
    /// About how many bytes it takes up.
    fn size(&self) -> usize {
        match self {
            Kept::Chat(reply) => size_of::<ChatReply>() + 2 * reply.raw.len(),
            Kept::Embeddings(reply) => {
                reply.vectors.iter().map(|vector| size_of_val(&**vector)).sum::<usize>() + size_of::<EmbeddingsReply>()
            }
            Kept::Stream(pieces) => pieces.iter().map(Delta::size).sum(),
        }
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
        let is_told = self.is_counted || order.trace.is_some() || telemetry::is_on() || trial::is_recorded();
        if order.extras.caching != Caching::Usual || order.screened.redactions() > 0 || is_told {
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
    /// As it is kept, and whether it is an answer that others would want later.
    fn kept(&self) -> Option<(Kept, bool)> {
        match self {
            Answer::Chat(reply) => {
                let is_filtered = reply.choices().any(|choice| choice.finish_reason.as_deref() == Some("content_filter"));
                Some((Kept::Chat(reply.clone()), !is_filtered))
            }
            Answer::Embeddings(reply) => Some((Kept::Embeddings(reply.clone()), true)),
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
            let request = match (self.order.extras.caching, self.order.task) {
                (Caching::Refresh, _) => request.anew(),
                (_, Task::Stream) => request.alone(),
                _ => request,
            };
            let request = Arc::new(request);
            execution.brings(keeping.stage, request.clone());
            self.request = Some(request);
        }
    }

    /// Takes what the cache's file has for it into memory, where there is nothing.
    pub async fn recalls(&self) {
        let (Some(keeping), Some(key)) = (&self.route.keeping, self.order.key) else { return };
        // One that asks anew needs it too, where it stands in for a failure.
        if keeping.file.is_none() || keeping.cache.has(&key, clock::now()) {
            return;
        }
        let Some((file, file_key)) = keeping.file_key(&self.order, &self.route.legs[0]) else { return };
        let era = keeping.cache.era();
        let read = on_a_thread(move || {
            let now = clock::now();
            let found = file.find(&file_key, clock::unix(now))?;
            let age = clock::unix(now).saturating_sub(found.stored);
            Some((kept_form::read(&found.value)?, Instant(now.0.saturating_sub(age))))
        });
        let Some((kept, stored)) = read.await else { return };
        let bytes = kept.size();
        let value = Arc::new(Answered { kept, by: Target(0) });
        keeping.cache.take_in((key, Digest::of(&self.order.content)), value, bytes, stored, era);
    }

    /// What is done with an answer once it is kept: its file has it too.
    fn to_file(&self, kept: &Arc<Answered>) -> Option<OnceKept> {
        let (file, key) = self.route.keeping.as_ref()?.file_key(&self.order, &self.route.legs[0])?;
        let (kept, asked) = (kept.clone(), FileDigest::of(&self.order.content));
        let secrets = self.route.legs[0].endpoint.secrets().clone();
        Some(Box::new(move |since| file.put(key, asked, clock::unix(since), move || kept_form::written(&kept.kept, &secrets))))
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
        self.route.keeping.as_ref().filter(|keeping| keeping.stage == ask.stage())?;
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
                Some((Kept::Stream(pieces.clone()), !is_filtered))
            }
            (answer, _) => answer.and_then(Answer::kept),
        };
        Some(match (kept, &self.request) {
            (Some((kept, keep)), Some(request)) => {
                let bytes = kept.size();
                // An alternative's answer is for those who asked meanwhile, and never for later in the primary's name.
                let (value, keep) = (Arc::new(Answered { kept, by }), keep && by == Target(0));
                let kept = if keep { self.to_file(&value) } else { None };
                request.offer(Offer { value, bytes, keep, kept });
                Verdict::Success
            }
            _ => Verdict::Ignore,
        })
    }
}
