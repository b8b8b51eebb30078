//! The words: how bad it is, and what is looked at.

/// How bad it is; the order is the order of badness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    #[default]
    Normal,
    /// Worth a notice.
    Warning,
    /// Someone must step in.
    Critical,
    /// Nothing works any more.
    Emergency,
}

impl Level {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Normal => "normal",
            Level::Warning => "warning",
            Level::Critical => "critical",
            Level::Emergency => "emergency",
        }
    }
}

/// What is looked at. The success rate is the error rate seen from the other side (its limits mirror those), so it
/// has no rule of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Calls failed in a row, with no success between them.
    Outage,
    /// Share of calls that failed.
    ErrorRate,
    /// Share of calls that needed a retry.
    RetryRate,
    /// Mean latency in seconds.
    AvgLatency,
}

impl Metric {
    /// Every metric, in the order in which alerts name them.
    pub const ALL: [Metric; 4] = [Metric::Outage, Metric::ErrorRate, Metric::RetryRate, Metric::AvgLatency];

    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Outage => "outage",
            Metric::ErrorRate => "error_rate",
            Metric::RetryRate => "retry_rate",
            Metric::AvgLatency => "avg_latency",
        }
    }

    /// The metric of that public name.
    pub fn named(name: &str) -> Option<Metric> {
        Metric::ALL.into_iter().find(|metric| metric.name() == name)
    }
}
