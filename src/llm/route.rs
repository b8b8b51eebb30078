//! One protected call of a model API: targets, the plan around them, and the judges, as the tokio driver's host.

mod attempt;
mod counting;
mod sent;

use super::chat::ChatReply;
use super::client::Client;
use super::delta::Delta;
use super::embeddings::EmbeddingsReply;
use super::endpoint::Endpoint;
use super::error::{Again, ApiError, ErrorKind, Raised};
use super::interrupt::OnInterrupt;
use super::kept::Keeping;
use super::keys::{Keys, Renewal};
use super::models::ModelsReply;
use super::network::Network;
use super::order::{Order, Params, Task};
use super::rule::{Rule, told};
use super::runtime::on_a_thread;
use super::story::Diary;
use super::stream::ChatStream;
use super::watch::Watch;
use crate::drive::tokio::{Asked, Call, Host};
use crate::drive::{clock, trial};
use crate::engine::{
    Ask, CallId, Event, Execution, Instant, Outcome, Plan, Refusal, Rejection, StageId, Target, Ticket, Verdict, WaitHint,
};
use crate::events;
use crate::guardrails::{Rails, Tally};
use crate::policies::cache::Request as AskedOfCache;
use crate::policies::guardrails::passed;
use crate::stats::Source;
use crate::telemetry;
use attempt::{answered, opened};
use bytes::Bytes;
use reqwest::header::HeaderMap;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Drain;

/// One model at one place, with its parameters.
pub struct Leg {
    /// Where.
    pub endpoint: Endpoint,
    /// Which model.
    pub model: Arc<str>,
    /// Parameters of every request to it.
    pub params: Params,
    /// The bound on a reply's size.
    pub max_response_bytes: usize,
    /// How long a stream may keep a reader waiting.
    pub patience: Patience,
    /// Who gives the key of each attempt, where it is not always the same.
    pub keys: Option<Keys>,
    /// The way to the network, where it is not the process's own.
    pub network: Option<Arc<Network>>,
}

impl Leg {
    /// Where an attempt goes, by which client.
    async fn reached(&self, from: From) -> Result<(Client, Endpoint), ApiError> {
        let client = self.network.as_ref().map_or(Ok(from.client), |network| network.client())?;
        let endpoint = match (&self.keys, &from.renewal) {
            (Some(keys), Some(renewal)) => renewal.endpoint(keys, &self.endpoint, from.target).await?,
            _ => self.endpoint.clone(),
        };
        Ok((client, endpoint))
    }
}

/// What an attempt is made with.
struct From {
    client: Client,
    target: Target,
    /// Where the key is not always the same.
    renewal: Option<Renewal>,
}

/// How long a stream may take until its first content, and from one content to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// From the request to the first content.
    pub first_token: Option<Duration>,
    /// From each content to the next.
    pub idle: Option<Duration>,
}

/// Whoever judges and listens in Python, where the user gave predicates or hooks. They take as long as they like, and may
/// ask the client themselves, so they are asked on threads that carry no calls. An interrupt that they raise ends the call.
pub trait Foreign: Send + Sync {
    /// Whether the stage has predicates of the user's.
    fn judges(&self, stage: StageId) -> bool;
    /// A call is over; told on the thread that carries all calls.
    fn ended(&self, call: &telemetry::Call);
    /// A verdict on a failed attempt, of a stage that has them.
    fn judge(&self, ask: &Ask, error: &ApiError) -> Result<Verdict, Raised>;
    /// Whether anybody wants to hear of it.
    fn hears(&self, event: &Event) -> bool;
    /// What happened, with the error it is about.
    fn publish(&self, event: &Event, error: Option<&Failure>) -> Result<(), Raised>;
}

/// What `ask` gives, on a thread that may wait.
fn aside<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Asked<T> {
    Asked::Later(Box::pin(on_a_thread(ask)))
}

/// A plan with its targets and rules, shared by all its calls.
pub struct Route {
    /// The policies.
    pub plan: Arc<Plan>,
    /// What the plan's targets are.
    pub legs: Arc<[Arc<Leg>]>,
    /// How each stage judges.
    pub rules: Vec<Rule>,
    /// What each stage is called, for errors and logs.
    pub names: Vec<String>,
    /// What each target's calls are counted under.
    pub sources: Vec<Source>,
    /// Whether somebody counts its calls.
    pub is_counted: bool,
    /// Predicates and hooks.
    pub foreign: Option<Arc<dyn Foreign>>,
    /// Whether somebody wants to hear of each attempt.
    pub announces: bool,
    /// Where answers are kept.
    pub keeping: Option<Keeping>,
    /// What answers have to pass.
    pub rails: Option<Arc<Rails>>,
}

