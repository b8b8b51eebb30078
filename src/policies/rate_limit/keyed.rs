//! One limit with a budget for each key: each of them is a limit as any other, with a line and a clock of its own.

use super::limit::{Config, RateLimit};
use crate::engine::Instant;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The limits of all keys.
#[derive(Debug)]
pub struct Keyed {
    config: Config,
    most: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    limits: HashMap<Box<str>, Entry>,
    /// Keys that were asked for, all told.
    asked: u64,
    /// So many keys, and it is looked for some to forget.
    crowd: usize,
}

#[derive(Debug)]
struct Entry {
    limit: Arc<RateLimit>,
    /// When it was asked for last.
    used: u64,
}

impl Keyed {
    /// Of so much for each key. More than `most` keys are remembered only while they are needed.
    pub fn new(config: Config, most: usize) -> Keyed {
        Keyed { config, most, known: Mutex::new(Known { crowd: most, ..Known::default() }) }
    }

    /// So many keys are remembered in any case.
    pub fn most(&self) -> usize {
        self.most
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limit of a key. Whoever holds it keeps it from being forgotten.
    pub fn of(&self, key: &str, now: Instant) -> Arc<RateLimit> {
        let mut known = self.known();
        known.asked += 1;
        let asked = known.asked;
        if let Some(entry) = known.limits.get_mut(key) {
            entry.used = asked;
            return entry.limit.clone();
        }
        if known.limits.len() >= known.crowd {
            known.forget(self.most, now);
        }
        let limit = Arc::new(RateLimit::new(self.config));
        known.limits.insert(key.into(), Entry { limit: limit.clone(), used: asked });
        limit
    }

    /// The keys that are remembered, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.known().limits.keys().map(|key| key.to_string()).collect();
        keys.sort_unstable();
        keys
    }

    /// Calls that wait, under whichever key; and the longest pause that a server has asked for.
    pub fn outlook(&self, now: Instant) -> (usize, Option<Duration>) {
        let outlooks: Vec<_> = self.known().limits.values().map(|entry| entry.limit.outlook(now)).collect();
        (outlooks.iter().map(|one| one.queued).sum(), outlooks.iter().filter_map(|one| one.paused).max())
    }

    /// Forgets who waits. For a forked process, where they are not.
    pub fn clear(&self) {
        self.known().limits.values().for_each(|entry| entry.limit.clear());
    }
}

impl Known {
    /// Forgets those that were not asked for for the longest time, of those that nobody uses and of which nothing is used: a new one
    /// would be the same. A quarter more than has to go does, so that not every new key has all others looked at.
    fn forget(&mut self, most: usize, now: Instant) {
        let too_many = self.limits.len() + 1 - (most - most / 4).min(self.limits.len());
        let is_idle = |entry: &Entry| Arc::strong_count(&entry.limit) == 1 && entry.limit.is_unused(now);
        let mut idle: Vec<(u64, Box<str>)> =
            self.limits.iter().filter(|(_, entry)| is_idle(entry)).map(|(key, entry)| (entry.used, key.clone())).collect();
        idle.sort_unstable();
        for (_, key) in idle.into_iter().take(too_many) {
            self.limits.remove(&key);
        }
        let left = self.limits.len();
        self.crowd = most.max(left + left / 4 + 1);
    }
}
