//! What an outcome is to a stage: exception types, predicates and the table of classes, turned into verdicts.
//! Runs between steps of the machine, so no user code runs under a lock.

use super::bare::{self, Says};
use super::convert;
use super::errors::{configuration, ours, wrong_type};
use super::guardrails::Guardrails;
use super::policies::circuit_breaker::short_repr;
use super::policies::rate_limit::RateLimit;
use crate::drive::clock;
use crate::engine::{Random, Verdict, WaitHint};
use crate::policies::class::{Class, FallbackRule, Row};
use crate::policies::retry::backoff::Backoff;
use pyo3::exceptions::{PyBaseException, PyException};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyCFunction, PyDelta, PyFrozenSet, PyList, PySet, PyTuple, PyType};
use std::sync::Arc;
use std::time::Duration;

/// Which failures a policy is about.
pub enum Listed {
    /// What the table of classes says.
    Table,
    /// These exception classes.
    Types(Py<PyTuple>),
    /// Those the function says: `predicate(exception)` gives a bool, or seconds to wait.
    Predicate(Py<PyAny>),
    /// A condition on the whole retry state, as tenacity's `retry=` objects are.
    Condition(Py<PyAny>),
}

fn is_exception_class(value: &Bound<'_, PyAny>) -> bool {
    value.cast::<PyType>().is_ok_and(|t| t.is_subclass_of::<PyBaseException>().unwrap_or(false))
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    match value.cast::<PyType>() {
        Ok(t) => format!("the class {}", t.fully_qualified_name().map_or_else(|_| "?".into(), |n| n.to_string())),
        Err(_) => short_repr(value),
    }
}

/// Whether a class of that name is among an object's classes.
fn has_base(value: &Bound<'_, PyAny>, name: &str) -> bool {
    value.get_type().mro().iter().any(|t| t.cast::<PyType>().is_ok_and(|t| t.name().is_ok_and(|n| n == name)))
}

/// Which kind of function it is: `function`, `coroutine`, `generator` or `async generator`.
pub fn kind_of_function(function: &Bound<'_, PyAny>) -> PyResult<String> {
    static KIND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(function.py(), &KIND, "seawall._guarded", "kind")?.call1((function,))?.extract()
}

/// Refuses an asynchronous predicate: what it gives would be true whatever it says.
pub fn answers_at_once<'py>(argument: &str, predicate: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if predicate.is_callable() && !predicate.is_instance_of::<PyType>() && kind_of_function(&predicate)? != "function" {
        let message = format!("{argument} must answer at once, and {} is asynchronous or a generator", type_name(&predicate));
        return Err(configuration(predicate.py(), &message));
    }
    Ok(predicate)
}

/// Refuses what cannot be called.
pub fn function(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_callable() { Ok(()) } else { Err(convert::type_error(argument, value, "a function")) }
}

/// As [`function`], for one whose answer nobody awaits.
pub fn function_at_once(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    function(argument, value)?;
    answers_at_once(argument, value.clone()).map(drop)
}

/// A function that is called with something, or `None`.
pub fn callable(argument: &str, value: Option<Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
    let value = value.filter(|v| !v.is_none());
    value.as_ref().map(|v| function(argument, v)).transpose()?;
    Ok(value.map(Bound::unbind))
}

/// As [`callable`], for functions that are asked something.
pub fn predicate(argument: &str, value: Option<Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
    let value = value.filter(|v| !v.is_none());
    value.as_ref().map(|v| function_at_once(argument, v)).transpose()?;
    Ok(value.map(Bound::unbind))
}

/// Refuses a word that was not called, as in `wait=wait_exponential`: it would take the retry state for its argument.
pub fn made(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = value.getattr("__name__").and_then(|n| n.extract::<String>()).unwrap_or_default();
    let is_word = value.is_instance_of::<PyType>() || value.is_instance_of::<PyCFunction>() && name.starts_with("wait_");
    if !is_word {
        return Ok(());
    }
    let message = format!("{argument} must be made by a call, as in {argument}={name}(…), not {name} itself");
    Err(wrong_type(value.py(), &message))
}

