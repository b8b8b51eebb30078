//! The one error of this module: what went wrong in an attempt, what class it is, and what the server said about it.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

use super::secret::Secrets;
use crate::policies::class::Class;

/// The longest excerpt of a response's body that an error holds, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// The longest message, in bytes; the body has the rest.
const MAX_MESSAGE: usize = 4000;

/// No secret is longer than this, so that one that lies across a cut is seen whole before it.
const SCRUB_MARGIN: usize = 8 * 1024;

/// Which of the public error classes an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An error object without a status that says more.
    Api,
    /// No connection, or one that broke.
    Connection,
    /// The connection or the attempt took too long.
    Timeout,
    /// Any status without a kind of its own.
    Status,
    /// 400.
    BadRequest,
    /// 401.
    Authentication,
    /// 403.
    PermissionDenied,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 422.
    UnprocessableEntity,
    /// 429.
    RateLimit,
    /// 5xx.
    InternalServer,
    /// 503.
    ServiceUnavailable,
    /// 429 or another status that says the account's quota or money is used up; 402.
    QuotaExceeded,
    /// The prompt is too long for the model.
    ContextWindowExceeded,
    /// The provider refused the content.
    ContentFilter,
    /// A success whose body is no answer.
    MalformedResponse,
    /// A stream that ended before its end.
    StreamInterrupted,
    /// What the user set up cannot work.
    Configuration,
    /// A guardrail refused the answer.
    OutputRefused,
    /// The answer is not of the shape that it has to be.
    OutputShape,
}

/// Kind, name of its public class, and the failure class where nothing more is known. In the order of [`ErrorKind`].
pub const KINDS: [(ErrorKind, &str, Class); 21] = [
    (ErrorKind::Api, "APIError", Class::Transient),
    (ErrorKind::Connection, "APIConnectionError", Class::Transient),
    (ErrorKind::Timeout, "APITimeoutError", Class::Transient),
    (ErrorKind::Status, "APIStatusError", Class::Permanent),
    (ErrorKind::BadRequest, "BadRequestError", Class::Permanent),
    (ErrorKind::Authentication, "AuthenticationError", Class::Auth),
    (ErrorKind::PermissionDenied, "PermissionDeniedError", Class::Auth),
    (ErrorKind::NotFound, "NotFoundError", Class::NotFound),
    (ErrorKind::Conflict, "ConflictError", Class::Transient),
    (ErrorKind::UnprocessableEntity, "UnprocessableEntityError", Class::Permanent),
    (ErrorKind::RateLimit, "RateLimitError", Class::RateLimited),
    (ErrorKind::InternalServer, "InternalServerError", Class::Transient),
    (ErrorKind::ServiceUnavailable, "ServiceUnavailable", Class::Transient),
    (ErrorKind::QuotaExceeded, "QuotaExceededError", Class::Quota),
    (ErrorKind::ContextWindowExceeded, "ContextWindowExceededError", Class::ContextWindow),
    (ErrorKind::ContentFilter, "ContentFilterError", Class::ContentFilter),
    (ErrorKind::MalformedResponse, "MalformedResponseError", Class::Malformed),
    (ErrorKind::StreamInterrupted, "StreamInterruptedError", Class::Malformed),
    (ErrorKind::Configuration, "ConfigurationError", Class::Permanent),
    (ErrorKind::OutputRefused, "OutputRefusedError", Class::ContentFilter),
    (ErrorKind::OutputShape, "OutputShapeError", Class::Malformed),
];

impl ErrorKind {
    /// The name of the public class, as Python has it.
    pub fn class_name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The failure class where nothing more is known.
    pub fn class(self) -> Class {
        KINDS[self as usize].2
    }
}

/// What an answer that was refused said, and what its maker is to be told of it.
#[derive(Clone)]
pub struct Again {
    /// The text.
    pub said: String,
    /// Why it does not do.
    pub told: String,
}

