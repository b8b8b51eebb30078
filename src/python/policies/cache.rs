//! `Cache`.

use super::shared;
use crate::cache_file::{CacheFile, FileDigest, FileKey, flush_all};
use crate::drive::clock;
use crate::events;
use crate::policies::cache::{self as core, Cached, Config, Digest, Value};
use crate::python::cached::Held;
use crate::python::convert::{self, quoted};
use crate::python::digest::Written;
use crate::python::errors::{configuration, ours, picture};
use crate::python::judge::predicate;
use crate::python::log;
use pyo3::exceptions::PyRuntimeWarning;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Five minutes.
const TTL: Duration = Duration::from_secs(300);
const MAX_ITEMS: usize = 10_000;
const MAX_BYTES: usize = 64_000_000;

/// An argument for which `None` means something.
pub enum Given<'py> {
    Nothing,
    This(Bound<'py, PyAny>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Given<'py> {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Given::This(given.to_owned()))
    }
}

/// Gives an answer again for `ttl` seconds (300; `None`: as long as there is room) to calls that ask for the same; of equal
/// calls at once one is made for all.
///
/// ```python
/// @seawall.Pipeline(seawall.Cache(ttl=300, path="answers.db"))
/// def ask(question): ...
/// ```
///
/// At most `max_items` (10,000) answers are kept, of `max_bytes` (64,000,000) together, as near as that is known; what was not
/// used for longest goes first. For `stale_if_error` seconds (0) beyond its time an answer stands in for a call that fails for a
/// reason that passes. Errors are not kept, nor are answers of fallbacks, iterators and the like.
///
/// A call asks for the same if it is of the same function with equal arguments: plain data, data classes, models of pydantic;
/// other objects are themselves and equal to nothing else. `key` is a function of the arguments that gives what counts instead;
/// `None` of it: that call goes past the cache. All who ask are given the same object.
///
/// With `path`, answers are kept in that file too (SQLite; made if need be, readable by its owner alone): there after the process has
/// ended, and shared by all processes that name it. Replies of models are, and what functions of modules return if JSON can say it and
/// it is asked for with plain data; all else is in memory only. A file that is damaged, full, locked, not writable or of a later
/// version holds nothing: that is told once (`cache.unusable` in the log, a `RuntimeWarning`) and is no call's failure.
///
/// A Cache is shared state: used in two pipelines or models, it is one; `copy` and `deepcopy` give the object itself. It pickles
/// by its arguments: where it came from it is found again, in another process it is made anew, empty, once.
///
/// Raises `ConfigurationError` for arguments that make no cache.
#[pyclass(frozen, module = "seawall", subclass, weakref)]
pub struct Cache {
    pub core: Arc<core::Cache>,
    pub file: Option<Arc<CacheFile>>,
    #[pyo3(get)]
    key: Option<Py<PyAny>>,
    #[pyo3(get)]
    pub name: Option<String>,
    /// Finds it again when it is unpickled where it came from.
    #[pyo3(get, name = "_identity")]
    identity: u64,
}

