//! What a breaker does for the calls that pass it, and for the pipelines that it stands in.

use super::permit;
use super::{CircuitBreaker, listed};
use crate::drive::clock;
use crate::engine::{Instant, Random, Refusal, Rejection, StageId};
use crate::policies::circuit_breaker::{self as core, Evidence};
use crate::python::errors::{self, ours};
use crate::python::judge::BreakerJudge;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::time::Duration;

/// A number in `[0, 1)` for the jitter of a recovery time.
pub fn chance() -> f64 {
    Random::seeded(clock::seed()).unit()
}

impl CircuitBreaker {
    /// The judge for a pipeline.
    pub fn judge(&self, py: Python<'_>) -> PyResult<BreakerJudge> {
        let (types, two_arguments) = listed("expected_exception", self.expected.bind(py))?;
        let ignored = self.ignore.as_ref().map(|i| listed("ignore", i.bind(py))).transpose()?;
        Ok(BreakerJudge::new(py, types, two_arguments, ignored, self.on_result.as_ref().map(|p| p.clone_ref(py))))
    }

    pub fn policy(&self) -> core::Guarded {
        core::Guarded { breaker: self.core.clone(), judges_values: self.on_result.is_some() }
    }

    /// Keeps the failure that was counted.
    #[inline]
    pub fn remember(&self, py: Python<'_>, error: Py<PyAny>) {
        let old = self.last_failure.with(py, |last| last.replace(error));
        // After the look at it: dropping an exception may run code. By hand, since who drops has to find out first whether we are in the interpreter.
        if let Some(old) = old {
            old.drop_ref(py);
        }
    }

    /// Lets it go.
    pub fn forget(&self, py: Python<'_>) {
        let old = self.last_failure.with(py, Option::take);
        drop(old); // as above
    }

    /// It guards something of that name from now on: it takes the name, if it has none, and can be found by it.
    pub fn guards(slf: &Bound<'_, Self>, name: &str) -> PyResult<()> {
        let _ = slf.get().name.set(name.into()); // the first one stays
        Self::register(slf)
    }

    pub fn register(slf: &Bound<'_, Self>) -> PyResult<()> {
        static REGISTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ours(slf.py(), &REGISTER, "seawall._circuits", "register")?.call1((slf,))?;
        Ok(())
    }

    pub fn name(&self) -> Option<String> {
        self.name.get().map(|name| name.to_string())
    }

    pub fn display_name(&self) -> String {
        self.name().unwrap_or_else(|| "unnamed".into())
    }

    /// The time by its clock.
    pub fn now(&self, py: Python<'_>) -> PyResult<Instant> {
        match &self.clock {
            None => Ok(clock::now()),
            Some(other) => Ok(other.call0(py)?.extract::<Option<u64>>(py)?.map_or_else(clock::now, Instant)),
        }
    }

    /// A permit, or the refusal.
    pub fn admit(slf: &Bound<'_, Self>) -> PyResult<core::Permit> {
        let this = slf.get();
        match this.core.admit(this.now(slf.py())?) {
            Ok((permit, None)) => Ok(permit),
            Ok((permit, Some(_))) => match Self::tell(slf) {
                Ok(()) => Ok(permit),
                Err(interrupt) => {
                    this.core.settle(permit, Evidence::None, clock::now(), &mut || 0.0);
                    Err(interrupt)
                }
            },
            Err(retry_after) => Err(this.refused(slf.py(), retry_after)),
        }
    }

    /// Takes a permit back and tells of what that changed.
    pub fn settle(slf: &Bound<'_, Self>, permit: core::Permit, evidence: Evidence) -> PyResult<()> {
        let changed = slf.get().core.settle(permit, evidence, slf.get().now(slf.py())?, &mut chance);
        if changed.is_some() { Self::tell(slf) } else { Ok(()) }
    }

    /// A block that held `permit` was left, with that exception if any.
    pub fn left(slf: &Bound<'_, Self>, permit: core::Permit, raised: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        match permit::evidence(slf, raised) {
            Ok(evidence) => Self::settle(slf, permit, evidence),
            Err(error) => {
                // A predicate of the user's failed: nothing is known of the call.
                Self::settle(slf, permit, Evidence::None)?;
                Err(error)
            }
        }
    }

    fn refused(&self, py: Python<'_>, retry_after: Option<Duration>) -> PyErr {
        let rejection = Rejection::new(Refusal::CircuitOpen, StageId(0), retry_after);
        errors::rejection(py, &rejection, &self.display_name(), self.last_failure(py).as_ref())
    }

    pub fn last_failure(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.last_failure.with(py, |last| last.as_ref().map(|e| e.clone_ref(py)))
    }
}
