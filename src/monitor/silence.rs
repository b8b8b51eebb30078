//! Stretches of time in which alerts are kept and told to nobody; and what has to be told when they are over.

use super::alert::{Alert, Kind};
use super::level::Level;
use crate::engine::Instant;

/// One stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Its number, from 1.
    pub id: u64,
    /// When it ends by itself.
    pub until: Instant,
    /// Why, in the user's words.
    pub reason: Option<String>,
}

/// What is silenced, and what those who listen know.
#[derive(Clone, Debug, Default)]
pub(super) struct Silences {
    active: Vec<Silence>,
    last: u64,
    /// Whether alerts are held back. It lasts until somebody has told what came of it.
    is_on: bool,
    /// The incident that the listeners know to be open, and at which level.
    known: Option<(u64, Level)>,
    /// The end of that incident, which they have not heard of.
    owed: Option<Alert>,
}

impl Silences {
    pub fn begin(&mut self, until: Instant, reason: Option<String>) -> u64 {
        self.last += 1;
        self.active.push(Silence { id: self.last, until, reason });
        self.is_on = true;
        self.last
    }

    /// The same silences where nobody knows of any incident.
    pub fn fresh(&self) -> Silences {
        Silences { known: None, owed: None, ..self.clone() }
    }

    /// `false`: it was over before.
    pub fn end(&mut self, id: u64) -> bool {
        let before = self.active.len();
        self.active.retain(|silence| silence.id != id);
        self.active.len() < before
    }

    pub fn active(&self, now: Instant) -> Vec<Silence> {
        self.active.iter().filter(|silence| silence.until > now).cloned().collect()
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// When the last of them ends; [`Instant::NEVER`] where there is none.
    pub fn due(&self) -> Instant {
        let last = self.active.iter().map(|silence| silence.until).max();
        if self.is_on { last.unwrap_or_default() } else { Instant::NEVER }
    }

    /// An alert on its way to the listeners.
    pub fn mark(&mut self, alert: &mut Alert) {
        alert.is_silenced = self.is_on;
        if !self.is_on {
            self.known = (alert.kind != Kind::Resolved).then_some((alert.incident, alert.level));
        } else if alert.kind == Kind::Resolved && self.known.is_some_and(|(incident, _)| incident == alert.incident) {
            self.owed = Some(alert.clone());
        }
    }

    /// If all are over, what the listeners have missed: the end of an incident that they knew of, and at which level they know
    /// the incident of that number.
    pub fn over(&mut self, now: Instant, incident: u64) -> Option<(Option<Alert>, Level)> {
        self.active.retain(|silence| silence.until > now);
        if !self.is_on || !self.active.is_empty() {
            return None;
        }
        self.is_on = false;
        let level = self.known.map_or(Level::Normal, |(_, level)| level);
        let owed = self.owed.take().map(|alert| Alert { previous: level, ..alert });
        let known = self.known.filter(|(known, _)| *known == incident && owed.is_none());
        Some((owed, known.map_or(Level::Normal, |(_, level)| level)))
    }
}
