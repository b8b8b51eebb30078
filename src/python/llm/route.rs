//! `Route`: one or more models behind one plan, called from threads and event loops.

use super::batch::{Batch, Call};
use super::bridge::{self, Sender, Tie};
use super::extras::{Checked, Given};
use super::finished::Finished;
use super::foreign::Listeners;
use super::json;
use super::leg::{Leg, kinds};
use super::screened;
use super::shared::Shared;
use super::stream::{Stream, Watched};
use crate::drive::clock;
use crate::drive::tokio::{Drive, Turn};
use crate::engine::{Instant, StageId, Target};
use crate::guardrails::Tally;
use crate::llm::client::Client;
use crate::llm::estimate;
use crate::llm::interrupt::{OnInterrupt, WORDS};
use crate::llm::kept::Keeping;
use crate::llm::order::{Extras, Order, Task};
use crate::llm::route::{Flight, Leg as LegCore, Route as Core};
use crate::llm::rule::Rule;
use crate::policies::cache::Caching;
use crate::policies::fallback::Fallback;
use crate::policies::patience::Patience;
use crate::policies::timeout::Timeout;
use crate::python::errors::configuration;
use crate::python::guardrails::Guardrails;
use crate::python::judge::Listed;
use crate::python::monitor::Monitor;
use crate::python::policies::cache::Cache;
use crate::python::policies::circuit_breaker::short_repr;
use crate::python::policies::retry::Retry;
use crate::python::trace::{self, Traced};
use crate::python::{cached, remaining};
use crate::stats::Source;
use futures_util::FutureExt;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Alternatives are bits of a mask.
const MOST: usize = 64;

/// Runs a call to its end, whatever happens: somebody waits for it.
pub async fn run(core: Arc<Core>, order: Arc<Order>, client: Client, deadline: Instant) -> Finished {
    let begun = clock::now();
    let carried = async move {
        let mut execution = core.execution(&order, deadline);
        let mut flight = Flight::new(core, order, client);
        flight.recalls().await;
        flight.asks_cache(&mut execution);
        let mut drive = Drive::new(execution, flight);
        loop {
            if let Turn::Done(outcome) = drive.advance().await? {
                return Ok(Finished::of(&mut drive, &outcome));
            }
        }
    };
    Finished::carried(AssertUnwindSafe(carried).catch_unwind().await, begun)
}

/// A call, or a batch of them, on its way to a future. Dropping it, or `abort`, or the end of the loop cuts the requests.
#[pyclass(frozen, module = "seawall")]
pub struct Flying {
    #[pyo3(get)]
    future: Py<PyAny>,
    job: AbortHandle,
    tie: Tie,
}

impl Flying {
    /// A job whose future belongs to the loop that `sender` leads to.
    pub fn new(future: Py<PyAny>, job: AbortHandle, sender: &Sender) -> Flying {
        Flying { future, tie: sender.awaits(job.clone()), job }
    }
}

