//! What a guarded call has to do with caches: what it asks them for, what it gets of them, and what it has for them.

use super::digest::Written;
use super::errors::ours;
use super::flight::{Flight, Way};
use super::guarded::has_to_run;
use super::guardrails::Guardrails;
use super::judge::Happened;
use super::policies::cache::Cache;
use crate::cache_file::{CacheFile, FileDigest, FileKey};
use crate::drive::clock;
use crate::engine::{Instant, StageId, Target, Verdict};
use crate::policies::cache::{self as core, Caching, Offer, OnceKept, Request};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An answer in a cache.
pub struct Held {
    value: Py<PyAny>,
    /// The items that came before, of a generator.
    items: Option<Py<PyTuple>>,
    /// What its key names by identity.
    names: Vec<Py<PyAny>>,
}

impl Held {
    /// A value that nobody else's identity is in.
    pub fn of(value: Py<PyAny>) -> Held {
        Held { value, items: None, names: Vec::new() }
    }

    pub fn value(&self, py: Python<'_>) -> Py<PyAny> {
        self.value.clone_ref(py)
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.value)?;
        visit.call(&self.items)?;
        self.names.iter().try_for_each(|held| visit.call(held))
    }
}

/// Where in a pipeline a cache stands.
pub struct Stand {
    pub stage: StageId,
    /// The answer that was found there.
    pub target: Target,
    pub cache: Py<Cache>,
}

/// What one call asks of one cache.
pub struct Asked {
    stage: StageId,
    target: Target,
    cache: Arc<core::Cache>,
    request: Arc<Request>,
    names: Vec<Py<PyAny>>,
    /// Where it may be kept in a file.
    in_file: Option<InFile>,
}

/// What a call is in a cache's file.
struct InFile {
    file: Arc<CacheFile>,
    key: FileKey,
    asked: FileKey,
}

thread_local! {
    static HERE: u8 = const { 0 };
}

/// What the code around says that calls are to do with caches.
pub fn caching(py: Python<'_>) -> PyResult<Caching> {
    if !IS_SAID.load(Ordering::Relaxed) {
        return Ok(Caching::Usual);
    }
    static SAID: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let anew = ours(py, &SAID, "seawall._cache", "anew")?.call_method0(intern!(py, "get"))?.extract::<Option<bool>>()?;
    Ok(anew.map_or(Caching::Usual, |anew| if anew { Caching::Refresh } else { Caching::Bypass }))
}

/// Whether anybody ever said so: before that nobody has to look.
static IS_SAID: AtomicBool = AtomicBool::new(false);

/// From here on calls look what is said.
#[pyfunction]
pub fn caching_is_said() {
    IS_SAID.store(true, Ordering::Relaxed);
}

fn asking(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static ASKING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &ASKING, "seawall._cache", "asking")
}

/// The calls of coroutines that wait for what is called here, and a number for one more.
pub fn within_asking(py: Python<'_>) -> PyResult<Vec<u64>> {
    // No thread has such a number.
    static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
    let mut numbers: Vec<u64> = asking(py)?.call_method0(intern!(py, "get"))?.extract()?;
    numbers.push(NEXT.fetch_add(1, Ordering::Relaxed));
    Ok(numbers)
}

/// Runs a frame of a coroutine for which those wait. `body` may leave an exception set.
pub fn around<T>(py: Python<'_>, waiting: &[u64], body: impl FnOnce() -> T) -> T {
    let set = || asking(py)?.call_method1(intern!(py, "set"), (PyTuple::new(py, waiting)?,));
    let token = set();
    let given = body();
    let raised = PyErr::take(py);
    if let Ok(token) = token {
        // It was set in this context; a failure would leave it as it is.
        let _ = asking(py).and_then(|asking| asking.call_method1(intern!(py, "reset"), (token,)));
    }
    if let Some(raised) = raised {
        raised.restore(py);
    }
    given
}

/// A number for this thread, which no other thread has that lives.
fn this_thread() -> u64 {
    HERE.with(|here| std::ptr::from_ref(here) as u64)
}

