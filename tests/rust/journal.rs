//! The journal: what it keeps when it is broken off anywhere, and what it says of files that are none.

mod folder;

use folder::Folder;
use proptest::prelude::*;
use seawall::journal::{Counts, Journal, JournalError, Key, Reader, Row};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

fn row(at: u64) -> Row {
    Row { at, key: key(at), is_failure: at % 7 == 3, answer: at.to_string().repeat(40).into_bytes(), told: b"{}".to_vec() }
}

fn key(at: u64) -> Key {
    (u128::from(at) * 0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

/// Puts rows, and waits until they are told to be on disk.
fn put(journal: &Journal, places: impl IntoIterator<Item = u64>) -> Result<(), JournalError> {
    let (sender, told) = mpsc::channel();
    let count = places.into_iter().map(|at| {
        let sender = sender.clone();
        journal.put(row(at), Box::new(move |written| sender.send(written).unwrap()));
    });
    let count = count.count();
    told.iter().take(count).collect()
}

fn said(result: Result<impl Sized, JournalError>) -> String {
    result.err().map_or_else(|| "nothing".to_owned(), |error| error.0)
}

#[test]
fn what_was_put_is_found_again() {
    let folder = Folder::new();
    let path = folder.file("run.db");
    let journal = Journal::open(&path).unwrap();
    put(&journal, 0..100).unwrap();
    drop(journal);
    assert!(!folder.file("run.db-lock").exists());
    let journal = Journal::open(&path).unwrap();
    for at in 0..100 {
        assert_eq!(journal.found(at, &key(at)).unwrap(), Some(row(at)));
    }
    assert_eq!(journal.found(100, &key(100)).unwrap(), None);
    let error = said(journal.found(5, &key(6)));
    assert!(error.contains("another question at inputs[5]") && error.contains("begin a new journal"), "{error}");
    // A failure is replaced by what comes of it later.
    let mut again = row(3);
    again.is_failure = false;
    let (sender, told) = mpsc::channel();
    journal.put(again.clone(), Box::new(move |written| sender.send(written).unwrap()));
    told.recv().unwrap().unwrap();
    journal.close();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.counts().unwrap(), Counts { done: 87, failed: 13 });
    assert_eq!(reader.rows(0, 1000, false).unwrap().len(), 100);
    assert_eq!(reader.rows(4, 2, true).unwrap().iter().map(|row| row.at).collect::<Vec<_>>(), [10, 17]);
    assert_eq!(reader.row(3).unwrap(), Some(again));
}

#[test]
fn what_is_noted_of_a_run_stays() {
    let folder = Folder::new();
    let path = folder.file("run.db");
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.noted("asks", b"one").unwrap(), b"one");
    assert_eq!(journal.noted("asks", b"two").unwrap(), b"one");
}

#[test]
fn one_at_a_time_writes_and_others_may_read() {
    let folder = Folder::new();
    let path = folder.file("run.db");
    let journal = Journal::open(&path).unwrap();
    put(&journal, 0..10).unwrap();
    let error = said(Journal::open(&path));
    assert!(error.contains("is in use by another batch of this process"), "{error}");
    assert_eq!(Reader::open(&path).unwrap().counts().unwrap(), Counts { done: 9, failed: 1 });
    drop(journal);
    assert!(Journal::open(&path).is_ok());
}

