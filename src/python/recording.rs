//! How calls come to a monitor, by every way, and what is told then.

use super::alerts;
use super::monitor::{Monitor, publish};
use super::slots;
use crate::drive::clock;
use crate::engine::Instant;
use crate::llm::runtime::on_a_thread;
use crate::monitor::{Alert, Entry, Record, Source};
use crate::telemetry::{Call, Listener};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use std::sync::Arc;

/// Counts a call that the program tells of itself.
pub fn take(monitor: &Bound<'_, Monitor>, record: Record, given_seconds: f64) -> PyResult<()> {
    let now = clock::now();
    if let Some(alert) = monitor.get().core.record_entry(now, Entry { at_ns: clock::unix(now), record, given_seconds }) {
        publish(monitor.py(), monitor.get(), &alert)?;
    }
    if alerts::is_unwatched(monitor.get()) { alerts::keep_watch(monitor, now) } else { Ok(()) }
}

/// Counts a call that the engine watched until `now`, and publishes the alert that it causes.
pub fn record(monitor: &Py<Monitor>, record: Record, now: Instant) -> Result<(), Box<PyErr>> {
    let alert = monitor.get().core.record_entry(now, Entry { at_ns: clock::unix(now), record, given_seconds: f64::NAN });
    after(monitor, alert, now)
}

/// As [`record`], of a call that passed at once.
#[inline]
pub fn passed(monitor: &Py<Monitor>, latency_ns: u64, now: Instant, source: Source) -> Result<(), Box<PyErr>> {
    let alert = monitor.get().core.passed(now, clock::unix(now), latency_ns, source);
    after(monitor, alert, now)
}

#[inline]
fn after(monitor: &Py<Monitor>, alert: Option<Alert>, now: Instant) -> Result<(), Box<PyErr>> {
    if alert.is_none() && !alerts::is_unwatched(monitor.get()) { Ok(()) } else { told_aside(monitor, alert, now) }
}

/// A monitor that is told of calls which end on threads that have none of Python's.
pub struct Watching(pub Py<Monitor>);

impl Watching {
    /// A call is over. What is to be told is told where nobody waits for it.
    pub fn told(self: &Arc<Self>, call: &Call) {
        let (monitor, now) = (self.0.get(), clock::now());
        let alert = monitor.core.record_entry(now, Entry { at_ns: call.ended_ns(), record: call.record, given_seconds: f64::NAN });
        if alert.is_none() && !alerts::is_unwatched(monitor) {
            return;
        }
        let this = self.clone();
        let publish = move || {
            // Without an interpreter (it is shutting down) nobody listens.
            Python::try_attach(|_| told_aside(&this.0, alert, now).map_err(|interrupt| *interrupt));
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            drop(on_a_thread(publish)); // it has begun
        } else {
            publish();
        }
    }
}

impl Listener for Arc<Watching> {
    fn ended(&self, call: &Call) {
        self.told(call);
    }
}

/// The call is over: what cannot be told of it does not change how it came out. Interrupts are passed on.
#[cold]
fn told_aside(monitor: &Py<Monitor>, alert: Option<Alert>, now: Instant) -> Result<(), Box<PyErr>> {
    slots::attached(|py| {
        let told = alert.map_or(Ok(()), |alert| publish(py, monitor.get(), &alert));
        match told.and_then(|()| alerts::keep_watch(monitor.bind(py), now)) {
            Err(error) if error.is_instance_of::<PyException>(py) => {
                error.write_unraisable(py, None);
                Ok(())
            }
            told => told.map_err(Box::new),
        }
    })
}