impl Asked {
    /// `None` where the cache's own key function says that this call is not to be kept.
    pub fn new(
        stand: &Stand,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
        way: Way,
        rails: &[(StageId, Py<Guardrails>)],
        asking: &[u64],
    ) -> PyResult<Option<Asked>> {
        let (py, cache) = (function.py(), stand.cache.get());
        let caching = caching(py)?;
        if caching == Caching::Bypass {
            return Ok(None);
        }
        let mut written = Written::default();
        written.kind(way.method());
        // A method is another object each time it is asked for.
        match function.getattr_opt(intern!(py, "__func__"))?.zip(function.getattr_opt(intern!(py, "__self__"))?) {
            Some((inner, instance)) => {
                written.is(&inner);
                written.is(&instance);
            }
            None => written.is(function),
        }
        // What was looked at in one way is nothing for whoever looks in another.
        for (_, looked) in rails.iter().filter(|(_, rails)| !rails.get().answered.is_empty()) {
            written.is(looked.bind(py));
        }
        let from = written.len();
        if !cache.write(&mut written, args, kwargs)? {
            return Ok(None);
        }
        let request = Request::new(written.digest(0), written.digest(from));
        let request = match (caching, way) {
            (Caching::Refresh, _) => request.anew(),
            (_, Way::Items | Way::AsyncItems) => request.alone(),
            (_, Way::Sync) => request.of(this_thread()),
            (_, Way::Async) => request.of(asking.last().copied().unwrap_or(0)).within(asking.to_vec()),
        };
        let in_file = InFile::new(cache, function, &written, from, way)?;
        let asked = Asked {
            stage: stand.stage,
            target: stand.target,
            cache: cache.core.clone(),
            request: Arc::new(request),
            names: written.held,
            in_file,
        };
        asked.recall(py)?;
        Ok(Some(asked))
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.names.iter().try_for_each(|held| visit.call(held))
    }

    pub fn stage(&self) -> StageId {
        self.stage
    }

    pub fn is_at(&self, target: Target) -> bool {
        self.target == target
    }

    pub fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// Takes what the file has for it into memory, where there is nothing.
    fn recall(&self, py: Python<'_>) -> PyResult<()> {
        static SIZE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Some(InFile { file, key, .. }) = &self.in_file else { return Ok(()) };
        let now = clock::now();
        if self.cache.has(&self.request.key, now) {
            return Ok(());
        }
        let era = self.cache.era();
        let Some(found) = py.detach(|| file.find(key, clock::unix(now))) else { return Ok(()) };
        let Some((value, items)) = InFile::read(py, &found.value)? else { return Ok(()) };
        let bytes: usize = ours(py, &SIZE, "seawall._cache", "size")?.call1((&value, &items))?.extract()?;
        let stored = Instant(now.0.saturating_sub(clock::unix(now).saturating_sub(found.stored)));
        let names = self.names.iter().map(|name| name.clone_ref(py)).collect();
        let held = Held { value: value.unbind(), items: items.map(Bound::unbind), names };
        self.cache.take_in((self.request.key, self.request.asked), Arc::new(held), bytes, stored, era);
        Ok(())
    }

    /// What was found, in the form in which the call gives it.
    pub fn found(&self, py: Python<'_>, way: Way) -> PyResult<Py<PyAny>> {
        static REPLAYED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static AREPLAYED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Some(held) = self.request.take().and_then(|value| value.downcast::<Held>().ok()) else { return Ok(py.None()) };
        let value = held.value.clone_ref(py);
        let Some(items) = &held.items else { return Ok(value) };
        match way {
            Way::Async | Way::AsyncItems => ours(py, &AREPLAYED, "seawall._cache", "areplayed")?.call1((items,)),
            Way::Sync | Way::Items => ours(py, &REPLAYED, "seawall._cache", "replayed")?.call1((items, value)),
        }
        .map(Bound::unbind)
    }

    /// Offers what the call has given to whoever asks for the same; `false` where nobody else can use it.
    pub fn offer(&self, value: &Bound<'_, PyAny>, items: Option<Bound<'_, PyTuple>>, keep: bool) -> PyResult<bool> {
        static SIZE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = value.py();
        if is_used_once(value)? {
            return Ok(false);
        }
        let bytes: usize = ours(py, &SIZE, "seawall._cache", "size")?.call1((value, &items))?.extract()?;
        let names = self.names.iter().map(|name| name.clone_ref(py)).collect();
        let kept = self.in_file.as_ref().filter(|_| keep).map(|in_file| in_file.kept(value, items.as_ref())).transpose()?.flatten();
        let held = Held { value: value.clone().unbind(), items: items.map(Bound::unbind), names };
        self.request.offer(Offer { value: Arc::new(held), bytes, keep, kept });
        Ok(true)
    }

    /// What the call has given has still to be run: nobody waits for that.
    pub fn release(&self) {
        self.cache.release(&self.request);
    }
}

impl InFile {
    /// `None` where nothing can be kept beyond the process: the function, or what it is called with, means something here only.
    fn new(cache: &Cache, function: &Bound<'_, PyAny>, written: &Written, from: usize, way: Way) -> PyResult<Option<InFile>> {
        static FINGERPRINT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Some(file) = &cache.file else { return Ok(None) };
        if written.held.len() > 1 {
            return Ok(None);
        }
        let fingerprint = ours(function.py(), &FINGERPRINT, "seawall._cache", "fingerprint")?.call1((function,))?;
        let Some(fingerprint) = fingerprint.extract::<Option<String>>()? else { return Ok(None) };
        let mut key = FileDigest::default();
        [way.method().as_bytes(), fingerprint.as_bytes(), written.from(from)].iter().for_each(|part| key.part(part));
        Ok(Some(InFile { file: file.clone(), key: key.key(), asked: FileDigest::of(written.from(from)) }))
    }

