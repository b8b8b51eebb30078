//! A chat completion as it is written: pieces until the end, and an error if the end never came.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::chat;
use super::client::{Client, RawReply, Request};
use super::delta::{self, Delta, Memory, Piece, Source};
use super::endpoint::Endpoint;
use super::error::{ApiError, ErrorKind, MAX_BODY, request_id};
use super::interrupt::{Anew, Beginning, Echo, Mark};
use super::screen::Screen;
use super::sse::{DEFAULT_MAX_EVENT, Decoder, Event};
use super::transport::Phase;
use super::usage::Usage;
use super::wire::{MARK, MOST, first_byte};
use crate::drive::clock;
use crate::drive::tokio::sleep_until;
use crate::guardrails::{Rails, Tally, Vault};

/// How much is read, and for how long, after the end of an answer, so that the connection can serve the next one.
const MAX_DRAIN: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_millis(100);

/// Sends a request for a stream and waits for the response's head. The body must ask for it (`"stream": true`).
pub async fn open_stream(client: &Client, endpoint: &Endpoint, request: Request) -> Result<ChatStream, ApiError> {
    let max = request.max_response_bytes;
    let accept = HeaderValue::from_static("text/event-stream, application/json");
    let (mut response, origin) = client.send(endpoint, request, accept).await?;
    let headers = std::mem::take(response.headers_mut());
    let head = RawReply {
        status: response.status().as_u16(),
        request_id: request_id(&headers),
        headers,
        body: Bytes::new(),
        origin: Some(origin),
    };
    Ok(ChatStream::new(head, response, max))
}

/// A stream that has begun. Dropping it gives up the request.
pub struct ChatStream {
    /// Gone once the stream has ended.
    response: Option<Response>,
    /// The response's head, as a reply without its body.
    head: RawReply,
    body: Body,
    events: VecDeque<Event>,
    ready: VecDeque<Delta>,
    memory: Memory,
    /// The choices seen, and whether each has its finish reason.
    choices: Vec<(u32, bool)>,
    text: String,
    received: usize,
    max: usize,
    /// What is too long, if anything is.
    overlong: Option<String>,
    /// What an event after the last piece said: the end, or a failure.
    last: Option<Result<(), ApiError>>,
    failed: Option<ApiError>,
    /// The longest wait for content.
    silence: Option<Duration>,
    /// How long nothing but the server was waited for, since the last content.
    waited: Duration,
    attempt: u32,
    /// Of the first piece; gone with it.
    mark: Mark,
    /// Whether all pieces given out were text of the first choice.
    is_plain: bool,
    /// While what comes may be what it was to go on from.
    echo: Option<Echo>,
    /// As the server said last.
    usage: Option<Usage>,
    source: Option<Arc<Source>>,
    /// The pieces given out, where they are wanted again.
    recording: Option<Vec<Delta>>,
    /// Whoever looks at the pieces before they are given out, until the end.
    screen: Option<Box<Screen>>,
    /// What that one has done, once it was over.
    screened: Option<Tally>,
    is_screened: bool,
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatStream").field("status", &self.head.status).field("bytes", &self.received).finish_non_exhaustive()
    }
}

/// What the body turns out to be; its first byte tells, since content types lie.
#[derive(Debug)]
enum Body {
    /// White space so far, or a part of a byte order mark.
    Unknown(BytesMut),
    Events(Decoder),
    /// JSON or HTML: read to its end, a page up to so many bytes.
    Whole(BytesMut, usize),
}

/// White space, after a byte order mark perhaps, as short as it says the same: endless white space is neither held nor
/// looked through again and again.
fn shortened(space: &[u8]) -> BytesMut {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let mark = if space.starts_with(MARK) { MARK } else { b"" };
    let lines: &[u8] = if space.iter().any(is_end) { b"\n" } else { b"" };
    let indent: &[u8] = if space[mark.len()..].last().is_some_and(|last| !is_end(last)) { b" " } else { b"" };
    BytesMut::from(&[mark, lines, indent].concat()[..])
}

