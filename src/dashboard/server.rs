//! Requests and answers.

use super::gather;
use super::guard::{Guard, SHORTEST, Token, Verdict};
use super::page::{self, Page};
use super::state::{Process, Traffic};
use crate::drive::clock;
use crate::serve;
use crate::telemetry::{self, Watching};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Connections at a time; of more, the oldest goes.
const CONNECTIONS: usize = 64;
/// A connection is for one question, which has this long to be asked and its answer to be read.
const PATIENCE: Duration = Duration::from_secs(30);
/// However many ask, the state is not taken together more often than this, nor for more than a part of the time. The calls,
/// which may be many, have a time of their own, so that breakers are shown as they are whatever there is to count.
const FRESH: Duration = Duration::from_millis(100);
const PART: u32 = 20;
/// The port where none is said, and how many after it are tried.
const USUAL: std::ops::Range<u16> = 8809..8829;

/// How a dashboard is set up.
pub struct Options {
    /// A name or an address.
    pub host: String,
    /// 0 is any that is free; `None` the first of [`USUAL`] that is free, or else any.
    pub port: Option<u16>,
    /// `None` is none on the loopback, and elsewhere one that is made.
    pub token: Option<String>,
    /// What the process is called.
    pub title: String,
}

/// Why it does not begin.
pub enum Refused {
    /// A token that can be guessed.
    Token,
    /// Something else listens there.
    Taken(u16),
    /// It cannot listen there.
    Io(io::Error),
}

/// A dashboard that listens. Dropping it ends it.
pub struct Dashboard {
    server: serve::Server,
    shared: Arc<Shared>,
    /// Calls are counted as long as somebody may look.
    _watching: Watching,
}

/// What was taken together last, and until when it is fresh.
#[derive(Default)]
struct Last {
    text: Option<(Instant, Bytes)>,
    traffic: Option<(Instant, Traffic)>,
}

struct Shared {
    guard: Guard,
    process: Process,
    last: Mutex<Last>,
}

impl Dashboard {
    /// Listens.
    pub fn start(options: Options) -> Result<Dashboard, Refused> {
        if options.token.as_ref().is_some_and(|token| token.len() < SHORTEST) {
            return Err(Refused::Token);
        }
        let Some(port) = options.port else {
            // 0 comes last: whoever has twenty of them finds them by what they say.
            for port in USUAL.chain([0]) {
                match Dashboard::listen(&options, port) {
                    Err(Refused::Taken(_)) => {}
                    other => return other,
                }
            }
            return Err(Refused::Taken(USUAL.start));
        };
        Dashboard::listen(&options, port)
    }

    fn listen(options: &Options, port: u16) -> Result<Dashboard, Refused> {
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => Refused::Taken(port),
            _ => Refused::Io(error),
        };
        let listener = serve::resolve(&options.host, port).and_then(serve::listen).map_err(refused)?;
        let address = listener.local_addr().map_err(Refused::Io)?;
        let watching = telemetry::watch();
        let pid = std::process::id();
        let process = Process {
            id: format!("{pid}-{:x}", clock::seed()),
            title: options.title.clone(),
            pid,
            watching_since: gather::unix(clock::now()),
            version: env!("CARGO_PKG_VERSION"),
        };
        let guard = match &options.token {
            None if address.ip().is_loopback() => Guard::Loopback,
            given => Guard::Token(Box::new(Token::new(given.clone(), address.port()).map_err(Refused::Io)?)),
        };
        let shared = Arc::new(Shared { guard, process, last: Mutex::default() });
        let inner = shared.clone();
        let begun = serve::Server::start("seawall-dashboard", listener, CONNECTIONS, move |stream| talk(stream, inner.clone()));
        Ok(Dashboard { server: begun.map_err(Refused::Io)?, shared, _watching: watching })
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address
    }

    /// What has to be known to see it.
    pub fn token(&self) -> Option<&str> {
        match &self.shared.guard {
            Guard::Loopback => None,
            Guard::Token(token) => Some(token.expose()),
        }
    }

    /// Whether it was started in this process.
    pub fn is_here(&self) -> bool {
        self.server.is_here()
    }
}

async fn talk(stream: TcpStream, shared: Arc<Shared>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false).half_close(true).max_buf_size(32 << 10);
    let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&shared, &request))));
    // A reader that is slow, dead or no browser at all costs a connection for so long, and nobody waits for it.
    let _ = tokio::time::timeout(PATIENCE, http.serve_connection(TokioIo::new(stream), service)).await;
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method(), request.uri().path());
    if method != Method::GET {
        let mut refused = said(StatusCode::METHOD_NOT_ALLOWED, "The dashboard only shows: GET is all it knows.");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    match shared.guard.verdict(request.uri(), request.headers()) {
        Verdict::Passes => {}
        Verdict::Misled(why) => return said(StatusCode::MISDIRECTED_REQUEST, why),
        Verdict::Cookie(cookie) => return come_again(&cookie),
        Verdict::Stranger if path == "/" => return document(StatusCode::UNAUTHORIZED, &page::ASKING),
        Verdict::Stranger => {
            let mut refused = said(StatusCode::UNAUTHORIZED, "Say the token: Authorization: Bearer, or open the page with ?token= first.");
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refused;
        }
    }
    match path {
        "/" => document(StatusCode::OK, &page::DASHBOARD),
        "/api/state" => made(StatusCode::OK, "application/json", shared.text()),
        _ => said(StatusCode::NOT_FOUND, "There is / and /api/state."),
    }
}

impl Shared {
    fn text(&self) -> Bytes {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Last { text, traffic } = &mut *last;
        let is_old = |until: &Instant| Instant::now() >= *until;
        if text.as_ref().is_none_or(|(until, _)| is_old(until)) {
            if traffic.as_ref().is_none_or(|(until, _)| is_old(until)) {
                *traffic = Some(timed(|| apart(gather::traffic)));
            }
            let made = |traffic| serde_json::to_vec(&apart(|| gather::state(&self.process, traffic))).unwrap_or_default();
            *text = traffic.as_ref().map(|(_, traffic)| timed(|| made(traffic).into()));
        }
        text.as_ref().map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

/// What it gives, and until when that is fresh: the longer it took, the longer.
fn timed<T>(make: impl FnOnce() -> T) -> (Instant, T) {
    let begun = Instant::now();
    let made = make();
    let ended = Instant::now();
    (ended + FRESH.max((ended - begun) * PART), made)
}

/// Runs what takes locks of the process's; see [`serve::fork::apart`].
fn apart<T>(look: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    return serve::fork::apart(look);
    #[cfg(not(unix))]
    look()
}

/// What goes with every answer.
const ALWAYS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

fn made(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn said(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    made(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn document(status: StatusCode, page: &Page) -> Response<Full<Bytes>> {
    let mut response = made(status, "text/html; charset=utf-8", page.html.clone());
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page.policy.clone());
    response
}

/// To the same page without the token in its address.
fn come_again(cookie: &str) -> Response<Full<Bytes>> {
    let mut response = said(StatusCode::SEE_OTHER, "");
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("./"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
