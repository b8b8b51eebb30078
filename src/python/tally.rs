//! What has become of a guarded function's calls: `statistics`.

use super::compiled::Labels;
use super::flight::Course;
use super::story::{Pages, Story, Tale};
use super::threads::{self, Shared};
use crate::policies::retry::{Counts, Totals};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::mem::{replace, take};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Calls that passed without trouble: all that the fast lane counts.
#[derive(Default)]
pub struct Passed {
    calls: AtomicU64,
    /// Of the retries that they passed through.
    counts: Vec<Arc<Counts>>,
}

impl Passed {
    fn read(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        let calls = self.read();
        self.counts.iter().for_each(|counts| counts.passed(calls));
    }
}

/// A retry's own counts, and whoever else counts calls that pass through it.
#[derive(Default)]
pub struct Shares {
    pub counts: Arc<Counts>,
    users: Mutex<Vec<Weak<Passed>>>,
}

impl Shares {
    fn used_by(&self, passed: &Arc<Passed>) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|user| user.strong_count() > 0);
        users.push(Arc::downgrade(passed));
    }

    /// All that it has done.
    pub fn totals(&self) -> Totals {
        let users: Vec<Arc<Passed>> = self.users.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let passed: u64 = users.iter().map(|user| user.read()).sum();
        let mut totals = self.counts.totals();
        totals.calls += passed;
        totals.attempts += passed;
        totals
    }
}

/// How the last call went that did not simply pass.
#[derive(Default)]
pub struct Last {
    pub attempts: u32,
    pub took: Duration,
    /// The class of its error.
    pub error: Option<String>,
    pub left: Left,
}

/// What it has left to tell.
#[derive(Default)]
pub enum Left {
    #[default]
    Nothing,
    /// What its story will be made of.
    Pages(Pages),
    /// The story that its exception carries, or that somebody has asked for.
    Story(Py<Story>),
}

/// One function's calls.
#[derive(Default)]
pub struct Tally {
    passed: Arc<Passed>,
    ended: AtomicU64,
    begun: AtomicU64,
    failed: AtomicU64,
    attempts: AtomicU64,
    retries: AtomicU64,
    fallbacks: AtomicU64,
    waited_ns: AtomicU64,
    last: Shared<Option<Last>>,
}

impl Tally {
    /// Of calls that pass through these retries.
    pub fn of(shares: &[Arc<Shares>]) -> Tally {
        let passed = Arc::new(Passed { calls: AtomicU64::new(0), counts: shares.iter().map(|s| s.counts.clone()).collect() });
        shares.iter().for_each(|s| s.used_by(&passed));
        Tally { passed, ..Tally::default() }
    }

    /// A call has passed.
    #[inline]
    pub fn pass(&self) {
        threads::count(&self.passed.calls);
    }

    /// A call is the machine's now.
    pub fn begin(&self) {
        threads::count(&self.begun);
    }

    /// It has ended.
    pub fn end(&self, py: Python<'_>, gone: Course, last: Last) {
        let is_failed = last.error.is_some();
        threads::add(&self.ended, 1);
        threads::add(&self.failed, u64::from(is_failed));
        threads::add(&self.attempts, u64::from(last.attempts));
        threads::add(&self.retries, u64::from(gone.retries));
        threads::add(&self.fallbacks, u64::from(!is_failed && gone.fell_back));
        threads::add(&self.waited_ns, u64::try_from(gone.waited.as_nanos()).unwrap_or(u64::MAX));
        let before = self.last.with(py, |held| {
            let held = held.get_or_insert_default();
            // Part by part: written in pieces elsewhere and copied whole, it would keep the processor waiting.
            (held.attempts, held.took) = (last.attempts, last.took);
            (replace(&mut held.error, last.error), replace(&mut held.left, last.left))
        });
        drop(before); // after the look at it: a story is an object
    }

    /// The story of the last call that did not simply pass, the same each time; `labels`: what things are called in it.
    pub fn story(&self, py: Python<'_>, labels: impl FnOnce() -> Option<Arc<Labels>>) -> PyResult<Option<Py<Story>>> {
        // Made before it is known what of: that may run anybody's code, and a look may not.
        let made = Py::new(py, Story::untold())?;
        Ok(self.last.with(py, |last| {
            let left = &mut last.as_mut()?.left;
            if let Left::Pages(pages) = left {
                made.get().tells(Tale { pages: take(pages), labels: labels().unwrap_or_default() });
                *left = Left::Story(made.clone_ref(py));
            }
            let Left::Story(story) = left else { return None };
            Some(story.clone_ref(py))
        }))
    }

    /// As a dict.
    pub fn told<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let passed = self.passed.read();
        let (ended, failed) = (read(&self.ended), read(&self.failed));
        let told = PyDict::new(py);
        told.set_item("calls", passed + read(&self.begun))?;
        told.set_item("successes", passed + ended.saturating_sub(failed))?;
        told.set_item("failures", failed)?;
        told.set_item("attempts", passed + read(&self.attempts))?;
        told.set_item("retries", read(&self.retries))?;
        told.set_item("fallbacks", read(&self.fallbacks))?;
        told.set_item("waited", Duration::from_nanos(read(&self.waited_ns)).as_secs_f64())?;
        let last = self.last.with(py, |last| last.as_ref().map(|last| (last.attempts, last.took, last.error.clone())));
        told.set_item("last_attempts", last.as_ref().map(|(attempts, ..)| attempts))?;
        told.set_item("last_seconds", last.as_ref().map(|(_, took, _)| took.as_secs_f64()))?;
        told.set_item("last_error", last.and_then(|(.., error)| error))?;
        Ok(told)
    }
}

/// A retry's totals as a dict.
pub fn told<'py>(py: Python<'py>, totals: &Totals) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    told.set_item("calls", totals.calls)?;
    told.set_item("attempts", totals.attempts)?;
    told.set_item("retries", totals.retries)?;
    told.set_item("exhausted", totals.exhausted)?;
    told.set_item("waited", totals.waited.as_secs_f64())?;
    Ok(told)
}
