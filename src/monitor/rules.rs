//! When a number is bad: limits for each metric, as data.

use super::level::{Level, Metric};
use crate::stats::Tally;

/// Where a metric turns bad: above `warning`, above `critical`. Infinity means never. An outage begins at `critical`
/// failures in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Above this the level is warning.
    pub warning: f64,
    /// Above this the level is critical.
    pub critical: f64,
}

impl Limits {
    fn level(self, value: f64) -> Level {
        match value {
            value if value > self.critical => Level::Critical,
            value if value > self.warning => Level::Warning,
            _ => Level::Normal,
        }
    }
}

/// Every rule of a monitor.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    limits: [Limits; 4],
    /// Up to this mean latency no rule can find fault with calls that all succeeded at once; `None`: some always can.
    calm_ns: Option<u64>,
    /// Calls a rate or a mean needs before it can start an incident.
    pub minimum: u64,
    /// A level is left when the metric is at or under this share of the limit that was crossed.
    pub clear: f64,
}

/// The usual limits. Five failures in a row are an outage, which is an emergency and not a matter of degree.
const USUAL: [Limits; 4] = [
    Limits { warning: f64::INFINITY, critical: 5.0 },
    Limits { warning: 0.05, critical: 0.10 },
    Limits { warning: 0.03, critical: 0.05 },
    Limits { warning: 2.0, critical: 5.0 },
];

fn calm_ns(limits: &[Limits; 4]) -> Option<u64> {
    let slow = limits[Metric::AvgLatency as usize];
    let limit_ns = slow.warning.min(slow.critical) * 1e9;
    // A cast saturates, so that an infinite limit is the greatest number.
    limits.iter().all(|limits| limits.warning > 0.0 && limits.critical > 0.0).then_some(limit_ns as u64)
}

impl Default for Rules {
    fn default() -> Self {
        Rules { limits: USUAL, calm_ns: calm_ns(&USUAL), minimum: 10, clear: 0.8 }
    }
}

impl Rules {
    /// The limits of a metric.
    pub fn limits(&self, metric: Metric) -> Limits {
        self.limits[metric as usize]
    }

    /// Moves the limit of a metric. The usual limit brings the usual early warning with it; one's own limit stands
    /// alone, so that nothing is said below the number that was asked for.
    pub fn set_limit(&mut self, metric: Metric, critical: f64) {
        let usual = USUAL[metric as usize];
        let warning = if critical == usual.critical { usual.warning } else { f64::INFINITY };
        self.limits[metric as usize] = Limits { warning, critical };
        self.calm_ns = calm_ns(&self.limits);
    }

    /// Whether no rule can find fault with calls that all succeeded at once, were never tried again and were fast enough:
    /// the common case, told without a division.
    #[inline]
    pub(super) fn is_calm(&self, window: &Tally) -> bool {
        let Some(calm_ns) = self.calm_ns else { return false };
        window.errors == 0 && window.retried == 0 && window.latency_ns <= u128::from(calm_ns) * u128::from(window.total)
    }

    /// The value of a metric; `None` where there is none.
    pub(super) fn value(metric: Metric, window: &Tally, failures_in_a_row: u64) -> Option<f64> {
        match metric {
            Metric::Outage => Some(failures_in_a_row as f64),
            Metric::ErrorRate => window.error_rate(),
            Metric::RetryRate => window.retry_rate(),
            Metric::AvgLatency => window.mean_seconds(),
        }
    }

    /// The level of a metric that is at `held` now. `enough` says whether the window is large enough to start something.
    pub(super) fn judge(&self, metric: Metric, held: Level, window: &Tally, failures_in_a_row: u64, enough: bool) -> Level {
        let limits = self.limits(metric);
        let Some(value) = Rules::value(metric, window, failures_in_a_row) else { return Level::Normal };
        if metric == Metric::Outage {
            // One success proves that it is no outage, so there is nothing to hold on to.
            return if value >= limits.critical { Level::Emergency } else { Level::Normal };
        }
        if !enough {
            return Level::Normal;
        }
        let one_event = match metric {
            Metric::ErrorRate => window.errors <= 1,
            Metric::RetryRate => window.retried <= 1,
            _ => false,
        };
        let now = match limits.level(value) {
            // In a young window a single bad call is already more than 5 %: too little for an early warning.
            Level::Warning if one_event => Level::Normal,
            level => level,
        };
        let eased = Limits { warning: limits.warning * self.clear, critical: limits.critical * self.clear }.level(value);
        now.max(eased.min(held))
    }
}
