//! What is written down of a finished call, so that another process can give it back: the body as it came, without secrets, and a few facts.

use super::chat::{ChatReply, parse_reply};
use super::client::RawReply;
use super::embeddings::EmbeddingsReply;
use super::error::{ApiError, ErrorKind, KINDS};
use super::order::{Order, Params, params_at};
use super::route::{Answer, Attempt, Failure, Leg, Route};
use super::usage::Usage;
use crate::engine::{Instant, Target};
use crate::journal::{Key, Row};
use crate::policies::class::Class;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One attempt: model, alternative, when it began, seconds, outcome, status, request id, the wait after it.
pub type Attempted = (Option<String>, usize, f64, Option<f64>, String, Option<u16>, Option<String>, Option<f64>);

/// What is told of a finished call beside its answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// The model that was asked.
    pub asked_model: String,
    /// Which alternative answered.
    pub alternative: usize,
    /// From the call to its end.
    pub seconds: f64,
    /// Whether a cache had the answer.
    pub cached: bool,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// The attempts made.
    pub attempts: Vec<Attempted>,
    /// Why it failed.
    pub error: Option<Failed>,
    /// Of vectors: what else there is to know of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<Vectors>,
}

/// What is written down of vectors beside their numbers, which are the row's answer, as little-endian floats.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Vectors {
    /// How many numbers each has.
    pub length: usize,
    /// The model that answered, as the server names it.
    pub model: Option<String>,
    /// The tokens used, if the server says: of the input, and all.
    pub tokens: Option<(u64, u64)>,
}

/// A failure, without what the server sent along.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failed {
    /// The name of its class.
    pub class: String,
    /// What went wrong.
    pub message: String,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The provider's code.
    pub code: Option<String>,
    /// Which parameter the provider objects to.
    pub param: Option<String>,
    /// The provider's type.
    pub error_type: Option<String>,
}

/// How a call came out.
pub struct Ended<'a> {
    /// The answer or the failure.
    pub result: &'a Result<Answer, Failure>,
    /// The attempts made.
    pub attempts: &'a [Attempt],
    /// When it began.
    pub begun: Instant,
    /// How long it took.
    pub took: Duration,
    /// Which alternative gave the answer that a cache had.
    pub found: Option<Target>,
}

/// A row, read.
pub enum Recorded {
    /// The answer.
    Answer(Arc<ChatReply>, Told),
    /// The vectors.
    Vectors(EmbeddingsReply, Told),
    /// The failure.
    Failure(ApiError, Told),
}

/// The row of a call that came out so; `None` for what another run may see end otherwise.
pub fn row(at: u64, key: Key, ended: &Ended<'_>, legs: &[Arc<Leg>]) -> Option<Row> {
    let seconds = |span: Duration| span.as_secs_f64();
    let attempts = ended.attempts.iter().map(|a| {
        let model = legs.get(a.target.0).map(|leg| leg.model.to_string());
        let (started, took, waited) = (seconds(a.started.since(ended.begun)), a.took.map(seconds), a.waited.map(seconds));
        (model, a.target.0, started, took, a.outcome.to_owned(), a.status, a.request_id.clone(), waited)
    });
    let by = ended.found.or(ended.attempts.last().map(|a| a.target)).unwrap_or_default();
    let mut told = Told {
        asked_model: legs.get(by.0).map_or_else(String::new, |leg| leg.model.to_string()),
        alternative: by.0,
        seconds: seconds(ended.took),
        cached: ended.found.is_some(),
        request_id: None,
        attempts: attempts.collect(),
        error: None,
        vectors: None,
    };
    let answer = match ended.result {
        Ok(Answer::Chat(reply)) => {
            told.request_id.clone_from(&reply.request_id);
            reply.raw_without_secrets().to_vec()
        }
        Ok(Answer::Embeddings(reply)) => {
            told.request_id.clone_from(&reply.request_id);
            let tokens = reply.usage.map(|usage| (usage.prompt_tokens, usage.total_tokens));
            told.vectors = Some(Vectors { length: reply.vectors.first().map_or(0, Vec::len), model: reply.model.clone(), tokens });
            reply.vectors.iter().flatten().flat_map(|number| number.to_le_bytes()).collect()
        }
        Err(Failure::Api(error)) => {
            told.request_id.clone_from(&error.request_id);
            told.error = Some(Failed {
                class: error.kind.class_name().to_owned(),
                message: error.message.clone(),
                status: error.status,
                code: error.code.clone(),
                param: error.param.clone(),
                error_type: error.error_type.clone(),
            });
            Vec::new()
        }
        Ok(_) | Err(Failure::Rejected(_)) => return None,
    };
    let told = serde_json::to_vec(&told).ok()?;
    Some(Row { at, key, is_failure: ended.result.is_err(), answer, told })
}