/// Refuses exceptions that are no outcome of a call. `BaseException` itself may stand for all that are, where it is `broad`.
pub fn happens(py: Python<'_>, argument: &str, listed: &Listed, broad: bool) -> PyResult<()> {
    for item in listed.types(py).into_iter().flatten() {
        let is_broad = broad && item.is(py.get_type::<PyBaseException>());
        if !is_broad && !item.cast::<PyType>().is_ok_and(|t| t.is_subclass_of::<PyException>().unwrap_or(false)) {
            let message = format!(
                "{argument} must hold subclasses of Exception, and {} is none: interrupts and cancellations go past every policy",
                type_name(&item)
            );
            return Err(configuration(py, &message));
        }
    }
    Ok(())
}

impl Listed {
    /// Reads an `on=`, `expected_exception=` or `exceptions_to_handle=` argument.
    pub fn parse(argument: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Listed> {
        static TRANSIENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Some(value) = value.filter(|v| !v.is_none()) else { return Ok(Listed::Table) };
        let py = value.py();
        if is_exception_class(value) {
            return Ok(Listed::Types(PyTuple::new(py, [value])?.unbind()));
        }
        let is_collection = value.is_instance_of::<PyTuple>()
            || value.is_instance_of::<PyList>()
            || value.is_instance_of::<PySet>()
            || value.is_instance_of::<PyFrozenSet>();
        if is_collection {
            let mut types = Vec::new();
            for item in value.try_iter()? {
                let item = item?;
                if !is_exception_class(&item) {
                    let hint = "If it is a client library's timeout setting, the exception is seawall.errors.Timeout.";
                    let message = format!("{argument} must hold exception classes, and {} is none. {hint}", type_name(&item));
                    return Err(wrong_type(py, &message));
                }
                types.push(item);
            }
            return Ok(Listed::Types(PyTuple::new(py, types)?.unbind()));
        }
        if value.is(&ours(py, &TRANSIENT, "seawall._classify", "transient")?) {
            return Ok(Listed::Table);
        }
        if value.is_instance_of::<PyType>() || !value.is_callable() {
            let message =
                format!("{argument} must be an exception class, several of them, or a function of the exception, not {}", type_name(value));
            return Err(wrong_type(py, &message));
        }
        // tenacity's conditions and ours, by the name of their base class.
        if has_base(value, "retry_base") || has_base(value, "_Retry") {
            return Ok(Listed::Condition(value.clone().unbind()));
        }
        Ok(Listed::Predicate(value.clone().unbind()))
    }

    /// For the garbage collector.
    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Listed::Table => Ok(()),
            Listed::Types(types) => visit.call(types),
            Listed::Predicate(held) | Listed::Condition(held) => visit.call(held),
        }
    }

    /// Whether somebody else's code decides.
    pub fn is_asked(&self) -> bool {
        matches!(self, Listed::Predicate(_) | Listed::Condition(_))
    }

    fn types<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyTuple>> {
        match self {
            Listed::Types(types) => Some(types.bind(py)),
            _ => None,
        }
    }
}

/// The reasons for which `Retry` tries again.
pub struct RetryJudge {
    pub listed: Listed,
    /// `stop(retry_state) -> bool`, as tenacity's.
    pub stop: Option<Py<PyAny>>,
    /// `wait(retry_state) -> seconds`, as tenacity's.
    pub wait: Option<Py<PyAny>>,
    /// The policy's own waits, where `wait` is none.
    pub backoff: Arc<Backoff>,
    /// `on_result(value) -> bool`: a result that counts as a failure.
    pub on_result: Option<Py<PyAny>>,
    /// `giveup(exception) -> bool`: stop although it is retryable.
    pub giveup: Option<Py<PyAny>>,
    /// Nothing but the table and exception classes decides about a failure.
    pub is_plain: bool,
}

