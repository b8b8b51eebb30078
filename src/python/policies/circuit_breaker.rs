//! `CircuitBreaker`.

use crate::drive::clock;
use crate::engine::{Outcome, Refusal, Rejection, StageId};
use crate::policies::circuit_breaker::{self as core, Config, Evidence, Permit, Slow, Span, State};
use crate::python::convert;
use crate::python::errors::{self, configuration};
use crate::python::judge::{BreakerJudge, Happened, Listed};
use crate::python::pipeline::Pipeline;
use crate::python::waits::Wait;
use pyo3::exceptions::{PyException, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration;

/// A value for a repr, kept short.
pub fn short_repr(value: &Bound<'_, PyAny>) -> String {
    if let Ok(name) = value.getattr("__qualname__").and_then(|n| n.extract::<String>()) {
        return name;
    }
    let text = value.repr().map_or_else(|_| "?".into(), |r| r.to_string());
    if text.chars().count() > 60 { format!("{}…", text.chars().take(59).collect::<String>()) } else { text }
}

/// Stops calling what is known to be broken.
///
/// Opens after `failure_threshold` failures in a row (default 5, if nothing else is said), or at `failure_rate` (0–1)
/// or `slow_call_rate` over the last `window` calls (an int) or seconds (a float or timedelta) once `minimum_calls` were
/// seen. While open, calls raise `CircuitBreakerError` at once. After `recovery_timeout` seconds (default 30) it is half
/// open: `half_open_max_calls` probes at a time (default 1) pass; `success_threshold` of them close it, one failure
/// opens it again; a probe that has not come back after `max_half_open_time` seconds is given up.
///
/// `expected_exception` says what counts: an exception class, several, or a function; all exceptions by
/// default. `seawall.transient` means what the table of classes says (transient, rate limited, malformed). Other exceptions are neutral, and so are cancelled and
/// interrupted calls. A breaker object is shared state: used in two pipelines, it is one breaker.
#[pyclass(frozen, module = "seawall", subclass, weakref, dict)]
pub struct CircuitBreaker {
    pub core: Arc<core::CircuitBreaker>,
    expected: Py<PyAny>,
    two_arguments: bool,
    on_result: Option<Py<PyAny>>,
    #[pyo3(get)]
    fallback_function: Option<Py<PyAny>>,
    name: Mutex<Option<String>>,
    last_failure: Mutex<Option<Py<PyAny>>>,
    entered: Mutex<Vec<(ThreadId, Permit)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn span(value: &Bound<'_, PyAny>) -> PyResult<Span> {
    if value.is_instance_of::<pyo3::types::PyInt>() {
        return Ok(Span::Calls(convert::count("window", value, 1)?));
    }
    Ok(Span::Time(convert::positive_seconds("window", value)?))
}

#[pymethods]
impl CircuitBreaker {
    #[new]
    #[pyo3(signature = (failure_threshold=None, recovery_timeout=None, expected_exception=None, name=None, fallback_function=None, *,
                        failure_rate=None, slow_call_rate=None, slow_call_duration=None, window=None, minimum_calls=None,
                        recovery_backoff=None, half_open_max_calls=None, success_threshold=None, max_half_open_time=None, on_result=None))]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new(
        py: Python<'_>,
        failure_threshold: Option<Bound<'_, PyAny>>,
        recovery_timeout: Option<Bound<'_, PyAny>>,
        expected_exception: Option<Bound<'_, PyAny>>,
        name: Option<String>,
        fallback_function: Option<Bound<'_, PyAny>>,
        failure_rate: Option<Bound<'_, PyAny>>,
        slow_call_rate: Option<Bound<'_, PyAny>>,
        slow_call_duration: Option<Bound<'_, PyAny>>,
        window: Option<Bound<'_, PyAny>>,
        minimum_calls: Option<Bound<'_, PyAny>>,
        recovery_backoff: Option<Bound<'_, PyAny>>,
        half_open_max_calls: Option<Bound<'_, PyAny>>,
        success_threshold: Option<Bound<'_, PyAny>>,
        max_half_open_time: Option<Bound<'_, PyAny>>,
        on_result: Option<Bound<'_, PyAny>>,
    ) -> PyResult<CircuitBreaker> {
        let rate = convert::optional("failure_rate", failure_rate.as_ref(), convert::share)?;
        let slow = match (slow_call_rate, slow_call_duration) {
            (None, None) => None,
            (rate, Some(duration)) => Some(Slow {
                duration: convert::positive_seconds("slow_call_duration", &duration)?,
                ratio: convert::optional("slow_call_rate", rate.as_ref(), convert::share)?.unwrap_or(1.0),
            }),
            (Some(_), None) => {
                return Err(configuration(py, "slow_call_rate needs slow_call_duration: from how many seconds on is a call slow?"));
            }
        };
        let consecutive = match convert::optional("failure_threshold", failure_threshold.as_ref(), |a, v| convert::count(a, v, 1))? {
            None if rate.is_none() && slow.is_none() => Some(5),
            given => given,
        };
        let span = window.as_ref().map(span).transpose()?.unwrap_or(Span::Calls(100));
        let recovery =
            convert::optional("recovery_timeout", recovery_timeout.as_ref(), convert::seconds)?.unwrap_or(Duration::from_secs(30));
        let recovery_backoff = match &recovery_backoff {
            Some(w) => Some(
                w.cast::<Wait>().map_err(|_| PyTypeError::new_err("recovery_backoff must be a wait_… object of seawall"))?.get().backoff(),
            ),
            None => None,
        };
        let one = |argument, value: Option<Bound<'_, PyAny>>| {
            convert::optional(argument, value.as_ref(), |a, v| convert::count(a, v, 1)).map(|n| n.unwrap_or(1))
        };
        let config = Config {
            consecutive,
            rate,
            slow,
            span,
            minimum_calls: convert::optional("minimum_calls", minimum_calls.as_ref(), |a, v| convert::count(a, v, 1))?.unwrap_or(10),
            recovery,
            recovery_backoff,
            half_open_max_calls: one("half_open_max_calls", half_open_max_calls)?,
            success_threshold: one("success_threshold", success_threshold)?,
            max_half_open_time: convert::optional("max_half_open_time", max_half_open_time.as_ref(), convert::positive_seconds)?
                .unwrap_or(recovery.max(Duration::from_secs(60))),
        };
        let two_arguments = match &expected_exception {
            Some(expected) => matches!(Listed::parse("expected_exception", Some(expected))?, Listed::Predicate(_)) && takes_two(expected),
            None => false,
        };
        Ok(CircuitBreaker {
            core: Arc::new(core::CircuitBreaker::new(config)),
            expected: expected_exception
                .filter(|e| !e.is_none())
                .map_or_else(|| py.get_type::<PyException>().into_any().unbind(), Bound::unbind),
            two_arguments,
            on_result: on_result.map(Bound::unbind),
            fallback_function: fallback_function.filter(|f| !f.is_none()).map(Bound::unbind),
            name: Mutex::new(name),
            last_failure: Mutex::new(None),
            entered: Mutex::new(Vec::new()),
        })
    }

    /// Its name: given, or that of the first function it guards.
    #[getter(name)]
    fn get_name(&self) -> Option<String> {
        lock(&self.name).clone()
    }

    /// `closed`, `open`, `half_open`, `forced_open`, `disabled` or `metrics_only`.
    #[getter]
    fn state(&self) -> &'static str {
        self.core.state(clock::now()).name()
    }

    /// Whether calls pass as usual.
    #[getter]
    fn closed(&self) -> bool {
        self.core.state(clock::now()) == State::Closed
    }

    /// Whether calls are turned away.
    #[getter]
    fn opened(&self) -> bool {
        matches!(self.core.state(clock::now()), State::Open | State::ForcedOpen)
    }

    /// Failures in a row.
    #[getter]
    fn failure_count(&self) -> u32 {
        self.core.outlook(clock::now()).consecutive_failures
    }

    /// Failures in a row that open it, if any number does.
    #[getter]
    fn consecutive_threshold(&self) -> Option<u32> {
        self.core.config().consecutive
    }

    /// Seconds until a probe is let through; `None` unless open.
    #[getter]
    fn open_remaining(&self) -> Option<f64> {
        self.core.outlook(clock::now()).opens_in.map(|d| d.as_secs_f64())
    }

    /// The failure counted last.
    #[getter(last_failure)]
    fn get_last_failure(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        lock(&self.last_failure).as_ref().map(|e| e.clone_ref(py))
    }

    /// Closes it and forgets all counts.
    fn reset(&self) {
        self.core.reset();
        *lock(&self.last_failure) = None;
    }

    /// Puts it into a state by hand: `"open"`, `"forced_open"`, `"closed"`, `"disabled"` or `"metrics_only"`.
    fn force(&self, py: Python<'_>, state: &str) -> PyResult<()> {
        let state = match state {
            "open" => State::Open,
            "closed" => State::Closed,
            "forced_open" => State::ForcedOpen,
            "disabled" => State::Disabled,
            "metrics_only" => State::MetricsOnly,
            other => {
                let message =
                    format!("state must be open, closed, forced_open, disabled or metrics_only, not {}", convert::quoted(py, other));
                return Err(configuration(py, &message));
            }
        };
        self.core.force(state, clock::now());
        Ok(())
    }

    /// Guards a function with this breaker.
    fn __call__<'py>(slf: &Bound<'py, Self>, function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Pipeline::of(slf.py(), vec![slf.clone().into_any()], None)?.bind(slf.py()).call1((function,))
    }

    /// Calls `function` under this breaker.
    #[pyo3(signature = (function, /, *args, **kwargs))]
    fn call<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let pipeline = Pipeline::of(slf.py(), vec![slf.clone().into_any()], None)?;
        Pipeline::call(pipeline.bind(slf.py()), function, args, kwargs)
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let this = slf.get();
        match this.core.admit(clock::now()) {
            Ok((permit, _)) => {
                lock(&this.entered).push((std::thread::current().id(), permit));
                Ok(slf.clone())
            }
            Err(retry_after) => Err(this.refused(slf.py(), retry_after)),
        }
    }

    #[pyo3(signature = (_kind=None, value=None, _traceback=None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: Option<Bound<'_, PyAny>>,
        value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let permit = {
            let mut entered = lock(&self.entered);
            let here = std::thread::current().id();
            entered.iter().rposition(|(thread, _)| *thread == here).map(|at| entered.remove(at).1)
        };
        let Some(permit) = permit else {
            return Err(PyRuntimeError::new_err("the breaker was left without having been entered in this thread"));
        };
        let evidence = match &value {
            None => Evidence::Success,
            Some(error) if !error.is_instance_of::<PyException>() => Evidence::None,
            Some(error) => match self.judge(py)?.judge(&Happened::Error(error))? {
                crate::engine::Verdict::Failure { .. } => {
                    self.remember(error.clone().unbind());
                    Evidence::Failure
                }
                _ => Evidence::None,
            },
        };
        self.core.settle(permit, evidence, clock::now(), 0.5);
        Ok(false)
    }

    fn __repr__(&self) -> String {
        format!("<CircuitBreaker {} {}>", lock(&self.name).as_deref().unwrap_or("unnamed"), self.state())
    }
}

