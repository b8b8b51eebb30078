//! The native half of `seawall.sinks.Webhook`.

use super::bridge;
use super::raise;
use super::route::Flying;
use crate::llm::error::ApiError;
use crate::llm::runtime;
use crate::llm::webhook::{self, Webhook as Core};
use pyo3::prelude::*;
use std::sync::Arc;

/// Posts JSON to one address, without the interpreter lock.
#[pyclass(frozen, module = "seawall._seawall")]
pub struct Webhook(Arc<Core>);

fn raised(py: Python<'_>, error: &ApiError) -> PyErr {
    match py.import("seawall.errors") {
        Ok(table) => raise::api(py, error, table.as_any(), None),
        Err(failed) => failed,
    }
}

#[pymethods]
impl Webhook {
    #[new]
    #[allow(clippy::needless_pass_by_value)] // pyo3 hands them over
    fn new(py: Python<'_>, url: &str, headers: Vec<(String, String)>) -> PyResult<Webhook> {
        Core::new(url, &headers).map(|core| Webhook(Arc::new(core))).map_err(|error| raised(py, &error))
    }

    /// What may be shown of the address.
    #[getter]
    fn host(&self) -> &str {
        self.0.shown()
    }

    /// Posts the body once, with these headers too; the running loop's future says how it went.
    #[allow(clippy::needless_pass_by_value)]
    fn start(&self, py: Python<'_>, body: Vec<u8>, headers: Vec<(String, String)>) -> PyResult<Flying> {
        let more = webhook::headers(&headers).map_err(|error| raised(py, &error))?;
        let (runtime, client) = runtime::get().map_err(|error| raised(py, &error))?;
        let (future, sender) = bridge::future(py)?;
        let (core, told, way) = (self.0.clone(), future.clone_ref(py), sender.clone());
        let job = runtime.spawn(async move {
            let sent = core.post(&client, more, body.into()).await;
            drop(way.complete(told, move |py| sent.map(|()| py.None()).map_err(|error| raised(py, &error))));
        });
        Ok(Flying::new(future, job.abort_handle(), &sender))
    }
}
