//! `Leg`: one model at one place with its own policies, and the builder of plans from legs.

use super::keys::Function;
use super::raise;
use crate::engine::{Plan, PlanBuilder, Policy, StageId, Target};
use crate::llm::client::{ClientOptions, ProxyChoice};
use crate::llm::endpoint::{Endpoint, EndpointOptions};
use crate::llm::error::{ErrorKind, KINDS};
use crate::llm::key_file::KeyFile;
use crate::llm::keys::Keys;
use crate::llm::network::Network;
use crate::llm::route::{Leg as Core, Patience};
use crate::llm::rule::{Kinds, Rule};
use crate::llm::secret::ApiKey;
use crate::policies::cache::Cached;
use crate::policies::guardrails::Guardrails;
use crate::policies::rate_limit::Limited;
use crate::policies::retry::Retried;
use crate::policies::timeout::Timeout;
use crate::python::convert;
use crate::python::errors::{class, configuration, ours};
use crate::python::hooks::Hooks;
use crate::python::judge::{Judge, Listed};
use crate::python::llm::json;
use crate::python::policies::bulkhead::Bulkhead;
use crate::python::policies::circuit_breaker::CircuitBreaker;
use crate::python::policies::hedge::Hedge;
use crate::python::policies::rate_limit::RateLimit;
use crate::python::policies::retry::Retry;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One model at one place.
#[pyclass(frozen, module = "seawall")]
pub struct Leg {
    pub core: Arc<Core>,
    place: String,
    key: Option<ApiKey>,
    key_source: Option<Py<PyAny>>,
    key_file: Option<Arc<KeyFile>>,
    /// Organization and project.
    who: [Option<String>; 2],
    retry: Option<Py<Retry>>,
    breaker: Option<Py<CircuitBreaker>>,
    limit: Option<Py<RateLimit>>,
    bulkhead: Option<Py<Bulkhead>>,
    hedge: Option<Py<Hedge>>,
    timeout: Option<Duration>,
}

