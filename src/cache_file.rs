//! Answers in a file, for caches that outlive their process and are shared by several: SQLite, looked into on a miss and written to
//! by a thread of its own. Whatever is wrong with the file is a miss, is told once, and is nobody's error.

use crate::drive::process::Own;
#[cfg(unix)]
use crate::drive::signals;
use crate::sqlite::{Database, Failure, apart};
use ring::digest::{Context, SHA256};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use std::cell::LazyCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// `SWLC`: says that a database is one of ours.
const APPLICATION: i32 = 0x5357_4c43;
/// Of the tables and of what is in them. A file of a later one is left alone.
const VERSION: i32 = 1;
/// More answers than these waiting to be written are not.
const WAITING: usize = 1024;
/// So long a reader waits for a file that another process holds, and the writer.
const READS: Duration = Duration::from_millis(250);
const WRITES: Duration = Duration::from_secs(5);
/// What a row takes up beside its answer, about.
const ROW: usize = 200;

const TABLES: &str = "
    CREATE TABLE answer (key BLOB PRIMARY KEY, asked BLOB NOT NULL, stored INTEGER NOT NULL, used INTEGER NOT NULL,
                         bytes INTEGER NOT NULL, value BLOB NOT NULL, sum BLOB NOT NULL);
    CREATE INDEX by_use ON answer (used);
    CREATE INDEX by_question ON answer (asked);
    CREATE TABLE size (items INTEGER NOT NULL, bytes INTEGER NOT NULL);
    INSERT INTO size VALUES (0, 0);
    CREATE TRIGGER grown AFTER INSERT ON answer BEGIN UPDATE size SET items = items + 1, bytes = bytes + new.bytes; END;
    CREATE TRIGGER shrunk AFTER DELETE ON answer BEGIN UPDATE size SET items = items - 1, bytes = bytes - old.bytes; END;
";

/// A digest that means the same in every process.
#[derive(Clone)]
pub struct FileDigest(Context);

/// What an answer is kept under in a file.
pub type FileKey = [u8; 32];

impl Default for FileDigest {
    fn default() -> FileDigest {
        FileDigest(Context::new(&SHA256))
    }
}

impl FileDigest {
    /// Takes a part in, and where it ends.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The digest of all parts.
    pub fn key(self) -> FileKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.finish().as_ref());
        key
    }

    /// The digest of one part.
    pub fn of(bytes: &[u8]) -> FileKey {
        let mut digest = FileDigest::default();
        digest.part(bytes);
        digest.key()
    }
}

/// An answer that was in the file.
pub struct Found {
    /// As it was given.
    pub value: Vec<u8>,
    /// Since when, in nanoseconds since 1970.
    pub stored: u64,
}

/// Gives the bytes of an answer; `None` if they are nothing for a file.
type Make = Box<dyn FnOnce() -> Option<Vec<u8>> + Send>;

enum Order {
    Put { key: FileKey, asked: FileKey, stored: u64, value: LazyCell<Option<Vec<u8>>, Make> },
    Used(FileKey, u64),
    Drop(FileKey),
    Forget(Option<FileKey>, SyncSender<usize>),
}

/// What has gone wrong, each told once.
#[derive(Clone, Copy)]
enum Trouble {
    /// It cannot be used at all.
    Unusable = 1,
    Locked = 2,
    Unwritable = 4,
    Damaged = 8,
    Busy = 16,
}

/// Who hears what has gone wrong.
pub type Teller = Box<dyn Fn(&str) + Send + Sync>;

struct Shared {
    path: PathBuf,
    max_items: usize,
    max_bytes: usize,
    told: AtomicU32,
    teller: Teller,
}

/// Orders that are not carried out yet.
#[derive(Default)]
struct Pending {
    count: Mutex<usize>,
    none: Condvar,
}

/// The way to the thread that writes.
#[derive(Clone)]
struct Writer {
    orders: SyncSender<Order>,
    pending: Arc<Pending>,
}

/// Answers in one file.
pub struct CacheFile {
    shared: Arc<Shared>,
    reader: Database,
    /// Locked apart from forks only, as `PENDING` is.
    writer: Mutex<Option<Own<Writer>>>,
}

