//! `Stream`: a streamed answer, read from a thread or an event loop. A slow reader slows the request down.

use super::bridge::{self, Parker, Sender};
use super::raise;
use super::reply::Chunk;
use super::route::{Finished, Shared};
use crate::drive::tokio::{Drive, Turn};
use crate::drive::{clock, trial};
use crate::engine::{Execution, Instant, Outcome};
use crate::llm::client::Client;
use crate::llm::delta::Delta;
use crate::llm::route::{Answer, Flight, Order};
use crate::llm::runtime;
use crate::python::remaining;
use futures_util::FutureExt;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Pieces held for a reader before the request is made to wait: more than an answer has, as a rule, since the time limit
/// is the server's and a slow reader must not use it up.
const HELD: usize = 4096;

enum Reader {
    Nobody,
    Thread(Arc<Parker>),
    Loop(Sender, Py<PyAny>),
}

struct Held {
    pieces: VecDeque<Delta>,
    end: Option<Finished>,
    reader: Reader,
    /// The end was handed out, or nobody wants it any more.
    over: bool,
    /// A thread is waiting, or about to.
    reading: bool,
}

struct Pipe {
    held: Mutex<Held>,
    room: Notify,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wake(reader: Reader) {
        match reader {
            Reader::Nobody => {}
            Reader::Thread(parker) => parker.wake(),
            Reader::Loop(sender, future) => sender.complete(future, |py| Ok(py.None())),
        }
    }

    async fn push(&self, piece: Delta) {
        let reader = {
            let mut held = self.lock();
            held.pieces.push_back(piece);
            std::mem::replace(&mut held.reader, Reader::Nobody)
        };
        Pipe::wake(reader);
        while self.lock().pieces.len() >= HELD {
            self.room.notified().await;
        }
    }

    fn end(&self, finished: Finished) {
        let reader = {
            let mut held = self.lock();
            held.end = Some(finished);
            std::mem::replace(&mut held.reader, Reader::Nobody)
        };
        Pipe::wake(reader);
    }

    /// Nobody wants the rest.
    fn close(&self) {
        let reader = {
            let mut held = self.lock();
            held.over = true;
            held.pieces.clear();
            std::mem::replace(&mut held.reader, Reader::Nobody)
        };
        Pipe::wake(reader);
    }
}

/// Runs the call, handing each piece to the pipe, to its end whatever happens.
async fn run(shared: Arc<Shared>, order: Arc<Order>, client: Client, pipe: Arc<Pipe>, deadline: Instant) {
    let begun = clock::now();
    let whole = AssertUnwindSafe(carry(shared, order, client, &pipe, deadline)).catch_unwind().await;
    pipe.end(whole.ok().flatten().unwrap_or_else(|| Finished::panicked(begun)));
}

async fn carry(shared: Arc<Shared>, order: Arc<Order>, client: Client, pipe: &Pipe, deadline: Instant) -> Option<Finished> {
    let execution = Execution::within(shared.core.plan.clone(), clock::seed(), clock::now(), deadline).announcing();
    let execution = trial::dressed(execution);
    let mut drive = Drive::new(execution, Flight::new(shared.core.clone(), order, client));
    let mut turn = drive.advance().await;
    let mut delivered = None;
    while let Turn::Delivered(ticket) = turn {
        let call = drive.host.last_call();
        let taken = drive.host.take(&Outcome::Stream(ticket));
        let (Ok(Answer::Stream(mut stream, first)), Some(call)) = (taken, call) else { break };
        for piece in first {
            pipe.push(piece).await;
        }
        let end = loop {
            let next = tokio::select! {
                biased;
                next = stream.next() => next,
                () = drive.limit() => break None,
            };
            match next {
                Ok(Some(piece)) => pipe.push(piece).await,
                Ok(None) => break Some(Ok(())),
                Err(error) => break Some(Err(error.interrupted(stream.text()))),
            }
        };
        delivered = Some(stream.text().to_owned());
        if let Some(end) = end {
            let outcome = drive.host.keep_end(call, end);
            drive.stream_ended(call, outcome);
        }
        turn = drive.advance().await;
    }
    let Turn::Done(outcome) = turn else { return None };
    let mut finished = Finished::of(&mut drive, &outcome);
    if let Some(text) = delivered {
        finished.broke_off(&text);
    }
    Some(finished)
}

/// A streamed answer: an iterator that knows its story once it is over.
#[pyclass(frozen, module = "seawall.llm", weakref)]
pub struct Stream {
    shared: Arc<Shared>,
    pipe: Arc<Pipe>,
    /// The order, until the first piece is asked for; then the job.
    job: Mutex<Result<Arc<Order>, AbortHandle>>,
    story: Mutex<Option<Story>>,
}

