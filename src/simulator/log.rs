//! Every request that arrived, in order.

use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
        Entry { time, method, path, model, stream, headers, body, fault, aborted: AtomicBool::new(false), emptied: AtomicU64::new(0) }
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
}

/// The requests, the oldest dropped when there are too many. Counts go on counting.
pub struct Log {
    held: Mutex<Held>,
    changed: Condvar,
    limit: usize,
    // A server that is started again goes on where it was: times and numbers stay in order.
    began: OnceLock<Instant>,
    number: AtomicU64,
}

impl Log {
    pub fn new(limit: usize) -> Log {
        Log { held: Mutex::default(), changed: Condvar::new(), limit, began: OnceLock::new(), number: AtomicU64::new(0) }
    }

    /// When the first server of this log began.
    pub fn began(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
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
        *held = Held { emptied: held.emptied + 1, ..Held::default() };
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
