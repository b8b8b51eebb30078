//! One request: who asks, what for, what is dealt, and the answer in pieces.

use super::answer::{Asked, Events};
use super::body::{self, Abort, Body, Piece, Watch};
use super::faults::{Cut, Fault, Kind, Status, overloaded};
use super::log::{Entry, Log};
use super::server::Shared;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";
/// No request is longer.
const LONGEST: usize = 64 << 20;
/// What was sent before a reset is given so long to arrive: the reset would overtake it.
const BEFORE_RESET: Duration = Duration::from_millis(30);
const BEFORE_END: Duration = Duration::from_millis(1);
/// Pieces of a plain body that drips.
const DRIPS: usize = 10;

/// What a connection's requests share.
#[derive(Clone)]
pub struct Service {
    pub shared: Arc<Shared>,
    pub reset: Arc<AtomicBool>,
}

/// What is asked for.
enum Route {
    Chat,
    Embeddings,
    Models,
    Model(String),
}

fn route(method: &Method, path: &str) -> Result<Route, Box<Status>> {
    let wrong = |allowed: &str| {
        let message = format!("{method} is not allowed here, only {allowed}.");
        Box::new(Status { headers: vec![("allow".into(), allowed.into())], ..Status::of(405, &message, None) })
    };
    let (route, allowed) = match path.strip_prefix("/v1/") {
        Some("chat/completions") => (Route::Chat, Method::POST),
        Some("embeddings") => (Route::Embeddings, Method::POST),
        Some("models") => (Route::Models, Method::GET),
        Some(rest) if rest.starts_with("models/") => (Route::Model(rest["models/".len()..].to_owned()), Method::GET),
        _ => {
            let mut status = Status::of(404, &format!("Invalid URL ({method} {path})"), Some("unknown_url"));
            if !path.starts_with("/v1/") {
                status.message = Some(format!("Invalid URL ({method} {path}): the base URL ends with /v1"));
            }
            return Err(Box::new(status));
        }
    };
    if *method == allowed { Ok(route) } else { Err(wrong(allowed.as_str())) }
}

/// The headers for the log; a key is never kept.
fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let shown = match name.as_str() {
                "authorization" => "Bearer ***".to_owned(),
                "api-key" | "x-api-key" | "proxy-authorization" | "cookie" => "***".to_owned(),
                _ => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            };
            (name.as_str().to_owned(), shown)
        })
        .collect()
}

impl Service {
    fn authorised(&self, headers: &HeaderMap) -> Result<(), Box<Status>> {
        let given = headers.get("authorization").and_then(|v| v.to_str().ok()).and_then(|v| v.split_once(' '));
        let key = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, key)| key.trim());
        if key.is_empty() {
            return Err(Box::new(Status::of(401, "You did not provide an API key.", None)));
        }
        match &self.shared.options.keys {
            Some(keys) if !keys.contains(key) => Err(Box::new(Status::of(401, "Incorrect API key provided.", None))),
            _ => Ok(()),
        }
    }

    fn known(&self, model: &str) -> Result<(), Box<Status>> {
        match &self.shared.options.models {
            Some(models) if !models.contains(model) => {
                Err(Box::new(Status::of(404, &format!("The model `{model}` does not exist or you do not have access to it."), None)))
            }
            _ => Ok(()),
        }
    }

    /// What is wrong with a request, if anything is.
    fn refusal(&self, route: &Route, body: Option<&Map<String, Value>>, model: Option<&str>) -> Result<(), Box<Status>> {
        let needs = match route {
            Route::Models => return Ok(()),
            Route::Model(name) => return self.known(name),
            Route::Chat => "messages",
            Route::Embeddings => "input",
        };
        let wrong = |message: String| Box::new(Status::of(400, &message, None));
        let body = body.ok_or_else(|| wrong("We could not parse the JSON body of your request.".into()))?;
        let model = model.ok_or_else(|| wrong("you must provide a model parameter".into()))?;
        let given = body.get(needs).ok_or_else(|| wrong(format!("Missing required parameter: '{needs}'.")))?;
        match route {
            Route::Chat if !given.as_array().is_some_and(|m| !m.is_empty() && m.iter().all(Value::is_object)) => {
                return Err(wrong("Invalid value for 'messages': expected an array of objects with at least one.".into()));
            }
            Route::Embeddings if !embeddable(given) => {
                return Err(wrong("'$.input' is invalid. Please check the API reference.".into()));
            }
            _ => {}
        }
        self.known(model)
    }

    fn models(&self) -> Vec<String> {
        match &self.shared.options.models {
            Some(models) => models.iter().cloned().collect(),
            None => self.shared.seen.lock().unwrap_or_else(|p| p.into_inner()).iter().cloned().collect(),
        }
    }
}

