//! Metrics for Prometheus: the native half of `seawall.telemetry`.

use crate::telemetry::names::{Attribute, BUCKETS, Instrument, Metric};
use crate::telemetry::{self as core, Exporter, Publisher, Snapshot, Value, Watching};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Adds the classes and functions of this file to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Metrics>()?;
    m.add_class::<MetricsServer>()?;
    m.add_function(wrap_pyfunction!(forget_numbers, m)?)?;
    m.add_function(wrap_pyfunction!(metric_names, m)?)?;
    m.add_function(wrap_pyfunction!(span_names, m)?)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts all calls of the process as long as it is not closed, alone or as one of a group.
#[pyclass(frozen, module = "seawall._seawall")]
pub struct Metrics {
    publisher: Publisher,
    watching: Mutex<Option<Watching>>,
}

type Sample = (&'static str, Vec<String>, Option<f64>, f64);

/// `(suffix, labels, le, value)`
fn samples(labels: &[String], value: &Value) -> Vec<Sample> {
    match value {
        Value::Number(number) => vec![("", labels.to_vec(), None, *number)],
        Value::Spread(counts, sum) => {
            let mut so_far = 0;
            let limits = BUCKETS.iter().copied().chain([f64::INFINITY]);
            let mut samples: Vec<Sample> = limits
                .zip(counts)
                .map(|(limit, count)| {
                    so_far += count;
                    ("_bucket", labels.to_vec(), Some(limit), so_far as f64)
                })
                .collect();
            samples.push(("_sum", labels.to_vec(), None, *sum));
            samples.push(("_count", labels.to_vec(), None, so_far as f64));
            samples
        }
    }
}

#[pymethods]
impl Metrics {
    #[new]
    fn new(py: Python<'_>, directory: Option<PathBuf>) -> PyResult<Metrics> {
        let publisher = match &directory {
            None => Publisher::alone(),
            Some(directory) => py
                .detach(|| Publisher::grouped(directory))
                .map_err(|error| PyOSError::new_err(format!("the directory of metrics {} cannot be used: {error}", directory.display())))?,
        };
        Ok(Metrics { publisher, watching: Mutex::new(Some(core::watch())) })
    }

    /// The page for a reader that sends this `Accept`: text and content type.
    fn page(&self, py: Python<'_>, accept: &str) -> PyResult<(String, &'static str)> {
        py.detach(|| core::page(&self.publisher, accept)).map_err(unreadable)
    }

    /// `(name, [(suffix, labels, le, value)])` of each metric.
    fn families(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, Vec<Sample>)>> {
        let snapshot: Snapshot = py.detach(|| self.publisher.snapshot()).map_err(unreadable)?;
        let listed = snapshot
            .families()
            .map(|(metric, values)| (metric.name, values.iter().flat_map(|(labels, value)| samples(labels, value)).collect()));
        Ok(listed.collect())
    }

    /// Counts no more; what was counted stays.
    fn close(&self, py: Python<'_>) {
        let watching = locked(&self.watching).take();
        py.detach(|| self.publisher.end());
        drop(watching);
    }
}

fn unreadable(error: io::Error) -> PyErr {
    PyOSError::new_err(format!("the metrics of the group cannot be read: {error}"))
}

/// Serves the page of some metrics, until it is closed.
#[pyclass(frozen, module = "seawall._seawall")]
pub struct MetricsServer {
    running: Mutex<Option<Exporter>>,
    address: (String, u16),
}

#[pymethods]
impl MetricsServer {
    #[new]
    fn new(py: Python<'_>, metrics: &Metrics, host: &str, port: u16) -> PyResult<MetricsServer> {
        let publisher = metrics.publisher.clone();
        let begun = py.detach(|| Exporter::start(host, port, publisher)).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => PyOSError::new_err((
                libc::EADDRINUSE,
                format!(
                    "metrics cannot be served at {host}:{port}: something else listens there. Give another port; of several processes on \
                     one machine, one serves and the others share a directory with it"
                ),
            )),
            _ => PyOSError::new_err(format!("metrics cannot be served at {host}:{port}: {error}")),
        })?;
        let address = begun.address();
        Ok(MetricsServer { address: (address.ip().to_string(), address.port()), running: Mutex::new(Some(begun)) })
    }

    /// Where it listens, or did.
    #[getter]
    fn address(&self) -> (String, u16) {
        self.address.clone()
    }

    /// Whether it listens, in this process.
    #[getter]
    fn listens(&self) -> bool {
        locked(&self.running).as_ref().is_some_and(Exporter::is_here)
    }

    /// Ends it and its connections at once.
    fn close(&self, py: Python<'_>) {
        let running = locked(&self.running).take();
        py.detach(|| drop(running));
    }
}

/// A forked child begins at zero.
#[pyfunction]
fn forget_numbers() {
    core::forget();
}

/// `(name, kind, unit, labels, help)` of each metric.
#[pyfunction]
fn metric_names() -> Vec<(&'static str, &'static str, &'static str, Vec<&'static str>, &'static str)> {
    let row = |metric: &&Metric| (metric.name, metric.kind.name(), metric.unit, metric.labels.to_vec(), metric.help);
    core::names::METRICS.iter().map(row).collect()
}

type Named = (&'static str, Vec<&'static str>, &'static str);

/// `(name, places, meaning)` of each attribute of spans, and `(name, kind, unit, meaning)` of each instrument.
#[pyfunction]
fn span_names() -> (Vec<Named>, Vec<Instrument>) {
    let row = |(name, places, meaning): &Attribute| (*name, places.to_vec(), *meaning);
    (core::names::ATTRIBUTES.iter().map(row).collect(), core::names::INSTRUMENTS.to_vec())
}
