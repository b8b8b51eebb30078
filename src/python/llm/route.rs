//! `Route`: one or more models behind one plan, called from threads and event loops.

use super::bridge::{self, Parker};
use super::foreign::Listeners;
use super::raise;
use super::reply::Reply;
use super::stream::{Stream, Watched};
use super::{json, leg::Leg};
use crate::drive::clock;
use crate::drive::tokio::{Drive, Turn};
use crate::engine::{Instant, Outcome, Target};
use crate::llm::chat::ChatReply;
use crate::llm::client::Client;
use crate::llm::embeddings::EmbeddingsReply;
use crate::llm::error::{ApiError, ErrorKind, KINDS};
use crate::llm::route::{Answer, Attempt, Failure, Flight, Kinds, Leg as LegCore, Order, Route as Core, Rule, Task};
use crate::llm::runtime;
use crate::policies::class::Class;
use crate::policies::fallback::Fallback;
use crate::policies::timeout::Timeout;
use crate::python::errors::{configuration, ours};
use crate::python::judge::Listed;
use crate::python::remaining;
use futures_util::FutureExt;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::AbortHandle;

/// Alternatives are bits of a mask.
const MOST: usize = 64;

/// How a call of a route came out, before Python sees it.
pub struct Finished {
    result: Result<Answer, Failure>,
    others: Vec<Failure>,
    attempts: Vec<Attempt>,
    begun: Instant,
    took: Duration,
    exhausted: Option<(u32, Duration, &'static str)>,
}

impl Finished {
    /// Collects what there is to say at the end.
    pub fn of(drive: &mut Drive<Flight>, outcome: &Outcome) -> Finished {
        let attached: Vec<Outcome> = drive.execution().attached().to_vec();
        let flight = &mut drive.host;
        Finished {
            result: flight.take(outcome),
            others: attached.iter().filter_map(|o| flight.failure(o)).collect(),
            attempts: std::mem::take(&mut flight.attempts),
            begun: flight.begun,
            took: clock::now().since(flight.begun),
            exhausted: flight.exhausted,
        }
    }
}

impl Finished {
    /// A call that ran into a mistake of ours.
    pub fn panicked(begun: Instant) -> Finished {
        let message = "seawall itself failed in this call; what it printed on the standard error stream belongs in a bug report";
        Finished {
            result: Err(Failure::Api(ApiError::new(ErrorKind::Api, message).with_class(Class::Permanent))),
            others: Vec::new(),
            attempts: Vec::new(),
            begun,
            took: clock::now().since(begun),
            exhausted: None,
        }
    }

    /// Whether it is a whole reply.
    pub fn is_reply(&self) -> bool {
        matches!(self.result, Ok(Answer::Chat(_)))
    }

    /// After the first content every failure is an interrupted stream.
    pub fn broke_off(&mut self, text: &str) {
        if let Err(Failure::Api(error)) = &self.result {
            self.result = Err(Failure::Api(error.clone().interrupted(text)));
        }
    }
}

/// What all calls of a route share with Python.
pub struct Shared {
    pub core: Arc<Core>,
    pub table: Py<PyAny>,
}

/// What there is to tell of a call that is over. Most stories nobody asks for: Python's records are made when somebody does.
pub struct Story {
    attempts: Vec<Attempt>,
    begun: Instant,
    /// What the attempts' targets are.
    legs: Arc<[Arc<LegCore>]>,
    told: PyOnceLock<Py<PyAny>>,
    /// Which alternative answered: 0 is the primary.
    pub alternative: u16,
    /// Seconds from the call to its end, retries and waits included.
    pub seconds: f64,
}

impl Story {
    /// One that was told before.
    pub fn retold(attempts: Py<PyAny>, alternative: u16, seconds: f64) -> Story {
        let told = PyOnceLock::new();
        let _ = Python::attach(|py| told.set(py, attempts));
        Story { attempts: Vec::new(), begun: Instant::NEVER, legs: Arc::default(), told, alternative, seconds }
    }