/// What a row says; `None` if it is not one of [`row`]'s.
pub fn read(row: Row) -> Option<Recorded> {
    let told: Told = serde_json::from_slice(&row.told).ok()?;
    if let Some(failed) = &told.error {
        let kind = KINDS.iter().find(|(_, name, _)| *name == failed.class).map_or(ErrorKind::Api, |(kind, _, _)| *kind);
        let mut error = ApiError::new(kind, failed.message.clone());
        (error.status, error.code, error.param) = (failed.status, failed.code.clone(), failed.param.clone());
        (error.error_type, error.request_id) = (failed.error_type.clone(), told.request_id.clone());
        return Some(Recorded::Failure(error, told));
    }
    if let Some(vectors) = &told.vectors {
        return read_vectors(&row.answer, vectors, &told).map(|reply| Recorded::Vectors(reply, told.clone()));
    }
    let mut headers = HeaderMap::new();
    if let Some(id) = told.request_id.as_ref().and_then(|id| id.parse().ok()) {
        headers.insert("x-request-id", id);
    }
    let reply = parse_reply(RawReply::new(200, headers, row.answer)).ok()?;
    Some(Recorded::Answer(Arc::new(reply), told))
}

fn read_vectors(answer: &[u8], vectors: &Vectors, told: &Told) -> Option<EmbeddingsReply> {
    let (floats, rest) = answer.as_chunks::<4>();
    if !rest.is_empty() || floats.is_empty() || vectors.length == 0 || !floats.len().is_multiple_of(vectors.length) {
        return None;
    }
    let numbers: Vec<f32> = floats.iter().map(|float| f32::from_le_bytes(*float)).collect();
    let usage = vectors.tokens.map(|(prompt_tokens, total_tokens)| Usage { prompt_tokens, total_tokens, ..Usage::default() });
    let (model, request_id) = (vectors.model.clone(), told.request_id.clone());
    Some(EmbeddingsReply { vectors: numbers.chunks(vectors.length).map(<[f32]>::to_vec).collect(), model, usage, request_id })
}

/// Whether a failure is everybody's: no other input would fare better, and asking them all would tell nothing new.
pub fn ends_all(failure: &Failure) -> bool {
    match failure {
        Failure::Api(error) => {
            matches!(error.class(), Class::Quota | Class::NotFound)
                || matches!(error.kind, ErrorKind::Authentication | ErrorKind::Configuration)
        }
        // What a policy turned away was not asked.
        Failure::Rejected(_) => true,
    }
}

fn digest(parts: &[&[u8]]) -> Key {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut key = Key::default();
    key.copy_from_slice(&context.finish().as_ref()[..16]);
    key
}

/// What is asked at a place: the messages, and the parameters that are this input's own.
pub fn key(order: &Order, own: &[&str]) -> Key {
    let mut params: Vec<_> = order.params.iter().filter(|(name, _)| own.contains(&&**name)).collect();
    params.sort_unstable();
    let mut parts: Vec<&[u8]> = vec![&order.content];
    for (name, value) in params {
        parts.extend([name.as_bytes(), value]);
    }
    digest(&parts)
}

/// What a run asks with, so that another one is told from it: the primary's model, and digests of the parameters. Where it asks, as
/// whom and with which alternatives may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asks {
    model: String,
    params: BTreeMap<String, String>,
}

impl Asks {
    /// Of a run on this route, whose calls all have these parameters.
    pub fn of(route: &Route, said: &Params) -> Asks {
        let leg = &route.legs[0];
        let shown = |value: &[u8]| digest(&[value]).iter().map(|byte| format!("{byte:02x}")).collect();
        let params = params_at(leg, said).map(|(name, value)| (name.to_string(), shown(value))).collect();
        Asks { model: leg.model.to_string(), params }
    }

    /// As it is noted.
    pub fn noted(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What differs from what was noted, in words.
    pub fn difference(&self, noted: &[u8]) -> Option<String> {
        let Ok(before) = serde_json::from_slice::<Asks>(noted) else { return Some("something that cannot be read".to_owned()) };
        if before.model != self.model {
            return Some(format!("the model {:?}, not {:?}", before.model, self.model));
        }
        let names = before.params.keys().chain(self.params.keys());
        let differs = |name: &&String| before.params.get(*name) != self.params.get(*name);
        let name = names.into_iter().find(differs)?;
        Some(match (before.params.contains_key(name), self.params.contains_key(name)) {
            (true, true) => format!("another {name}"),
            (true, false) => format!("a {name}, and now there is none"),
            _ => format!("no {name}, and now there is one"),
        })
    }
}
