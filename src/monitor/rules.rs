//! When a number is bad: limits for each metric, as data.

use super::level::{COUNT, Level, METRICS, Metric, NEVER, NEVER_LOW, Seen, Unit};
use crate::stats::Tally;
use std::time::Duration;

/// Where a metric turns bad, for how long it has to be, and when it is good again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The limits of warning, critical and emergency. A level holds above its limit; of a metric whose low numbers are bad below
    /// it; of a number of calls from it on. Infinity, or minus infinity where low is bad, means never.
    pub limits: [f64; 3],
    /// Calls it needs before it can start an incident; no more than the window holds.
    pub minimum: u64,
    /// A level is left when the metric is at or under this share of the limit that was crossed. Where low is bad, it is the distance
    /// from 1 that counts.
    pub clear: f64,
    /// So long it has to be bad without a break before it is said.
    pub hold: Duration,
    /// So long it has to be good again without a break before that is.
    pub clear_hold: Duration,
}

impl Rule {
    /// The usual one of a metric.
    pub fn usual(metric: Metric) -> Rule {
        let row = metric.row();
        Rule { limits: row.limits, minimum: row.minimum, clear: 0.8, hold: Duration::ZERO, clear_hold: Duration::ZERO }
    }

    fn is_asked_for(&self) -> bool {
        self.limits.iter().any(|limit| limit.is_finite())
    }

    /// The worst level whose limit the value is over.
    fn level(limits: [f64; 3], metric: Metric, value: f64) -> Level {
        let row = metric.row();
        let is_over = |limit: f64| match row.unit {
            _ if row.is_low_bad => value < limit,
            Unit::Calls => value >= limit,
            _ => value > limit,
        };
        // One by one: this is most of what a call costs while an incident lasts.
        match limits {
            [.., emergency] if is_over(emergency) => Level::Emergency,
            [_, critical, _] if is_over(critical) => Level::Critical,
            [warning, ..] if is_over(warning) => Level::Warning,
            _ => Level::Normal,
        }
    }

    /// The limits that a level, once reached, is kept by.
    fn eased(&self, metric: Metric) -> [f64; 3] {
        let eased = |limit: f64| if metric.row().is_low_bad { 1.0 - (1.0 - limit) * self.clear } else { limit * self.clear };
        self.limits.map(eased)
    }

    /// The limit that is shown of a metric at that level: the one of the level; when all is well, the first there is.
    pub(super) fn shown(&self, level: Level) -> f64 {
        let first = self.limits.into_iter().find(|limit| limit.is_finite());
        let at = Level::BAD.into_iter().position(|bad| bad == level);
        let last_up_to = at.and_then(|at| self.limits[..=at].iter().rev().copied().find(|limit| limit.is_finite()));
        last_up_to.or(first).unwrap_or(self.limits[1])
    }
}

/// Every rule of a monitor.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    rules: [Rule; COUNT],
    /// Up to this mean latency no rule can find fault with calls that all succeeded at once; `None`: some always can, or look at
    /// what such calls have too (tokens, a price).
    calm_ns: Option<u64>,
    /// Those that have limits, a bit for each.
    asked: u32,
    /// Whether any of them has to last before it is said, or to be over for a while.
    has_holds: bool,
    /// Whether any rule is about percentiles.
    needs_tail: bool,
    /// While an incident lasts, it is told again so often.
    pub remind_every: Option<Duration>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules::new(METRICS.each_ref().map(|row| Rule::usual(row.metric)))
    }
}

impl Rules {
    fn new(rules: [Rule; COUNT]) -> Rules {
        let mut rules = Rules { rules, calm_ns: None, asked: 0, has_holds: false, needs_tail: false, remind_every: None };
        rules.look();
        rules
    }