#[pymethods]
impl Leg {
    #[new]
    #[pyo3(signature = (model, *, base_url, api_key=None, organization=None, project=None, headers=None, query=None, params=None,
                        retry=None, breaker=None, timeout=None, first_token_timeout=None, idle_timeout=None,
                        max_response_bytes=67_108_864, key_source=None, proxy=None, authorities=None, identity=None,
                        rate_limit=None, bulkhead=None, hedge=None, key_file=None))]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new(
        py: Python<'_>,
        model: &str,
        base_url: String,
        api_key: Option<String>,
        organization: Option<String>,
        project: Option<String>,
        headers: Option<Vec<(String, String)>>,
        query: Option<Vec<(String, String)>>,
        params: Option<&Bound<'_, PyDict>>,
        retry: Option<Py<Retry>>,
        breaker: Option<Py<CircuitBreaker>>,
        timeout: Option<Bound<'_, PyAny>>,
        first_token_timeout: Option<Bound<'_, PyAny>>,
        idle_timeout: Option<Bound<'_, PyAny>>,
        max_response_bytes: usize,
        key_source: Option<Py<PyAny>>,
        proxy: Option<String>,
        authorities: Option<Vec<u8>>,
        identity: Option<Vec<u8>>,
        rate_limit: Option<Py<RateLimit>>,
        bulkhead: Option<Py<Bulkhead>>,
        hedge: Option<Py<Hedge>>,
        key_file: Option<PathBuf>,
    ) -> PyResult<Leg> {
        let table = class(py, "APIError")?.getattr("__module__").and_then(|m| py.import(m.extract::<&str>()?))?;
        let wrong = |error| raise::api(py, &error, table.as_any(), None);
        let who = [organization.clone(), project.clone()];
        let key = api_key.filter(|k| !k.is_empty()).map(ApiKey::new).transpose().map_err(wrong)?;
        let options = EndpointOptions {
            base_url,
            api_key: key.clone(),
            key_comes_later: key_source.is_some() || key_file.is_some(),
            organization,
            project,
            headers: headers.unwrap_or_default(),
            query: query.unwrap_or_default(),
        };
        let endpoint = Endpoint::new(options).map_err(wrong)?;
        let place = endpoint.place();
        let params = json::params(params)?;
        let timeout = convert::optional("timeout", timeout.as_ref(), convert::positive_seconds)?;
        let within = |name, value: Option<Bound<'_, PyAny>>| {
            let limit = convert::optional(name, value.as_ref(), convert::positive_seconds)?;
            match (limit, timeout) {
                (Some(limit), Some(whole)) if limit > whole => Err(configuration(
                    py,
                    &format!(
                        "{name} ({} s) is longer than timeout ({} s), the limit of the whole attempt: it would never be reached",
                        limit.as_secs_f64(),
                        whole.as_secs_f64()
                    ),
                )),
                _ => Ok(limit),
            }
        };
        let patience =
            Patience { first_token: within("first_token_timeout", first_token_timeout)?, idle: within("idle_timeout", idle_timeout)? };
        let network = match (proxy, authorities, identity) {
            (None, None, None) => None,
            (proxy, authorities, identity) => {
                let proxy = match proxy {
                    None => ProxyChoice::System,
                    Some(none) if none.is_empty() => ProxyChoice::Off,
                    Some(url) => ProxyChoice::At(url),
                };
                Some(Network::of(ClientOptions { proxy, authorities, identity, ..ClientOptions::default() }).map_err(wrong)?)
            }
        };
        let key_file = key_file.map(KeyFile::open).transpose().map_err(wrong)?.map(Arc::new);
        let keys = match (&key_source, &key_file) {
            (Some(source), _) => Some(Keys::new(Arc::new(Function(source.clone_ref(py))))),
            (None, Some(file)) => Some(Keys::new(file.clone())),
            (None, None) => None,
        };
        let core = Core { endpoint, model: model.into(), params, max_response_bytes, patience, keys, network };
        let core = Arc::new(core);
        Ok(Leg { core, place, key, key_source, key_file, who, retry, breaker, limit: rate_limit, bulkhead, hedge, timeout })
    }

    /// The same model at the same place with other retries.
    fn with_retry(&self, py: Python<'_>, retry: Option<Py<Retry>>) -> Leg {
        Leg {
            core: self.core.clone(),
            place: self.place.clone(),
            key: self.key.clone(),
            key_source: self.key_source.as_ref().map(|s| s.clone_ref(py)),
            key_file: self.key_file.clone(),
            who: self.who.clone(),
            retry,
            breaker: self.breaker.as_ref().map(|b| b.clone_ref(py)),
            limit: self.limit.as_ref().map(|l| l.clone_ref(py)),
            bulkhead: self.bulkhead.as_ref().map(|b| b.clone_ref(py)),
            hedge: self.hedge.as_ref().map(|h| h.clone_ref(py)),
            timeout: self.timeout,
        }
    }

    /// The same with another time limit of an attempt.
    fn with_timeout(&self, py: Python<'_>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<Leg> {
        let timeout = convert::optional("timeout", timeout.as_ref(), convert::positive_seconds)?;
        let retry = self.retry.as_ref().map(|r| r.clone_ref(py));
        Ok(Leg { timeout, ..self.with_retry(py, retry) })
    }

    /// What its answers depend on beside the question: the place, without credentials, and the parameters it always sends.
    fn described(&self) -> (Vec<(String, String)>, String) {
        let params: Vec<String> =
            self.core.params.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
        (self.core.endpoint.described(), params.join("\n"))
    }

    /// Whether it asks the same server, as the same, with the same key.
    fn is_same_place(&self, other: &Leg) -> bool {
        self.core.endpoint.shown() == other.core.endpoint.shown() && self.who == other.who && !self.is_elsewhere(other)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.key_source)?;
        visit.call(&self.retry)?;
        visit.call(&self.limit)?;
        visit.call(&self.bulkhead)?;
        visit.call(&self.hedge)?;
        visit.call(&self.breaker)
    }

    fn __repr__(&self) -> String {
        format!("<Leg {} at {}>", self.core.model, self.place)
    }
}

impl Leg {
    pub fn name(&self) -> String {
        self.core.model.to_string()
    }

    /// Whether it has other credentials or another endpoint than the primary.
    pub fn is_elsewhere(&self, primary: &Leg) -> bool {
        let keys = (self.key.as_ref().map(ApiKey::expose), primary.key.as_ref().map(ApiKey::expose));
        let sources = (self.key_source.as_ref().map(Py::as_ptr), primary.key_source.as_ref().map(Py::as_ptr));
        let files = (self.key_file.as_ref().map(|file| file.path()), primary.key_file.as_ref().map(|file| file.path()));
        self.place != primary.place || keys.0 != keys.1 || sources.0 != sources.1 || files.0 != files.1
    }
}

/// What the listeners know of a stage.
#[derive(Default)]
pub struct Stage {
    pub judge: Option<Judge>,
    pub hooks: Option<Hooks>,
    pub breaker: Option<Py<CircuitBreaker>>,
    pub limit: Option<Py<RateLimit>>,
}

/// Builds a plan with a rule, a name and a listener's entry per stage.
#[derive(Default)]
pub struct Builder {
    plan: PlanBuilder,
    rules: Vec<Rule>,
    names: Vec<String>,
    stages: Vec<Stage>,
    /// Where calls weigh something, and the leg whose that is.
    scales: Vec<(StageId, usize)>,
}

impl Builder {
    fn push(&mut self, id: StageId, rule: Rule, stage: Stage, name: String) -> StageId {
        self.rules.push(rule);
        self.stages.push(stage);
        self.names.push(name);
        id
    }

