//! What limits that several pipelines share have in common: in a forked process those that wait, or are inside, are not there.

use crate::policies::bulkhead::Bulkhead;
use crate::policies::cache::Cache;
use crate::policies::rate_limit::{Keyed, RateLimit};
use crate::python::errors::ours;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

static BULKHEADS: Mutex<Vec<Weak<Bulkhead>>> = Mutex::new(Vec::new());
static CACHES: Mutex<Vec<Weak<Cache>>> = Mutex::new(Vec::new());
static KEYED: Mutex<Vec<Weak<Keyed>>> = Mutex::new(Vec::new());
static RATE_LIMITS: Mutex<Vec<Weak<RateLimit>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has them forgotten in forked processes, from the first on.
fn watch_forks(py: Python<'_>) -> PyResult<()> {
    static WATCHED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &WATCHED, "seawall._limits", "watch_forks")?.call0().map(drop)
}

/// One that is there from now on, and is found when the process forks.
fn known<T>(py: Python<'_>, list: &'static Mutex<Vec<Weak<T>>>, core: T) -> PyResult<Arc<T>> {
    let core = Arc::new(core);
    let mut known = lock(list);
    known.retain(|each| each.strong_count() > 0);
    known.push(Arc::downgrade(&core));
    drop(known);
    watch_forks(py)?;
    Ok(core)
}

/// A new bulkhead.
pub fn bulkhead(py: Python<'_>, core: Bulkhead) -> PyResult<Arc<Bulkhead>> {
    known(py, &BULKHEADS, core)
}

/// A new cache.
pub fn cache(py: Python<'_>, core: Cache) -> PyResult<Arc<Cache>> {
    known(py, &CACHES, core)
}

/// A new rate limit.
pub fn rate_limit(py: Python<'_>, core: RateLimit) -> PyResult<Arc<RateLimit>> {
    known(py, &RATE_LIMITS, core)
}

/// A new rate limit for each key.
pub fn keyed(py: Python<'_>, core: Keyed) -> PyResult<Arc<Keyed>> {
    known(py, &KEYED, core)
}

/// In a forked process: those that waited, or were inside, are not here.
#[pyfunction]
pub fn forget_waiters() {
    let bulkheads: Vec<_> = lock(&BULKHEADS).iter().filter_map(Weak::upgrade).collect();
    bulkheads.iter().for_each(|bulkhead| bulkhead.clear());
    let limits: Vec<_> = lock(&RATE_LIMITS).iter().filter_map(Weak::upgrade).collect();
    limits.iter().for_each(|limit| limit.clear());
    let keyed: Vec<_> = lock(&KEYED).iter().filter_map(Weak::upgrade).collect();
    keyed.iter().for_each(|limits| limits.clear());
    let caches: Vec<_> = lock(&CACHES).iter().filter_map(Weak::upgrade).collect();
    caches.iter().for_each(|cache| cache.forget_waiters());
}
