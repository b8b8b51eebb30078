//! One request: who asks, what for, what is dealt, and the answer in pieces.

use super::asked;
use super::body::{self, Abort, Body, Watch};
use super::damage::{Head, damaged, seconds, status};
use super::embeddings::{embeddings, input_tokens};
use super::faults::{Fault, Kind, Reply, Status};
use super::log::{Entry, Log};
use super::refusal::refusal;
use super::reply::Healthy;
use super::route::{Protocol, Route, What, route};
use super::script::{Dealt, Timing};
use super::server::Shared;
use super::spread::Spread;
use super::{anthropic, openai};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// No request is longer.
const LONGEST: usize = 64 << 20;

/// What a connection's requests share.
#[derive(Clone)]
pub struct Service {
    pub shared: Arc<Shared>,
    pub reset: Arc<AtomicBool>,
}

/// The headers for the log; a key is never kept.
fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let shown = match name.as_str() {
                "authorization" => "Bearer ***".to_owned(),
                "proxy-authorization" | "cookie" => "***".to_owned(),
                // Whatever a service calls its own: x-api-key, x-goog-api-key, x-auth-token.
                other if other.ends_with("api-key") || other.ends_with("-token") => "***".to_owned(),
                _ => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            };
            (name.as_str().to_owned(), shown)
        })
        .collect()
}

impl Service {
    fn authorised(&self, protocol: Protocol, headers: &HeaderMap) -> Result<(), Box<Status>> {
        let key = protocol.key(headers);
        let wrong = |message: &str| {
            // Anthropic's has words of its own.
            let other = if protocol == Protocol::Anthropic { "x-api-key header is required" } else { message };
            Err(Box::new(Status::of(401, if key.is_empty() { other } else { message }, None)))
        };
        match &self.shared.options.keys {
            _ if key.is_empty() && self.shared.options.require_key => wrong("You did not provide an API key."),
            Some(keys) if !keys.contains(key) && self.shared.options.require_key => wrong("Incorrect API key provided."),
            _ => Ok(()),
        }
    }

    fn known(&self, protocol: Protocol, model: Option<&str>) -> Result<(), Box<Status>> {
        let Some((models, model)) = self.shared.options.models.as_ref().zip(model) else { return Ok(()) };
        let message = match protocol {
            _ if models.contains(model) => return Ok(()),
            Protocol::Anthropic => format!("model: {model}"),
            _ => format!("The model `{model}` does not exist or you do not have access to it."),
        };
        Err(Box::new(Status::of(404, &message, None)))
    }

    fn models(&self) -> Vec<String> {
        match &self.shared.options.models {
            Some(models) => models.iter().cloned().collect(),
            None => self.shared.seen.lock().unwrap_or_else(|p| p.into_inner()).iter().cloned().collect(),
        }
    }

    /// The tokens that count against a limit before there is an answer, and whether those of the answer are among them.
    fn asked_tokens(&self, request: &Understood, protocol: Protocol) -> Option<(usize, bool)> {
        let model = request.model.as_deref()?;
        let asked = match request.what {
            What::Chat if protocol == Protocol::Anthropic => asked::anthropic(&request.body, model),
            What::Chat => asked::openai(&request.body, model),
            What::Embeddings => return Some((input_tokens(&request.body), true)),
            _ => return None,
        };
        let most = asked.limit.map(|limit| limit.saturating_mul(asked.choices));
        Some((asked.prompt_tokens.saturating_add(most.unwrap_or(0)), most.is_some()))
    }

    /// The answer as it should be.
    fn healthy(&self, request: &Understood, protocol: Protocol, number: u64, reply: &Reply) -> Healthy {
        let (body, model) = (&request.body, request.model.as_deref().unwrap_or(""));
        let seed = self.shared.options.seed;
        let anthropic = protocol == Protocol::Anthropic;
        match &request.what {
            What::Chat if anthropic => anthropic::answer(&asked::anthropic(body, model), request.stream, seed, number, reply),
            What::Chat => openai::answer(&asked::openai(body, model), request.stream, seed, number, reply),
            What::CountTokens => Healthy::listed(json!({ "input_tokens": asked::anthropic(body, model).prompt_tokens })),
            What::Embeddings => Healthy::listed(embeddings(body, model).unwrap_or_else(|| protocol.late_error(number))),
            What::Model(name) => Healthy::listed(described(name, protocol)),
            What::Models => {
                let models = self.models();
                let data: Vec<Value> = models.iter().map(|m| described(m, protocol)).collect();
                Healthy::listed(match protocol {
                    Protocol::Anthropic => {
                        json!({ "data": data, "has_more": false, "first_id": models.first(), "last_id": models.last() })
                    }
                    _ => json!({ "object": "list", "data": data }),
                })
            }
        }
    }
}

fn described(model: &str, protocol: Protocol) -> Value {
    match protocol {
        Protocol::Anthropic => json!({ "type": "model", "id": model, "display_name": model, "created_at": "2023-11-14T22:13:20Z" }),
        _ => json!({ "id": model, "object": "model", "created": 1_700_000_000, "owned_by": "simulator" }),
    }
}

/// A request that can be answered.
struct Understood {
    what: What,
    body: Map<String, Value>,
    model: Option<String>,
    stream: bool,
}

