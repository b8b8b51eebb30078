//! One attempt: a request out, a bounded reply or one named error back.

use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Certificate, Identity, Method, Response, StatusCode, redirect};

use tracing::debug;

use super::classify;
use super::endpoint::{Endpoint, is_credential, note_credentials};
use super::error::{ApiError, ErrorKind, MAX_BODY, excerpt, request_id};
use super::secret::{ApiKey, Secrets};
use super::transport::{Origin, Phase, proxy_is_set};
use crate::drive::clock;

/// The longest reply held if nothing was said: a full request of embeddings fits.
pub const DEFAULT_MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// What it says goes under this name.
const TARGET: &str = "seawall::client";

/// How much of an error's body is read; its status says most of it already.
const MAX_ERROR_BODY: usize = 4 * MAX_BODY;

/// A body up to this long is copied out of the buffer that the connection reads into, which then is used again.
const SMALL: usize = 16 * 1024;

/// Which proxy requests go through.
#[derive(Clone, PartialEq, Eq)]
pub enum ProxyChoice {
    /// Those of the environment (`HTTPS_PROXY`, `NO_PROXY`, …) and the system.
    System,
    /// None.
    Off,
    /// This one, always: `http://`, `https://`, `socks5://` or `socks5h://`, a user name and a password in it if need be.
    At(String),
}

/// How a [`Client`] connects.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// The longest time for a connection to be made, TLS included. Default: 5 s.
    pub connect_timeout: Duration,
    /// The way there. Default: the system's.
    pub proxy: ProxyChoice,
    /// Certificates in PEM of the authorities to be trusted in place of the system's.
    pub authorities: Option<Vec<u8>>,
    /// Our own certificate and its key, in PEM.
    pub identity: Option<Vec<u8>>,
    /// The longest time spent on the body of an error, whose status is known already. Default: 5 s.
    pub error_body_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            connect_timeout: Duration::from_secs(5),
            proxy: ProxyChoice::System,
            authorities: None,
            identity: None,
            error_body_timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for ClientOptions {
    /// Without the proxy's password and our key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions").field("connect_timeout", &self.connect_timeout).finish_non_exhaustive()
    }
}

/// A pool of connections. Clones share it; it belongs to the tokio runtime in which it is first used.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    error_body_timeout: Duration,
    is_proxied: bool,
}

/// One request.
#[derive(Clone)]
pub struct Request {
    /// The path under the base URL, such as `chat/completions`.
    pub path: Arc<str>,
    /// The JSON to send; `None` asks with GET.
    pub body: Option<Bytes>,
    /// The model asked for; only errors name it.
    pub model: Option<Arc<str>>,
    /// Headers of this request; they win over the endpoint's.
    pub headers: HeaderMap,
    /// Query parameters of this request.
    pub query: Vec<(String, String)>,
    /// A reply, or a stream, of more bytes than these is refused.
    pub max_response_bytes: usize,
}

impl Request {
    /// A request with nothing special about it.
    pub fn new(path: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Request {
        Request {
            path: path.into(),
            body: Some(body.into()),
            model: None,
            headers: HeaderMap::new(),
            query: Vec::new(),
            max_response_bytes: DEFAULT_MAX_RESPONSE_BYTES,
        }
    }

    /// One that asks for what is at the path.
    pub fn get(path: impl Into<Arc<str>>) -> Request {
        Request { body: None, ..Request::new(path, Bytes::new()) }
    }

    /// The same with the model that errors will name.
    pub fn for_model(mut self, model: impl Into<Arc<str>>) -> Request {
        self.model = Some(model.into());
        self
    }
}

impl fmt::Debug for Request {
    /// Without the body and the headers: they hold what the user says and who it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("path", &self.path)
            .field("model", &self.model)
            .field("bytes", &self.body.as_ref().map_or(0, Bytes::len))
            .finish_non_exhaustive()
    }
}

