//! `Guardrails`, and the rules that they are made of.

use super::convert::{self, quoted};
use super::errors::{class, configuration, ours, wrong_type};
use super::policies::circuit_breaker::short_repr;
use crate::drive::clock;
use crate::engine::{Event, StageId};
use crate::events::Name;
use crate::guardrails::pattern::{Pattern, Patterns};
use crate::guardrails::{
    self as core, Check, Detector, Fit, Found, Interrupt, Looked, MAX_HELD, Rails, Refusal, Rule, Shape, Stop, Tally, Text, Vault, known,
};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

fn interrupt(error: PyErr) -> Interrupt {
    Arc::new(error)
}

const GONE: &str = "the interpreter is shutting down";

/// A user's own detector: a function of the text that gives nothing, why it is refused, or what is cut out of it, by characters.
struct Asked(Py<PyAny>);

impl Detector for Asked {
    fn look(&self, text: &str) -> Result<Looked, Interrupt> {
        let looked = |py: Python<'_>| {
            let given = self.0.bind(py).call1((text,))?;
            if given.is_none() {
                return Ok(Looked::Cut(Vec::new()));
            }
            if let Ok(why) = given.extract::<String>() {
                return Ok(Looked::Refused(why));
            }
            let spans: Vec<(usize, usize, String)> = given.extract()?;
            // In order, as they were checked: each character is passed once.
            let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]).enumerate();
            let mut byte = |wanted: usize| places.find(|(number, _)| *number == wanted).map_or(text.len(), |(_, at)| at);
            let mut found = Vec::with_capacity(spans.len());
            let mut last = (0, 0);
            for (start, end, replacement) in spans {
                let begin = if start == last.0 { last.1 } else { byte(start) };
                last = (end, byte(end));
                found.push(Found { start: begin, end: last.1, replacement });
            }
            Ok(Looked::Cut(found))
        };
        Python::try_attach(looked).unwrap_or_else(|| Ok(Looked::Refused(GONE.to_owned()))).map_err(interrupt)
    }
}

/// A shape: a function of the text that gives what it was read as, or why it does not fit and what its maker is told.
struct Fitting(Py<PyAny>);

impl Shape for Fitting {
    fn fit(&self, text: &str) -> Result<Fit, Interrupt> {
        let fitted = |py: Python<'_>| {
            let (parsed, why): (Py<PyAny>, Option<(String, String)>) = self.0.bind(py).call1((text,))?.extract()?;
            Ok(match why {
                None => Fit::Fits(Arc::new(parsed)),
                Some((why, told)) => Fit::Fails { why, told },
            })
        };
        let gone = || Ok(Fit::Fails { why: GONE.to_owned(), told: GONE.to_owned() });
        Python::try_attach(fitted).unwrap_or_else(gone).map_err(interrupt)
    }
}

/// What a shape has read.
pub fn parsed(py: Python<'_>, tally: &Tally) -> Option<Py<PyAny>> {
    tally.parsed.as_ref()?.downcast_ref::<Py<PyAny>>().map(|parsed| parsed.clone_ref(py))
}

/// What was done, each as (what, which rule, how often).
pub fn applied<'py>(py: Python<'py>, tallies: [&Tally; 2]) -> PyResult<Bound<'py, PyTuple>> {
    static APPLIED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let mut rows = Vec::new();
    for (tally, direction) in tallies.into_iter().zip(["input", "output"]) {
        let redacted = tally.redacted.iter().map(|(rule, count)| ("redacted", &**rule, *count));
        let repaired = tally.repaired.iter().map(|rule| ("repaired", &**rule, 1));
        for (what, rule, count) in redacted.chain(repaired) {
            rows.push(ours(py, &APPLIED, "seawall._guardrails", "Applied")?.call1((what, direction, rule, count))?);
        }
    }
    PyTuple::new(py, rows)
}

/// What was done to a question and to its answer, as a pickled reply has it: which rules have replaced how much, which shapes were
/// mended, and what a shape has read.
pub type Done = (Vec<(String, u32)>, Vec<(String, u32)>, Vec<String>, Option<Py<PyAny>>);

