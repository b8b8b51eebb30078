//! The pure core's tests: neither pyo3 nor tokio is in this binary.

#[path = "monitor.rs"]
mod monitor;
#[path = "stats.rs"]
mod stats;