/// What a call gives back.
pub enum Answer {
    /// A whole completion.
    Chat(Arc<ChatReply>),
    /// An open stream and its pieces up to the first content.
    Stream(Box<ChatStream>, Vec<Delta>),
    /// The end of a stream whose pieces were handed out one by one.
    Streamed,
    /// Vectors.
    Embeddings(Arc<EmbeddingsReply>),
    /// What models there are.
    Models(ModelsReply),
}

/// Why a call gives nothing back.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The API failed.
    Api(ApiError),
    /// A policy decided.
    Rejected(Rejection),
}

/// What is known of one attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Which target.
    pub target: Target,
    pub(super) call: CallId,
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub took: Option<Duration>,
    /// `ok`, or the error's class name.
    pub outcome: &'static str,
    /// HTTP status of a failure.
    pub status: Option<u16>,
    /// The provider's id.
    pub request_id: Option<String>,
    /// The wait that followed.
    pub waited: Option<Duration>,
}

/// One call's values and story.
pub struct Flight {
    pub(super) route: Arc<Route>,
    pub(super) order: Arc<Order>,
    client: Client,
    bodies: Vec<Option<Bytes>>,
    pub(super) kept: Vec<Result<Answer, ApiError>>,
    /// The attempts, in order.
    pub attempts: Vec<Attempt>,
    /// When the call began.
    pub begun: Instant,
    /// Of the last `retry.exhausted`: attempts, time, reason.
    pub exhausted: Option<(u32, Duration, &'static str)>,
    /// The text that the reader has, once a stream was handed out.
    given: Option<String>,
    /// Of the stream that ended last: the tokens used, and its headers.
    pub(super) ended: Option<(Option<u64>, HeaderMap)>,
    /// Why it is not gone on from, where that was wanted.
    obstacle: Option<&'static str>,
    /// What it asks of a cache.
    pub(super) request: Option<Arc<AskedOfCache>>,
    /// Which alternative gave the answer that a cache had.
    pub found: Option<Target>,
    /// The call whose stream opened last.
    opened: Option<CallId>,
    /// The attempts under way.
    running: Vec<CallId>,
    /// Attempts that were made beside others.
    pub(super) hedges: u32,
    /// What was answered and refused, of which the next attempt is told, and by which target.
    refused: Vec<(Target, Again)>,
    /// What guardrails have done to the stream that is over.
    pub(super) screened: Option<Tally>,
    /// The pieces of the stream that is over, where a cache may want them.
    pub recorded: Option<Arc<[Delta]>>,
    pub(super) watch: Option<Watch>,
    /// Where a key is not always the same.
    renewal: Option<Renewal>,
    /// What policies have done, tokens used, and when the first content came.
    pub(super) diary: Diary,
}

impl Flight {
    /// A call that has not begun.
    pub fn new(route: Arc<Route>, order: Arc<Order>, client: Client) -> Flight {
        let bodies = vec![None; route.legs.len()];
        if let Some(trace) = &order.trace {
            trace.begun();
        }
        let mut flight = Flight {
            route,
            order,
            client,
            bodies,
            kept: Vec::new(),
            attempts: Vec::new(),
            begun: clock::now(),
            exhausted: None,
            given: None,
            ended: None,
            obstacle: None,
            request: None,
            found: None,
            opened: None,
            running: Vec::with_capacity(1),
            hedges: 0,
            refused: Vec::new(),
            screened: None,
            recorded: None,
            watch: None,
            renewal: None,
            diary: Diary::default(),
        };
        flight.note_screened();
        flight
    }

    /// A stream that was handed out broke off: whether what it gave is taken back or gone on from, so that the policies may
    /// try again; and the text that the reader has is kept.
    pub fn interrupted(&mut self, stream: &ChatStream) -> bool {
        self.given = Some(stream.text().to_owned());
        match self.order.on_interrupt {
            OnInterrupt::Error => false,
            OnInterrupt::Restart => true,
            OnInterrupt::Continue => {
                self.obstacle = self.order.obstacle(&self.route.legs);
                if self.route.rails.is_some() {
                    self.obstacle = Some("guardrails look at answers from their beginning on");
                }
                if !stream.is_plain() {
                    self.obstacle = Some("more than text had come");
                }
                self.obstacle.is_none()
            }
        }
    }