#[pymethods]
impl Flying {
    /// Gives the call up: the request is cut, permits go back, nothing counts.
    fn abort(&self) {
        if self.tie.is_here() {
            self.job.abort();
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.future)
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Models behind one plan.
#[pyclass(frozen, module = "seawall")]
pub struct Route {
    pub shared: Arc<Shared>,
    /// Those of `shared` too, for the garbage collector.
    listeners: Arc<Listeners>,
    on_interrupt: OnInterrupt,
    /// What is asked has to pass these.
    guardrails: Option<Py<Guardrails>>,
    /// The limits at which calls weigh something, and of which leg they are.
    scales: Vec<(StageId, usize)>,
}

fn on_interrupt(py: Python<'_>, word: &Bound<'_, PyAny>) -> PyResult<OnInterrupt> {
    let found = word.extract::<&str>().ok().and_then(OnInterrupt::named);
    let words: Vec<String> = WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    found.ok_or_else(|| configuration(py, &format!("on_interrupt must be {}, not {}", words.join(" or "), short_repr(word))))
}

impl Route {
    fn order(&self, task: Task, content: &Bound<'_, PyAny>, params: Option<&Bound<'_, PyDict>>, extras: Extras) -> PyResult<Arc<Order>> {
        let place = if task == Task::Embeddings { "input" } else { "messages" };
        self.order_at(place, task, content, params, extras, OnInterrupt::Error)
    }

    /// The same where errors name another place.
    pub fn order_at(
        &self,
        place: &str,
        task: Task,
        content: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyDict>>,
        extras: Extras,
        on_interrupt: OnInterrupt,
    ) -> PyResult<Arc<Order>> {
        let py = content.py();
        let lists = (content.cast::<PyList>(), content.cast::<PyTuple>());
        let inputs = lists.0.map(|list| list.len()).or_else(|_| lists.1.map(|tuple| tuple.len())).unwrap_or(1);
        let is_chat = matches!(task, Task::Chat | Task::Stream);
        // The user's functions at limits see messages, whatever they were given as.
        let asked = if is_chat && !self.scales.is_empty() { json::as_messages(content)? } else { content.clone() };
        let content = if is_chat { json::messages(content, place) } else { json::text(content, place) };
        let (mut content, sent) = (content?, json::params(params)?);
        let mut screened = Tally::default();
        if let Some(rails) = self.guardrails.as_ref().filter(|rails| !rails.get().asked.is_empty()) {
            let (changed, tally) = screened::asked(py, rails, &content, place, &self.shared.core.legs[0].model)?;
            content = changed.unwrap_or(content);
            screened = tally;
        }
        let source = self.shared.core.sources.first().copied().unwrap_or_default();
        let trace = if trace::is_on() { Traced::of_a_model(py, task.operation(), source) } else { None };
        let (weights, keyed) = (Vec::new(), Vec::new());
        let mut order = Order { task, content, inputs, params: sent, extras, on_interrupt, weights, keyed, screened, key: None, trace };
        for (stage, leg) in &self.scales {
            let leg = &self.shared.core.legs[*leg];
            let weight = self.listeners.weight(py, *stage, &asked, params)?;
            order.weights.push((*stage, weight.unwrap_or_else(|| estimate::tokens(&order, leg))));
            if let Some(own) = self.listeners.keyed(*stage, leg, &asked, params, &order.params)? {
                order.keyed.push((*stage, own));
            }
        }
        if let Some(keeping) = &self.shared.core.keeping {
            order.extras.caching = order.extras.caching.or(cached::caching(py)?);
            order.key = (order.extras.caching != Caching::Bypass).then(|| keeping.key(&order, &self.shared.core.legs[0])).flatten();
        }
        Ok(Arc::new(order))
    }
}

/// What is asked for in calls of that kind.
pub fn task(name: &str) -> Task {
    match name {
        "embeddings" => Task::Embeddings,
        "models" => Task::Models,
        _ => Task::Chat,
    }
}

impl Route {
    /// The end of a call whose answer is in the cache: it is carried out here and now, by the same steps as any.
    fn at_once(&self, order: &Arc<Order>, (runtime, client): (&Handle, &Client), deadline: Instant) -> Option<Finished> {
        let (keeping, key) = (self.shared.core.keeping.as_ref()?, order.key?);
        if order.extras.caching != Caching::Usual || !keeping.cache.has(&key, clock::now()) {
            return None;
        }
        let _runtime = runtime.enter();
        // Gone meanwhile, it is given up again before anything is sent.
        run(self.shared.core.clone(), order.clone(), client.clone(), deadline).now_or_never()
    }
}

#[pymethods]
impl Route {
    /// `legs` in the order in which they are tried; `handled` are the exception classes for which alternatives stand in;
    /// `table` is where exception classes are looked up; `function` is what retry states and logs name. `on_interrupt` is for
    /// streams that say nothing else. `patience` is that of a batch: the retries of all its calls, and the seconds for which
    /// nothing may be answered.
    #[new]
    #[pyo3(signature = (legs, table, *, handled=None, deadline=None, function=None, on_interrupt=None, monitor=None, cache=None,
                        patience=None, guardrails=None))]
    #[allow(clippy::too_many_arguments)] // one per argument
    fn new(
        py: Python<'_>,
        legs: Vec<Py<Leg>>,
        table: Py<PyAny>,
        handled: Option<Bound<'_, PyAny>>,
        deadline: Option<f64>,
        function: Option<Py<PyAny>>,
        on_interrupt: Option<Bound<'_, PyAny>>,
        monitor: Option<Py<Monitor>>,
        cache: Option<Py<Cache>>,
        patience: Option<(Py<Retry>, Option<f64>)>,
        guardrails: Option<Py<Guardrails>>,
    ) -> PyResult<Route> {
        let Some(first) = legs.first() else { return Err(configuration(py, "a route needs a model")) };
        if legs.len() > MOST {
            return Err(configuration(py, &format!("a model can have {} alternatives, not {}", MOST - 1, legs.len() - 1)));
        }
        let mut builder = super::leg::Builder::default();
        let mut branches = Vec::new();
        let mut elsewhere = 0u64;
        let rails = guardrails.as_ref().map(|rails| rails.get().answered.clone()).filter(|rails| !rails.is_empty());
        for (at, leg) in legs.iter().enumerate() {
            branches.push(builder.chain(py, leg.get(), Target(at), table.bind(py), rails.is_some())?);
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
        if let Some((retry, limit)) = patience {
            let policy = Arc::new(Patience::new(retry.get().policy(py, None), limit.map(Duration::from_secs_f64)));
            root = builder.retrying(py, retry.get(), policy, Rule::Patience, root, first.get().name(), table.bind(py))?;
        }
        let described = guardrails.as_ref().filter(|_| rails.is_some()).map(|rails| rails.get().described(py)).transpose()?;
        let keeping = cache.map(|cache| {
            let (cache, target) = (cache.get(), Target(legs.len()));
            let name = cache.name.clone().unwrap_or_else(|| first.get().name());
            let stage = builder.cache(cache.policy(), root, target, name.clone());
            root = stage;
            Keeping::new(cache.core.clone(), cache.file.clone(), stage, target, &name, &first.get().core, described.as_deref())
        });
        if let Some(deadline) = deadline {
            root = builder.layer(
                Arc::new(Timeout { limit: Duration::from_secs_f64(deadline) }),
                vec![root],
                Rule::None,
                None,
                first.get().name(),
            );
        }
        let scales = builder.take_scales();
        let (plan, rules, names, stages) = builder.finish(root);
        let announces = stages.iter().any(|stage| stage.hooks.is_some());
        let is_counted = monitor.is_some();
        let foreign = Arc::new(Listeners::new(stages, names.clone(), table.clone_ref(py), function, monitor));
        let pipeline = first.get().name();
        let legs: Arc<[Arc<LegCore>]> = legs.iter().map(|l| l.get().core.clone()).collect();
        let sources = legs.iter().map(|leg| Source::of(&pipeline, &leg.model, &leg.endpoint.place())).collect();
        let core =
            Arc::new(Core { plan, legs, rules, names, sources, is_counted, foreign: Some(foreign.clone()), announces, keeping, rails });
        let on_interrupt = on_interrupt.map_or(Ok(OnInterrupt::Error), |word| self::on_interrupt(py, &word))?;
        Ok(Route { shared: Arc::new(Shared { core, table }), listeners: foreign, on_interrupt, guardrails, scales })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.guardrails)?;
        // What a call under way or a stream shares is theirs too, and no garbage. Nobody can come to share it meanwhile.
        let shared =
            Arc::strong_count(&self.shared) > 1 || Arc::strong_count(&self.shared.core) > 1 || Arc::strong_count(&self.listeners) > 2;
        if shared { Ok(()) } else { self.listeners.traverse(&visit) }
    }

    /// Calls and waits on this thread; Ctrl-C ends the wait and cuts the request.
    #[pyo3(signature = (kind, content, params=None, extras=None))]
    fn call(
        &self,
        py: Python<'_>,
        kind: &str,
        content: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyDict>>,
        extras: Option<Given>,
    ) -> PyResult<Py<PyAny>> {
        let order = self.order(task(kind), content, params, Checked::new(py, &self.shared.table, extras)?.of_a_call())?;
        let now = clock::now();
        if let Some((answer, by, note)) = self.shared.core.at_hand(&order, now) {
            return self.shared.convert(py, Finished::at_hand(answer, by, note, now));
        }
        let (runtime, client) = self.shared.live(py)?;
        let deadline = remaining::inherited(py);
        if let Some(finished) = self.at_once(&order, (&runtime, &client), deadline) {
            return self.shared.convert(py, finished);
        }
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

    /// Begins a call whose result comes as a future of the running loop: asyncio's, or a run of trio's.
    #[pyo3(signature = (kind, content, params=None, extras=None))]
    fn start(
        &self,
        py: Python<'_>,
        kind: &str,
        content: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyDict>>,
        extras: Option<Given>,
    ) -> PyResult<Flying> {
        let order = self.order(task(kind), content, params, Checked::new(py, &self.shared.table, extras)?.of_a_call())?;
        let (runtime, client) = self.shared.live(py)?;
        let deadline = remaining::inherited(py);
        let (future, sender) = bridge::future(py)?;
        let (shared, core, told, way) = (self.shared.clone(), self.shared.core.clone(), future.clone_ref(py), sender.clone());
        let job = runtime.spawn(async move {
            let finished = run(core, order, client, deadline).await;
            if let Some(call) = way.complete(told, move |py| shared.convert(py, finished)) {
                // Those that are ready too go along.
                tokio::task::yield_now().await;
                drop(call);
            }
        });
        Ok(Flying::new(future, job.abort_handle(), &sender))
    }

    /// As `batch`, whose list comes as a future of the running loop.
    #[pyo3(signature = (kind, contents, params=None, extras=None, *, concurrency=None, lenient=false))]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn start_batch(
        &self,
        py: Python<'_>,
        kind: &str,
        contents: Vec<Bound<'_, PyAny>>,
        params: Option<&Bound<'_, PyDict>>,
        extras: Option<Given>,
        concurrency: Option<usize>,
        lenient: bool,
    ) -> PyResult<Flying> {
        let extras = Checked::new(py, &self.shared.table, extras)?;
        let batch = Batch::new(self, task(kind), &contents, params, &extras, lenient)?;
        let (runtime, client) = self.shared.live(py)?;
        let deadline = remaining::inherited(py);
        let (future, sender) = bridge::future(py)?;
        let (work, refused) = batch.work();
        let call = Call { core: self.shared.core.clone(), client, deadline };
        let (shared, told, way) = (self.shared.clone(), future.clone_ref(py), sender.clone());
        let job = runtime.spawn(async move {
            work.clone().carry_out(concurrency, call).await;
            drop(way.complete(told, move |py| Ok(shared.results(py, &work, refused)?.into_any())));
        });
        Ok(Flying::new(future, job.abort_handle(), &sender))
    }

    /// Opens a stream; nothing is sent before its first piece is asked for.
    #[pyo3(signature = (content, params=None, extras=None, on_interrupt=None))]
    fn stream(
        &self,
        py: Python<'_>,
        content: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyDict>>,
        extras: Option<Given>,
        on_interrupt: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Stream> {
        let on_interrupt = on_interrupt.map_or(Ok(self.on_interrupt), |word| self::on_interrupt(py, &word))?;
        let extras = Checked::new(py, &self.shared.table, extras)?.of_a_call();
        let order = self.order_at("messages", Task::Stream, content, params, extras, on_interrupt)?;
        Ok(Stream::new(self.shared.clone(), order, Watched::No))
    }

    /// As `stream`, telling of each attempt too, as it begins and once it is known what follows its end; with `kind="chat"`
    /// the last piece is the whole reply. Unless `every`, nothing is told of a call that needs one attempt.
    #[pyo3(signature = (kind, content, params=None, extras=None, *, every=true))]
    fn watch(
        &self,
        py: Python<'_>,
        kind: &str,
        content: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyDict>>,
        extras: Option<Given>,
        every: bool,
    ) -> PyResult<Stream> {
        let (task, on_interrupt) = if kind == "stream" { (Task::Stream, self.on_interrupt) } else { (task(kind), OnInterrupt::Error) };
        let extras = Checked::new(py, &self.shared.table, extras)?.of_a_call();
        let order = self.order_at("messages", task, content, params, extras, on_interrupt)?;
        Ok(Stream::new(self.shared.clone(), order, if every { Watched::Every } else { Watched::Repeated }))
    }

    /// Calls for each content, at most `concurrency` at a time; gives a list of results, an exception in place of one that
    /// failed. Result i belongs to content i; a content that is an exception is its own result. What cannot be sent is
    /// raised before anything is, or with `lenient` is a result too.
    #[pyo3(signature = (kind, contents, params=None, extras=None, *, concurrency=None, lenient=false))]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn batch(
        &self,
        py: Python<'_>,
        kind: &str,
        contents: Vec<Bound<'_, PyAny>>,
        params: Option<&Bound<'_, PyDict>>,
        extras: Option<Given>,
        concurrency: Option<usize>,
        lenient: bool,
    ) -> PyResult<Py<PyList>> {
        let extras = Checked::new(py, &self.shared.table, extras)?;
        let batch = Batch::new(self, task(kind), &contents, params, &extras, lenient)?;
        let (runtime, client) = self.shared.live(py)?;
        let deadline = remaining::inherited(py);
        let (work, refused) = batch.work();
        let over = Arc::new(AtomicBool::new(false));
        let mut job = None;
        let waited = bridge::wait(
            py,
            |parker| {
                let call = Call { core: self.shared.core.clone(), client, deadline };
                let (carried, over) = (work.clone().carry_out(concurrency, call), over.clone());
                job = Some(runtime.spawn(async move {
                    carried.await;
                    over.store(true, Ordering::Release);
                    parker.wake();
                }));
            },
            || over.load(Ordering::Acquire).then_some(()),
        );
        if let Err(interrupt) = waited {
            if let Some(job) = job {
                job.abort();
            }
            return Err(interrupt);
        }
        self.shared.results(py, &work, refused)
    }
}
