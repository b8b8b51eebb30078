//! `Stream`: a streamed answer, read from a thread or an event loop. A slow reader slows the request down.

use super::bridge::{self, Parker, Sender, Tie};
use super::finished::Finished;
use super::progress::AttemptEvent;
use super::reply::Chunk;
use super::shared::Shared;
use super::story::Story;
use crate::drive::clock;
use crate::drive::process::Process;
use crate::drive::tokio::{Drive, Turn};
use crate::engine::{Instant, Outcome};
use crate::llm::client::Client;
use crate::llm::delta::Delta;
use crate::llm::error::Raised;
use crate::llm::order::Order;
use crate::llm::route::{Answer, Flight};
use crate::llm::screen::Screen;
use crate::llm::watch::{Progress, Watcher};
use crate::python::remaining;
use futures_util::FutureExt;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Poll;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Pieces held for a reader, beside those that it has taken, before the request is made to wait: more than an answer has,
/// as a rule, since the time limit is the server's and a slow reader must not use it up.
const HELD: usize = 4096;

/// So many pieces wait at the most for those right behind them before a waiting reader is woken.
const GATHERED: usize = 64;

enum Reader {
    Nobody,
    Thread(Arc<Parker>),
    Loop { sender: Sender, future: Py<PyAny>, tie: Tie },
}

/// What a reader gets, one by one.
#[allow(clippy::large_enum_variant)] // nearly all are deltas: a box for each would cost an allocation a token
enum Item {
    Delta(Delta),
    Progress(Box<Progress>),
}

/// What is told of the call's attempts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    No,
    /// Nothing until there is a second one.
    Repeated,
    Every,
}

struct Held {
    pieces: VecDeque<Item>,
    /// Attempts that are told once there is another one.
    untold: Vec<Item>,
    watched: Watched,
    end: Option<Finished>,
    reader: Reader,
}

struct Pipe {
    held: Mutex<Held>,
    room: Notify,
    /// The end was handed out, or nobody wants it any more.
    over: AtomicBool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn wake(reader: Reader) {
        match reader {
            Reader::Nobody => {}
            Reader::Thread(parker) => parker.wake(),
            Reader::Loop { sender, future, tie } => {
                // From here on the loop may be closed without harm to the stream: its wait is over.
                drop(tie);
                drop(sender.complete(future, |py| Ok(py.None())));
            }
        }
    }

    /// Puts the pieces there; gives how many there are now, and whether somebody waits, who is told by `tell`.
    fn put(&self, pieces: &mut VecDeque<Item>) -> (usize, bool) {
        let mut held = self.lock();
        held.pieces.append(pieces);
        (held.pieces.len(), !matches!(held.reader, Reader::Nobody))
    }

    /// Wakes a reader that waits, if there is something for it.
    fn tell(&self) {
        let reader = {
            let mut held = self.lock();
            if held.pieces.is_empty() && held.end.is_none() {
                return;
            }
            std::mem::replace(&mut held.reader, Reader::Nobody)
        };
        Pipe::wake(reader);
    }

    async fn wait_for_room(&self, mut held: usize) {
        while held >= HELD {
            self.room.notified().await;
            held = self.lock().pieces.len();
        }
    }

    /// Registers whoever waits; given back if there is something for it already.
    fn register(&self, reader: Reader) -> Reader {
        let mut held = self.lock();
        if held.pieces.is_empty() && held.end.is_none() && !self.is_over() {
            held.reader = reader;
            Reader::Nobody
        } else {
            reader
        }
    }

    fn end(&self, finished: Finished) {
        self.lock().end = Some(finished);
        self.tell();
    }

    /// Nobody wants the rest.
    fn close(&self) {
        let (pieces, reader) = {
            let mut held = self.lock();
            self.over.store(true, Ordering::Release);
            (std::mem::take(&mut held.pieces), std::mem::replace(&mut held.reader, Reader::Nobody))
        };
        drop(pieces);
        Pipe::wake(reader);
    }
}

