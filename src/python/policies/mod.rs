//! One pyclass per policy: keyword arguments in, configuration out.

pub mod chaos;
pub mod circuit_breaker;
pub mod fallback;
pub mod retry;
pub mod timeout;
