//! What a breaker can be told, and what it tells.

use super::window::{Span, Totals};
use crate::engine::Instant;
use crate::policies::retry::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;

/// What callers meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are turned away.
    Open,
    /// Some calls pass, to find out.
    HalfOpen,
    /// Turned away until told otherwise.
    ForcedOpen,
    /// Calls pass and nothing is counted.
    Disabled,
    /// Calls pass and everything is counted; it never opens.
    MetricsOnly,
}

impl State {
    /// All of them.
    pub const ALL: [State; 6] = [State::Closed, State::Open, State::HalfOpen, State::ForcedOpen, State::Disabled, State::MetricsOnly];

    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
            State::ForcedOpen => "forced_open",
            State::Disabled => "disabled",
            State::MetricsOnly => "metrics_only",
        }
    }

    /// The state of that public name.
    pub fn named(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Calls slower than `duration` count as slow; a share of `ratio` of them trips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    /// From when on a call is slow.
    pub duration: Duration,
    /// The share that trips, 0–1.
    pub ratio: f64,
}

/// When the circuit opens and how it recovers.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Opens after so many failures in a row.
    pub consecutive: Option<u32>,
    /// Opens at that share of failures, 0–1, over `span`.
    pub rate: Option<f64>,
    /// Opens at a share of slow calls over `span`.
    pub slow: Option<Slow>,
    /// How far back the shares look.
    pub span: Span,
    /// Shares mean nothing below so many calls.
    pub minimum_calls: u32,
    /// How long it stays open.
    pub recovery: Duration,
    /// Instead of `recovery`: by number of openings since it was last closed.
    pub recovery_backoff: Option<Arc<Backoff>>,
    /// Probes at a time.
    pub half_open_max_calls: u32,
    /// Probes that must succeed to close it.
    pub success_threshold: u32,
    /// After so long a probe that has not come back is given up.
    pub max_half_open_time: Duration,
}

impl Config {
    /// How far back it looks; `None` where only failures in a row count.
    pub fn window(&self) -> Option<Span> {
        (self.rate.is_some() || self.slow.is_some()).then_some(self.span)
    }
}

/// Why the circuit is in the state that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was made so.
    Made,
    /// So many failures in a row.
    Consecutive(u32),
    /// The share of failures.
    FailureRate(Totals),
    /// The share of slow calls.
    SlowRate(Totals),
    /// A probe failed.
    ProbeFailed,
    /// A probe took longer than calls may.
    ProbeSlow,
    /// The recovery time was over and a call came.
    Recovering,
    /// So many probes succeeded.
    Recovered(u32),
    /// Somebody put it there by hand.
    Hand,
}

impl Cause {
    /// In words.
    pub fn text(self) -> String {
        let share = |part: u32, calls: u32| 100.0 * f64::from(part) / f64::from(calls.max(1));
        match self {
            Cause::Made => "nothing has happened yet".into(),
            Cause::Consecutive(1) => "a failure".into(),
            Cause::Consecutive(n) => format!("{n} failures in a row"),
            Cause::FailureRate(t) => format!("{} of {} calls failed ({:.0} %)", t.failed, t.calls, share(t.failed, t.calls)),
            Cause::SlowRate(t) => format!("{} of {} calls were slow ({:.0} %)", t.slow, t.calls, share(t.slow, t.calls)),
            Cause::ProbeFailed => "a probe failed".into(),
            Cause::ProbeSlow => "a probe was slow".into(),
            Cause::Recovering => "the recovery time was over".into(),
            Cause::Recovered(1) => "a probe succeeded".into(),
            Cause::Recovered(n) => format!("{n} probes succeeded"),
            Cause::Hand => "by hand".into(),
        }
    }
}

/// A change of state, kept for listeners until somebody takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Instant,
    /// From where.
    pub from: State,
    /// To where.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// How long it stays open now, where it opened for a time.
    pub opens_in: Option<Duration>,
}

/// A look at a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// The state callers meet.
    pub state: State,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Over the window, if there is one.
    pub totals: Totals,
    /// Openings since it was last closed.
    pub openings_in_a_row: u32,
    /// Openings, ever.
    pub openings: u64,
    /// Time until a probe is let through, while open.
    pub opens_in: Option<Duration>,
    /// The end of the last opening.
    pub open_until: Instant,
    /// Probes that are out.
    pub probes: u32,
    /// Probes that have succeeded in this recovery.
    pub probe_successes: u32,
    /// Calls turned away, ever.
    pub rejected: u64,
    /// Why it is in this state.
    pub cause: Cause,
    /// Since when.
    pub since: Instant,
}