#[pymethods]
impl Cache {
    #[new]
    #[pyo3(signature = (ttl=Given::Nothing, *, max_items=None, max_bytes=None, stale_if_error=None, key=None, name=None, path=None),
           text_signature = "(ttl=300, *, max_items=10000, max_bytes=64000000, stale_if_error=None, key=None, name=None, path=None)")]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new(
        py: Python<'_>,
        ttl: Given<'_>,
        max_items: Option<&Bound<'_, PyAny>>,
        max_bytes: Option<&Bound<'_, PyAny>>,
        stale_if_error: Option<&Bound<'_, PyAny>>,
        key: Option<Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        path: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Cache> {
        let ttl = match &ttl {
            Given::Nothing => Some(TTL),
            Given::This(ttl) => convert::optional("ttl", Some(ttl), convert::positive_seconds)?,
        };
        let stale = convert::optional("stale_if_error", stale_if_error, convert::seconds)?.unwrap_or_default();
        if ttl.is_none() && !stale.is_zero() {
            return Err(configuration(py, "stale_if_error needs ttl=: without it no answer is ever past its time"));
        }
        let most = |name, value, default| {
            let given = convert::optional(name, value, |a, v| convert::whole(a, v, 1, u64::MAX))?;
            PyResult::Ok(given.map_or(default, |most| usize::try_from(most).unwrap_or(usize::MAX)))
        };
        let config = Config {
            ttl,
            max_items: most("max_items", max_items, MAX_ITEMS)?,
            max_bytes: most("max_bytes", max_bytes, MAX_BYTES)?,
            stale_if_error: stale,
        };
        let (key, name) = (predicate("key", key)?, convert::optional("name", name, convert::text)?);
        let file = path.map(|path| opened(path, &config, name.clone())).transpose()?;
        Ok(Cache { core: shared::cache(py, core::Cache::new(config))?, file, key, name, identity: clock::seed() })
    }

    /// Seconds for which an answer is given again; `None`: as long as there is room.
    #[getter]
    fn ttl(&self) -> Option<f64> {
        self.core.config().ttl.map(|ttl| ttl.as_secs_f64())
    }

    /// Answers at a time, at most.
    #[getter]
    fn max_items(&self) -> usize {
        self.core.config().max_items
    }

    /// Bytes of all answers together, at most.
    #[getter]
    fn max_bytes(&self) -> usize {
        self.core.config().max_bytes
    }

    /// Seconds beyond its time for which an answer stands in for a failure.
    #[getter]
    fn stale_if_error(&self) -> f64 {
        self.core.config().stale_if_error.as_secs_f64()
    }

    /// The file that keeps answers beyond the process; `None`: there is none.
    #[getter]
    fn path(&self) -> Option<String> {
        self.file.as_ref().map(|file| file.path().to_string_lossy().into_owned())
    }

    /// Waits until all answers so far are in the file, for `timeout` seconds at most; whether they are. A program that ends does so
    /// by itself.
    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let limit = convert::optional("timeout", timeout, convert::positive_seconds)?.unwrap_or(Duration::from_secs(5));
        Ok(py.detach(|| self.file.as_ref().is_none_or(|file| file.flush(limit))))
    }

    /// What has come of the calls so far, and what is kept: `hits`, `misses`, `stale`, `joined`, `items`, `bytes`.
    #[getter]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static STATS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let counts = self.core.counts();
        let counts = (counts.hits, counts.misses, counts.stale, counts.joined, counts.items, counts.bytes);
        ours(py, &STATS, "seawall._cache", "CacheStats")?.call1(counts)
    }

    /// Calls that wait for an equal one just now.
    #[getter]
    fn waiting(&self) -> usize {
        self.core.waiting().1
    }

    /// Forgets all answers, those in the file too. Those of calls under way here are not kept.
    fn clear(&self, py: Python<'_>) {
        self.core.clear();
        if let Some(file) = &self.file {
            py.detach(|| file.forget(None));
        }
    }

    /// Forgets the answers to calls with these arguments (where there is a `key` function: to those of this key), of all
    /// functions and models. For a model that is the input. How many there were.
    #[pyo3(signature = (*args, **kwargs))]
    fn forget(&self, py: Python<'_>, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<usize> {
        let mut written = Written::default();
        written.write(args.as_any(), 0)?;
        if let Some(kwargs) = kwargs.filter(|kwargs| !kwargs.is_empty()) {
            written.write(kwargs.as_any(), 0)?;
        }
        let mut forgotten = self.core.forget(&written.digest(0));
        // What is in both is one answer.
        let in_file = |bytes: &[u8]| self.file.as_ref().map_or(0, |file| py.detach(|| file.forget(Some(FileDigest::of(bytes)))));
        forgotten = forgotten.max(in_file(written.from(0)));
        if let (Ok(input), None) = (args.get_item(0), kwargs)
            && args.len() == 1
        {
            for asked in crate::python::llm::asked(py, &input)? {
                forgotten += self.core.forget(&Digest::of(&asked)).max(in_file(&asked));
            }
        }
        Ok(forgotten)
    }

    #[allow(clippy::type_complexity)] // a pair that Python takes apart at once
    /// For caches of LangChain's: the answer in memory, or how the file has it, to what is said in several parts.
    fn _find(&self, py: Python<'_>, said: Vec<String>) -> PyResult<(Option<Py<PyAny>>, Option<Vec<u8>>)> {
        let (key, file_key) = keys(&said);
        let now = clock::now();
        if let Some((value, _)) = self.core.hit(&key, now)
            && let Some(held) = value.downcast_ref::<Held>()
        {
            return Ok((Some(held.value(py)), None));
        }
        let found = self.file.as_ref().and_then(|file| py.detach(|| file.find(&file_key, clock::unix(now))));
        let age = found.as_ref().map_or(0, |found| clock::unix(now).saturating_sub(found.stored));
        let is_fresh = self.core.config().ttl.is_none_or(|ttl| u128::from(age) < ttl.as_nanos());
        Ok((None, found.filter(|_| is_fresh).map(|found| found.value)))
    }

    /// The same: keeps an answer that takes up so much, and in the file as these bytes.
    #[pyo3(signature = (said, value, bytes, in_file=None))]
    fn _keep(&self, said: Vec<String>, value: Py<PyAny>, bytes: usize, in_file: Option<Vec<u8>>) {
        let (key, file_key) = keys(&said);
        let (asked, now) = (said.last().map(String::as_bytes).unwrap_or_default(), clock::now());
        self.core.take_in((key, Digest::of(asked)), Arc::new(Held::of(value)), bytes, now, self.core.era());
        if let (Some(file), Some(bytes)) = (&self.file, in_file) {
            file.put(file_key, FileDigest::of(asked), clock::unix(now), move || Some(bytes));
        }
    }

    /// The same: counts a call that is made.
    fn _missed(&self) {
        self.core.missed();
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static REDUCED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        let said = PyDict::new(py);
        said.set_item("max_items", this.max_items())?;
        said.set_item("max_bytes", this.max_bytes())?;
        said.set_item("stale_if_error", this.stale_if_error())?;
        said.set_item("key", this.key.as_ref())?;
        said.set_item("name", this.name.as_deref())?;
        said.set_item("path", this.path())?;
        ours(py, &REDUCED, "seawall._limits", "reduced")?.call1((slf, (this.ttl(),), said))
    }

    fn __copy__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let mut parts = vec![self.ttl().map_or("None".to_owned(), |ttl| ttl.to_string())];
        let config = self.core.config();
        parts.extend((config.max_items != MAX_ITEMS).then(|| format!("max_items={}", config.max_items)));
        parts.extend((config.max_bytes != MAX_BYTES).then(|| format!("max_bytes={}", config.max_bytes)));
        parts.extend((!config.stale_if_error.is_zero()).then(|| format!("stale_if_error={}", self.stale_if_error())));
        parts.extend(self.name.as_ref().map(|name| format!("name={}", quoted(py, name))));
        parts.extend(self.path().map(|path| format!("path={}", quoted(py, &path))));
        let counts = self.core.counts();
        format!("<Cache({}): {} kept, {} hits, {} misses>", parts.join(", "), counts.items, counts.hits, counts.misses)
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "cache")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.key)?;
        let mut result = Ok(());
        // What somebody else has a part in just now is no garbage.
        let look = |value: &Value| {
            if Arc::strong_count(value) == 1
                && let (Ok(()), Some(held)) = (&result, value.downcast_ref::<Held>())
            {
                result = held.traverse(&visit);
            }
        };
        let _ = self.core.each(look);
        result
    }
}