static PENDING: Mutex<Vec<Own<Weak<Pending>>>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_over(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

impl Shared {
    fn tell(&self, trouble: Trouble, what: &str) {
        if self.told.fetch_or(trouble as u32, Ordering::AcqRel) & trouble as u32 == 0 {
            (self.teller)(&format!("the cache's file {} {what}", self.path.display()));
        }
    }

    fn is_unusable(&self) -> bool {
        self.told.load(Ordering::Acquire) & Trouble::Unusable as u32 != 0
    }

    /// Says what it means that something failed.
    fn failed(&self, failure: &Failure, is_write: bool) {
        let error = match failure {
            Failure::Sqlite(error) => error,
            Failure::Unfit(what) => return self.tell(Trouble::Unusable, what),
        };
        match error.sqlite_error_code() {
            _ if is_over(error) => self.tell(Trouble::Unusable, &format!("is damaged, and is not used: {error}; delete it")),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                self.tell(Trouble::Locked, "is held by another process for too long: what it has and would get is missing meanwhile");
            }
            _ if is_write => self.tell(Trouble::Unwritable, &format!("cannot be written, so that new answers are in memory only: {error}")),
            _ => self.tell(Trouble::Unusable, &format!("cannot be read, and is not used: {error}")),
        }
    }

    fn database(self: &Arc<Shared>, patience: Duration) -> Database {
        let shared = self.clone();
        Database::new(patience, move || shared.open())
    }

    fn open(&self) -> Result<Connection, Failure> {
        let _ = self.made_private();
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA synchronous = NORMAL;")?;
        let whose = |connection: &Connection| -> rusqlite::Result<(i32, i32, i32)> {
            let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get(0));
            Ok((number("application_id")?, number("user_version")?, number("schema_version")?))
        };
        if whose(&connection)? == (0, 0, 0) {
            // A new file. Two that find it so at once take turns, and the second finds it made.
            connection.pragma_update(None, "journal_mode", "WAL")?;
            let begun = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            if whose(&begun)? == (0, 0, 0) {
                begun.execute_batch(TABLES)?;
                begun.pragma_update(None, "application_id", APPLICATION)?;
                begun.pragma_update(None, "user_version", VERSION)?;
            }
            begun.commit()?;
        }
        match whose(&connection)? {
            (APPLICATION, VERSION, _) => Ok(connection),
            (APPLICATION, later, _) => {
                Err(Failure::Unfit(format!("is of a later version of seawall (form {later}, here {VERSION}), and is not used")))
            }
            _ => Err(Failure::Unfit("is a database of something else, and is not used: give the cache a file of its own".to_owned())),
        }
    }

    /// A new file is its owner's alone; SQLite makes those beside it as this one is.
    #[cfg(unix)]
    fn made_private(&self) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path).map(drop)
    }

    #[cfg(not(unix))]
    fn made_private(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn sum(key: &FileKey, stored: u64, value: &[u8]) -> FileKey {
        let mut digest = FileDigest::default();
        for part in [b"seawall answer 1".as_slice(), key, &stored.to_le_bytes(), value] {
            digest.part(part);
        }
        digest.key()
    }

    fn write(self: &Arc<Shared>, orders: &Receiver<Order>, pending: &Pending) {
        let database = self.database(WRITES);
        while let Ok(first) = orders.recv() {
            let batch: Vec<Order> = std::iter::once(first).chain(orders.try_iter().take(WAITING)).collect();
            if !self.is_unusable() {
                for order in &batch {
                    if let Order::Put { value, .. } = order {
                        LazyCell::force(value); // a fork need not wait for that
                    }
                }
                match database.with(|connection| self.carry_out(connection, &batch)) {
                    // Nobody may be waiting any more.
                    Ok(forgotten) => forgotten.into_iter().for_each(|(told, gone)| _ = told.try_send(gone)),
                    Err(failure) => self.failed(&failure, true),
                }
            }
            *locked(&pending.count) -= batch.len();
            pending.none.notify_all();
        }
    }

    fn carry_out<'b>(&self, connection: &mut Connection, batch: &'b [Order]) -> rusqlite::Result<Vec<(&'b SyncSender<usize>, usize)>> {
        let mut answers = Vec::new();
        let begun = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for order in batch {
            match order {
                Order::Put { key, asked, stored, value } => {
                    let Some(value) = &**value else { continue };
                    let bytes = value.len() + ROW;
                    if bytes > self.max_bytes {
                        continue;
                    }
                    begun.prepare("DELETE FROM answer WHERE key = ?")?.execute(params![key])?;
                    let sum = Shared::sum(key, *stored, value);
                    begun.prepare("INSERT INTO answer VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6)")?.execute(params![
                        key,
                        asked,
                        *stored as i64,
                        bytes as i64,
                        value,
                        sum
                    ])?;
                }
                Order::Used(key, when) => {
                    begun.prepare("UPDATE answer SET used = ? WHERE key = ?")?.execute(params![*when as i64, key])?;
                }
                Order::Drop(key) => _ = begun.prepare("DELETE FROM answer WHERE key = ?")?.execute(params![key])?,
                Order::Forget(asked, told) => {
                    let gone = match asked {
                        Some(asked) => begun.execute("DELETE FROM answer WHERE asked = ?", params![asked])?,
                        None => begun.execute("DELETE FROM answer", [])?,
                    };
                    answers.push((told, gone));
                }
            }
        }
        loop {
            let (items, bytes): (i64, i64) =
                begun.prepare("SELECT items, bytes FROM size")?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (over, most) = (items - self.max_items as i64, i64::try_from(self.max_bytes).unwrap_or(i64::MAX));
            if items == 0 || (over <= 0 && bytes <= most) {
                break;
            }
            begun
                .prepare("DELETE FROM answer WHERE key IN (SELECT key FROM answer ORDER BY used LIMIT ?)")?
                .execute(params![over.max(1)])?;
        }
        begun.commit()?;
        Ok(answers)
    }
}

