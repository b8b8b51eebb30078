//! Keys that are not always the same: who gives them, and the endpoint of the last one.

use std::sync::{Arc, Mutex};

use super::endpoint::Endpoint;
use super::error::ApiError;
use super::runtime::on_a_thread;
use super::secret::ApiKey;

/// Gives the key of an attempt. It may wait (a token is fetched), so it is asked on a thread that carries no calls.
pub trait KeySource: Send + Sync {
    /// The key of the attempt that is about to begin.
    fn key(&self) -> Result<ApiKey, ApiError>;
}

/// A source of keys, and the endpoint of the key that it gave last.
pub struct Keys {
    source: Arc<dyn KeySource>,
    last: Mutex<Option<(ApiKey, Endpoint)>>,
}

impl Keys {
    /// Keys from that source.
    pub fn new(source: Arc<dyn KeySource>) -> Keys {
        Keys { source, last: Mutex::new(None) }
    }

    /// The place with the key of an attempt.
    pub(super) async fn endpoint(&self, bare: &Endpoint) -> Result<Endpoint, ApiError> {
        let source = self.source.clone();
        let key = on_a_thread(move || source.key()).await?;
        // In a child that was forked at the wrong moment it stays locked for ever: it only spares some work.
        let mut last = self.last.try_lock().ok();
        if let Some((known, endpoint)) = last.as_ref().and_then(|last| last.as_ref())
            && known.expose() == key.expose()
        {
            return Ok(endpoint.clone());
        }
        let endpoint = bare.with_key(key.clone());
        if let Some(last) = &mut last {
            **last = Some((key, endpoint.clone()));
        }
        Ok(endpoint)
    }
}