    /// A policy around what is inside.
    pub fn layer(&mut self, policy: Arc<dyn Policy>, inner: Vec<StageId>, rule: Rule, stage: Option<Stage>, name: String) -> StageId {
        let id = self.plan.layer(policy, inner);
        self.push(id, rule, stage.unwrap_or_default(), name)
    }

    /// The limits at which calls weigh something, and the legs whose they are.
    pub fn take_scales(&mut self) -> Vec<(StageId, usize)> {
        std::mem::take(&mut self.scales)
    }

    /// A cache around what is inside.
    pub fn cache(&mut self, cache: Cached, inner: StageId, found: Target, name: String) -> StageId {
        let ready = self.plan.ready(found);
        self.push(ready, Rule::None, Stage::default(), name.clone());
        self.layer(Arc::new(cache), vec![inner, ready], Rule::None, None, name)
    }

    /// A leg with its policies: Retry, Guardrails, Hedge, CircuitBreaker, RateLimit, Bulkhead, Timeout, the call.
    /// `is_looked_at`: whether guardrails stand around its answers.
    pub fn chain(&mut self, py: Python<'_>, leg: &Leg, target: Target, table: &Bound<'_, PyAny>, is_looked_at: bool) -> PyResult<StageId> {
        let leaf = self.plan.leaf(target);
        let mut inner = self.push(leaf, Rule::None, Stage::default(), leg.name());
        // Without a limit of its own, a request is still cut by the one around its call.
        let limit = leg.timeout.unwrap_or(Duration::MAX);
        inner = self.layer(Arc::new(Timeout { limit }), vec![inner], Rule::None, None, leg.name());
        if let Some(bulkhead) = &leg.bulkhead {
            let name = bulkhead.get().name.clone().unwrap_or_else(|| leg.name());
            inner = self.layer(Arc::new(bulkhead.get().policy()), vec![inner], Rule::None, None, name);
        }
        if let Some(limit) = &leg.limit {
            let core = limit.get().core.clone();
            let (name, rule) = (limit.get().name.clone().unwrap_or_else(|| leg.name()), Rule::Limit(core.clone()));
            let stage = Stage { limit: Some(limit.clone_ref(py)), ..Stage::default() };
            // Each answer says what is left.
            inner = self.layer(Arc::new(Limited { limit: core, is_keyed: false, looks: true }), vec![inner], rule, Some(stage), name);
            self.scales.push((inner, target.0));
        }
        if let Some(breaker) = &leg.breaker {
            CircuitBreaker::guards(breaker.bind(py), &leg.core.model)?;
            let name = breaker.get().display_name();
            let stage = Stage { breaker: Some(breaker.clone_ref(py)), ..Stage::default() };
            inner = self.layer(Arc::new(breaker.get().policy()), vec![inner], Rule::Breaker, Some(stage), name);
        }
        if let Some(hedge) = &leg.hedge {
            let name = hedge.get().name.clone().unwrap_or_else(|| leg.name());
            inner = self.layer(Arc::new(hedge.get().policy()), vec![inner], Rule::Hedge, None, name);
        }
        if is_looked_at {
            inner = self.layer(Arc::new(Guardrails), vec![inner], Rule::Guardrails, None, leg.name());
        }
        if let Some(retry) = &leg.retry {
            let policy = Arc::new(Retried::new(retry.get().policy(py, None)));
            inner = self.retrying(py, retry.get(), policy, Rule::Retry, inner, leg.name(), table)?;
        }
        Ok(inner)
    }

    /// What is inside, called again by `policy` as the retry's judge and hooks have it.
    #[allow(clippy::too_many_arguments)] // what a layer takes, and whose judge it has
    pub fn retrying(
        &mut self,
        py: Python<'_>,
        retry: &Retry,
        policy: Arc<dyn Policy>,
        rule: fn(Option<Kinds>) -> Rule,
        inner: StageId,
        name: String,
        table: &Bound<'_, PyAny>,
    ) -> PyResult<StageId> {
        retry.only_sync(py, "the native client's retry")?;
        let judge = retry.judge(py)?;
        let listed = match &judge.listed {
            Listed::Types(types) => Some(kinds(table, types.bind(py))?),
            _ => None,
        };
        let foreign = !judge.is_plain;
        let stage = Stage { judge: foreign.then_some(Judge::Retry(judge)), hooks: retry.hooks(py), ..Stage::default() };
        Ok(self.layer(policy, vec![inner], rule(listed), Some(stage), name))
    }

    /// The plan, and for each stage its rule, its name and its listener's entry.
    pub fn finish(self, root: StageId) -> (Arc<Plan>, Vec<Rule>, Vec<String>, Vec<Stage>) {
        (self.plan.build(root), self.rules, self.names, self.stages)
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

/// The kinds of error there are, for tests that walk the table.
pub fn class_names() -> Vec<&'static str> {
    KINDS.iter().map(|(kind, _, _): &(ErrorKind, _, _)| kind.class_name()).collect()
}
