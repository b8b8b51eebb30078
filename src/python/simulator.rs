//! The simulator's native half; `seawall.simulator.Simulator` is its face.

use super::errors::configuration;
use crate::simulator::faults::Fault;
use crate::simulator::limits::{Limits, Rates};
use crate::simulator::log::{Entry, Log};
use crate::simulator::script::{Rule, Scope, Script};
use crate::simulator::server::{Options, Server};
use crate::simulator::spread::Pace;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a wait goes on before signals are looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// A server with OpenAI's API that misbehaves on command.
#[pyclass(frozen, subclass, module = "seawall._seawall")]
pub struct SimulatedServer {
    options: Mutex<Options>,
    script: Arc<Mutex<Script>>,
    limits: Arc<Mutex<Limits>>,
    log: Arc<Log>,
    server: Mutex<Option<Server>>,
}

/// A request's row: time, method, path, model, stream, headers, fault, aborted, status and seconds, body.
type Row<'py> =
    (f64, String, String, Option<String>, bool, Vec<(String, String)>, String, bool, Option<u16>, Option<f64>, Bound<'py, PyBytes>);

fn row<'py>(py: Python<'py>, entry: &Entry) -> Row<'py> {
    (
        entry.time,
        entry.method.clone(),
        entry.path.clone(),
        entry.model.clone(),
        entry.stream,
        entry.headers.clone(),
        entry.fault.clone(),
        entry.aborted(),
        entry.status(),
        entry.seconds(),
        PyBytes::new(py, &entry.body),
    )
}

impl SimulatedServer {
    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl SimulatedServer {
    #[new]
    #[allow(clippy::too_many_arguments)] // one per setting
    fn new(
        seed: u64,
        models: Option<BTreeSet<String>>,
        keys: Option<BTreeSet<String>>,
        require_key: bool,
        host: String,
        port: u16,
        log_limit: usize,
    ) -> SimulatedServer {
        SimulatedServer {
            options: Mutex::new(Options { seed, models, keys, require_key, host, port, log_limit }),
            script: Arc::new(Mutex::new(Script::new(seed))),
            limits: Arc::default(),
            log: Arc::new(Log::new(log_limit)),
            server: Mutex::new(None),
        }
    }

    /// Listens from now on; nothing if it does already.
    fn listen(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let mut server = self.server();
            if server.is_none() {
                let mut options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
                let begun = Server::start(options.clone(), self.script.clone(), self.limits.clone(), self.log.clone())?;
                // Started again, it is found where it was.
                options.port = begun.address.port();
                *server = Some(begun);
            }
            Ok(())
        })
        .map_err(|error: std::io::Error| {
            let Options { host, port, .. } = &*self.options.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = error.kind() == std::io::ErrorKind::AddrInUse;
            let hint = if taken { "; leave port out, and one that is free is taken" } else { "" };
            PyOSError::new_err(format!("the simulator cannot listen at {host}:{port}: {error}{hint}"))
        })
    }

    /// Ends it and every connection at once.
    fn end(&self, py: Python<'_>) {
        let server = self.server().take();
        py.detach(|| drop(server));
    }

    /// Where it listens; `None` while it does not.
    #[getter]
    fn address(&self) -> Option<(String, u16)> {
        self.server().as_ref().map(|s| (s.address.ip().to_string(), s.address.port()))
    }

    /// Adds a rule; the fault as JSON.
    #[allow(clippy::too_many_arguments)] // one per part of a rule
    fn rule(
        &self,
        py: Python<'_>,
        model: String,
        fault: &str,
        times: Option<u64>,
        probability: f64,
        path: Option<String>,
        after: u64,
        start: f64,
        until: Option<f64>,
        outage: bool,
    ) -> PyResult<()> {
        let fault: Fault = serde_json::from_str(fault).map_err(|e| configuration(py, &format!("this is no fault: {e}")))?;
        let scope = Scope { model, start, until };
        self.script().push(Rule { scope, fault, times, probability, path, after, outage });
        Ok(())
    }

    /// Sets how fast a model is, as JSON.
    fn pace(&self, py: Python<'_>, model: String, pace: &str, start: f64, until: Option<f64>) -> PyResult<()> {
        let pace: Pace = serde_json::from_str(pace).map_err(|e| configuration(py, &format!("this is no pace: {e}")))?;
        self.script().pace(Scope { model, start, until }, pace);
        Ok(())
    }

    /// Sets what a model allows in a minute; `None` is any number.
    fn limit(&self, model: &str, requests: Option<u64>, tokens: Option<u64>) {
        self.limits().set(model, Rates { requests, tokens });
    }

    /// Takes away a model's rules, pace and limits, or all.
    fn unrule(&self, model: Option<&str>) {
        self.script().clear(model);
        self.limits().clear(model);
    }

    /// The requests whose answers have ended since the last call, waiting so many seconds for one.
    fn ended<'py>(&self, py: Python<'py>, timeout: f64) -> Vec<Row<'py>> {
        let limit = Duration::from_secs_f64(timeout.clamp(0.0, 1e9));
        py.detach(|| self.log.ended(limit)).iter().map(|entry| row(py, entry)).collect()
    }

    /// The requests in the log, a row each.
    fn rows<'py>(&self, py: Python<'py>) -> Vec<Row<'py>> {
        self.log.entries().iter().map(|entry| row(py, entry)).collect()
    }

    /// All requests since the log was last emptied.
    #[pyo3(signature = (model=None, path=None))]
    fn tally(&self, model: Option<&str>, path: Option<&str>) -> u64 {
        self.log.count(model, path)
    }

    /// Empties the log.
    fn forget(&self) {
        self.log.forget();
    }

    /// Waits until so many requests have come (or been aborted), at most so many seconds; the number there is then.
    fn wait(&self, py: Python<'_>, count: u64, aborted: bool, timeout: f64) -> PyResult<u64> {
        let until = Instant::now() + Duration::from_secs_f64(timeout.clamp(0.0, 1e9));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let seen = py.detach(|| self.log.wait(count, aborted, left.min(GLANCE)));
            if seen >= count || left.is_zero() {
                return Ok(seen);
            }
            py.check_signals()?;
        }
    }

    /// Connections open now.
    #[getter]
    fn open_connections(&self) -> usize {
        self.server().as_ref().map_or(0, |s| s.shared().connections.load(Ordering::Acquire))
    }
}
