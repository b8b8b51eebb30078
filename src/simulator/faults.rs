//! What a rule deals out instead of, or on the way to, a healthy answer.

use super::spread::Spread;
use serde::Deserialize;
use serde_json::Value;

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
    /// A healthy answer, with what is said of it.
    Ok(Reply),
    /// A status; without a body, with the API's error object for it.
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

impl Kind {
    /// Whether the model says something, however little of it arrives.
    pub fn is_answered(&self) -> bool {
        !matches!(self, Kind::Status(_) | Kind::RetryAfterDate { .. } | Kind::Hang | Kind::Reset)
    }
}

/// What is said of a healthy answer; the rest of it is made from the request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Reply {
    pub text: Option<String>,
    /// Names and arguments.
    pub tool_calls: Vec<(String, Value)>,
    pub reasoning: Option<String>,
    pub finish_reason: Option<String>,
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
    pub error_type: Option<String>,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(default)]
    pub content_type: Option<String>,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

impl Status {
    /// The API's answer with this status.
    pub fn of(code: u16, message: &str, error_code: Option<&str>) -> Status {
        let (message, error_code) = (Some(message.to_owned()), error_code.map(str::to_owned));
        Status { code, message, error_code, error_type: None, body: None, content_type: None, headers: Vec::new() }
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
    /// Before anything is answered.
    #[serde(default)]
    pub latency: Spread,
}

impl Fault {
    /// A healthy answer.
    pub fn ok() -> Fault {
        Fault { name: "ok".into(), kind: Kind::Ok(Reply::default()), latency: Spread::default() }
    }
}
