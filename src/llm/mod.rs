//! The native client for OpenAI-compatible services: one attempt per call.
//!
//! Nothing here retries, waits between attempts or keeps a deadline: the engine decides those, and a driver drops the
//! future when the time is up. What is here turns bytes into typed replies, and everything that can go wrong into one
//! [`error::ApiError`] that says what happened, what class it is and what to do.
//!
//! `endpoint` says where and as whom, `client` sends (`network` has those of another CA or proxy), `transport` and `classify`
//! name failures, `chat`, `embeddings`, `models` and `stream` read what came back; `sse` turns bytes into events and `delta`
//! events into pieces of an answer; `screen` has guardrails look at both; `interrupt` is about streams that break off; `record`
//! is what a journal is told.

pub mod chat;
pub mod classify;
pub mod client;
pub mod delta;
pub mod embeddings;
pub mod endpoint;
pub mod error;
pub mod estimate;
#[cfg(unix)]
mod fork;
pub mod interrupt;
pub mod kept;
mod kept_form;
pub mod key_file;
pub mod keys;
pub mod models;
pub mod network;
pub mod order;
pub mod record;
pub mod retry_after;
pub mod route;
pub mod rule;
pub mod runtime;
pub mod screen;
pub mod secret;
pub mod sse;
pub mod story;
pub mod stream;
mod transport;
pub mod usage;
pub mod watch;
pub mod webhook;
mod wire;
