//! `CircuitBreaker`.

mod isolation;
mod passage;
mod permit;
mod settings;
mod shown;
mod tell;

pub use permit::{Permit, Ready};
pub use tell::is_change;

use crate::drive::clock;
use crate::policies::circuit_breaker::{self as core, Evidence, State};
use crate::python::convert;
use crate::python::errors::{configuration, ours, picture};
use crate::python::judge::{BreakerJudge, Listed, answers_at_once, function, function_at_once, happens, predicate};
use crate::python::pipeline::Pipeline;
use crate::python::policies::fallback::Fallback;
use crate::python::threads::Shared;
use crate::telemetry::known;
use isolation::Isolation;
use permit::{Entrances, lock};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};
use settings::{NAMES, Settings};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock};

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
/// ```python
/// breaker = seawall.CircuitBreaker(failure_rate=0.5, window=60.0, recovery_timeout=30, name="chat")
///
/// @breaker
/// def ask(question): ...
/// ```
///
/// Opens after `failure_threshold` failures in a row (default 5, if nothing else is said), or at `failure_rate` (0–1)
/// or a `slow_call_rate` of calls that take `slow_call_duration` seconds or more, over the last `window` calls (an int,
/// default 100) or seconds (a float or timedelta), once `minimum_calls` (default 10) were seen; what is given is combined.
/// While open, calls raise `CircuitBreakerError` at once. After `recovery_timeout` seconds (default 30; 0 means zero), or
/// what `recovery_backoff` (a `wait_…` object) says for the n-th opening in a row, it is half open: `half_open_max_calls`
/// probes at a time (default 1) pass; `success_threshold` of them (default 1) close it, one failure, or one slow call where
/// those count, opens it again; a probe that has not come back after `max_half_open_time` seconds (default 60, or
/// `recovery_timeout` if that is longer) is given up.
///
/// `expected_exception` says what counts: an exception class, several, or a function; all exceptions by default.
/// `seawall.transient` means what the table of classes says. `ignore` takes the same and goes first. Other exceptions are
/// neutral: they neither count nor reset; and so are cancelled and interrupted calls. `on_result` is a function of the
/// result that says whether it is a failure.
///
/// A breaker is shared state: used in two pipelines, it is one breaker; `copy` and `deepcopy` give the breaker itself. It
/// pickles by name and configuration, without its state and its listeners: where it is loaded, the breaker of that name
/// is found again, or else made anew.
///
/// `fallback_function` is called with the same arguments while the circuit is open, where the breaker decorates a function
/// (`@breaker`, or `@circuit`). In a `Pipeline`, and by `call`, it is not used: a `Fallback` outside of the breaker is.
///
/// `listeners` are called with a `seawall.CircuitEvent` after each change of state. What they raise is logged.
///
/// Raises `ConfigurationError` for arguments that make no breaker.
#[pyclass(frozen, module = "seawall", subclass, weakref, dict)]
pub struct CircuitBreaker {
    pub core: Arc<core::CircuitBreaker>,
    settings: Mutex<Settings>,
    rules: BreakerJudge,
    expected: Py<PyAny>,
    ignore: Option<Py<PyAny>>,
    on_result: Option<Py<PyAny>>,
    #[pyo3(get)]
    fallback_function: Option<Py<PyAny>>,
    name: known::Name,
    /// Finds it again when it is unpickled where it came from.
    identity: u64,
    last_failure: Shared<Option<Py<PyAny>>>,
    entrances: Entrances,
    listeners: Mutex<Vec<Py<PyAny>>>,
    /// The process of which a thread is telling the listeners.
    telling: AtomicU32,
    /// Another clock than ours: gives nanoseconds, or `None` while ours is right.
    clock: Option<Py<PyAny>>,
}

/// What is given, or the attribute by which a subclass says it.
fn given<'py>(cls: &Bound<'py, PyType>, value: Option<Bound<'py, PyAny>>, attribute: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    match value.filter(|v| !v.is_none()) {
        None if !cls.is(cls.py().get_type::<CircuitBreaker>()) => Ok(cls.getattr_opt(attribute)?.filter(|v| !v.is_none())),
        value => Ok(value),
    }
}

