//! A breaker's state in words.

use super::{Config, Outlook, Span, State, Totals};
use crate::engine::Instant;

/// The state, since when, and why.
pub fn headline(name: &str, seen: &Outlook, now: Instant) -> String {
    let ago = format!("{:.1} s ago", now.since(seen.since).as_secs_f64());
    let why = seen.cause.text();
    match seen.state {
        State::Closed if seen.since == Instant(0) => format!("{name} is closed and has never been open."),
        State::Closed => format!("{name} is closed since {ago}: {why}."),
        State::Open => format!("{name} is open since {ago}: {why}."),
        State::HalfOpen if seen.opens_in.is_some() => format!("{name} is half open: its recovery time is over. It opened {ago}: {why}."),
        State::HalfOpen => format!("{name} is half open since {ago}: {why}."),
        State::ForcedOpen => format!("{name} is forced open since {ago}, by hand: all calls are turned away."),
        State::Disabled => format!("{name} is disabled since {ago}, by hand: calls pass and nothing is counted."),
        State::MetricsOnly => format!("{name} only counts since {ago}, by hand: it never opens."),
    }
}

fn plural(n: u32, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// What would change it.
pub fn prospects(config: &Config, seen: &Outlook) -> Vec<String> {
    match seen.state {
        State::Closed => rules(config, seen),
        State::MetricsOnly => rules(config, seen).into_iter().map(|line| line.replacen("opens", "would open", 1)).collect(),
        State::Open if config.lenient => {
            vec![format!("In {:.1} s it lets calls through; one success closes it.", seen.opens_in.unwrap_or_default().as_secs_f64())]
        }
        State::HalfOpen if config.lenient => vec!["Calls pass: one success closes it, a failure opens it again.".into()],
        State::Open => {
            let seconds = seen.opens_in.unwrap_or_default().as_secs_f64();
            let probes = plural(config.half_open_max_calls, "probe");
            vec![format!("In {seconds:.1} s it lets {probes} at a time through; {} must succeed.", config.success_threshold)]
        }
        State::HalfOpen => vec![format!(
            "{} of {} out; {} of {} have succeeded. One failure opens it again.",
            seen.probes,
            plural(config.half_open_max_calls, "probe"),
            seen.probe_successes,
            config.success_threshold
        )],
        State::ForcedOpen => vec!["It goes on when its isolation ends, or with reset() or force().".into()],
        State::Disabled => vec!["It counts again after reset() or force().".into()],
    }
}

/// What would open it, and how near that is.
fn rules(config: &Config, seen: &Outlook) -> Vec<String> {
    let Totals { calls, failed, slow } = seen.totals;
    let span = match config.span {
        Span::Calls(n) => format!("of the last {}", plural(n, "call")),
        Span::Time(time) => format!("of the last {} s", time.as_secs_f64()),
    };
    let share = |part: u32| if calls == 0 { 0.0 } else { 100.0 * f64::from(part) / f64::from(calls) };
    let enough = if calls < config.minimum_calls { format!(", from {}", plural(config.minimum_calls, "call")) } else { String::new() };
    let mut lines = Vec::new();
    if let Some(n) = config.consecutive {
        lines.push(format!("It opens at {} in a row: {} so far.", plural(n, "failure"), seen.consecutive_failures));
    }
    if let Some(rate) = config.rate {
        let limit = 100.0 * rate;
        lines.push(format!("It opens at {limit} % failures {span}{enough}: {failed} of {calls} ({:.0} %) so far.", share(failed)));
    }
    if let Some(limit) = config.slow {
        let (ratio, from) = (100.0 * limit.ratio, limit.duration.as_secs_f64());
        lines.push(format!(
            "It opens at {ratio} % calls of {from} s or more {span}{enough}: {slow} of {calls} ({:.0} %) so far.",
            share(slow)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::{CircuitBreaker, Evidence, Slow};
    use super::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn config() -> Config {
        Config {
            consecutive: Some(2),
            rate: Some(0.5),
            slow: Some(Slow { duration: Duration::from_millis(1500), ratio: 0.25 }),
            span: Span::Calls(100),
            minimum_calls: 10,
            recovery: Duration::from_secs(30),
            recovery_backoff: None,
            half_open_max_calls: 1,
            success_threshold: 2,
            max_half_open_time: Duration::from_secs(60),
            lenient: false,
        }
    }

    fn told(breaker: &CircuitBreaker, seconds: u64) -> (String, String) {
        let now = Instant(seconds * SECOND);
        let (config, seen) = (breaker.config(), breaker.outlook(now));
        (headline("It", &seen, now), prospects(&config, &seen).join(" "))
    }

    fn pair(headline: &str, prospects: &str) -> (String, String) {
        (headline.to_owned(), prospects.to_owned())
    }

    #[test]
    fn each_state_says_why_and_what_would_change_it() {
        let breaker = CircuitBreaker::new(config());
        let at = |seconds: u64| Instant(seconds * SECOND);
        let rules = "It opens at 2 failures in a row: 0 so far. It opens at 50 % failures of the last 100 calls, from 10 calls: 0 of 0 \
                     (0 %) so far. It opens at 25 % calls of 1.5 s or more of the last 100 calls, from 10 calls: 0 of 0 (0 %) so far.";
        assert_eq!(told(&breaker, 1), pair("It is closed and has never been open.", rules));

        breaker.record(Evidence::Failure, at(10), &mut || 0.0);
        assert!(told(&breaker, 10).1.contains("2 failures in a row: 1 so far") && told(&breaker, 10).1.contains("1 of 1 (100 %)"));
        breaker.record(Evidence::Failure, at(10), &mut || 0.0);
        let opened =
            pair("It is open since 5.0 s ago: 2 failures in a row.", "In 25.0 s it lets 1 probe at a time through; 2 must succeed.");
        assert_eq!(told(&breaker, 15), opened);
        let recovering = "0 of 1 probe out; 0 of 2 have succeeded. One failure opens it again.";
        assert_eq!(
            told(&breaker, 41),
            pair("It is half open: its recovery time is over. It opened 31.0 s ago: 2 failures in a row.", recovering)
        );

        let (probe, _) = breaker.admit(at(42)).unwrap();
        let probing = pair("It is half open since 1.0 s ago: the recovery time was over.", &recovering.replacen('0', "1", 1));
        assert_eq!(told(&breaker, 43), probing);
        breaker.settle(probe, Evidence::Success, at(43), &mut || 0.0);
        let (probe, _) = breaker.admit(at(43)).unwrap();
        breaker.settle(probe, Evidence::Success, at(43), &mut || 0.0);
        assert_eq!(told(&breaker, 45).0, "It is closed since 2.0 s ago: 2 probes succeeded.");
    }

    #[test]
    fn states_set_by_hand_say_so() {
        let breaker = CircuitBreaker::new(config());
        let told = |state| {
            breaker.force(state, Instant(SECOND));
            told(&breaker, 3)
        };
        let forced = "It is forced open since 2.0 s ago, by hand: all calls are turned away.";
        assert_eq!(told(State::ForcedOpen), pair(forced, "It goes on when its isolation ends, or with reset() or force()."));
        let disabled = "It is disabled since 2.0 s ago, by hand: calls pass and nothing is counted.";
        assert_eq!(told(State::Disabled), pair(disabled, "It counts again after reset() or force()."));
        let (counts, rules) = told(State::MetricsOnly);
        assert_eq!(counts, "It only counts since 2.0 s ago, by hand: it never opens.");
        assert!(rules.starts_with("It would open at 2 failures") && !rules.contains("It opens"));
    }

    #[test]
    fn a_lenient_one_lets_everybody_find_out() {
        let breaker = CircuitBreaker::new(Config { lenient: true, span: Span::Time(Duration::from_secs(60)), ..config() });
        assert!(told(&breaker, 1).1.contains("of the last 60 s, from 10 calls"));
        for _ in 0..2 {
            breaker.record(Evidence::Failure, Instant(10 * SECOND), &mut || 0.0);
        }
        assert_eq!(told(&breaker, 20).1, "In 20.0 s it lets calls through; one success closes it.");
        assert_eq!(told(&breaker, 41).1, "Calls pass: one success closes it, a failure opens it again.");
    }
}