/// A text, texts, tokens, or lists of tokens.
fn embeddable(input: &Value) -> bool {
    let tokens = |value: &Value| value.as_array().is_some_and(|t| !t.is_empty() && t.iter().all(Value::is_u64));
    let items = || input.as_array().filter(|i| !i.is_empty() && i.len() <= 2048);
    input.is_string() || tokens(input) || items().is_some_and(|i| i.iter().all(Value::is_string) || i.iter().all(tokens))
}

fn described(model: &str) -> Value {
    json!({ "id": model, "object": "model", "created": 1_700_000_000, "owned_by": "simulator" })
}

/// The head of an answer.
struct Head {
    status: u16,
    content_type: String,
    /// Said to the client, whatever is sent.
    length: Option<usize>,
    headers: Vec<(String, String)>,
}

impl Head {
    fn json(length: usize) -> Head {
        Head { status: 200, content_type: JSON.into(), length: Some(length), headers: Vec::new() }
    }

    fn events() -> Head {
        let headers = vec![("cache-control".into(), "no-cache".into())];
        Head { status: 200, content_type: EVENTS.into(), length: None, headers }
    }
}

fn status(status: &Status) -> (Head, Vec<Piece>) {
    let text = status.text();
    let content_type = status.content_type.clone().unwrap_or_else(|| JSON.into());
    let head = Head { status: status.code, content_type, length: Some(text.len()), headers: status.headers.clone() };
    (head, vec![text.into()])
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

const DONE: &str = "data: [DONE]\n\n";

/// The stream as it should be, an event each.
fn healthy(events: &Events) -> Vec<String> {
    let usage = events.usage.iter();
    [&events.opening].into_iter().chain(&events.content).chain([&events.finish]).chain(usage).map(event).chain([DONE.into()]).collect()
}

/// The opening and `after` pieces of content.
fn beginning(events: &Events, after: usize) -> Vec<Piece> {
    [&events.opening].into_iter().chain(events.content.iter().take(after)).map(|e| event(e).into()).collect()
}

fn spread(texts: Vec<String>, interval: Duration) -> Vec<Piece> {
    texts.into_iter().flat_map(|text| [Piece::Wait(interval), text.into()]).collect()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 1e9))
}

/// A text in so many parts, cut between characters.
fn parts(text: &str, count: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(chars.len().div_ceil(count.max(1)).max(1)).map(|part| part.iter().collect()).collect()
}

/// The first half, cut between characters.
fn half(text: &str) -> String {
    text.chars().take(text.chars().count() / 2).collect()
}

fn breaking(mut pieces: Vec<Piece>, reset: bool) -> Vec<Piece> {
    // Nothing is flushed but while the body waits; and a reset overtakes what has not arrived.
    pieces.push(Piece::Wait(if reset { BEFORE_RESET } else { BEFORE_END }));
    pieces.push(Piece::Break { reset });
    pieces
}

/// A streamed answer under a fault.
fn streamed(events: &Events, kind: &Kind) -> (Head, Vec<Piece>) {
    let whole = healthy(events);
    let without = |left_out: &str| -> Vec<Piece> { whole.iter().filter(|e| *e != left_out).map(|e| e.clone().into()).collect() };
    let pieces = match kind {
        Kind::NoDone => without(DONE),
        Kind::DoneOnly => without(&event(&events.finish)),
        Kind::EmptyChoices => vec![event(&events.none).into(), Piece::from(DONE.to_owned())],
        Kind::BrokenJson => vec![half(&whole[0]).into()],
        Kind::EmptyBody => Vec::new(),
        Kind::Drip { interval, pieces: None } => spread(whole, seconds(*interval)),
        Kind::Drip { interval, pieces: Some(count) } => spread(parts(&whole.concat(), *count), seconds(*interval)),
        Kind::Stall { after, keepalive } => {
            let mut pieces = beginning(events, *after);
            pieces.push(Piece::Silence(keepalive.map(seconds)));
            pieces
        }
        Kind::Cut { after, how } => {
            let mut pieces = beginning(events, *after);
            match how {
                Cut::Clean => {}
                Cut::Reset => pieces = breaking(pieces, true),
                Cut::Error => pieces.push(event(&overloaded()).into()),
                Cut::Json => pieces.push(half(&event(events.content.get(*after).unwrap_or(&events.finish))).into()),
            }
            pieces
        }
        _ => whole.into_iter().map(Piece::from).collect(),
    };
    (Head::events(), pieces)
}

