//! Answers in order of use, within bounds.

use super::{Key, Value};
use crate::engine::Instant;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Keys are digests: eight of their bytes are a hash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct First(u64);

impl Hasher for First {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// A map by digests.
pub(super) type ByKey<T> = HashMap<Key, T, BuildHasherDefault<First>>;

/// No place: the end of the list.
const NONE: usize = usize::MAX;

struct Entry {
    key: Key,
    /// What the call was asked with, whoever was asked.
    asked: Key,
    value: Value,
    bytes: usize,
    stored: Instant,
    /// The neighbours in order of use.
    newer: usize,
    older: usize,
}

/// A bounded map that forgets what was not used for longest. No clock, no lock; what goes is handed back, so that nobody's
/// destructor runs in here.
#[derive(Default)]
pub(super) struct Store {
    places: ByKey<usize>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    ends: Option<(usize, usize)>,
    bytes: usize,
}

impl Store {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn entry(&mut self, at: usize) -> Option<&mut Entry> {
        self.entries.get_mut(at).and_then(Option::as_mut)
    }

    fn unlink(&mut self, at: usize) {
        let Some((newer, older)) = self.entry(at).map(|entry| (entry.newer, entry.older)) else { return };
        if let Some(entry) = self.entry(newer) {
            entry.older = older;
        }
        if let Some(entry) = self.entry(older) {
            entry.newer = newer;
        }
        self.ends = self.ends.and_then(|(newest, oldest)| {
            let newest = if newest == at { older } else { newest };
            let oldest = if oldest == at { newer } else { oldest };
            (newest != NONE).then_some((newest, oldest))
        });
    }

    fn link(&mut self, at: usize) {
        let ends = self.ends;
        let newest = ends.map_or(NONE, |(newest, _)| newest);
        if let Some(entry) = self.entry(at) {
            (entry.newer, entry.older) = (NONE, newest);
        }
        if let Some(before) = self.entry(newest) {
            before.newer = at;
        }
        self.ends = Some((at, ends.map_or(at, |(_, oldest)| oldest)));
    }

    /// What is kept under a key, and when it was stored. It is the newest from here on.
    pub fn used(&mut self, key: &Key) -> Option<(&Value, Instant)> {
        let at = *self.places.get(key)?;
        if self.ends.is_some_and(|(newest, _)| newest != at) {
            self.unlink(at);
            self.link(at);
        }
        self.entries[at].as_ref().map(|entry| (&entry.value, entry.stored))
    }

    pub fn stored(&self, key: &Key) -> Option<Instant> {
        self.entries[*self.places.get(key)?].as_ref().map(|entry| entry.stored)
    }

    pub fn put(&mut self, (key, asked): (Key, Key), value: Value, bytes: usize, stored: Instant, gone: &mut Vec<Value>) {
        gone.extend(self.remove(&key));
        let entry = Some(Entry { key, asked, value, bytes, stored, newer: NONE, older: NONE });
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.places.insert(key, at);
        self.bytes += bytes;
        self.link(at);
    }

    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        let at = self.places.remove(key)?;
        self.unlink(at);
        let entry = self.entries[at].take()?;
        self.free.push(at);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Forgets what was not used for longest.
    pub fn remove_oldest(&mut self) -> Option<Value> {
        let (_, oldest) = self.ends?;
        let key = self.entries[oldest].as_ref()?.key;
        self.remove(&key)
    }

    /// Forgets all answers to what was asked so.
    pub fn remove_asked(&mut self, asked: &Key, gone: &mut Vec<Value>) {
        let keys: Vec<Key> = self.entries.iter().flatten().filter(|entry| entry.asked == *asked).map(|entry| entry.key).collect();
        gone.extend(keys.iter().filter_map(|key| self.remove(key)));
    }

    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.entries.iter().flatten().map(|entry| &entry.value)
    }
}