    /// The attempts, in order.
    pub fn attempts(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.told.get_or_try_init(py, || raise::attempts(py, &self.attempts, &self.legs, self.begun).map(Bound::unbind))
    }
}

/// Which kinds of error the listed classes match, and which they name.
pub fn kinds(table: &Bound<'_, PyAny>, types: &Bound<'_, PyTuple>) -> PyResult<Kinds> {
    static ROW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = table.py();
    let mut kinds = Kinds { matched: 0, named: 0 };
    for (kind, name, _) in KINDS {
        let class = table.getattr(name)?.cast_into::<PyType>()?;
        for listed in types {
            let listed = listed.cast_into::<PyType>()?;
            if class.is_subclass(&listed)? {
                kinds.matched |= Kinds::bit(kind);
                if ours(py, &ROW, "seawall._classify", "names_no_retry")?.call1((listed,))?.is_truthy()? {
                    kinds.named |= Kinds::bit(kind);
                }
            }
        }
    }
    Ok(kinds)
}

impl Shared {
    /// The exception of one attempt.
    pub fn of_attempt(&self, py: Python<'_>, failure: &Failure, model: Option<&str>) -> PyErr {
        raise::failure(py, failure, &self.core, self.table.bind(py), model)
    }

    /// The exception behind a finished call that failed.
    fn raised(&self, py: Python<'_>, finished: &Finished, failure: &Failure) -> PyResult<PyErr> {
        let table = self.table.bind(py);
        let model = finished.attempts.first().and_then(|a| self.core.legs.get(a.target.0 as usize)).map(|l| &*l.model);
        let error = raise::failure(py, failure, &self.core, table, model);
        let others = finished.others.iter().map(|o| raise::failure(py, o, &self.core, table, None)).collect();
        let attempts = raise::attempts(py, &finished.attempts, &self.core.legs, finished.begun)?;
        raise::tell(py, &error, others, &attempts, finished.exhausted, model.unwrap_or("the call"));
        Ok(error)
    }

    fn reply(&self, py: Python<'_>, finished: &mut Finished, reply: ChatReply) -> PyResult<Py<PyAny>> {
        let story = self.story(finished);
        let asked_model = self.core.legs.get(story.alternative as usize).map_or_else(|| "".into(), |l| l.model.clone());
        Ok(Py::new(py, Reply { reply, story, asked_model })?.into_any())
    }

    fn embeddings(&self, py: Python<'_>, finished: &Finished, reply: EmbeddingsReply) -> PyResult<Py<PyAny>> {
        static EMBEDDED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let attempts = raise::attempts(py, &finished.attempts, &self.core.legs, finished.begun)?;
        let vectors = PyList::empty(py);
        for vector in &reply.vectors {
            vectors.append(PyList::new(py, vector.iter().map(|x| f64::from(*x)))?)?;
        }
        let tokens = reply.usage.as_ref().map_or(0, |u| u.prompt_tokens);
        let fields = (vectors, reply.model, tokens, attempts, finished.took.as_secs_f64());
        Ok(ours(py, &EMBEDDED, "seawall.llm", "EmbeddingsReply")?.call1(fields)?.unbind())
    }

    /// What Python gets for a finished call.
    pub fn convert(&self, py: Python<'_>, mut finished: Finished) -> PyResult<Py<PyAny>> {
        let unsaid = || Err(Failure::Api(ApiError::new(ErrorKind::Api, "the stream has ended")));
        match std::mem::replace(&mut finished.result, unsaid()) {
            Ok(Answer::Chat(reply)) => self.reply(py, &mut finished, *reply),
            Ok(Answer::Embeddings(reply)) => self.embeddings(py, &finished, reply),
            Ok(Answer::Stream(..) | Answer::Streamed) => Ok(py.None()),
            Err(failure) => Err(self.raised(py, &finished, &failure)?),
        }
    }

    /// The story of a finished call.
    pub fn story(&self, finished: &mut Finished) -> Story {
        Story {
            alternative: finished.attempts.last().map_or(0, |a| a.target.0),
            seconds: finished.took.as_secs_f64(),
            attempts: std::mem::take(&mut finished.attempts),
            begun: finished.begun,
            legs: self.core.legs.clone(),
            told: PyOnceLock::new(),
        }
    }

