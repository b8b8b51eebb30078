//! Cache: an answer given before serves again, and of equal calls at once one asks for all ("single flight").
//!
//! What a call asks for is a [`Request`], which its driver brings: the key, and the place where answers change hands. Values
//! are the driver's; here they are counted and passed on, and nobody looks at them.

mod digest;
mod shared;
mod store;

pub use digest::Digest;
pub use shared::{Arrival, Cache, Counts, Lead, Place, Turn};

use crate::engine::{Cx, Flow, Input, Instant, Layer, Outcome, Policy, Refusal, Rejection, Verdict};
use crate::events;
use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An answer, as the driver keeps it.
pub type Value = Arc<dyn Any + Send + Sync>;

/// What a call asks for, as a digest of all that its answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u128);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0 as u64);
    }
}

/// How long answers serve, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long an answer is given again; `None`: as long as there is room for it.
    pub ttl: Option<Duration>,
    /// Answers at a time.
    pub max_items: usize,
    /// What they take up together.
    pub max_bytes: usize,
    /// How long after that an answer still stands in for a failure.
    pub stale_if_error: Duration,
}

/// What is to be done once an answer is kept, since then.
pub type OnceKept = Box<dyn FnOnce(Instant) + Send>;

/// What a driver has to give for others.
pub struct Offer {
    /// The answer.
    pub value: Value,
    /// What it takes up.
    pub bytes: usize,
    /// Whether it serves later calls too, and not only those that wait for it now.
    pub keep: bool,
    /// What the driver does about it once it is kept, since when.
    pub kept: Option<OnceKept>,
}

enum Hand {
    Empty,
    /// For the driver: the answer to its call.
    Found(Value),
    /// From the driver: what its call has given.
    Offered(Offer),
}

/// What a call does with a cache on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// It is answered from there, or its answer is kept.
    #[default]
    Usual,
    /// It goes past.
    Bypass,
    /// It asks anew, and its answer takes the place of the one that is there.
    Refresh,
}

impl Caching {
    /// This, or the other where nothing is said.
    pub fn or(self, other: Caching) -> Caching {
        if self == Caching::Usual { other } else { self }
    }
}

/// What one call asks for, and where answers change hands: the driver brings it along.
pub struct Request {
    /// What it is kept under.
    pub key: Key,
    /// What was asked, whoever it was: what [`Cache::forget`] goes by.
    pub asked: Key,
    alone: bool,
    asks_anew: bool,
    who: u64,
    /// Who waits for it.
    within: Vec<u64>,
    /// Of those that wait it leads this flight; 0: none.
    leads: AtomicU64,
    hand: Mutex<Hand>,
}

impl Request {
    /// A call that asks for that.
    pub fn new(key: Key, asked: Key) -> Request {
        Request {
            key,
            asked,
            alone: false,
            asks_anew: false,
            who: 0,
            within: Vec::new(),
            leads: AtomicU64::new(0),
            hand: Mutex::new(Hand::Empty),
        }
    }

    /// The same that neither waits for an equal call nor lets one wait: one whose answer comes piece by piece may stand still
    /// in the middle for as long as its reader likes.
    pub fn alone(self) -> Request {
        Request { alone: true, ..self }
    }

    /// The same whose answer takes the place of one that is there. What others ask for meanwhile may be older.
    pub fn anew(self) -> Request {
        Request { alone: true, asks_anew: true, ..self }
    }

    /// The same of somebody who cannot wait for himself: a thread, or a call of a coroutine. 0: of nobody.
    pub fn of(self, who: u64) -> Request {
        Request { who, ..self }
    }

    /// The same for which those wait, so that it cannot wait for them.
    pub fn within(self, within: Vec<u64>) -> Request {
        Request { within, ..self }
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, with: Hand) -> Hand {
        // What was there is dropped by the caller, outside of the lock.
        std::mem::replace(&mut *self.hand(), with)
    }

    /// The driver's: the answer that was found.
    pub fn take(&self) -> Option<Value> {
        match self.replace(Hand::Empty) {
            Hand::Found(value) => Some(value),
            Hand::Empty | Hand::Offered(_) => None,
        }
    }

    /// The driver's, when its judge is asked about a value: offers it. The verdict is then [`Verdict::Success`]; any other
    /// means that nobody else can be given this value.
    pub fn offer(&self, offer: Offer) {
        drop(self.replace(Hand::Offered(offer)));
    }

    fn give(&self, value: Value) {
        drop(self.replace(Hand::Found(value)));
    }

    fn offered(&self) -> Option<Offer> {
        match self.replace(Hand::Empty) {
            Hand::Offered(offer) => Some(offer),
            Hand::Empty | Hand::Found(_) => None,
        }
    }
}

/// A cache in a plan, whose second branch is the answer that was found.
pub struct Cached(pub Arc<Cache>);

impl Policy for Cached {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage { cache: self.0.clone(), request: None, at: At::Outside, stale: None })
    }
}

/// The branches of a cache.
const CALL: usize = 0;
const FOUND: usize = 1;

enum At {
    /// Nothing is asked of the cache, or not any more.
    Outside,
    /// It waits for an equal call.
    Following(Place),
    /// It makes the call.
    Asking(Lead),
}

