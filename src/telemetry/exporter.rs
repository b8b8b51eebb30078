//! What Prometheus scrapes: a server on a thread of its own, and the file by which this process takes part in a group of several.

#[cfg(unix)]
use super::group::Member;
use super::snapshot::{Snapshot, numbers};
use super::text::{Format, text};
use crate::serve;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::path::Path;
#[cfg(unix)]
use std::sync::{Arc, Condvar, Mutex, PoisonError};
#[cfg(unix)]
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpStream;

/// Connections at a time; of more, the oldest goes.
const CONNECTIONS: usize = 64;
/// So long a request may take to be made, and its answer to be read.
const PATIENCE: Duration = Duration::from_secs(30);
/// So often a process of a group writes its numbers down.
#[cfg(unix)]
const EVERY: Duration = Duration::from_millis(250);
/// After so many of these, the files of those that are gone are put together.
#[cfg(unix)]
const TIDY: u32 = 40;

/// The numbers of this process, taken where nobody forks meanwhile.
fn apart() -> Snapshot {
    #[cfg(unix)]
    return serve::fork::apart(numbers);
    #[cfg(not(unix))]
    numbers()
}

/// Where the numbers of this process, or of a group, come from.
#[derive(Clone, Default)]
pub struct Publisher {
    #[cfg(unix)]
    writer: Option<Arc<Writer>>,
}

/// Writes this process's numbers down, from time to time and at the end.
#[cfg(unix)]
struct Writer {
    member: Arc<Member>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    process: u32,
}

impl Publisher {
    /// Of this process alone.
    pub fn alone() -> Publisher {
        Publisher::default()
    }

    /// Of all processes that take part in that directory.
    #[cfg(unix)]
    pub fn grouped(directory: &Path) -> io::Result<Publisher> {
        let member = Arc::new(Member::join(directory)?);
        member.write(&apart())?;
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (writes, stops) = (member.clone(), stop.clone());
        let begin = || std::thread::Builder::new().name("seawall-metrics".to_owned()).spawn(move || Writer::carry(&writes, &stops));
        let thread = crate::drive::signals::away(begin)?;
        Ok(Publisher { writer: Some(Arc::new(Writer { member, thread: Mutex::new(Some(thread)), stop, process: std::process::id() })) })
    }

    /// Files are locked as Unix does it.
    #[cfg(not(unix))]
    pub fn grouped(_directory: &Path) -> io::Result<Publisher> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "several processes can share a directory of metrics on Unix only"))
    }

    /// The numbers, of the whole group where there is one.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        #[cfg(unix)]
        if let Some(writer) = &self.writer {
            return writer.member.together(&apart());
        }
        Ok(apart())
    }

    /// Writes the last numbers and takes part no more; what was counted stays in the directory. In a forked child: it is the
    /// parent that takes part.
    pub fn end(&self) {
        #[cfg(unix)]
        if let Some(writer) = &self.writer {
            writer.end();
        }
    }
}

#[cfg(unix)]
impl Writer {
    fn carry(member: &Member, stop: &(Mutex<bool>, Condvar)) {
        let (stopped, told) = stop;
        let mut turns = 0_u32;
        let mut is_over = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_over {
            is_over = told.wait_timeout(is_over, EVERY).unwrap_or_else(PoisonError::into_inner).0;
            // A disk that is full, or a directory that is gone, is tried again: what was counted is still here.
            let _ = member.write(&apart());
            turns += 1;
            if turns.is_multiple_of(TIDY) {
                let _ = member.absorb();
            }
        }
    }

    fn end(&self) {
        if self.process != std::process::id() {
            // The thread is not here, and what stands for it may by now stand for another.
            std::mem::forget(self.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.member.leave();
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.stop.1.notify_all();
            let _ = thread.join();
            let _ = self.member.write(&apart());
            self.member.leave();
        }
    }
}

#[cfg(unix)]
impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The page, and what kind of text it is.
pub fn page(publisher: &Publisher, accept: &str) -> io::Result<(String, &'static str)> {
    let format = Format::wanted(accept);
    Ok((text(&publisher.snapshot()?, format), format.content_type()))
}

/// A server of the page. Dropping it ends it.
pub struct Exporter(serve::Server);

impl Exporter {
    /// Listens; port 0 is any that is free.
    pub fn start(host: &str, port: u16, publisher: Publisher) -> io::Result<Exporter> {
        let listener = serve::listen(serve::resolve(host, port)?)?;
        serve::Server::start("seawall-metrics-http", listener, CONNECTIONS, move |stream| talk(stream, publisher.clone())).map(Exporter)
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.0.address
    }

    /// Whether it was started in this process.
    pub fn is_here(&self) -> bool {
        self.0.is_here()
    }
}

async fn talk(stream: TcpStream, publisher: Publisher) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).half_close(true).max_buf_size(32 << 10);
    let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&publisher, &request))));
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(publisher: &Publisher, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = made(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "Metrics are only read: GET is all there is.\n".to_owned());
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            match page(publisher, accept) {
                Ok((text, kind)) => made(StatusCode::OK, kind, text),
                Err(error) => made(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("The group's files cannot be read: {error}\n")),
            }
        }
        "/" => made(StatusCode::OK, PLAIN, "seawall: /metrics is for Prometheus.\n".to_owned()),
        _ => made(StatusCode::NOT_FOUND, PLAIN, "There is /metrics.\n".to_owned()),
    }
}

fn made(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
