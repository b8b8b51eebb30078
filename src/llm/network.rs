//! Ways to the network other than the process's own: a client of its own for each set of options, in each process.

use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::client::{Client, ClientOptions};
use super::error::ApiError;

/// One way to the network, and its pool of connections.
#[derive(Debug)]
pub struct Network {
    options: ClientOptions,
    live: Live,
}

/// The client of one process, and what a forked child of it has made. No lock: a child that was forked while another thread
/// held one would wait for it for ever.
#[derive(Debug)]
struct Live {
    process: u32,
    client: Option<Client>,
    of_a_child: OnceLock<Box<Live>>,
}

impl Live {
    fn new(options: &ClientOptions) -> Result<Live, ApiError> {
        Ok(Live { process: std::process::id(), client: Some(Client::new(options.clone())?), of_a_child: OnceLock::new() })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The parent's pool in a forked child: closing it would talk on the parent's connections.
        if self.process != std::process::id() {
            std::mem::forget(self.client.take());
        }
    }
}

impl Network {
    /// The way of these options: those who say the same share one pool. Options that cannot work are refused here.
    pub fn of(options: ClientOptions) -> Result<Arc<Network>, ApiError> {
        static KNOWN: Mutex<Vec<Weak<Network>>> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.retain(|network| network.strong_count() > 0);
        if let Some(network) = known.iter().filter_map(Weak::upgrade).find(|network| network.options == options) {
            return Ok(network);
        }
        let network = Arc::new(Network { live: Live::new(&options)?, options });
        known.push(Arc::downgrade(&network));
        Ok(network)
    }

    /// The client of this process.
    pub fn client(&self) -> Result<Client, ApiError> {
        let mut live = &self.live;
        loop {
            match &live.client {
                Some(client) if live.process == std::process::id() => return Ok(client.clone()),
                _ => {}
            }
            live = match live.of_a_child.get() {
                Some(child) => child,
                None => {
                    let made = Box::new(Live::new(&self.options)?);
                    live.of_a_child.get_or_init(|| made)
                }
            };
        }
    }
}
