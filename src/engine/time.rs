//! Points in time on the driver's clock. Arithmetic only: nothing here reads a clock.

use std::time::Duration;

/// Nanoseconds on the driver's clock; only differences mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Later than any time a clock reaches.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// This point plus `span`; saturates at [`Instant::NEVER`].
    pub fn after(self, span: Duration) -> Instant {
        let nanos = span.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(span.subsec_nanos()));
        Instant(self.0.saturating_add(nanos))
    }

    /// The span from `earlier` to this point; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The span from this point to `later`; `None` if that is [`Instant::NEVER`].
    pub fn until(self, later: Instant) -> Option<Duration> {
        (later != Instant::NEVER).then(|| later.since(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Instant(5).after(Duration::MAX), Instant::NEVER);
        assert_eq!(Instant(5).since(Instant(9)), Duration::ZERO);
        assert_eq!(Instant(5).until(Instant::NEVER), None);
        assert_eq!(Instant(5).until(Instant(8)), Some(Duration::from_nanos(3)));
    }
}
