//! The story of a guarded call: its attempts and what policies did, kept cheaply, and made into Python's records for whoever asks.

use super::compiled::Labels;
use super::errors::ours;
use super::log;
use crate::engine::{CallId, Event, Instant, Spare, StageId, Target};
use crate::events::Name;
use crate::stats::{Source, Word};
use crate::telemetry::{GIVEN_UP, Note, Request};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};
use std::mem::take;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// So many attempts, and things that policies did, are kept of a call; of what is more the middle goes.
const MOST: usize = 64;

/// Most calls that are tried again are so a few times: the list then grows once.
pub const FEW: usize = 12;

fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == MOST {
        list.remove(MOST / 2);
    }
}

thread_local! {
    static SPARE: (Spare<Tried>, Spare<Noted>) = const { (Spare::none(), Spare::none()) };
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// One attempt that is over.
struct Tried {
    target: Target,
    started: Instant,
    /// `None`: it was given up, since another one answered first.
    ended: Option<Instant>,
    /// The name of its exception's class; a time limit has none.
    error: Word,
    status: Option<u16>,
    is_cut: bool,
    waited: Option<Duration>,
}

/// One thing that a policy did.
struct Noted {
    at: Instant,
    name: Name,
    stage: StageId,
    number: u32,
    span: Duration,
    reason: &'static str,
    error: Word,
}

/// What is told of a call.
#[derive(Default)]
pub struct Pages {
    begun: Instant,
    tried: Vec<Tried>,
    noted: Vec<Noted>,
}

/// What a call remembers for its story.
pub struct Diary {
    pub pages: Pages,
    /// When the attempt under way began, as near as is known without another look at the clock.
    mark: Instant,
    first_item: Instant,
    target: AtomicUsize,
    is_open: AtomicBool,
    /// Attempts that run beside each other: which, of what, since when.
    beside: Vec<(CallId, Target, Instant)>,
}

impl Tried {
    fn took(&self) -> Option<Duration> {
        self.ended.map(|ended| ended.since(self.started))
    }
}

impl Diary {
    /// Nothing has happened yet.
    #[inline(always)] // made where it lies, each list by itself: a pair of them would be written in pieces and read whole
    pub fn new() -> Diary {
        let tried = SPARE.try_with(|spare| spare.0.take(FEW)).unwrap_or_default();
        let noted = SPARE.try_with(|spare| spare.1.take(FEW)).unwrap_or_default();
        Diary {
            pages: Pages { begun: Instant::default(), tried, noted },
            mark: Instant::default(),
            first_item: Instant::default(),
            target: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
            beside: Vec::new(),
        }
    }

    /// The call begins.
    pub fn begin(&mut self, now: Instant) {
        (self.pages.begun, self.mark) = (now, now);
    }

    /// An attempt begins.
    pub fn started(&self, target: Target) {
        self.target.store(target.0, Ordering::Relaxed);
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// The attempt under way is over.
    pub fn ended(&mut self, now: Instant, error: Option<(&Bound<'_, PyAny>, Word)>) -> PyResult<()> {
        if !take(self.is_open.get_mut()) {
            return Ok(());
        }
        let status = error.map_or(Ok(None), |(error, _)| log::status_of(error))?;
        self.tried(now, error.map_or(Word::NONE, |(_, name)| name), status, false);
        Ok(())
    }

    /// No attempt is under way any more: one that was, was cut by a time limit.
    pub fn cut(&mut self, now: Instant) {
        if take(self.is_open.get_mut()) {
            self.tried(now, Word::NONE, None, true);
        }
    }

    /// The attempt that has just begun runs in a task or on a thread of its own.
    pub fn aside(&mut self, call: CallId, now: Instant) {
        if take(self.is_open.get_mut()) {
            self.beside.push((call, Target(*self.target.get_mut()), now));
        }
    }

    /// That one of them is the attempt under way from now on: it ends, or gives items.
    pub fn is_back(&mut self, call: CallId) {
        if let Some(at) = self.beside.iter().position(|(beside, ..)| *beside == call) {
            let (_, target, started) = self.beside.swap_remove(at);
            (*self.target.get_mut(), *self.is_open.get_mut(), self.mark) = (target.0, true, started);
        }
    }

    /// That one of them is given up: since another one answered first, or else by a time limit.
    pub fn is_left(&mut self, call: CallId, beaten: bool, now: Instant) {
        let Some(at) = self.beside.iter().position(|(beside, ..)| *beside == call) else { return };
        let (_, target, started) = self.beside.swap_remove(at);
        let ended = (!beaten).then_some(now);
        self.keep(Tried { target, started, ended, error: Word::NONE, status: None, is_cut: !beaten, waited: None });
    }

    /// In the order in which they began.
    #[inline(always)] // it lies where it is made: handed over it would be copied from there
    fn keep(&mut self, tried: Tried) {
        make_room(&mut self.pages.tried);
        match self.pages.tried.last() {
            Some(last) if last.started > tried.started => {
                let place = self.pages.tried.partition_point(|other| other.started <= tried.started);
                self.pages.tried.insert(place, tried);
            }
            _ => self.pages.tried.push(tried),
        }
    }

    /// The call is given up, and the attempt under way with it. What was tried, as everybody is told of it.
    pub fn left(&mut self, now: Instant, source: Source) -> Vec<Request> {
        while let Some((call, ..)) = self.beside.last() {
            self.is_left(*call, true, now);
        }
        let is_open = take(self.is_open.get_mut());
        if is_open {
            self.tried(now, Word::NONE, None, true);
        }
        let mut requests = self.pages.requests(source);
        if let (true, Some(last)) = (is_open, requests.last_mut()) {
            (last.error, last.took_ns) = (Word::of(GIVEN_UP), None);
        }
        requests
    }

    fn tried(&mut self, now: Instant, error: Word, status: Option<u16>, is_cut: bool) {
        let (target, started) = (Target(*self.target.get_mut()), self.mark);
        self.keep(Tried { target, started, ended: Some(now), error, status, is_cut, waited: None });
        self.mark = now;
    }

    /// The wait that was scheduled at that time follows the last attempt; so may another one, where a limit turned the call away.
    pub fn waits(&mut self, at: Instant, wait: Duration) {
        if let Some(last) = self.pages.tried.last_mut() {
            last.waited = Some(last.waited.map_or(wait, |before| before.saturating_add(wait)));
        }
        self.mark = if wait.is_zero() { at } else { at.after(wait) };
    }

    /// The next attempt begins at that time, after a wait for another call or for its turn.
    pub fn begins(&mut self, at: Instant) {
        self.mark = at;
    }

    /// A policy did something.
    pub fn note(&mut self, event: &Event, error: Word) {
        let (at, name, stage, number, span, reason) = (event.at, event.name, event.stage, event.number, event.span, event.reason);
        make_room(&mut self.pages.noted);
        self.pages.noted.push(Noted { at, name, stage, number, span, reason, error });
    }

    /// The first item of a stream is there.
    pub fn first_item(&mut self, now: Instant) {
        if self.first_item == Instant::default() {
            self.first_item = now;
        }
    }

    /// From the call's beginning to the first item of its stream, in nanoseconds; 0 without one.
    pub fn first_item_ns(&self) -> u64 {
        self.first_item.0.saturating_sub(self.pages.begun.0)
    }
}

impl Pages {
    /// Whether it is more than one success, or one refusal, at once.
    pub fn is_worth_telling(&self) -> bool {
        self.tried.len() + self.noted.len() > 1 || self.tried.iter().any(|tried| tried.is_cut || tried.error.is_some())
    }

    /// The attempts as everybody is told of them.
    pub fn requests(&self, source: Source) -> Vec<Request> {
        let request = |tried: &Tried| Request {
            source,
            started_ns: nanos(tried.started.since(self.begun)),
            took_ns: tried.took().map(nanos),
            error: match tried.error {
                Word::NONE if tried.ended.is_none() => Word::of(GIVEN_UP),
                Word::NONE if tried.is_cut => Word::of("CallTimeoutError"),
                name => name,
            },
            status: tried.status,
            request_id: None,
            waited_ns: tried.waited.map(nanos),
        };
        self.tried.iter().map(request).collect()
    }

    /// What policies did, as everybody is told of it; the places of the stages are given by their numbers.
    pub fn notes(&self, places: &[Word]) -> Vec<Note> {
        let place = |stage: StageId| places.get(stage.0 as usize).copied().unwrap_or(Word::NONE);
        let note = |noted: &Noted| Note {
            at_ns: nanos(noted.at.since(self.begun)),
            name: noted.name,
            place: place(noted.stage),
            number: noted.number,
            span_ns: nanos(noted.span),
            reason: noted.reason,
            error: noted.error,
        };
        self.noted.iter().map(note).collect()
    }

    fn rows<'py>(&self, py: Python<'py>, of: &[(String, u16)]) -> PyResult<Bound<'py, PyAny>> {
        static ATTEMPTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let rows = PyList::empty(py);
        for tried in &self.tried {
            let outcome = match tried.error {
                Word::NONE if tried.ended.is_none() => GIVEN_UP,
                Word::NONE if tried.is_cut => "CallTimeoutError",
                Word::NONE => "ok",
                name => name.as_str(),
            };
            let (of, alternative) = of.get(tried.target.0).map_or((None, 0), |(name, number)| (Some(name.as_str()), *number));
            let (started, took) = (tried.started.since(self.begun).as_secs_f64(), tried.took().map(|took| took.as_secs_f64()));
            let waited = tried.waited.map(|wait| wait.as_secs_f64());
            rows.append((of, alternative, started, took, outcome, tried.status, None::<&str>, waited))?;
        }
        ours(py, &ATTEMPTS, "seawall._attempts", "attempts")?.call1((rows,))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let (tried, noted) = (take(&mut self.tried), take(&mut self.noted));
        // A thread that is at its end keeps nothing.
        let _ = SPARE.try_with(|spare| {
            spare.0.keep(tried);
            spare.1.keep(noted);
        });
    }
}

/// What a call that is over has left to tell, and what things in it are called.
#[derive(Default)]
pub struct Tale {
    pub pages: Pages,
    pub labels: Arc<Labels>,
}

/// The story of a guarded call that is over: a sequence of its steps, made when somebody asks.
#[pyclass(frozen, sequence, module = "seawall")]
pub struct Story {
    tale: OnceLock<Tale>,
    steps: PyOnceLock<Py<PyAny>>,
}

impl Story {
    /// One that [`Story::tells`] what of before anybody sees it.
    pub fn untold() -> Story {
        Story { tale: OnceLock::new(), steps: PyOnceLock::new() }
    }

    /// This is what it tells of.
    pub fn tells(&self, tale: Tale) {
        let _ = self.tale.set(tale);
    }

    fn tale(&self) -> &Tale {
        self.tale.get_or_init(Tale::default)
    }

    fn told(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        let Tale { pages, labels } = self.tale();
        self.steps.get_or_try_init(py, || steps(py, &pages.notes(&labels.places)).map(Bound::unbind))
    }
}

#[pymethods]
impl Story {
    /// The attempts made, in order; compares with a number as their count.
    #[getter]
    fn attempts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.tale().pages.rows(py, &self.tale().labels.targets)
    }

    /// What policies did, in order.
    #[getter]
    fn steps(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.told(py)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.told(py)?.bind(py).try_iter()?.into_any())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.told(py)?.bind(py).len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, at: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.told(py)?.bind(py).get_item(at)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let told = py.import("seawall._story")?.getattr("Told")?;
        (told, (self.attempts(py)?, self.told(py)?)).into_pyobject(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.told(py)?.bind(py).repr()?.to_string())
    }
}

/// What policies did, in order.
pub fn steps<'py>(py: Python<'py>, notes: &[Note]) -> PyResult<Bound<'py, PyAny>> {
    static STEPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let seconds = |ns: u64| ns as f64 / 1e9;
    let rows = PyList::empty(py);
    for note in notes {
        let error = note.error.is_some().then(|| note.error.as_str());
        let place = note.place.as_str();
        rows.append((seconds(note.at_ns), note.name.as_str(), place, note.number, seconds(note.span_ns), note.reason, error))?;
    }
    ours(py, &STEPS, "seawall._story", "steps")?.call1((rows,))
}
