//! What one call asks for, and what goes into its requests.

use super::interrupt::{OnInterrupt, forbids_continuing};
use super::route::Leg;
use crate::engine::StageId;
use crate::guardrails::Tally;
use crate::policies::cache::{Caching, Key};
use crate::policies::rate_limit::RateLimit;
use crate::telemetry::Trace;
use reqwest::header::HeaderMap;
use std::sync::Arc;

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A whole chat completion.
    Chat,
    /// A chat completion in pieces.
    Stream,
    /// Vectors.
    Embeddings,
    /// The list of models.
    Models,
}

/// Parameters of a request: names, each once, and their values as JSON.
pub type Params = Vec<(Box<str>, Box<[u8]>)>;

/// The parameters of one call.
pub struct Order {
    /// What is wanted.
    pub task: Task,
    /// `messages` or `input`, as JSON.
    pub content: Box<[u8]>,
    /// How many inputs there are, for embeddings.
    pub inputs: usize,
    /// Parameters of this call; they win over the leg's.
    pub params: Params,
    /// What this call sends beside its body.
    pub extras: Extras,
    /// What follows when its stream breaks off.
    pub on_interrupt: OnInterrupt,
    /// What it weighs at the limits of its route.
    pub weights: Vec<(StageId, u64)>,
    /// The limits of its keys, at those limits that have keys.
    pub keyed: Vec<(StageId, Arc<RateLimit>)>,
    /// What guardrails have done to what is asked.
    pub screened: Tally,
    /// What its answer is kept under, where there is a cache.
    pub key: Option<Key>,
    /// Whoever follows it.
    pub trace: Option<Arc<dyn Trace>>,
}

impl Task {
    /// What it is called where calls are told.
    pub fn operation(self) -> &'static str {
        match self {
            Task::Chat | Task::Stream => "chat",
            Task::Embeddings => "embeddings",
            Task::Models => "models",
        }
    }
}

impl Order {
    /// What goes into the request for a leg: its own parameters and those of the call.
    pub(super) fn params_at<'a>(&'a self, leg: &'a Leg) -> impl Iterator<Item = &'a (Box<str>, Box<[u8]>)> {
        params_at(leg, &self.params)
    }

    /// What it passes at the limit of that stage: that of its key, where the limit has keys.
    pub(super) fn limit_at<'a>(&'a self, stage: StageId, limit: &'a Arc<RateLimit>) -> &'a Arc<RateLimit> {
        self.keyed.iter().find(|(at, _)| *at == stage).map_or(limit, |(_, own)| own)
    }

    /// Why half an answer could not be gone on from, if there is a reason in what is asked of whom.
    pub(super) fn obstacle(&self, legs: &[Arc<Leg>]) -> Option<&'static str> {
        legs.iter().flat_map(|leg| self.params_at(leg)).find_map(|(name, value)| forbids_continuing(name, value))
    }
}

/// The leg's parameters, but for those that a call says, and the call's.
pub fn params_at<'a>(leg: &'a Leg, said: &'a Params) -> impl Iterator<Item = &'a (Box<str>, Box<[u8]>)> {
    leg.params.iter().filter(|(name, _)| !said.iter().any(|(other, _)| other == name)).chain(said)
}

/// What a call sends beside its body.
#[derive(Clone, Default)]
pub struct Extras {
    /// Headers, which win over the leg's. Credentials go only where the first leg is.
    pub headers: HeaderMap,
    /// Query parameters; the same holds for credentials.
    pub query: Vec<(String, String)>,
    /// The `Idempotency-Key` of every attempt at the first leg; another leg has one of its own, made of it.
    pub idempotency_key: Option<Box<str>>,
    /// What the call does with a cache on its way.
    pub caching: Caching,
}

/// An idempotency key that no other call of any process has.
pub fn fresh_key() -> String {
    let mut random = [0; 16];
    // The system's own randomness, so that forked processes share none. Where it has none to give, no TLS works either.
    let _ = rustls::crypto::ring::default_provider().secure_random.fill(&mut random);
    format!("seawall-{:032x}", u128::from_ne_bytes(random))
}
