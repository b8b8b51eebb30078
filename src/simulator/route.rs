//! Whose API a request speaks, and what it is for.

use super::faults::Status;
use super::{anthropic, openai};
use hyper::Method;
use hyper::header::HeaderMap;
use serde_json::Value;

/// Whose words are spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    OpenAi,
    /// OpenAI's, under other paths and with another header for the key.
    Azure,
    Anthropic,
}

/// What is asked for.
pub enum What {
    Chat,
    CountTokens,
    Embeddings,
    Models,
    Model(String),
}

/// Where a request goes.
pub struct Route {
    pub what: What,
    /// The model that the path names.
    pub model: Option<String>,
}

impl Protocol {
    /// By the path and the headers.
    pub fn of(path: &str, headers: &HeaderMap) -> Protocol {
        if path.starts_with("/openai/") {
            Protocol::Azure
        } else if path == "/v1/messages" || path.starts_with("/v1/messages/") || headers.contains_key("anthropic-version") {
            Protocol::Anthropic
        } else {
            Protocol::OpenAi
        }
    }

    /// The key that a request brings; empty if it brings none.
    pub fn key(self, headers: &HeaderMap) -> &str {
        let said = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim).filter(|k| !k.is_empty());
        let bearer = said("authorization").and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let own = match self {
            Protocol::OpenAi => None,
            Protocol::Azure => said("api-key"),
            Protocol::Anthropic => said("x-api-key"),
        };
        own.or(bearer.map(|(_, key)| key.trim())).unwrap_or("")
    }

    /// The header that holds a request's number.
    pub fn id_header(self) -> &'static str {
        if self == Protocol::Anthropic { "request-id" } else { "x-request-id" }
    }

    /// A status's body.
    pub fn error(self, status: &Status, number: u64) -> Value {
        if self == Protocol::Anthropic { anthropic::error(status, number) } else { openai::error(status) }
    }

    /// An error that comes after 200.
    pub fn late_error(self, number: u64) -> Value {
        match self {
            Protocol::Anthropic => anthropic::error(&Status::of(529, "Overloaded", None), number),
            _ => openai::error(&Status::of(503, "The server is overloaded.", None)),
        }
    }

    /// A stream's event with an error.
    pub fn late_event(self, number: u64) -> String {
        let error = self.late_error(number);
        if self == Protocol::Anthropic { anthropic::event(error) } else { format!("data: {error}\n\n") }
    }
}

/// `%2F` and its like in a path's part.
fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// Where a request goes, or why nowhere.
pub fn route(method: &Method, path: &str, query: Option<&str>, protocol: Protocol) -> Result<Route, Box<Status>> {
    let unknown = |more: &str| {
        let message = format!("Invalid URL ({method} {path}){more}");
        Err(Box::new(Status::of(404, &message, Some("unknown_url"))))
    };
    let deployment = path.strip_prefix("/openai/deployments/").and_then(|rest| rest.split_once('/'));
    let (rest, model) = match (deployment, protocol) {
        (Some((name, rest)), _) => {
            if !query.unwrap_or("").split('&').any(|pair| pair.strip_prefix("api-version=").is_some_and(|v| !v.is_empty())) {
                return unknown(": Azure's deployments are asked with ?api-version=");
            }
            (rest, Some(decoded(name)))
        }
        (None, Protocol::Azure) => (path.strip_prefix("/openai/v1/").unwrap_or(""), None),
        (None, _) => match path.strip_prefix("/v1/") {
            Some(rest) => (rest, None),
            None => return unknown(": the base URL ends with /v1; that of Anthropic's SDK ends without it"),
        },
    };
    let (what, allowed) = match (rest, protocol) {
        ("messages", Protocol::Anthropic) => (What::Chat, Method::POST),
        ("messages/count_tokens", Protocol::Anthropic) => (What::CountTokens, Method::POST),
        ("chat/completions", Protocol::OpenAi | Protocol::Azure) => (What::Chat, Method::POST),
        ("embeddings", Protocol::OpenAi | Protocol::Azure) => (What::Embeddings, Method::POST),
        ("models", _) if model.is_none() => (What::Models, Method::GET),
        _ => match rest.strip_prefix("models/") {
            Some(name) if model.is_none() => (What::Model(decoded(name)), Method::GET),
            _ => return unknown(""),
        },
    };
    if *method != allowed {
        let message = format!("{method} is not allowed here, only {allowed}.");
        return Err(Box::new(Status { headers: vec![("allow".into(), allowed.to_string())], ..Status::of(405, &message, None) }));
    }
    let model = if let What::Model(name) = &what { Some(name.clone()) } else { model };
    Ok(Route { what, model })
}
