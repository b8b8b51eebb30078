//! The thread that commits.

use super::file::{self, Reader};
use super::lock::Lock;
use super::{JournalError, Key, Row};
use crate::drive::process::Own;
use crate::sqlite::Database;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Told when a row is on disk, or why it is not; from the writer's thread.
pub type Committed = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Rows that are committed at once, at the most: whoever waits for the first waits for all.
const TOGETHER: usize = 1024;

/// A journal that is being written. In a forked child it is nobody's: nothing there touches the parent's file.
pub struct Journal {
    path: PathBuf,
    /// Until it is closed.
    open: Own<Mutex<Option<Open>>>,
}

struct Open {
    reader: Reader,
    /// Whether there was anything in it at first: what this run writes is not looked up.
    is_new: bool,
    sender: Sender<(Row, Committed)>,
    thread: JoinHandle<()>,
    // After the connections.
    _lock: Lock,
}

impl Journal {
    /// Opens it for writing, or says why not.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let lock = Lock::take(path)?;
        let database = file::open(path)?;
        let reader = Reader::open(path)?;
        let is_new = reader.counts()? == super::Counts::default();
        let (sender, receiver) = mpsc::channel();
        let named = std::thread::Builder::new().name("seawall-journal".to_owned());
        let place = path.to_owned();
        let run = move || commit_all(&place, &database, &receiver);
        #[cfg(unix)]
        let begun = crate::drive::signals::away(|| named.spawn(run));
        #[cfg(not(unix))]
        let begun = named.spawn(run);
        let thread = begun.map_err(|error| JournalError::at(path, format_args!("has no thread to write it: {error}")))?;
        let open = Open { reader, is_new, sender, thread, _lock: lock };
        Ok(Journal { path: path.to_owned(), open: Own::new(Mutex::new(Some(open))) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `None` in a forked child.
    fn lock(&self) -> Option<MutexGuard<'_, Option<Open>>> {
        Some(self.open.here()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with<T>(&self, body: impl FnOnce(&mut Open) -> Result<T, JournalError>) -> Result<T, JournalError> {
        let Some(mut held) = self.lock() else {
            return Err(JournalError::at(&self.path, "was opened before this process was forked: open it here"));
        };
        match &mut *held {
            Some(open) => body(open),
            None => Err(JournalError::at(&self.path, "was closed")),
        }
    }

    /// What earlier runs know of an input. One whose question has changed is an error: its answer would be another question's.
    pub fn found(&self, at: u64, key: &Key) -> Result<Option<Row>, JournalError> {
        let found = self.with(|open| if open.is_new { Ok(None) } else { open.reader.row(at) })?;
        match found {
            Some(row) if row.key != *key => Err(JournalError::at(
                &self.path,
                format_args!(
                    "has another question at inputs[{at}]: the inputs have changed since it was begun. Give those again (more may \
                     follow them), or begin a new journal"
                ),
            )),
            found => Ok(found),
        }
    }

    /// Notes what the run is, or gives back what an earlier one noted.
    pub fn noted(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, JournalError> {
        if let Some(noted) = self.with(|open| open.reader.noted(name))? {
            return Ok(noted);
        }
        // The writer's connection is busy with rows only later.
        file::note(&self.path, &file::open(&self.path)?, name, value)?;
        Ok(value.to_owned())
    }

    /// Hands a row over; `committed` is told once it is on disk.
    pub fn put(&self, row: Row, committed: Committed) {
        let mut task = Some((row, committed));
        let handed = self.with(|open| {
            if let Some(task) = task.take() {
                // The thread ends only when all senders have gone.
                let _ = open.sender.send(task);
            }
            Ok(())
        });
        if let (Err(error), Some((_, committed))) = (handed, task) {
            committed(Err(error));
        }
    }

    /// Commits what was handed over, and lets the file go.
    pub fn close(&self) {
        // Held meanwhile: whoever closes it too finds it closed.
        let Some(mut held) = self.lock() else { return };
        if let Some(Open { reader, sender, thread, _lock, .. }) = held.take() {
            drop(sender);
            let _ = thread.join();
            drop(reader);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn commit_all(path: &Path, database: &Database, receiver: &Receiver<(Row, Committed)>) {
    while let Ok((row, committed)) = receiver.recv() {
        let (mut rows, mut told) = (vec![row], vec![committed]);
        while rows.len() < TOGETHER
            && let Ok((row, committed)) = receiver.try_recv()
        {
            rows.push(row);
            told.push(committed);
        }
        let written = file::write(path, database, &rows);
        for committed in told {
            committed(written.clone());
        }
    }
}
