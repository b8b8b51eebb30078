//! What is known about one finished call, and the exact sums over many of them.

use super::time_window::Sums;

/// One finished call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How long the whole call took, in nanoseconds.
    pub latency_ns: u64,
    /// Tokens used, prompt and answer together; 0 where unknown.
    pub tokens: u32,
    /// Attempts after the first one.
    pub retries: u32,
    /// The call gave a usable result.
    pub ok: bool,
    /// An alternative answered, not the first choice.
    pub fallback: bool,
}

impl Record {
    /// A success at once, with nothing else to tell: what most calls are.
    #[inline]
    fn is_plain(&self) -> bool {
        self.ok && !self.fallback && self.retries == 0 && self.tokens == 0
    }
}

/// Sums over calls. All are integers, so that adding and later taking away leaves nothing behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls.
    pub total: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Calls that needed at least one retry.
    pub retried: u64,
    /// Retries, all told.
    pub retries: u64,
    /// Calls that an alternative answered.
    pub fallbacks: u64,
    /// Tokens.
    pub tokens: u64,
    /// Nanoseconds, all told; wider than 64 bits, because the sum of a few huge latencies is.
    pub latency_ns: u128,
}

fn share(part: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| part as f64 / total as f64)
}

impl Tally {
    /// Counts one call in.
    #[inline]
    pub fn add(&mut self, record: &Record) {
        if record.is_plain() {
            self.total += 1;
            self.latency_ns += u128::from(record.latency_ns);
        } else {
            self.merge(&Tally::from(*record));
        }
    }

    /// Counts one call out again.
    #[inline]
    pub fn subtract(&mut self, record: &Record) {
        if record.is_plain() {
            self.total -= 1;
            self.latency_ns -= u128::from(record.latency_ns);
        } else {
            self.remove(&Tally::from(*record));
        }
    }

    /// Share of calls that failed, 0 to 1; `None` without calls.
    pub fn error_rate(&self) -> Option<f64> {
        share(self.errors, self.total)
    }

    /// Share of calls that succeeded.
    pub fn success_rate(&self) -> Option<f64> {
        share(self.total - self.errors, self.total)
    }

    /// Share of calls that needed a retry.
    pub fn retry_rate(&self) -> Option<f64> {
        share(self.retried, self.total)
    }

    /// Share of calls that an alternative answered.
    pub fn fallback_rate(&self) -> Option<f64> {
        share(self.fallbacks, self.total)
    }

    /// Mean latency in seconds, rounded once.
    pub fn mean_seconds(&self) -> Option<f64> {
        (self.total > 0).then(|| self.latency_ns as f64 / (self.total as f64 * 1e9))
    }
}

impl From<Record> for Tally {
    fn from(record: Record) -> Self {
        Tally {
            total: 1,
            errors: u64::from(!record.ok),
            retried: u64::from(record.retries > 0),
            retries: u64::from(record.retries),
            fallbacks: u64::from(record.fallback),
            tokens: u64::from(record.tokens),
            latency_ns: u128::from(record.latency_ns),
        }
    }
}

impl Sums for Tally {
    fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.errors += other.errors;
        self.retried += other.retried;
        self.retries += other.retries;
        self.fallbacks += other.fallbacks;
        self.tokens += other.tokens;
        self.latency_ns += other.latency_ns;
    }

    fn remove(&mut self, other: &Self) {
        self.total -= other.total;
        self.errors -= other.errors;
        self.retried -= other.retried;
        self.retries -= other.retries;
        self.fallbacks -= other.fallbacks;
        self.tokens -= other.tokens;
        self.latency_ns -= other.latency_ns;
    }
}
