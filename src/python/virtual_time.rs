//! Time that tests move by hand, and what else tests ask of all calls: the native side of `seawall.testing`.

use super::errors::ours;
use crate::drive::{clock, trial};
use crate::engine::{Event, Instant};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::time::Duration;

fn ring(py: Python<'_>) -> PyResult<()> {
    static MOVED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &MOVED, "seawall._virtual_time", "moved")?.call0()?;
    Ok(())
}

/// Moves the time to there and wakes whoever waited for it.
pub fn advance_to(py: Python<'_>, until: Instant) -> PyResult<()> {
    clock::advance_to(until);
    ring(py)
}

/// The coroutine of a sleep on the running loop.
pub fn sleep(py: Python<'_>, until: Instant) -> PyResult<Bound<'_, PyAny>> {
    static SLEEP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &SLEEP, "seawall._virtual_time", "sleep_until")?.call1((until.0,))
}

/// An alarm on a loop, as its own `call_at`.
pub fn call_at<'py>(event_loop: &Bound<'py, PyAny>, at: Instant, ring: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static AT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(event_loop.py(), &AT, "seawall._virtual_time", "call_at")?.call1((event_loop, at.0, ring))
}

/// Tells the recorders what happened at `name`.
pub fn record(py: Python<'_>, event: &Event, name: &str, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let kind: Option<Bound<'_, PyType>> = error.map(|e| e.get_type());
    let (span, elapsed) = (event.span.as_secs_f64(), event.elapsed().as_secs_f64());
    let fields = (event.name.as_str(), name, event.number, span, elapsed, event.at.0, kind, event.reason);
    heard(py)?.call1(fields).map(drop)
}

/// Tells the recorders that a breaker has changed its state.
pub fn record_change(py: Python<'_>, event: &str, name: &str, at: Instant, span: Duration, why: &str) -> PyResult<()> {
    heard(py)?.call1((event, name, 0, span.as_secs_f64(), 0.0, at.0, py.None(), why)).map(drop)
}

fn heard(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static HEARD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &HEARD, "seawall.testing", "_heard")
}

/// Stops the time. `False`: it stands still already.
#[pyfunction]
fn clock_stop() -> bool {
    clock::take_by_hand()
}

/// Lets the time run again.
#[pyfunction]
fn clock_run() {
    clock::let_run();
}

/// The time in nanoseconds.
#[pyfunction]
fn clock_now() -> u64 {
    clock::now().0
}

/// Moves the time, if it stands still, to that nanosecond; never back.
#[pyfunction]
fn clock_advance(to: u64) {
    clock::advance_to(Instant(to));
}

/// Whether the time stands still.
#[pyfunction]
fn clock_stands() -> bool {
    clock::is_by_hand()
}

/// Begins a sequence of seeds; gives where the one before was, for whoever wants to go on with it.
#[pyfunction]
#[pyo3(signature = (seed))]
fn sow(seed: Option<u64>) -> Option<u64> {
    clock::sow(seed)
}

/// What holds for all calls from now on.
#[pyfunction]
fn set_trial(recorded: bool, hurried: bool, cap: u32) {
    trial::set(recorded, hurried, cap);
}

/// Adds the functions to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(clock_stop, m)?)?;
    m.add_function(wrap_pyfunction!(clock_run, m)?)?;
    m.add_function(wrap_pyfunction!(clock_now, m)?)?;
    m.add_function(wrap_pyfunction!(clock_advance, m)?)?;
    m.add_function(wrap_pyfunction!(clock_stands, m)?)?;
    m.add_function(wrap_pyfunction!(sow, m)?)?;
    m.add_function(wrap_pyfunction!(set_trial, m)?)
}