impl fmt::Debug for Again {
    /// Without a word of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

/// What the user's own code raised, for whoever knows its type.
pub type Raised = Arc<dyn Any + Send + Sync>;

/// Why an attempt failed. Its fields are those of [`Details`]; boxed, since results carry it up through many calls.
#[derive(Clone)]
pub struct ApiError(Box<Details>);

/// What an [`ApiError`] knows. No field ever holds a key or a request header.
#[derive(Clone, Debug)]
pub struct Details {
    /// Which public error class it is.
    pub kind: ErrorKind,
    /// What went wrong, where, and what to do; with a status it begins with `Error code: <status> - `.
    pub message: String,
    /// The HTTP status, or the one that an error object inside a success named.
    pub status: Option<u16>,
    /// The provider's code, such as `rate_limit_exceeded`.
    pub code: Option<String>,
    /// Which parameter the provider objects to.
    pub param: Option<String>,
    /// The provider's type, such as `invalid_request_error`.
    pub error_type: Option<String>,
    /// The provider's id for the request, to be named to its support.
    pub request_id: Option<String>,
    /// The response's headers, names in lower case, without `set-cookie`.
    pub headers: Vec<(String, String)>,
    /// The response's body, at most [`MAX_BODY`] bytes of it.
    pub body: Option<String>,
    /// How long the server asks to wait. Nothing caps it here.
    pub retry_after: Option<Duration>,
    /// The server's own word on whether to retry (`x-should-retry`).
    pub should_retry: Option<bool>,
    /// The text that a stream had given before it failed.
    pub partial: Option<String>,
    /// What broke a stream after its first content.
    pub cause: Option<ApiError>,
    /// What the user's own code said.
    pub raised: Option<Raised>,
    /// The next attempt is to be told of this one.
    pub again: Option<Again>,
    class: Class,
}

impl ApiError {
    /// An error of that kind, of the kind's own class, about which only the message is known.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError(Box::new(Details {
            kind,
            message: message.into(),
            status: None,
            code: None,
            param: None,
            error_type: None,
            request_id: None,
            headers: Vec::new(),
            body: None,
            retry_after: None,
            should_retry: None,
            partial: None,
            cause: None,
            raised: None,
            again: None,
            class: kind.class(),
        }))
    }

    /// The same error in another failure class.
    pub fn with_class(mut self, class: Class) -> ApiError {
        self.class = class;
        self
    }

    /// The same failure as it is once content was handed out: the answer is broken off, and nothing restarts in silence.
    /// Policies judge it as what broke it.
    pub fn interrupted(mut self, partial: &str) -> ApiError {
        if self.is_refusal() {
            self.partial = Some(partial.to_owned());
            return self;
        }
        if self.kind == ErrorKind::StreamInterrupted {
            if let Some(cause) = self.cause.take() {
                return cause.interrupted(partial);
            }
            self.partial = Some(partial.to_owned());
            return self;
        }
        let message = format!("the stream broke off after {} characters: {}", partial.chars().count(), self.message);
        let mut error = ApiError::new(ErrorKind::StreamInterrupted, message);
        error.status = self.status;
        error.code.clone_from(&self.code);
        error.param.clone_from(&self.param);
        error.error_type.clone_from(&self.error_type);
        error.request_id.clone_from(&self.request_id);
        error.headers.clone_from(&self.headers);
        error.body.clone_from(&self.body);
        (error.retry_after, error.should_retry, error.class) = (self.retry_after, self.should_retry, self.class);
        error.partial = Some(partial.to_owned());
        error.cause = Some(self);
        error
    }

    /// Whether a guardrail refused the answer: its maker has not failed.
    pub fn is_refusal(&self) -> bool {
        matches!(self.kind, ErrorKind::OutputRefused | ErrorKind::OutputShape)
    }

    /// The kinds that it is: its own, and that of what broke a stream.
    pub fn kinds(&self) -> impl Iterator<Item = ErrorKind> {
        std::iter::once(self.kind).chain(self.cause.as_ref().map(|cause| cause.kind))
    }

    /// What kind of failure it is for retry, fallback and breaker.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Takes the response's headers: the request id, the wait asked for, the word on retrying, and all to look at.
    pub(super) fn take_headers(&mut self, headers: &HeaderMap) {
        self.request_id = request_id(headers);
        self.retry_after = super::retry_after::from_headers(headers, std::time::SystemTime::now());
        self.should_retry = match headers.get("x-should-retry").map(|value| value.as_bytes()) {
            Some(b"true") => Some(true),
            Some(b"false") => Some(false),
            _ => None,
        };
        self.headers = shown_headers(headers, &Secrets::default());
    }

    /// Takes the response's body, some more of it than an error may hold: [`ApiError::seal`] cuts the rest, after the
    /// secrets, so that it can cut no secret in two.
    pub(super) fn take_body(&mut self, body: &[u8]) {
        let start = &body[..body.len().min(MAX_BODY + SCRUB_MARGIN)];
        self.body = (!body.is_empty()).then(|| String::from_utf8_lossy(start).into_owned());
    }

    /// Cuts every secret out, then cuts the texts to size: the last step before an error leaves this module.
    pub(super) fn seal(mut self, secrets: &Secrets) -> ApiError {
        let details = &mut *self.0;
        let optional = [&mut details.code, &mut details.param, &mut details.error_type, &mut details.request_id, &mut details.body];
        for text in optional.into_iter().flatten().chain([&mut details.message]).chain(details.headers.iter_mut().map(|(_, v)| v)) {
            if let std::borrow::Cow::Owned(clean) = secrets.scrub(text) {
                *text = clean;
            }
        }
        cut(&mut details.message, MAX_MESSAGE);
        if let Some(body) = &mut details.body {
            cut(body, MAX_BODY);
        }
        self
    }
}

