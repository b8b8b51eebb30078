//! tenacity's words for waits, as native objects: `wait_exponential(multiplier=1, min=1, max=60)`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::convert;
use super::errors::configuration;
use crate::policies::retry::backoff::{Backoff, Growth, LONGEST, as_text};

/// How long to wait before the next attempt. Made by the `wait_*` functions; `a + b` waits for both, one after the other.
///
/// Called with a retry state (ours or tenacity's), it gives the seconds, so that it also works in tenacity's own `Retrying`.
#[pyclass(frozen, module = "seawall._seawall")]
pub struct Wait {
    rule: Arc<Backoff>,
}

impl Wait {
    /// A wait by that rule.
    pub fn of(rule: Backoff) -> Wait {
        Wait { rule: Arc::new(rule) }
    }

    /// The rule, to be asked without the GIL.
    pub fn backoff(&self) -> Arc<Backoff> {
        self.rule.clone()
    }
}

/// A word: the function's name and its arguments in tenacity's order, each with the value that a repr leaves out.
struct Word {
    name: &'static str,
    arguments: &'static [(&'static str, Option<f64>)],
}

const fn word(name: &'static str, arguments: &'static [(&'static str, Option<f64>)]) -> Word {
    Word { name, arguments }
}

const GROWTH: &[(&str, Option<f64>)] = &[("multiplier", None), ("max", Some(LONGEST)), ("exp_base", Some(2.0)), ("min", Some(0.0))];
const FIXED: Word = word("wait_fixed", &[("wait", None)]);
const RANDOM: Word = word("wait_random", &[("min", None), ("max", None)]);
const INCREMENTING: Word = word("wait_incrementing", &[("start", None), ("increment", None), ("max", Some(LONGEST))]);
const EXPONENTIAL: Word = word("wait_exponential", GROWTH);
const RANDOM_EXPONENTIAL: Word = word("wait_random_exponential", GROWTH);
const EQUAL_JITTER: Word = word("wait_equal_jitter", GROWTH);
const EXPONENTIAL_JITTER: Word =
    word("wait_exponential_jitter", &[("initial", None), ("max", Some(LONGEST)), ("exp_base", Some(2.0)), ("jitter", Some(1.0))]);
const DECORRELATED: Word = word("wait_decorrelated_jitter", &[("initial", None), ("max", Some(LONGEST))]);
const SDK: Word = word("wait_sdk", &[]);
const CHAIN: Word = word("wait_chain", &[]);
const COMBINE: Word = word("wait_combine", &[]);
/// A rule as a word, its numbers and the rules inside it.
fn spelled(rule: &Backoff) -> (&'static Word, Vec<f64>, &[Backoff]) {
    let growth = |g: &Growth| vec![g.multiplier, g.max, g.base, g.min];
    match rule {
        Backoff::Fixed { wait } => (&FIXED, vec![*wait], &[]),
        Backoff::Random { min, max } => (&RANDOM, vec![*min, *max], &[]),
        Backoff::Incrementing { start, increment, max } => (&INCREMENTING, vec![*start, *increment, *max], &[]),
        Backoff::Exponential(g) => (&EXPONENTIAL, growth(g), &[]),
        Backoff::RandomExponential(g) => (&RANDOM_EXPONENTIAL, growth(g), &[]),
        Backoff::EqualJitter(g) => (&EQUAL_JITTER, growth(g), &[]),
        Backoff::ExponentialJitter { initial, max, base, jitter } => (&EXPONENTIAL_JITTER, vec![*initial, *max, *base, *jitter], &[]),
        Backoff::DecorrelatedJitter { initial, max } => (&DECORRELATED, vec![*initial, *max], &[]),
        Backoff::Sdk => (&SDK, vec![], &[]),
        Backoff::Chain(rules) => (&CHAIN, vec![], rules),
        Backoff::Sum(rules) => (&COMBINE, vec![], rules),
    }
}

/// The other way round; `None` where the number of numbers is not the word's.
fn meant(name: &str, numbers: &[f64]) -> Option<Backoff> {
    Some(match (name, numbers) {
        ("wait_fixed", &[wait]) => Backoff::Fixed { wait },
        ("wait_random", &[min, max]) => Backoff::Random { min, max },
        ("wait_incrementing", &[start, increment, max]) => Backoff::Incrementing { start, increment, max },
        ("wait_exponential", &[multiplier, max, base, min]) => Backoff::Exponential(Growth { multiplier, base, min, max }),
        ("wait_random_exponential", &[multiplier, max, base, min]) => Backoff::RandomExponential(Growth { multiplier, base, min, max }),
        ("wait_equal_jitter", &[multiplier, max, base, min]) => Backoff::EqualJitter(Growth { multiplier, base, min, max }),
        ("wait_exponential_jitter", &[initial, max, base, jitter]) => Backoff::ExponentialJitter { initial, max, base, jitter },
        ("wait_decorrelated_jitter", &[initial, max]) => Backoff::DecorrelatedJitter { initial, max },
        ("wait_sdk", &[]) => Backoff::Sdk,
        _ => return None,
    })
}

fn shown(rule: &Backoff) -> String {
    if *rule == Backoff::NONE {
        return "wait_none()".to_owned();
    }
    let (word, numbers, inner) = spelled(rule);
    let mut said: Vec<(&str, f64)> = word
        .arguments
        .iter()
        .zip(numbers)
        .filter(|((_, left_out), value)| *left_out != Some(*value))
        .map(|((name, _), value)| (*name, value))
        .collect();
    // min before max, as people write it; tenacity's own order has it last.
    let min = said.iter().position(|(name, _)| *name == "min");
    let max = said.iter().position(|(name, _)| *name == "max");
    if let (Some(min), Some(max)) = (min, max)
        && max < min
    {
        let pair = said.remove(min);
        said.insert(max, pair);
    }
    let arguments: Vec<String> =
        said.iter().map(|(name, value)| format!("{name}={}", as_text(*value))).chain(inner.iter().map(shown)).collect();
    format!("{}({})", word.name, arguments.join(", "))
}

/// An argument of a word: a number, seconds or a timedelta; kept as it came until its name is known.
enum Amount<'py> {
    Number(f64),
    Other(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for Amount<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let number = convert::number(&value);
        let number = number.or_else(|| value.call_method0("total_seconds").and_then(|seconds| seconds.extract()).ok());
        Ok(number.map_or_else(|| Amount::Other(value.to_owned()), Amount::Number))
    }
}

/// The wait that a word and its arguments mean, or the error that says which of them is wrong.
fn made(py: Python<'_>, word: &Word, amounts: Vec<Amount<'_>>) -> PyResult<Wait> {
    let mut numbers = Vec::with_capacity(amounts.len());
    for ((name, _), amount) in word.arguments.iter().zip(amounts) {
        match amount {
            Amount::Number(number) => numbers.push(number),
            Amount::Other(value) => {
                return Err(convert::type_error(&format!("{}: {name}", word.name), &value, "a number of seconds or a timedelta"));
            }
        }
    }
    let rule = meant(word.name, &numbers).ok_or_else(|| "that many arguments make no wait".to_owned());
    checked(py, word.name, rule.and_then(Backoff::checked))
}

fn checked(py: Python<'_>, name: &str, rule: Result<Backoff, String>) -> PyResult<Wait> {
    rule.map(|rule| Wait { rule: Arc::new(rule) }).map_err(|message| configuration(py, &format!("{name}: {message}")))
}

fn rules(name: &str, waits: &Bound<'_, PyTuple>) -> PyResult<Vec<Backoff>> {
    let mut rules = Vec::with_capacity(waits.len());
    for (index, wait) in waits.iter().enumerate() {
        let Ok(wait) = wait.cast::<Wait>() else {
            let place = format!("{name}: wait {}", index + 1);
            return Err(convert::type_error(&place, &wait, "one of seawall's own (wait_fixed(1), …)"));
        };
        rules.push(wait.get().rule.as_ref().clone());
    }
    Ok(rules)
}

/// A wait of waits of which some are not ours: it is made of calls.
fn mixed<'py>(py: Python<'py>, name: &str, waits: impl pyo3::call::PyCallArgs<'py>) -> PyResult<Py<PyAny>> {
    Ok(py.import("seawall._waits")?.getattr("mixed")?.getattr(name)?.call1(waits)?.unbind())
}

