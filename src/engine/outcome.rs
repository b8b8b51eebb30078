//! How a call, or a passage through a layer, came out.

use super::plan::StageId;
use std::fmt;
use std::time::Duration;

/// A number under which the driver keeps a value, an exception or an open stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What came out. All that it carries is one word, so that it travels in registers: copied through memory piece by piece
/// it would keep the processor waiting several times in each attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The call returned.
    Value(Ticket),
    /// The call raised.
    Error(Ticket),
    /// The call delivered its first content; it has not ended.
    Stream(Ticket),
    /// A policy decided without, or against, the call.
    Rejected(Rejection),
}

/// Why a policy decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The circuit is open, or half open with all its probes out.
    CircuitOpen,
    /// A time limit passed. The only one that tells something of the callee.
    TimedOut,
    /// The rate limit has no room.
    RateLimited,
    /// The bulkhead has no room.
    BulkheadFull,
}

impl Refusal {
    /// The name of the error that it is raised as.
    pub fn class_name(self) -> &'static str {
        match self {
            Refusal::CircuitOpen => "CircuitBreakerError",
            Refusal::TimedOut => "CallTimeoutError",
            Refusal::RateLimited => "RateLimitExceededError",
            Refusal::BulkheadFull => "BulkheadFullError",
        }
    }
}

/// A policy's decision: which one, why, and how long it may last. From the low end: two bits say why, sixteen which stage,
/// one in what unit (nanoseconds or microseconds), the rest how long; all of these set: that is not known.
#[derive(Clone, Copy, PartialEq)]
pub struct Rejection(u64);

const STAGE: u32 = 2;
const MICROS: u64 = 1 << 18;
const SPAN: u32 = 19;
const UNKNOWN: u64 = u64::MAX >> SPAN;

impl Rejection {
    /// A decision of that stage's; `span` is the time until another try may be let through, or the limit that passed. One
    /// of more than nine hours is kept in microseconds, one of more than a year as a year.
    pub fn new(refusal: Refusal, stage: StageId, span: Option<Duration>) -> Rejection {
        let short = |amount: u128| u64::try_from(amount).ok().filter(|amount| *amount < UNKNOWN);
        let (unit, amount) = match span.map(|span| (short(span.as_nanos()), span)) {
            None => (0, UNKNOWN),
            Some((Some(nanos), _)) => (0, nanos),
            Some((None, span)) => (MICROS, short(span.as_micros()).unwrap_or(UNKNOWN - 1)),
        };
        Rejection(amount << SPAN | unit | u64::from(stage.0) << STAGE | refusal as u64)
    }

    /// Why.
    pub fn refusal(self) -> Refusal {
        [Refusal::CircuitOpen, Refusal::TimedOut, Refusal::RateLimited, Refusal::BulkheadFull][(self.0 & 3) as usize]
    }

    /// The stage of the plan that decided.
    pub fn stage(self) -> StageId {
        StageId((self.0 >> STAGE) as u16)
    }

    fn span(self) -> Option<Duration> {
        let amount = Some(self.0 >> SPAN).filter(|amount| *amount != UNKNOWN)?;
        Some(if self.0 & MICROS == 0 { Duration::from_nanos(amount) } else { Duration::from_micros(amount) })
    }

    /// When another try may be let through; `None` if that is not known.
    pub fn retry_after(self) -> Option<Duration> {
        self.span().filter(|_| self.refusal() != Refusal::TimedOut)
    }

    /// The limit that passed, for [`Refusal::TimedOut`].
    pub fn limit(self) -> Duration {
        self.span().filter(|_| self.refusal() == Refusal::TimedOut).unwrap_or_default()
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}, {:?}", self.refusal(), self.stage(), self.span())
    }
}

impl Outcome {
    /// Whether a policy turned the call away without evidence about the callee.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Outcome::Rejected(r) if r.refusal() != Refusal::TimedOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_outcome_is_two_words() {
        assert_eq!(size_of::<Outcome>(), 16);
    }

    proptest! {
        #[test]
        fn a_rejection_keeps_what_it_was_made_of(
            why in 0..4_usize,
            stage in any::<u16>(),
            span in prop_oneof![Just(None), (0..35_000_000_000_000_u64).prop_map(|n| Some(Duration::from_nanos(n)))],
        ) {
            let refusal = [Refusal::CircuitOpen, Refusal::TimedOut, Refusal::RateLimited, Refusal::BulkheadFull][why];
            let rejection = Rejection::new(refusal, StageId(stage), span);
            prop_assert_eq!((rejection.refusal(), rejection.stage()), (refusal, StageId(stage)));
            let timed_out = refusal == Refusal::TimedOut;
            prop_assert_eq!(rejection.retry_after(), if timed_out { None } else { span });
            prop_assert_eq!(rejection.limit(), if timed_out { span.unwrap_or_default() } else { Duration::ZERO });
        }
    }

    #[test]
    fn a_rejection_is_shown_as_what_it_was_made_of() {
        let shown = |span| format!("{:?}", Rejection::new(Refusal::TimedOut, StageId(3), span));
        assert_eq!(shown(Some(Duration::from_millis(1500))), "TimedOut at StageId(3), Some(1.5s)");
        assert_eq!(shown(None), "TimedOut at StageId(3), None");
    }

    #[test]
    fn a_long_span_is_kept_in_microseconds_and_one_without_end_as_a_year() {
        let after = |span| Rejection::new(Refusal::CircuitOpen, StageId(0), Some(span)).retry_after().unwrap_or_default();
        assert_eq!(after(Duration::from_nanos(35_184_372_088_831)), Duration::from_micros(35_184_372_088));
        assert_eq!(after(Duration::from_secs(86_400)), Duration::from_secs(86_400));
        assert!(after(Duration::MAX) > Duration::from_secs(365 * 86_400));
    }
}
