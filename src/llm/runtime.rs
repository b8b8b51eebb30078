//! The one runtime and the one pool of connections of this process. A forked child makes its own.

use super::client::{Client, ClientOptions};
use super::error::{ApiError, ErrorKind};
use std::sync::{Mutex, OnceLock};
use tokio::runtime::{Builder, Handle};

struct Live {
    process: u32,
    handle: Handle,
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
        return Ok((ready.handle.clone(), ready.client.clone()));
    }
    let unable = |error| ApiError::new(ErrorKind::Configuration, format!("no thread can be started for the client: {error}"));
    // One thread carries thousands of requests a second, and costs less per request than two on a small host. Names are
    // looked up, and the user's hooks asked, on others.
    let runtime = Builder::new_current_thread().thread_name("seawall-aside").enable_all().build().map_err(unable)?;
    let client = Client::new(ClientOptions::default())?;
    let handle = runtime.handle().clone();
    // It never ends: a parent's threads do not exist in a forked child, and at exit the process takes them along.
    let carry = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("seawall".to_owned()).spawn(carry).map_err(unable)?;
    let old = live.replace(Live { process, handle: handle.clone(), client: client.clone() });
    // The parent's pool in a forked child: closing it would talk on the parent's connections.
    std::mem::forget(old);
    Ok((handle, client))
}
