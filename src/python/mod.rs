//! The extension module `seawall._seawall`: the only place that names pyo3. It converts, it never decides.

mod alerts;
mod async_generator;
mod awaiting;
mod bare;
mod bell;
mod beside;
mod cached;
mod compiled;
mod convert;
mod coroutine;
mod dashboard;
mod digest;
mod document;
mod ending;
mod errors;
mod event_loop;
mod figures;
mod flight;
mod generator;
mod guarded;
mod guardrails;
mod heard;
mod hooks;
mod inline;
mod judge;
mod lent;
mod llm;
mod log;
mod monitor;
mod monitoring_system;
mod observation;
mod pipeline;
mod policies;
mod protocol;
mod race;
mod railed;
mod raised;
mod recording;
mod recycled;
mod remaining;
mod running;
mod sdk_stream;
mod simulator;
mod slots;
mod stack;
mod state;
mod story;
mod tally;
mod telemetry;
mod threads;
mod trace;
mod turnstile;
mod virtual_time;
mod waits;
mod wrong_calls;

use crate::policies::class::{CLASSES, FallbackRule};
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicI64, Ordering};

/// The table of failure classes: name, retried, alternatives (`None`: only with other credentials), counted by breakers.
fn classes() -> Vec<(&'static str, Option<bool>, Option<bool>, bool)> {
    let alternatives = |rule| match rule {
        FallbackRule::Always => Some(true),
        FallbackRule::Never => Some(false),
        FallbackRule::OtherCredentials => None,
    };
    CLASSES.iter().map(|row| (row.name, row.retry, alternatives(row.fallback), row.breaker)).collect()
}

/// What is kept of Python's is one interpreter's, and another must not be handed it.
fn only_interpreter() -> PyResult<()> {
    static HOME: AtomicI64 = AtomicI64::new(-1);
    // SAFETY: a module is made with the interpreter attached.
    let here = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    match HOME.compare_exchange(-1, here, Ordering::AcqRel, Ordering::Acquire) {
        Err(home) if home != here => Err(PyImportError::new_err(
            "seawall is loaded in another interpreter of this process already, and works in one: load it there only \
             (under mod_wsgi that is `WSGIApplicationGroup %{GLOBAL}`), or use processes",
        )),
        _ => Ok(()),
    }
}

// It has locks of its own for interpreters that have none (`threads`), but has not been run on any: until it was, it does not say that
// it is ready, and such an interpreter takes its lock.
#[pymodule(gil_used = true)]
fn _seawall(m: &Bound<'_, PyModule>) -> PyResult<()> {
    only_interpreter()?;
    m.add_class::<policies::retry::Retry>()?;
    m.add_class::<policies::circuit_breaker::CircuitBreaker>()?;
    m.add_class::<policies::circuit_breaker::Permit>()?;
    m.add_class::<policies::timeout::Timeout>()?;
    m.add_class::<policies::fallback::Fallback>()?;
    m.add_class::<policies::hedge::Hedge>()?;
    m.add_class::<policies::rate_limit::RateLimit>()?;
    m.add_class::<policies::bulkhead::Bulkhead>()?;
    m.add_function(wrap_pyfunction!(policies::shared::forget_waiters, m)?)?;
    m.add_function(wrap_pyfunction!(policies::cache::flush_cache_files, m)?)?;
    m.add_function(wrap_pyfunction!(cached::caching_is_said, m)?)?;
    m.add_class::<policies::cache::Cache>()?;
    m.add_class::<policies::chaos::Chaos>()?;
    m.add_class::<guardrails::Guardrails>()?;
    m.add_class::<guardrails::Rail>()?;
    m.add_class::<guardrails::Filter>()?;
    m.add_class::<pipeline::Pipeline>()?;
    m.add_class::<guarded::Guarded>()?;
    m.add_class::<coroutine::Coroutine>()?;
    m.add_class::<generator::Generator>()?;
    m.add_class::<async_generator::AsyncGenerator>()?;
    m.add_function(wrap_pyfunction!(bare::ask_always, m)?)?;
    m.add_function(wrap_pyfunction!(guarded::guarded, m)?)?;
    m.add("CLASSES", classes())?;
    m.add_function(wrap_pyfunction!(remaining::remaining, m)?)?;
    threads::look(m.py())?;
    waits::register(m)?;
    virtual_time::register(m)?;
    llm::register(m)?;
    alerts::register(m)?;
    monitor::register(m)?;
    m.add_class::<dashboard::Dashboard>()?;
    m.add_class::<monitoring_system::MonitoringSystem>()?;
    observation::register(m)?;
    telemetry::register(m)?;
    trace::register(m)?;
    m.add_class::<story::Story>()?;
    m.add_class::<simulator::SimulatedServer>()?;
    m.add_function(wrap_pyfunction!(document::read_toml, m)?)?;
    slots::set(m.py())?;
    Ok(())
}
