//! What a status, a provider's code and a provider's words mean: the one place that knows.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::error::{ApiError, ErrorKind, excerpt};
use super::secret::Secrets;
use crate::policies::class::Class;

/// Codes and types that say the account has nothing left: waiting does not help.
const QUOTA: [&str; 5] =
    ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance", "exceeded_current_quota_error"];
const CONTEXT: [&str; 3] = ["context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"];
const FILTER: [&str; 3] = ["content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"];

/// What servers without a code say when the prompt is too long (vLLM, llama.cpp, Anthropic, gateways), in lower case.
const CONTEXT_WORDS: [&str; 8] = [
    "maximum context length",
    "context window",
    "context length exceeded",
    "exceeds the available context size",
    "longer than the model's context length",
    "maximum context limit",
    "prompt is too long",
    "input is too long for requested model",
];

/// What stands for a status in an error object that comes without one.
const STATUS_WORDS: [(u16, &[&str]); 8] = [
    (400, &["invalid_request_error", "BadRequestError", "bad_request"]),
    (401, &["authentication_error", "invalid_api_key", "AuthenticationError", "unauthorized"]),
    (403, &["permission_error", "permission_denied", "PermissionDeniedError"]),
    (404, &["not_found_error", "model_not_found", "NotFoundError", "not_found"]),
    (408, &["timeout", "timeout_error", "request_timeout"]),
    (429, &["rate_limit_exceeded", "rate_limit_error", "RateLimitError", "too_many_requests"]),
    (500, &["server_error", "internal_server_error", "internal_error", "InternalServerError", "api_error"]),
    (503, &["overloaded_error", "service_unavailable", "engine_overloaded", "ServiceUnavailableError"]),
];

/// What a server's error says about itself.
#[derive(Default)]
struct Told {
    message: Option<String>,
    code: Option<String>,
    param: Option<String>,
    error_type: Option<String>,
    inner_code: Option<String>,
}

impl Told {
    /// Reads the shapes in use: `{"error": {…}}`, `{"error": "…"}`, the bare object, `{"detail": …}`, a list of one.
    fn from_body(body: &Value) -> Told {
        match body {
            Value::Array(list) => list.first().map(Told::from_body).unwrap_or_default(),
            Value::Object(object) => match object.get("error") {
                Some(error @ Value::Object(_)) => Told::from_object(error),
                Some(Value::String(text)) => Told { message: Some(text.clone()), ..Told::from_object(body) },
                _ => Told::from_object(body),
            },
            Value::String(text) => Told { message: Some(text.clone()), ..Told::default() },
            _ => Told::default(),
        }
    }

    fn from_object(object: &Value) -> Told {
        let message = ["message", "detail", "error_description", "msg"].iter().find_map(|key| match &object[*key] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        });
        Told {
            message,
            code: word(&object["code"]),
            param: word(&object["param"]),
            error_type: word(&object["type"]),
            inner_code: word(&object["innererror"]["code"]),
        }
    }

    fn names_one_of(&self, words: &[&str]) -> bool {
        [&self.code, &self.error_type, &self.inner_code].into_iter().flatten().any(|told| words.contains(&told.as_str()))
    }

    fn says(&self, words: &[&str]) -> bool {
        let message = self.message.as_deref().unwrap_or_default().to_ascii_lowercase();
        words.iter().any(|word| message.contains(word))
    }

    /// The status that the code is, or stands for.
    fn numeric_status(&self) -> Option<u16> {
        self.code.as_deref()?.parse().ok().filter(|status| (400..600).contains(status))
    }

    fn implied_status(&self) -> Option<u16> {
        STATUS_WORDS.iter().find(|(_, words)| self.names_one_of(words)).map(|(status, _)| *status)
    }
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Kind and class, by what the code says first and by the status after.
fn judge(status: Option<u16>, told: &Told) -> (ErrorKind, Class) {
    let own = |kind: ErrorKind| (kind, kind.class());
    let refused = status.is_none_or(|status| (400..500).contains(&status));
    if refused && (told.names_one_of(&QUOTA) || status == Some(402)) {
        return own(ErrorKind::QuotaExceeded);
    }
    let of_request = matches!(status, None | Some(400 | 413 | 422));
    if told.names_one_of(&CONTEXT) || (of_request && told.says(&CONTEXT_WORDS)) {
        return own(ErrorKind::ContextWindowExceeded);
    }
    if refused && told.names_one_of(&FILTER) {
        return own(ErrorKind::ContentFilter);
    }
    let (kind, class) = match status {
        None => own(ErrorKind::Api),
        Some(400) => own(ErrorKind::BadRequest),
        Some(401) => own(ErrorKind::Authentication),
        Some(403) => own(ErrorKind::PermissionDenied),
        Some(404) => own(ErrorKind::NotFound),
        Some(408) => (ErrorKind::Status, Class::Transient),
        Some(409) => own(ErrorKind::Conflict),
        Some(422) => own(ErrorKind::UnprocessableEntity),
        // One request over the limit per minute by itself: no wait makes it smaller, another model's limit may be larger.
        Some(429) if told.says(&["request too large"]) => (ErrorKind::RateLimit, Class::Quota),
        Some(429) => own(ErrorKind::RateLimit),
        Some(503) => own(ErrorKind::ServiceUnavailable),
        Some(500..) => own(ErrorKind::InternalServer),
        Some(_) => own(ErrorKind::Status),
    };
    // "No such model for you" is said with 400 and 403 too: another model may do.
    if refused && told.names_one_of(&["model_not_found"]) { (kind, Class::NotFound) } else { (kind, class) }
}

