//! The one runtime and the one pool of connections of this process. A forked child makes its own.

use super::client::{Client, ClientOptions};
use super::error::{ApiError, ErrorKind};
#[cfg(unix)]
use super::fork::Gate;
#[cfg(unix)]
use crate::drive::signals;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::runtime::{Builder, Handle, Runtime};

/// What carries the calls of this process.
pub struct Live {
    handle: Handle,
    client: Client,
    /// Where it stands while the process is forked.
    #[cfg(unix)]
    pub(super) gate: std::sync::Arc<Gate>,
}

/// There is none before the first call, nor in a forked child.
pub(super) fn live() -> MutexGuard<'static, Option<Live>> {
    static LIVE: Mutex<Option<Live>> = Mutex::new(None);
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime's handle and the client, made at the first call in this process.
pub fn get() -> Result<(Handle, Client), ApiError> {
    let mut live = live();
    let ready = match &mut *live {
        Some(ready) => ready,
        none => none.insert(begin()?),
    };
    Ok((ready.handle.clone(), ready.client.clone()))
}

fn begin() -> Result<Live, ApiError> {
    let unable = |error| ApiError::new(ErrorKind::Configuration, format!("no thread can be started for the client: {error}"));
    // One thread carries thousands of requests a second, and costs less per request than two on a small host. Names are
    // looked up, and the user's hooks asked, on others.
    let runtime = Builder::new_current_thread().thread_name("seawall-aside").enable_all().build().map_err(unable)?;
    let (handle, client) = (runtime.handle().clone(), Client::new(ClientOptions::default())?);
    tracing::debug!(target: "seawall::runtime", process = std::process::id(), "begun");
    #[cfg(unix)]
    {
        let gate = Gate::new();
        let attended = gate.clone();
        signals::away(|| carry(runtime, async move { attended.attend().await })).map_err(unable)?;
        Ok(Live { handle, client, gate })
    }
    #[cfg(not(unix))]
    {
        carry(runtime, std::future::pending()).map_err(unable)?;
        Ok(Live { handle, client })
    }
}

/// It never ends: at exit the process takes it along.
fn carry(runtime: Runtime, beside: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("seawall".to_owned()).spawn(move || runtime.block_on(beside)).map(drop)
}

/// What `ask` gives, on a thread that may wait. It begins at once.
pub fn on_a_thread<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> + Send {
    #[cfg(unix)]
    let ask = || signals::back(ask);
    let asked = tokio::task::spawn_blocking(ask);
    async move {
        match asked.await {
            Ok(answer) => answer,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going, and the call with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
