//! The file: what is in it, how it is made, and how it is read.

use super::{Counts, JournalError, Key, Row};
use crate::sqlite::{Database, Failure};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// "swj1": by this it is known as ours.
const APPLICATION: i32 = 0x7377_6a31;
/// The layout's number. A larger one is a later version's.
const LAYOUT: i32 = 1;

const TABLES: &str = "
    CREATE TABLE run (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE items (
        at INTEGER PRIMARY KEY,
        key BLOB NOT NULL,
        is_failure INTEGER NOT NULL,
        answer BLOB NOT NULL,
        told BLOB NOT NULL
    );
    CREATE INDEX failures ON items (at) WHERE is_failure;
";

/// How long a use waits for another program that looks into the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// One that writes; the file is made if there is none. What is in it already is left as it is.
pub(super) fn open(path: &Path) -> Result<Database, JournalError> {
    if path.is_dir() {
        return Err(JournalError::at(path, "is a directory: give the path of a file"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Answers are nobody else's business. SQLite's files beside it have the same mode.
        options.mode(0o600);
    }
    options.open(path).map_err(|error| JournalError::at(path, format_args!("cannot be opened: {error}")))?;
    let name = named(path);
    let database = Database::new(PATIENCE, move || for_writing(&name));
    database.with(|_| Ok(())).map_err(|failure| JournalError::of(path, failure))?;
    Ok(database)
}

fn for_writing(name: &Path) -> Result<Connection, Failure> {
    let mut connection = Connection::open_with_flags(name, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    let (application, layout, tables) = looked_at(&connection)?;
    if tables > 0 {
        known(application, layout)?;
    }
    // Where the file system has no shared memory it stays as it is, which is as safe and a little slower.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    if tables == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// The file's whole name: SQLite takes `:memory:` for something else.
fn named(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn looked_at(connection: &Connection) -> rusqlite::Result<(i32, i32, i64)> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    let tables = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    Ok((number("application_id")?, number("user_version")?, tables))
}

fn known(application: i32, layout: i32) -> Result<(), Failure> {
    if application != APPLICATION {
        return Err(Failure::Unfit("is another program's SQLite file: give another path".to_owned()));
    }
    match layout {
        LAYOUT => Ok(()),
        later => Err(Failure::Unfit(format!("has layout {later}, and this version knows {LAYOUT}: use the seawall that wrote it"))),
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let key: Vec<u8> = row.get(1)?;
    Ok(Row {
        at: row.get::<_, i64>(0)? as u64,
        key: Key::try_from(key).unwrap_or_default(),
        is_failure: row.get(2)?,
        answer: row.get(3)?,
        told: row.get(4)?,
    })
}

const NOT_THERE: &str = "is not there: give the path that a batch was given as journal=…";

/// Reads a journal, also while somebody writes it.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    database: Database,
}

impl Reader {
    /// Of a file that has to be there.
    pub fn open(path: &Path) -> Result<Reader, JournalError> {
        if !path.is_file() {
            let what = if path.is_dir() { "is a directory: give the path of the file" } else { NOT_THERE };
            return Err(JournalError::at(path, what));
        }
        let name = named(path);
        let reader = Reader { path: path.to_owned(), database: Database::new(PATIENCE, move || for_reading(&name)) };
        reader.read(|_| Ok(()))?;
        Ok(reader)
    }

    fn read<T>(&self, body: impl FnMut(&mut Connection) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        self.database.with(body).map_err(|failure| JournalError::of(&self.path, failure))
    }

    /// How many are finished.
    pub fn counts(&self) -> Result<Counts, JournalError> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE is_failure) FROM items";
        let (all, failed) = self.read(|open| open.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))))?;
        Ok(Counts { done: (all - failed) as u64, failed: failed as u64 })
    }

    /// What is known of an input.
    pub fn row(&self, at: u64) -> Result<Option<Row>, JournalError> {
        let sql = "SELECT at, key, is_failure, answer, told FROM items WHERE at = ?";
        self.read(|open| open.prepare(sql)?.query_row([at as i64], row).optional())
    }

    /// The next rows from that place on, in order, or the failures among them.
    pub fn rows(&self, from: u64, most: usize, failures: bool) -> Result<Vec<Row>, JournalError> {
        let condition = if failures { "is_failure AND" } else { "" };
        let sql = format!("SELECT at, key, is_failure, answer, told FROM items WHERE {condition} at >= ? ORDER BY at LIMIT ?");
        self.read(|open| open.prepare(&sql)?.query_map(params![from as i64, most as i64], row)?.collect())
    }

    /// What was noted of the run under that name.
    pub fn noted(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(|open| open.query_row("SELECT value FROM run WHERE name = ?", [name], |row| row.get(0)).optional())
    }
}

fn for_reading(name: &Path) -> Result<Connection, Failure> {
    // What a killed writer left in its log is taken over by whoever opens it, so reading may write. Where it may not, it reads.
    let (write, read) = (OpenFlags::SQLITE_OPEN_READ_WRITE, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let none = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(name, write | none).or_else(|_| Connection::open_with_flags(name, read | none))?;
    let (application, layout, _) = looked_at(&connection)?;
    known(application, layout)?;
    Ok(connection)
}

/// Writes rows, all or none.
pub(super) fn write(path: &Path, database: &Database, rows: &[Row]) -> Result<(), JournalError> {
    let written = database.with(|connection| {
        let transaction = connection.transaction()?;
        {
            let mut statement =
                transaction.prepare("INSERT OR REPLACE INTO items (at, key, is_failure, answer, told) VALUES (?, ?, ?, ?, ?)")?;
            for row in rows {
                statement.execute(params![row.at as i64, row.key, row.is_failure, row.answer, row.told])?;
            }
        }
        transaction.commit()
    });
    written.map_err(|failure| JournalError::of(path, failure))
}

/// Notes something of the run, where nothing is noted yet.
pub(super) fn note(path: &Path, database: &Database, name: &str, value: &[u8]) -> Result<(), JournalError> {
    let sql = "INSERT OR IGNORE INTO run (name, value) VALUES (?, ?)";
    database.with(|connection| connection.execute(sql, params![name, value])).map(drop).map_err(|failure| JournalError::of(path, failure))
}
