//! What is known about one finished call, and the exact sums over many of them.

use super::time_window::Sums;
use super::words::{Source, Word};

/// One finished call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How long the whole call took, in nanoseconds.
    pub latency_ns: u64,
    /// From its beginning to the first content of a stream; 0 where there was none.
    pub first_token_ns: u64,
    /// Estimated price, in billionths of the price table's unit; 0 where unknown.
    pub cost_nano: u64,
    /// Tokens used, prompt and answer together; 0 where unknown.
    pub tokens: u32,
    /// Those of the prompt.
    pub prompt_tokens: u32,
    /// Calls of the function or requests, all told; 0 where it was turned away.
    pub attempts: u32,
    /// Attempts after the first one.
    pub retries: u32,
    /// Where it belongs; of the model that answered, where several were asked.
    pub source: Source,
    /// The class of the error that it ended with.
    pub error: Word,
    /// The call gave a usable result.
    pub ok: bool,
    /// An alternative answered, not the first choice.
    pub fallback: bool,
}

impl Record {
    /// A success at once of which nothing else is known.
    #[inline]
    pub fn passed(latency_ns: u64, source: Source) -> Record {
        Record { latency_ns, source, attempts: 1, ok: true, ..Record::default() }
    }

    /// A success at once, with nothing else to tell: what most calls are.
    #[inline]
    fn is_plain(&self) -> bool {
        self.is_like(&Record::passed(0, Source::NONE))
    }

    /// Whether sums tell the two apart by nothing but their latencies.
    #[inline]
    fn is_like(&self, other: &Record) -> bool {
        let words = |record: &Record| {
            // Two fields that lie beside each other are looked at together.
            let both = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
            let told = u16::from(record.ok) | u16::from(record.fallback) << 8;
            let (tokens, attempts) = (both(record.tokens, record.prompt_tokens), both(record.attempts, record.retries));
            [record.first_token_ns, record.cost_nano, tokens, attempts, u64::from(told)]
        };
        let (one, other) = (words(self), words(other));
        // All at once: branches that are never taken cost as much as those that are.
        one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
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
    /// Attempts.
    pub attempts: u64,
    /// Calls whose answer came in pieces, and began to.
    pub streams: u64,
    /// Tokens.
    pub tokens: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Estimated price, in billionths.
    pub cost_nano: u128,
    /// From the beginning of each of those streams to its first content, all told.
    pub first_token_ns: u128,
    /// Nanoseconds, all told; wider than 64 bits, because the sum of a few huge latencies is.
    pub latency_ns: u128,
}

fn share(part: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| part as f64 / total as f64)
}

fn mean_seconds(sum_ns: u128, count: u64) -> Option<f64> {
    (count > 0).then(|| sum_ns as f64 / (count as f64 * 1e9))
}

impl Tally {
    /// Counts one call in.
    #[inline]
    pub fn add(&mut self, record: &Record) {
        if record.is_plain() {
            self.total += 1;
            self.attempts += 1;
            self.latency_ns += u128::from(record.latency_ns);
        } else {
            self.add_whole(record);
        }
    }

    #[cold]
    fn add_whole(&mut self, record: &Record) {
        self.merge(&Tally::from(*record));
    }

    /// Counts one call in, which is made in pieces as they are asked for, and another one out.
    #[inline]
    pub fn exchange(&mut self, made: impl Fn() -> Record, left: &Record) {
        if made().is_like(left) {
            self.latency_ns = self.latency_ns + u128::from(made().latency_ns) - u128::from(left.latency_ns);
        } else {
            self.exchange_whole(&made(), left);
        }
    }

    #[cold]
    fn exchange_whole(&mut self, record: &Record, left: &Record) {
        self.merge(&Tally::from(*record));
        self.remove(&Tally::from(*left));
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
        mean_seconds(self.latency_ns, self.total)
    }

    /// Mean seconds to the first content of a stream; `None` without streams.
    pub fn mean_first_token(&self) -> Option<f64> {
        mean_seconds(self.first_token_ns, self.streams)
    }

    /// Estimated price.
    pub fn cost(&self) -> f64 {
        self.cost_nano as f64 / 1e9
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
            attempts: u64::from(record.attempts),
            streams: u64::from(record.first_token_ns > 0),
            tokens: u64::from(record.tokens),
            prompt_tokens: u64::from(record.prompt_tokens),
            cost_nano: u128::from(record.cost_nano),
            first_token_ns: u128::from(record.first_token_ns),
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
        self.attempts += other.attempts;
        self.streams += other.streams;
        self.tokens += other.tokens;
        self.prompt_tokens += other.prompt_tokens;
        self.cost_nano += other.cost_nano;
        self.first_token_ns += other.first_token_ns;
        self.latency_ns += other.latency_ns;
    }

    fn remove(&mut self, other: &Self) {
        self.total -= other.total;
        self.errors -= other.errors;
        self.retried -= other.retried;
        self.retries -= other.retries;
        self.fallbacks -= other.fallbacks;
        self.attempts -= other.attempts;
        self.streams -= other.streams;
        self.tokens -= other.tokens;
        self.prompt_tokens -= other.prompt_tokens;
        self.cost_nano -= other.cost_nano;
        self.first_token_ns -= other.first_token_ns;
        self.latency_ns -= other.latency_ns;
    }
}
