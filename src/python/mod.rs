//! The extension module `seawall._seawall`: the only place that names pyo3. It converts, it never decides.

mod compiled;
mod convert;
mod coroutine;
mod errors;
mod event_loop;
mod flight;
mod inline;
mod judge;
mod llm;
mod log;
mod monitor;
mod pipeline;
mod policies;
mod state;
mod waits;

use pyo3::prelude::*;

#[pymodule]
fn _seawall(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<policies::retry::Retry>()?;
    m.add_class::<policies::circuit_breaker::CircuitBreaker>()?;
    m.add_class::<policies::timeout::Timeout>()?;
    m.add_class::<policies::fallback::Fallback>()?;
    m.add_class::<pipeline::Pipeline>()?;
    m.add_class::<pipeline::Guarded>()?;
    m.add_class::<coroutine::Coroutine>()?;
    waits::register(m)?;
    llm::register(m)?;
    monitor::register(m)?;
    Ok(())
}