/// A wait of these waits: ours if they all are.
fn one_of(py: Python<'_>, word: &Word, waits: &Bound<'_, PyTuple>, rule: fn(Vec<Backoff>) -> Backoff) -> PyResult<Py<PyAny>> {
    let ours = |wait: &Bound<'_, PyAny>| wait.is_instance_of::<Wait>();
    if waits.iter().any(|wait| !ours(&wait)) && waits.iter().all(|wait| ours(&wait) || wait.is_callable()) {
        return mixed(py, word.name, waits.clone());
    }
    let made = checked(py, word.name, rule(rules(word.name, waits)?).checked())?;
    Ok(Bound::new(py, made)?.into_any().unbind())
}

fn sum(left: &Backoff, right: &Backoff) -> Wait {
    let parts = |rule: &Backoff| match rule {
        Backoff::Sum(parts) => parts.clone(),
        other => vec![other.clone()],
    };
    Wait { rule: Arc::new(Backoff::Sum([parts(left), parts(right)].concat())) }
}

#[pymethods]
impl Wait {
    /// What pickle and copy call; the `wait_*` functions are for everyone else.
    #[new]
    #[pyo3(signature = (word, *parts))]
    fn new(py: Python<'_>, word: &str, parts: &Bound<'_, PyTuple>) -> PyResult<Wait> {
        let rule = match word {
            "wait_chain" => Ok(Backoff::Chain(rules(word, parts)?)),
            "wait_combine" => Ok(Backoff::Sum(rules(word, parts)?)),
            _ => meant(word, &parts.extract::<Vec<f64>>()?).ok_or_else(|| format!("{word} with {} numbers is no wait", parts.len())),
        };
        checked(py, word, rule.and_then(Backoff::checked))
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let (word, numbers, inner) = spelled(&self.rule);
        let mut parts = vec![word.name.into_pyobject(py)?.into_any()];
        for number in numbers {
            parts.push(number.into_pyobject(py)?.into_any());
        }
        for rule in inner {
            parts.push(Bound::new(py, Wait { rule: Arc::new(rule.clone()) })?.into_any());
        }
        PyTuple::new(py, parts)
    }