/// Answers one request, or gives the connection up.
pub async fn answer(service: Service, request: Request<Incoming>) -> Result<Response<Body>, Abort> {
    let shared = service.shared.clone();
    let (head, incoming) = request.into_parts();
    let collected = Limited::new(incoming, LONGEST).collect().await;
    let too_long = collected.as_ref().is_err_and(|e| e.is::<LengthLimitError>());
    let text = match collected {
        Ok(body) => body.to_bytes(),
        Err(_) if too_long => Bytes::new(),
        Err(_) => return Err(Abort),
    };
    let began = Instant::now();
    let number = shared.log.next_number();
    let parsed: Option<Map<String, Value>> = serde_json::from_slice(&text).ok();
    let field = |name: &str| parsed.as_ref().and_then(|b| b.get(name));
    let path = head.uri.path().to_owned();
    let protocol = Protocol::of(&path, &head.headers);
    let asked = route(&head.method, &path, head.uri.query(), protocol);
    let by_path = asked.as_ref().ok().and_then(|r| r.model.clone());
    let model = by_path.or_else(|| field("model").and_then(Value::as_str).map(str::to_owned));
    let stream = field("stream").and_then(Value::as_bool).unwrap_or(false);
    let refused = match &asked {
        Err(status) => Some(status.clone()),
        Ok(_) if too_long => Some(Box::new(Status::of(413, "The request is too large.", None))),
        Ok(route) => service
            .authorised(protocol, &head.headers)
            .and_then(|()| refusal(route, protocol, &head.headers, parsed.as_ref(), model.as_deref()))
            .and_then(|()| service.known(protocol, model.as_deref()))
            .err(),
    };
    let understood = match (&refused, asked) {
        (None, Ok(Route { what, .. })) => Some(Understood { what, body: parsed.unwrap_or_default(), model: model.clone(), stream }),
        _ => None,
    };
    let name = model.as_deref().unwrap_or("");
    let unlimited = shared.limits().is_empty();
    let counted = understood.as_ref().filter(|_| !unlimited).and_then(|request| service.asked_tokens(request, protocol));
    let now = shared.log.now();
    let limited = counted.and_then(|(tokens, _)| shared.limits().admit(name, tokens, now, protocol).err());
    let dealt = match (refused, limited) {
        (Some(status), _) => instead(format!("refused {}", status.code), *status),
        (None, Some(limited)) => instead(limited.name, limited.status),
        (None, None) => shared.script().deal(name, &path, now),
    };
    let Dealt { fault, latency, mut timing } = dealt;
    if let (Some(_), Some(model)) = (&understood, &model) {
        shared.seen.lock().unwrap_or_else(|p| p.into_inner()).insert(model.clone());
    }
    let entry = log(&shared.log, now, &head, path, &model, stream, text, fault.name.clone());
    let mut watch = Watch {
        log: shared.log.clone(),
        entry: entry.clone(),
        over: false,
        bodiless: head.method == Method::HEAD,
        stopping: shared.stopping.clone(),
    };
    if latency > 0.0 {
        tokio::time::sleep(seconds(latency)).await;
    }
    let mut extra = 0;
    let (mut answer, pieces) = match (&fault.kind, &understood) {
        (Kind::Status(given), _) => status(given, protocol, number),
        (Kind::RetryAfterDate { seconds: ahead }, _) => {
            let (mut head, pieces) = status(&Status::of(429, "Rate limit reached.", Some("rate_limit_exceeded")), protocol, number);
            // A date has whole seconds: the next one, so that it is never too early.
            let date = SystemTime::now() + seconds(*ahead) + Duration::from_millis(999);
            head.headers.push((RETRY_AFTER.as_str().into(), httpdate::fmt_http_date(date)));
            (head, pieces)
        }
        (Kind::Reset, _) => {
            watch.over = true;
            service.reset.store(true, Ordering::Release);
            return Err(Abort);
        }
        (Kind::Hang, _) | (_, None) => std::future::pending().await,
        (kind, Some(request)) => {
            let made = Reply::default();
            let reply = if let Kind::Ok(reply) = kind { reply } else { &made };
            let healthy = service.healthy(request, protocol, number, reply);
            if counted.is_some_and(|(_, all)| !all) {
                extra = healthy.tokens();
            }
            if let Healthy::Whole { tokens, .. } = &healthy {
                let thinking = timing.first_token + timing.of(*tokens);
                if thinking > 0.0 {
                    tokio::time::sleep(seconds(thinking)).await;
                }
            }
            damaged(healthy, kind, &mut timing, protocol, number)
        }
    };
    if counted.is_some() {
        // What a fault says of the headers comes later, and holds.
        let left = shared.limits().charge(name, extra, now, protocol);
        answer.headers = left.into_iter().chain(answer.headers).collect();
    }
    entry.answered(answer.status);
    watch.bodiless |= matches!(answer.status, 204 | 304);
    Ok(response(answer, protocol, number, began, body::body(pieces, watch, service.reset)))
}

/// A status instead of what the script would deal.
fn instead(name: String, status: Status) -> Dealt {
    Dealt { fault: Fault { name, kind: Kind::Status(status), latency: Spread::default() }, latency: 0.0, timing: Timing::none() }
}

#[allow(clippy::too_many_arguments)] // what there is to say of a request
fn log(
    log: &Log,
    time: f64,
    head: &hyper::http::request::Parts,
    path: String,
    model: &Option<String>,
    stream: bool,
    body: Bytes,
    fault: String,
) -> Arc<Entry> {
    log.push(Entry::new(time, head.method.to_string(), path, model.clone(), stream, kept(&head.headers), body, fault))
}

fn response(head: Head, protocol: Protocol, number: u64, began: Instant, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let mut set = |name: &str, value: &str| {
        // What is no header is left out: Python has refused it before.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.insert(name, value);
        }
    };
    set(CONTENT_TYPE.as_str(), &head.content_type);
    set(protocol.id_header(), &format!("req_{number}"));
    if protocol != Protocol::Anthropic {
        set("openai-processing-ms", &began.elapsed().as_millis().to_string());
    }
    if let Some(length) = head.length {
        set(CONTENT_LENGTH.as_str(), &length.to_string());
    }
    for (name, value) in &head.headers {
        set(name, value);
    }
    response
}