impl Cache {
    pub fn policy(&self) -> Cached {
        Cached(self.core.clone())
    }

    /// Writes down what a call asks for; `false`: it goes past the cache.
    pub fn write(&self, written: &mut Written, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
        let py = args.py();
        if let Some(key) = &self.key {
            let key = key.bind(py).call(args, kwargs)?;
            if key.is_none() {
                return Ok(false);
            }
            written.write(PyTuple::new(py, [key])?.as_any(), 0)?;
            return Ok(true);
        }
        written.write(args.as_any(), 0)?;
        if let Some(kwargs) = kwargs.filter(|kwargs| !kwargs.is_empty()) {
            written.write(kwargs.as_any(), 0)?;
        }
        Ok(true)
    }
}

/// Under what an answer to what is said so is kept, here and in the file.
fn keys(said: &[String]) -> (core::Key, FileKey) {
    let (mut here, mut in_file) = (Digest::default(), FileDigest::default());
    for part in said {
        here.part(part.as_bytes());
        in_file.part(part.as_bytes());
    }
    (here.key(), in_file.key())
}

/// The file at a path. What is wrong with it is told when it turns out; what cannot be a file is refused now.
fn opened(path: &Bound<'_, PyAny>, config: &Config, name: Option<String>) -> PyResult<Arc<CacheFile>> {
    static AT_EXIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = path.py();
    let Ok(place) = path.extract::<PathBuf>() else {
        let kind = path.get_type().name()?;
        return Err(configuration(py, &format!("path must be the path of a file, not {kind}")));
    };
    let place = std::path::absolute(&place).unwrap_or(place);
    let folder = place.parent().is_some_and(std::path::Path::is_dir);
    if place.is_dir() || !folder {
        let what = if folder { "is a directory" } else { "is in no directory that there is" };
        return Err(configuration(py, &format!("path {} {what}: give the path of a file, which need not be there yet", place.display())));
    }
    ours(py, &AT_EXIT, "seawall._cache", "flush_at_exit")?.call0()?;
    let teller = move |what: &str| {
        Python::try_attach(|py| {
            let told = log::line(py, events::CACHE_UNUSABLE, name.as_deref().unwrap_or("cache"), || what.to_owned());
            let text = CString::new(what).unwrap_or_default();
            let warned = PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1);
            // Told where it turns out, which is nobody's call.
            told.and(warned).unwrap_or_else(|error| error.write_unraisable(py, None));
        });
    };
    Ok(Arc::new(CacheFile::new(place, config.max_items, config.max_bytes, Box::new(teller))))
}

/// Waits until the files of all caches have what they are to have: a program ends.
#[pyfunction]
pub fn flush_cache_files(py: Python<'_>) {
    py.detach(|| flush_all(Duration::from_secs(5)));
}
