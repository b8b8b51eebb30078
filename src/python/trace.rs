//! Spans of calls, made in Python: a tracer is asked for one where a call begins, in the caller's own context, and told by a thread of
//! Python's how the call went. The thread that carries the client's calls only leaves word.

use super::slots;
use crate::drive::clock;
use crate::engine::Instant;
use crate::stats::Source;
use crate::telemetry::speech::{self, Line};
use crate::telemetry::{Call, Note, Request, Trace};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;
use tracing::Level;

/// Adds the classes and functions of this file to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Told>()?;
    m.add_function(wrap_pyfunction!(set_tracer, m)?)?;
    m.add_function(wrap_pyfunction!(listen_core, m)?)?;
    m.add_function(wrap_pyfunction!(wait_told, m)?)?;
    m.add_function(wrap_pyfunction!(wake_told, m)?)?;
    m.add_function(wrap_pyfunction!(take_told, m)?)?;
    m.add_function(wrap_pyfunction!(forget_told, m)?)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether anybody makes spans.
static IS_ON: AtomicBool = AtomicBool::new(false);
static TRACER: Mutex<Option<Py<PyAny>>> = Mutex::new(None);

/// Whether calls are followed.
#[inline]
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// `tracer.begin(operation, pipeline, model, endpoint, begun)` is asked for a span of each call that begins from now on; `None`: nobody is.
#[pyfunction]
fn set_tracer(tracer: Option<Py<PyAny>>) {
    IS_ON.store(tracer.is_some(), Ordering::Relaxed);
    let old = std::mem::replace(&mut *locked(&TRACER), tracer);
    drop(old);
}

/// One thing to tell.
enum Word {
    Ended(Py<PyAny>, Box<Told>),
    Said(Line),
}

/// What waits to be told, how much of it was lost, and who tells it. The locks are held by those alone who hold the interpreter's
/// lock, or by the thread that forks find standing still: a forked child finds them free.
#[derive(Default)]
struct Desk {
    words: VecDeque<Word>,
    lost: u64,
    reader: Option<Thread>,
}

/// So much waits at most; then the oldest goes.
const MOST: usize = 50_000;

static DESK: Mutex<Desk> = Mutex::new(Desk { words: VecDeque::new(), lost: 0, reader: None });

fn leave(word: Word) {
    let dropped;
    let reader = {
        let mut desk = locked(&DESK);
        dropped = if desk.words.len() >= MOST { desk.words.pop_front() } else { None };
        desk.lost += u64::from(dropped.is_some());
        desk.words.push_back(word);
        if desk.words.len() == 1 { desk.reader.clone() } else { None }
    };
    if let Some(reader) = reader {
        reader.unpark();
    }
    drop(dropped);
}

/// Waits until there is something to tell, or so many seconds.
#[pyfunction]
fn wait_told(py: Python<'_>, seconds: f64) {
    {
        let mut desk = locked(&DESK);
        if !desk.words.is_empty() {
            return;
        }
        desk.reader = Some(std::thread::current());
    }
    py.detach(|| std::thread::park_timeout(Duration::from_secs_f64(seconds)));
}

/// Ends the wait of whoever waits.
#[pyfunction]
fn wake_told() {
    let reader = locked(&DESK).reader.clone();
    if let Some(reader) = reader {
        reader.unpark();
    }
}

type Telling = (Option<Py<PyAny>>, Py<PyAny>);

/// What there is to tell, oldest first: `(span, told)`, or `(None, (level, target, text, time))` for what the core said; and how many
/// were lost since it was asked last.
#[pyfunction]
fn take_told(py: Python<'_>) -> PyResult<(Vec<Telling>, u64)> {
    let (words, lost) = {
        let mut desk = locked(&DESK);
        (std::mem::take(&mut desk.words), std::mem::take(&mut desk.lost))
    };
    let told = |word| match word {
        Word::Ended(span, told) => Ok((Some(span), Py::new(py, *told)?.into_any())),
        Word::Said(line) => {
            let told = (number(line.level), line.target, line.text, line.at_ns as f64 / 1e9);
            Ok((None, told.into_pyobject(py)?.into_any().unbind()))
        }
    };
    Ok((words.into_iter().map(told).collect::<PyResult<_>>()?, lost))
}