/// A plain answer under a fault.
fn plain(mut value: Value, kind: &Kind) -> (Head, Vec<Piece>) {
    if *kind == Kind::EmptyChoices {
        for list in ["choices", "data"] {
            if value.get(list).is_some() {
                value[list] = json!([]);
            }
        }
    }
    let text = value.to_string();
    let whole = Head::json(text.len());
    match kind {
        Kind::BrokenJson | Kind::Cut { how: Cut::Json, .. } => (Head::json(half(&text).len()), vec![half(&text).into()]),
        Kind::EmptyBody => (Head::json(0), Vec::new()),
        Kind::Cut { how: Cut::Error, .. } => {
            let text = overloaded().to_string();
            (Head::json(text.len()), vec![text.into()])
        }
        Kind::Cut { how, .. } => (whole, breaking(vec![half(&text).into()], *how == Cut::Reset)),
        Kind::Drip { interval, pieces } => (whole, spread(parts(&text, pieces.unwrap_or(DRIPS)), seconds(*interval))),
        Kind::Stall { .. } => (whole, vec![half(&text).into(), Piece::Silence(None)]),
        _ => (whole, vec![text.into()]),
    }
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
    let asked = route(&head.method, &path);
    let model = match &asked {
        Ok(Route::Model(name)) => Some(name.clone()),
        _ => field("model").and_then(Value::as_str).map(str::to_owned),
    };
    let stream = field("stream").and_then(Value::as_bool).unwrap_or(false);
    let refused = match &asked {
        Err(status) => Some(status.clone()),
        Ok(_) if too_long => Some(Box::new(Status::of(413, "The request is too large.", None))),
        Ok(route) => service.authorised(&head.headers).and_then(|()| service.refusal(route, parsed.as_ref(), model.as_deref())).err(),
    };
    let (fault, latency) = match &refused {
        Some(status) => (Fault { name: format!("refused {}", status.code), kind: Kind::Status(*status.clone()), latency: (0.0, 0.0) }, 0.0),
        None => shared.script().deal(model.as_deref().unwrap_or(""), &path),
    };
    if let (None, Some(model)) = (&refused, &model) {
        shared.seen.lock().unwrap_or_else(|p| p.into_inner()).insert(model.clone());
    }
    let entry = log(&shared.log, &shared, &head, path, &model, stream, text, fault.name.clone());
    let mut watch =
        Watch { log: shared.log.clone(), entry, over: false, bodiless: head.method == Method::HEAD, stopping: shared.stopping.clone() };
    if latency > 0.0 {
        tokio::time::sleep(seconds(latency)).await;
    }
    let seed = shared.options.seed;
    let (answer, pieces) = match (&fault.kind, asked) {
        (Kind::Status(given), _) => status(given),
        (Kind::RetryAfterDate { seconds: ahead }, _) => {
            let (mut head, pieces) = status(&Status::of(429, "Rate limit reached.", Some("rate_limit_exceeded")));
            // A date has whole seconds: the next one, so that it is never too early.
            let date = SystemTime::now() + seconds(*ahead) + Duration::from_millis(999);
            head.headers.push((RETRY_AFTER.as_str().into(), httpdate::fmt_http_date(date)));
            (head, pieces)
        }
        (Kind::Hang, _) => std::future::pending().await,
        (Kind::Reset, _) => {
            watch.over = true;
            service.reset.store(true, Ordering::Release);
            return Err(Abort);
        }
        (kind, Ok(route)) => {
            let empty = Map::new();
            let asked = Asked { body: parsed.as_ref().unwrap_or(&empty), model: model.as_deref().unwrap_or("") };
            let fixed = if let Kind::Ok { text } = kind { text.as_deref() } else { None };
            match route {
                Route::Chat if stream => streamed(&asked.events(seed, number, fixed), kind),
                Route::Chat => plain(asked.completion(seed, number, fixed), kind),
                Route::Embeddings => plain(asked.embeddings().unwrap_or_else(overloaded), kind),
                Route::Model(name) => plain(described(&name), kind),
                Route::Models => {
                    let data: Vec<Value> = service.models().iter().map(|m| described(m)).collect();
                    plain(json!({ "object": "list", "data": data }), kind)
                }
            }
        }
        (_, Err(refused)) => status(&refused),
    };
    watch.bodiless |= matches!(answer.status, 204 | 304);
    Ok(response(answer, number, began, body::body(pieces, watch, service.reset)))
}

#[allow(clippy::too_many_arguments)] // what there is to say of a request
fn log(
    log: &Log,
    shared: &Shared,
    head: &hyper::http::request::Parts,
    path: String,
    model: &Option<String>,
    stream: bool,
    body: Bytes,
    fault: String,
) -> Arc<Entry> {
    let time = shared.log.began().elapsed().as_secs_f64();
    log.push(Entry::new(time, head.method.to_string(), path, model.clone(), stream, kept(&head.headers), body, fault))
}

fn response(head: Head, number: u64, began: Instant, body: Body) -> Response<Body> {
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
    set("x-request-id", &format!("req_{number}"));
    set("openai-processing-ms", &began.elapsed().as_millis().to_string());
    if let Some(length) = head.length {
        set(CONTENT_LENGTH.as_str(), &length.to_string());
    }
    for (name, value) in &head.headers {
        set(name, value);
    }
    response
}
