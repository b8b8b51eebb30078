//! The server: its connections are ended at once, with a reset, when it is told to.

use super::limits::Limits;
use super::log::Log;
use super::script::Script;
use super::service::{self, Service};
use crate::serve;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// The models there are; `None` is every name.
    pub models: Option<BTreeSet<String>>,
    /// The keys that are right; `None` is every key.
    pub keys: Option<BTreeSet<String>>,
    /// Whether a request needs a key at all.
    pub require_key: bool,
    pub host: String,
    /// 0 is any that is free.
    pub port: u16,
    /// Requests kept in the log.
    pub log_limit: usize,
}

/// What the listening thread, its connections and the outside share.
pub struct Shared {
    pub options: Options,
    pub script: Arc<Mutex<Script>>,
    pub limits: Arc<Mutex<Limits>>,
    pub log: Arc<Log>,
    pub connections: AtomicUsize,
    pub seen: Mutex<BTreeSet<String>>,
    pub stopping: Arc<AtomicBool>,
}

impl Shared {
    pub fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn limits(&self) -> std::sync::MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server that listens. Dropping it ends it.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: serve::Server,
}

impl Server {
    /// Listens; `script`, `limits` and `log` outlive it, so that it can be started again.
    pub fn start(options: Options, script: Arc<Mutex<Script>>, limits: Arc<Mutex<Limits>>, log: Arc<Log>) -> io::Result<Server> {
        let listener = serve::listen(serve::resolve(&options.host, options.port)?)?;
        log.now();
        let shared = Arc::new(Shared {
            options,
            script,
            limits,
            log,
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
            stopping: Arc::new(AtomicBool::new(false)),
        });
        let inner = shared.clone();
        let thread = serve::Server::start("seawall-simulator", listener, usize::MAX, move |stream| talk(stream, inner.clone()))?;
        Ok(Server { address: thread.address, shared, thread })
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Said before the thread ends: connections are then reset. In a forked child there is nothing to end.
        self.shared.stopping.store(self.thread.is_here(), Ordering::Release);
    }
}

async fn talk(stream: TcpStream, shared: Arc<Shared>) {
    let reset = Arc::new(AtomicBool::new(false));
    let socket = Socket::new(stream, reset.clone(), shared.clone());
    let service = Service { shared, reset };
    let http = http1::Builder::new().timer(TokioTimer::new()).max_buf_size(1 << 20).half_close(false).clone();
    // A connection that ends badly is what the simulator is for.
    let _ = http.serve_connection(TokioIo::new(socket), service_fn(move |request| service::answer(service.clone(), request))).await;
}

/// A connection that can end with a reset.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Socket {
    fn new(stream: TcpStream, reset: Arc<AtomicBool>, shared: Arc<Shared>) -> Socket {
        shared.connections.fetch_add(1, Ordering::AcqRel);
        Socket { stream, reset, shared }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Acquire) || self.shared.stopping.load(Ordering::Acquire) {
            // Closing without lingering sends RST. Where that fails the connection just closes.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
        }
        self.shared.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Acquire) {
            // A tidy end would be sent before the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