    /// The seconds to wait after `retry_state.attempt_number` failed attempts, with Python's own random numbers.
    fn __call__(&self, retry_state: &Bound<'_, PyAny>) -> PyResult<f64> {
        let py = retry_state.py();
        let attempt = retry_state.getattr("attempt_number")?.extract::<i64>()?;
        let attempt = u32::try_from(attempt.max(1)).unwrap_or(u32::MAX);
        let previous = retry_state.getattr("upcoming_sleep").and_then(|sleep| sleep.extract::<f64>()).ok();
        let random = py.import("random")?.getattr("random")?;
        let mut failed = None;
        let mut draw = || match random.call0().and_then(|number| number.extract::<f64>()) {
            Ok(number) => number,
            Err(error) => {
                failed.get_or_insert(error);
                0.0
            }
        };
        let seconds = self.rule.seconds(attempt, previous.filter(|sleep| *sleep > 0.0), &mut draw);
        failed.map_or(Ok(seconds), Err)
    }

    fn __add__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        match other.cast::<Wait>() {
            Ok(other) => Ok(Bound::new(py, sum(&slf.get().rule, &other.get().rule))?.into_any().unbind()),
            // tenacity's own adds itself to ours; a plain function cannot.
            Err(_) if !other.is_callable() || other.hasattr("__radd__")? => Ok(py.NotImplemented()),
            Err(_) => mixed(py, "wait_combine", (slf, other)),
        }
    }

    /// `sum([a, b])` begins with 0.
    fn __radd__<'py>(slf: Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        match () {
            () if other.extract::<f64>().is_ok_and(|number| number == 0.0) => Ok(slf.into_any().unbind()),
            () if other.is_callable() => mixed(other.py(), "wait_combine", (other, slf)),
            () => Ok(other.py().NotImplemented()),
        }
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match other.cast::<Wait>() {
            Ok(other) => Ok((self.rule == other.get().rule).into_pyobject(py)?.to_owned().into_any().unbind()),
            Err(_) => Ok(py.NotImplemented()),
        }
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        shown(&self.rule).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        shown(&self.rule)
    }
}

