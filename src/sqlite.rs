//! SQLite beside forks. A child has none of its parent's threads: a lock of SQLite's that one of them holds is taken for ever there. And
//! SQLite knows the files that are open by process: a child that opens one of its parent's takes the parent's locks for its own.
//!
//! So whoever uses SQLite is inside of [`apart`]. A fork waits until nobody is, closes every connection, and both processes open theirs
//! again when they need one: no child ever has a connection of its parent's.

use rusqlite::{Connection, ErrorCode};
use std::fmt;
#[cfg(unix)]
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many threads are inside, and `FORKING`. Nobody is noted as waiting, so a child finds nobody to wake: forks are rare, who waits looks again.
static INSIDE: AtomicU32 = AtomicU32::new(0);
const FORKING: u32 = 1 << 31;
const LOOK: Duration = Duration::from_micros(50);

/// So long a database that another process holds is left alone, from outside: a fork does not wait for that.
const AGAIN: Duration = Duration::from_millis(2);

type Slot = Mutex<Option<Connection>>;

/// All that may be open. Locked inside only, as the slots are.
static ALL: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody forks, and makes that so.
fn unless_forking(then: impl Fn(u32) -> u32) {
    let next = |now: u32| (now & FORKING == 0).then(|| then(now));
    while INSIDE.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).is_err() {
        sleep(LOOK);
    }
}

/// Runs what uses SQLite, or locks what a child has to find free. A fork waits for its end, and it for the end of a fork. It must wait for
/// nothing that a thread that forks may hold, which is the interpreter above all, and not be inside of itself.
pub fn apart<T>(body: impl FnOnce() -> T) -> T {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            INSIDE.fetch_sub(1, Ordering::Release);
        }
    }
    attend_forks();
    unless_forking(|inside| inside + 1);
    let _inside = Inside;
    body()
}

/// Handlers run before a fork in the order opposite to that in which they were set: one that waits for a thread which may use SQLite is set after this.
pub fn attend_forks() {
    #[cfg(unix)]
    {
        static HANDLERS: Once = Once::new();
        // SAFETY: the handlers live as long as the process. They fail only for want of memory.
        HANDLERS.call_once(|| _ = unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) });
    }
}

#[cfg(unix)]
extern "C" fn before() {
    unless_forking(|inside| inside | FORKING);
    while INSIDE.load(Ordering::Acquire) != FORKING {
        sleep(LOOK);
    }
    locked(&ALL).iter().filter_map(Weak::upgrade).for_each(|slot| close(&slot));
}

#[cfg(unix)]
extern "C" fn after() {
    INSIDE.store(0, Ordering::Release);
}

fn close(slot: &Slot) {
    if let Some(connection) = locked(slot).take() {
        // Nothing is under way on it, so it closes; what does not is left to the end of the process.
        let _ = connection.close().map_err(std::mem::forget);
    }
}

/// Why a database cannot be used.
#[derive(Debug)]
pub enum Failure {
    /// What SQLite says.
    Sqlite(rusqlite::Error),
    /// It is not what it should be, in words.
    Unfit(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}

impl Failure {
    fn is_busy(&self) -> bool {
        matches!(self, Failure::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
    }
}

type Open = Box<dyn Fn() -> Result<Connection, Failure> + Send + Sync>;

/// A database, and the connection that this process has to it. It is opened at its first use and at the first one after a fork.
pub struct Database {
    slot: Arc<Slot>,
    open: Open,
    patience: Duration,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Database {
    /// One that `open` opens, inside of [`apart`] and without a busy handler, in whatever directory the process is by then. `patience` is how
    /// long a use waits for other processes.
    pub fn new(patience: Duration, open: impl Fn() -> Result<Connection, Failure> + Send + Sync + 'static) -> Database {
        let slot = Arc::new(Slot::default());
        apart(|| {
            let mut all = locked(&ALL);
            all.retain(|slot| slot.strong_count() > 0);
            all.push(Arc::downgrade(&slot));
        });
        Database { slot, open: Box::new(open), patience }
    }

    /// Runs `body` on the connection: all of a transaction, or nothing that lasts. While another process holds the file it is run again.
    pub fn with<T>(&self, mut body: impl FnMut(&mut Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let until = Instant::now() + self.patience;
        loop {
            let done: Result<T, Failure> = apart(|| {
                let mut slot = locked(&self.slot);
                let connection = match &mut *slot {
                    Some(connection) => connection,
                    none => none.insert((self.open)()?),
                };
                Ok(body(connection)?)
            });
            match done {
                Err(failure) if failure.is_busy() && Instant::now() < until => sleep(AGAIN),
                done => return done,
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        apart(|| close(&self.slot));
    }
}