/// A response's headers as texts, without `set-cookie`.
pub(super) fn shown_headers(headers: &HeaderMap, secrets: &Secrets) -> Vec<(String, String)> {
    let shown = |value: &HeaderValue| secrets.scrub(&String::from_utf8_lossy(value.as_bytes())).into_owned();
    let kept = headers.iter().filter(|(name, _)| *name != SET_COOKIE);
    kept.map(|(name, value)| (name.as_str().to_owned(), shown(value))).collect()
}

/// The provider's id for a request.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    static NAMES: [HeaderName; 2] = [HeaderName::from_static("x-request-id"), HeaderName::from_static("request-id")];
    NAMES.iter().find_map(|name| Some(headers.get(name)?.to_str().ok()?.to_owned()))
}

/// Cuts a text to at most so many bytes, between characters.
pub(super) fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// The beginning of something that came instead of an answer: without secrets, on one line, no control characters.
pub(super) fn excerpt(bytes: &[u8], secrets: &Secrets) -> String {
    const CHARS: usize = 120;
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * CHARS + SCRUB_MARGIN)]);
    let start = secrets.scrub(&start);
    let mut shown = String::new();
    for (count, character) in start.trim().chars().enumerate() {
        if count == CHARS {
            shown.push('…');
            break;
        }
        match character {
            '\'' | '"' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

impl Deref for ApiError {
    type Target = Details;
    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for ApiError {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::super::secret::ApiKey;
    use super::*;

    #[test]
    fn every_kind_has_its_own_row_and_name() {
        for (i, (kind, name, class)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, i);
            assert_eq!(kind.class_name(), *name);
            assert_eq!(ApiError::new(*kind, "x").class(), *class);
            assert_eq!(KINDS.iter().filter(|row| row.1 == *name).count(), 1);
        }
    }

    #[test]
    fn sealing_cuts_secrets_first_and_length_after() {
        let mut secrets = Secrets::default();
        secrets.add(ApiKey::new("sk-very-secret".into()).unwrap());
        let mut error = ApiError::new(ErrorKind::Authentication, "bad key sk-very-secret");
        error.code = Some("sk-very-secret".into());
        error.headers = vec![("x-echo".into(), "Bearer sk-very-secret".into())];
        // The secret lies across the place where the body is cut.
        error.body = Some(format!("{}sk-very-secret", "é".repeat(MAX_BODY / 2 - 4)));
        let error = error.seal(&secrets);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("sk-very"), "{error}");
        assert!(error.body.as_ref().unwrap().len() <= MAX_BODY);
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        let mut secrets = Secrets::default();
        assert_eq!(excerpt(b"  <html>\n\x1b[2J it's \"x\" \xff", &secrets), "<html>\\n\\u{1b}[2J it's \"x\" \u{fffd}");
        assert_eq!(excerpt("字".repeat(500).as_bytes(), &secrets).chars().count(), 121);
        assert_eq!(excerpt(b"", &secrets), "");
        // Cut after 120 characters, a secret would show its beginning.
        secrets.add(ApiKey::new("sk-very-secret".into()).unwrap());
        let shown = excerpt(format!("{}sk-very-secret", "x".repeat(110)).as_bytes(), &secrets);
        assert!(!shown.contains("sk-"), "{shown}");
    }
}