/// Wait the same time before each attempt: `wait` seconds, or a timedelta.
#[pyfunction]
fn wait_fixed(py: Python<'_>, wait: Amount<'_>) -> PyResult<Wait> {
    made(py, &FIXED, vec![wait])
}

/// Do not wait.
#[pyfunction]
fn wait_none() -> Wait {
    Wait { rule: Arc::new(Backoff::NONE) }
}

/// Wait a random time between `min` and `max` seconds.
#[pyfunction]
#[pyo3(signature = (min=Amount::Number(0.0), max=Amount::Number(1.0)), text_signature = "(min=0, max=1)")]
fn wait_random(py: Python<'_>, min: Amount<'_>, max: Amount<'_>) -> PyResult<Wait> {
    made(py, &RANDOM, vec![min, max])
}

/// Wait `start` seconds, then `increment` more before each further attempt, at most `max`.
#[pyfunction]
#[pyo3(signature = (start=Amount::Number(0.0), increment=Amount::Number(100.0), max=Amount::Number(LONGEST)),
       text_signature = "(start=0, increment=100, max=4.611686018427388e+18)")]
fn wait_incrementing(py: Python<'_>, start: Amount<'_>, increment: Amount<'_>, max: Amount<'_>) -> PyResult<Wait> {
    made(py, &INCREMENTING, vec![start, increment, max])
}

/// Wait `multiplier * exp_base ** n` seconds (n = 0, 1, 2 …), at least `min` and at most `max`.
#[pyfunction]
#[pyo3(signature = (multiplier=Amount::Number(1.0), max=Amount::Number(LONGEST), exp_base=Amount::Number(2.0), min=Amount::Number(0.0)),
       text_signature = "(multiplier=1, max=4.611686018427388e+18, exp_base=2, min=0)")]
fn wait_exponential(py: Python<'_>, multiplier: Amount<'_>, max: Amount<'_>, exp_base: Amount<'_>, min: Amount<'_>) -> PyResult<Wait> {
    made(py, &EXPONENTIAL, vec![multiplier, max, exp_base, min])
}

/// Full jitter: wait a random time between `min` and what `wait_exponential` would wait with these arguments: `multiplier *
/// exp_base ** n` seconds, at most `max`.
#[pyfunction]
#[pyo3(signature = (multiplier=Amount::Number(1.0), max=Amount::Number(LONGEST), exp_base=Amount::Number(2.0), min=Amount::Number(0.0)),
       text_signature = "(multiplier=1, max=4.611686018427388e+18, exp_base=2, min=0)")]
fn wait_random_exponential(
    py: Python<'_>,
    multiplier: Amount<'_>,
    max: Amount<'_>,
    exp_base: Amount<'_>,
    min: Amount<'_>,
) -> PyResult<Wait> {
    made(py, &RANDOM_EXPONENTIAL, vec![multiplier, max, exp_base, min])
}

