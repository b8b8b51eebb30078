//! The native half of the document's `MonitoringSystem`.

use super::alerts;
use super::figures::{calls_of, flag, seconds};
use super::monitor::{Monitor, outlets, take};
use crate::monitor::{Entry, Language, Metric, Record, Rules, Span};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// The native half of `seawall.MonitoringSystem`: everything that counts.
#[pyclass(frozen, subclass, extends = Monitor, module = "seawall._seawall")]
pub struct MonitoringSystem;

#[pymethods]
impl MonitoringSystem {
    // A subclass may take what it likes in its `__init__`, so nothing is looked at here.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Monitor::with(Span::Calls(100), None, Language::Chinese, Rules::default(), Vec::new()))
            .add_subclass(MonitoringSystem)
    }

    /// Counts one finished request.
    ///
    /// Args:
    ///     success: whether it succeeded.
    ///     retried: whether it needed more than one attempt.
    ///     latency: how long it took, seconds or timedelta.
    #[pyo3(signature = (success, retried, latency))]
    fn record_request(
        slf: &Bound<'_, Self>,
        success: &Bound<'_, PyAny>,
        retried: &Bound<'_, PyAny>,
        latency: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let given_seconds = seconds("latency", latency)?;
        let record = Record {
            ok: flag("success", success)?,
            retries: u32::from(flag("retried", retried)?),
            attempts: u32::from(flag("retried", retried)?) + 1,
            latency_ns: (given_seconds * 1e9).round() as u64,
            ..Record::default()
        };
        take(slf.as_super(), record, given_seconds)
    }

    /// The requests in the window, oldest first, as dicts with `timestamp`, `success`, `retried` and `latency`: a copy.
    #[getter]
    fn requests<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let request = |entry: &Entry| {
            let request = PyDict::new(py);
            request.set_item("timestamp", entry.at_ns as f64 / 1e9)?;
            request.set_item("success", entry.record.ok)?;
            request.set_item("retried", entry.record.retries > 0)?;
            request.set_item("latency", entry.seconds())?;
            Ok(request)
        };
        let requests: Vec<_> = slf.as_super().get().core.entries().iter().map(request).collect::<PyResult<_>>()?;
        PyTuple::new(py, requests)
    }

    /// Begins again, empty, with a window of that size and the usual rules but for those given; the sinks come to those it has.
    #[pyo3(signature = (window_size, rules=None, remind_every=None, sinks=None))]
    fn _begin(
        slf: &Bound<'_, Self>,
        window_size: &Bound<'_, PyAny>,
        rules: Option<&Bound<'_, PyAny>>,
        remind_every: Option<&Bound<'_, PyAny>>,
        sinks: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, monitor) = (slf.py(), slf.as_super().get());
        let (calls, rules) = (calls_of("window_size", window_size)?, alerts::rules(py, rules, remind_every)?);
        let outlets = outlets(py, sinks)?;
        monitor.core.set_rules(rules);
        monitor.core.restart(calls);
        monitor.callbacks().extend(outlets);
        Ok(())
    }

    /// The critical limit of a metric; infinity for none.
    fn _limit(slf: &Bound<'_, Self>, metric: &str) -> PyResult<f64> {
        Ok(slf.as_super().get().core.rules().of(named(metric)?).limits[1])
    }

    /// Moves the limit of a metric, from the next record on.
    fn _set_limit(slf: &Bound<'_, Self>, metric: &str, limit: f64) -> PyResult<()> {
        slf.as_super().get().core.set_limit(named(metric)?, limit);
        Ok(())
    }
}

fn named(metric: &str) -> PyResult<Metric> {
    Metric::named(metric).ok_or_else(|| PyValueError::new_err(format!("there is no metric '{metric}'")))
}
