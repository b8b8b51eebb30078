//! Bodies that come in pieces, stop, break off and never end.

use super::log::{Entry, Log};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The connection is to be given up.
#[derive(Debug)]
pub struct Abort;

impl std::fmt::Display for Abort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("given up on purpose")
    }
}

impl std::error::Error for Abort {}

/// What comes next in a body.
pub enum Piece {
    Bytes(Bytes),
    Wait(Duration),
    /// Silence for ever, with an SSE comment now and then.
    Silence(Option<Duration>),
    /// The connection ends, by reset or just so.
    Break {
        reset: bool,
    },
}

impl From<String> for Piece {
    fn from(text: String) -> Piece {
        Piece::Bytes(text.into())
    }
}

pub type Body = UnsyncBoxBody<Bytes, Abort>;

/// Tells the log when an answer is over, and whether the client went away before it was whole.
pub struct Watch {
    pub log: Arc<Log>,
    pub entry: Arc<Entry>,
    /// Nobody is to blame: the answer is whole, was cut on purpose, or the server stops.
    pub over: bool,
    /// Whatever the answer, its body is not asked for.
    pub bodiless: bool,
    pub stopping: Arc<AtomicBool>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.over && !self.stopping.load(Ordering::Acquire) {
            self.log.abort(&self.entry);
        }
        self.log.end(&self.entry);
    }
}

struct State {
    pieces: VecDeque<Piece>,
    watch: Watch,
    reset: Arc<AtomicBool>,
}

/// A body of these pieces. `reset` is the connection's: whether it ends with a reset.
pub fn body(pieces: Vec<Piece>, mut watch: Watch, reset: Arc<AtomicBool>) -> Body {
    // Nobody asks for the pieces of an empty body.
    watch.over = pieces.is_empty() || watch.bodiless;
    let state = State { pieces: pieces.into(), watch, reset };
    let frames = stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        loop {
            match state.pieces.pop_front() {
                None => {
                    state.watch.over = true;
                    return None;
                }
                Some(Piece::Bytes(bytes)) if bytes.is_empty() => {}
                Some(Piece::Bytes(bytes)) => {
                    // With a length announced, nobody asks for more than that.
                    state.watch.over = state.pieces.is_empty();
                    return Some((Ok(Frame::data(bytes)), Some(state)));
                }
                Some(Piece::Wait(time)) => tokio::time::sleep(time).await,
                Some(Piece::Silence(None)) => std::future::pending().await,
                Some(Piece::Silence(Some(every))) => {
                    tokio::time::sleep(every).await;
                    state.pieces.push_front(Piece::Silence(Some(every)));
                    return Some((Ok(Frame::data(Bytes::from_static(b": keep-alive\n\n"))), Some(state)));
                }
                Some(Piece::Break { reset }) => {
                    state.watch.over = true;
                    state.reset.store(reset, Ordering::Release);
                    return Some((Err(Abort), None));
                }
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
