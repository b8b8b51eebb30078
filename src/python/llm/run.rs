//! `Run`: a batch whose inputs come one by one and whose results are taken as they come, with a journal or without.

use super::batch::Call;
use super::bridge::{self, Parker, Sender};
use super::extras::{Checked, Given};
use super::finished::Finished;
use super::journal::{given_back, journal_error};
use super::json;
use super::route::{Route, run, task};
use super::shared::Shared;
use crate::drive::process::Process;
use crate::journal::{Journal, JournalError, Key, Row};
use crate::llm::interrupt::OnInterrupt;
use crate::llm::order::{Order, Task};
use crate::llm::record::{self, Asks, Ended};
use crate::policies::retry::reason;
use crate::python::remaining;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// One input under way.
struct Item {
    at: u64,
    key: Key,
    order: Arc<Order>,
}

/// What came of an input.
enum Came {
    Finished(Box<Finished>),
    Found(Row),
}

/// Why nothing more is done.
enum Stop {
    /// No other input would fare better.
    Failed(Box<Finished>),
    /// The journal takes no more: what has come since, and is nowhere else.
    Journal(JournalError, Vec<(u64, Box<Finished>)>),
}

enum Watcher {
    Thread(Arc<Parker>),
    Loop(Py<PyAny>, Sender),
}

#[derive(Default)]
struct State {
    pending: VecDeque<Item>,
    /// Those that ask, by number.
    workers: HashMap<u64, AbortHandle>,
    next: u64,
    ready: Vec<(u64, Came)>,
    stop: Option<Stop>,
    /// Those whose answers are on their way to the disk.
    settling: usize,
    /// Inputs put and not taken.
    outstanding: usize,
    watcher: Option<Watcher>,
    is_closed: bool,
}

struct Core {
    route: Arc<Shared>,
    call: Call,
    runtime: Handle,
    journal: Option<Journal>,
    /// Whether the calls outlast what keeps all from being answered.
    is_patient: bool,
    concurrency: usize,
    state: Mutex<State>,
}

impl State {
    /// Whether it is known all that ends it.
    fn is_stopped(&self) -> bool {
        self.stop.is_some() && self.settling == 0
    }

    fn has_news(&self) -> bool {
        !self.ready.is_empty() || self.is_stopped() || self.outstanding == 0 || self.is_closed
    }
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waits looks again.
    fn wake(self: &Arc<Core>, mut state: MutexGuard<'_, State>) {
        let watcher = match &state.watcher {
            Some(Watcher::Thread(parker)) => return parker.wake(),
            _ => state.watcher.take(),
        };
        drop(state);
        if let Some(Watcher::Loop(future, sender)) = watcher {
            let core = self.clone();
            drop(sender.complete(future, move |py| Ok(core.taken(py)?.into_any())));
        }
    }

    fn begin(self: &Arc<Core>, item: Item) {
        let mut state = self.lock();
        if state.is_closed || state.stop.is_some() {
            return;
        }
        state.pending.push_back(item);
        if state.workers.len() < self.concurrency {
            state.next += 1;
            let number = state.next;
            let job = self.runtime.spawn(self.clone().work(number));
            state.workers.insert(number, job.abort_handle());
        }
    }

    async fn work(self: Arc<Core>, number: u64) {
        loop {
            let item = {
                let mut state = self.lock();
                match state.pending.pop_front() {
                    Some(item) if state.stop.is_none() => item,
                    _ => {
                        state.workers.remove(&number);
                        return;
                    }
                }
            };
            let Call { core, client, deadline } = self.call.clone();
            let finished = Box::new(run(core, item.order, client, deadline).await);
            self.settle(item.at, item.key, finished).await;
        }
    }

    /// A call is over. It is on disk before anybody hears of it, and its place is free for another only then.
    async fn settle(self: &Arc<Core>, at: u64, key: Key, finished: Box<Finished>) {
        if self.ends_all(&finished) {
            let mut state = self.lock();
            state.stop.get_or_insert(Stop::Failed(finished));
            return self.wake(state);
        }
        if let Some(journal) = &self.journal
            && let Some(row) = record::row(at, key, &ended(&finished), &self.call.core.legs)
        {
            let (sender, committed) = oneshot::channel();
            journal.put(row, Box::new(move |written| drop(sender.send(written))));
            self.lock().settling += 1;
            let gone = || Err(JournalError("the journal's thread has ended".to_owned()));
            let written = committed.await.unwrap_or_else(|_| gone());
            let mut state = self.lock();
            state.settling -= 1;
            if let Err(error) = written {
                match state.stop.get_or_insert_with(|| Stop::Journal(error, Vec::new())) {
                    Stop::Journal(_, unsaved) => unsaved.push((at, finished)),
                    Stop::Failed(_) => {}
                }
                return self.wake(state);
            }
        }
        let mut state = self.lock();
        state.ready.push((at, Came::Finished(finished)));
        self.wake(state);
    }