/// A reply whose status is a success, not looked into yet.
#[derive(Clone, Debug)]
pub struct RawReply {
    /// The HTTP status, 2xx.
    pub status: u16,
    /// The response's headers.
    pub headers: HeaderMap,
    /// The provider's id for the request.
    pub request_id: Option<String>,
    /// The whole body, decompressed.
    pub body: Bytes,
    pub(super) origin: Option<Origin>,
}

impl RawReply {
    /// A reply that comes from somewhere else than the network, a cache for example.
    pub fn new(status: u16, headers: HeaderMap, body: impl Into<Bytes>) -> RawReply {
        RawReply { status, request_id: request_id(&headers), headers, body: body.into(), origin: None }
    }

    /// The error that this reply is no answer, saying what it is instead.
    pub(super) fn malformed(&self, what: &str) -> ApiError {
        let server = self.origin.as_ref().map_or_else(|| "the server".to_owned(), Origin::shown);
        let mut error = ApiError::new(ErrorKind::MalformedResponse, format!("{server} answered {} with {what}", self.status));
        error.status = Some(self.status);
        error.take_headers(&self.headers);
        error.take_body(&self.body);
        error.seal(&self.secrets())
    }

    /// The error that the model itself gave up, of which the server said no more.
    pub(super) fn ended_in_error(&self, reason: &str) -> ApiError {
        let message = format!("the answer ended with finish_reason {reason:?}: its maker failed, and it is not whole");
        self.error_object(&serde_json::json!({ "message": message }))
    }

    /// The error that this success holds an error object.
    pub(super) fn error_object(&self, object: &serde_json::Value) -> ApiError {
        let error = classify::from_object(object, &self.headers, &self.body, &self.secrets());
        match &self.origin {
            Some(origin) => origin.advise(error, &self.headers),
            None => error,
        }
    }

    /// The beginning of what came, fit to be shown.
    pub(super) fn excerpt(&self, bytes: &[u8]) -> String {
        excerpt(bytes, &self.secrets())
    }

    pub(super) fn secrets(&self) -> Secrets {
        self.origin.as_ref().map(|origin| origin.secrets.clone()).unwrap_or_default()
    }
}

