//! One writer at a time. The lock goes with its process, however that ends.

use super::JournalError;
use crate::drive::process::Own;
use crate::sqlite::apart;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The right to write a journal: a lock on a file beside it, which is gone with the lock.
#[derive(Debug)]
pub struct Lock {
    beside: PathBuf,
    _file: File,
}

/// Those that this process holds: the system's locks are a process's own, and keep no other thread of it out.
fn held() -> MutexGuard<'static, Vec<Own<PathBuf>>> {
    static HELD: Mutex<Vec<Own<PathBuf>>> = Mutex::new(Vec::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lock {
    /// Takes it, or says who has it.
    pub fn take(journal: &Path) -> Result<Lock, JournalError> {
        let unable = |error: io::Error| JournalError::at(journal, format_args!("cannot be written: {error}"));
        let mut name = journal.file_name().unwrap_or_default().to_owned();
        name.push("-lock");
        let directory = journal.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside = directory
            .canonicalize()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => JournalError::at(journal, "cannot be written: its directory is not there, make it first"),
                _ => unable(error),
            })?
            .join(name);
        apart(|| {
            let mut held = held();
            if held.iter().any(|each| each.here() == Some(&beside)) {
                return Err(in_use(journal, "by another batch of this process"));
            }
            loop {
                let file = open(&beside).map_err(unable)?;
                if let Some(holder) = try_lock(&file).map_err(unable)? {
                    return Err(in_use(journal, &holder));
                }
                // Whoever had it may have taken the file away between our opening and our locking it.
                if is_there(&file, &beside) {
                    held.push(Own::new(beside.clone()));
                    return Ok(Lock { beside: beside.clone(), _file: file });
                }
            }
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        apart(|| {
            // While it is still locked: nobody else can have made this one its own.
            let _ = std::fs::remove_file(&self.beside);
            held().retain(|each| each.here().is_some_and(|held| *held != self.beside));
        });
    }
}

fn in_use(journal: &Path, holder: &str) -> JournalError {
    JournalError::at(journal, format_args!("is in use {holder}: wait until that is over, or give this batch a journal of its own"))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        options.share_mode(0);
    }
    options.open(path)
}

/// Locks it, or says who has. Not `flock`, which a forked child would hold on for its dead parent.
#[cfg(unix)]
fn try_lock(file: &File) -> io::Result<Option<String>> {
    use std::os::fd::AsRawFd;
    // SAFETY: zeroes are a valid `flock`; the descriptor is open.
    let mut wanted: libc::flock = unsafe { std::mem::zeroed() };
    (wanted.l_type, wanted.l_whence) = (libc::F_WRLCK as _, libc::SEEK_SET as _);
    // SAFETY: as above.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &wanted) } == 0 {
        return Ok(None);
    }
    let error = io::Error::last_os_error();
    if !matches!(error.raw_os_error(), Some(libc::EACCES | libc::EAGAIN)) {
        return Err(error);
    }
    // SAFETY: as above; it is filled in.
    let told = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut wanted) } == 0 && wanted.l_type != libc::F_UNLCK as libc::c_short;
    Ok(Some(if told { format!("by process {}", wanted.l_pid) } else { "by another process".to_owned() }))
}

/// Opened for nobody else, it is locked.
#[cfg(not(unix))]
fn try_lock(_file: &File) -> io::Result<Option<String>> {
    Ok(None)
}

#[cfg(unix)]
fn is_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_there(_file: &File, _path: &Path) -> bool {
    true
}
