//! Requests and tokens per minute: buckets that fill evenly, and what is said of them.

use super::faults::Status;
use super::route::Protocol;
use super::script::EVERY_MODEL;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

const MINUTE: f64 = 60.0;
/// What sums of fractions may lack.
const NEARLY: f64 = 1e-6;

/// What is allowed in a minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub requests: Option<u64>,
    pub tokens: Option<u64>,
}

/// What is left of a rate.
struct Bucket {
    limit: f64,
    left: f64,
    /// When that was.
    at: f64,
}

impl Bucket {
    fn full(limit: u64, now: f64) -> Bucket {
        Bucket { limit: limit as f64, left: limit as f64, at: now }
    }

    fn fill(&mut self, now: f64) {
        self.left = (self.left + (now - self.at).max(0.0) * self.limit / MINUTE).min(self.limit);
        self.at = self.at.max(now);
    }

    /// Seconds until so much is there.
    fn wait(&self, needed: f64) -> f64 {
        ((needed - self.left) * MINUTE / self.limit).max(0.0)
    }

    fn holds(&self, needed: f64) -> bool {
        self.left + NEARLY >= needed
    }
}

/// What limits a model.
struct Held {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// All limits. What is for every model is so for each by itself.
#[derive(Default)]
pub struct Limits {
    rates: HashMap<String, Rates>,
    held: HashMap<String, Held>,
}

impl Limits {
    /// Sets a model's limits, or those of every model without any of its own; its buckets are full then.
    pub fn set(&mut self, model: &str, rates: Rates) {
        match rates {
            Rates { requests: None, tokens: None } => self.rates.remove(model),
            rates => self.rates.insert(model.to_owned(), rates),
        };
        if model == EVERY_MODEL {
            self.held.retain(|name, _| self.rates.contains_key(name));
        } else {
            self.held.remove(model);
        }
    }

    /// Takes away a model's limits, or all.
    pub fn clear(&mut self, model: Option<&str>) {
        match model {
            Some(model) => self.set(model, Rates::default()),
            None => *self = Limits::default(),
        }
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.rates.is_empty()
    }

    fn held(&mut self, model: &str, now: f64) -> Option<&mut Held> {
        let rates = *self.rates.get(model).or_else(|| self.rates.get(EVERY_MODEL))?;
        let full = |limit: Option<u64>| limit.map(|limit| Bucket::full(limit, now));
        let made = || Held { requests: full(rates.requests), tokens: full(rates.tokens) };
        let held = self.held.entry(model.to_owned()).or_insert_with(made);
        held.requests.iter_mut().chain(&mut held.tokens).for_each(|bucket| bucket.fill(now));
        Some(held)
    }

    /// Lets a request in that has so many tokens, or says why not. One that is turned away takes nothing.
    pub fn admit(&mut self, model: &str, tokens: usize, now: f64, protocol: Protocol) -> Result<(), Box<Refused>> {
        let Some(held) = self.held(model, now) else { return Ok(()) };
        let asked = [(&held.requests, "requests", "RPM", 1.0), (&held.tokens, "tokens", "TPM", tokens as f64)];
        for (bucket, kind, short, needed) in asked {
            let Some(bucket) = bucket.as_ref().filter(|bucket| !bucket.holds(needed)) else { continue };
            let (limit, used) = (bucket.limit, bucket.limit - bucket.left.max(0.0).floor());
            let headers = described(held, protocol);
            let what = format!("{model} on {kind} per min ({short}): Limit {limit}");
            let refused = |message: String, more: Vec<(String, String)>| {
                let mut status = Status::of(429, &message, Some("rate_limit_exceeded"));
                status.error_type = Some(kind.to_owned());
                status.headers = headers.into_iter().chain(more).collect();
                Err(Box::new(Refused { name: format!("limit {kind}"), status }))
            };
            if needed > limit {
                let must = "The input or output tokens must be reduced in order to run successfully.";
                return refused(format!("Request too large for {what}, Requested {needed}. {must}"), Vec::new());
            }
            let wait = bucket.wait(needed);
            let message =
                format!("Rate limit reached for {what}, Used {used}, Requested {needed}. Please try again in {}.", go_duration(wait));
            let after = ("retry-after".to_owned(), format!("{}", (wait - NEARLY).ceil().max(1.0)));
            let after_ms = ("retry-after-ms".to_owned(), format!("{}", (wait * 1000.0 - NEARLY).ceil().max(1.0)));
            return refused(message, vec![after, after_ms]);
        }
        for (bucket, needed) in [(&mut held.requests, 1.0), (&mut held.tokens, tokens as f64)] {
            bucket.iter_mut().for_each(|bucket| bucket.left -= needed);
        }
        Ok(())
    }

