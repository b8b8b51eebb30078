//! What is told of a call once it is over: to monitors, to the ledger, and to whoever asks the reply or the error.

use super::order::Task;
use super::route::{Answer, Attempt, Failure, Flight, Route};
use super::stream::ChatStream;
use super::usage::Usage;
use crate::drive::clock;
use crate::engine::{Event, Instant, Outcome};
use crate::events;
use crate::monitor::price;
use crate::stats::{Record, Word};
use crate::telemetry::{self, Call, Note, Request};
use tracing::debug;

/// So many things that policies did are kept of a call; of what is more the middle goes.
const MOST: usize = 64;

/// What a call remembers for its story.
#[derive(Debug, Default)]
pub(super) struct Diary {
    notes: Vec<Note>,
    used: Usage,
    /// From the beginning to the first content of a stream.
    first_token_ns: u64,
    answered_by: Option<String>,
    /// It was told, or is not to be.
    is_over: bool,
}

fn count(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

impl Diary {
    fn use_up(&mut self, usage: Option<&Usage>, answered_by: Option<&str>) {
        if let Some(usage) = usage {
            self.used.prompt_tokens = self.used.prompt_tokens.saturating_add(usage.prompt_tokens);
            self.used.completion_tokens = self.used.completion_tokens.saturating_add(usage.completion_tokens);
            self.used.total_tokens = self.used.total_tokens.saturating_add(usage.total_tokens);
            self.used.cached_tokens = Some(self.used.cached_tokens.unwrap_or(0).saturating_add(usage.cached_tokens.unwrap_or(0)));
        }
        if let Some(model) = answered_by {
            self.answered_by = Some(model.to_owned());
        }
    }

    /// An attempt has given something.
    pub fn answered(&mut self, answer: &Answer, begun: Instant) {
        match answer {
            Answer::Chat(reply) => self.use_up(reply.usage.as_ref(), reply.model.as_deref()),
            Answer::Embeddings(reply) => self.use_up(reply.usage.as_ref(), reply.model.as_deref()),
            Answer::Stream(..) if self.first_token_ns == 0 => self.first_token_ns = clock::now().since(begun).as_nanos() as u64,
            Answer::Stream(..) | Answer::Streamed | Answer::Models(_) => {}
        }
    }
}

fn nanos(later: Instant, earlier: Instant) -> u64 {
    later.0.saturating_sub(earlier.0)
}

impl Flight {
    /// Remembers what guardrails did before it began.
    pub(super) fn note_screened(&mut self) {
        let redacted = self.order.screened.redactions();
        if redacted > 0 {
            let place = self.route.legs.first().map_or(Word::NONE, |leg| Word::of(&leg.model));
            let name = events::GUARDRAIL_REDACTED;
            self.diary.notes.push(Note { at_ns: 0, name, place, number: redacted, span_ns: 0, reason: "input", error: Word::NONE });
        }
    }

    /// Remembers what a policy did.
    pub(super) fn note(&mut self, event: &Event) {
        let error = match event.outcome.as_ref().and_then(|outcome| self.failure(outcome)) {
            Some(Failure::Api(error)) => Word::of(error.kind.class_name()),
            _ => Word::NONE,
        };
        let (place, wait) = (self.route.name(event.stage), event.span.as_secs_f64());
        let (name, reason, why) = (event.name.as_str(), event.reason, error.as_str());
        debug!(target: "seawall::policy", place, number = event.number, seconds = wait, reason, error = why, "{name}");
        let notes = &mut self.diary.notes;
        if notes.len() == MOST {
            notes.remove(MOST / 2);
        }
        notes.push(Note {
            at_ns: nanos(event.at, self.begun),
            name: event.name,
            place: Word::of(self.route.name(event.stage)),
            number: event.number,
            span_ns: u64::try_from(event.span.as_nanos()).unwrap_or(u64::MAX),
            reason: event.reason,
            error,
        });
    }

    /// Takes down what a stream that is over, or broke off, has cost.
    pub fn read(&mut self, stream: &ChatStream) {
        if let Some(tally) = stream.screened() {
            self.screened = Some(tally.clone());
        }
        if self.found.is_some() {
            return; // it was paid for before
        }
        self.diary.use_up(stream.usage(), stream.answered_by());
        if !self.order.weights.is_empty() {
            self.ended = Some((stream.usage().map(|usage| usage.total_tokens), stream.headers().clone()));
        }
    }

    /// The call is over: tells whoever counts. What policies did is given for the call's story.
    pub fn over(&mut self, outcome: &Outcome, failure: Option<&Failure>) -> Vec<Note> {
        self.diary.is_over = true;
        let is_counted = self.route.is_counted;
        let trace = self.order.trace.clone();
        if is_counted || telemetry::is_on() || trace.is_some() {
            let call = self.call(outcome, failure);
            if let (true, Some(foreign)) = (is_counted, &self.route.foreign) {
                foreign.ended(&call);
            }
            telemetry::ended(&call);
            if let Some(trace) = trace {
                trace.ended(&call);
            }
        }
        std::mem::take(&mut self.diary.notes)
    }

    fn call(&self, outcome: &Outcome, failure: Option<&Failure>) -> Call {
        let (diary, attempts) = (&self.diary, &self.attempts);
        let ok = matches!(outcome, Outcome::Value(_) | Outcome::Stream(_));
        // Of the model that answered, or else of the first that was asked.
        let target = if ok { attempts.last() } else { attempts.first() }.map_or(0, |attempt| attempt.target.0);
        let targets = attempts.chunk_by(|one, next| one.target == next.target).count();
        let error = match failure {
            None => Word::NONE,
            Some(Failure::Api(error)) => Word::of(error.kind.class_name()),
            Some(Failure::Rejected(rejection)) => Word::of(rejection.refusal().class_name()),
        };
        let used = &diary.used;
        let cost_nano =
            self.price(target).map_or(0, |price| price.nano(used.prompt_tokens, used.cached_tokens.unwrap_or(0), used.completion_tokens));
        let now = clock::now();
        let record = Record {
            latency_ns: nanos(now, self.begun),
            first_token_ns: diary.first_token_ns,
            cost_nano,
            tokens: count(used.total_tokens),
            prompt_tokens: count(used.prompt_tokens),
            attempts: attempts.len() as u32,
            retries: (attempts.len().saturating_sub(targets) as u32).saturating_sub(self.hedges),
            source: self.route.sources.get(target).copied().unwrap_or_default(),
            error,
            ok,
            fallback: ok && target > 0,
        };
        Call {
            operation: self.order.task.operation(),
            is_stream: self.order.task == Task::Stream,
            begun_ns: clock::unix(self.begun),
            record,
            answered_by: diary.answered_by.clone(),
            requests: requests(attempts, &self.route, self.begun),
            notes: diary.notes.clone(),
        }
    }

    fn price(&self, target: usize) -> Option<crate::monitor::Price> {
        let asked = || self.route.legs.get(target).and_then(|leg| price(&leg.model));
        self.diary.answered_by.as_deref().and_then(price).or_else(asked)
    }
}

/// The attempts as everybody is told of them.
pub fn requests(attempts: &[Attempt], route: &Route, begun: Instant) -> Vec<Request> {
    let request = |attempt: &Attempt| Request {
        source: route.sources.get(attempt.target.0).copied().unwrap_or_default(),
        started_ns: nanos(attempt.started, begun),
        took_ns: attempt.took.map(|took| took.as_nanos() as u64),
        error: if attempt.outcome == "ok" { Word::NONE } else { Word::of(attempt.outcome) },
        status: attempt.status,
        request_id: attempt.request_id.clone(),
        waited_ns: attempt.waited.map(|waited| waited.as_nanos() as u64),
    };
    attempts.iter().map(request).collect()
}

impl Drop for Flight {
    /// Given up: what was sent is told all the same.
    fn drop(&mut self) {
        let trace = self.order.trace.as_deref();
        if self.diary.is_over || self.attempts.is_empty() || !(telemetry::is_on() || trace.is_some()) {
            return;
        }
        let (begun_ns, requests) = (clock::unix(self.begun), requests(&self.attempts, &self.route, self.begun));
        telemetry::abandoned(self.order.task.operation(), begun_ns, &requests);
        if let Some(trace) = trace {
            trace.abandoned(begun_ns, &requests);
        }
    }
}
