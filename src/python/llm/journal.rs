//! A journal read: what a batch has finished, as answers and exceptions.

use super::raise;
use super::reply::Reply;
use super::story::Story;
use super::vectors::embeddings;
use crate::guardrails::Tally;
use crate::journal::{JournalError, Reader, Row};
use crate::llm::record::{self, Recorded, Told};
use crate::python::errors::{class, ours};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};
use std::path::{Path, PathBuf};

/// A `JournalError`.
pub fn journal_error(py: Python<'_>, error: &JournalError) -> PyErr {
    class(py, "JournalError").and_then(|class| class.call1((&*error.0,))).map_or_else(|failed| failed, PyErr::from_value)
}

fn attempts<'py>(py: Python<'py>, told: &Told) -> PyResult<Bound<'py, PyAny>> {
    static ATTEMPTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let rows = PyList::empty(py);
    for attempt in &told.attempts {
        rows.append(attempt.clone())?;
    }
    ours(py, &ATTEMPTS, "seawall._attempts", "attempts")?.call1((rows,))
}

/// What a row says: the answer, or the exception of `table`'s classes.
pub fn given_back(py: Python<'_>, row: Row, table: &Bound<'_, PyAny>, path: PathBuf) -> PyResult<Py<PyAny>> {
    let at = row.at;
    match record::read(row) {
        Some(Recorded::Answer(reply, told)) => {
            let story = Story::retold(
                attempts(py, &told)?.unbind(),
                PyTuple::empty(py).into_any().unbind(),
                told.alternative,
                told.seconds,
                told.cached,
            );
            Ok(Py::new(py, Reply { reply, kept: None, story, asked_model: told.asked_model.into(), input: Tally::default() })?.into_any())
        }
        Some(Recorded::Vectors(reply, told)) => {
            embeddings(py, &reply, &attempts(py, &told)?, told.seconds, &PyTuple::empty(py).into_any(), told.cached)
        }
        Some(Recorded::Failure(error, told)) => {
            let raised = raise::api(py, &error, table, Some(&told.asked_model));
            raised.value(py).setattr("attempts", attempts(py, &told)?)?;
            Ok(raised.into_value(py).into_any())
        }
        None => {
            let text = format!("the journal {} holds something at {at} that no seawall wrote: begin a new one", path.display());
            Err(journal_error(py, &JournalError(text)))
        }
    }
}

/// Reads a journal, also while a batch writes it.
#[pyclass(frozen, module = "seawall")]
pub struct JournalReader {
    reader: Reader,
    path: PathBuf,
}

impl JournalReader {
    fn read<T: Send>(&self, py: Python<'_>, read: impl FnOnce(&Reader) -> Result<T, JournalError> + Send) -> PyResult<T> {
        py.detach(|| read(&self.reader)).map_err(|error| journal_error(py, &error))
    }
}

#[pymethods]
impl JournalReader {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<JournalReader> {
        let reader = py.detach(|| Reader::open(Path::new(&path))).map_err(|error| journal_error(py, &error))?;
        Ok(JournalReader { reader, path })
    }

    /// How many were answered, and how many failed.
    fn counts(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        self.read(py, Reader::counts).map(|counts| (counts.done, counts.failed))
    }

    /// The next results from that place on, in order: pairs of a place and an answer or an exception of `table`'s.
    #[pyo3(signature = (table, start, most, *, failures=false))]
    fn rows<'py>(
        &self,
        py: Python<'py>,
        table: &Bound<'py, PyAny>,
        start: u64,
        most: usize,
        failures: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for row in self.read(py, move |reader| reader.rows(start, most, failures))? {
            list.append((row.at, given_back(py, row, table, self.path.clone())?))?;
        }
        Ok(list)
    }
}
