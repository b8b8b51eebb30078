//! Takes the state together. What it looks at is locked for moments, by this thread alone among the dashboard's.

use super::state::{Alert, Attempt, Breaker, Failure, Limits, Monitor, Note, Process, Series, Slot, State, Traffic};
use crate::drive::clock;
use crate::engine::Instant;
use crate::monitor::{Language, Metric, Rules};
use crate::policies::circuit_breaker::CircuitBreaker;
use crate::policies::circuit_breaker::words::prospects;
use crate::stats;
use crate::telemetry::known::{self, BREAKERS, MONITORS};
use crate::telemetry::{self, Failed};
use std::collections::BTreeMap;

/// Of all monitors so many alerts are shown.
const ALERTS: usize = 100;
const MINUTE_NS: u64 = 60_000_000_000;

/// Seconds since 1970.
pub fn unix(at: Instant) -> f64 {
    seconds(clock::unix(at))
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The state now, with how calls went.
pub fn state<'a>(process: &'a Process, traffic: &'a Traffic) -> State<'a> {
    let now = clock::now();
    let (monitors, alerts) = monitors(clock::unix(now));
    State { now: unix(now), process, breakers: breakers(now), monitors, alerts, limits: limits(), traffic }
}

/// How calls went until now. With hundreds of series that takes some time.
pub fn traffic() -> Traffic {
    let now_ns = clock::unix(clock::now());
    let known = telemetry::snapshot(now_ns);
    // All series together, by the time at which slots begin.
    let mut together: BTreeMap<u64, stats::Slot> = BTreeMap::new();
    for (at_ns, slot) in known.iter().flat_map(|series| series.timeline.slots()).filter(|(_, slot)| slot.tally.total > 0) {
        together.entry(at_ns).or_default().merge(slot);
    }
    let mut minute = stats::Slot::default();
    let mut since = now_ns;
    for (at_ns, slot) in together.range(now_ns.saturating_sub(MINUTE_NS)..) {
        minute.merge(slot);
        since = since.min(*at_ns);
    }
    Traffic {
        timeline: together.iter().map(|(at_ns, slot)| shown(*at_ns, slot)).collect(),
        slot_seconds: known.first().map_or(10.0, |series| seconds(series.timeline.width_ns())),
        minute: shown(since, &minute),
        minute_seconds: seconds(now_ns - since),
        series: known.iter().filter(|series| series.calls.tally.total > 0).map(one).collect(),
        failures: telemetry::failures().iter().map(failure).collect(),
    }
}

fn quantile(latencies: &stats::Histogram, per_mille: u32) -> Option<f64> {
    latencies.quantile(per_mille).map(seconds)
}

fn cost(tally: &stats::Tally) -> Option<f64> {
    (tally.cost_nano > 0).then(|| tally.cost())
}

fn shown(at_ns: u64, slot: &stats::Slot) -> Slot {
    Slot {
        at: seconds(at_ns),
        calls: slot.tally.total,
        errors: slot.tally.errors,
        retried: slot.tally.retried,
        fallbacks: slot.tally.fallbacks,
        tokens: slot.tally.tokens,
        cost: cost(&slot.tally),
        mean: slot.tally.mean_seconds(),
        p50: quantile(&slot.latencies, 500),
        p95: quantile(&slot.latencies, 950),
        p99: quantile(&slot.latencies, 990),
    }
}

fn one(series: &telemetry::Series) -> Series {
    let (source, calls) = (series.source, &series.calls);
    let mut classes: Vec<(&str, u64)> = calls.errors.iter().map(|(error, count)| (error.as_str(), *count)).collect();
    classes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Series {
        pipeline: source.pipeline().as_str(),
        model: source.model().as_str(),
        endpoint: source.endpoint().as_str(),
        calls: calls.tally.total,
        errors: calls.tally.errors,
        classes,
        attempts: calls.tally.attempts,
        retried: calls.tally.retried,
        fallbacks: calls.tally.fallbacks,
        tokens: calls.tally.tokens,
        cost: cost(&calls.tally),
        p50: quantile(&calls.latencies, 500),
        p95: quantile(&calls.latencies, 950),
        p99: quantile(&calls.latencies, 990),
    }
}

fn failure(failed: &Failed) -> Failure {
    let source = failed.record.source;
    let attempt = |request: &telemetry::Request| Attempt {
        model: request.source.model().as_str(),
        endpoint: request.source.endpoint().as_str(),
        outcome: if request.is_ok() { "ok" } else { request.error.as_str() },
        status: request.status,
        seconds: request.took_ns.map(seconds),
        wait: request.waited_ns.map(seconds),
    };
    let note = |note: &telemetry::Note| Note { seconds: seconds(note.at_ns), event: note.name.as_str(), place: note.place.as_str() };
    Failure {
        at: seconds(failed.at_ns),
        pipeline: source.pipeline().as_str(),
        model: source.model().as_str(),
        error: failed.record.error.as_str(),
        seconds: seconds(failed.record.latency_ns),
        attempts: failed.requests.iter().map(attempt).collect(),
        notes: failed.notes.iter().map(note).collect(),
    }
}

fn limits() -> Limits {
    let usual = Rules::default();
    let of = |metric| {
        let [warning, critical, _] = usual.of(metric).limits;
        (warning, critical)
    };
    Limits {
        minimum_calls: usual.of(Metric::ErrorRate).minimum,
        error_rate: of(Metric::ErrorRate),
        retry_rate: of(Metric::RetryRate),
        latency: of(Metric::AvgLatency),
    }
}

fn monitors(now_ns: u64) -> (Vec<Monitor>, Vec<Alert>) {
    let (mut monitors, mut alerts) = (Vec::new(), Vec::new());
    for known::Living { it, name, .. } in MONITORS.living() {
        let seen = it.snapshot(now_ns);
        let name = name.get().map_or("monitor", |name| name);
        monitors.push(Monitor {
            name: name.to_owned(),
            level: seen.level.name(),
            calls: seen.window.total,
            error_rate: seen.window.error_rate(),
            retry_rate: seen.window.retry_rate(),
            mean: seen.window.mean_seconds(),
        });
        alerts.extend(it.alerts().into_iter().map(|alert| Alert {
            name: name.to_owned(),
            kind: alert.kind.name(),
            level: alert.level.name(),
            at: seconds(alert.at_ns),
            since: seconds(alert.since_ns),
            incident: alert.incident,
            message: said(&alert.text(Language::English)),
        }));
    }
    alerts.sort_by(|one, other| one.at.total_cmp(&other.at));
    alerts.drain(..alerts.len().saturating_sub(ALERTS));
    (monitors, alerts)
}

/// An alert's line without what it says first, which the page shows in its own way.
fn said(line: &str) -> String {
    line.split_once(": ").map_or(line, |(_, rest)| rest).to_owned()
}

fn breakers(now: Instant) -> Vec<Breaker> {
    let look = |known::Living { number, it, name }: known::Living<CircuitBreaker>| {
        let (config, seen) = (it.config(), it.outlook(now));
        let share = |part: u32| f64::from(part) / f64::from(seen.totals.calls);
        Breaker {
            id: number,
            name: name.get().map(|name| name.to_string()),
            state: seen.state.name(),
            since: (seen.since != Instant(0)).then(|| unix(now) - now.since(seen.since).as_secs_f64()),
            why: seen.cause.text(),
            rules: prospects(&config, &seen),
            opens_in: seen.opens_in.map(|d| d.as_secs_f64()),
            in_a_row: seen.consecutive_failures,
            in_a_row_limit: config.consecutive,
            failure_rate: config.window().filter(|_| seen.totals.calls > 0).map(|_| share(seen.totals.failed)),
            failure_rate_limit: config.rate,
            window_calls: seen.totals.calls,
            rejected: seen.rejected,
            openings: seen.openings,
        }
    };
    BREAKERS.living().into_iter().map(look).collect()
}