/// What tallies hold, to be pickled. What was read goes along if it can be pickled.
pub fn done(py: Python<'_>, input: &Tally, output: &Tally) -> PyResult<Done> {
    static PACKED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let redacted = |tally: &Tally| tally.redacted.iter().map(|(rule, count)| (rule.to_string(), *count)).collect();
    let repaired = output.repaired.iter().map(|rule| rule.to_string()).collect();
    let read = match parsed(py, output) {
        Some(read) => ours(py, &PACKED, "seawall._guardrails", "packed")?.call1((read,))?.extract()?,
        None => None,
    };
    Ok((redacted(input), redacted(output), repaired, read))
}

/// The tallies again: that of the question, and into `output` that of the answer.
pub fn redone(py: Python<'_>, (asked, answered, repaired, read): Done, output: &mut Tally) -> PyResult<Tally> {
    static UNPACKED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let tally = |rows: Vec<(String, u32)>| Tally {
        redacted: rows.into_iter().map(|(rule, count)| (rule.into(), count)).collect(),
        ..Tally::default()
    };
    *output = tally(answered);
    output.repaired = repaired.into_iter().map(Into::into).collect();
    if let Some(read) = read {
        let read: Py<PyAny> = ours(py, &UNPACKED, "seawall._guardrails", "unpacked")?.call1((read,))?.unbind();
        output.parsed = Some(Arc::new(read));
    }
    Ok(tally(asked))
}

/// A rule, made ready.
#[pyclass(frozen, module = "seawall")]
pub struct Rail {
    rule: Arc<Rule>,
}

impl Rail {
    fn of(name: &str, check: Check) -> Rail {
        Rail { rule: Arc::new(Rule { name: name.into(), check }) }
    }
}

fn patterns(py: Python<'_>, given: Vec<(String, String, String)>) -> PyResult<Arc<Patterns>> {
    let texts: Vec<String> = given.iter().map(|(_, text, _)| text.clone()).collect();
    let pattern = |(label, text, replacement): (String, String, String)| Pattern {
        label: label.into(),
        text: text.into(),
        replacement: replacement.into(),
        closer: None,
    };
    Patterns::new(given.into_iter().map(pattern).collect()).map(Arc::new).map_err(|(at, wrong)| {
        let text = texts.get(at).map_or_else(String::new, |text| quoted(py, text));
        configuration(py, &format!("the pattern {text} is no good here: {wrong}"))
    })
}

#[pymethods]
impl Rail {
    #[staticmethod]
    fn length(name: &str, most: usize) -> Rail {
        Rail::of(name, Check::Length(most))
    }

    #[staticmethod]
    fn tokens(name: &str, most: usize) -> Rail {
        Rail::of(name, Check::Tokens(most))
    }

    /// Patterns as (label, pattern, "").
    #[staticmethod]
    fn forbid(py: Python<'_>, name: &str, given: Vec<(String, String, String)>) -> PyResult<Rail> {
        Ok(Rail::of(name, Check::Forbid(patterns(py, given)?)))
    }

    /// Patterns as (label, pattern, replacement).
    #[staticmethod]
    fn redact(py: Python<'_>, name: &str, given: Vec<(String, String, String)>, restore: bool) -> PyResult<Rail> {
        Ok(Rail::of(name, Check::Redact { patterns: patterns(py, given)?, restore }))
    }

    #[staticmethod]
    fn secrets(name: &str, restore: bool) -> Rail {
        Rail::of(name, Check::Redact { patterns: known::secrets(), restore })
    }

    #[staticmethod]
    fn personal(name: &str, restore: bool) -> Rail {
        Rail::of(name, Check::Redact { patterns: known::personal(), restore })
    }

    #[staticmethod]
    fn ask(name: &str, look: Py<PyAny>) -> Rail {
        Rail::of(name, Check::Ask(Box::new(Asked(look))))
    }

    #[staticmethod]
    fn shape(name: &str, fit: Py<PyAny>, repair: bool, reask: u32) -> Rail {
        Rail::of(name, Check::Shape { shape: Box::new(Fitting(fit)), repair, reask })
    }
}

