//! The one table of events: what policies report, how loud it is, and what its fields mean.

/// How loud an event is, in the levels of Python's `logging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// For whoever follows a single call.
    Debug,
    /// Part of normal work under trouble.
    Info,
    /// Somebody should know.
    Warning,
}

/// One kind of event.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// `<policy>.<what happened>`.
    pub name: &'static str,
    /// How loud.
    pub severity: Severity,
    /// What it means.
    pub meaning: &'static str,
}

/// An attempt begins.
pub const ATTEMPT_STARTED: &str = "attempt.started";
/// A retry was decided on and its wait begins.
pub const RETRY_SCHEDULED: &str = "retry.scheduled";
/// No further attempt is made.
pub const RETRY_EXHAUSTED: &str = "retry.exhausted";
/// The circuit opened.
pub const CIRCUIT_OPENED: &str = "circuit.opened";
/// The circuit lets probes through.
pub const CIRCUIT_HALF_OPENED: &str = "circuit.half_opened";
/// The circuit closed.
pub const CIRCUIT_CLOSED: &str = "circuit.closed";
/// The circuit turned a call away.
pub const CIRCUIT_REJECTED: &str = "circuit.rejected";
/// A time limit passed.
pub const TIMEOUT_ELAPSED: &str = "timeout.elapsed";
/// An alternative is tried.
pub const FALLBACK_USED: &str = "fallback.used";
/// No alternative helped.
pub const FALLBACK_EXHAUSTED: &str = "fallback.exhausted";

/// Chaos was injected.
pub const CHAOS_INJECTED: &str = "chaos.injected";

/// Every kind of event.
pub const EVENTS: [Kind; 11] = [
    Kind { name: ATTEMPT_STARTED, severity: Severity::Debug, meaning: "an attempt begins" },
    Kind { name: RETRY_SCHEDULED, severity: Severity::Info, meaning: "an attempt failed; another follows after the wait" },
    Kind { name: RETRY_EXHAUSTED, severity: Severity::Info, meaning: "an attempt failed and no other follows" },
    Kind { name: CIRCUIT_OPENED, severity: Severity::Warning, meaning: "the circuit opened: calls are turned away" },
    Kind { name: CIRCUIT_HALF_OPENED, severity: Severity::Info, meaning: "the circuit lets probes through" },
    Kind { name: CIRCUIT_CLOSED, severity: Severity::Info, meaning: "the circuit closed: calls pass again" },
    Kind { name: CIRCUIT_REJECTED, severity: Severity::Debug, meaning: "the circuit turned a call away" },
    Kind { name: TIMEOUT_ELAPSED, severity: Severity::Info, meaning: "a time limit passed" },
    Kind { name: FALLBACK_USED, severity: Severity::Warning, meaning: "an alternative is tried" },
    Kind { name: FALLBACK_EXHAUSTED, severity: Severity::Warning, meaning: "no alternative helped" },
    Kind { name: CHAOS_INJECTED, severity: Severity::Info, meaning: "a Chaos policy slowed the call, or answered in its place" },
];

/// The row of that name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    EVENTS.iter().find(|k| k.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_dotted() {
        for (i, a) in EVENTS.iter().enumerate() {
            assert!(a.name.contains('.'), "{}", a.name);
            assert!(EVENTS[i + 1..].iter().all(|b| b.name != a.name), "{}", a.name);
        }
    }
}
