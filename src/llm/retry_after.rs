//! `Retry-After` in its three forms. How long is too long is policy and not decided here.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Longer waits are read as this one (about 136 years), so that adding one to a clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// How long the server asks to wait, from the response's headers.
///
/// `retry-after-ms` comes first, then `retry-after` as seconds (a fraction is allowed), then as an HTTP date. A date is
/// measured against the response's own `Date` where there is one, so that a wrong clock on either side does not matter,
/// else against `now`. What is malformed, not finite or not positive counts as absent.
pub fn from_headers(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let now = text(DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    parse(text("retry-after-ms"), text(RETRY_AFTER.as_str()), now)
}

/// The same from the two headers' values; a date is measured against `now`.
pub fn parse(retry_after_ms: Option<&str>, retry_after: Option<&str>, now: SystemTime) -> Option<Duration> {
    if let Some(wait) = retry_after_ms.and_then(number).and_then(|ms| positive(ms / 1000.0)) {
        return Some(wait);
    }
    let value = retry_after?.trim();
    match number(value) {
        Some(seconds) => positive(seconds),
        None => {
            let until = httpdate::parse_http_date(value).ok()?;
            until.duration_since(now).ok().filter(|wait| !wait.is_zero()).map(|wait| wait.min(LONGEST))
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn positive(seconds: f64) -> Option<Duration> {
    if !seconds.is_finite() || seconds <= 0.0 {
        return None;
    }
    let wait = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST);
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn milliseconds_come_before_seconds() {
        assert_eq!(parse(Some("250"), Some("3"), at(0)), Some(Duration::from_millis(250)));
        assert_eq!(parse(Some("soon"), Some("3"), at(0)), Some(Duration::from_secs(3)));
        assert_eq!(parse(Some("0"), Some(" 1.5 "), at(0)), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_date_is_relative_to_now() {
        let date = httpdate::fmt_http_date(at(1_000_007));
        assert_eq!(parse(None, Some(&date), at(1_000_000)), Some(Duration::from_secs(7)));
        assert_eq!(parse(None, Some(&date), at(1_000_007)), None);
        assert_eq!(parse(None, Some(&date), at(2_000_000)), None);
    }

    #[test]
    fn the_servers_own_clock_wins_over_ours() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_str(&httpdate::fmt_http_date(at(1_000_007))).unwrap());
        assert_eq!(from_headers(&headers, at(1_000_005)), Some(Duration::from_secs(2)));
        headers.insert("date", HeaderValue::from_str(&httpdate::fmt_http_date(at(1_000_000))).unwrap());
        assert_eq!(from_headers(&headers, at(1_000_005)), Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_is_no_positive_finite_time_is_absent() {
        for bad in ["", "-1", "0", "-0.0", "nan", "inf", "-inf", "tomorrow", "1,5", "3s", "1e-30"] {
            assert_eq!(parse(Some(bad), Some(bad), at(0)), None, "{bad:?}");
        }
        assert_eq!(parse(None, None, at(0)), None);
    }

    #[test]
    fn a_huge_wait_stays_a_wait() {
        assert_eq!(parse(None, Some("1e300"), at(0)), Some(LONGEST));
        assert_eq!(parse(None, Some("Fri, 31 Dec 9999 23:59:59 GMT"), at(0)), Some(LONGEST));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(ms in ".*", after in ".*") {
            if let Some(wait) = parse(Some(&ms), Some(&after), at(1_700_000_000)) {
                prop_assert!(wait > Duration::ZERO && wait <= LONGEST);
            }
        }
    }
}