    /// Takes the tokens of an answer, which may leave less than nothing, and describes what is left.
    pub fn charge(&mut self, model: &str, tokens: usize, now: f64, protocol: Protocol) -> Vec<(String, String)> {
        let Some(held) = self.held(model, now) else { return Vec::new() };
        held.tokens.iter_mut().for_each(|bucket| bucket.left -= tokens as f64);
        described(held, protocol)
    }
}

/// A request that is turned away.
#[derive(Debug)]
pub struct Refused {
    /// As the log shows it.
    pub name: String,
    pub status: Status,
}

/// The headers of what is left.
fn described(held: &Held, protocol: Protocol) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (bucket, kind) in [(&held.requests, "requests"), (&held.tokens, "tokens")] {
        let Some(bucket) = bucket else { continue };
        let full = bucket.wait(bucket.limit);
        for part in ["limit", "remaining", "reset"] {
            let value = match part {
                "limit" => bucket.limit.to_string(),
                "remaining" => (bucket.left + NEARLY).max(0.0).floor().to_string(),
                _ if protocol == Protocol::Anthropic => rfc3339(SystemTime::now() + Duration::from_secs_f64(full)),
                _ => go_duration(full),
            };
            headers.push(match protocol {
                Protocol::Anthropic => (format!("anthropic-ratelimit-{kind}-{part}"), value),
                _ => (format!("x-ratelimit-{part}-{kind}"), value),
            });
        }
    }
    headers
}

/// Seconds as Go writes them, to the next millisecond: `6m0s`, `1.5s`, `20ms`.
fn go_duration(seconds: f64) -> String {
    let millis = (seconds * 1000.0 - NEARLY).ceil().max(0.0) as u64;
    if millis == 0 {
        return "0s".into();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let mut text = String::new();
    if minutes >= 60 {
        text.push_str(&format!("{}h", minutes / 60));
    }
    if minutes > 0 {
        text.push_str(&format!("{}m", minutes % 60));
    }
    text + &format!("{}s", rest as f64 / 1000.0)
}

/// A time as RFC 3339 writes it, to the next second.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the day of a leap year comes last (Hinnant, days from civil).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(headers: &[(String, String)], name: &str) -> String {
        headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }

    #[test]
    fn durations_and_dates_are_written_as_the_providers_write_them() {
        for (seconds, text) in
            [(0.0, "0s"), (0.02, "20ms"), (0.0201, "21ms"), (1.0, "1s"), (1.5, "1.5s"), (360.0, "6m0s"), (3661.25, "1h1m1.25s")]
        {
            assert_eq!(go_duration(seconds), text);
        }
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_bucket_empties_with_requests_and_fills_with_time() {
        let mut limits = Limits::default();
        limits.set("a", Rates { requests: Some(2), tokens: Some(600) });
        let openai = Protocol::OpenAi;
        assert!(limits.admit("a", 100, 0.0, openai).is_ok());
        let headers = limits.charge("a", 50, 0.0, openai);
        for (name, wanted) in [
            ("x-ratelimit-limit-requests", "2"),
            ("x-ratelimit-remaining-requests", "1"),
            ("x-ratelimit-reset-requests", "30s"),
            ("x-ratelimit-limit-tokens", "600"),
            ("x-ratelimit-remaining-tokens", "450"),
            ("x-ratelimit-reset-tokens", "15s"),
        ] {
            assert_eq!(value(&headers, name), wanted, "{name}");
        }
        assert!(limits.admit("a", 100, 0.0, openai).is_ok());
        let refused = limits.admit("a", 1, 10.0, openai).expect_err("both requests are used");
        assert_eq!((refused.name.as_str(), refused.status.error_type.as_deref()), ("limit requests", Some("requests")));
        assert_eq!(value(&refused.status.headers, "retry-after"), "20");
        assert_eq!(value(&refused.status.headers, "retry-after-ms"), "20000");
        assert!(limits.admit("a", 1, 30.0, openai).is_ok());
        let refused = limits.admit("a", 601, 1e6, openai).expect_err("there are never so many");
        assert!(refused.status.message.is_some_and(|m| m.starts_with("Request too large")));
        assert_eq!(value(&refused.status.headers, "retry-after"), "");
    }

    #[test]
    fn tokens_beyond_the_limit_are_owed() {
        let mut limits = Limits::default();
        limits.set("*", Rates { requests: None, tokens: Some(60) });
        assert!(limits.admit("a", 10, 0.0, Protocol::OpenAi).is_ok());
        assert_eq!(value(&limits.charge("a", 80, 0.0, Protocol::OpenAi), "x-ratelimit-remaining-tokens"), "0");
        let refused = limits.admit("a", 10, 10.0, Protocol::OpenAi).expect_err("thirty are owed");
        assert_eq!(value(&refused.status.headers, "retry-after"), "30");
        // Another model has its own.
        assert!(limits.admit("b", 60, 10.0, Protocol::OpenAi).is_ok());
        limits.set("a", Rates { requests: Some(1), tokens: None });
        assert!(limits.admit("a", 10, 10.0, Protocol::Anthropic).is_ok());
        limits.clear(Some("*"));
        assert!(limits.charge("b", 0, 10.0, Protocol::OpenAi).is_empty());
        assert!(limits.admit("a", 0, 10.0, Protocol::OpenAi).is_err());
        limits.clear(None);
        assert!(limits.admit("a", 0, 10.0, Protocol::OpenAi).is_ok());
    }
}
