//! Every request that arrived, in order.

use crate::drive::clock;
use crate::engine;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// A request.
pub struct Entry {
    /// Seconds since the server's start.
    pub time: f64,
    pub method: String,
    pub path: String,
    pub model: Option<String>,
    pub stream: bool,
    /// Names in lower case; credentials are left out.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// The name of what it met.
    pub fault: String,
    aborted: AtomicBool,
    arrived: Instant,
    status: AtomicU16,
    seconds: OnceLock<f64>,
    /// Which log it is in: one that was emptied since does not count it any more.
    emptied: AtomicU64,
}

impl Entry {
    #[allow(clippy::too_many_arguments)] // one per field
    pub fn new(
        time: f64,
        method: String,
        path: String,
        model: Option<String>,
        stream: bool,
        headers: Vec<(String, String)>,
        body: Bytes,
        fault: String,
    ) -> Entry {
        Entry {
            time,
            method,
            path,
            model,
            stream,
            headers,
            body,
            fault,
            aborted: AtomicBool::new(false),
            arrived: Instant::now(),
            status: AtomicU16::new(0),
            seconds: OnceLock::new(),
            emptied: AtomicU64::new(0),
        }
    }

    /// It is answered with this status from now on.
    pub fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Release);
    }

    /// The status of the answer; `None` before there is one, and where there never was.
    pub fn status(&self) -> Option<u16> {
        Some(self.status.load(Ordering::Acquire)).filter(|status| *status > 0)
    }

    /// Seconds from its arrival to the end of the answer, however it ended.
    pub fn seconds(&self) -> Option<f64> {
        self.seconds.get().copied()
    }

    /// The client went away before its answer was whole.
    pub fn aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }
}

#[derive(Default)]
struct Held {
    entries: VecDeque<Arc<Entry>>,
    counts: HashMap<(Option<String>, String), u64>,
    total: u64,
    aborted: u64,
    emptied: u64,
    /// Those whose answers have ended since they were last asked for, once somebody has.
    ended: Option<VecDeque<Arc<Entry>>>,
}

/// The requests, the oldest dropped when there are too many. Counts go on counting.
pub struct Log {
    held: Mutex<Held>,
    changed: Condvar,
    limit: usize,
    // A server that is started again goes on where it was: times and numbers stay in order.
    began: OnceLock<engine::Instant>,
    number: AtomicU64,
}

impl Log {
    pub fn new(limit: usize) -> Log {
        Log { held: Mutex::default(), changed: Condvar::new(), limit, began: OnceLock::new(), number: AtomicU64::new(0) }
    }

    /// Seconds since the first server of this log began, by the clock of all policies: tests may move it.
    pub fn now(&self) -> f64 {
        let now = clock::now();
        now.since(*self.began.get_or_init(|| now)).as_secs_f64()
    }

    /// The next request's number.
    pub fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn push(&self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let mut held = self.lock();
        entry.emptied.store(held.emptied, Ordering::Release);
        *held.counts.entry((entry.model.clone(), entry.path.clone())).or_default() += 1;
        held.total += 1;
        if held.entries.len() >= self.limit {
            held.entries.pop_front();
        }
        if self.limit > 0 {
            held.entries.push_back(entry.clone());
        }
        drop(held);
        self.changed.notify_all();
        entry
    }

    pub fn abort(&self, entry: &Entry) {
        if !entry.aborted.swap(true, Ordering::AcqRel) {
            let mut held = self.lock();
            held.aborted += u64::from(held.emptied == entry.emptied.load(Ordering::Acquire));
            drop(held);
            self.changed.notify_all();
        }
    }

    /// The answer to a request is over.
    pub fn end(&self, entry: &Arc<Entry>) {
        let _ = entry.seconds.set(entry.arrived.elapsed().as_secs_f64());
        let mut held = self.lock();
        let Some(ended) = &mut held.ended else { return };
        if ended.len() >= self.limit.max(1) {
            ended.pop_front();
        }
        ended.push_back(entry.clone());
        drop(held);
        self.changed.notify_all();
    }

    /// The requests whose answers have ended since the last call of this, waiting so long for one; the first call begins to look.
    pub fn ended(&self, limit: Duration) -> Vec<Arc<Entry>> {
        let until = Instant::now() + limit;
        let mut held = self.lock();
        loop {
            let ended = held.ended.get_or_insert_default();
            let left = until.saturating_duration_since(Instant::now());
            if !ended.is_empty() || left.is_zero() {
                return std::mem::take(ended).into();
            }
            held = self.changed.wait_timeout(held, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().entries.iter().cloned().collect()
    }

    /// All requests since the log was last emptied, the dropped ones too.
    pub fn count(&self, model: Option<&str>, path: Option<&str>) -> u64 {
        let held = self.lock();
        let fits =
            |(seen, at): &(Option<String>, String)| model.is_none_or(|m| seen.as_deref() == Some(m)) && path.is_none_or(|p| at.contains(p));
        held.counts.iter().filter(|(key, _)| fits(key)).map(|(_, count)| count).sum()
    }

    pub fn forget(&self) {
        let mut held = self.lock();
        *held = Held { emptied: held.emptied + 1, ended: held.ended.take(), ..Held::default() };
    }

    /// Waits until so many requests have come (or been aborted); the number there is at the end.
    pub fn wait(&self, count: u64, aborted: bool, limit: Duration) -> u64 {
        let until = Instant::now() + limit;
        let mut held = self.lock();
        loop {
            let now = if aborted { held.aborted } else { held.total };
            let left = until.saturating_duration_since(Instant::now());
            if now >= count || left.is_zero() {
                return now;
            }
            held = self.changed.wait_timeout(held, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}