    /// The exception of a failed stream.
    pub fn stream_error(&self, py: Python<'_>, finished: &Finished) -> PyErr {
        match &finished.result {
            Err(failure) => self.raised(py, finished, failure).unwrap_or_else(|error| error),
            Ok(_) => pyo3::exceptions::PyStopIteration::new_err(()),
        }
    }
}

/// Runs a call to its end, whatever happens: somebody waits for it.
async fn run(core: Arc<Core>, order: Arc<Order>, client: Client, deadline: Instant) -> Finished {
    let begun = clock::now();
    let carried = async move {
        let mut drive = Drive::new(core.execution(deadline), Flight::new(core, order, client));
        loop {
            if let Turn::Done(outcome) = drive.advance().await {
                return Finished::of(&mut drive, &outcome);
            }
        }
    };
    AssertUnwindSafe(carried).catch_unwind().await.unwrap_or_else(|_| Finished::panicked(begun))
}

/// What a batch has to do, for those who do it: each takes the next order until there are none.
struct Work {
    orders: Vec<Arc<Order>>,
    next: AtomicUsize,
    /// In the order of the orders, and how many there are.
    results: Mutex<(Vec<Option<Finished>>, usize)>,
    /// Whether somebody wants to know of each that is done.
    is_watched: bool,
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, (Vec<Option<Finished>>, usize)> {
        self.results.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn carry_out(&self, core: Arc<Core>, client: Client, deadline: Instant, parker: &Parker) {
        while let at = self.next.fetch_add(1, Ordering::Relaxed)
            && let Some(order) = self.orders.get(at)
        {
            let finished = run(core.clone(), order.clone(), client.clone(), deadline).await;
            let is_last = {
                let mut results = self.lock();
                results.0[at] = Some(finished);
                results.1 += 1;
                results.1 == self.orders.len()
            };
            if is_last || self.is_watched {
                parker.wake();
            }
        }
    }
}

/// A call on its way to an asyncio future. Dropping it, or `abort`, cuts the request.
#[pyclass(frozen, module = "seawall")]
pub struct Flying {
    #[pyo3(get)]
    future: Py<PyAny>,
    abort: AbortHandle,
}

#[pymethods]
impl Flying {
    /// Gives the call up: the request is cut, permits go back, nothing counts.
    fn abort(&self) {
        self.abort.abort();
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Models behind one plan.
#[pyclass(frozen, module = "seawall")]
pub struct Route {
    pub shared: Arc<Shared>,
    /// Those of `shared` too, for the garbage collector.
    listeners: Arc<Listeners>,
}

fn broken(py: Python<'_>, table: &Py<PyAny>, error: &crate::llm::error::ApiError) -> PyErr {
    raise::api(py, error, table.bind(py), None)
}

impl Route {
    pub fn order(task: Task, content: &Bound<'_, PyAny>, params: Option<&Bound<'_, PyDict>>) -> PyResult<Arc<Order>> {
        Route::order_at(if task == Task::Embeddings { "input" } else { "messages" }, task, content, params)
    }

    /// The same where errors name another place.
    fn order_at(place: &str, task: Task, content: &Bound<'_, PyAny>, params: Option<&Bound<'_, PyDict>>) -> PyResult<Arc<Order>> {
        let lists = (content.cast::<PyList>(), content.cast::<PyTuple>());
        let inputs = lists.0.map(|list| list.len()).or_else(|_| lists.1.map(|tuple| tuple.len())).unwrap_or(1);
        Ok(Arc::new(Order { task, content: json::text(content, place)?, inputs, params: json::params(params)? }))
    }

    pub fn live(&self, py: Python<'_>) -> PyResult<(tokio::runtime::Handle, Client)> {
        runtime::get().map_err(|error| broken(py, &self.shared.table, &error))
    }
}

fn task(name: &str) -> Task {
    if name == "embeddings" { Task::Embeddings } else { Task::Chat }
}

#[pymethods]
impl Route {
    /// `legs` in the order in which they are tried; `handled` are the exception classes for which alternatives stand in;
    /// `table` is where exception classes are looked up; `function` is what retry states and logs name.
    #[new]
    #[pyo3(signature = (legs, table, *, handled=None, deadline=None, function=None))]
    fn new(
        py: Python<'_>,
        legs: Vec<Py<Leg>>,
        table: Py<PyAny>,
        handled: Option<Bound<'_, PyAny>>,
        deadline: Option<f64>,
        function: Option<Py<PyAny>>,
    ) -> PyResult<Route> {
        let Some(first) = legs.first() else { return Err(configuration(py, "a route needs a model")) };
        if legs.len() > MOST {
            return Err(configuration(py, &format!("a model can have {} alternatives, not {}", MOST - 1, legs.len() - 1)));
        }
        let mut builder = super::leg::Builder::default();
        let mut branches = Vec::new();
        let mut elsewhere = 0u64;
        for (at, leg) in legs.iter().enumerate() {
            branches.push(builder.chain(py, leg.get(), Target(at as u16), table.bind(py))?);
            if leg.get().is_elsewhere(first.get()) {
                elsewhere |= 1 << at;
            }
        }
        let mut root = branches[0];
        if branches.len() > 1 {
            let listed = match Listed::parse("exceptions_to_handle", handled.as_ref())? {
                Listed::Table => None,
                Listed::Types(types) => Some(kinds(table.bind(py), types.bind(py))?),
                _ => return Err(configuration(py, "exceptions_to_handle of a model must be exception classes")),
            };
            root = builder.layer(
                Arc::new(Fallback { judges_values: false }),
                branches,
                Rule::Fallback(listed, elsewhere),
                None,
                first.get().name(),
            );
        }
        if let Some(deadline) = deadline {
            root = builder.layer(
                Arc::new(Timeout { limit: Duration::from_secs_f64(deadline) }),
                vec![root],
                Rule::None,
                None,
                first.get().name(),
            );
        }
        let (plan, rules, names, stages) = builder.finish(root);
        let announces = stages.iter().any(|stage| stage.hooks.is_some());
        let foreign = Arc::new(Listeners::new(stages, names.clone(), table.clone_ref(py), function));
        let legs = legs.iter().map(|l| l.get().core.clone()).collect();
        let core = Arc::new(Core { plan, legs, rules, names, foreign: Some(foreign.clone()), announces });
        Ok(Route { shared: Arc::new(Shared { core, table }), listeners: foreign })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What a call under way or a stream shares is theirs too, and no garbage. Nobody can come to share it meanwhile.
        let shared =
            Arc::strong_count(&self.shared) > 1 || Arc::strong_count(&self.shared.core) > 1 || Arc::strong_count(&self.listeners) > 2;
        if shared { Ok(()) } else { self.listeners.traverse(&visit) }
    }

    /// Calls and waits on this thread; Ctrl-C ends the wait and cuts the request.
    #[pyo3(signature = (kind, content, params=None))]
    fn call(&self, py: Python<'_>, kind: &str, content: &Bound<'_, PyAny>, params: Option<&Bound<'_, PyDict>>) -> PyResult<Py<PyAny>> {
        let order = Route::order(task(kind), content, params)?;
        let (runtime, client) = self.live(py)?;
        let deadline = remaining::inherited(py);
        let slot: Arc<Mutex<Option<Finished>>> = Arc::new(Mutex::new(None));
        let mut abort = None;
        let finished = bridge::wait(
            py,
            |parker| {
                let (slot, core) = (slot.clone(), self.shared.core.clone());
                let job = runtime.spawn(async move {
                    let finished = run(core, order, client, deadline).await;
                    *slot.lock().unwrap_or_else(|p| p.into_inner()) = Some(finished);
                    parker.wake();
                });
                abort = Some(job.abort_handle());
            },
            || slot.lock().unwrap_or_else(|p| p.into_inner()).take(),
        );
        match finished {
            Ok(finished) => self.shared.convert(py, finished),
            Err(interrupt) => {
                if let Some(job) = abort {
                    job.abort();
                }
                Err(interrupt)
            }
        }
    }

    /// Begins a call whose result comes as a future of the running loop.
    #[pyo3(signature = (kind, content, params=None))]
    fn start(&self, py: Python<'_>, kind: &str, content: &Bound<'_, PyAny>, params: Option<&Bound<'_, PyDict>>) -> PyResult<Flying> {
        let order = Route::order(task(kind), content, params)?;
        let (runtime, client) = self.live(py)?;
        let deadline = remaining::inherited(py);
        let (future, sender) = bridge::future(py)?;
        let (shared, core, told) = (self.shared.clone(), self.shared.core.clone(), future.clone_ref(py));
        let job = runtime.spawn(async move {
            let finished = run(core, order, client, deadline).await;
            if let Some(call) = sender.complete(told, move |py| shared.convert(py, finished)) {
                // Those that are ready too go along.
                tokio::task::yield_now().await;
                drop(call);
            }
        });
        Ok(Flying { future, abort: job.abort_handle() })
    }

    /// Opens a stream; nothing is sent before its first piece is asked for.
    #[pyo3(signature = (content, params=None))]
    fn stream(&self, content: &Bound<'_, PyAny>, params: Option<&Bound<'_, PyDict>>) -> PyResult<Stream> {
        let order = Route::order(Task::Stream, content, params)?;
        Ok(Stream::new(self.shared.clone(), order, Watched::No))
    }

    /// As `stream`, telling of each attempt too, as it begins and once it is known what follows its end; with `kind="chat"`
    /// the last piece is the whole reply. Unless `every`, nothing is told of a call that needs one attempt.
    #[pyo3(signature = (kind, content, params=None, *, every=true))]
    fn watch(&self, kind: &str, content: &Bound<'_, PyAny>, params: Option<&Bound<'_, PyDict>>, every: bool) -> PyResult<Stream> {
        let task = if kind == "stream" { Task::Stream } else { task(kind) };
        let order = Route::order(task, content, params)?;
        Ok(Stream::new(self.shared.clone(), order, if every { Watched::Every } else { Watched::Repeated }))
    }

    /// Calls for each content, at most `concurrency` at a time; gives a list of results, an exception in place of one that
    /// failed. Result i belongs to content i; a content that is an exception is its own result. What cannot be sent is
    /// raised before anything is, or with `lenient` is a result too. `progress` is called with the number finished.
    #[pyo3(signature = (kind, contents, params=None, *, concurrency=None, lenient=false, progress=None))]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn batch(
        &self,
        py: Python<'_>,
        kind: &str,
        contents: Vec<Bound<'_, PyAny>>,
        params: Option<&Bound<'_, PyDict>>,
        concurrency: Option<usize>,
        lenient: bool,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyList>> {
        let mut orders = Vec::with_capacity(contents.len());
        let mut refused = Vec::with_capacity(contents.len());
        for (at, content) in contents.iter().enumerate() {
            let order = match content.is_instance_of::<PyBaseException>() {
                true => Err(PyErr::from_value(content.clone())),
                false => Route::order_at(&format!("inputs[{at}]"), task(kind), content, params),
            };
            refused.push(match order {
                Ok(order) => {
                    orders.push(order);
                    None
                }
                Err(error) if lenient => Some(error),
                Err(error) => return Err(error),
            });
        }
        let (runtime, client) = self.live(py)?;
        let deadline = remaining::inherited(py);
        let total = orders.len();
        let work = Arc::new(Work {
            orders,
            next: AtomicUsize::new(0),
            results: Mutex::new(((0..total).map(|_| None).collect(), 0)),
            is_watched: progress.is_some(),
        });
        let mut jobs = Vec::new();
        let mut shown = 0;
        let waited = bridge::wait(
            py,
            |parker| {
                for _ in 0..concurrency.unwrap_or(total).clamp(1, total.max(1)) {
                    let (work, core, client, parker) = (work.clone(), self.shared.core.clone(), client.clone(), parker.clone());
                    jobs.push(runtime.spawn(async move { work.carry_out(core, client, deadline, &parker).await }));
                }
            },
            || {
                let done = work.lock().1;
                if let (Some(progress), true) = (&progress, done > shown)
                    && let Err(error) = progress.call1((done,))
                {
                    error.write_unraisable(py, Some(progress));
                }
                shown = done;
                (done == total).then_some(())
            },
        );
        if let Err(interrupt) = waited {
            jobs.iter().for_each(|job| job.abort());
            return Err(interrupt);
        }
        let finished = std::mem::take(&mut work.lock().0);
        let mut finished = finished.into_iter().flatten();
        let list = PyList::empty(py);
        for refusal in refused {
            let result = match refusal {
                Some(error) => Err(error),
                None => self.shared.convert(py, finished.next().unwrap_or_else(|| Finished::panicked(clock::now()))),
            };
            match result {
                Ok(value) => list.append(value)?,
                Err(error) => list.append(error.into_value(py))?,
            }
        }
        Ok(list.unbind())
    }
}
