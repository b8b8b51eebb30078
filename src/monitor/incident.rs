//! One incident, one story: it is told when it begins, when it becomes worse, and when it is over.

use super::alert::{Alert, Kind, Reading};
use super::level::{Level, Metric};
use super::rules::Rules;
use crate::stats::Tally;

/// What one record is judged by.
pub(super) struct Moment<'a> {
    pub rules: &'a Rules,
    pub window: &'a Tally,
    pub window_size: usize,
    pub failures_in_a_row: u64,
    pub now_ns: u64,
}

/// Where things stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Incident {
    levels: [Level; 4],
    level: Level,
    /// The worst that has been told of the open incident.
    told: Level,
    peak: Level,
    /// Metrics that were over a limit in the open incident.
    involved: [bool; 4],
    number: u64,
    since_ns: u64,
    /// Calls in a row that were better than what was told.
    calmer: usize,
}

impl Incident {
    pub fn level(&self) -> Level {
        self.level
    }

    /// Judges the newest record.
    #[inline]
    pub fn observe(&mut self, moment: &Moment<'_>) -> Option<Alert> {
        if self.level == Level::Normal && moment.failures_in_a_row == 0 && moment.rules.is_calm(moment.window) {
            return None;
        }
        self.judge(moment)
    }

    fn judge(&mut self, moment: &Moment<'_>) -> Option<Alert> {
        let open = self.level > Level::Normal;
        // What began with few calls (an outage) must not be called over because calls are few.
        let enough = open || moment.window.total >= moment.rules.minimum.min(moment.window_size as u64);
        let mut worst = Level::Normal;
        for metric in Metric::ALL {
            let at = metric as usize;
            self.levels[at] = moment.rules.judge(metric, self.levels[at], moment.window, moment.failures_in_a_row, enough);
            worst = worst.max(self.levels[at]);
            self.involved[at] |= self.levels[at] > Level::Normal;
        }
        let previous = std::mem::replace(&mut self.level, worst);
        let kind = match (open, worst) {
            (false, Level::Normal) => return None,
            (false, _) => Kind::Raised,
            (true, Level::Normal) => Kind::Resolved,
            (true, _) if worst > self.told => Kind::Escalated,
            (true, _) => {
                self.calmer = if worst == self.told { 0 } else { self.calmer + 1 };
                if self.calmer >= moment.window_size {
                    // A whole window has been better than what was told: a relapse is news again.
                    self.told = worst;
                    self.calmer = 0;
                }
                return None;
            }
        };
        Some(self.tell(kind, previous, moment))
    }

    fn tell(&mut self, kind: Kind, previous: Level, moment: &Moment<'_>) -> Alert {
        if kind == Kind::Raised {
            self.number += 1;
            self.since_ns = moment.now_ns;
            self.peak = Level::Normal;
        }
        self.peak = self.peak.max(self.level);
        self.told = self.level;
        self.calmer = 0;
        let alert = Alert {
            kind,
            level: self.level,
            previous,
            peak: self.peak,
            readings: Metric::ALL.into_iter().filter_map(|metric| self.reading(metric, kind, moment)).collect(),
            incident: self.number,
            since_ns: self.since_ns,
            at_ns: moment.now_ns,
            calls: moment.window.total,
        };
        if kind == Kind::Resolved {
            self.involved = [false; 4];
        }
        alert
    }

    fn reading(&self, metric: Metric, kind: Kind, moment: &Moment<'_>) -> Option<Reading> {
        let level = self.levels[metric as usize];
        let shown = if kind == Kind::Resolved { self.involved[metric as usize] } else { level > Level::Normal };
        let value = Rules::value(metric, moment.window, moment.failures_in_a_row).filter(|_| shown)?;
        let limits = moment.rules.limits(metric);
        let limit = if level >= Level::Critical { limits.critical } else { limits.warning.min(limits.critical) };
        Some(Reading { metric, level, value, limit })
    }
}
