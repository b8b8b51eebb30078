//! The one runtime and the one pool of connections of this process. A forked child makes its own.

use super::client::{Client, ClientOptions};
use super::error::{ApiError, ErrorKind};
use std::sync::{Mutex, OnceLock};
use tokio::runtime::{Builder, Handle, Runtime};

struct Live {
    process: u32,
    // Never shut down: a parent's threads do not exist in a forked child, and at exit the process takes them along.
    runtime: std::mem::ManuallyDrop<Runtime>,
    client: Client,
}

fn live() -> &'static Mutex<Option<Live>> {
    static LIVE: OnceLock<Mutex<Option<Live>>> = OnceLock::new();
    LIVE.get_or_init(|| Mutex::new(None))
}

/// The runtime's handle and the client, made at the first call in this process.
pub fn get() -> Result<(Handle, Client), ApiError> {
    let mut live = live().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let process = std::process::id();
    if let Some(ready) = live.as_ref().filter(|l| l.process == process) {
        return Ok((ready.runtime.handle().clone(), ready.client.clone()));
    }
    let runtime = Builder::new_multi_thread()
        // One worker carries thousands of requests a second, and costs less per request than two on a small host.
        .worker_threads(1)
        .thread_name("seawall")
        .enable_all()
        .build()
        .map_err(|error| ApiError::new(ErrorKind::Configuration, format!("no thread can be started for the client: {error}")))?;
    let client = Client::new(ClientOptions::default())?;
    let handle = runtime.handle().clone();
    let old = live.replace(Live { process, runtime: std::mem::ManuallyDrop::new(runtime), client: client.clone() });
    // The parent's pool in a forked child: closing it would talk on the parent's connections.
    std::mem::forget(old);
    Ok((handle, client))
}
