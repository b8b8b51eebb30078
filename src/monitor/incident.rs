//! One incident, one story: it is told when it begins, when its level changes, and when it is over.

use super::alert::{Alert, Kind, Reading};
use super::level::{COUNT, Level, METRICS, Metric, Seen};
use super::rules::Rules;
use crate::engine::Instant;
use std::time::Duration;

/// What things are judged by at one moment.
pub(super) struct Moment<'a> {
    pub rules: &'a Rules,
    pub seen: Seen<'a>,
    /// The calls that the window holds at most, if it is one over calls.
    pub window_size: Option<usize>,
    /// How often time alone changes what the window holds, if it is one over a time.
    pub moves: Option<Duration>,
    pub now: Instant,
    /// The same as Unix time, for labels.
    pub at_ns: u64,
}

/// One metric.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// How bad its number is.
    raw: Level,
    /// How bad it has been for long enough.
    level: Level,
    /// For each bad level, since when the number is that bad, or is not.
    since: [Instant; 3],
}

impl Track {
    fn observe(&mut self, raw: Level, hold: Duration, clear_hold: Duration, now: Instant) {
        if raw == self.raw && raw == self.level {
            return;
        }
        for (at, level) in Level::BAD.into_iter().enumerate() {
            if (raw >= level) != (self.raw >= level) {
                self.since[at] = now;
            }
        }
        self.raw = raw;
        // What is worse turned bad later and good earlier, so that the levels stay in order.
        let held = |at: &usize| self.turns(*at, hold, clear_hold).is_none_or(|at| at <= now) == (raw >= Level::BAD[*at]);
        self.level = (0..3).rev().find(held).map_or(Level::Normal, |at| Level::BAD[at]);
    }

    /// When the bad level at that place begins, or ends, if the number stays as it is; `None` where it stays as it is too.
    fn turns(&self, at: usize, hold: Duration, clear_hold: Duration) -> Option<Instant> {
        let (is_bad, is_told) = (self.raw >= Level::BAD[at], self.level >= Level::BAD[at]);
        (is_bad != is_told).then(|| self.since[at].after(if is_bad { hold } else { clear_hold }))
    }

    fn is_quiet(&self) -> bool {
        self.raw == Level::Normal && self.level == Level::Normal
    }
}

/// Where things stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Incident {
    tracks: [Track; COUNT],
    level: Level,
    /// The level of the open incident that was told last.
    told: Level,
    told_at: Instant,
    peak: Level,
    /// Metrics that were over a limit in the open incident.
    involved: [bool; COUNT],
    number: u64,
    since_ns: u64,
    /// Calls in a row that were better than what was told.
    calmer: usize,
    /// How often it was told that it is better.
    eased: u32,
    /// Metrics whose number is bad or has been just now, a bit for each.
    busy: u32,
}

impl Incident {
    pub fn level(&self) -> Level {
        self.level
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Judges the newest record.
    pub fn observe(&mut self, moment: &Moment<'_>) -> Option<Alert> {
        self.judge(moment, true)
    }

    /// What time alone has brought.
    pub fn pass(&mut self, moment: &Moment<'_>) -> Option<Alert> {
        self.judge(moment, false)
    }

    /// The open incident once more, if it is time for that.
    pub fn remind(&mut self, moment: &Moment<'_>) -> Option<Alert> {
        let is_due = self.reminds_at(moment.rules).is_some_and(|at| at <= moment.now);
        // Whoever hears of it hears how it is now.
        let kind = if self.level == self.told { Kind::Reminder } else { Kind::Deescalated };
        is_due.then(|| self.tell(kind, moment))
    }

    fn judge(&mut self, moment: &Moment<'_>, is_call: bool) -> Option<Alert> {
        let is_open = self.level > Level::Normal;
        let mut worst = Level::Normal;
        // Those that have no limits any more, too, until they are quiet.
        let mut left = moment.rules.asked() | self.busy;
        self.busy = 0;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            let (metric, track) = (METRICS[at].metric, &mut self.tracks[at]);
            let rule = moment.rules.of(metric);
            let raw = match is_call || moment.moves.is_some() {
                true => moment.rules.judge(metric, track.raw, &moment.seen, moment.window_size, is_open),
                false => track.raw,
            };
            track.observe(raw, rule.hold, rule.clear_hold, moment.now);
            worst = worst.max(track.level);
            self.involved[at] |= track.level > Level::Normal;
            self.busy |= u32::from(!track.is_quiet()) << at;
        }
        self.level = worst;
        let kind = match (is_open, worst) {
            (false, Level::Normal) => return None,
            (false, _) => Kind::Raised,
            (true, Level::Normal) => Kind::Resolved,
            (true, _) if worst > self.told => Kind::Escalated,
            (true, _) => {
                self.calmer = if worst == self.told { 0 } else { self.calmer + usize::from(is_call) };
                // A whole window has to be better than what was told, and twice as many calls each time after.
                let enough = moment.window_size.unwrap_or(moment.seen.window.total.max(10) as usize);
                if self.calmer < enough.saturating_mul(1 << self.eased.min(30)) {
                    return None;
                }
                self.eased += 1;
                Kind::Deescalated
            }
        };
        Some(self.tell(kind, moment))
    }

