//! The dashboard's native half; `seawall.dashboard.serve` makes it.

use super::errors::configuration;
use crate::dashboard::server::{self as core, Options, Refused};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A page that shows the process it is in, until it is closed.
#[pyclass(frozen, module = "seawall._seawall")]
pub struct Dashboard {
    running: Mutex<Option<core::Dashboard>>,
    address: (String, u16),
    token: Option<String>,
}

impl Dashboard {
    fn running(&self) -> MutexGuard<'_, Option<core::Dashboard>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Dashboard {
    /// Listens from now on.
    #[new]
    fn new(py: Python<'_>, host: String, port: Option<u16>, token: Option<String>, title: String) -> PyResult<Dashboard> {
        let options = Options { host: host.clone(), port, token, title };
        let begun = py.detach(|| core::Dashboard::start(options)).map_err(|refused| match refused {
            Refused::Token => configuration(py, "token must have at least 16 characters; leave it out, and one is made"),
            Refused::Taken(port) => PyOSError::new_err((
                libc::EADDRINUSE,
                format!(
                    "the dashboard cannot listen at {host}:{port}: something else does already. Leave port out for the next one that \
                     is free, or close the other (a dashboard of this process: its close())"
                ),
            )),
            Refused::Io(error) => {
                let place = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
                PyOSError::new_err(format!("the dashboard cannot listen at {place}: {error}"))
            }
        })?;
        let address = begun.address();
        Ok(Dashboard {
            address: (address.ip().to_string(), address.port()),
            token: begun.token().map(str::to_owned),
            running: Mutex::new(Some(begun)),
        })
    }

    /// Ends it and its connections at once.
    fn close(&self, py: Python<'_>) {
        let running = self.running().take();
        py.detach(|| drop(running));
    }

    /// Whether it listens, in this process.
    #[getter]
    fn listens(&self) -> bool {
        self.running().as_ref().is_some_and(core::Dashboard::is_here)
    }

    /// Where it listens, or did.
    #[getter]
    fn address(&self) -> (String, u16) {
        self.address.clone()
    }

    /// What has to be known to see it, if anything has.
    #[getter]
    fn token(&self) -> Option<String> {
        self.token.clone()
    }
}