impl Watcher for Pipe {
    fn see(&self, progress: Progress) {
        // What another attempt or the end comes right behind goes along with that.
        let is_first = matches!(&progress, Progress::Begun(attempt, 1) if attempt.target.0 == 0);
        let hurries = match &progress {
            Progress::Begun(..) => true,
            Progress::Ended(attempt, ..) => attempt.waited.is_some(),
            Progress::Refused(_) => false,
        };
        let reader = {
            let held = &mut *self.lock();
            if held.watched == Watched::Repeated && (is_first || !hurries) {
                held.untold.push(Item::Progress(Box::new(progress)));
                return;
            }
            held.watched = Watched::Every;
            held.pieces.extend(held.untold.drain(..));
            held.pieces.push_back(Item::Progress(Box::new(progress)));
            if hurries { std::mem::replace(&mut held.reader, Reader::Nobody) } else { Reader::Nobody }
        };
        Pipe::wake(reader);
    }
}

/// Runs the call, handing each piece to the pipe, to its end whatever happens.
async fn run(shared: Arc<Shared>, order: Arc<Order>, client: Client, pipe: Arc<Pipe>, deadline: Instant) {
    let begun = clock::now();
    let whole = AssertUnwindSafe(carry(shared, order, client, &pipe, deadline)).catch_unwind().await;
    pipe.end(Finished::carried(whole, begun));
}

async fn carry(shared: Arc<Shared>, order: Arc<Order>, client: Client, pipe: &Arc<Pipe>, deadline: Instant) -> Result<Finished, Raised> {
    let mut execution = shared.core.execution(&order, deadline);
    let vault = order.screened.vault.clone();
    let mut flight = Flight::new(shared.core.clone(), order, client);
    if pipe.lock().watched != Watched::No {
        flight = flight.watched_by(pipe.clone());
    }
    flight.recalls().await;
    flight.asks_cache(&mut execution);
    let mut drive = Drive::new(execution, flight);
    let mut turn = drive.advance().await?;
    while let Turn::Delivered(ticket) = turn {
        let call = drive.host.opened_call();
        let taken = drive.host.take(&Outcome::Stream(ticket));
        let (Ok(Answer::Stream(mut stream, first)), Some(call)) = (taken, call) else { break };
        let mut limit = pin!(drive.limit());
        let mut restoring = (!vault.is_empty()).then(|| Screen::restoring(&vault));
        let mut pieces: VecDeque<Item> = restored(&mut restoring, first).into_iter().map(Item::Delta).collect();
        let end = loop {
            let here = std::iter::from_fn(|| stream.next_here()).collect();
            pieces.extend(restored(&mut restoring, here).into_iter().map(Item::Delta));
            let (held, mut awaited) = pipe.put(&mut pieces);
            if held >= GATHERED && std::mem::take(&mut awaited) {
                pipe.tell();
            }
            pipe.wait_for_room(held).await;
            let mut is_patient = true;
            let next = {
                let mut next = pin!(stream.next());
                poll_fn(|cx| {
                    if let Poll::Ready(next) = next.as_mut().poll(cx) {
                        return Poll::Ready(Some(next));
                    }
                    // A reader is woken once everybody else had a turn: what comes right behind goes along.
                    if awaited && std::mem::take(&mut is_patient) {
                        cx.waker().wake_by_ref();
                    } else if std::mem::take(&mut awaited) {
                        pipe.tell();
                    }
                    limit.as_mut().poll(cx).map(|()| None)
                })
                .await
            };
            match next {
                Some(Ok(Some(piece))) => pieces.extend(restored(&mut restoring, vec![piece]).into_iter().map(Item::Delta)),
                Some(Ok(None)) => {
                    // Putting back refuses nothing.
                    let rest = restoring.take().and_then(|mut screen| screen.finish().ok());
                    let mut rest = rest.into_iter().flat_map(|(rest, _)| rest).map(Item::Delta).collect();
                    pipe.put(&mut rest);
                    break Some(Ok(()));
                }
                Some(Err(error)) => break Some(Err(error.interrupted(stream.text()))),
                // A server that has said the end of its answer, and then neither says nor closes more, has answered.
                None => break (stream.finished() && !stream.is_in_doubt()).then_some(Ok(())),
            }
        };
        // Without an end a time limit of the call's has passed, which the machine knows.
        let is_refused = matches!(&end, Some(Err(error)) if error.is_refusal());
        if !is_refused && !matches!(end, Some(Ok(()))) && drive.host.interrupted(&stream) {
            drive.taken_back(call);
            // Whoever reads has what there is, however long the next attempt takes.
            pipe.tell();
        }
        drive.host.recorded = stream.take_recording().map(Arc::from);
        if let Some(end) = end {
            let outcome = drive.host.keep_end(call, end);
            drive.stream_ended(call, outcome);
        }
        drive.host.read(&stream);
        drop(stream);
        turn = drive.advance().await?;
    }
    let Turn::Done(outcome) = turn else { return Ok(Finished::panicked(drive.host.begun)) };
    drive.host.tell_last(&outcome);
    Ok(Finished::of(&mut drive, &outcome))
}