impl ChatStream {
    /// A stream from a response's head and its body. One of more bytes than `max` is refused.
    pub fn new(head: RawReply, body: Response, max: usize) -> ChatStream {
        ChatStream::of(head, Some(body), max)
    }

    fn of(head: RawReply, response: Option<Response>, max: usize) -> ChatStream {
        ChatStream {
            response,
            head,
            body: Body::Unknown(BytesMut::new()),
            events: VecDeque::new(),
            ready: VecDeque::new(),
            memory: Memory::default(),
            choices: Vec::new(),
            text: String::new(),
            received: 0,
            max,
            overlong: None,
            last: None,
            failed: None,
            silence: None,
            waited: Duration::ZERO,
            attempt: 1,
            mark: Mark::Next,
            is_plain: true,
            echo: None,
            usage: None,
            source: None,
            recording: None,
            screen: None,
            screened: None,
            is_screened: false,
        }
    }

    /// The pieces of a whole answer once more.
    pub fn replayed(pieces: &[Delta]) -> ChatStream {
        let head = RawReply::new(200, HeaderMap::new(), Bytes::new());
        ChatStream { ready: pieces.iter().cloned().collect(), attempt: 0, ..ChatStream::of(head, None, 0) }
    }

    /// Keeps a record of all pieces from here on.
    pub fn record(&mut self) {
        self.recording = Some(Vec::new());
    }

    /// Has guardrails look at all that comes.
    pub fn guard(&mut self, rails: Arc<Rails>, vault: Vault) {
        (self.screen, self.is_screened) = (Some(Box::new(Screen::new(rails, vault))), true);
    }

    /// What guardrails have done, once the answer is over; nothing where there are none.
    pub fn screened(&self) -> Option<&Tally> {
        self.screened.as_ref()
    }

    /// Whether guardrails have something to say yet.
    pub fn is_in_doubt(&self) -> bool {
        self.is_screened && self.screened.is_none()
    }

    /// The record of a stream that is over.
    pub fn take_recording(&mut self) -> Option<Vec<Delta>> {
        self.recording.take()
    }