/// The error for a response whose status is no success.
pub fn from_status(status: u16, headers: &HeaderMap, body: &[u8]) -> ApiError {
    status_error(status, headers, body, &Secrets::default())
}

/// The same where the server may have repeated a secret.
pub(super) fn status_error(status: u16, headers: &HeaderMap, body: &[u8], secrets: &Secrets) -> ApiError {
    let json = serde_json::from_slice::<Value>(body).ok();
    let told = json.as_ref().map(Told::from_body).unwrap_or_default();
    let (kind, class) = judge(Some(status), &told);
    let what = match &told.message {
        Some(message) => message.trim().to_owned(),
        None if body.iter().all(u8::is_ascii_whitespace) => reason(status),
        None => match title(body) {
            Some(title) => format!("an HTML page: {}", excerpt(title.as_bytes(), secrets)),
            None => excerpt(body, secrets),
        },
    };
    let mut error = ApiError::new(kind, format!("Error code: {status} - {what}")).with_class(class);
    error.status = Some(status);
    fill(&mut error, told);
    error.take_headers(headers);
    error.take_body(body);
    error.seal(secrets)
}

/// The error for an error object that came inside a success: the value of `"error"`, or the whole of an error event.
pub(super) fn from_object(object: &Value, headers: &HeaderMap, body: &[u8], secrets: &Secrets) -> ApiError {
    let told = Told::from_body(object);
    let named = told.numeric_status();
    let (kind, class) = judge(named.or_else(|| told.implied_status()), &told);
    let what = match &told.message {
        Some(message) => message.trim().to_owned(),
        None => excerpt(object.to_string().as_bytes(), secrets),
    };
    let message = match named {
        Some(status) => format!("Error code: {status} - {what}"),
        None => format!("the server sent an error inside a successful reply: {what}"),
    };
    let mut error = ApiError::new(kind, message).with_class(class);
    error.status = named;
    fill(&mut error, told);
    error.take_headers(headers);
    error.take_body(body);
    error.seal(secrets)
}

fn fill(error: &mut ApiError, told: Told) {
    error.code = told.code;
    error.param = told.param;
    error.error_type = told.error_type;
}

fn reason(status: u16) -> String {
    let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.unwrap_or("no body").to_owned()
}

