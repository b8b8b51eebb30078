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