    /// The next piece, or `None` after the last one of a whole answer.
    ///
    /// An answer is whole when `[DONE]` came, or a finish reason for each of its choices. Anything else is an error,
    /// with the text so far in `partial`, and every later call gives that error again. The future can be dropped and
    /// asked for again without losing a piece; a wait counts as silence only where it is waited out.
    pub async fn next(&mut self) -> Result<Option<Delta>, ApiError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut error = match self.advance().await {
            Ok(next) => return Ok(next),
            Err(error) => error,
        };
        if !self.text.is_empty() {
            error.partial = Some(self.text.clone());
        }
        self.response = None;
        self.ready.clear();
        self.failed = Some(error.clone());
        Err(error)
    }

    /// The next piece, if it has come already: nothing is read for it. `None` says no more than that.
    pub fn next_here(&mut self) -> Option<Delta> {
        while self.ready.is_empty() && self.last.is_none() && self.failed.is_none() {
            let event = self.events.pop_front()?;
            self.last = match self.take(event) {
                Ok(false) => None,
                Ok(true) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            };
        }
        let mut delta = self.ready.pop_front()?;
        if let Some(recording) = &mut self.recording {
            recording.push(delta.on_its_own());
        }
        (delta.attempt, delta.mark) = (self.attempt, std::mem::take(&mut self.mark));
        if delta.index == 0 {
            self.text.push_str(&delta.content);
        }
        if let Some(usage) = &delta.usage {
            self.usage = Some(**usage);
        }
        if self.source.is_none() {
            self.source = Some(delta.source.clone());
        }
        self.is_plain &= delta.is_plain();
        if self.silence.is_some() && delta.has_content() {
            self.waited = Duration::ZERO;
        }
        Some(delta)
    }

    /// From here on it fails once it was waited so long for content; other pieces and bytes are none.
    pub fn bound_silence(&mut self, limit: Option<Duration>) {
        (self.silence, self.waited) = (limit, Duration::ZERO);
    }

    /// Where it stands in its call, said before anything is read of it.
    pub fn begins(&mut self, beginning: Beginning) {
        (self.attempt, self.mark) = (beginning.attempt, beginning.mark);
        self.echo = (!beginning.text.is_empty()).then(|| Echo::of(beginning.text.clone()));
        self.text = beginning.text;
    }

    /// The text of the first choice, up to the last piece given out; with what it goes on from before it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether all that was given out was text of the first choice.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The tokens that it has cost up to the last piece given out, if the server has said.
    pub fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// The model that answers, as the server names it.
    pub fn answered_by(&self) -> Option<&str> {
        self.source.as_ref()?.model.as_deref()
    }

    /// The provider's id for the request.
    pub fn request_id(&self) -> Option<&str> {
        self.head.request_id.as_deref()
    }

    /// The response's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The HTTP status, 2xx.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    async fn advance(&mut self) -> Result<Option<Delta>, ApiError> {
        loop {
            if let Some(delta) = self.next_here() {
                return Ok(Some(delta));
            }
            if let Some(last) = self.last.take() {
                last?;
                self.end_of_answer().await?;
            }
            let Some(response) = &mut self.response else {
                let Some(screen) = self.screen.take() else { return Ok(None) };
                let (rest, tally) = screen.end().await?;
                self.ready.extend(rest);
                self.screened = Some(tally);
                continue;
            };
            if let Some(what) = &self.overlong {
                return Err(self.head.malformed(what));
            }
            let chunk = match self.silence {
                None => Some(response.chunk().await),
                Some(limit) => {
                    let now = clock::now();
                    let chunk = tokio::select! {
                        biased;
                        chunk = response.chunk(), if self.waited < limit => Some(chunk),
                        () = sleep_until(now.after(limit.saturating_sub(self.waited))) => None,
                    };
                    self.waited += clock::now().since(now);
                    chunk
                }
            };
            match chunk {
                Some(Ok(Some(chunk))) => self.receive(&chunk)?,
                Some(Ok(None)) => self.end_of_body()?,
                // The server had said that the answer was over; what it wanted to add is not missed.
                Some(Err(_)) | None if self.finished() => self.response = None,
                Some(Err(error)) => return Err(self.broken(error)),
                None => return Err(self.silent()),
            }
        }
    }

    fn receive(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        // What came before the limit, or before an event that is too long, is given out first, however the bytes were cut
        // into chunks.
        let fitting = &chunk[..chunk.len().min(self.max - self.received)];
        self.received += fitting.len();
        if fitting.len() < chunk.len() {
            self.overlong = Some(format!("a stream of more than {} bytes (max_response_bytes is the limit)", self.max));
        }
        if let Body::Unknown(start) = &mut self.body {
            start.extend_from_slice(fitting);
            let start = match first_byte(start) {
                None => {
                    *start = shortened(start);
                    return Ok(());
                }
                Some(_) if MARK.starts_with(start) => return Ok(()),
                Some(_) => std::mem::take(start),
            };
            let first = first_byte(&start);
            let at = start.iter().position(|byte| Some(*byte) == first).unwrap_or(0);
            let (body, from) = match first {
                Some(b'{' | b'[') => (Body::Whole(BytesMut::new(), usize::MAX), at),
                Some(b'<') => (Body::Whole(BytesMut::new(), MAX_BODY), at),
                _ => (Body::Events(Decoder::new(DEFAULT_MAX_EVENT)), 0),
            };
            self.body = body;
            return self.hand_on(&start[from..]);
        }
        self.hand_on(fitting)
    }

    fn hand_on(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        match &mut self.body {
            Body::Unknown(_) => Ok(()),
            Body::Whole(body, max) => {
                body.extend_from_slice(bytes);
                if body.len() < *max { Ok(()) } else { self.end_of_body() }
            }
            Body::Events(decoder) => {
                if let Err(error) = decoder.push(bytes, &mut self.events) {
                    self.overlong = Some(error.to_string());
                }
                Ok(())
            }
        }
    }

    /// Reads one event; true if it was the last.
    fn take(&mut self, event: Event) -> Result<bool, ApiError> {
        let data = event.data;
        if data.starts_with(b"[DONE]") {
            return self.stop_listening().map(|()| true);
        }
        if event.name.as_deref() == Some("error") {
            let object = serde_json::from_slice(&data).unwrap_or_else(|_| serde_json::Value::String(self.head.excerpt(&data)));
            return Err(self.with_body(data).error_object(&object));
        }
        let piece = match first_byte(&data) {
            // Some servers keep the connection alive with empty events.
            None => return Ok(false),
            Some(b'{') => delta::read(&data, &mut self.memory)
                .map_err(|error| format!("broken JSON in the stream ({error}): {}", self.head.excerpt(&data))),
            Some(_) => Err(format!("an event that is no JSON object: {}", self.head.excerpt(&data))),
        };
        match piece {
            Ok(piece) => self.give(piece, data).map(|()| false),
            Err(what) => Err(self.with_body(data).malformed(&what)),
        }
    }

    /// Puts there what an event held, or fails as it says.
    fn give(&mut self, piece: Piece, data: Bytes) -> Result<(), ApiError> {
        let mut deltas = match piece {
            Piece::Choices(deltas) => deltas,
            Piece::Aside(delta) => {
                let delta = match &mut self.screen {
                    Some(screen) => screen.aside(*delta),
                    None => Some(*delta),
                };
                self.ready.extend(delta);
                return Ok(());
            }
            Piece::Error(object) => return Err(self.with_body(data).error_object(&object)),
            Piece::EndedInError(reason) => return Err(self.with_body(data).ended_in_error(&reason)),
        };
        for delta in &mut deltas {
            let ended = delta.finish_reason.is_some();
            self.listen(delta, ended)?;
            let is_full = self.choices.len() == MOST;
            match self.choices.iter_mut().find(|choice| choice.0 == delta.index) {
                Some(choice) => choice.1 |= ended,
                None if is_full => return Err(self.head.malformed(&format!("a stream of more than {MOST} choices"))),
                None => self.choices.push((delta.index, ended)),
            }
            if self.silence.is_some() && delta.has_content() {
                self.waited = Duration::ZERO; // what is held back has come all the same
            }
        }
        let deltas = match &mut self.screen {
            Some(screen) => screen.take(deltas)?,
            None => deltas,
        };
        self.ready.extend(deltas);
        Ok(())
    }

    /// Leaves in a piece of a continued answer what is new.
    fn listen(&mut self, delta: &mut Delta, is_last: bool) -> Result<(), ApiError> {
        let Some(mut echo) = self.echo.take() else { return Ok(()) };
        let heard = match std::mem::take(&mut delta.content) {
            text if text.is_empty() => Ok(None),
            text => echo.hear(&text),
        };
        delta.content = match heard {
            Ok(Some(new)) => new,
            Ok(None) if is_last || !delta.tool_calls.is_empty() => echo.end().map_err(|Anew| self.began_anew())?,
            Ok(None) => {
                self.echo = Some(echo);
                String::new()
            }
            Err(Anew) => return Err(self.began_anew()),
        };
        Ok(())
    }

    /// The answer is over: what was kept back is new after all.
    fn stop_listening(&mut self) -> Result<(), ApiError> {
        if let Some(echo) = self.echo.take() {
            let content = echo.end().map_err(|Anew| self.began_anew())?;
            if !content.is_empty() {
                self.ready.push_back(Delta { content, ..Delta::default() });
            }
        }
        Ok(())
    }

    /// After `[DONE]`: reads what is left of the body, within bounds, so that the connection is used again.
    async fn end_of_answer(&mut self) -> Result<(), ApiError> {
        self.events.clear();
        let response = self.response.take();
        if self.choices.is_empty() {
            return Err(self.head.malformed("a stream without choices, which said [DONE]"));
        }
        if let Some(mut response) = response {
            let rest = async {
                let mut left = MAX_DRAIN;
                while let Ok(Some(chunk)) = response.chunk().await {
                    left = left.saturating_sub(chunk.len());
                    if left == 0 {
                        break;
                    }
                }
            };
            // Too slow only means that the connection is closed and the next call makes its own.
            let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
        }
        Ok(())
    }

    /// The body is over (or, a page, long enough): whether the answer is too is another matter.
    fn end_of_body(&mut self) -> Result<(), ApiError> {
        self.response = None;
        match std::mem::replace(&mut self.body, Body::Unknown(BytesMut::new())) {
            Body::Whole(body, _) => {
                let reply = chat::parse_reply(self.with_body(body.freeze()))?;
                self.give(Piece::Choices(Delta::whole(reply)), Bytes::new())?;
                self.stop_listening()
            }
            Body::Unknown(_) => Err(self.head.malformed(&format!("an empty stream{}", self.content_type()))),
            Body::Events(mut decoder) => {
                // The last event may lack its empty line. It counts if it is whole; half of one was cut off.
                let mut done = false;
                if let Some(event) = decoder.finish() {
                    let whole = event.data.starts_with(b"[DONE]") || serde_json::from_slice::<serde::de::IgnoredAny>(&event.data).is_ok();
                    done = whole && self.take(event)?;
                }
                if !self.choices.is_empty() && (done || self.finished()) {
                    return Ok(());
                }
                if self.choices.is_empty() && (done || !self.is_event_stream()) {
                    return Err(self.head.malformed(&format!("a stream without choices{}", self.content_type())));
                }
                Err(self.cut())
            }
        }
    }

    /// Whether every choice seen has its finish reason. Only counts of tokens can follow, so that a server which then
    /// neither says `[DONE]` nor closes has still answered.
    pub fn finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.1)
    }

    /// Where it comes from.
    fn place(&self) -> String {
        self.head.origin.as_ref().map(|origin| origin.endpoint.place()).unwrap_or_default()
    }

    fn cut(&self) -> ApiError {
        let from = self.place();
        let message = format!("the stream from {from} ended with neither a finish_reason nor [DONE]: it was cut, the answer is not whole");
        let mut error = ApiError::new(ErrorKind::StreamInterrupted, message);
        error.status = Some(self.head.status);
        error.take_headers(&self.head.headers);
        error.seal(&self.head.secrets())
    }

    /// Another attempt at the same place would do the same.
    fn began_anew(&self) -> ApiError {
        let from = self.place();
        let message = format!(
            "{from} was asked to go on from the text so far and began to repeat it instead (on_interrupt=\"continue\" needs a server that \
             continues an assistant's message)"
        );
        let mut error = ApiError::new(ErrorKind::MalformedResponse, message);
        error.take_headers(&self.head.headers);
        error.should_retry = Some(false);
        error.seal(&self.head.secrets())
    }

    fn silent(&self) -> ApiError {
        let from = self.place();
        let limit = self.silence.unwrap_or_default().as_secs_f64();
        let mut error = ApiError::new(ErrorKind::Timeout, format!("no content from {from} for {limit} s (idle_timeout)"));
        error.take_headers(&self.head.headers);
        error.seal(&self.head.secrets())
    }

    fn broken(&self, error: reqwest::Error) -> ApiError {
        match &self.head.origin {
            Some(origin) => {
                let mut error = origin.failed(error, Phase::Reading);
                error.take_headers(&self.head.headers);
                error.seal(&origin.secrets)
            }
            None => self.cut(),
        }
    }

    fn with_body(&self, body: Bytes) -> RawReply {
        RawReply { body, ..self.head.clone() }
    }

    fn is_event_stream(&self) -> bool {
        self.head.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
    }

    fn content_type(&self) -> String {
        match self.head.headers.get(CONTENT_TYPE) {
            Some(value) => format!(" (content type {})", self.head.excerpt(value.as_bytes())),
            None => " (no content type)".to_owned(),
        }
    }
}