/// The rules for what is asked and for what is answered.
///
/// ```python
/// from seawall.guardrails import MaxLength, Redact
///
/// rails = seawall.Guardrails(input=[MaxLength(20_000), Redact.secrets()], output=[Redact.personal()])
///
/// @seawall.guard(guardrails=rails)
/// def ask(question): ...
/// ```
///
/// `input` and `output` are lists of the rules of `seawall.guardrails`, in order: each sees what the one before it has left. What is
/// asked is looked at before anything else, a cache included, and a refusal costs no request; what is answered is looked at
/// inside the retries. `of` names the argument of a function that is looked at; else it is `messages`, or the first text or list
/// of messages. A stream hands out what no rule could still mean; `max_held` bytes (16,384) of it are held back at the most.
///
/// Raises `ConfigurationError` for what are no rules, and for a `Shape` in `input`.
#[pyclass(frozen, module = "seawall", subclass, weakref)]
pub struct Guardrails {
    #[pyo3(get)]
    input: Py<PyTuple>,
    #[pyo3(get)]
    output: Py<PyTuple>,
    #[pyo3(get)]
    of: Option<String>,
    #[pyo3(get)]
    max_held: usize,
    pub asked: Arc<Rails>,
    pub answered: Arc<Rails>,
    /// The rules for texts of answers that are JSON, where these are others.
    in_json: Option<Arc<Rails>>,
}

fn rules<'py>(name: &str, given: Option<&Bound<'py, PyAny>>, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Vec<Arc<Rule>>)> {
    let Some(given) = given else { return Ok((PyTuple::empty(py), Vec::new())) };
    let wrong = |what: &Bound<'py, PyAny>| {
        let text =
            format!("{name} must be a list of rules of seawall.guardrails (MaxLength, Forbidden, Redact, …), not {}", short_repr(what));
        wrong_type(py, &text)
    };
    let mut kept = Vec::new();
    let mut made = Vec::new();
    if given.cast::<pyo3::types::PyString>().is_ok() {
        return Err(wrong(given));
    }
    for (place, rule) in given.try_iter().map_err(|_| wrong(given))?.enumerate() {
        let rule = rule?;
        let rail = rule.getattr_opt("_rail")?.and_then(|rail| rail.cast_into::<Rail>().ok()).ok_or_else(|| {
            let kind = "a rule of seawall.guardrails, made by a call, as in MaxLength(2000)";
            wrong_type(py, &format!("{name}[{place}] must be {kind}, not {}", short_repr(&rule)))
        })?;
        made.push(rail.get().rule.clone());
        kept.push(rule);
    }
    Ok((PyTuple::new(py, kept)?, made))
}

#[pymethods]
impl Guardrails {
    #[new]
    #[pyo3(signature = (*, input=None, output=None, of=None, max_held=None))]
    fn new(
        py: Python<'_>,
        input: Option<Bound<'_, PyAny>>,
        output: Option<Bound<'_, PyAny>>,
        of: Option<Bound<'_, PyAny>>,
        max_held: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Guardrails> {
        let of = convert::optional("of", of.as_ref(), convert::text)?;
        let max_held = match convert::optional("max_held", max_held.as_ref(), |name, value| convert::whole(name, value, 1, 1 << 30))? {
            None => MAX_HELD,
            Some(most) => most as usize,
        };
        let (input, asked) = rules("input", input.as_ref(), py)?;
        let (output, answered) = rules("output", output.as_ref(), py)?;
        if asked.iter().any(|rule| matches!(rule.check, Check::Shape { .. })) {
            return Err(configuration(py, "input must hold no Shape: it is about what a model answers. Put it into output"));
        }
        let rails = |rules| Arc::new(Rails { rules, max_held });
        let (asked, answered) = (rails(asked), rails(answered));
        if answered.restores() {
            return Err(configuration(
                py,
                "output must hold no Redact(restore=True): what is put back is what was asked. Put it into input",
            ));
        }
        Ok(Guardrails { input: input.unbind(), output: output.unbind(), of, max_held, asked, answered, in_json: None })
    }

    /// What is asked, as the rules leave it: a text, or messages.
    ///
    /// Raises `InputRefusedError` where a rule refuses it.
    fn check_input<'py>(slf: &Bound<'py, Self>, input: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        static CHECK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ours(slf.py(), &CHECK, "seawall._guardrails", "check_input")?.call1((slf, input))
    }

