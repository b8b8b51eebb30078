//! A breaker at a glance: its repr, and why it is in its state.

use super::CircuitBreaker;
use crate::drive::clock;
use crate::engine::Instant;
use crate::policies::circuit_breaker::State;
use crate::python::convert::quoted;
use pyo3::prelude::*;

fn plural(n: u32, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

impl CircuitBreaker {
    /// Why it is in its state, and since how many seconds, if it was ever in another.
    pub fn why(&self, py: Python<'_>) -> PyResult<(String, Option<f64>)> {
        let now = self.now(py)?;
        let seen = self.core.outlook(now);
        Ok((seen.cause.text(), (seen.since != Instant(0)).then(|| now.since(seen.since).as_secs_f64())))
    }

    /// What is to be known of it at a glance.
    pub fn shown(&self, py: Python<'_>) -> String {
        let now = self.now(py).unwrap_or_else(|_| clock::now());
        let (config, seen) = (self.core.config(), self.core.outlook(now));
        let mut facts = Vec::new();
        match seen.state {
            State::Open => facts.push(seen.cause.text()),
            State::HalfOpen => facts.push(format!("{} out", plural(seen.probes, "probe"))),
            State::Closed | State::MetricsOnly if config.window().is_some() && seen.totals.calls > 0 => {
                facts.push(format!("{} of {} failed", seen.totals.failed, plural(seen.totals.calls, "call")));
            }
            State::Closed | State::MetricsOnly if seen.consecutive_failures > 0 => {
                facts.push(format!("{} in a row", plural(seen.consecutive_failures, "failure")));
            }
            _ => {}
        }
        if let (State::Open, Some(left)) = (seen.state, seen.opens_in) {
            facts.push(format!("next attempt in {:.1} s", left.as_secs_f64()));
        }
        let facts = if facts.is_empty() { String::new() } else { format!(": {}", facts.join(", ")) };
        let name = self.name().map_or_else(|| "(unnamed)".into(), |name| quoted(py, &name));
        format!("<CircuitBreaker {name} {}{facts}>", seen.state.name())
    }
}
