//! Keys that are not always the same: who gives them, and the endpoint of the last one.

use super::endpoint::Endpoint;
use super::error::ApiError;
use super::runtime::on_a_thread;
use super::secret::ApiKey;
use crate::drive::clock;
use crate::drive::process::Process;
use crate::engine::{Instant, Target};
use futures_util::future::{FutureExt, Shared, WeakShared};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Gives the key of an attempt. It may wait (a token is fetched), so it is asked on a thread that carries no calls.
pub trait KeySource: Send + Sync {
    /// The key of the attempt that is about to begin; `refused`: the one that it gave last was answered with 401.
    fn key(&self, refused: bool) -> Result<ApiKey, ApiError>;
}

/// A source that takes longer than this to answer may hang: nobody joins those that wait for it.
const MOST: Duration = Duration::from_secs(30);

type Asking = Pin<Box<dyn Future<Output = Result<ApiKey, ApiError>> + Send>>;

#[derive(Default)]
struct State {
    last: Option<(ApiKey, Endpoint)>,
    /// The source is being asked, in that process since then.
    asking: Option<(Process, Instant, WeakShared<Asking>)>,
}

/// A source of keys, and the endpoint of the key that it gave last.
pub struct Keys {
    source: Arc<dyn KeySource>,
    state: Mutex<State>,
}

impl Keys {
    /// Keys from that source.
    pub fn new(source: Arc<dyn KeySource>) -> Keys {
        Keys { source, state: Mutex::default() }
    }

    /// The place with the key of an attempt.
    pub(super) async fn endpoint(&self, bare: &Endpoint) -> Result<Endpoint, ApiError> {
        let (asking, _) = self.asked(false);
        Ok(self.placed(bare, asking.await?))
    }

    /// The place with another key than the one that was refused there; `None` if the source has no other.
    pub(super) async fn another(&self, bare: &Endpoint, refused: &Endpoint) -> Option<Endpoint> {
        let last = self.state.try_lock().ok().and_then(|state| state.last.as_ref().map(|(_, endpoint)| endpoint.clone()));
        if let Some(last) = last.filter(|last| !last.has_key_of(refused)) {
            return Some(last); // another call was refused before, and has asked
        }
        loop {
            let (asking, is_joined) = self.asked(true);
            let endpoint = self.placed(bare, asking.await.ok()?);
            if !endpoint.has_key_of(refused) {
                return Some(endpoint);
            }
            if !is_joined {
                return None;
            }
            // What others had asked for may be from before the refusal.
        }
    }

    /// The source's answer, and whether it was being asked already: then all wait for the one answer.
    fn asked(&self, refused: bool) -> (Shared<Asking>, bool) {
        // In a child that was forked at the wrong moment it stays locked for ever: it only spares some work.
        let mut state = self.state.try_lock().ok();
        let under_way = state.as_ref().and_then(|state| state.asking.as_ref());
        if let Some((process, since, asking)) = under_way
            && process.is_here()
            && clock::now().since(*since) < MOST
            && let Some(asking) = asking.upgrade().filter(|asking| asking.peek().is_none())
        {
            return (asking, true);
        }
        let source = self.source.clone();
        let asking = (Box::pin(on_a_thread(move || source.key(refused))) as Asking).shared();
        if let Some(state) = &mut state {
            state.asking = asking.downgrade().map(|asking| (Process::here(), clock::now(), asking));
        }
        (asking, false)
    }

    fn placed(&self, bare: &Endpoint, key: ApiKey) -> Endpoint {
        let mut state = self.state.try_lock().ok();
        if let Some((known, endpoint)) = state.as_ref().and_then(|state| state.last.as_ref())
            && known.expose() == key.expose()
        {
            return endpoint.clone();
        }
        let endpoint = bare.with_key(key.clone());
        if let Some(state) = &mut state {
            state.last = Some((key, endpoint.clone()));
        }
        endpoint
    }
}

/// The keys of one call: what its last attempt was made with, and the key that the next one begins with after a refusal.
#[derive(Clone, Default)]
pub(super) struct Renewal(Arc<Mutex<Renewed>>);

#[derive(Default)]
struct Renewed {
    used: Option<Endpoint>,
    next: Option<(Target, Endpoint)>,
    /// Where another key was asked for: that happens once in a call.
    asked: Vec<Target>,
}

impl Renewal {
    fn with<T>(&self, work: impl FnOnce(&mut Renewed) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The endpoint of an attempt.
    pub async fn endpoint(&self, keys: &Keys, bare: &Endpoint, target: Target) -> Result<Endpoint, ApiError> {
        let renewed = self.with(|renewed| renewed.next.take()).filter(|(whose, _)| *whose == target);
        let endpoint = match renewed {
            Some((_, endpoint)) => endpoint,
            None => keys.endpoint(bare).await?,
        };
        self.with(|renewed| renewed.used = Some(endpoint.clone()));
        Ok(endpoint)
    }

    /// The last attempt was refused for its key: whether there is another, which the next attempt will have.
    pub async fn renews(&self, keys: &Keys, bare: &Endpoint, target: Target) -> bool {
        let refused = self.with(|renewed| {
            let is_first = !renewed.asked.contains(&target);
            renewed.asked.push(target);
            renewed.used.take().filter(|_| is_first)
        });
        let Some(refused) = refused else { return false };
        let another = keys.another(bare, &refused).await;
        self.with(|renewed| {
            renewed.next = another.map(|endpoint| (target, endpoint));
            renewed.next.is_some()
        })
    }
}
