//! The atomic that the breaker is built of; under `--cfg loom`, loom's, which tries every order of steps.

#[cfg(not(loom))]
pub use std::sync::atomic::AtomicU64;

#[cfg(loom)]
pub use loom::sync::atomic::AtomicU64;
