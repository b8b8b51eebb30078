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

/// One row of the table of policies.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRow {
    /// The first word of its events' names, and the name of its page.
    pub kind: &'static str,
    /// The public class.
    pub class: &'static str,
}

/// The one table of policies, in canonical order, outermost first: what a pipeline takes.
pub const POLICIES: [PolicyRow; 10] = [
    PolicyRow { kind: "cache", class: "Cache" },
    PolicyRow { kind: "fallback", class: "Fallback" },
    PolicyRow { kind: "retry", class: "Retry" },
    // What is asked is looked at before the call begins: what a cache goes by is what is sent.
    PolicyRow { kind: "guardrails", class: "Guardrails" },
    PolicyRow { kind: "hedge", class: "Hedge" },
    PolicyRow { kind: "circuit_breaker", class: "CircuitBreaker" },
    PolicyRow { kind: "rate_limit", class: "RateLimit" },
    PolicyRow { kind: "bulkhead", class: "Bulkhead" },
    // Stands around the retry too, as the limit of all attempts.
    PolicyRow { kind: "timeout", class: "Timeout" },
    PolicyRow { kind: "chaos", class: "Chaos" },
];
