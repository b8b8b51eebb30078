//! Policies: configuration, shared state and one call's passage through each.

pub mod budget;
pub mod bulkhead;
pub mod cache;
pub mod chaos;
pub mod circuit_breaker;
pub mod class;
pub mod fallback;
pub mod guardrails;
pub mod hedge;
pub mod patience;
pub mod rate_limit;
pub mod retry;
pub mod timeout;

/// The policies by their public classes, in canonical order, outermost first: what a pipeline takes.
pub const POLICIES: [&str; 10] = [
    "Cache",
    "Fallback",
    "Retry",
    // What is asked is looked at before the call begins: what a cache goes by is what is sent.
    "Guardrails",
    "Hedge",
    "CircuitBreaker",
    "RateLimit",
    "Bulkhead",
    // Stands around the retry too, as the limit of all attempts.
    "Timeout",
    "Chaos",
];