/// As Python's logging counts levels.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

/// From now on what the core says is left to be told, if it is at least so loud; `None`: nothing is.
#[pyfunction]
fn listen_core(level: Option<u8>) {
    let level = level.map(|level| match level {
        0..10 => Level::TRACE,
        10..20 => Level::DEBUG,
        20..30 => Level::INFO,
        30..40 => Level::WARN,
        40.. => Level::ERROR,
    });
    speech::listen(level, |line| leave(Word::Said(line)));
}

/// A forked child tells nothing of its parent's.
#[pyfunction]
fn forget_told() {
    let old = std::mem::take(&mut *locked(&DESK));
    drop(old);
}

type ToldRequest = (&'static str, &'static str, u64, Option<u64>, &'static str, Option<u16>, Option<String>);
type ToldNote = (u64, &'static str, &'static str, u32, f64, &'static str, &'static str);

/// How a call went. Times are Unix times in nanoseconds.
#[pyclass(frozen, get_all, module = "seawall._seawall")]
pub struct Told {
    operation: &'static str,
    ended: u64,
    /// `None`: it was given up.
    ok: Option<bool>,
    error: &'static str,
    is_stream: bool,
    pipeline: &'static str,
    model: &'static str,
    endpoint: &'static str,
    answered_by: Option<String>,
    attempts: u32,
    retries: u32,
    fallback: bool,
    seconds: f64,
    first_token: f64,
    prompt_tokens: u32,
    tokens: u32,
    cost: f64,
    /// `(model, endpoint, began, ended, error, status, request_id)`
    requests: Vec<ToldRequest>,
    /// `(at, name, place, number, seconds, reason, error)`
    notes: Vec<ToldNote>,
}

fn requests(begun_ns: u64, requests: &[Request]) -> Vec<ToldRequest> {
    let request = |request: &Request| {
        let began = begun_ns.saturating_add(request.started_ns);
        let ended = request.took_ns.map(|took| began.saturating_add(took));
        let (model, endpoint) = (request.source.model().as_str(), request.source.endpoint().as_str());
        (model, endpoint, began, ended, request.error.as_str(), request.status, request.request_id.clone())
    };
    requests.iter().map(request).collect()
}

impl Told {
    fn of(call: &Call) -> Told {
        let (record, source) = (&call.record, call.record.source);
        let note = |note: &Note| {
            let at = call.begun_ns.saturating_add(note.at_ns);
            (at, note.name.as_str(), note.place.as_str(), note.number, note.span_ns as f64 / 1e9, note.reason, note.error.as_str())
        };
        Told {
            operation: call.operation,
            ended: call.ended_ns(),
            ok: Some(record.ok),
            error: record.error.as_str(),
            is_stream: call.is_stream,
            pipeline: source.pipeline().as_str(),
            model: source.model().as_str(),
            endpoint: source.endpoint().as_str(),
            answered_by: call.answered_by.clone(),
            attempts: record.attempts,
            retries: record.retries,
            fallback: record.fallback,
            seconds: record.latency_ns as f64 / 1e9,
            first_token: record.first_token_ns as f64 / 1e9,
            prompt_tokens: record.prompt_tokens,
            tokens: record.tokens,
            cost: record.cost_nano as f64 / 1e9,
            requests: requests(call.begun_ns, &call.requests),
            notes: call.notes.iter().map(note).collect(),
        }
    }

    fn given_up(operation: &'static str, begun_ns: u64, sent: &[Request]) -> Told {
        let now = clock::unix(clock::now());
        let source = sent.first().map_or(Source::NONE, |request| request.source);
        Told {
            operation,
            ended: now,
            ok: None,
            error: "",
            is_stream: false,
            pipeline: source.pipeline().as_str(),
            model: source.model().as_str(),
            endpoint: source.endpoint().as_str(),
            answered_by: None,
            attempts: sent.len() as u32,
            retries: 0,
            fallback: false,
            seconds: now.saturating_sub(begun_ns) as f64 / 1e9,
            first_token: 0.0,
            prompt_tokens: 0,
            tokens: 0,
            cost: 0.0,
            requests: requests(begun_ns, sent),
            notes: Vec::new(),
        }
    }
}

/// A call that is followed.
pub struct Traced {
    /// What the tracer gave; taken when it is told.
    span: Mutex<Option<Py<PyAny>>>,
    operation: &'static str,
    begun_ns: u64,
    has_begun: AtomicBool,
    headers: HeaderMap,
}

impl Traced {
    /// Asks the tracer for a span. What goes wrong with it is shown, and changes no call.
    #[cold]
    fn asked(py: Python<'_>, operation: &'static str, source: Source, pipeline: &str, begun: Instant) -> Option<Traced> {
        let tracer = locked(&TRACER).as_ref().map(|tracer| tracer.clone_ref(py))?;
        let begun_ns = clock::unix(begun);
        let arguments = (operation, pipeline, source.model().as_str(), source.endpoint().as_str(), begun_ns);
        let made = || -> PyResult<Option<Traced>> {
            let span = tracer.bind(py).call_method1(intern!(py, "begin"), arguments)?;
            if span.is_none() {
                return Ok(None);
            }
            let mut headers = HeaderMap::new();
            for (name, value) in span.getattr(intern!(py, "headers"))?.cast::<PyDict>()? {
                if let (Ok(name), Ok(value)) =
                    (name.extract::<String>()?.parse::<HeaderName>(), value.extract::<String>()?.parse::<HeaderValue>())
                {
                    headers.insert(name, value);
                }
            }
            let span = Mutex::new(Some(span.unbind()));
            Ok(Some(Traced { span, operation, begun_ns, has_begun: AtomicBool::new(false), headers }))
        };
        made().unwrap_or_else(|error| {
            error.write_unraisable(py, Some(tracer.bind(py)));
            None
        })
    }

    /// Of a call of a guarded function that begins now.
    pub fn of_a_function(py: Python<'_>, pipeline: &str, begun: Instant) -> Option<Traced> {
        let traced = Traced::asked(py, "call", Source::NONE, pipeline, begun)?;
        traced.has_begun.store(true, Ordering::Relaxed);
        Some(traced)
    }

    /// Of a call of a model that may begin, by the thread that carries them.
    pub fn of_a_model(py: Python<'_>, operation: &'static str, source: Source) -> Option<Arc<dyn Trace>> {
        let traced = Traced::asked(py, operation, source, source.pipeline().as_str(), clock::now())?;
        Some(Arc::new(traced))
    }

    fn tell(&self, told: impl FnOnce() -> Told) {
        let span = locked(&self.span).take();
        if let Some(span) = span {
            leave(Word::Ended(span, Box::new(told())));
        }
    }

    fn ask(&self, py: Python<'_>, method: &str) {
        let span = locked(&self.span).as_ref().map(|span| span.clone_ref(py));
        if let Some(span) = span
            && let Err(error) = span.bind(py).call_method0(method)
        {
            error.write_unraisable(py, Some(span.bind(py)));
        }
    }

    /// Runs a part of the call with its span as the current one.
    pub fn around<T>(&self, py: Python<'_>, body: impl FnOnce() -> T) -> T {
        self.ask(py, "enter");
        let given = body();
        self.ask(py, "leave");
        given
    }
}

impl Trace for Traced {
    fn begun(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    fn ended(&self, call: &Call) {
        self.tell(|| Told::of(call));
    }

    fn abandoned(&self, begun_ns: u64, requests: &[Request]) {
        self.tell(|| Told::given_up(self.operation, begun_ns, requests));
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // One that never began is no call.
        if self.has_begun.load(Ordering::Relaxed) {
            self.tell(|| Told::given_up(self.operation, self.begun_ns, &[]));
        }
    }
}

/// The name of a pipeline or function, where spans are made.
pub fn begin(py: Python<'_>, name: impl FnOnce() -> String, begun: Instant) -> Option<Traced> {
    if is_on() { slots::attached(|_| Traced::of_a_function(py, &name(), begun)) } else { None }
}