/// The title of an HTML page: what a proxy says in the place of the service.
fn title(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]);
    let lower = text.to_ascii_lowercase();
    let start = lower.find("<title>")? + "<title>".len();
    let end = start + lower[start..].find("</title>")?;
    Some(text[start..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn status(status: u16, body: &str) -> ApiError {
        from_status(status, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn each_status_has_its_kind_and_class() {
        use Class::*;
        for (code, name, class) in [
            (301, "APIStatusError", Permanent),
            (400, "BadRequestError", Permanent),
            (401, "AuthenticationError", Auth),
            (402, "QuotaExceededError", Quota),
            (403, "PermissionDeniedError", Auth),
            (404, "NotFoundError", NotFound),
            (405, "APIStatusError", Permanent),
            (408, "APIStatusError", Transient),
            (409, "ConflictError", Transient),
            (413, "APIStatusError", Permanent),
            (422, "UnprocessableEntityError", Permanent),
            (429, "RateLimitError", RateLimited),
            (500, "InternalServerError", Transient),
            (502, "InternalServerError", Transient),
            (503, "ServiceUnavailable", Transient),
            (529, "InternalServerError", Transient),
        ] {
            let error = status(code, r#"{"error":{"message":"no luck","type":"t","param":"p","code":"c"}}"#);
            assert_eq!((error.kind.class_name(), error.class(), error.status), (name, class, Some(code)));
            assert_eq!(error.message, format!("Error code: {code} - no luck"));
            assert_eq!((error.code.as_deref(), error.param.as_deref(), error.error_type.as_deref()), (Some("c"), Some("p"), Some("t")));
        }
    }

    #[test]
    fn codes_say_more_than_statuses() {
        for (code, body, kind, class) in [
            (429, json!({"code": "insufficient_quota"}), ErrorKind::QuotaExceeded, Class::Quota),
            (429, json!({"type": "insufficient_quota"}), ErrorKind::QuotaExceeded, Class::Quota),
            (429, json!({"code": "billing_hard_limit_reached"}), ErrorKind::QuotaExceeded, Class::Quota),
            (403, json!({"code": "insufficient_quota"}), ErrorKind::QuotaExceeded, Class::Quota),
            (429, json!({"code": "rate_limit_exceeded"}), ErrorKind::RateLimit, Class::RateLimited),
            (
                429,
                json!({"code": "rate_limit_exceeded", "message": "Request too large for gpt-4 on tokens per min"}),
                ErrorKind::RateLimit,
                Class::Quota,
            ),
            (400, json!({"code": "context_length_exceeded"}), ErrorKind::ContextWindowExceeded, Class::ContextWindow),
            (
                400,
                json!({"code": 400, "message": "This model's maximum context length is 4096 tokens"}),
                ErrorKind::ContextWindowExceeded,
                Class::ContextWindow,
            ),
            (413, json!({"message": "exceeds the Context Window"}), ErrorKind::ContextWindowExceeded, Class::ContextWindow),
            (500, json!({"message": "context window worker died"}), ErrorKind::InternalServer, Class::Transient),
            (400, json!({"code": "content_filter"}), ErrorKind::ContentFilter, Class::ContentFilter),
            (400, json!({"code": "content_policy_violation"}), ErrorKind::ContentFilter, Class::ContentFilter),
            (400, json!({"innererror": {"code": "ResponsibleAIPolicyViolation"}}), ErrorKind::ContentFilter, Class::ContentFilter),
            (403, json!({"code": "model_not_found"}), ErrorKind::PermissionDenied, Class::NotFound),
            (500, json!({"code": "insufficient_quota"}), ErrorKind::InternalServer, Class::Transient),
        ] {
            let error = status(code, &json!({"error": body}).to_string());
            assert_eq!((error.kind, error.class()), (kind, class), "{code} {body}");
        }
    }

    #[test]
    fn every_shape_of_error_body_gives_its_message() {
        for (body, message) in [
            (r#"{"error":{"message":"m"}}"#, "m"),
            (r#"{"error":"m"}"#, "m"),
            (r#"{"object":"error","message":"m","code":500}"#, "m"),
            (r#"{"detail":"m"}"#, "m"),
            (r#"{"detail":[{"loc":["body"]}]}"#, r#"[{"loc":["body"]}]"#),
            (r#"[{"error":{"message":"m","code":500}}]"#, "m"),
            (r#""m""#, "m"),
            ("upstream\nfell over", "upstream\\nfell over"),
            ("<html><head><TITLE>Bad\nGateway</TITLE>", "an HTML page: Bad\\nGateway"),
            ("", "Internal Server Error"),
            (" \n", "Internal Server Error"),
            ("{}", "{}"),
        ] {
            assert_eq!(status(500, body).message, format!("Error code: 500 - {message}"));
        }
        assert!(status(500, &format!(r#"{{"error":"{}"}}"#, "é".repeat(9000))).message.len() < 5000);
    }

    #[test]
    fn an_error_inside_a_success_is_mapped_by_its_code() {
        for (object, kind, status) in [
            (json!({"code": 400, "message": "m"}), ErrorKind::BadRequest, Some(400)),
            (json!({"code": "429", "message": "m"}), ErrorKind::RateLimit, Some(429)),
            (json!({"code": 529, "message": "m"}), ErrorKind::InternalServer, Some(529)),
            (json!({"code": "rate_limit_exceeded", "message": "m"}), ErrorKind::RateLimit, None),
            (json!({"type": "server_error", "message": "m"}), ErrorKind::InternalServer, None),
            (json!({"code": "insufficient_quota", "type": "insufficient_quota", "message": "m"}), ErrorKind::QuotaExceeded, None),
            (json!({"code": null, "message": "m"}), ErrorKind::Api, None),
            (json!("m"), ErrorKind::Api, None),
            (json!({"code": 7, "message": "m"}), ErrorKind::Api, None),
        ] {
            let error = from_object(&object, &HeaderMap::new(), b"", &Secrets::default());
            assert_eq!((error.kind, error.status), (kind, status), "{object}");
            assert!(error.message.ends_with('m'), "{error}");
            assert_eq!(error.message.starts_with("Error code: "), status.is_some(), "{error}");
        }
    }

    #[test]
    fn headers_tell_the_request_id_the_wait_and_whether_to_retry() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-request-id", "req_1"), ("retry-after", "3"), ("x-should-retry", "false"), ("set-cookie", "session=1")] {
            headers.insert(name, value.parse().unwrap());
        }
        let error = from_status(429, &headers, b"");
        assert_eq!(error.request_id.as_deref(), Some("req_1"));
        assert_eq!(error.retry_after, Some(std::time::Duration::from_secs(3)));
        assert_eq!(error.should_retry, Some(false));
        assert!(error.headers.contains(&("retry-after".into(), "3".into())));
        assert!(!format!("{error:?}").contains("session=1"));
    }

    proptest! {
        #[test]
        fn any_body_gives_an_error_of_that_status(status in 300u16..600, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let error = from_status(status, &HeaderMap::new(), &body);
            prop_assert_eq!(error.status, Some(status));
            let prefix = format!("Error code: {status} - ");
            prop_assert!(error.message.starts_with(&prefix));
        }
    }
}