impl CacheFile {
    /// Answers in that file, at most so many, of so many bytes together. It is opened when it is first looked into.
    pub fn new(path: PathBuf, max_items: usize, max_bytes: usize, teller: Teller) -> CacheFile {
        let shared = Arc::new(Shared { path, max_items, max_bytes, told: AtomicU32::new(0), teller });
        let reader = shared.database(READS);
        CacheFile { shared, reader, writer: Mutex::new(None) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The answer that is there under a key, if it is whole.
    pub fn find(&self, key: &FileKey, now: u64) -> Option<Found> {
        if self.shared.is_unusable() {
            return None;
        }
        let found = self.read(key).unwrap_or_else(|failure| {
            self.shared.failed(&failure, false);
            None
        });
        let (stored, value, sum) = found?;
        let stored = stored as u64;
        if sum != Shared::sum(key, stored, &value) {
            self.shared.tell(Trouble::Damaged, "has an answer in it that is damaged: such answers are left out");
            self.order(Order::Drop(*key));
            return None;
        }
        self.order(Order::Used(*key, now));
        Some(Found { value, stored })
    }

    #[allow(clippy::type_complexity)] // a row that is taken apart at once
    fn read(&self, key: &FileKey) -> Result<Option<(i64, Vec<u8>, Vec<u8>)>, Failure> {
        self.reader.with(|connection| {
            let mut asked = connection.prepare("SELECT stored, value, sum FROM answer WHERE key = ?")?;
            asked.query_row(params![key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
    }

    /// Keeps an answer; `make` gives it, later and elsewhere.
    pub fn put(&self, key: FileKey, asked: FileKey, stored: u64, make: impl FnOnce() -> Option<Vec<u8>> + Send + 'static) {
        self.order(Order::Put { key, asked, stored, value: LazyCell::new(Box::new(make)) });
    }

    /// Forgets the answers to what was asked so, or all; how many there were. It waits for that.
    pub fn forget(&self, asked: Option<FileKey>) -> usize {
        let (told, gone) = sync_channel(1);
        self.order(Order::Forget(asked, told));
        gone.recv_timeout(WRITES).unwrap_or(0)
    }

    fn order(&self, order: Order) {
        if self.shared.is_unusable() {
            return;
        }
        let Some(Writer { orders, pending }) = self.writer() else { return };
        *locked(&pending.count) += 1;
        if let Err(refused) = orders.try_send(order) {
            *locked(&pending.count) -= 1;
            if let TrySendError::Full(Order::Put { .. }) = refused {
                self.shared.tell(Trouble::Busy, "is slower than answers come: some of them are in memory only");
            }
        }
    }

    /// This process's, which is begun if there is none; `None` where no thread is to be had, and nothing is written.
    fn writer(&self) -> Option<Writer> {
        apart(|| {
            let mut held = locked(&self.writer);
            if let Some(writer) = held.as_ref().and_then(Own::here) {
                return Some(writer.clone());
            }
            let (sender, orders) = sync_channel(WAITING);
            let writer = Writer { orders: sender, pending: Arc::default() };
            let (shared, pending) = (self.shared.clone(), writer.pending.clone());
            let begin = || std::thread::Builder::new().name("seawall-cache".to_owned()).spawn(move || shared.write(&orders, &pending));
            #[cfg(unix)]
            let begun = signals::away(begin);
            #[cfg(not(unix))]
            let begun = begin();
            begun.ok()?;
            let mut all = locked(&PENDING);
            all.retain(|each| each.here().is_some_and(|each| each.strong_count() > 0));
            all.push(Own::new(Arc::downgrade(&writer.pending)));
            *held = Some(Own::new(writer.clone()));
            Some(writer)
        })
    }

    /// Waits until all that was ordered is in the file, for so long at most; whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let writer = apart(|| locked(&self.writer).as_ref().and_then(Own::here).cloned());
        writer.is_none_or(|writer| writer.pending.flush(limit))
    }
}

impl Pending {
    fn flush(&self, limit: Duration) -> bool {
        let waited = self.none.wait_timeout_while(locked(&self.count), limit, |count| *count > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Waits until all files have what was ordered, at the end of a program.
pub fn flush_all(limit: Duration) {
    let all: Vec<_> = apart(|| locked(&PENDING).iter().filter_map(Own::here).filter_map(Weak::upgrade).collect());
    all.iter().for_each(|pending| _ = pending.flush(limit));
}