/// What `expected_exception` or `ignore` names, and whether it is a function of two arguments.
fn listed(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<(Listed, bool)> {
    let listed = Listed::parse(argument, Some(value))?;
    answers_at_once(argument, value.clone())?;
    let two = matches!(listed, Listed::Predicate(_)) && takes_two(value);
    Ok((listed, two))
}

/// Refuses what would never count: no class at all, or classes that are interrupts.
fn counts(py: Python<'_>, listed: &Listed) -> PyResult<()> {
    let Listed::Types(types) = listed else { return Ok(()) };
    if types.bind(py).is_empty() {
        return Err(configuration(py, "expected_exception must hold at least one exception class, not none: nothing would count"));
    }
    happens(py, "expected_exception", listed, false)
}

#[pymethods]
impl CircuitBreaker {
    #[new]
    #[classmethod]
    #[pyo3(signature = (failure_threshold=None, recovery_timeout=None, expected_exception=None, name=None, fallback_function=None, *,
                        failure_rate=None, slow_call_rate=None, slow_call_duration=None, window=None, minimum_calls=None,
                        recovery_backoff=None, half_open_max_calls=None, success_threshold=None, max_half_open_time=None,
                        on_result=None, ignore=None, listeners=None, _lenient=false, _clock=None),
           text_signature = "(failure_threshold=None, recovery_timeout=30, expected_exception=None, name=None, fallback_function=None, *, \
                             failure_rate=None, slow_call_rate=None, slow_call_duration=None, window=None, minimum_calls=None, \
                             recovery_backoff=None, half_open_max_calls=1, success_threshold=1, max_half_open_time=None, \
                             on_result=None, ignore=None, listeners=None)")]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new<'py>(
        cls: &Bound<'py, PyType>,
        failure_threshold: Option<Bound<'py, PyAny>>,
        recovery_timeout: Option<Bound<'py, PyAny>>,
        expected_exception: Option<Bound<'py, PyAny>>,
        name: Option<Bound<'py, PyAny>>,
        fallback_function: Option<Bound<'py, PyAny>>,
        failure_rate: Option<Bound<'py, PyAny>>,
        slow_call_rate: Option<Bound<'py, PyAny>>,
        slow_call_duration: Option<Bound<'py, PyAny>>,
        window: Option<Bound<'py, PyAny>>,
        minimum_calls: Option<Bound<'py, PyAny>>,
        recovery_backoff: Option<Bound<'py, PyAny>>,
        half_open_max_calls: Option<Bound<'py, PyAny>>,
        success_threshold: Option<Bound<'py, PyAny>>,
        max_half_open_time: Option<Bound<'py, PyAny>>,
        on_result: Option<Bound<'py, PyAny>>,
        ignore: Option<Bound<'py, PyAny>>,
        listeners: Option<Bound<'py, PyAny>>,
        _lenient: bool,
        _clock: Option<Py<PyAny>>,
    ) -> PyResult<CircuitBreaker> {
        let py = cls.py();
        let mut settings = Settings::default();
        settings.lenient = _lenient;
        let numbers = [
            given(cls, failure_threshold, "FAILURE_THRESHOLD")?,
            given(cls, recovery_timeout, "RECOVERY_TIMEOUT")?,
            failure_rate,
            slow_call_rate,
            slow_call_duration,
            window,
            minimum_calls,
            recovery_backoff,
            half_open_max_calls,
            success_threshold,
            max_half_open_time,
        ];
        for (argument, value) in NAMES.into_iter().zip(&numbers) {
            settings.set(argument, value.as_ref())?;
        }
        let config = settings.config(py)?;
        let name = convert::optional("name", name.as_ref(), convert::text)?;
        let expected = match given(cls, expected_exception, "EXPECTED_EXCEPTION")? {
            Some(expected) => expected,
            None => py.get_type::<PyException>().into_any(),
        };
        let fallback_function = given(cls, fallback_function, "FALLBACK_FUNCTION")?;
        fallback_function.as_ref().map(|f| function("fallback_function", f)).transpose()?;
        let (types, two_arguments) = listed("expected_exception", &expected)?;
        counts(py, &types)?;
        let ignore = ignore.filter(|i| !i.is_none());
        let ignored = ignore.as_ref().map(|i| listed("ignore", i)).transpose()?;
        let on_result = predicate("on_result", on_result)?;
        let rules = BreakerJudge::new(py, types, two_arguments, ignored, on_result.as_ref().map(|p| p.clone_ref(py)));
        let mut heard = Vec::new();
        if let Some(listeners) = listeners.filter(|l| !l.is_none()) {
            let is_text = listeners.is_instance_of::<PyString>() || listeners.is_instance_of::<PyBytes>();
            let several = listeners.try_iter().ok().filter(|_| !is_text);
            for listener in several.ok_or_else(|| convert::type_error("listeners", &listeners, "functions, in a list"))? {
                let listener = listener?;
                function_at_once("listeners", &listener)?;
                heard.push(listener.unbind());
            }
        }
        Ok(CircuitBreaker {
            core: Arc::new(core::CircuitBreaker::new(config)),
            settings: Mutex::new(settings),
            rules,
            expected: expected.unbind(),
            ignore: ignore.map(Bound::unbind),
            on_result,
            fallback_function: fallback_function.map(Bound::unbind),
            name: Arc::new(name.map_or_else(OnceLock::new, |name| OnceLock::from(name.into_boxed_str()))),
            identity: clock::seed(),
            last_failure: Shared::new(None),
            entrances: Entrances::default(),
            listeners: Mutex::new(heard),
            telling: AtomicU32::new(tell::NOBODY),
            clock: _clock,
        })
    }

    #[pyo3(signature = (*_args, **_kwargs))]
    fn __init__(slf: &Bound<'_, Self>, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        // What has a name can be found by it; the others are found once they guard something.
        if slf.get().name().is_some() { Self::register(slf) } else { Ok(()) }
    }

    /// Its name: given, or that of the first function it guards.
    #[getter(name)]
    fn get_name(&self) -> Option<String> {
        self.name()
    }

    /// `closed`, `open`, `half_open`, `forced_open`, `disabled` or `metrics_only`.
    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.core.state(self.now(py)?).name())
    }

    /// Whether calls pass as usual.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.core.state(self.now(py)?) == State::Closed)
    }

    /// Whether calls are turned away.
    #[getter]
    fn opened(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(matches!(self.core.state(self.now(py)?), State::Open | State::ForcedOpen))
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
    fn open_remaining(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        Ok(self.core.outlook(self.now(py)?).opens_in.map(|d| d.as_secs_f64()))
    }

    /// Seconds since it last opened; `None` if it never did.
    #[getter]
    fn _since_opening(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let now = self.now(py)?;
        Ok(self.core.outlook(now).opened.map(|opened| (now.0 as i64).wrapping_sub(opened.0 as i64) as f64 / 1e9))
    }

    /// The failure counted last.
    #[getter(last_failure)]
    fn get_last_failure(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.last_failure(py)
    }

    /// The listeners, in the order in which they are called.
    #[getter]
    fn listeners<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let listeners: Vec<Py<PyAny>> = lock(&self.listeners).iter().map(|l| l.clone_ref(py)).collect();
        PyTuple::new(py, listeners)
    }

    /// Calls `listener` with a `CircuitEvent` after each change of state; gives it back, so that it is a decorator.
    ///
    /// It is called by the thread whose call brought the change about, with no lock held and before that call returns (by
    /// the thread that tells of an earlier change, if one does). Time alone is no change: an open circuit becomes half open
    /// when the first call comes after the recovery time. What a listener raises is logged by the logger `seawall`.
    fn add_listener<'py>(&self, listener: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        function_at_once("listener", &listener)?;
        lock(&self.listeners).push(listener.clone().unbind());
        Ok(listener)
    }

    /// Forgets a listener. Raises `ValueError` if it is none.
    fn remove_listener(&self, py: Python<'_>, listener: &Bound<'_, PyAny>) -> PyResult<()> {
        // Compared outside the lock: comparing runs the listener's own code.
        let listeners: Vec<Py<PyAny>> = lock(&self.listeners).iter().map(|l| l.clone_ref(py)).collect();
        for known in listeners {
            if known.bind(py).eq(listener)? {
                let removed = {
                    let mut kept = lock(&self.listeners);
                    kept.iter().position(|l| l.is(&known)).map(|at| kept.remove(at))
                };
                drop(removed);
                return Ok(());
            }
        }
        Err(pyo3::exceptions::PyValueError::new_err(format!("{} does not listen to this breaker", short_repr(listener))))
    }

    /// A snapshot of its counts, as a `seawall.CircuitMetrics`.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.snapshot(py)
    }

    /// Why it is in its state and what would change it, in words.
    fn explain(&self, py: Python<'_>) -> PyResult<String> {
        self.explanation(py)
    }

    /// Changes numbers while it works: takes the numbers that the constructor takes, by the same names; `None` is the
    /// default. The others stay as they are, and so do the state, the counts and the end of a running recovery time;
    /// a `window` of another span begins empty.
    ///
    /// Raises `ConfigurationError`, and changes nothing, if they make no breaker together.
    #[pyo3(signature = (**changes))]
    fn configure(&self, py: Python<'_>, changes: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let Some(changes) = changes else { return Ok(()) };
        // Converting may run Python, so it is done before the lock; only what was named is taken over under it.
        let mut settings = lock(&self.settings).clone();
        apply(&mut settings, changes)?;
        settings.config(py)?;
        let mut current = lock(&self.settings);
        let mut merged = current.clone();
        merged.take_from(&settings, changes);
        let config = merged.config(py)?;
        *current = merged;
        self.core.reconfigure(config);
        Ok(())
    }

    /// A permit to make one call, or `None` if calls are turned away. Say how it came out: see `Permit`.
    fn try_acquire(slf: &Bound<'_, Self>) -> PyResult<Option<Permit>> {
        match slf.get().core.admit(slf.get().now(slf.py())?) {
            Ok((permit, transition)) => {
                let permit = Permit::new(slf, permit);
                if transition.is_some() {
                    Self::tell(slf)?;
                }
                Ok(Some(permit))
            }
            Err(_) => Ok(None),
        }
    }

    /// A permit to make one call. Raises `CircuitBreakerError` if calls are turned away.
    fn acquire(slf: &Bound<'_, Self>) -> PyResult<Permit> {
        Ok(Permit::new(slf, Self::admit(slf)?))
    }

    /// Counts a success that was seen elsewhere: a health check, a call that took no permit. It counts in whatever state
    /// the circuit is; `success_threshold` of them close an open one.
    fn record_success(slf: &Bound<'_, Self>) -> PyResult<()> {
        let told = slf.get().core.record(Evidence::Success, slf.get().now(slf.py())?, &mut passage::chance);
        if told.is_some() { Self::tell(slf) } else { Ok(()) }
    }

    /// Counts a failure that was seen elsewhere; `exception` is kept as `last_failure`. Where the circuit is open, its recovery time begins anew.
    #[pyo3(signature = (exception=None))]
    fn record_failure(slf: &Bound<'_, Self>, exception: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(error) = exception.filter(|e| !e.is_none()) {
            convert::exception("exception", &error)?;
            slf.get().remember(slf.py(), error.unbind());
        }
        let told = slf.get().core.record(Evidence::Failure, slf.get().now(slf.py())?, &mut passage::chance);
        if told.is_some() { Self::tell(slf) } else { Ok(()) }
    }

    /// Turns all calls away until the isolation ends, by its `end()` or at the end of a `with` block; then the circuit is
    /// again what it was before. Several isolations last until the last one ends; `reset()` and `force()` end them all.
    fn isolate(slf: &Bound<'_, Self>) -> PyResult<Isolation> {
        let number = slf.get().core.isolate(slf.get().now(slf.py())?);
        Self::tell(slf)?;
        Ok(Isolation { breaker: slf.clone().unbind(), number })
    }

    /// Closes it and forgets all counts, whatever state it is in.
    fn reset(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().core.reset(slf.get().now(slf.py())?);
        slf.get().forget(slf.py());
        Self::tell(slf)
    }

    /// Puts it into a state by hand: `"closed"`, `"open"` (for its recovery time), `"half_open"`, `"forced_open"`,
    /// `"disabled"` or `"metrics_only"`. Calls in flight tell nothing any more.
    fn force(slf: &Bound<'_, Self>, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let states = "closed, open, half_open, forced_open, disabled or metrics_only";
        let name = state.extract::<String>().map_err(|_| convert::type_error("state", state, states))?;
        let state = State::named(&name).ok_or_else(|| convert::value_error("state", state, states))?;
        slf.get().core.force(state, slf.get().now(slf.py())?);
        Self::tell(slf)
    }

    /// Guards a function with this breaker; its `fallback_function` stands in while it is open.
    fn __call__<'py>(slf: &Bound<'py, Self>, function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let mut policies = vec![slf.clone().into_any()];
        if let Some(instead) = &slf.get().fallback_function {
            let only_when_open = [("only_when_open", true)].into_py_dict(py)?;
            policies.insert(0, py.get_type::<Fallback>().call((instead,), Some(&only_when_open))?);
        }
        Pipeline::of(py, policies, None)?.bind(py).call1((function,))
    }

    /// Calls `function(*args, **kwargs)` under this breaker. While it is open, `CircuitBreakerError` is raised: the
    /// `fallback_function` is for decorated functions.
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

    /// `await`s `function(*args, **kwargs)` under this breaker.
    #[pyo3(signature = (function, /, *args, **kwargs))]
    fn acall<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let pipeline = Pipeline::of(slf.py(), vec![slf.clone().into_any()], None)?;
        pipeline.bind(slf.py()).getattr("acall")?.call(prepend(function, args)?, kwargs)
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let permit = Self::admit(slf)?;
        match slf.get().entrances.enter(slf.py(), slf.as_ptr() as usize, permit) {
            Ok(()) => Ok(slf.clone()),
            Err(error) => {
                Self::settle(slf, permit, Evidence::None)?;
                Err(error)
            }
        }
    }

    #[pyo3(signature = (_kind=None, value=None, _traceback=None))]
    fn __exit__(
        slf: &Bound<'_, Self>,
        _kind: Option<Bound<'_, PyAny>>,
        value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let permit = slf.get().entrances.leave(slf.py(), slf.as_ptr() as usize)?;
        Self::left(slf, permit, value.as_ref())?;
        Ok(false)
    }

    fn __aenter__(slf: &Bound<'_, Self>) -> PyResult<Ready> {
        Ok(Ready::with(Self::__enter__(slf)?.into_any().unbind()))
    }

    #[pyo3(signature = (kind=None, value=None, traceback=None))]
    fn __aexit__(
        slf: &Bound<'_, Self>,
        kind: Option<Bound<'_, PyAny>>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Ready> {
        Self::__exit__(slf, kind, value, traceback)?;
        Ok(Ready::nothing())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        static RESTORED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        let arguments = PyDict::new(py);
        lock(&this.settings).clone().arguments(&arguments)?;
        arguments.set_item("expected_exception", &this.expected)?;
        arguments.set_item("name", this.name())?;
        arguments.set_item("fallback_function", &this.fallback_function)?;
        arguments.set_item("on_result", &this.on_result)?;
        arguments.set_item("ignore", &this.ignore)?;
        let said = PyDict::new(py);
        for (argument, value) in arguments.iter().filter(|(_, value)| !value.is_none()) {
            said.set_item(argument, value)?;
        }
        let attributes = slf.getattr("__dict__")?;
        let restore = ours(py, &RESTORED, "seawall._circuits", "restored")?;
        Ok((restore, (slf.get_type(), this.identity, said, attributes).into_pyobject(py)?))
    }

    fn __copy__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf.clone()
    }

    /// It guards something of that name: it takes the name, if it has none, and can be found by it.
    fn _guards(slf: &Bound<'_, Self>, name: &str) -> PyResult<()> {
        Self::guards(slf, name)
    }

    /// Keeps a failure as the one counted last, or forgets it.
    fn _remember(&self, py: Python<'_>, exception: Option<Py<PyAny>>) {
        match exception {
            Some(error) => self.remember(py, error),
            None => self.forget(py),
        }
    }

    /// It is among those that can be found: the core's own list has it too.
    fn _known(&self) {
        known::BREAKERS.add(&self.core, &self.name);
    }

    /// Finds it again when it is unpickled where it came from.
    #[getter]
    fn _identity(&self) -> u64 {
        self.identity
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Nothing waits here: what is locked just now is visited the next time.
        self.last_failure.collected(|failure| visit.call(&*failure)).unwrap_or(Ok(()))?;
        visit.call(&self.clock)?;
        if let Ok(listeners) = self.listeners.try_lock() {
            for listener in &*listeners {
                visit.call(listener)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let failure = self.last_failure.collected(Option::take).flatten();
        let listeners = self.listeners.try_lock().ok().map(|mut l| std::mem::take(&mut *l));
        drop((failure, listeners));
    }

    /// Why it is in its state, in words, and since how many seconds; `None` if it was made so.
    #[getter]
    fn _why(&self, py: Python<'_>) -> PyResult<(String, Option<f64>)> {
        self.why(py)
    }

    pub fn __repr__(&self, py: Python<'_>) -> String {
        self.shown(py)
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "breaker")
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

fn prepend<'py>(first: &Bound<'py, PyAny>, rest: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
    let all: Vec<Bound<'py, PyAny>> = std::iter::once(first.clone()).chain(rest.iter()).collect();
    PyTuple::new(first.py(), all)
}

/// Takes the changes over; an unknown name is a `TypeError`, as with any function.
fn apply(settings: &mut Settings, changes: &Bound<'_, PyDict>) -> PyResult<()> {
    for (name, value) in changes {
        let name: String = name.extract()?;
        if !settings.set(&name, Some(&value))? {
            return Err(PyTypeError::new_err(format!("configure() takes no '{name}'; it takes {}", NAMES.join(", "))));
        }
    }
    Ok(())
}
