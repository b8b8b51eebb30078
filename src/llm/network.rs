//! Ways to the network other than the process's own: a client of its own for each set of options, in each process.

use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::client::{Client, ClientOptions};
use super::error::ApiError;

/// One way to the network, and its pool of connections.
#[derive(Debug)]
pub struct Network {
    options: ClientOptions,
    /// The client, and the process it belongs to.
    live: Mutex<Option<(u32, Client)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Network {
    /// The way of these options: those who say the same share one pool. Options that cannot work are refused here.
    pub fn of(options: ClientOptions) -> Result<Arc<Network>, ApiError> {
        static KNOWN: Mutex<Vec<Weak<Network>>> = Mutex::new(Vec::new());
        let mut known = lock(&KNOWN);
        known.retain(|network| network.strong_count() > 0);
        if let Some(network) = known.iter().filter_map(Weak::upgrade).find(|network| network.options == options) {
            return Ok(network);
        }
        let network = Arc::new(Network { options, live: Mutex::new(None) });
        network.client()?;
        known.push(Arc::downgrade(&network));
        Ok(network)
    }

    /// The client of this process.
    pub fn client(&self) -> Result<Client, ApiError> {
        let mut live = lock(&self.live);
        let process = std::process::id();
        if let Some((_, client)) = live.as_ref().filter(|(owner, _)| *owner == process) {
            return Ok(client.clone());
        }
        let client = Client::new(self.options.clone())?;
        // The parent's pool in a forked child: closing it would talk on the parent's connections.
        std::mem::forget(live.replace((process, client.clone())));
        Ok(client)
    }
}