struct Passage {
    cache: Arc<Cache>,
    request: Option<Arc<Request>>,
    at: At,
    /// What may stand in for a failure, and since when it is kept.
    stale: Option<(Value, Instant)>,
}

impl Passage {
    fn arrive(&mut self, cx: &mut Cx<'_>) -> Flow {
        let Some(request) = cx.brought().and_then(|brought| brought.clone().downcast::<Request>().ok()) else {
            return Flow::Inward(CALL);
        };
        let now = cx.now();
        let arrival = self.cache.arrive(&request, || cx.listen(), now);
        self.request = Some(request);
        match arrival {
            Arrival::Hit(value, stored) => self.found(value, events::CACHE_HIT, now.since(stored), None, cx),
            Arrival::Ask(lead, stale) => self.ask(lead, stale, cx),
            Arrival::Joined(place) => {
                self.at = At::Following(place);
                cx.limit_at(cx.deadline());
                Flow::Hold
            }
        }
    }

    fn ask(&mut self, lead: Lead, stale: Option<(Value, Instant)>, cx: &mut Cx<'_>) -> Flow {
        if let Some(request) = &self.request {
            request.leads.store(lead.number(), Ordering::Relaxed);
        }
        (self.at, self.stale) = (At::Asking(lead), stale);
        cx.emit(events::CACHE_MISS, 0, Duration::ZERO, None, "");
        Flow::Inward(CALL)
    }

    /// Hands the answer to the driver.
    fn found(&mut self, value: Value, event: events::Name, span: Duration, outcome: Option<Outcome>, cx: &mut Cx<'_>) -> Flow {
        self.at = At::Outside;
        if let Some(request) = &self.request {
            request.give(value);
        }
        cx.emit(event, 0, span, outcome, "");
        Flow::Inward(FOUND)
    }

    fn wake(&mut self, cx: &mut Cx<'_>) -> Flow {
        let At::Following(place) = self.at else { return Flow::Hold };
        let now = cx.now();
        if let Some(turn) = self.cache.look(place, now) {
            cx.no_wake();
            let waited = now.since(cx.begun());
            cx.has_queued(waited);
            return match turn {
                Turn::Given(value) => self.found(value, events::CACHE_JOINED, waited, None, cx),
                Turn::Stale(value, stored) => self.found(value, events::CACHE_STALE, now.since(stored), None, cx),
                Turn::Ask(lead, stale) => self.ask(lead, stale, cx),
            };
        }
        if now < cx.deadline() {
            cx.limit_at(cx.deadline());
            return Flow::Hold;
        }
        self.leave();
        let limit = now.since(cx.begun());
        cx.emit(events::TIMEOUT_ELAPSED, 0, limit, None, "");
        Flow::Resolve(Outcome::Rejected(Rejection::new(Refusal::TimedOut, cx.stage(), Some(limit))))
    }

    /// The call has come out.
    fn end(&mut self, outcome: Outcome, verdict: Option<&Verdict>, is_over: bool, cx: &mut Cx<'_>) -> Flow {
        let At::Asking(lead) = std::mem::replace(&mut self.at, At::Outside) else { return Flow::Resolve(outcome) };
        let offer = match (outcome, verdict) {
            (Outcome::Value(_), Some(Verdict::Success)) => self.request.as_ref().and_then(|request| request.offered()),
            _ => None,
        };
        if let Some(offer) = offer {
            self.cache.land(lead, offer, cx.now());
            return Flow::Resolve(outcome);
        }
        if !is_over
            && !matches!(outcome, Outcome::Value(_))
            && matches!(verdict, Some(Verdict::Failure { .. }))
            && let Some((value, stored)) = self.stale.take()
        {
            self.cache.land_stale(lead, &value, stored);
            return self.found(value, events::CACHE_STALE, cx.now().since(stored), Some(outcome), cx);
        }
        self.cache.give_up(lead);
        Flow::Resolve(outcome)
    }

    fn leave(&mut self) {
        match std::mem::replace(&mut self.at, At::Outside) {
            At::Outside => {}
            At::Following(place) => self.cache.withdraw(place),
            At::Asking(lead) => self.cache.give_up(lead),
        }
    }
}

impl Layer for Passage {
    fn asks(&self, outcome: &Outcome) -> Option<u32> {
        let is_asked = match outcome {
            Outcome::Stream(_) => false,
            Outcome::Value(_) => matches!(self.at, At::Asking(_)),
            Outcome::Error(_) | Outcome::Rejected(_) => matches!(self.at, At::Asking(_)) && self.stale.is_some(),
        };
        is_asked.then_some(1)
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => self.arrive(cx),
            Input::Wake => self.wake(cx),
            Input::Child(stream @ Outcome::Stream(_), _) => {
                // Nobody waits for a reader who may stop reading.
                if let At::Asking(lead) = self.at {
                    self.at = At::Asking(self.cache.alone(lead));
                }
                Flow::PassOn(stream)
            }
            Input::Child(outcome, verdict) => self.end(outcome, verdict, false, cx),
            Input::Ended(outcome, verdict) => self.end(outcome, verdict, true, cx),
            Input::Abandoned => {
                self.leave();
                Flow::Hold
            }
        }
    }
}
