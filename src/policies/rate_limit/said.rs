//! What a server's headers say of its limits.

use super::Said;

/// A limit that takes longer to come back is none of a minute's: of a day's only what is left says something.
const OF_A_MINUTE: f64 = 90.0;

/// What answers say of requests and of tokens: OpenAI's headers, which most others send too, and Anthropic's.
pub fn said(header: impl Fn(&str) -> Option<String>) -> (Said, Said) {
    let about = |kind: &str| {
        let value =
            |part: &str| header(&format!("x-ratelimit-{part}-{kind}")).or_else(|| header(&format!("anthropic-ratelimit-{kind}-{part}")));
        let number = |part: &str| value(part)?.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        let is_long = value("reset").and_then(|reset| go_duration(reset.trim())).is_some_and(|seconds| seconds > OF_A_MINUTE);
        Said { limit: number("limit").filter(|_| !is_long), remaining: number("remaining") }
    };
    (about("requests"), about("tokens"))
}

/// Seconds as Go writes them: `6m0s`, `1.5s`, `20ms`.
fn go_duration(text: &str) -> Option<f64> {
    let (mut seconds, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit);
        seconds += number.parse::<f64>().ok()?
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "µs" | "us" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = after;
    }
    (!text.is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in [("0s", 0.0), ("20ms", 0.02), ("1.5s", 1.5), ("6m0s", 360.0), ("1h1m1.25s", 3661.25), ("7m12s", 432.0)] {
            assert!(go_duration(text).is_some_and(|s| (s - seconds).abs() < 1e-9), "{text}");
        }
        for text in ["", "12", "s", "5 s", "1d", "..s", "2026-01-01T00:00:00Z", "µ"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn headers_say_what_is_left_and_of_a_minute_what_there_is() {
        let of = |headers: &'static [(&str, &str)]| {
            move |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        let (requests, tokens) = said(of(&[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-remaining-tokens", "-1"),
            ("x-ratelimit-limit-tokens", "many"),
        ]));
        assert_eq!((requests, tokens), (Said { limit: Some(60.0), remaining: Some(59.0) }, Said::default()));
        let (requests, tokens) = said(of(&[
            ("x-ratelimit-limit-requests", "200"),
            ("x-ratelimit-remaining-requests", "199"),
            ("x-ratelimit-reset-requests", "7m12s"),
            ("anthropic-ratelimit-tokens-limit", "1000"),
            ("anthropic-ratelimit-tokens-remaining", "10"),
            ("anthropic-ratelimit-tokens-reset", "2026-01-01T00:00:00Z"),
        ]));
        assert_eq!(requests, Said { limit: None, remaining: Some(199.0) });
        assert_eq!(tokens, Said { limit: Some(1000.0), remaining: Some(10.0) });
    }
}
