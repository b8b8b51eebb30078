//! What a rule deals out instead of, or on the way to, a healthy answer.

use serde::Deserialize;
use serde_json::{Value, json};

/// How a body or stream is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// It just ends: a stream without `finish_reason` and `[DONE]`, a body before its announced length.
    Clean,
    /// The connection is reset.
    Reset,
    /// An error object takes the place of the rest.
    Error,
    /// In the midst of an event's JSON.
    Json,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// A healthy answer, with this text if there is one.
    Ok { text: Option<String> },
    /// A status; without a body, with OpenAI's for it.
    Status(Status),
    /// 429 with `Retry-After` as an HTTP date so many seconds ahead.
    RetryAfterDate { seconds: f64 },
    /// No answer, ever.
    Hang,
    /// A connection reset before any byte.
    Reset,
    /// 200 with JSON that breaks off.
    BrokenJson,
    /// 200 with no body.
    EmptyBody,
    /// 200 with `choices: []`.
    EmptyChoices,
    /// A stream cut after so many pieces, or a body cut in the middle.
    Cut { after: usize, how: Cut },
    /// A stream with `finish_reason` and without `[DONE]`.
    NoDone,
    /// A stream with `[DONE]` and without `finish_reason`.
    DoneOnly,
    /// Bytes come so many seconds apart, in so many pieces.
    Drip { interval: f64, pieces: Option<usize> },
    /// A stream that falls silent after so many pieces; comments so many seconds apart keep the connection alive.
    Stall { after: usize, keepalive: Option<f64> },
}

/// A status with what goes with it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Status {
    pub code: u16,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub error_code: Option<String>,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(default)]
    pub content_type: Option<String>,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

impl Status {
    /// OpenAI's answer with this status.
    pub fn of(code: u16, message: &str, error_code: Option<&str>) -> Status {
        let (message, error_code) = (Some(message.to_owned()), error_code.map(str::to_owned));
        Status { code, message, error_code, body: None, content_type: None, headers: Vec::new() }
    }

    /// The body as it is sent.
    pub fn text(&self) -> String {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let (text, kind, usual): (&str, &str, Option<&str>) = match self.code {
            400 => ("The request is not valid.", "invalid_request_error", None),
            401 => ("Incorrect API key provided.", "invalid_request_error", Some("invalid_api_key")),
            402 => ("Payment is required.", "billing_error", Some("billing_hard_limit_reached")),
            403 => ("You are not allowed to use this model.", "invalid_request_error", None),
            404 => ("The model does not exist or you do not have access to it.", "invalid_request_error", Some("model_not_found")),
            408 => ("The request timed out.", "server_error", None),
            409 => ("The request conflicts with another.", "invalid_request_error", None),
            422 => ("The request cannot be processed.", "invalid_request_error", None),
            429 => ("Rate limit reached.", "requests", Some("rate_limit_exceeded")),
            503 => ("The server is overloaded.", "server_error", None),
            code if code >= 500 => ("The server had an error.", "server_error", None),
            _ => ("The request failed.", "invalid_request_error", None),
        };
        let message = self.message.as_deref().unwrap_or(text);
        let code = self.error_code.as_deref().or(usual);
        json!({ "error": { "message": message, "type": kind, "param": null, "code": code } }).to_string()
    }
}

/// A kind of trouble and the time before it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Fault {
    /// Its name in the log.
    pub name: String,
    /// What happens.
    #[serde(flatten)]
    pub kind: Kind,
    /// Seconds before anything is answered: at least, at most.
    #[serde(default)]
    pub latency: (f64, f64),
}

impl Fault {
    /// A healthy answer.
    pub fn ok() -> Fault {
        Fault { name: "ok".into(), kind: Kind::Ok { text: None }, latency: (0.0, 0.0) }
    }
}

/// The body of a success that holds an error.
pub fn overloaded() -> Value {
    json!({ "error": { "message": "The server is overloaded.", "type": "server_error", "param": null, "code": null } })
}