/// Pieces with what was taken out of the question put back; what was begun by one is held back.
fn restored(restoring: &mut Option<Screen>, pieces: Vec<Delta>) -> Vec<Delta> {
    let Some(screen) = restoring else { return pieces };
    screen.take(pieces).unwrap_or_default()
}

/// A streamed answer: an iterator that knows its story once it is over.
#[pyclass(frozen, module = "seawall.llm", weakref)]
pub struct Stream {
    shared: Arc<Shared>,
    pipe: Arc<Pipe>,
    /// Pieces that the reader has taken out of the pipe, many at a time.
    taken: Mutex<VecDeque<Item>>,
    /// Somebody is reading, or waiting to.
    is_read: AtomicBool,
    begun: AtomicBool,
    /// Whose streams these are: a forked child has neither the request nor the thread that carries it.
    process: Process,
    /// The order, until the first piece is asked for; then the job.
    job: Mutex<Result<Arc<Order>, AbortHandle>>,
    story: OnceLock<Story>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Stream {
    pub fn new(shared: Arc<Shared>, order: Arc<Order>, watched: Watched) -> Stream {
        let held = Held { pieces: VecDeque::new(), untold: Vec::new(), watched, end: None, reader: Reader::Nobody };
        Stream {
            shared,
            pipe: Arc::new(Pipe { held: Mutex::new(held), room: Notify::new(), over: AtomicBool::new(false) }),
            taken: Mutex::new(VecDeque::new()),
            is_read: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            process: Process::here(),
            job: Mutex::new(Ok(order)),
            story: OnceLock::new(),
        }
    }

    fn is_of_the_parent(&self) -> bool {
        !self.process.is_here()
    }

    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_of_the_parent() {
            return Err(PyRuntimeError::new_err("this stream was opened before the process was forked: open another one here"));
        }
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        // Not under the lock: nothing of Python's may happen there.
        let ((runtime, client), deadline) = (self.shared.live(py)?, remaining::inherited(py));
        let mut job = locked(&self.job);
        if let Ok(order) = &*job
            && !self.pipe.is_over()
        {
            let running = runtime.spawn(run(self.shared.clone(), order.clone(), client, self.pipe.clone(), deadline));
            *job = Err(running.abort_handle());
        }
        self.begun.store(true, Ordering::Release);
        Ok(())
    }

    /// One reader at a time: whether it is this one's turn, until `leave`.
    pub fn enter(&self, py: Python<'_>) -> PyResult<bool> {
        self.begin(py)?;
        Ok(!self.is_read.swap(true, Ordering::AcqRel))
    }

    pub fn leave(&self) {
        self.is_read.store(false, Ordering::Release);
    }