/// What there is to tell once a stream is over.
struct Story {
    attempts: Py<PyAny>,
    alternative: u16,
    seconds: f64,
}

impl Stream {
    pub fn new(shared: Arc<Shared>, order: Arc<Order>) -> Stream {
        let held = Held { pieces: VecDeque::new(), end: None, reader: Reader::Nobody, over: false, reading: false };
        Stream {
            shared,
            pipe: Arc::new(Pipe { held: Mutex::new(held), room: Notify::new() }),
            job: Mutex::new(Ok(order)),
            story: Mutex::new(None),
        }
    }

    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let mut job = self.job.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Ok(order) = &*job
            && !self.pipe.lock().over
        {
            let (runtime, client) = runtime::get().map_err(|e| raise::api(py, &e, self.shared.table.bind(py), None))?;
            let running = runtime.spawn(run(self.shared.clone(), order.clone(), client, self.pipe.clone(), remaining::inherited(py)));
            *job = Err(running.abort_handle());
        }
        Ok(())
    }

    /// The next piece, the end (`StopIteration` or the call's error), or nothing yet.
    fn next_now(&self, py: Python<'_>) -> Option<PyResult<Chunk>> {
        let mut held = self.pipe.lock();
        if held.over {
            return Some(Err(PyStopIteration::new_err(())));
        }
        if let Some(delta) = held.pieces.pop_front() {
            let low = held.pieces.len() == HELD / 2;
            drop(held);
            if low {
                self.pipe.room.notify_one();
            }
            return Some(Ok(Chunk { delta }));
        }
        let end = held.end.take()?;
        held.over = true;
        drop(held);
        let error = self.shared.stream_error(py, &end);
        match self.shared.story(py, &end) {
            Ok((attempts, alternative, seconds)) => *self.lock_story() = Some(Story { attempts, alternative, seconds }),
            Err(failed) => return Some(Err(failed)),
        }
        Some(Err(error))
    }

    fn lock_story(&self) -> MutexGuard<'_, Option<Story>> {
        self.story.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[pymethods]
impl Stream {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The attempts made, once the stream is over; `None` before.
    #[getter]
    fn attempts(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.lock_story().as_ref().map(|s| s.attempts.clone_ref(py))
    }

    /// Which alternative answered (0 is the primary), once the stream is over.
    #[getter]
    fn alternative(&self) -> Option<u16> {
        self.lock_story().as_ref().map(|s| s.alternative)
    }

    /// Seconds from the first piece asked for to the end, once the stream is over.
    #[getter]
    fn seconds(&self) -> Option<f64> {
        self.lock_story().as_ref().map(|s| s.seconds)
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Chunk> {
        self.begin(py)?;
        if std::mem::replace(&mut self.pipe.lock().reading, true) {
            return Err(PyRuntimeError::new_err("the stream is being read by another thread: read it in one"));
        }
        let next = match self.next_now(py) {
            Some(next) => Ok(next),
            None => bridge::wait(
                py,
                |parker| {
                    let mut held = self.pipe.lock();
                    // What came in between was told to nobody.
                    if held.pieces.is_empty() && held.end.is_none() && !held.over {
                        held.reader = Reader::Thread(parker);
                    }
                },
                || self.next_now(py),
            ),
        };
        self.pipe.lock().reading = false;
        next.unwrap_or_else(|interrupt| {
            self.close();
            Err(interrupt)
        })
    }

    /// For the asynchronous reader: the next piece, or a future that is done once there is one.
    fn next_or_future(&self, py: Python<'_>) -> PyResult<(Option<Chunk>, Option<Py<PyAny>>)> {
        self.begin(py)?;
        if let Some(next) = self.next_now(py) {
            return next.map(|chunk| (Some(chunk), None));
        }
        let (future, sender) = bridge::future(py)?;
        let told = future.clone_ref(py);
        let ready = {
            let mut held = self.pipe.lock();
            let reader = Reader::Loop(sender, told);
            if held.pieces.is_empty() && held.end.is_none() && !held.over {
                held.reader = reader;
                Reader::Nobody
            } else {
                reader
            }
        };
        Pipe::wake(ready);
        Ok((None, Some(future)))
    }

    /// Gives the rest up: the request is cut and its connection freed.
    fn close(&self) {
        self.pipe.close();
        let job = self.job.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Err(running) = &*job {
            running.abort();
        }
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