/// What a retry's judge may want to know beside what happened.
pub struct Asked<'a, 'py> {
    /// The failed attempts so far.
    pub attempt: u32,
    /// The wait before this attempt.
    pub previous: Option<Duration>,
    /// Makes the retry state that tenacity's objects take, with the wait that would follow.
    #[allow(clippy::type_complexity)] // one function
    pub state: &'a dyn Fn(Option<Duration>) -> PyResult<Bound<'py, PyAny>>,
}

/// What happened, as far as judges care.
pub enum Happened<'a, 'py> {
    Value(&'a Bound<'py, PyAny>),
    Error(&'a Bound<'py, PyAny>),
}

fn truth_or_seconds(answer: &Bound<'_, PyAny>) -> PyResult<Option<WaitHint>> {
    if !answer.is_instance_of::<PyBool>() && !answer.is_none() && (answer.is_instance_of::<PyDelta>() || answer.extract::<f64>().is_ok()) {
        return Ok(Some(WaitHint::Exactly(super::convert::seconds("a predicate's answer", answer)?)));
    }
    Ok(answer.is_truthy()?.then_some(WaitHint::None))
}

/// The wait that the server asked for, if it did.
pub fn server_wait(error: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    static RETRY_AFTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let asked = ours(error.py(), &RETRY_AFTER, "seawall._classify", "retry_after")?.call1((error,))?;
    Ok(asked.extract::<Option<f64>>()?.filter(|s| s.is_finite() && *s > 0.0).map(|s| Duration::from_secs_f64(s.min(convert::LONGEST))))
}

impl RetryJudge {
    /// The verdict; `giveup` calls that function of the user's, `None` while its answer is awaited: then there is no verdict.
    pub fn judge<'py>(
        &self,
        happened: &Happened<'_, 'py>,
        asked: Asked<'_, 'py>,
        giveup: impl FnOnce(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<Option<bool>>,
    ) -> PyResult<Verdict> {
        let state = || (asked.state)(None);
        let bare = match happened {
            Happened::Error(error) => bare::row(error)?,
            Happened::Value(_) => None,
        };
        let hint = match happened {
            Happened::Value(value) => match (&self.on_result, &self.listed) {
                (Some(predicate), _) if predicate.bind(value.py()).call1((*value,))?.is_truthy()? => WaitHint::None,
                (_, Listed::Condition(condition)) if condition.bind(value.py()).call1((state()?,))?.is_truthy()? => WaitHint::None,
                _ => return Ok(Verdict::Success),
            },
            Happened::Error(error) => match self.wants(error, bare, &state)? {
                Some(hint) => hint,
                None => return Ok(Verdict::Final),
            },
        };
        let py = match happened {
            Happened::Value(v) | Happened::Error(v) => v.py(),
        };
        if let (Some(function), Happened::Error(error)) = (&self.giveup, happened) {
            match giveup(function.bind(py), error)? {
                Some(true) => return Ok(Verdict::Final),
                Some(false) => {}
                None => return Ok(Verdict::Ignore),
            }
        }
        let server = match happened {
            Happened::Error(error) if bare.is_none() => server_wait(error)?,
            _ => None,
        };
        let wait = match (server, &self.wait) {
            (Some(server), _) => WaitHint::RetryAfter(server),
            (None, Some(wait)) => {
                let seconds = wait.bind(py).call1((state()?,))?;
                WaitHint::Exactly(super::convert::seconds("the wait strategy's answer", &seconds)?)
            }
            // A stop may ask for the wait that would follow, so it is decided on here.
            (None, None) if self.stop.is_some() && hint == WaitHint::None => {
                let mut random = Random::seeded(clock::seed());
                WaitHint::Exactly(self.backoff.wait(asked.attempt, asked.previous, &mut || random.unit()))
            }
            (None, None) => hint,
        };
        if let Some(stop) = &self.stop {
            let upcoming = match wait {
                WaitHint::RetryAfter(wait) | WaitHint::Exactly(wait) => Some(wait),
                WaitHint::None => None,
            };
            if stop.bind(py).call1(((asked.state)(upcoming)?,))?.is_truthy()? {
                return Ok(Verdict::Stop);
            }
        }
        Ok(Verdict::Failure { wait, branches: u64::MAX })
    }