    /// What the caller is told of a failure, with the alternatives' failures beside it: after the first content it is an
    /// interrupted stream, and one that broke what the reader has where there is one.
    pub fn told(&self, mut failure: Failure, others: &mut [Failure]) -> Failure {
        let Some(text) = &self.given else { return failure };
        let broke = |failure: &Failure| matches!(failure, Failure::Api(error) if error.kind == ErrorKind::StreamInterrupted);
        let is_api = |failure: &Failure| matches!(failure, Failure::Api(_));
        if !broke(&failure)
            && let Some(at) = others.iter().rposition(broke).or_else(|| others.iter().rposition(is_api).filter(|_| !is_api(&failure)))
        {
            std::mem::swap(&mut failure, &mut others[at]);
        }
        let Failure::Api(error) = failure else { return failure };
        let mut error = error.interrupted(text);
        if let Some(why) = self.obstacle {
            error.message.push_str(&format!(" (it was not continued: {why})"));
        }
        Failure::Api(error)
    }

    /// What guardrails have done to what is asked.
    pub fn asked_screened(&self) -> Tally {
        self.order.screened.clone()
    }

    /// What guardrails have done with an outcome.
    fn screened(&self, ask: &Ask) -> Verdict {
        let tally = match ask.outcome {
            Outcome::Value(ticket) => match self.kept.get(ticket.0 as usize) {
                Some(Ok(Answer::Chat(reply))) => Some(&reply.screened),
                Some(Ok(Answer::Streamed)) => self.screened.as_ref(),
                _ => None,
            },
            _ => None,
        };
        tally.map_or(Verdict::Ignore, |tally| passed(tally.redactions(), tally.repaired.len() as u32))
    }

    /// What is behind an outcome. A stream or value can be taken once.
    pub fn take(&mut self, outcome: &Outcome) -> Result<Answer, Failure> {
        let gone = || Failure::Api(ApiError::new(ErrorKind::Api, "the answer was taken already"));
        match outcome {
            Outcome::Rejected(rejection) => Err(self.rejected(rejection)),
            Outcome::Value(ticket) | Outcome::Error(ticket) | Outcome::Stream(ticket) => match self.kept.get_mut(ticket.0 as usize) {
                Some(slot) => std::mem::replace(slot, Err(ApiError::new(ErrorKind::Api, "taken"))).map_err(Failure::Api),
                None => Err(gone()),
            },
        }
    }

    /// The time limit of an attempt is the client's own timeout error; other rejections are the policies'.
    fn rejected(&self, rejection: &Rejection) -> Failure {
        if rejection.refusal() != Refusal::TimedOut {
            return Failure::Rejected(*rejection);
        }
        let name = &self.route.names[rejection.stage().0 as usize];
        let limit = rejection.limit().as_secs_f64();
        Failure::Api(ApiError::new(ErrorKind::Timeout, format!("Request timed out: no whole answer from {name} within {limit} s.")))
    }

    /// The error behind an outcome, for judges and logs.
    pub fn failure(&self, outcome: &Outcome) -> Option<Failure> {
        match outcome {
            Outcome::Rejected(rejection) => Some(self.rejected(rejection)),
            Outcome::Error(ticket) => self.kept.get(ticket.0 as usize)?.as_ref().err().cloned().map(Failure::Api),
            Outcome::Value(_) | Outcome::Stream(_) => None,
        }
    }

    /// Keeps how an open stream ended.
    pub fn keep_end(&mut self, call: CallId, end: Result<(), ApiError>) -> Outcome {
        let ticket = Ticket(self.kept.len() as u64);
        match end {
            Ok(()) => {
                self.note_end(call, "ok", None);
                self.kept.push(Ok(Answer::Streamed));
                Outcome::Value(ticket)
            }
            Err(error) => {
                self.note_end(call, error.kind.class_name(), Some(&error));
                self.kept.push(Err(error));
                Outcome::Error(ticket)
            }
        }
    }

    /// The call whose stream was delivered.
    pub fn opened_call(&self) -> Option<CallId> {
        self.opened
    }