impl Client {
    /// A client; its connections are made when they are needed.
    ///
    /// A machine without any trusted root certificates is a configuration error, and so are certificates that are none.
    pub fn new(options: ClientOptions) -> Result<Client, ApiError> {
        static PROVIDER: Once = Once::new();
        // An error means that the process has a provider already, which will do.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("seawall/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .redirect(redirect::Policy::custom(same_origin))
            // The engine owns every retry, also those that reqwest thinks harmless.
            .retry(reqwest::retry::never())
            .http2_keep_alive_interval(Duration::from_secs(30))
            .http2_keep_alive_timeout(Duration::from_secs(15));
        let wrong = |what: String| ApiError::new(ErrorKind::Configuration, what);
        match &options.proxy {
            ProxyChoice::System => {}
            ProxyChoice::Off => builder = builder.no_proxy(),
            ProxyChoice::At(url) => builder = builder.proxy(proxy(url)?),
        }
        if let Some(pem) = &options.authorities {
            let authorities = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if authorities.is_empty() {
                return Err(wrong("ca_bundle holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)".into()));
            }
            builder = builder.tls_certs_only(authorities);
        }
        if let Some(pem) = &options.identity {
            // What it holds may be a key: the reason is not shown.
            let unusable = |_| wrong("client_cert needs a certificate and its private key, not encrypted, in PEM form".into());
            builder = builder.identity(Identity::from_pem(pem).map_err(unusable)?);
        }
        let is_proxied = match options.proxy {
            ProxyChoice::System => proxy_is_set(),
            ProxyChoice::Off => false,
            ProxyChoice::At(_) => true,
        };
        match builder.build() {
            Ok(http) => Ok(Client { http, error_body_timeout: options.error_body_timeout, is_proxied }),
            Err(error) if options.authorities.is_some() || options.identity.is_some() => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                Err(wrong(format!("the certificates in ca_bundle or client_cert cannot be used: {cause}")))
            }
            Err(error) => Err(ApiError::new(ErrorKind::Configuration, format!("no HTTPS client can be made here: {error:?}"))),
        }
    }

    /// Sends JSON, or asks, and reads the whole reply. Everything but a success with a whole body is an error.
    pub async fn send_json(&self, endpoint: &Endpoint, request: Request) -> Result<RawReply, ApiError> {
        let max = request.max_response_bytes;
        let (mut response, origin) = self.send(endpoint, request, HeaderValue::from_static("application/json")).await?;
        let status = response.status().as_u16();
        let headers = on_their_own(std::mem::take(response.headers_mut()));
        let body = collect(&mut response, max).await;
        let mut reply = RawReply { status, request_id: request_id(&headers), headers, body: Bytes::new(), origin: None };
        match body {
            Ok(body) => {
                reply.body = body;
                reply.origin = Some(origin);
                Ok(reply)
            }
            Err(Cut::TooLong) => {
                reply.origin = Some(origin);
                Err(reply.malformed(&format!("more than {max} bytes; they were not read (max_response_bytes is the limit)")))
            }
            Err(Cut::Failed(error)) => {
                let mut error = origin.failed(error, Phase::Reading);
                error.take_headers(&reply.headers);
                Err(error.seal(&origin.secrets))
            }
        }
    }

    /// Sends a request as it is.
    pub(super) async fn execute(&self, request: reqwest::Request) -> reqwest::Result<Response> {
        self.http.execute(request).await
    }

    /// Sends a request up to the response's head; a status that is no success is an error.
    pub(super) async fn send(&self, endpoint: &Endpoint, request: Request, accept: HeaderValue) -> Result<(Response, Origin), ApiError> {
        let mut secrets = endpoint.secrets().clone();
        let mut url = endpoint.url(&request.path);
        for (name, value) in &request.query {
            if is_credential(name)
                && let Ok(secret) = ApiKey::new(value.clone())
            {
                secrets.add(secret);
            }
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        let mut headers = endpoint.headers().clone();
        headers.entry(ACCEPT).or_insert(accept);
        for (name, value) in &request.headers {
            let mut value = value.clone();
            note_credentials(name, &mut value, &mut secrets);
            headers.insert(name, value);
        }
        let method = if request.body.is_some() { Method::POST } else { Method::GET };
        let origin = Origin {
            endpoint: endpoint.clone(),
            path: request.path,
            model: request.model,
            secrets,
            method: method.clone(),
            is_proxied: self.is_proxied,
        };
        let mut sent = reqwest::Request::new(method, url);
        *sent.headers_mut() = headers;
        let size = request.body.as_ref().map_or(0, Bytes::len);
        *sent.body_mut() = request.body.map(Into::into);
        let (place, model) = (origin.endpoint.place(), origin.model.as_deref().unwrap_or_default());
        debug!(target: TARGET, place, model, path = &*origin.path, bytes = size, "request");
        let begun = clock::now();
        let sent = self.execute(sent).await;
        let took = clock::now().since(begun).as_secs_f64();
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => {
                let error = origin.failed(error, Phase::Sending);
                debug!(target: TARGET, place, model, seconds = took, error = error.kind.class_name(), "no response");
                return Err(error);
            }
        };
        let (status, version) = (response.status().as_u16(), response.version());
        debug!(target: TARGET, place, model, status, ?version, seconds = took, "response");
        if response.status().is_success() {
            return Ok((response, origin));
        }
        let headers = std::mem::take(response.headers_mut());
        let body = error_body(&mut response, self.error_body_timeout).await;
        let error = classify::status_error(status, &headers, &body, &origin.secrets);
        Err(origin.advise(error, &headers))
    }
}