    fn ends_all(&self, finished: &Finished) -> bool {
        if finished.interrupt.is_some() {
            return true;
        }
        let Err(failure) = &finished.result else { return false };
        let is_over = finished.exhausted.is_some_and(|(_, _, why)| why == reason::PATIENCE || why == reason::DEADLINE);
        self.is_patient && (is_over || record::ends_all(failure))
    }

    /// The results that there are; or why there will be no more.
    fn taken(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let (ready, stop) = {
            let mut state = self.lock();
            let ready = std::mem::take(&mut state.ready);
            state.outstanding -= ready.len();
            let stop = if ready.is_empty() && state.is_stopped() { state.stop.take() } else { None };
            state.is_closed |= stop.is_some();
            (ready, stop)
        };
        let list = PyList::empty(py);
        for (at, result) in ready {
            let given = match result {
                Came::Finished(finished) => self.given(py, *finished)?,
                Came::Found(row) => given_back(py, row, self.route.table.bind(py), self.path())?,
            };
            list.append((at, given))?;
        }
        match stop {
            None => Ok(list.unbind()),
            Some(Stop::Failed(finished)) => Err(match self.route.convert(py, *finished) {
                Err(error) => error,
                Ok(_) => PyRuntimeError::new_err("the batch ended"),
            }),
            Some(Stop::Journal(error, unsaved)) => {
                let raised = journal_error(py, &error);
                let dict = PyDict::new(py);
                for (at, finished) in unsaved {
                    dict.set_item(at, self.given(py, *finished)?)?;
                }
                raised.value(py).setattr("unsaved", dict)?;
                Err(raised)
            }
        }
    }

    /// An answer, or the exception in its place.
    fn given(&self, py: Python<'_>, finished: Finished) -> PyResult<Py<PyAny>> {
        let is_interrupted = finished.interrupt.is_some();
        match self.route.convert(py, finished) {
            Err(error) if !is_interrupted => Ok(error.into_value(py).into_any()),
            other => other,
        }
    }

    fn path(&self) -> PathBuf {
        self.journal.as_ref().map(|journal| journal.path().to_owned()).unwrap_or_default()
    }

    fn close(&self) {
        let workers = {
            let mut state = self.lock();
            state.is_closed = true;
            state.pending.clear();
            std::mem::take(&mut state.workers)
        };
        workers.values().for_each(AbortHandle::abort);
        if let Some(journal) = &self.journal {
            journal.close();
        }
    }
}

fn ended(finished: &Finished) -> Ended<'_> {
    Ended { result: &finished.result, attempts: &finished.attempts, begun: finished.begun, took: finished.took, found: finished.found }
}

/// A batch under way. Inputs are put one by one, each at its place; results are taken as they come.
#[pyclass(frozen, module = "seawall")]
pub struct Run {
    route: Py<Route>,
    core: Arc<Core>,
    task: Task,
    /// What each call is made with.
    params: Option<Py<PyDict>>,
    extras: Checked,
    redoes_failures: bool,
    process: Process,
}