    /// Asks for another key, where the last attempt was refused for the one that it had.
    fn renewing(&self, error: &ApiError) -> Option<impl Future<Output = bool> + Send + use<>> {
        let target = self.attempts.last().filter(|_| error.status == Some(401))?.target;
        let (renewal, leg) = (self.renewal.clone()?, self.route.legs[target.0].clone());
        Some(async move {
            match &leg.keys {
                Some(keys) => renewal.renews(keys, &leg.endpoint, target).await,
                None => false,
            }
        })
    }

    fn note_end(&mut self, call: CallId, outcome: &'static str, error: Option<&ApiError>) {
        self.running.retain(|running| *running != call);
        if let (Some(watch), Some(error)) = (&mut self.watch, error)
            && watch.is_about(call)
        {
            watch.failed(&Failure::Api(error.clone()));
        }
        if let Some(attempt) = self.attempts.iter_mut().rfind(|a| a.call == call) {
            attempt.took = Some(clock::now().since(attempt.started));
            attempt.outcome = outcome;
            if let Some(error) = error {
                attempt.status = error.status;
                attempt.request_id.clone_from(&error.request_id);
            }
        }
        self.tell(|watch, attempts| watch.came_out(call, outcome == "ok", attempts));
    }
}

impl Host for Flight {
    type Result = Result<Answer, ApiError>;
    type Interrupt = Raised;