    /// The verdict where nobody's code is asked, and all that has to be known of the exception's type is known.
    #[inline]
    fn at_once(&self, error: &Bound<'_, PyAny>, says: Says) -> Option<&'static Verdict> {
        if !self.is_plain {
            return None;
        }
        let retried = bare::known_row(error, says)?.retry;
        match &self.listed {
            Listed::Table => Some(if retried == Some(true) { &Verdict::FAILURE } else { &Verdict::Final }),
            Listed::Types(types) => (retried != Some(false) && is_plainly(error, types.bind(error.py()))).then_some(&Verdict::FAILURE),
            Listed::Predicate(_) | Listed::Condition(_) => None,
        }
    }

    fn wants<'py>(
        &self,
        error: &Bound<'py, PyAny>,
        row: Option<&'static Row>,
        state: &impl Fn() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Option<WaitHint>> {
        static WANTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = error.py();
        match &self.listed {
            Listed::Table if row.is_some() => Ok(row.and_then(|row| row.retry).unwrap_or(false).then_some(WaitHint::None)),
            Listed::Table => truth_or_seconds(&ours(py, &WANTS, "seawall._classify", "wants_retry")?.call1((error,))?),
            Listed::Types(types) => {
                if !is_one_of(error, types.bind(py))? {
                    return Ok(None);
                }
                if row.is_some_and(|row| row.retry != Some(false)) {
                    return Ok(Some(WaitHint::None));
                }
                truth_or_seconds(&ours(py, &WANTS, "seawall._classify", "wants_retry")?.call1((error, types))?)
            }
            Listed::Predicate(predicate) => truth_or_seconds(&predicate.bind(py).call1((error,))?),
            Listed::Condition(condition) => truth_or_seconds(&condition.bind(py).call1((state()?,))?),
        }
    }
}

/// What a breaker counts.
pub struct BreakerJudge {
    pub listed: Listed,
    /// `predicate(type, value)`, as the `circuitbreaker` package calls it.
    pub two_arguments: bool,
    /// What tells nothing, even where it is listed; and whether its predicate takes two arguments.
    pub ignored: Option<(Listed, bool)>,
    pub on_result: Option<Py<PyAny>>,
    /// Every failure counts, as `expected_exception` has it where nobody says otherwise.
    counts_all: bool,
}

impl BreakerJudge {
    /// By these rules.
    pub fn new(
        py: Python<'_>,
        listed: Listed,
        two_arguments: bool,
        ignored: Option<(Listed, bool)>,
        on_result: Option<Py<PyAny>>,
    ) -> BreakerJudge {
        let every = py.get_type::<PyException>();
        let counts_all =
            ignored.is_none() && matches!(&listed, Listed::Types(types) if types.bind(py).iter().any(|listed| listed.is(&every)));
        BreakerJudge { listed, two_arguments, ignored, on_result, counts_all }
    }

