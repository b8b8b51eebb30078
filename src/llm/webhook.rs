//! A JSON document posted to an address that is itself a secret: of the address only the host is ever shown, and nothing of what
//! the server says but its status and how long it asks to wait.

use std::fmt;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::classify;
use super::client::{Client, collect};
use super::endpoint::header;
use super::error::{ApiError, ErrorKind};
use super::secret::Secrets;
use super::transport::root_cause;

/// As much of a reply is read, so that the connection can be used again.
const MAX_REPLY: usize = 64 * 1024;

/// The headers of a reply that an error keeps.
const KEPT: [&str; 3] = ["retry-after", "retry-after-ms", "x-should-retry"];

/// Where the documents go.
pub struct Webhook {
    url: Url,
    headers: HeaderMap,
    shown: String,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("at", &self.shown).finish_non_exhaustive()
    }
}

/// Headers that may be sent; none of their values is shown.
pub fn headers(given: &[(String, String)]) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        let (name, mut value) = header(name, value)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

impl Webhook {
    /// A URL that is none, or that names a user, and headers that cannot be sent are configuration errors.
    pub fn new(url: &str, given: &[(String, String)]) -> Result<Webhook, ApiError> {
        let wrong = |what: &str| Err(ApiError::new(ErrorKind::Configuration, format!("url (not shown: it may hold a secret) {what}")));
        let Ok(url) = Url::parse(url.trim()) else { return wrong("is no URL; give it like \"https://hooks.example.com/alerts\"") };
        let (true, Some(host)) = (matches!(url.scheme(), "http" | "https"), url.host_str()) else {
            return wrong("must begin with http:// or https:// and name a host");
        };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("must not name a user: send the credentials by headers={\"Authorization\": …}");
        }
        let shown = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut headers = headers(given)?;
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        Ok(Webhook { url, headers, shown })
    }

    /// The host, and its port where one was given.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Posts it once. Everything but a success is an error.
    pub async fn post(&self, client: &Client, more: HeaderMap, body: Bytes) -> Result<(), ApiError> {
        let mut request = reqwest::Request::new(Method::POST, self.url.clone());
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().extend(more);
        *request.body_mut() = Some(body.into());
        let mut response = client.execute(request).await.map_err(|error| self.failed(error))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        // It has come there: what becomes of the rest of the reply changes nothing.
        let _ = collect(&mut response, MAX_REPLY).await;
        if status.is_success() {
            return Ok(());
        }
        let mut error = classify::status_error(status.as_u16(), &headers, &[], &Secrets::default());
        error.message = format!("the webhook at {} answered {}", self.shown, status.as_u16());
        error.headers.retain(|(name, _)| KEPT.contains(&name.as_str()));
        error.request_id = None;
        Err(error)
    }

    fn failed(&self, error: reqwest::Error) -> ApiError {
        let error = error.without_url();
        let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Connection };
        ApiError::new(kind, format!("the webhook at {} could not be reached ({})", self.shown, root_cause(&error)))
    }
}
