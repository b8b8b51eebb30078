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
    /// The name in `describe()` and events.
    pub kind: &'static str,
    /// The public class.
    pub class: &'static str,
    /// The place in the canonical order, outermost first.
    pub rank: u8,
}

/// The one table of policies, in canonical order.
pub const POLICIES: [PolicyRow; 10] = [
    PolicyRow { kind: "cache", class: "Cache", rank: 10 },
    PolicyRow { kind: "fallback", class: "Fallback", rank: 20 },
    PolicyRow { kind: "retry", class: "Retry", rank: 40 },
    // What is asked is looked at before the call begins: what a cache goes by is what is sent.
    PolicyRow { kind: "guardrails", class: "Guardrails", rank: 45 },
    PolicyRow { kind: "hedge", class: "Hedge", rank: 50 },
    PolicyRow { kind: "circuit_breaker", class: "CircuitBreaker", rank: 60 },
    PolicyRow { kind: "rate_limit", class: "RateLimit", rank: 70 },
    PolicyRow { kind: "bulkhead", class: "Bulkhead", rank: 80 },
    // Stands at two places: rank 30 as the total limit, 90 as the attempt's.
    PolicyRow { kind: "timeout", class: "Timeout", rank: 90 },
    PolicyRow { kind: "chaos", class: "Chaos", rank: 95 },
];
