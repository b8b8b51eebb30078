//! The numbers of a breaker as they were said: read from arguments, checked against each other, and written down again.

use crate::policies::circuit_breaker::{Config, Slow, Span};
use crate::policies::retry::backoff::Backoff;
use crate::python::convert;
use crate::python::errors::configuration;
use crate::python::waits::Wait;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt};
use std::sync::Arc;
use std::time::Duration;

/// What was said; `None` where nothing was.
#[derive(Clone, Default)]
pub struct Settings {
    failure_threshold: Option<u32>,
    recovery_timeout: Option<Duration>,
    failure_rate: Option<f64>,
    slow_call_rate: Option<f64>,
    slow_call_duration: Option<Duration>,
    window: Option<Span>,
    minimum_calls: Option<u32>,
    recovery_backoff: Option<Arc<Backoff>>,
    half_open_max_calls: Option<u32>,
    success_threshold: Option<u32>,
    max_half_open_time: Option<Duration>,
    /// Not among the numbers: said once, by the stand-in for the `circuitbreaker` package.
    pub lenient: bool,
}

/// The names of the numbers, as `configure` takes them.
pub const NAMES: [&str; 11] = [
    "failure_threshold",
    "recovery_timeout",
    "failure_rate",
    "slow_call_rate",
    "slow_call_duration",
    "window",
    "minimum_calls",
    "recovery_backoff",
    "half_open_max_calls",
    "success_threshold",
    "max_half_open_time",
];

fn span(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Span> {
    if value.is_exact_instance_of::<PyInt>() {
        return Ok(Span::Calls(convert::count(argument, value, 1)?));
    }
    Ok(Span::Time(convert::finite_positive_seconds(argument, value)?))
}

fn backoff(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Arc<Backoff>> {
    let wait = value.cast::<Wait>().map_err(|_| convert::type_error(argument, value, "a wait_… object of seawall"))?;
    Ok(wait.get().backoff())
}

impl Settings {
    /// Takes the value of that name; `None` unsays it. Whether there is a number of that name.
    pub fn set(&mut self, name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let one = |argument: &str, v: &Bound<'_, PyAny>| convert::count(argument, v, 1);
        match name {
            "failure_threshold" => self.failure_threshold = convert::optional(name, value, one)?,
            "recovery_timeout" => self.recovery_timeout = convert::optional(name, value, convert::seconds)?,
            "failure_rate" => self.failure_rate = convert::optional(name, value, convert::share)?,
            "slow_call_rate" => self.slow_call_rate = convert::optional(name, value, convert::share)?,
            "slow_call_duration" => self.slow_call_duration = convert::optional(name, value, convert::finite_positive_seconds)?,
            "window" => self.window = convert::optional(name, value, span)?,
            "minimum_calls" => self.minimum_calls = convert::optional(name, value, one)?,
            "recovery_backoff" => self.recovery_backoff = convert::optional(name, value, backoff)?,
            "half_open_max_calls" => self.half_open_max_calls = convert::optional(name, value, one)?,
            "success_threshold" => self.success_threshold = convert::optional(name, value, one)?,
            "max_half_open_time" => self.max_half_open_time = convert::optional(name, value, convert::positive_seconds)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes over from `other` the numbers that `changes` names.
    pub fn take_from(&mut self, other: &Settings, changes: &Bound<'_, PyDict>) {
        let named = |name: &str| changes.contains(name).unwrap_or(false);
        macro_rules! take {
            ($($field:ident),*) => { $(if named(stringify!($field)) { self.$field = other.$field.clone(); })* };
        }
        take!(failure_threshold, recovery_timeout, failure_rate, slow_call_rate, slow_call_duration, window, minimum_calls);
        take!(recovery_backoff, half_open_max_calls, success_threshold, max_half_open_time);
    }

    /// The configuration that they make together, with the defaults for what was not said.
    pub fn config(&self, py: Python<'_>) -> PyResult<Config> {
        let slow = match (self.slow_call_rate, self.slow_call_duration) {
            (None, None) => None,
            (ratio, Some(duration)) => Some(Slow { duration, ratio: ratio.unwrap_or(1.0) }),
            (Some(_), None) => {
                return Err(configuration(py, "slow_call_rate needs slow_call_duration: from how many seconds on is a call slow?"));
            }
        };
        let shares = self.failure_rate.is_some() || slow.is_some();
        for (name, said) in [("window", self.window.is_some()), ("minimum_calls", self.minimum_calls.is_some())] {
            if said && !shares {
                let message = format!("{name} needs failure_rate or slow_call_duration: failures in a row are counted without it");
                return Err(configuration(py, &message));
            }
        }
        let span = self.window.unwrap_or(Span::Calls(100));
        let minimum_calls = match (span, self.minimum_calls) {
            (Span::Calls(size), Some(calls)) if calls > size => {
                let message =
                    format!("minimum_calls must be a whole number from 1 to the window ({size}), not {calls}: it would never be reached");
                return Err(configuration(py, &message));
            }
            (Span::Calls(size), None) => size.min(10),
            (_, calls) => calls.unwrap_or(10),
        };
        let recovery = self.recovery_timeout.unwrap_or(Duration::from_secs(30));
        Ok(Config {
            consecutive: self.failure_threshold.or(if shares { None } else { Some(5) }),
            rate: self.failure_rate,
            slow,
            span,
            minimum_calls,
            recovery,
            recovery_backoff: self.recovery_backoff.clone(),
            half_open_max_calls: self.half_open_max_calls.unwrap_or(1),
            success_threshold: self.success_threshold.unwrap_or(1),
            max_half_open_time: self.max_half_open_time.unwrap_or(recovery.max(Duration::from_secs(60))),
            lenient: self.lenient,
        })
    }

    /// As keyword arguments again.
    pub fn arguments(&self, said: &Bound<'_, PyDict>) -> PyResult<()> {
        let seconds = |d: Option<Duration>| d.map(|d| d.as_secs_f64());
        said.set_item("failure_threshold", self.failure_threshold)?;
        said.set_item("recovery_timeout", seconds(self.recovery_timeout))?;
        said.set_item("failure_rate", self.failure_rate)?;
        said.set_item("slow_call_rate", self.slow_call_rate)?;
        said.set_item("slow_call_duration", seconds(self.slow_call_duration))?;
        match self.window {
            Some(Span::Calls(calls)) => said.set_item("window", calls)?,
            Some(Span::Time(time)) => said.set_item("window", time.as_secs_f64())?,
            None => said.set_item("window", said.py().None())?,
        }
        said.set_item("minimum_calls", self.minimum_calls)?;
        said.set_item("recovery_backoff", self.recovery_backoff.as_ref().map(|rule| Wait::of((**rule).clone())))?;
        said.set_item("half_open_max_calls", self.half_open_max_calls)?;
        said.set_item("success_threshold", self.success_threshold)?;
        said.set_item("max_half_open_time", seconds(self.max_half_open_time))
    }
}
