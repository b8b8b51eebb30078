//! The story of a native call, kept as the client knows it until somebody asks.

use super::raise;
use crate::engine::{Instant, Target};
use crate::llm::route::{Attempt, Leg};
use crate::python::story;
use crate::telemetry::Note;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::Arc;
use std::time::Duration;

/// What there is to tell of a call that is over. Most stories nobody asks for: Python's records are made when somebody does.
pub struct Story {
    attempts: Vec<Attempt>,
    notes: Vec<Note>,
    begun: Instant,
    /// What the attempts' targets are.
    legs: Arc<[Arc<Leg>]>,
    told: PyOnceLock<Py<PyAny>>,
    steps: PyOnceLock<Py<PyAny>>,
    /// Which alternative answered: 0 is the primary.
    pub alternative: usize,
    /// Whether a cache had the answer.
    pub cached: bool,
    /// Seconds from the call to its end, retries and waits included.
    pub seconds: f64,
}

impl Story {
    /// Of a call that is over.
    pub fn new(
        attempts: Vec<Attempt>,
        found: Option<Target>,
        notes: Vec<Note>,
        begun: Instant,
        took: Duration,
        legs: Arc<[Arc<Leg>]>,
    ) -> Story {
        Story {
            alternative: found.or(attempts.last().map(|a| a.target)).map_or(0, |target| target.0),
            cached: found.is_some(),
            seconds: took.as_secs_f64(),
            attempts,
            notes,
            begun,
            legs,
            told: PyOnceLock::new(),
            steps: PyOnceLock::new(),
        }
    }

    /// One that was told before.
    pub fn retold(attempts: Py<PyAny>, steps: Py<PyAny>, alternative: usize, seconds: f64, cached: bool) -> Story {
        let (told, kept) = (PyOnceLock::new(), PyOnceLock::new());
        let _ = Python::attach(|py| (told.set(py, attempts), kept.set(py, steps)));
        Story {
            attempts: Vec::new(),
            notes: Vec::new(),
            begun: Instant::NEVER,
            legs: Arc::default(),
            told,
            steps: kept,
            alternative,
            cached,
            seconds,
        }
    }

    /// The attempts, in order.
    pub fn attempts(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.told.get_or_try_init(py, || raise::attempts(py, &self.attempts, &self.legs, self.begun).map(Bound::unbind))
    }

    /// What policies did, in order.
    pub fn steps(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.steps.get_or_try_init(py, || story::steps(py, &self.notes).map(Bound::unbind))
    }
}