#[pymethods]
impl Run {
    /// Of calls of that kind, `chat` or `embeddings`. `journal` is a path: what it has is given back and not asked for again, failures only without `retry_failures`; and each
    /// result is in it before it can be taken. `patient`: the route has the patience of a batch, and what would befall all inputs
    /// ends the run.
    #[new]
    #[pyo3(signature = (route, kind, params=None, extras=None, *, concurrency, journal=None, retry_failures=true, patient=false))]
    #[allow(clippy::too_many_arguments)] // one per argument
    fn new(
        py: Python<'_>,
        route: Py<Route>,
        kind: &str,
        params: Option<Py<PyDict>>,
        extras: Option<Given>,
        concurrency: usize,
        journal: Option<PathBuf>,
        retry_failures: bool,
        patient: bool,
    ) -> PyResult<Run> {
        let shared = route.get().shared.clone();
        let extras = Checked::new(py, &shared.table, extras)?;
        let asks = Asks::of(&shared.core, &json::params(params.as_ref().map(|params| params.bind(py)))?);
        let (runtime, client) = shared.live(py)?;
        let opened = |path: PathBuf| {
            py.detach(|| {
                let journal = Journal::open(&path)?;
                let noted = journal.noted("asks", &asks.noted())?;
                match asks.difference(&noted) {
                    None => Ok(journal),
                    Some(what) => Err(JournalError(format!(
                        "the journal {} was begun with {what}: ask as it was begun, or begin a new journal",
                        path.display()
                    ))),
                }
            })
        };
        let journal = journal.map(opened).transpose().map_err(|error| journal_error(py, &error))?;
        let call = Call { core: shared.core.clone(), client, deadline: remaining::inherited(py) };
        let core =
            Core { route: shared, call, runtime, journal, is_patient: patient, concurrency: concurrency.max(1), state: Mutex::default() };
        Ok(Run { route, core: Arc::new(core), task: task(kind), params, extras, redoes_failures: retry_failures, process: Process::here() })
    }

    /// Takes the input at that place on, with parameters of its own. `True` if its result is there already.
    #[pyo3(signature = (at, content, own=None))]
    fn put(&self, py: Python<'_>, at: u64, content: &Bound<'_, PyAny>, own: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
        self.is_here()?;
        let common = self.params.as_ref().map(|params| params.bind(py));
        let mut names: Vec<String> = Vec::new();
        let params = match own {
            None => common.cloned(),
            Some(own) => {
                names = own.keys().extract()?;
                let all = common.map_or_else(|| Ok(PyDict::new(py)), |common| common.copy())?;
                all.update(own.as_mapping())?;
                Some(all)
            }
        };
        let extras = self.extras.of_call(usize::try_from(at).unwrap_or(usize::MAX));
        let order = self.route.get().order_at(&format!("inputs[{at}]"), self.task, content, params.as_ref(), extras, OnInterrupt::Error)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut key = Key::default();
        if let Some(journal) = &self.core.journal {
            key = record::key(&order, &names);
            let found = py.detach(|| journal.found(at, &key)).map_err(|error| journal_error(py, &error))?;
            if let Some(row) = found.filter(|row| !row.is_failure || !self.redoes_failures) {
                let mut state = self.core.lock();
                state.outstanding += 1;
                state.ready.push((at, Came::Found(row)));
                return Ok(true);
            }
        }
        self.core.lock().outstanding += 1;
        self.core.begin(Item { at, key, order });
        Ok(false)
    }

    /// Whether there is something to take.
    #[getter]
    fn is_ready(&self) -> bool {
        let state = self.core.lock();
        !state.ready.is_empty() || state.is_stopped()
    }

    /// Inputs that were put and whose results were not taken.
    #[getter]
    fn outstanding(&self) -> usize {
        self.core.lock().outstanding
    }

    /// Waits for results on this thread and takes all there are: pairs of a place and an answer or an exception. Raises what ends the run.
    fn take(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        self.is_here()?;
        if self.core.lock().has_news() {
            return self.core.taken(py);
        }
        let waited = bridge::wait(
            py,
            |parker| self.core.lock().watcher = Some(Watcher::Thread(parker)),
            || self.core.lock().has_news().then_some(()),
        );
        self.core.lock().watcher = None;
        waited?;
        self.core.taken(py)
    }

    /// The same as a future of the running loop.
    fn start_take(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.is_here()?;
        let (future, sender) = bridge::future(py)?;
        let mut state = self.core.lock();
        state.watcher = Some(Watcher::Loop(future.clone_ref(py), sender));
        if state.has_news() {
            self.core.wake(state);
        }
        Ok(future)
    }

    /// Cuts what is under way. What has finished is on disk when this returns.
    fn close(&self, py: Python<'_>) {
        if self.process.is_here() {
            py.detach(|| self.core.close());
        }
    }
}

impl Run {
    fn is_here(&self) -> PyResult<()> {
        match self.process.is_here() {
            true => Ok(()),
            false => Err(PyRuntimeError::new_err(
                "this batch was begun before the process was forked, and goes on in the parent: begin one here",
            )),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.process.is_here() {
            self.core.close();
        }
    }
}