    /// The open incident once more, for those who know it at another level or not at all.
    pub fn retell(&mut self, known: Level, moment: &Moment<'_>) -> Option<Alert> {
        if self.level == Level::Normal || known == self.level {
            self.told = self.level;
            return None;
        }
        let kind = match known {
            Level::Normal => Kind::Raised,
            known if known < self.level => Kind::Escalated,
            _ => Kind::Deescalated,
        };
        Some(self.tell(kind, moment)).map(|alert| Alert { previous: known, ..alert })
    }

    fn tell(&mut self, kind: Kind, moment: &Moment<'_>) -> Alert {
        if kind == Kind::Raised && self.told == Level::Normal {
            self.number += 1;
            self.since_ns = moment.at_ns;
            self.peak = Level::Normal;
            self.eased = 0;
        }
        self.peak = self.peak.max(self.level);
        let previous = std::mem::replace(&mut self.told, self.level);
        self.told_at = moment.now;
        self.calmer = 0;
        let alert = Alert {
            kind,
            level: self.level,
            previous,
            peak: self.peak,
            readings: Metric::all().filter_map(|metric| self.reading(metric, kind, moment)).collect(),
            incident: self.number,
            since_ns: self.since_ns,
            at_ns: moment.at_ns,
            calls: moment.seen.window.total,
            is_silenced: false,
        };
        if kind == Kind::Resolved {
            self.involved = [false; COUNT];
        }
        alert
    }

    fn reading(&self, metric: Metric, kind: Kind, moment: &Moment<'_>) -> Option<Reading> {
        let level = self.tracks[metric as usize].level;
        let is_shown = if kind == Kind::Resolved { self.involved[metric as usize] } else { level > Level::Normal };
        let value = (metric.row().value)(&moment.seen).filter(|_| is_shown)?;
        Some(Reading { metric, level, value, limit: moment.rules.of(metric).shown(level) })
    }

    fn reminds_at(&self, rules: &Rules) -> Option<Instant> {
        rules.remind_every.filter(|_| self.level > Level::Normal).map(|every| self.told_at.after(every))
    }

    /// Whether any number is bad or has been just now.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.busy != 0
    }

    /// Whether an incident is open that is what was told of it, latencies are no part of it, and time alone changes nothing.
    #[inline]
    pub fn is_settled(&self, rules: &Rules) -> bool {
        self.level > Level::Normal && self.level == self.told && self.busy & 1 << Metric::AvgLatency as u32 == 0 && !rules.has_holds()
    }

    /// When a level changes next without a call; [`Instant::NEVER`]: none does.
    pub fn turns_at(&self, rules: &Rules) -> Instant {
        if !rules.has_holds() {
            return Instant::NEVER;
        }
        let turns = self.tracks.iter().zip(&METRICS).flat_map(|(track, row)| {
            let rule = rules.of(row.metric);
            (0..3).filter_map(move |at| track.turns(at, rule.hold, rule.clear_hold))
        });
        turns.min().unwrap_or(Instant::NEVER)
    }

    /// When something is to be told next without a call; [`Instant::NEVER`]: nothing is.
    pub fn due(&self, rules: &Rules) -> Instant {
        self.turns_at(rules).min(self.reminds_at(rules).unwrap_or(Instant::NEVER))
    }
}