    fn look(&mut self) {
        let slow = self.rules[Metric::AvgLatency as usize].limits.into_iter().fold(NEVER, f64::min);
        let bad_at_zero = |(row, rule): (&super::level::Row, &Rule)| !row.is_low_bad && rule.limits.iter().any(|limit| *limit <= 0.0);
        self.asked = self.rules.iter().enumerate().map(|(at, rule)| u32::from(rule.is_asked_for()) << at).sum();
        self.has_holds = self.rules.iter().any(|rule| !rule.hold.is_zero() || !rule.clear_hold.is_zero());
        let adds_up = |metric: Metric| matches!(metric, Metric::FirstToken | Metric::Tokens | Metric::Cost);
        let is_restless = self.rules.iter().zip(&METRICS).any(|(rule, row)| adds_up(row.metric) && rule.is_asked_for());
        self.needs_tail = self.rules.iter().zip(&METRICS).any(|(rule, row)| row.metric.is_of_the_tail() && rule.is_asked_for());
        // A cast saturates, so that an infinite limit is the greatest number.
        let is_calm_at_all = !is_restless && !METRICS.iter().zip(&self.rules).any(bad_at_zero);
        self.calm_ns = is_calm_at_all.then_some((slow * 1e9) as u64);
    }

    /// Rules that find nothing wrong.
    pub fn silent() -> Rules {
        Rules::new(METRICS.each_ref().map(|row| {
            let never = if row.is_low_bad { NEVER_LOW } else { NEVER };
            Rule { limits: [never; 3], ..Rule::usual(row.metric) }
        }))
    }

    /// The rule of a metric.
    pub fn of(&self, metric: Metric) -> &Rule {
        &self.rules[metric as usize]
    }

    /// Puts a rule in place of the one of that metric.
    pub fn set(&mut self, metric: Metric, rule: Rule) {
        self.rules[metric as usize] = rule;
        self.look();
    }

    /// Moves the critical limit of a metric. The usual limit brings the usual early warning with it; one's own limit stands
    /// alone, so that nothing is said below the number that was asked for.
    pub fn set_limit(&mut self, metric: Metric, critical: f64) {
        let usual = Rule::usual(metric).limits;
        let warning = if critical == usual[1] { usual[0] } else { NEVER };
        self.set(metric, Rule { limits: [warning, critical, NEVER], ..*self.of(metric) });
    }

    /// The metrics that have limits, a bit for each.
    #[inline]
    pub(super) fn asked(&self) -> u32 {
        self.asked
    }

    /// Whether time alone can change a level.
    #[inline]
    pub(super) fn has_holds(&self) -> bool {
        self.has_holds
    }

    /// Whether percentiles have to be known.
    #[inline]
    pub(super) fn needs_tail(&self) -> bool {
        self.needs_tail
    }

    /// Whether no rule can find fault with calls that all succeeded at once, were never tried again and were fast enough:
    /// the common case, told without a division.
    #[inline]
    pub(super) fn is_calm(&self, window: &Tally) -> bool {
        // All at once: three branches that are never taken cost as much as those that are.
        let troubled = window.errors | window.retried | window.fallbacks;
        troubled == 0 && self.is_fast(window)
    }

    /// Whether no rule can find fault with what is no rate, no percentile and no outage.
    #[inline]
    pub(super) fn is_fast(&self, window: &Tally) -> bool {
        self.calm_ns.is_some_and(|calm_ns| window.latency_ns <= u128::from(calm_ns) * u128::from(window.total))
    }

    /// The level of a metric that is at `held` now. `is_open` says whether there is an incident.
    pub(super) fn judge(&self, metric: Metric, held: Level, seen: &Seen<'_>, window_size: Option<usize>, is_open: bool) -> Level {
        let (row, rule) = (metric.row(), self.of(metric));
        let Some(value) = (row.value)(seen) else {
            // No calls are no proof that it works again; calls of another kind are none that it does not.
            return if seen.window.total == 0 { held } else { Level::Normal };
        };
        let now = Rule::level(rule.limits, metric, value);
        if row.unit == Unit::Calls {
            // One success proves that it is no outage, so there is nothing to hold on to.
            return now;
        }
        // What began with few calls (an outage) must not be called over because calls are few.
        let is_exempt = is_open && !metric.is_of_the_tail();
        if !is_exempt && held == Level::Normal && seen.window.total < rule.minimum.min(window_size.map_or(u64::MAX, |size| size as u64)) {
            return Level::Normal;
        }
        let now = match (now, row.events) {
            // In a young window a single bad call is already more than 5 %: too little for an early warning.
            (Level::Warning, Some(events)) if events(seen.window) <= 1 => Level::Normal,
            (level, _) => level,
        };
        if held <= now {
            return now;
        }
        now.max(Rule::level(rule.eased(metric), metric, value).min(held))
    }
}
