//! A healthy answer on its way through a fault: what is sent, piece by piece.

use super::body::Piece;
use super::faults::{Cut, Kind, Status};
use super::reply::{Content, Healthy, Stream};
use super::route::Protocol;
use super::script::Timing;
use serde_json::{Value, json};
use std::time::Duration;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";
/// What was sent before a reset is given so long to arrive: the reset would overtake it.
const BEFORE_RESET: Duration = Duration::from_millis(30);
const BEFORE_END: Duration = Duration::from_millis(1);
/// Pieces of a plain body that drips.
const DRIPS: usize = 10;

/// The head of an answer.
pub struct Head {
    pub status: u16,
    pub content_type: String,
    /// Said to the client, whatever is sent.
    pub length: Option<usize>,
    pub headers: Vec<(String, String)>,
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

/// A status with its body.
pub fn status(status: &Status, protocol: Protocol, number: u64) -> (Head, Vec<Piece>) {
    let text = status.body.clone().unwrap_or_else(|| protocol.error(status, number).to_string());
    let content_type = status.content_type.clone().unwrap_or_else(|| JSON.into());
    let head = Head { status: status.code, content_type, length: Some(text.len()), headers: status.headers.clone() };
    (head, vec![text.into()])
}

/// An answer under a fault, at its pace: a stream's waits are among its pieces, a whole answer's are over before.
pub fn damaged(healthy: Healthy, kind: &Kind, timing: &mut Timing, protocol: Protocol, number: u64) -> (Head, Vec<Piece>) {
    match healthy {
        Healthy::Whole { value, list, .. } => whole(value, list, kind, &protocol.late_error(number)),
        Healthy::Stream(stream) => {
            let first =
                stream.content.iter().enumerate().map(|(at, c)| if at == 0 { timing.first_token } else { 0.0 } + timing.of(c.tokens));
            let waits = first.map(seconds).collect();
            (Head::events(), streamed(&stream, waits, kind, protocol.late_event(number)))
        }
    }
}

pub fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 1e9))
}

fn spread(texts: Vec<String>, interval: Duration) -> Vec<Piece> {
    texts.into_iter().flat_map(|text| [Piece::Wait(interval), text.into()]).collect()
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

/// Events, the last one cut in the midst of its JSON.
fn broken(events: &str) -> String {
    let at = events.rfind("data: ").unwrap_or(0);
    format!("{}{}", &events[..at], half(&events[at..]))
}

fn breaking(mut pieces: Vec<Piece>, reset: bool) -> Vec<Piece> {
    // Nothing is flushed but while the body waits; and a reset overtakes what has not arrived.
    pieces.push(Piece::Wait(if reset { BEFORE_RESET } else { BEFORE_END }));
    pieces.push(Piece::Break { reset });
    pieces
}

fn streamed(stream: &Stream, waits: Vec<Duration>, kind: &Kind, error: String) -> Vec<Piece> {
    let all = || -> Vec<String> {
        let content = stream.content.iter().map(|c| &c.text);
        let ending = [&stream.finish, &stream.usage, &stream.done];
        [&stream.opening].into_iter().chain(content).chain(ending).filter(|t| !t.is_empty()).cloned().collect()
    };
    // The opening and `after` pieces of content.
    let beginning = |after: usize| {
        let timed = stream.content.iter().zip(&waits).take(after);
        let timed = timed.flat_map(|(Content { text, .. }, wait)| [Piece::Wait(*wait), text.clone().into()]);
        let pieces = [stream.opening.clone().into()].into_iter().chain(timed);
        pieces.filter(|piece| !matches!(piece, Piece::Wait(Duration::ZERO))).collect::<Vec<_>>()
    };
    let whole = |ending: &[&String]| {
        let mut pieces = beginning(usize::MAX);
        pieces.extend(ending.iter().map(|text| Piece::from((*text).clone())));
        pieces
    };
    match kind {
        Kind::NoDone => whole(&[&stream.finish, &stream.usage]),
        Kind::DoneOnly => whole(&[&stream.usage, &stream.done]),
        Kind::EmptyChoices => vec![stream.none.clone().into(), stream.done.clone().into()],
        Kind::BrokenJson => vec![broken(&stream.opening).into()],
        Kind::EmptyBody => Vec::new(),
        Kind::Drip { interval, pieces: None } => spread(all(), seconds(*interval)),
        Kind::Drip { interval, pieces: Some(count) } => spread(parts(&all().concat(), *count), seconds(*interval)),
        Kind::Stall { after, keepalive } => {
            let mut pieces = beginning(*after);
            pieces.push(Piece::Silence(keepalive.map(seconds)));
            pieces
        }
        Kind::Cut { after, how } => {
            let mut pieces = beginning(*after);
            match how {
                Cut::Clean => {}
                Cut::Reset => pieces = breaking(pieces, true),
                Cut::Error => pieces.push(error.into()),
                Cut::Json => pieces.push(broken(stream.content.get(*after).map_or(&stream.finish, |c| &c.text)).into()),
            }
            pieces
        }
        _ => whole(&[&stream.finish, &stream.usage, &stream.done]),
    }
}

fn whole(mut value: Value, list: &str, kind: &Kind, error: &Value) -> (Head, Vec<Piece>) {
    if *kind == Kind::EmptyChoices && value.get(list).is_some() {
        value[list] = json!([]);
    }
    let text = value.to_string();
    let head = Head::json(text.len());
    match kind {
        Kind::BrokenJson | Kind::Cut { how: Cut::Json, .. } => (Head::json(half(&text).len()), vec![half(&text).into()]),
        Kind::EmptyBody => (Head::json(0), Vec::new()),
        Kind::Cut { how: Cut::Error, .. } => (Head::json(error.to_string().len()), vec![error.to_string().into()]),
        Kind::Cut { how, .. } => (head, breaking(vec![half(&text).into()], *how == Cut::Reset)),
        Kind::Drip { interval, pieces } => (head, spread(parts(&text, pieces.unwrap_or(DRIPS)), seconds(*interval))),
        Kind::Stall { .. } => (head, vec![half(&text).into(), Piece::Silence(None)]),
        _ => (head, vec![text.into()]),
    }
}
