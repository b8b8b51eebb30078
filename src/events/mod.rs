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

/// Makes a constant for each row, and the table.
macro_rules! events {
    ($($constant:ident = $name:literal, $severity:ident, $meaning:literal;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)] // the rows' numbers
        enum Row { $($constant,)* }
        $(
            #[doc = $meaning]
            pub const $constant: Name = Name(Row::$constant as u8);
        )*
        /// Every kind of event.
        pub const EVENTS: &[Kind] = &[$(Kind { name: $name, severity: Severity::$severity, meaning: $meaning },)*];
    };
}

events! {
    ATTEMPT_STARTED = "attempt.started", Debug, "an attempt begins";
    RETRY_SCHEDULED = "retry.scheduled", Info, "an attempt failed; another follows after the wait";
    RETRY_EXHAUSTED = "retry.exhausted", Info, "an attempt failed and no other follows";
    HEDGE_STARTED = "hedge.started", Debug, "no answer yet: the call is made once more, beside the one under way";
    HEDGE_WON = "hedge.won", Debug, "the later call answered first: the others are given up";
    CIRCUIT_OPENED = "circuit.opened", Warning, "the circuit opened: calls are turned away";
    CIRCUIT_HALF_OPENED = "circuit.half_opened", Info, "the circuit lets probes through";
    CIRCUIT_CLOSED = "circuit.closed", Info, "the circuit closed: calls pass again";
    CIRCUIT_REJECTED = "circuit.rejected", Debug, "the circuit turned a call away";
    RATE_LIMIT_WAITED = "rate_limit.waited", Debug, "a call waited for its turn under a rate limit, and goes";
    RATE_LIMIT_REJECTED = "rate_limit.rejected", Debug, "a rate limit turned a call away";
    RATE_LIMIT_PAUSED = "rate_limit.paused", Info, "the server had enough: a rate limit lets nobody through for a while";
    BULKHEAD_WAITED = "bulkhead.waited", Debug, "a call waited for a free place in a bulkhead, and goes";
    BULKHEAD_REJECTED = "bulkhead.rejected", Debug, "a bulkhead turned a call away";
    CACHE_HIT = "cache.hit", Debug, "an answer came from the cache: nothing was asked";
    CACHE_MISS = "cache.miss", Debug, "the cache has no answer: the call is made";
    CACHE_JOINED = "cache.joined", Debug, "a call was given the answer of an equal one that was under way";
    CACHE_STALE = "cache.stale", Warning, "the call failed: an answer from the cache that is past its time stands in";
    CACHE_UNUSABLE = "cache.unusable", Warning, "the file of a cache cannot be used as it should; told once, and no call's failure";
    TIMEOUT_ELAPSED = "timeout.elapsed", Info, "a time limit passed";
    FALLBACK_USED = "fallback.used", Warning, "an alternative is tried";
    FALLBACK_EXHAUSTED = "fallback.exhausted", Warning, "no alternative helped";
    GUARDRAIL_REFUSED = "guardrail.refused", Info, "a guardrail refused what was asked or answered";
    GUARDRAIL_REDACTED = "guardrail.redacted", Info, "a guardrail cut something out of what was asked or answered";
    GUARDRAIL_REPAIRED = "guardrail.repaired", Info, "an answer that was nearly JSON was mended";
    CHAOS_INJECTED = "chaos.injected", Info, "a Chaos policy slowed the call, or answered in its place";
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