    /// What is done with a value once it is kept; `None` where JSON cannot say it.
    fn kept(&self, value: &Bound<'_, PyAny>, items: Option<&Bound<'_, PyTuple>>) -> PyResult<Option<OnceKept>> {
        static AS_JSON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let text = ours(value.py(), &AS_JSON, "seawall._cache", "as_json")?.call1((value, items))?;
        let Some(text) = text.extract::<Option<String>>()? else { return Ok(None) };
        let (file, key, asked) = (self.file.clone(), self.key, self.asked);
        Ok(Some(Box::new(move |since| file.put(key, asked, clock::unix(since), move || Some(text.into_bytes())))))
    }

    /// The value, and a generator's items.
    #[allow(clippy::type_complexity)] // a pair that is taken apart at once
    fn read<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, Option<Bound<'py, PyTuple>>)>> {
        static FROM_JSON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ours(py, &FROM_JSON, "seawall._cache", "from_json")?.call1((bytes,))?.extract()
    }
}

/// Whether a value is gone once it was used: an iterator, a coroutine, a future.
fn is_used_once(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    Ok(has_to_run(value).is_some()
        || value.hasattr(intern!(py, "__next__"))?
        || value.hasattr(intern!(py, "__anext__"))?
        || value.hasattr(intern!(py, "__await__"))?)
}

impl Flight {
    /// What a cache has found.
    pub(super) fn found(&self, py: Python<'_>, target: Target) -> PyResult<Py<PyAny>> {
        self.asked_of.iter().find(|asked| asked.is_at(target)).map_or_else(|| Ok(py.None()), |asked| asked.found(py, self.way))
    }

    /// What the call has given has still to be run, by whoever got it: no cache waits for that.
    pub fn goes_elsewhere(&mut self) {
        self.is_elsewhere = true;
        self.asked_of.iter().for_each(Asked::release);
    }

    /// An item of the stream that is open goes to its reader.
    #[inline]
    pub fn records(&mut self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(recording) = &mut self.recording else { return Ok(()) };
        let most = self.compiled.caches.iter().map(|stand| stand.cache.get().core.config().max_bytes).max();
        recording.item(item, most.unwrap_or(0))
    }

    /// The reader says something to it: what follows is for nobody else.
    pub fn is_steered(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.void();
        }
    }

    /// What may be kept, and what an older answer may stand in for.
    pub(super) fn judge_for_cache(&self, stage: StageId, happened: &Happened<'_, '_>) -> PyResult<Verdict> {
        static STANDS_IN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let value = match happened {
            Happened::Value(value) => *value,
            Happened::Error(error) => {
                let stands_in = ours(error.py(), &STANDS_IN, "seawall._cache", "stands_in_for")?.call1((*error,))?.is_truthy()?;
                return Ok(if stands_in { Verdict::FAILURE } else { Verdict::Final });
            }
        };
        let items = match (self.way, &self.recording) {
            (Way::Items | Way::AsyncItems, Some(recording)) => recording.items(value.py())?,
            (Way::Items | Way::AsyncItems, None) => Some(PyTuple::empty(value.py())),
            (Way::Sync | Way::Async, _) => None,
        };
        let is_whole = !self.is_elsewhere && (items.is_some() || matches!(self.way, Way::Sync | Way::Async));
        let asked = self.asked_of.iter().find(|asked| asked.stage() == stage);
        let keep = !self.course().fell_back && !self.course().is_injected;
        match asked.filter(|_| is_whole) {
            Some(asked) if asked.offer(value, items, keep)? => Ok(Verdict::Success),
            _ => Ok(Verdict::Ignore),
        }
    }
}

/// The items of a generator that a cache may want.
#[derive(Default)]
pub struct Recording {
    items: Vec<Py<PyAny>>,
    bytes: usize,
    /// It is no record of what others would get, or too long for any cache.
    is_void: bool,
}

impl Recording {
    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.items.iter().try_for_each(|held| visit.call(held))
    }

    /// An item has come. More than `most` bytes are not kept.
    pub fn item(&mut self, item: &Bound<'_, PyAny>, most: usize) -> PyResult<()> {
        static SIZE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        if self.is_void {
            return Ok(());
        }
        self.bytes += ours(item.py(), &SIZE, "sys", "getsizeof")?.call1((item,))?.extract::<usize>()?;
        if self.bytes > most {
            self.void();
        } else {
            self.items.push(item.clone().unbind());
        }
        Ok(())
    }

    /// What comes depends on what its reader says.
    pub fn void(&mut self) {
        self.items = Vec::new();
        self.is_void = true;
    }

    pub fn items<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        if self.is_void { Ok(None) } else { PyTuple::new(py, &self.items).map(Some) }
    }
}