    /// The next piece, the end (`StopIteration` or the call's error), or nothing yet. A whole reply is the last piece.
    pub fn next_now(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        if self.pipe.is_over() {
            return Some(Err(PyStopIteration::new_err(())));
        }
        let mut taken = locked(&self.taken);
        if taken.is_empty() {
            let mut held = self.pipe.lock();
            if held.pieces.is_empty() {
                let end = held.end.take()?;
                self.pipe.over.store(true, Ordering::Release);
                drop((held, taken));
                return Some(if end.is_reply() { self.shared.convert(py, end) } else { Err(self.ended(py, end)) });
            }
            let was_full = held.pieces.len() >= HELD;
            std::mem::swap(&mut *taken, &mut held.pieces);
            drop(held);
            if was_full {
                self.pipe.room.notify_one();
            }
        }
        let item = taken.pop_front()?;
        drop(taken);
        Some(match item {
            Item::Delta(delta) => Py::new(py, Chunk { delta }).map(Py::into_any),
            Item::Progress(progress) => AttemptEvent::new(py, *progress, &self.shared).and_then(|event| Ok(Py::new(py, event)?.into_any())),
        })
    }

    /// Keeps the story; gives what ends the iteration.
    fn ended(&self, py: Python<'_>, mut end: Finished) -> PyErr {
        let error = self.shared.stream_error(py, &end);
        // It ends once.
        let _ = self.story.set(self.shared.story(&mut end));
        error
    }

    /// A future of the running loop that is done once there is a next piece or the end.
    pub fn future(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (future, sender) = bridge::future(py)?;
        let Some(job) = locked(&self.job).as_ref().err().cloned() else { return Err(PyStopIteration::new_err(())) };
        let tie = sender.awaits(job);
        let ready = self.pipe.register(Reader::Loop { sender, future: future.clone_ref(py), tie });
        Pipe::wake(ready);
        Ok(future)
    }
}

#[pymethods]
impl Stream {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The attempts made, once the stream is over; `None` before.
    #[getter]
    fn attempts(&self, py: Python<'_>) -> PyResult<Option<&Py<PyAny>>> {
        self.story.get().map(|story| story.attempts(py)).transpose()
    }

    /// What policies did in its course, in order, once the stream is over; `None` before.
    #[getter]
    fn story(&self, py: Python<'_>) -> PyResult<Option<&Py<PyAny>>> {
        self.story.get().map(|story| story.steps(py)).transpose()
    }

    /// Which alternative answered (0 is the primary), once the stream is over.
    #[getter]
    fn alternative(&self) -> Option<usize> {
        self.story.get().map(|story| story.alternative)
    }

    /// Whether it came from a cache, once the stream is over.
    #[getter]
    fn cached(&self) -> Option<bool> {
        self.story.get().map(|story| story.cached)
    }

    /// Seconds from the first piece asked for to the end, once the stream is over.
    #[getter]
    fn seconds(&self) -> Option<f64> {
        self.story.get().map(|story| story.seconds)
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if !self.enter(py)? {
            return Err(PyRuntimeError::new_err("the stream is being read by another thread: read it in one"));
        }
        let next = match self.next_now(py) {
            Some(next) => Ok(next),
            // What came in between was told to nobody, and is found before the wait.
            None => bridge::wait(py, |parker| drop(self.pipe.register(Reader::Thread(parker))), || self.next_now(py)),
        };
        self.leave();
        next.unwrap_or_else(|interrupt| {
            self.close();
            Err(interrupt)
        })
    }

    /// Gives the rest up: the request is cut and its connection freed.
    pub fn close(&self) {
        if self.is_of_the_parent() {
            return;
        }
        self.pipe.close();
        // Let go outside the lock: with a failure goes what the user's code raised.
        drop(self.taken.try_lock().map(|mut taken| std::mem::take(&mut *taken)));
        if let Err(running) = &*locked(&self.job) {
            running.abort();
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Held only for moments and never across Python code, so a busy lock is another thread's: skip this round.
        match self.pipe.held.try_lock().map(|held| match &held.reader {
            Reader::Loop { future, .. } => visit.call(future),
            Reader::Nobody | Reader::Thread(_) => Ok(()),
        }) {
            Ok(visited) => visited,
            Err(_) => Ok(()),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Some(story) = self.story.get() else { return Ok("<Stream, not over yet>".to_owned()) };
        let attempts = story.attempts(py)?.bind(py).len()?;
        let plural = if attempts == 1 { "" } else { "s" };
        Ok(format!("<Stream, over after {:.2} s, {attempts} attempt{plural}>", story.seconds))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyTuple>) {
        self.close();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
    }
}
