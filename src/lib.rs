//! seawall: what stands between an application and the model APIs that it calls.
//!
//! `engine` is the one state machine; `policies` are what it passes a call through; `drive` runs it; `guardrails` look at
//! what is said; `llm`, `simulator` and `dashboard` talk HTTP, the latter two behind `serve`; `journal` keeps on disk what a
//! batch has finished, `cache_file` what a cache has, both through `sqlite`; `python` is the only module that names pyo3.

#[cfg(feature = "net")]
pub mod cache_file;
#[cfg(feature = "net")]
pub mod dashboard;
#[cfg(feature = "net")]
pub mod document;
pub mod drive;
pub mod engine;
pub mod events;
#[cfg(feature = "net")]
pub mod guardrails;
#[cfg(feature = "net")]
pub mod journal;
#[cfg(feature = "net")]
pub mod llm;
pub mod monitor;
pub mod policies;
#[cfg(feature = "python")]
mod python;
#[cfg(feature = "net")]
pub mod serve;
#[cfg(feature = "net")]
pub mod simulator;
#[cfg(feature = "net")]
pub mod sqlite;
pub mod stats;
pub mod telemetry;
