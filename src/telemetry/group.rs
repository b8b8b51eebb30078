//! Several processes as one: each writes its numbers into a file of a directory, and whoever is scraped puts them together. What a
//! process has counted stays when it is gone.
//!
//! A process is alive as long as it holds the lock of its `.alive` file, which the system gives back however it ends. The files of
//! those that are gone are put into one, under a lock that readers share, so that nothing is ever counted twice or not at all.

use super::names::{Kind, METRICS, Metric};
use super::snapshot::{Samples, Snapshot, Value};
use crate::drive::clock;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

/// What those have counted that are gone.
const GONE: &str = "seawall-gone.json";
const LOCK: &str = "seawall.lock";

/// The values of a sample's labels, and its own.
type Sample = (Vec<String>, Value);

/// What is in a file.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// The processes whose files are in this one.
    absorbed: Vec<String>,
    /// By name.
    metrics: Vec<(String, Vec<Sample>)>,
}

impl Kept {
    fn of(snapshot: &Snapshot, absorbed: Vec<String>) -> Kept {
        let list = |samples: &Samples| samples.iter().map(|(labels, value)| (labels.clone(), value.clone())).collect();
        let metrics = snapshot.families().map(|(metric, samples)| (metric.name.to_owned(), list(samples))).collect();
        Kept { absorbed, metrics }
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, samples) in &self.metrics {
            // A file of another version may have others.
            if let Some(metric) = METRICS.iter().find(|metric| metric.name == name) {
                let fits = |(labels, _): &&Sample| labels.len() == metric.labels.len();
                samples.iter().filter(fits).for_each(|(labels, value)| snapshot.add(metric, labels.clone(), value));
            }
        }
        snapshot
    }
}

/// A process's place in a directory.
pub struct Member {
    directory: PathBuf,
    id: String,
    alive: AtomicI32,
    /// What was written last.
    last: Mutex<Vec<u8>>,
}

fn locked(path: &Path, how: i32) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // SAFETY: locks an open descriptor.
    match unsafe { libc::flock(file.as_raw_fd(), how) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What lasts when a process is gone.
fn lasts(metric: &Metric) -> bool {
    metric.kind != Kind::Gauge
}

impl Member {
    /// Takes part from now on. The directory is made if there is none.
    pub fn join(directory: &Path) -> io::Result<Member> {
        fs::create_dir_all(directory)?;
        let id = format!("{}-{:x}", std::process::id(), clock::seed());
        // It is locked before anybody can take it for one that is gone.
        let making = directory.join(format!("seawall-{id}.making"));
        let alive = locked(&making, libc::LOCK_EX | libc::LOCK_NB)?;
        fs::rename(&making, directory.join(format!("seawall-{id}.alive")))?;
        let member = Member { directory: directory.to_owned(), id, alive: alive.into_raw_fd().into(), last: Mutex::default() };
        member.absorb()?;
        Ok(member)
    }

    /// Is alive no more. In a forked child, which has the parent's descriptor too: keeps the parent alive no longer.
    pub fn leave(&self) {
        let alive = self.alive.swap(-1, Ordering::AcqRel);
        if alive >= 0 {
            // SAFETY: closes, once, a descriptor that is ours.
            unsafe { libc::close(alive) };
        }
    }

    fn path(&self, id: &str, kind: &str) -> PathBuf {
        self.directory.join(format!("seawall-{id}.{kind}"))
    }

    /// Writes this process's numbers down, where they have changed.
    pub fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        let text = serde_json::to_vec(&Kept::of(snapshot, Vec::new()))?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != text {
            self.replace(&self.path(&self.id, "json"), &text)?;
            *last = text;
        }
        Ok(())
    }

    fn replace(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let making = path.with_extension(format!("{}.making", self.id));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&making)?;
        io::Write::write_all(&mut file, text)?;
        fs::rename(&making, path)
    }

    /// The others' files, with whether each is alive.
    fn others(&self) -> io::Result<Vec<(String, bool)>> {
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix("seawall-")?.strip_suffix(".alive")) else { continue };
            if id != self.id {
                others.push((id.to_owned(), self.is_alive(id)));
            }
        }
        Ok(others)
    }

    fn is_alive(&self, id: &str) -> bool {
        let Ok(file) = File::open(self.path(id, "alive")) else { return false };
        // SAFETY: locks an open descriptor, and lets it go with the file.
        unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) != 0 }
    }

    fn read(path: &Path) -> io::Result<Kept> {
        match fs::read(path) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
            Err(error) => Err(error),
        }
    }

    /// This process's numbers with those of all others, living and gone.
    pub fn together(&self, own: &Snapshot) -> io::Result<Snapshot> {
        let _reading = locked(&self.directory.join(LOCK), libc::LOCK_SH)?;
        let gone = Member::read(&self.directory.join(GONE))?;
        let mut whole = own.clone();
        whole.merge(&gone.snapshot(), lasts);
        for (id, is_alive) in self.others()?.into_iter().filter(|(id, _)| !gone.absorbed.contains(id)) {
            whole.merge(&Member::read(&self.path(&id, "json"))?.snapshot(), |metric| is_alive || lasts(metric));
        }
        Ok(whole)
    }

    /// Puts the files of those that are gone into one.
    pub fn absorb(&self) -> io::Result<()> {
        let Ok(_writing) = locked(&self.directory.join(LOCK), libc::LOCK_EX | libc::LOCK_NB) else {
            return Ok(()); // another does it, or the next time
        };
        let gone: Vec<String> = self.others()?.into_iter().filter(|(_, is_alive)| !is_alive).map(|(id, _)| id).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let there = Member::read(&self.directory.join(GONE))?;
        let mut whole = there.snapshot();
        for id in gone.iter().filter(|id| !there.absorbed.contains(id)) {
            whole.merge(&Member::read(&self.path(id, "json"))?.snapshot(), lasts);
        }
        // Whoever ends between these two leaves files that are known to be in it.
        self.replace(&self.directory.join(GONE), &serde_json::to_vec(&Kept::of(&whole, gone.clone()))?)?;
        for id in &gone {
            let _ = fs::remove_file(self.path(id, "json"));
            fs::remove_file(self.path(id, "alive"))?;
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}
