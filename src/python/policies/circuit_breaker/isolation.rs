//! A circuit held open by hand, with a way back.

use super::CircuitBreaker;
use crate::drive::clock;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Calls are turned away until this ends: by `end()`, or at the end of a `with` block.
#[pyclass(frozen, module = "seawall._seawall")]
pub struct Isolation {
    pub breaker: Py<CircuitBreaker>,
    pub number: u64,
}

#[pymethods]
impl Isolation {
    /// Ends it: after the last isolation the circuit is what it was before the first. Whether it was still on.
    fn end(&self, py: Python<'_>) -> PyResult<bool> {
        let ended = self.breaker.get().core.end_isolation(self.number, clock::now());
        CircuitBreaker::tell(self.breaker.bind(py))?;
        Ok(ended)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<bool> {
        self.end(py)?;
        Ok(false)
    }
}
