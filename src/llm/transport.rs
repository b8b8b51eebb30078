//! What broke between us and the server, in words that say what to do.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{HeaderMap, LOCATION};

use super::endpoint::Endpoint;
use super::error::{ApiError, ErrorKind, excerpt};
use super::secret::Secrets;

/// Where a request went: what its errors name, and the secrets that they must not.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub endpoint: Endpoint,
    pub path: Arc<str>,
    pub model: Option<Arc<str>>,
    /// The endpoint's and those of this request's own headers.
    pub secrets: Secrets,
    pub method: Method,
    /// Whether a proxy may stand in between.
    pub is_proxied: bool,
}

/// When it broke.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Sending,
    Reading,
}

impl Origin {
    /// The address as errors show it.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.endpoint.shown(), self.path.trim_start_matches('/'))
    }

    /// Adds what to do to an error that the server sent.
    pub fn advise(&self, mut error: ApiError, headers: &HeaderMap) -> ApiError {
        let advice = match error.status {
            Some(401) => " (check the API key given or OPENAI_API_KEY)".to_owned(),
            Some(404) if self.endpoint.shown().ends_with(&*self.path) => {
                format!(" ({} {}: leave {:?} out of base_url, it is added by itself)", self.method, self.shown(), self.path)
            }
            Some(404) if self.endpoint.is_root() => {
                let (method, shown, root) = (&self.method, self.shown(), self.endpoint.shown());
                format!(" ({method} {shown}: base_url names no path, where most services want one like {root}/v1)")
            }
            Some(404) => match &self.model {
                Some(model) => format!(" ({} {}: check the model name {model:?} and base_url)", self.method, self.shown()),
                None => format!(" ({} {}: check base_url)", self.method, self.shown()),
            },
            Some(300..=399) => match headers.get(LOCATION).and_then(|to| to.to_str().ok()) {
                Some(to) => {
                    let to = to.split(['?', '#']).next().unwrap_or(to);
                    format!(" (redirected to {}: set base_url to where the service really is)", excerpt(to.as_bytes(), &self.secrets))
                }
                None => String::new(),
            },
            _ => String::new(),
        };
        error.message.push_str(&advice);
        error
    }

    /// The error for what reqwest could not do.
    pub fn failed(&self, error: reqwest::Error, phase: Phase) -> ApiError {
        // The address is named here, without its query, which may hold credentials.
        let error = error.without_url();
        let place = self.endpoint.place();
        let cause = excerpt(root_cause(&error).as_bytes(), &self.secrets);
        let io = find::<io::Error>(&error).map(io::Error::kind);
        let hyper = find::<hyper::Error>(&error);
        let (kind, message) = if error.is_builder() || error.is_redirect() {
            (ErrorKind::Configuration, format!("the request to {} cannot be sent: {cause}", self.shown()))
        } else if error.is_connect() && error.is_timeout() {
            (ErrorKind::Timeout, format!("no connection to {place} in time: check base_url and the network"))
        } else if error.is_timeout() {
            (ErrorKind::Timeout, format!("{place} took too long: {cause}"))
        } else if error.is_dns() {
            (ErrorKind::Connection, format!("no address found for {place} ({cause}): check the host in base_url and the network"))
        } else if error.is_connect() {
            let advice = match io {
                Some(io::ErrorKind::ConnectionRefused) if self.is_proxied => {
                    "nothing listens there, or at the proxy that proxy=, HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names"
                }
                Some(io::ErrorKind::ConnectionRefused) => "nothing listens there; check base_url, and that the server runs",
                _ if cause.contains("certificate") => {
                    "its certificate is not trusted; ca_bundle= or SSL_CERT_FILE names a file with your own authority's certificate"
                }
                _ if cause.contains("corrupt message") => "the server does not seem to speak TLS; try http:// in base_url",
                _ => "check base_url, the network and any proxy in proxy=, HTTP_PROXY, HTTPS_PROXY or ALL_PROXY",
            };
            (ErrorKind::Connection, format!("could not connect to {place} ({cause}): {advice}"))
        } else if hyper.is_some_and(hyper::Error::is_parse) {
            (
                ErrorKind::Connection,
                format!("{place} answered with something that is no HTTP ({cause}): check the scheme and port in base_url"),
            )
        } else if phase == Phase::Reading && hyper.is_none() && matches!(io, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput))
        {
            (ErrorKind::MalformedResponse, format!("the reply of {place} cannot be decompressed ({cause})"))
        } else if phase == Phase::Reading {
            (ErrorKind::Connection, format!("the connection to {place} broke in the middle of the reply ({cause})"))
        } else {
            (ErrorKind::Connection, format!("the connection to {place} broke before it answered ({cause})"))
        };
        ApiError::new(kind, message).seal(&self.secrets)
    }
}

/// Whether the environment names a proxy.
pub(super) fn proxy_is_set() -> bool {
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    names.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

pub(super) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| (*error).source()).last();
    last.map(ToString::to_string).unwrap_or_default()
}
