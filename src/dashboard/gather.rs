//! Takes the state together. What it looks at is locked for moments, by this thread alone among the dashboard's.

use super::state::{Breaker, Limits, Process, Slot, State};
use crate::drive::clock;
use crate::engine::Instant;
use crate::monitor::{Metric, Rules};
use crate::policies::circuit_breaker::known;
use crate::policies::circuit_breaker::words::prospects;

/// Seconds since 1970.
pub fn unix(at: Instant) -> f64 {
    clock::unix(at) as f64 / 1e9
}

/// The state now.
pub fn state(process: &Process) -> State {
    let now = clock::now();
    State {
        now: unix(now),
        process: process.clone(),
        breakers: breakers(now),
        series: Vec::new(),
        timeline: Vec::new(),
        slot_seconds: 10.0,
        minute: Slot::default(),
        limits: limits(),
        alerts: Vec::new(),
        failures: Vec::new(),
        monitors: Vec::new(),
    }
}

fn limits() -> Limits {
    let usual = Rules::default();
    let of = |metric| {
        let limits = usual.limits(metric);
        (limits.warning, limits.critical)
    };
    Limits {
        minimum_calls: usual.minimum,
        error_rate: of(Metric::ErrorRate),
        retry_rate: of(Metric::RetryRate),
        latency: of(Metric::AvgLatency),
    }
}

fn breakers(now: Instant) -> Vec<Breaker> {
    let look = |(id, breaker, name): (u64, std::sync::Arc<crate::policies::circuit_breaker::CircuitBreaker>, known::Name)| {
        let (config, seen) = (breaker.config(), breaker.outlook(now));
        let share = |part: u32| f64::from(part) / f64::from(seen.totals.calls);
        Breaker {
            id,
            name: name.get().cloned(),
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
    known::living().into_iter().map(look).collect()
}
