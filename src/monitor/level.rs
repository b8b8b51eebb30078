//! The words: how bad it is, and what is looked at.

use crate::stats::Tally;

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
    /// Every level that is told of, from the mildest on.
    pub const BAD: [Level; 3] = [Level::Warning, Level::Critical, Level::Emergency];

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

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Calls failed in a row, with no success between them.
    Outage,
    /// Share of calls that failed.
    ErrorRate,
    /// Share of calls that succeeded: the error rate seen from the other side.
    SuccessRate,
    /// Share of calls that needed a retry.
    RetryRate,
    /// Share of calls that an alternative answered.
    FallbackRate,
    /// Mean latency in seconds.
    AvgLatency,
    /// The latency that 95 % of the calls did not exceed.
    P95,
    /// The latency that 99 % of the calls did not exceed.
    P99,
    /// Mean seconds to the first content of a stream.
    FirstToken,
    /// Tokens of the window's calls.
    Tokens,
    /// Estimated price of the window's calls.
    Cost,
}

/// What the numbers of a metric are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// From 0 to 1.
    Share,
    /// Seconds.
    Seconds,
    /// Whole calls.
    Calls,
    /// Any number.
    Number,
}

/// What there is to know about a metric.
#[derive(Debug)]
pub struct Row {
    /// Which one; the rows are in the order of [`Metric`].
    pub metric: Metric,
    /// The public name.
    pub name: &'static str,
    /// In the words of alerts.
    pub english: &'static str,
    /// The same in Chinese.
    pub chinese: &'static str,
    /// What its numbers are.
    pub unit: Unit,
    /// Whether low numbers are the bad ones.
    pub is_low_bad: bool,
    /// The usual limits; see [`super::Rule`].
    pub limits: [f64; 3],
    /// Calls that it usually needs before it can start an incident.
    pub minimum: u64,
    /// Its value; `None` where there is none.
    pub value: fn(&Seen<'_>) -> Option<f64>,
    /// Calls that make it bad, where it counts such: one alone is no early warning.
    pub events: Option<fn(&Tally) -> u64>,
}

/// What a metric is worked out from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Sums over the window.
    pub window: &'a Tally,
    /// Calls failed since the last success.
    pub failures_in_a_row: u64,
    /// The 95th and the 99th percentile of the latencies in the window, in seconds, as of the last look.
    pub tail: [Option<f64>; 2],
}

/// Never over a limit.
pub(super) const NEVER: f64 = f64::INFINITY;
/// The same where low numbers are bad.
pub(super) const NEVER_LOW: f64 = f64::NEG_INFINITY;

const BLANK: Row = Row {
    metric: Metric::Outage,
    name: "",
    english: "",
    chinese: "",
    unit: Unit::Share,
    is_low_bad: false,
    limits: [NEVER; 3],
    minimum: 10,
    value: |_| None,
    events: None,
};

/// The one table of metrics, in the order in which alerts name them. Limits are those of the document's tables: normal, warning
/// and critical of rates and of the mean; five failures in a row are an outage, which is an emergency and not a matter of degree.
/// The success rate says what the error rate does, so that it has limits only where somebody asks for them; so have those that
/// the document says nothing of.
#[rustfmt::skip]
pub static METRICS: [Row; 11] = [
    Row { metric: Metric::Outage, name: "outage", english: "total outage", chinese: "服务完全不可用", unit: Unit::Calls, limits: [NEVER, NEVER, 5.0], minimum: 1, value: |seen| Some(seen.failures_in_a_row as f64), ..BLANK },
    Row { metric: Metric::ErrorRate, name: "error_rate", english: "error rate", chinese: "错误率", limits: [0.05, 0.10, NEVER], value: |seen| seen.window.error_rate(), events: Some(|window| window.errors), ..BLANK },
    Row { metric: Metric::SuccessRate, name: "success_rate", english: "success rate", chinese: "成功率", is_low_bad: true, limits: [NEVER_LOW; 3], value: |seen| seen.window.success_rate(), events: Some(|window| window.errors), ..BLANK },
    Row { metric: Metric::RetryRate, name: "retry_rate", english: "retry rate", chinese: "重试率", limits: [0.03, 0.05, NEVER], value: |seen| seen.window.retry_rate(), events: Some(|window| window.retried), ..BLANK },
    Row { metric: Metric::FallbackRate, name: "fallback_rate", english: "fallback rate", chinese: "降级率", value: |seen| seen.window.fallback_rate(), events: Some(|window| window.fallbacks), ..BLANK },
    Row { metric: Metric::AvgLatency, name: "avg_latency", english: "mean latency", chinese: "平均延迟", unit: Unit::Seconds, limits: [2.0, 5.0, NEVER], value: |seen| seen.window.mean_seconds(), ..BLANK },
    // Of fewer calls the percentile is the slowest call.
    Row { metric: Metric::P95, name: "p95", english: "p95 latency", chinese: "P95延迟", unit: Unit::Seconds, minimum: 20, value: |seen| seen.tail[0], ..BLANK },
    Row { metric: Metric::P99, name: "p99", english: "p99 latency", chinese: "P99延迟", unit: Unit::Seconds, minimum: 100, value: |seen| seen.tail[1], ..BLANK },
    Row { metric: Metric::FirstToken, name: "first_token", english: "mean time to the first token", chinese: "首字延迟", unit: Unit::Seconds, value: |seen| seen.window.mean_first_token(), ..BLANK },
    Row { metric: Metric::Tokens, name: "tokens", english: "tokens", chinese: "令牌数", unit: Unit::Number, minimum: 1, value: |seen| Some(seen.window.tokens as f64), ..BLANK },
    Row { metric: Metric::Cost, name: "cost", english: "cost", chinese: "费用", unit: Unit::Number, minimum: 1, value: |seen| Some(seen.window.cost()), ..BLANK },
];

/// How many metrics there are.
pub(super) const COUNT: usize = METRICS.len();

impl Metric {
    /// Every metric, in the order in which alerts name them.
    pub fn all() -> impl Iterator<Item = Metric> {
        METRICS.iter().map(|row| row.metric)
    }

    /// What there is to know about it.
    #[inline]
    pub fn row(self) -> &'static Row {
        &METRICS[self as usize]
    }

    /// The public name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The metric of that public name.
    pub fn named(name: &str) -> Option<Metric> {
        Metric::all().find(|metric| metric.name() == name)
    }

    /// Whether it needs the distribution of the latencies, which costs more than sums.
    pub(super) fn is_of_the_tail(self) -> bool {
        matches!(self, Metric::P95 | Metric::P99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_metrics() {
        assert!(METRICS.iter().enumerate().all(|(at, row)| row.metric as usize == at && Metric::named(row.name) == Some(row.metric)));
    }
}
