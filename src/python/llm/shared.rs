//! What all calls of a route share with Python, and what Python gets for a call that is over.

use super::batch::Work;
use super::finished::Finished;
use super::json;
use super::raise;
use super::reply::Reply;
use super::story::Story;
use super::vectors::embeddings;
use crate::drive::clock;
use crate::llm::chat::ChatReply;
use crate::llm::client::Client;
use crate::llm::embeddings::EmbeddingsReply;
use crate::llm::models::ModelsReply;
use crate::llm::route::{Answer, Failure, Route as Core};
use crate::llm::runtime;
use crate::llm::screen;
use crate::python::story;
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::sync::Arc;
use tokio::runtime::Handle;

/// What all calls of a route share with Python.
pub struct Shared {
    pub core: Arc<Core>,
    pub table: Py<PyAny>,
}

impl Shared {
    /// What carries the calls of this process.
    pub fn live(&self, py: Python<'_>) -> PyResult<(Handle, Client)> {
        runtime::get().map_err(|error| raise::api(py, &error, self.table.bind(py), None))
    }

    /// The exception of one attempt.
    pub fn of_attempt(&self, py: Python<'_>, failure: &Failure, model: Option<&str>) -> PyErr {
        raise::failure(py, failure, &self.core, self.table.bind(py), model)
    }

    /// The exception behind a finished call that failed.
    fn raised(&self, py: Python<'_>, finished: &Finished, failure: &Failure) -> PyResult<PyErr> {
        if let Some(interrupt) = finished.interrupt.as_ref().and_then(|raised| raised.downcast_ref::<PyErr>()) {
            return Ok(interrupt.clone_ref(py));
        }
        let table = self.table.bind(py);
        let model = finished.attempts.first().and_then(|a| self.core.legs.get(a.target.0)).map(|l| &*l.model);
        let error = raise::failure(py, failure, &self.core, table, model);
        let others = finished.others.iter().map(|o| raise::failure(py, o, &self.core, table, None)).collect();
        let attempts = raise::attempts(py, &finished.attempts, &self.core.legs, finished.begun)?;
        raise::tell(py, &error, others, &attempts, finished.exhausted, model.unwrap_or("the call"))?;
        // An exception that takes no attributes goes without its story.
        let _ = error.value(py).setattr("story", story::steps(py, &finished.notes)?);
        Ok(error)
    }

    fn reply(&self, py: Python<'_>, finished: &mut Finished, reply: Arc<ChatReply>) -> PyResult<Py<PyAny>> {
        let story = self.story(finished);
        let asked_model = self.core.legs.get(story.alternative).map_or_else(|| "".into(), |l| l.model.clone());
        let input = std::mem::take(&mut finished.screened);
        let kept = (!input.vault.is_empty()).then(|| reply.clone());
        let reply = kept.as_ref().map_or(reply, |kept| Arc::new(screen::restored(kept, self.core.rails.as_deref(), &input.vault)));
        Ok(Py::new(py, Reply { reply, kept, story, asked_model, input })?.into_any())
    }

    fn embeddings(&self, py: Python<'_>, finished: &Finished, reply: &EmbeddingsReply) -> PyResult<Py<PyAny>> {
        let attempts = raise::attempts(py, &finished.attempts, &self.core.legs, finished.begun)?;
        let steps = story::steps(py, &finished.notes)?;
        embeddings(py, reply, &attempts, finished.took.as_secs_f64(), &steps, finished.found.is_some())
    }

    fn models(&self, py: Python<'_>, reply: &ModelsReply) -> PyResult<Py<PyAny>> {
        let models = PyList::empty(py);
        for model in &reply.models {
            models.append(json::parsed(py, model)?)?;
        }
        Ok(models.into_any().unbind())
    }

    /// What Python gets for a finished call.
    pub fn convert(&self, py: Python<'_>, mut finished: Finished) -> PyResult<Py<PyAny>> {
        match &finished.result {
            Ok(Answer::Chat(reply)) => {
                let reply = reply.clone();
                self.reply(py, &mut finished, reply)
            }
            Ok(Answer::Embeddings(reply)) => self.embeddings(py, &finished, reply),
            Ok(Answer::Models(reply)) => self.models(py, reply),
            Ok(Answer::Stream(..) | Answer::Streamed) => Ok(py.None()),
            Err(failure) => Err(self.raised(py, &finished, failure)?),
        }
    }

    /// The results of a batch that is over, in the order of its contents.
    pub fn results(&self, py: Python<'_>, work: &Work, refused: Vec<Option<PyErr>>) -> PyResult<Py<PyList>> {
        let finished = std::mem::take(&mut *work.lock());
        let mut finished = finished.into_iter();
        let list = PyList::empty(py);
        for refusal in refused {
            let result = match refusal {
                Some(error) => Err(error),
                None => {
                    let finished = finished.next().flatten().unwrap_or_else(|| Finished::panicked(clock::now()));
                    let is_interrupted = finished.interrupt.is_some();
                    match self.convert(py, finished) {
                        Err(interrupt) if is_interrupted => return Err(interrupt),
                        result => result,
                    }
                }
            };
            match result {
                Ok(value) => list.append(value)?,
                Err(error) => list.append(error.into_value(py))?,
            }
        }
        Ok(list.unbind())
    }

    /// The story of a finished call.
    pub fn story(&self, finished: &mut Finished) -> Story {
        let (attempts, notes) = (std::mem::take(&mut finished.attempts), std::mem::take(&mut finished.notes));
        Story::new(attempts, finished.found, notes, finished.begun, finished.took, self.core.legs.clone())
    }

    /// The exception of a failed stream.
    pub fn stream_error(&self, py: Python<'_>, finished: &Finished) -> PyErr {
        match &finished.result {
            Err(failure) => self.raised(py, finished, failure).unwrap_or_else(|error| error),
            Ok(_) => pyo3::exceptions::PyStopIteration::new_err(()),
        }
    }
}