    /// As the one of [`RetryJudge`].
    #[inline]
    fn at_once(&self, error: &Bound<'_, PyAny>, says: Says) -> Option<&'static Verdict> {
        // What a call came out with is an `Exception`: all else goes past the judges.
        if self.counts_all {
            return Some(&Verdict::FAILURE);
        }
        if self.ignored.is_some() {
            return None;
        }
        match &self.listed {
            Listed::Table => Some(if bare::known_row(error, says)?.breaker { &Verdict::FAILURE } else { &Verdict::Ignore }),
            Listed::Types(types) => is_plainly(error, types.bind(error.py())).then_some(&Verdict::FAILURE),
            Listed::Predicate(_) | Listed::Condition(_) => None,
        }
    }

    /// Failure, success or no evidence.
    pub fn judge(&self, happened: &Happened<'_, '_>) -> PyResult<Verdict> {
        let error = match happened {
            Happened::Value(value) => {
                let bad = match &self.on_result {
                    Some(predicate) => predicate.bind(value.py()).call1((*value,))?.is_truthy()?,
                    None => false,
                };
                return Ok(if bad { Verdict::FAILURE } else { Verdict::Success });
            }
            Happened::Error(error) => *error,
        };
        if let Some((ignored, two)) = &self.ignored
            && covers(ignored, *two, error)?
        {
            return Ok(Verdict::Ignore);
        }
        Ok(if covers(&self.listed, self.two_arguments, error)? { Verdict::FAILURE } else { Verdict::Ignore })
    }
}

/// Whether it is an instance of one of these classes.
fn is_one_of(error: &Bound<'_, PyAny>, types: &Bound<'_, PyTuple>) -> PyResult<bool> {
    if is_plainly(error, types) { Ok(true) } else { error.is_instance(types) }
}

/// Whether it is an instance of one of these classes, as far as that can be told with nobody's code asked: a class may say otherwise of
/// what is none of its kind.
#[inline]
fn is_plainly(error: &Bound<'_, PyAny>, types: &Bound<'_, PyTuple>) -> bool {
    let class = error.get_type_ptr();
    types.iter_borrowed().any(|listed| {
        let listed = listed.as_ptr();
        // What a call came out with is an `Exception`: all else goes past the judges.
        // SAFETY: both are live; where it is a plain class, what is listed is a type.
        listed == class.cast()
            || listed == unsafe { ffi::PyExc_Exception }
            || unsafe { ffi::PyType_CheckExact(listed) != 0 && ffi::PyType_IsSubtype(class, listed.cast()) != 0 }
    })
}

fn covers(listed: &Listed, two_arguments: bool, error: &Bound<'_, PyAny>) -> PyResult<bool> {
    static COUNTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = error.py();
    match listed {
        Listed::Table => match bare::row(error)? {
            Some(row) => Ok(row.breaker),
            None => ours(py, &COUNTS, "seawall._classify", "counts_for_breaker")?.call1((error,))?.is_truthy(),
        },
        Listed::Types(types) => is_one_of(error, types.bind(py)),
        Listed::Predicate(p) | Listed::Condition(p) if two_arguments => p.bind(py).call1((error.get_type(), error))?.is_truthy(),
        Listed::Predicate(p) | Listed::Condition(p) => p.bind(py).call1((error,))?.is_truthy(),
    }
}

/// Whether the same call fails alike wherever it is made at this time: what no retry mends, by the table of classes.
pub fn is_shared(error: &Bound<'_, PyAny>) -> PyResult<bool> {
    static CLASSIFY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let row = match bare::row(error)? {
        Some(row) => Some(row),
        None => {
            let class = ours(error.py(), &CLASSIFY, "seawall._classify", "classify")?.call1((error,))?;
            class.extract::<&str>().ok().and_then(Class::named).map(Class::row)
        }
    };
    Ok(row.is_some_and(|row| row.retry == Some(false)))
}

/// For what the alternatives stand in.
pub struct FallbackJudge {
    pub listed: Listed,
    pub on_result: Option<Py<PyAny>>,
    /// Only when an open circuit turned the call away.
    pub only_when_open: bool,
    /// Bit `i`: branch `i` (0 is the primary) has other credentials or another endpoint.
    pub elsewhere: u64,
}

impl FallbackJudge {
    /// Whether to go on, and to which alternatives.
    pub fn judge(&self, happened: &Happened<'_, '_>) -> PyResult<Verdict> {
        static WANTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let error = match happened {
            Happened::Value(value) => {
                let bad = match &self.on_result {
                    Some(predicate) => predicate.bind(value.py()).call1((*value,))?.is_truthy()?,
                    None => false,
                };
                return Ok(if bad { Verdict::FAILURE } else { Verdict::Success });
            }
            Happened::Error(error) => *error,
        };
        let py = error.py();
        if let Listed::Predicate(predicate) | Listed::Condition(predicate) = &self.listed {
            return Ok(if predicate.bind(py).call1((error,))?.is_truthy()? { Verdict::FAILURE } else { Verdict::Final });
        }
        let listed = match self.listed.types(py) {
            Some(types) => types.clone(),
            None => PyTuple::new(py, [py.get_type::<PyException>()])?,
        };
        if let Some(FallbackRule::Always) = bare::row(error)?.map(|row| row.fallback) {
            return Ok(if error.is_instance(&listed)? { Verdict::FAILURE } else { Verdict::Final });
        }
        let answer = ours(py, &WANTS, "seawall._classify", "wants_fallback")?.call1((error, listed))?;
        if answer.extract::<&str>().is_ok_and(|a| a == "other_credentials") {
            return Ok(Verdict::Failure { wait: WaitHint::None, branches: self.elsewhere });
        }
        Ok(if answer.is_truthy()? { Verdict::FAILURE } else { Verdict::Final })
    }
}

/// One stage's judge.
pub enum Judge {
    Retry(RetryJudge),
    Breaker(BreakerJudge),
    Fallback(FallbackJudge),
    /// A hedge asks whether the same call made at the same time would fail alike.
    Hedge,
    /// A limit asks what was used, and whether the server has had enough.
    Limit(Py<RateLimit>),
    /// A cache asks what may be kept, and what an older answer may stand in for.
    Cache,
    /// Guardrails look at what was given.
    Guardrails(Py<Guardrails>),
    /// The stage asks nothing.
    Nobody,
}

impl Judge {
    /// What it says of a failure at once, given what its type says: nobody's code is asked.
    #[inline]
    pub fn at_once(&self, error: &Bound<'_, PyAny>, says: Says) -> Option<&'static Verdict> {
        match self {
            Judge::Retry(judge) => judge.at_once(error, says),
            Judge::Breaker(judge) => judge.at_once(error, says),
            _ => None,
        }
    }

    /// Whether it decides in no time, since nobody else's code is asked.
    pub fn asks_nobody(&self) -> bool {
        match self {
            Judge::Retry(judge) => judge.is_plain && judge.on_result.is_none(),
            Judge::Breaker(judge) => {
                let ignored = judge.ignored.as_ref().is_some_and(|(ignored, _)| ignored.is_asked());
                !judge.listed.is_asked() && !ignored && judge.on_result.is_none()
            }
            Judge::Hedge | Judge::Nobody => true,
            Judge::Fallback(_) | Judge::Limit(_) | Judge::Cache | Judge::Guardrails(_) => false,
        }
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Judge::Retry(judge) => {
                judge.listed.traverse(visit)?;
                [&judge.stop, &judge.wait, &judge.on_result, &judge.giveup].into_iter().try_for_each(|held| visit.call(held))
            }
            Judge::Breaker(judge) => {
                judge.listed.traverse(visit)?;
                judge.ignored.as_ref().map_or(Ok(()), |(ignored, _)| ignored.traverse(visit))?;
                visit.call(&judge.on_result)
            }
            Judge::Fallback(judge) => {
                judge.listed.traverse(visit)?;
                visit.call(&judge.on_result)
            }
            Judge::Limit(limit) => visit.call(limit),
            Judge::Guardrails(rails) => visit.call(rails),
            Judge::Hedge | Judge::Cache | Judge::Nobody => Ok(()),
        }
    }
}
