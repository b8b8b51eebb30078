//! Forks beside threads that are inside SQLite: children use journals and caches' files of their own and of their parent's.

#![cfg(unix)]

mod folder;
mod forked;

use folder::Folder;
use forked::{begun, ended, forked};
use seawall::cache_file::{CacheFile, FileDigest};
use seawall::journal::{Journal, Reader, Row};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// A child that hangs is ended by then.
const LIMIT: u32 = 20;

fn cache(path: &Path) -> CacheFile {
    CacheFile::new(path.to_owned(), 1_000_000, 1 << 30, Box::new(|said| panic!("{said}")))
}

fn put(cache: &CacheFile, name: &str) {
    let value = name.repeat(50).into_bytes();
    cache.put(FileDigest::of(name.as_bytes()), FileDigest::of(b"asked"), 1, move || Some(value));
    assert!(cache.flush(Duration::from_secs(LIMIT.into())), "{name} is not in the file");
}

fn has(cache: &CacheFile, name: &str) -> bool {
    cache.find(&FileDigest::of(name.as_bytes()), 2).is_some_and(|found| found.value == name.repeat(50).into_bytes())
}

fn append(journal: &Journal, at: u64) {
    let (sender, told) = mpsc::channel();
    let row = Row { at, key: [1; 16], is_failure: false, answer: vec![7; 500], told: b"{}".to_vec() };
    journal.put(row, Box::new(move |written| sender.send(written).unwrap()));
    told.recv().unwrap().unwrap();
}

/// What a child does that ends with 0 if `work` does not panic.
fn in_time(work: impl FnOnce()) -> impl FnOnce() -> i32 {
    || {
        // SAFETY: it ends this process in time, whatever its threads do.
        unsafe { libc::alarm(LIMIT) };
        i32::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err())
    }
}

fn well(work: impl FnOnce()) -> bool {
    forked(in_time(work)) == 0
}

#[test]
fn a_child_finds_sqlite_free_whatever_its_parents_threads_do() {
    let folder = Folder::new();
    let (shared, over) = (folder.file("shared.db"), AtomicBool::new(false));
    let kept = cache(&shared);
    put(&kept, "parent");
    let until_over = |work: &dyn Fn(u64)| (0..).take_while(|_| !over.load(Ordering::Relaxed)).for_each(work);
    let journal = Journal::open(&folder.file("long.db")).unwrap();
    let child = |turn: u64| {
        let own = cache(&folder.file(&format!("{turn}.cache")));
        put(&own, "own");
        assert!(has(&own, "own") && has(&kept, "parent"));
        put(&kept, &format!("child {turn}"));
        assert!(has(&cache(&shared), &format!("child {turn}")));
        let journal = Journal::open(&folder.file(&format!("{turn}.db"))).unwrap();
        append(&journal, 0);
        journal.close();
        assert_eq!(Reader::open(journal.path()).unwrap().counts().unwrap().done, 1);
    };
    let all_well = std::thread::scope(|scope| {
        // Opened and closed all the time: that takes SQLite's locks the most.
        scope.spawn(|| until_over(&|turn| put(&cache(&shared), &format!("turn {turn}"))));
        scope.spawn(|| until_over(&|_| assert!(has(&kept, "parent"))));
        scope.spawn(|| until_over(&|turn| append(&Journal::open(&folder.file("parent.db")).unwrap(), turn)));
        scope.spawn(|| until_over(&|turn| append(&journal, turn)));
        let all_well = (0..20).all(|turn| well(|| child(turn)));
        over.store(true, Ordering::Relaxed);
        all_well
    });
    assert!(all_well);
    assert!(Reader::open(journal.path()).unwrap().counts().unwrap().done > 0);
    assert!((0..20).all(|turn| has(&kept, &format!("child {turn}"))));
}

#[test]
fn a_child_has_locks_of_its_own_on_its_parents_file() {
    let folder = Folder::new();
    let path = folder.file("run.db");
    let journal = Journal::open(&path).unwrap();
    append(&journal, 0);
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(LIMIT.into()))).unwrap();
    let child = begun(in_time(|| {
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.counts().unwrap().done, 1);
        theirs.write_all(b"1").unwrap();
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!(reader.counts().unwrap().done, 2);
    }));
    ours.read_exact(&mut [0]).unwrap();
    // Whoever closes a file last takes its log away: from under a child that thinks it has its parent's locks.
    journal.close();
    append(&Journal::open(&path).unwrap(), 1);
    ours.write_all(b"1").unwrap();
    assert_eq!(ended(child), 0);
}

#[test]
fn a_journal_is_its_openers_and_a_reader_is_whose_it_is() {
    let folder = Folder::new();
    let path = folder.file("run.db");
    let journal = Journal::open(&path).unwrap();
    append(&journal, 0);
    let reader = Reader::open(&path).unwrap();
    let us = std::process::id();
    let mut copy = Some(journal);
    assert!(well(|| {
        assert_eq!(reader.counts().unwrap().done, 1);
        let refused = Journal::open(&path).err().unwrap().0;
        assert!(refused.contains(&format!("is in use by process {us}")), "{refused}");
        let refused = copy.as_ref().unwrap().found(0, &[1; 16]).err().unwrap().0;
        assert!(refused.contains("before this process was forked"), "{refused}");
        drop(copy.take());
    }));
    let journal = copy.unwrap();
    append(&journal, 1);
    assert_eq!(reader.counts().unwrap().done, 2);
    journal.close();
    // Where it is gone, what comes is not written to another in silence.
    let journal = Journal::open(&path).unwrap();
    assert!(well(|| ()));
    std::fs::remove_file(&path).unwrap();
    let (sender, told) = mpsc::channel();
    let row = Row { at: 2, key: [1; 16], is_failure: false, answer: vec![], told: vec![] };
    journal.put(row, Box::new(move |written| sender.send(written).unwrap()));
    assert!(told.recv().unwrap().err().unwrap().0.contains("cannot be opened"));
}
