//! What the page is told. Names and numbers only: nothing here has room for content or keys.
//!
//! Times are seconds since 1970, durations seconds, shares 0 to 1; `None` is what there is no number for.

use serde::Serialize;

/// Everything at one moment.
#[derive(Debug, Serialize)]
pub struct State<'a> {
    /// When this was.
    pub now: f64,
    /// Whose state it is.
    pub process: &'a Process,
    /// The breakers of the process, the oldest first.
    pub breakers: Vec<Breaker>,
    /// Monitors.
    pub monitors: Vec<Monitor>,
    /// What they have said, the oldest first.
    pub alerts: Vec<Alert>,
    /// From where on a number is a worry.
    pub limits: Limits,
    /// The calls, which may be of a moment earlier.
    #[serde(flatten)]
    pub traffic: &'a Traffic,
}

/// How calls went.
#[derive(Debug, Serialize)]
pub struct Traffic {
    /// Calls, by what was called.
    pub series: Vec<Series>,
    /// The last quarter of an hour, the oldest slot first; slots in which nothing happened are left out.
    pub timeline: Vec<Slot>,
    /// How long a slot is.
    pub slot_seconds: f64,
    /// The slots of the last minute, as one.
    pub minute: Slot,
    /// How long before this moment that one began.
    pub minute_seconds: f64,
    /// The calls that failed last, the oldest first.
    pub failures: Vec<Failure>,
}

/// The usual limits of monitors, each with a warning and a critical one.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// Of fewer calls nothing is said.
    pub minimum_calls: u64,
    pub error_rate: (f64, f64),
    pub retry_rate: (f64, f64),
    pub latency: (f64, f64),
}

/// The process that is looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Tells a process from the one that comes after it at the same place.
    pub id: String,
    /// What it is called.
    pub title: String,
    /// Its number on this machine.
    pub pid: u32,
    /// Since when calls are recorded for this page.
    pub watching_since: f64,
    /// seawall's version.
    pub version: &'static str,
}

/// A circuit breaker.
#[derive(Clone, Debug, Serialize)]
pub struct Breaker {
    /// Stays as long as the breaker.
    pub id: u64,
    /// Its name; `None` while it has none.
    pub name: Option<String>,
    /// `closed`, `open`, `half_open`, `forced_open`, `disabled` or `metrics_only`.
    pub state: &'static str,
    /// Since when; `None` where it has always been so.
    pub since: Option<f64>,
    /// Why.
    pub why: String,
    /// What would change it.
    pub rules: Vec<String>,
    /// Until a probe is let through, while open.
    pub opens_in: Option<f64>,
    /// Failures in a row.
    pub in_a_row: u32,
    /// Of these, how many open it, if any number does.
    pub in_a_row_limit: Option<u32>,
    /// The share of failures in its window, if it has one and has seen calls.
    pub failure_rate: Option<f64>,
    /// The share that opens it, if any does.
    pub failure_rate_limit: Option<f64>,
    /// Calls in its window.
    pub window_calls: u32,
    /// Calls turned away, ever.
    pub rejected: u64,
    /// Openings, ever.
    pub openings: u64,
}

/// Calls of one pipeline to one model at one endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    pub pipeline: &'static str,
    pub model: &'static str,
    pub endpoint: &'static str,
    /// Calls that ended, and how.
    pub calls: u64,
    pub errors: u64,
    /// The classes of the errors that they ended with, the most frequent first.
    pub classes: Vec<(&'static str, u64)>,
    pub attempts: u64,
    /// Of these calls, those that needed a retry.
    pub retried: u64,
    /// Of these calls, those that an alternative answered.
    pub fallbacks: u64,
    pub tokens: u64,
    /// In US dollars, where prices are known.
    pub cost: Option<f64>,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

/// A stretch of time, all calls together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Slot {
    /// When it began.
    pub at: f64,
    pub calls: u64,
    pub errors: u64,
    pub retried: u64,
    pub fallbacks: u64,
    pub tokens: u64,
    pub cost: Option<f64>,
    pub mean: Option<f64>,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

/// What a monitor said.
#[derive(Clone, Debug, Serialize)]
pub struct Alert {
    /// Of whom.
    pub name: String,
    /// `raised`, `escalated` or `resolved`.
    pub kind: &'static str,
    /// `normal`, `warning`, `critical` or `emergency`.
    pub level: &'static str,
    pub at: f64,
    /// When the incident began.
    pub since: f64,
    pub incident: u64,
    pub message: String,
}

/// A call that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// When it ended.
    pub at: f64,
    pub pipeline: &'static str,
    pub model: &'static str,
    /// The class of the error that it ended with.
    pub error: &'static str,
    pub seconds: f64,
    pub attempts: Vec<Attempt>,
    pub notes: Vec<Note>,
}

/// What a policy did in the course of it.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// After the call's beginning.
    pub seconds: f64,
    /// `<policy>.<what happened>`.
    pub event: &'static str,
    /// The pipeline, breaker or model where it happened.
    pub place: &'static str,
}

/// One attempt of it.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    pub model: &'static str,
    pub endpoint: &'static str,
    /// The class of the error, or `ok`.
    pub outcome: &'static str,
    /// The status of a failure, if any was answered.
    pub status: Option<u16>,
    /// `None`: nobody waited for its end.
    pub seconds: Option<f64>,
    /// The wait after it, if there was one.
    pub wait: Option<f64>,
}

/// A monitor.
#[derive(Clone, Debug, Serialize)]
pub struct Monitor {
    pub name: String,
    pub level: &'static str,
    pub calls: u64,
    pub error_rate: Option<f64>,
    pub retry_rate: Option<f64>,
    pub mean: Option<f64>,
}