/// A proxy from its address, which is not shown: it may hold a password.
fn proxy(url: &str) -> Result<reqwest::Proxy, ApiError> {
    let is_known = url.split_once("://").is_some_and(|(scheme, _)| matches!(scheme, "http" | "https" | "socks5" | "socks5h"));
    match reqwest::Proxy::all(url) {
        Ok(proxy) if is_known => Ok(proxy),
        _ => Err(ApiError::new(
            ErrorKind::Configuration,
            "proxy is not the address of a proxy; give it like \"http://127.0.0.1:3128\" (http, https, socks5 or socks5h)",
        )),
    }
}

/// Follows a redirect only where the credentials may go and the request stays what it is.
fn same_origin(attempt: redirect::Attempt) -> redirect::Action {
    let keeps_the_request = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let stays = attempt.previous().last().is_some_and(|from| from.origin() == attempt.url().origin());
    if keeps_the_request && stays && attempt.previous().len() <= 3 { attempt.follow() } else { attempt.stop() }
}

/// The headers in memory of their own: they come as parts of the buffer that the connection reads into, and whoever keeps
/// one of them keeps all of it.
fn on_their_own(mut headers: HeaderMap) -> HeaderMap {
    let mut texts = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| texts.extend_from_slice(value.as_bytes()));
    let mut texts = texts.freeze();
    for value in headers.values_mut() {
        let is_sensitive = value.is_sensitive();
        // It was a value before.
        if let Ok(mut own) = HeaderValue::from_maybe_shared(texts.split_to(value.len())) {
            own.set_sensitive(is_sensitive);
            *value = own;
        }
    }
    headers
}

/// Why a body is not whole.
pub(super) enum Cut {
    TooLong,
    Failed(reqwest::Error),
}

/// Reads a body up to a limit. Beyond it nothing is kept, and the connection is given up rather than read on.
pub(super) async fn collect(response: &mut Response, max: usize) -> Result<Bytes, Cut> {
    let announced = response.content_length().unwrap_or(0);
    if announced > max as u64 {
        return Err(Cut::TooLong);
    }
    let Some(mut first) = response.chunk().await.map_err(Cut::Failed)? else {
        return Ok(Bytes::new());
    };
    if first.len() <= SMALL {
        first = Bytes::copy_from_slice(&first);
    }
    let mut rest: Option<BytesMut> = None;
    let mut length = first.len();
    while length <= max {
        let Some(chunk) = response.chunk().await.map_err(Cut::Failed)? else {
            return Ok(rest.map_or(first, BytesMut::freeze));
        };
        length += chunk.len();
        let whole = rest.get_or_insert_with(|| {
            let mut whole = BytesMut::with_capacity((announced as usize).max(first.len() + chunk.len()));
            whole.extend_from_slice(&first);
            whole
        });
        whole.extend_from_slice(&chunk);
    }
    Err(Cut::TooLong)
}

/// What there is of an error's body: one that is cut, slow or endless must not hide the status.
async fn error_body(response: &mut Response, timeout: Duration) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BODY - body.len())]);
            if body.len() == MAX_ERROR_BODY {
                break;
            }
        }
    };
    // Too slow is no failure here; what was read is enough.
    let _ = tokio::time::timeout(timeout, read).await;
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_on_their_own_are_the_same_headers_and_keep_nothing_else() {
        let buffer = Bytes::from(b"HTTP one two secret".to_vec());
        let value = |range: std::ops::Range<usize>| HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap();
        let mut headers = HeaderMap::new();
        headers.append("a", value(5..8));
        headers.append("a", value(9..12));
        headers.insert("empty", value(12..12));
        headers.insert("b", value(13..19));
        headers.get_mut("b").unwrap().set_sensitive(true);
        assert!(!buffer.is_unique());
        let own = on_their_own(headers.clone());
        assert_eq!(own, headers);
        assert!(own["b"].is_sensitive() && !own["a"].is_sensitive());
        drop(headers);
        assert!(buffer.is_unique());
    }
}
