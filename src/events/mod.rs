//! The one table of events: what policies report, how loud it is, and what its fields mean.

use std::fmt;

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

/// An event's place in the table: compared at the price of a number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name(u8);

impl Name {
    /// Its row.
    #[inline]
    pub fn kind(self) -> &'static Kind {
        &EVENTS[self.0 as usize]
    }

    /// `<policy>.<what happened>`.
    pub fn as_str(self) -> &'static str {
        self.kind().name
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An attempt begins.
pub const ATTEMPT_STARTED: Name = Name(0);
/// A retry was decided on and its wait begins.
pub const RETRY_SCHEDULED: Name = Name(1);
/// No further attempt is made.
pub const RETRY_EXHAUSTED: Name = Name(2);
/// The circuit opened.
pub const CIRCUIT_OPENED: Name = Name(3);
/// The circuit lets probes through.
pub const CIRCUIT_HALF_OPENED: Name = Name(4);
/// The circuit closed.
pub const CIRCUIT_CLOSED: Name = Name(5);
/// The circuit turned a call away.
pub const CIRCUIT_REJECTED: Name = Name(6);
/// A time limit passed.
pub const TIMEOUT_ELAPSED: Name = Name(7);
/// An alternative is tried.
pub const FALLBACK_USED: Name = Name(8);
/// No alternative helped.
pub const FALLBACK_EXHAUSTED: Name = Name(9);

/// Chaos was injected.
pub const CHAOS_INJECTED: Name = Name(10);

/// Every kind of event, in the order of their numbers.
pub const EVENTS: [Kind; 11] = [
    Kind { name: "attempt.started", severity: Severity::Debug, meaning: "an attempt begins" },
    Kind { name: "retry.scheduled", severity: Severity::Info, meaning: "an attempt failed; another follows after the wait" },
    Kind { name: "retry.exhausted", severity: Severity::Info, meaning: "an attempt failed and no other follows" },
    Kind { name: "circuit.opened", severity: Severity::Warning, meaning: "the circuit opened: calls are turned away" },
    Kind { name: "circuit.half_opened", severity: Severity::Info, meaning: "the circuit lets probes through" },
    Kind { name: "circuit.closed", severity: Severity::Info, meaning: "the circuit closed: calls pass again" },
    Kind { name: "circuit.rejected", severity: Severity::Debug, meaning: "the circuit turned a call away" },
    Kind { name: "timeout.elapsed", severity: Severity::Info, meaning: "a time limit passed" },
    Kind { name: "fallback.used", severity: Severity::Warning, meaning: "an alternative is tried" },
    Kind { name: "fallback.exhausted", severity: Severity::Warning, meaning: "no alternative helped" },
    Kind { name: "chaos.injected", severity: Severity::Info, meaning: "a Chaos policy slowed the call, or answered in its place" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_rows() {
        let numbered = [(ATTEMPT_STARTED, "attempt.started"), (CIRCUIT_REJECTED, "circuit.rejected"), (CHAOS_INJECTED, "chaos.injected")];
        assert!(numbered.iter().all(|(name, text)| name.as_str() == *text));
        assert_eq!(CHAOS_INJECTED.0 as usize + 1, EVENTS.len());
    }

    #[test]
    fn names_are_unique_and_dotted() {
        for (i, a) in EVENTS.iter().enumerate() {
            assert!(a.name.contains('.'), "{}", a.name);
            assert!(EVENTS[i + 1..].iter().all(|b| b.name != a.name), "{}", a.name);
        }
    }
}
