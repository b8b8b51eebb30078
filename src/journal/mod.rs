//! What a batch has finished, on disk: an SQLite file to which one thread writes. What arrives together is committed together, and
//! nothing is told as finished before it is there.
//!
//! A row is an input's place, a digest of what was asked, and what came of it, as bytes: what they mean is the business of
//! whoever wrote them. `lock` keeps a second writer out, `file` opens and reads, `writer` commits.

mod file;
mod lock;
mod writer;

pub use file::Reader;
pub use lock::Lock;
pub use writer::{Committed, Journal};

use crate::sqlite::Failure;
use std::fmt;
use std::path::Path;

/// The digest of what was asked for at a place.
pub type Key = [u8; 16];

/// What is known of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place among the inputs.
    pub at: u64,
    /// What was asked.
    pub key: Key,
    /// Whether it ended in a failure.
    pub is_failure: bool,
    /// The answer as it came; empty for a failure.
    pub answer: Vec<u8>,
    /// What else there is to tell of it.
    pub told: Vec<u8>,
}

/// How many are finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered.
    pub done: u64,
    /// Failed.
    pub failed: u64,
}

/// Why a journal cannot be used, in words: what is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalError(pub String);

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JournalError {}

impl JournalError {
    fn at(path: &Path, what: impl fmt::Display) -> JournalError {
        JournalError(format!("the journal {} {what}", path.display()))
    }

    /// What SQLite says, put so that one knows what to do.
    fn of(path: &Path, failure: Failure) -> JournalError {
        use rusqlite::ErrorCode as Code;
        let error = match failure {
            Failure::Sqlite(error) => error,
            Failure::Unfit(what) => return JournalError::at(path, what),
        };
        let what = match error.sqlite_error_code() {
            Some(Code::NotADatabase) => "is no SQLite file: give another path, or move that file away".to_owned(),
            Some(Code::DatabaseCorrupt) => {
                "is damaged: move it away (`sqlite3 FILE .recover` may save what is readable) and begin a new one".to_owned()
            }
            Some(Code::DiskFull) => {
                "cannot be written, the disk is full: make room and run the same batch again, it goes on from what is there".to_owned()
            }
            Some(Code::ReadOnly) => "cannot be written: the file or its directory is read-only".to_owned(),
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
                "is being written by another program: run one at a time, or give each a journal of its own".to_owned()
            }
            Some(Code::CannotOpen) => "cannot be opened: is its directory there, and may it be read and written?".to_owned(),
            _ => format!("cannot be used: {error}"),
        };
        JournalError::at(path, what)
    }
}
