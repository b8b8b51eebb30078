//! A monitor of all calls of the process, and the prices of tokens.

use super::convert;
use super::errors::configuration;
use super::monitor::{Monitor, Watching};
use crate::monitor::{self, Price};
use crate::telemetry::{self, Listening};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::{Arc, Mutex, PoisonError};

/// Adds the classes and functions of this file to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Observation>()?;
    m.add_function(wrap_pyfunction!(prices, m)?)?;
    m.add_function(wrap_pyfunction!(set_prices, m)?)
}

/// A monitor that is told of every call, until this is closed.
#[pyclass(frozen, module = "seawall")]
pub struct Observation {
    /// The monitor that is told.
    #[pyo3(get)]
    monitor: Py<Monitor>,
    listening: Mutex<Option<Listening>>,
}

#[pymethods]
impl Observation {
    #[new]
    fn new(py: Python<'_>, monitor: Py<Monitor>) -> Observation {
        let listener = Arc::new(Arc::new(Watching(monitor.clone_ref(py))));
        Observation { monitor, listening: Mutex::new(Some(telemetry::listen(listener))) }
    }

    /// Tells the monitor of no further call. Closing twice does no harm.
    fn close(&self) {
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(listening);
    }

    fn __enter__(&self, py: Python<'_>) -> Py<Monitor> {
        self.monitor.clone_ref(py)
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let is_open = self.listening.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let monitor = self.monitor.bind(py).repr()?;
        Ok(format!("<Observation by {monitor}{}>", if is_open { "" } else { ", closed" }))
    }
}

/// The price table: `(model, prompt, completion, cached)` each, for a million tokens.
#[pyfunction]
fn prices() -> Vec<(String, f64, f64, f64)> {
    monitor::prices().into_iter().map(|(model, price)| (model, price.prompt, price.completion, price.cached)).collect()
}

/// Puts another price table in its place.
#[pyfunction]
fn set_prices<'py>(py: Python<'py>, table: Vec<(String, [Bound<'py, PyAny>; 3])>) -> PyResult<()> {
    let mut prices = Vec::new();
    for (model, [prompt, completion, cached]) in table {
        let of = |what: &str, value: &Bound<'_, PyAny>| {
            let price = value.extract::<f64>().ok().filter(|price| (0.0..=1e6).contains(price));
            price.ok_or_else(|| {
                let shown = convert::shown(value);
                configuration(py, &format!("prices[{model:?}]: the price of {what} tokens must be a number from 0 to 1e6, not {shown}"))
            })
        };
        let price = Price { prompt: of("prompt", &prompt)?, completion: of("completion", &completion)?, cached: of("cached", &cached)? };
        prices.push((model, price));
    }
    monitor::set_prices(prices);
    Ok(())
}