    fn start(&mut self, call: CallId, target: Target, _deadline: Instant) -> Call<Self::Result> {
        if let Some(answer) = self.found(target) {
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let request = self.request(target);
        let leg = self.route.legs[target.0].clone();
        let is_beside = !self.running.is_empty();
        self.hedges += u32::from(is_beside);
        self.running.push(call);
        self.attempts.push(Attempt {
            target,
            call,
            started: clock::now(),
            took: None,
            outcome: telemetry::GIVEN_UP,
            status: None,
            request_id: None,
            waited: None,
        });
        self.tell(|watch, attempts| watch.begun(call, is_beside, attempts));
        if leg.keys.is_some() && self.renewal.is_none() {
            self.renewal = Some(Renewal::default());
        }
        let from = From { client: self.client.clone(), target, renewal: self.renewal.clone() };
        let (order, rails) = (self.order.clone(), self.route.rails.clone());
        match order.task {
            Task::Stream => {
                let rails = rails.map(|rails| (rails, order.screened.vault.clone()));
                Box::pin(opened(from, leg, request, self.beginning(), order.key.is_some(), rails))
            }
            Task::Chat | Task::Embeddings | Task::Models => {
                let rails = rails.map(|rails| (rails, self.asked_again(target)));
                Box::pin(answered(from, leg, request, order, rails))
            }
        }
    }

    fn keep(&mut self, call: CallId, result: Self::Result) -> Outcome {
        let ticket = Ticket(self.kept.len() as u64);
        let outcome = match &result {
            Ok(Answer::Stream(..)) => {
                self.opened = Some(call);
                Outcome::Stream(ticket)
            }
            Ok(_) => Outcome::Value(ticket),
            Err(_) => Outcome::Error(ticket),
        };
        let request_id = match &result {
            Ok(Answer::Chat(reply)) => reply.request_id.clone(),
            Ok(Answer::Embeddings(reply)) => reply.request_id.clone(),
            Ok(Answer::Models(reply)) => reply.request_id.clone(),
            Ok(Answer::Stream(stream, _)) => stream.request_id().map(str::to_owned),
            Ok(Answer::Streamed) | Err(_) => None,
        };
        if let Some(attempt) = self.attempts.iter_mut().rfind(|a| a.call == call) {
            attempt.request_id = request_id;
        }
        match &result {
            Err(error) => {
                let by = self.attempts.iter().rfind(|attempt| attempt.call == call).map(|attempt| attempt.target);
                self.refused.extend(by.zip(error.again.clone()));
                self.note_end(call, error.kind.class_name(), Some(error));
            }
            Ok(answer) => {
                self.note_end(call, "ok", None);
                // What a cache had was paid for before.
                if self.found.is_none() {
                    self.diary.answered(answer, self.begun);
                }
            }
        }
        self.kept.push(result);
        outcome
    }

    fn cancelled(&mut self, call: CallId, beaten: bool) {
        if beaten {
            // It was given up, as attempts are until they end.
            self.running.retain(|running| *running != call);
            self.tell(|watch, attempts| watch.came_out(call, false, attempts));
        } else {
            self.note_end(call, ErrorKind::Timeout.class_name(), None);
        }
    }

    fn judge(&mut self, ask: Ask) -> Asked<Result<Verdict, Raised>> {
        if let Some(verdict) = self.judge_for_cache(&ask) {
            return Asked::Now(Ok(verdict));
        }
        let rule = &self.route.rules[ask.stage().0 as usize];
        if let (Rule::Guardrails, Outcome::Value(_)) = (rule, ask.outcome) {
            return Asked::Now(Ok(self.screened(&ask)));
        }
        if let (Rule::Limit(limit), Outcome::Value(ticket)) = (rule, ask.outcome) {
            return Asked::Now(Ok(self.counted(self.order.limit_at(ask.stage(), limit), ticket)));
        }
        let failure = self.failure(&ask.outcome);
        if let (Some(watch), Some(failure)) = (&mut self.watch, &failure) {
            watch.failed(failure);
        }
        let error = match failure {
            None => return Asked::Now(Ok(Verdict::Success)),
            Some(Failure::Api(error)) => error,
            // A policy further in turned the call away: the next alternative, and no evidence for anybody else.
            Some(Failure::Rejected(_)) if matches!(rule, Rule::Fallback(..)) => return Asked::Now(Ok(Verdict::FAILURE)),
            Some(Failure::Rejected(_)) => return Asked::Now(Ok(Verdict::Ignore)),
        };
        if let Rule::Limit(limit) = rule {
            return Asked::Now(Ok(told(self.order.limit_at(ask.stage(), limit), &error)));
        }
        let renewing = matches!(rule, Rule::Retry(_)).then(|| self.renewing(&error)).flatten();
        let foreign = self.route.foreign.as_ref().filter(|foreign| foreign.judges(ask.stage())).cloned();
        match (renewing, foreign) {
            (None, None) => Asked::Now(Ok(rule.verdict(&error))),
            (None, Some(foreign)) => aside(move || foreign.judge(&ask, &error)),
            (Some(renewing), foreign) => {
                let verdict = rule.verdict(&error);
                Asked::Later(Box::pin(async move {
                    match foreign {
                        // With another key it is another request, for which there is nothing to wait.
                        _ if renewing.await => Ok(Verdict::Failure { wait: WaitHint::RetryAfter(Duration::ZERO), branches: u64::MAX }),
                        Some(foreign) => on_a_thread(move || foreign.judge(&ask, &error)).await,
                        None => Ok(verdict),
                    }
                }))
            }
        }
    }

    fn publish(&mut self, happened: Drain<'_, Event>) -> Asked<Result<(), Raised>> {
        let mut heard = Vec::new();
        for event in happened {
            self.note(&event);
            match event.name {
                events::RETRY_EXHAUSTED => self.exhausted = Some((event.number, event.span, event.reason)),
                events::RETRY_SCHEDULED => {
                    if let Some(attempt) = self.attempts.last_mut() {
                        // A limit that turned the call away adds its wait.
                        attempt.waited = Some(attempt.waited.unwrap_or_default().saturating_add(event.span));
                    }
                    self.tell(Watch::ended);
                }
                events::CIRCUIT_REJECTED => self.tell(|watch, _| watch.refused(event.stage)),
                _ => {}
            }
            if self.route.foreign.as_ref().is_some_and(|f| f.hears(&event)) {
                heard.push((event, event.outcome.as_ref().and_then(|o| self.failure(o))));
            }
        }
        match &self.route.foreign {
            Some(foreign) if !heard.is_empty() => {
                let foreign = foreign.clone();
                aside(move || heard.iter().try_for_each(|(event, error)| foreign.publish(event, error.as_ref())))
            }
            _ => Asked::Now(Ok(())),
        }
    }
}

impl Route {
    /// A call that has not begun.
    pub fn execution(&self, order: &Order, deadline: Instant) -> Execution {
        let now = clock::now();
        let mut execution = Execution::within(self.plan.clone(), clock::seed_at(now), now, deadline);
        order.weights.iter().for_each(|(stage, tokens)| execution.weighs(*stage, *tokens));
        order.keyed.iter().for_each(|(stage, limit)| execution.brings(*stage, limit.clone()));
        if self.announces {
            execution.announce();
        }
        trial::dress(&mut execution);
        execution
    }

    /// The name of a stage.
    pub fn name(&self, stage: StageId) -> &str {
        self.names.get(stage.0 as usize).map_or("", String::as_str)
    }
}
