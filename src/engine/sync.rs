//! The locks and the atomic that calls share; under `--cfg loom`, loom's, which try every order of steps.

#[cfg(not(loom))]
pub use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};

#[cfg(loom)]
pub use loom::sync::{Mutex, MutexGuard, atomic::AtomicU64};