/// Whether a function takes exactly two positional arguments, as the `circuitbreaker` package's predicates do.
fn takes_two(function: &Bound<'_, PyAny>) -> bool {
    let count = || -> PyResult<usize> {
        let signature = function.py().import("inspect")?.call_method1("signature", (function,))?;
        signature.getattr("parameters")?.len()
    };
    count().is_ok_and(|n| n == 2)
}

impl CircuitBreaker {
    pub fn judge(&self, py: Python<'_>) -> PyResult<BreakerJudge> {
        Ok(BreakerJudge {
            listed: Listed::parse("expected_exception", Some(self.expected.bind(py)))?,
            two_arguments: self.two_arguments,
            on_result: self.on_result.as_ref().map(|p| p.clone_ref(py)),
        })
    }

    pub fn policy(&self) -> core::Guarded {
        core::Guarded { breaker: self.core.clone(), judges_values: self.on_result.is_some() }
    }

    /// Keeps the failure that was counted.
    pub fn remember(&self, error: Py<PyAny>) {
        let old = lock(&self.last_failure).replace(error);
        drop(old); // outside the lock: dropping an exception may run code
    }

    /// Takes the name of what it guards, if it has none yet.
    pub fn adopt_name(&self, name: &str) {
        lock(&self.name).get_or_insert_with(|| name.to_owned());
    }

    pub fn display_name(&self) -> String {
        lock(&self.name).clone().unwrap_or_else(|| "unnamed".into())
    }

    fn refused(&self, py: Python<'_>, retry_after: Option<Duration>) -> PyErr {
        let rejection = Rejection { refusal: Refusal::CircuitOpen, stage: StageId(0), retry_after, limit: Duration::ZERO };
        let last = lock(&self.last_failure).as_ref().map(|e| e.clone_ref(py));
        debug_assert!(Outcome::Rejected(rejection).is_refusal());
        errors::rejection(py, &rejection, &self.display_name(), last.as_ref())
    }

    pub fn last_failure(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        lock(&self.last_failure).as_ref().map(|e| e.clone_ref(py))
    }
}
