//! The pure core's tests: neither pyo3 nor tokio is in this binary.

mod alerts;
mod engine;
mod monitor;
mod stats;
mod virtual_time;