    /// What was answered, as the rules leave it: a text, or what a client gives.
    ///
    /// Raises `OutputRefusedError` where a rule refuses it, `OutputShapeError` where it is not of the shape.
    fn check_output<'py>(slf: &Bound<'py, Self>, output: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        static CHECK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ours(slf.py(), &CHECK, "seawall._guardrails", "check_output")?.call1((slf, output))
    }

    /// The texts that come in pieces, as the rules for answers leave them: what is given out is what the whole would have become.
    fn stream<'py>(slf: &Bound<'py, Self>, pieces: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        static STREAM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ours(slf.py(), &STREAM, "seawall._screen", "stream")?.call1((slf, pieces))
    }

    /// As `stream`, of an asynchronous iterator.
    fn astream<'py>(slf: &Bound<'py, Self>, pieces: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        static STREAM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ours(slf.py(), &STREAM, "seawall._screen", "astream")?.call1((slf, pieces))
    }

    /// Looks at (place, text) pairs; gives the texts, what was cut out of them, as (rule, times), and what of that is to be put back
    /// into the answer, as (placeholder, value).
    fn _check<'py>(&self, py: Python<'py>, direction: &str, texts: Vec<(String, String)>) -> PyResult<Checked> {
        let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let rails = match (direction, &self.in_json) {
            ("input", _) => &self.asked,
            (_, Some(in_json)) if texts.iter().all(|(_, text)| is_json(text)) => in_json,
            _ => &self.answered,
        };
        let mut looked: Vec<Text<'_>> = texts.into_iter().map(|(place, text)| Text { place, text: Cow::Owned(text) }).collect();
        let tally = rails.check(&mut looked).map_err(|stop| stopped(py, stop, direction))?;
        let redacted = tally.redacted.iter().map(|(rule, count)| (rule.to_string(), *count)).collect();
        let held = tally.vault.pairs().map(|(placeholder, value)| (placeholder.to_owned(), value.to_owned())).collect();
        Ok((looked.into_iter().map(|text| text.text.into_owned()).collect(), redacted, held))
    }

    /// Looks whether a whole answer is of its shape. Gives it mended (or `None`), what it was read as, how often it was mended, and
    /// where it may be asked for again what its maker is told.
    fn _fit<'py>(&self, py: Python<'py>, place: &str, text: &str, asked: u32, held: Vec<(String, String)>) -> PyResult<Fitted> {
        match self.answered.fit(place, text, None, &Vault::of(held)) {
            Ok((mended, tally)) => Ok((mended, parsed(py, &tally), tally.repaired.len(), None)),
            Err(Stop::Refused(refusal)) => {
                let told = refusal.again.clone().filter(|(_, most)| asked < *most).map(|(told, _)| told);
                let error = refused(py, &refusal, "output");
                error.value(py).setattr("is_retryable", told.is_some())?;
                Ok((None, None, 0, Some((error.into_value(py).into_any(), told))))
            }
            Err(stop) => Err(stopped(py, stop, "output")),
        }
    }

    /// For a text that comes in pieces.
    fn _filter(&self, place: &str) -> Filter {
        let is_json = ["arguments", "args", "partial_json", "input"].iter().any(|name| place.ends_with(name));
        let rails = self.in_json.as_ref().filter(|_| is_json).unwrap_or(&self.answered);
        Filter { filter: Mutex::new(rails.filter(place.to_owned())), redacted: AtomicU32::new(0) }
    }

    /// Whether something is put back into what is answered.
    fn _restores(&self) -> bool {
        self.asked.restores()
    }

    /// Guardrails that put (placeholder, value) pairs back into what is answered.
    #[staticmethod]
    fn _restoring(py: Python<'_>, held: Vec<(String, String)>) -> Guardrails {
        let (none, vault) = (|| PyTuple::empty(py).unbind(), Vault::of(held));
        let (asked, answered, in_json) = (Arc::default(), Arc::new(vault.rails(false)), Some(Arc::new(vault.rails(true))));
        Guardrails { input: none(), output: none(), of: None, max_held: MAX_HELD, asked, answered, in_json }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        static REMADE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        let parts = (slf.get_type(), &this.input, &this.output, &this.of, this.max_held);
        (ours(py, &REMADE, "seawall._guardrails", "remade")?, parts).into_pyobject(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut parts = Vec::new();
        for (name, rules) in [("input", &self.input), ("output", &self.output)] {
            if rules.bind(py).len() > 0 {
                let shown: Vec<String> = rules.bind(py).iter().map(|rule| short_repr(&rule)).collect();
                parts.push(format!("{name}=[{}]", shown.join(", ")));
            }
        }
        parts.extend(self.of.as_ref().map(|of| format!("of={}", quoted(py, of))));
        parts.extend((self.max_held != MAX_HELD).then(|| format!("max_held={}", self.max_held)));
        Ok(format!("Guardrails({})", parts.join(", ")))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.input)?;
        visit.call(&self.output)
    }
}

