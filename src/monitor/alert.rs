//! What is said about an incident.

use super::level::{Level, Metric};

/// Which moment of an incident it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It began.
    Raised,
    /// It became worse than what was said last.
    Escalated,
    /// It has been better than what was said last for long.
    Deescalated,
    /// It lasts, and nothing has changed.
    Reminder,
    /// It is over.
    Resolved,
}

impl Kind {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Raised => "raised",
            Kind::Escalated => "escalated",
            Kind::Deescalated => "deescalated",
            Kind::Reminder => "reminder",
            Kind::Resolved => "resolved",
        }
    }
}

/// One metric at the moment of the alert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Which metric.
    pub metric: Metric,
    /// How bad it is.
    pub level: Level,
    /// Its value: a share from 0 to 1, seconds, or failures in a row.
    pub value: f64,
    /// The limit of its level; when all is well again, the first one that there is.
    pub limit: f64,
}

/// One alert: a value, to be published once no lock is held.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Which moment of the incident.
    pub kind: Kind,
    /// How bad it is now: the worst of all metrics.
    pub level: Level,
    /// The level that the alert before told.
    pub previous: Level,
    /// The worst level of the incident so far.
    pub peak: Level,
    /// The metrics that are over a limit; of a resolved incident, those that were.
    pub readings: Vec<Reading>,
    /// Number of the incident, from 1.
    pub incident: u64,
    /// When the incident began, Unix time.
    pub since_ns: u64,
    /// When this was noticed, Unix time.
    pub at_ns: u64,
    /// Calls in the window.
    pub calls: u64,
    /// Made while alerts were silenced: kept, and told to nobody.
    pub is_silenced: bool,
}
