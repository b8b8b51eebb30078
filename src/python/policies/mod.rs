//! One pyclass per policy: keyword arguments in, configuration out.

pub mod bulkhead;
pub mod cache;
pub mod chaos;
pub mod circuit_breaker;
pub mod fallback;
pub mod hedge;
pub mod rate_limit;
pub mod retry;
pub mod shared;
pub mod timeout;
