//! The lock and the atomic that the breaker is built of; under `--cfg loom`, loom's, which try every order of steps.

#[cfg(not(loom))]
pub use std::sync::{Mutex, atomic::AtomicU64};

#[cfg(loom)]
pub use loom::sync::{Mutex, atomic::AtomicU64};