/// Texts as they are left, what was cut out of them, as (rule, times), and what is to be put back, as (placeholder, value).
type Checked = (Vec<String>, Vec<(String, u32)>, Vec<(String, String)>);
/// An answer mended, what it was read as, how often it was mended; its refusal, and what its maker may be told.
type Fitted = (Option<String>, Option<Py<PyAny>>, usize, Option<(Py<PyAny>, Option<String>)>);

impl Guardrails {
    /// What answers have passed, in words that tell two sets of rules apart in any process.
    pub fn described(&self, py: Python<'_>) -> PyResult<String> {
        let described = |rule: Bound<'_, PyAny>| -> PyResult<String> { rule.call_method0("_described")?.extract() };
        let rules: Vec<String> = self.output.bind(py).iter().map(described).collect::<PyResult<_>>()?;
        Ok(rules.join("\n"))
    }
}

/// A text that comes in pieces.
#[pyclass(frozen, module = "seawall")]
pub struct Filter {
    filter: Mutex<core::Filter>,
    /// How much it had cut out when it was over.
    redacted: AtomicU32,
}

#[pymethods]
impl Filter {
    /// How much was cut out of a text that is over.
    fn redacted(&self) -> u32 {
        self.redacted.load(Ordering::Relaxed)
    }

    fn push(&self, py: Python<'_>, piece: &str) -> PyResult<String> {
        let pushed = self.filter.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
        pushed.map_err(|refusal| refused(py, &refusal, "output"))
    }

    /// The rest.
    fn end(&self, py: Python<'_>) -> PyResult<String> {
        // Detectors are asked under no lock.
        let empty = Rails::default().filter(String::new());
        let mut filter = std::mem::replace(&mut *self.filter.lock().unwrap_or_else(PoisonError::into_inner), empty);
        let rest = filter.end().map_err(|stop| stopped(py, stop, "output"))?;
        self.redacted.store(filter.tally.redactions(), Ordering::Relaxed);
        Ok(rest)
    }
}

/// What a refusal is raised as.
pub fn refused(py: Python<'_>, refusal: &Refusal, direction: &str) -> PyErr {
    let name = match (direction, refusal.is_shape) {
        ("input", _) => "InputRefusedError",
        (_, true) => "OutputShapeError",
        (_, false) => "OutputRefusedError",
    };
    let made = || {
        let what = if direction == "input" { "what is asked" } else { "the answer" };
        let message = format!("{what} was refused by the guardrail \"{}\" ({}): {}", refusal.rule, refusal.place, refusal.why);
        let fields = PyDict::new(py);
        fields.set_item("rule", &*refusal.rule)?;
        fields.set_item("place", &*refusal.place)?;
        class(py, name)?.call((message,), Some(&fields))
    };
    made().map_or_else(|failed| failed, PyErr::from_value)
}

/// What a check that came to no end is raised as.
pub fn stopped(py: Python<'_>, stop: Stop, direction: &str) -> PyErr {
    match stop {
        Stop::Refused(refusal) => refused(py, &refusal, direction),
        Stop::Interrupted(raised) => match raised.downcast_ref::<PyErr>() {
            Some(error) => error.clone_ref(py),
            None => configuration(py, "a guardrail was interrupted"),
        },
    }
}

/// What was done with what a call is asked, before it began; it is told as all events are.
pub fn before(stage: StageId, name: Name, number: u32) -> Event {
    let now = clock::now();
    Event { at: now, stage, name, number, span: Duration::ZERO, begun: now, outcome: None, reason: "input" }
}