#[cfg(unix)]
#[test]
fn answers_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.file("run.db");
    let journal = Journal::open(&path).unwrap();
    put(&journal, 0..10).unwrap();
    for entry in std::fs::read_dir(&folder.0).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn files_that_are_none_are_refused_and_left_as_they_are() {
    let folder = Folder::new();
    let text = folder.file("text.db");
    std::fs::write(&text, "no database, but a text that is longer than the head of one. ".repeat(40)).unwrap();
    assert!(said(Journal::open(&text)).contains("is no SQLite file"), "{}", said(Journal::open(&text)));
    let foreign = folder.file("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    assert!(said(Journal::open(&foreign)).contains("another program's SQLite file"));
    let later = folder.file("later.db");
    drop(Journal::open(&later).unwrap());
    rusqlite::Connection::open(&later).unwrap().pragma_update(None, "user_version", 9).unwrap();
    assert!(said(Journal::open(&later)).contains("has layout 9, and this version knows 1"));
    assert!(said(Reader::open(&later)).contains("has layout 9"));
    let missing = folder.file("no").join("run.db");
    assert!(said(Journal::open(&missing)).contains("cannot be written"), "{}", said(Journal::open(&missing)));
    assert!(said(Journal::open(&folder.0)).contains("is a directory"), "{}", said(Journal::open(&folder.0)));
    assert!(said(Reader::open(&folder.file("none.db"))).contains("is not there"));
    let before = std::fs::read(&text).unwrap();
    assert_eq!(std::fs::read(&text).unwrap(), before);
    // An empty file is as good as none.
    let empty = folder.file("empty.db");
    std::fs::write(&empty, "").unwrap();
    put(&Journal::open(&empty).unwrap(), 0..3).unwrap();
}

#[test]
fn a_damaged_file_is_told_and_nothing_panics() {
    let folder = Folder::new();
    let path = folder.file("run.db");
    let journal = Journal::open(&path).unwrap();
    put(&journal, 0..2000).unwrap();
    drop(journal);
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in bytes.iter_mut().skip(4096) {
        *byte = !*byte;
    }
    std::fs::write(&path, bytes).unwrap();
    let found = Journal::open(&path).and_then(|journal| (0..2000).try_for_each(|at| journal.found(at, &key(at)).map(drop)));
    assert!(said(found.clone()).contains("is damaged"), "{}", said(found));
}

/// The files of a journal as they are at this moment, in a folder of their own: what a machine that stops now would keep.
fn copied(from: &Path, log: Option<usize>) -> (Folder, PathBuf) {
    let folder = Folder::new();
    let to = folder.file("run.db");
    std::fs::copy(from, &to).unwrap();
    let mut name = from.as_os_str().to_owned();
    name.push("-wal");
    if let Ok(mut bytes) = std::fs::read(&name) {
        bytes.truncate(log.unwrap_or(usize::MAX));
        std::fs::write(folder.file("run.db-wal"), bytes).unwrap();
    }
    (folder, to)
}

fn log_length(path: &Path) -> usize {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |found| found.len() as usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_told_is_there_wherever_the_log_breaks_off(batches in prop::collection::vec(1..30_u64, 1..12), cut in 0.0..1.0f64, torn in any::<bool>()) {
        let folder = Folder::new();
        let path = folder.file("run.db");
        let journal = Journal::open(&path).unwrap();
        let mut told = Vec::new();
        let mut next = 0;
        for count in batches {
            put(&journal, next..next + count).unwrap();
            next += count;
            // How long the log has to be for these to be in it.
            told.push((log_length(&path), next));
        }
        let length = (cut * log_length(&path) as f64) as usize;
        let (_kept, copy) = copied(&path, Some(length));
        if torn && length > 0 {
            // The last page is half written.
            let mut name = copy.as_os_str().to_owned();
            name.push("-wal");
            let mut bytes = std::fs::read(&name).unwrap();
            let end = bytes.len();
            bytes[end.saturating_sub(100)..].fill(0xff);
            std::fs::write(&name, bytes).unwrap();
        }
        // What had been told when the log was so long.
        let sure = told.iter().filter(|(needed, _)| *needed + if torn { 200 } else { 0 } <= length).map(|(_, next)| *next).max().unwrap_or(0);
        let reopened = Journal::open(&copy).unwrap();
        let mut ended = false;
        for at in 0..next {
            match reopened.found(at, &key(at)).unwrap() {
                Some(found) => {
                    prop_assert_eq!(found, row(at));
                    prop_assert!(!ended, "{} is there and one before it is not", at);
                }
                None => {
                    prop_assert!(at >= sure, "{} was told to be on disk", at);
                    ended = true;
                }
            }
        }
        // It goes on from there.
        put(&reopened, 0..next + 5).unwrap();
        drop(reopened);
        prop_assert_eq!(Reader::open(&copy).unwrap().rows(0, usize::MAX >> 1, false).unwrap().len() as u64, next + 5);
    }
}