/// Equal jitter: wait half of what `wait_exponential` would wait with these arguments (`multiplier * exp_base ** n` seconds, at
/// least `min` and at most `max`), plus a random time up to the other half.
#[pyfunction]
#[pyo3(signature = (multiplier=Amount::Number(1.0), max=Amount::Number(LONGEST), exp_base=Amount::Number(2.0), min=Amount::Number(0.0)),
       text_signature = "(multiplier=1, max=4.611686018427388e+18, exp_base=2, min=0)")]
fn wait_equal_jitter(py: Python<'_>, multiplier: Amount<'_>, max: Amount<'_>, exp_base: Amount<'_>, min: Amount<'_>) -> PyResult<Wait> {
    made(py, &EQUAL_JITTER, vec![multiplier, max, exp_base, min])
}

/// Wait `initial * exp_base ** n` seconds plus a random time up to `jitter`, together at most `max`.
#[pyfunction]
#[pyo3(signature = (initial=Amount::Number(1.0), max=Amount::Number(LONGEST), exp_base=Amount::Number(2.0), jitter=Amount::Number(1.0)),
       text_signature = "(initial=1, max=4.611686018427388e+18, exp_base=2, jitter=1)")]
fn wait_exponential_jitter(
    py: Python<'_>,
    initial: Amount<'_>,
    max: Amount<'_>,
    exp_base: Amount<'_>,
    jitter: Amount<'_>,
) -> PyResult<Wait> {
    made(py, &EXPONENTIAL_JITTER, vec![initial, max, exp_base, jitter])
}

/// Wait a random time between `initial` and three times the wait before, at most `max` seconds.
#[pyfunction]
#[pyo3(signature = (initial=Amount::Number(1.0), max=Amount::Number(LONGEST)), text_signature = "(initial=1, max=4.611686018427388e+18)")]
fn wait_decorrelated_jitter(py: Python<'_>, initial: Amount<'_>, max: Amount<'_>) -> PyResult<Wait> {
    made(py, &DECORRELATED, vec![initial, max])
}

/// What the OpenAI SDK waits, and Retry where nothing is said: 0.5 s doubling to 8 s, times 0.75 to 1.
#[pyfunction]
fn wait_sdk() -> Wait {
    Wait { rule: Arc::new(Backoff::Sdk) }
}

/// One wait per attempt, in the order of these `strategies` (`wait_…` objects); the last one from there on.
#[pyfunction]
#[pyo3(signature = (*strategies))]
fn wait_chain(py: Python<'_>, strategies: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
    one_of(py, &CHAIN, strategies, Backoff::Chain)
}

/// All these `strategies` (`wait_…` objects), one after the other; also written `a + b`.
#[pyfunction]
#[pyo3(signature = (*strategies))]
fn wait_combine(py: Python<'_>, strategies: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
    one_of(py, &COMBINE, strategies, Backoff::Sum)
}

/// Adds the class and the words to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Wait>()?;
    m.add_function(wrap_pyfunction!(wait_fixed, m)?)?;
    m.add_function(wrap_pyfunction!(wait_none, m)?)?;
    m.add_function(wrap_pyfunction!(wait_random, m)?)?;
    m.add_function(wrap_pyfunction!(wait_incrementing, m)?)?;
    m.add_function(wrap_pyfunction!(wait_exponential, m)?)?;
    m.add_function(wrap_pyfunction!(wait_random_exponential, m)?)?;
    m.add("wait_full_jitter", m.getattr("wait_random_exponential")?)?;
    m.add_function(wrap_pyfunction!(wait_equal_jitter, m)?)?;
    m.add_function(wrap_pyfunction!(wait_exponential_jitter, m)?)?;
    m.add_function(wrap_pyfunction!(wait_decorrelated_jitter, m)?)?;
    m.add_function(wrap_pyfunction!(wait_sdk, m)?)?;
    m.add_function(wrap_pyfunction!(wait_chain, m)?)?;
    m.add_function(wrap_pyfunction!(wait_combine, m)?)
}
