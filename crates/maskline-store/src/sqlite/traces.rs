//! What was told of each call, in a file of its own beside the database: losing it loses no event,
//! and nothing waits for it.
//!
//! What an entry says is not known here: a row holds some entries of one session as bytes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use maskline_events::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use uuid::Uuid;

use super::fault::Fault;
use super::{BUSY_TIMEOUT, SqliteLocation, create_private};
use crate::store::StoreError;

/// The file's format.
const VERSION: u32 = 1;
/// Rows that one step of the clean-up deletes at most.
const STEP: u32 = 500;

/// The schema; columns are only ever added.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS session (
        session_id BLOB PRIMARY KEY,
        sub_account_id TEXT,
        caller TEXT,
        called TEXT,
        callee TEXT,
        started_at BIGINT NOT NULL,
        ended_at BIGINT,
        status TEXT,
        error_code INTEGER
    );
    CREATE INDEX IF NOT EXISTS session_by_start ON session (started_at);
    CREATE INDEX IF NOT EXISTS session_by_caller ON session (caller);
    CREATE INDEX IF NOT EXISTS session_by_called ON session (called);
    CREATE INDEX IF NOT EXISTS session_by_callee ON session (callee);
    CREATE TABLE IF NOT EXISTS entry (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id BLOB NOT NULL,
        run BIGINT NOT NULL,
        at BIGINT NOT NULL,
        entries BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS entry_by_session ON entry (session_id, id);
";

/// Some entries of one session, to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceBatch {
    /// The session.
    pub session_id: Uuid,
    /// When the first of them happened.
    pub at: Timestamp,
    /// The entries, encoded.
    pub entries: Vec<u8>,
    /// What became known of the session.
    pub known: TraceHead,
}

/// What the list of sessions shows. What is `None` is not known (yet).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceHead {
    /// Whose number was called.
    pub sub_account_id: Option<String>,
    /// A's number, in full.
    pub caller: Option<String>,
    /// The virtual number, in full.
    pub called: Option<String>,
    /// B's number, in full.
    pub callee: Option<String>,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// How, as in the summary.
    pub status: Option<String>,
    /// The platform's error code.
    pub error_code: Option<i32>,
}

/// A session in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedSession {
    /// The session.
    pub session_id: Uuid,
    /// Its first entry.
    pub started: Timestamp,
    /// The rest.
    pub head: TraceHead,
}

/// Which sessions are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceFilter {
    /// At most so many, the newest first.
    pub limit: u32,
    /// Only those with this number, E.164 with `+`, on either side.
    pub number: Option<String>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRetention {
    /// Entries before this go.
    pub before: Timestamp,
    /// Above so many bytes the oldest entries go.
    pub max_bytes: u64,
}

/// The file. Every method blocks: call it on a thread that may.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    place: String,
    run: u64,
    /// `None` where the file is only read.
    writer: Option<Mutex<Connection>>,
    /// Removed after the file is closed.
    _ephemeral: Option<tempfile::TempDir>,
}

impl TraceFile {
    /// The trace file of a database: `maskline-trace.db` for `maskline.db`.
    #[must_use]
    pub fn beside(database: &Path) -> PathBuf {
        let mut name = database.file_stem().unwrap_or_default().to_owned();
        name.push("-trace");
        let mut path = database.with_file_name(name);
        if let Some(extension) = database.extension() {
            path.set_extension(extension);
        }
        path
    }

    /// Opens or makes the file, to write. `run` tells this process's entries from those of others.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::TooNew`].
    pub fn open(location: &SqliteLocation, run: u64) -> Result<Self, StoreError> {
        let unavailable = |path: &Path, reason: String| StoreError::Unavailable {
            place: path.display().to_string(),
            reason,
        };
        let (path, ephemeral) = match location {
            SqliteLocation::File(path) => (Self::beside(path), None),
            SqliteLocation::Ephemeral => {
                let directory = tempfile::tempdir()
                    .map_err(|error| unavailable(Path::new("temporary"), error.to_string()))?;
                (directory.path().join("trace.db"), Some(directory))
            }
        };
        let path = create_private(&path).map_err(|error| unavailable(&path, error.to_string()))?;
        let place = path.display().to_string();
        let connection = prepare(&path, &place).map_err(|it| it.into_store_error(&place))?;
        Ok(Self {
            path,
            place,
            run,
            writer: Some(Mutex::new(connection)),
            _ephemeral: ephemeral,
        })
    }

    /// Opens the file of a database to read, beside a node that may be running or not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::TooNew`].
    pub fn open_to_read(database: &Path) -> Result<Self, StoreError> {
        let path = Self::beside(database);
        let place = path.display().to_string();
        let file = Self {
            path,
            place,
            run: 0,
            writer: None,
            _ephemeral: None,
        };
        file.read(|connection| check_version(connection, &file.place))?;
        Ok(file)
    }

    /// Writes batches, all or none. They survive the end of the process, but not of the machine.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`].
    pub fn append(&self, batches: &[TraceBatch]) -> Result<(), StoreError> {
        self.write(|connection| {
            let transaction = connection.transaction()?;
            for batch in batches {
                put(&transaction, self.run, batch)?;
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// One small step of forgetting what is too old or too much. `true`: there is more to do.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn clean(&self, keep: TraceRetention) -> Result<bool, StoreError> {
        self.write(|connection| {
            let old = connection.execute(
                "DELETE FROM entry WHERE id IN (SELECT id FROM entry ORDER BY id LIMIT ?1) AND at < ?2",
                params![STEP, keep.before.unix_ms()],
            )?;
            let mut gone = old;
            if old == 0 && used_bytes(connection)? > keep.max_bytes {
                gone = connection.execute(
                    "DELETE FROM entry WHERE id IN (SELECT id FROM entry ORDER BY id LIMIT ?1)",
                    [STEP],
                )?;
            }
            if gone > 0 {
                connection.execute(
                    "DELETE FROM session WHERE session_id IN (SELECT session_id FROM session
                        WHERE started_at < coalesce((SELECT at FROM entry ORDER BY id LIMIT 1), ?2)
                        AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.session_id = session.session_id)
                        ORDER BY started_at LIMIT ?1)",
                    params![STEP, i64::MAX],
                )?;
            }
            Ok(gone == STEP as usize)
        })
    }

    /// The entries of a session in the order in which they were written, each part with its run.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn entries(&self, session_id: Uuid) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare("SELECT run, entries FROM entry WHERE session_id = ?1 ORDER BY id")?;
            let rows = statement.query_map([session_id.as_bytes()], |row| {
                let run: i64 = row.get(0)?;
                Ok((run.cast_unsigned(), row.get(1)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Sessions, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn sessions(&self, filter: &TraceFilter) -> Result<Vec<TracedSession>, StoreError> {
        const COLUMNS: &str = "session_id, started_at, sub_account_id, caller, called, callee,
            ended_at, status, error_code";
        self.read(|connection| match &filter.number {
            None => {
                let sql =
                    format!("SELECT {COLUMNS} FROM session ORDER BY started_at DESC LIMIT ?1");
                let mut statement = connection.prepare(&sql)?;
                let rows = statement.query_map([filter.limit], session_of)?;
                Ok(rows.collect::<Result<_, _>>()?)
            }
            Some(number) => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM session
                     WHERE caller = ?2 OR called = ?2 OR callee = ?2
                     ORDER BY started_at DESC LIMIT ?1"
                );
                let mut statement = connection.prepare(&sql)?;
                let rows = statement.query_map(params![filter.limit, number], session_of)?;
                Ok(rows.collect::<Result<_, _>>()?)
            }
        })
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let Some(writer) = &self.writer else {
            return Err(StoreError::Unavailable {
                place: self.place.clone(),
                reason: "it was opened to read".to_owned(),
            });
        };
        let mut connection = writer.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut connection).map_err(|fault| fault.into_store_error(&self.place))
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.path, flags)
            .and_then(|connection| {
                connection.busy_timeout(BUSY_TIMEOUT)?;
                Ok(connection)
            })
            .map_err(Fault::from)
            .and_then(|connection| query(&connection))
            .map_err(|fault| fault.into_store_error(&self.place))
    }
}

fn prepare(path: &Path, place: &str) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // What the process has written stays when it dies; a power failure may take the last of it.
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "journal_size_limit", 16_i64 << 20)?;
    check_version(&connection, place)?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

fn check_version(connection: &Connection, place: &str) -> Result<(), Fault> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Err(StoreError::TooNew {
            place: place.to_owned(),
            found,
            known: VERSION,
        }
        .into());
    }
    Ok(())
}

fn put(connection: &Connection, run: u64, batch: &TraceBatch) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO entry (session_id, run, at, entries) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let session = batch.session_id.as_bytes();
    let at = batch.at.unix_ms();
    statement.execute(params![session, run.cast_signed(), at, batch.entries])?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO session (session_id, started_at, sub_account_id, caller, called, callee,
            ended_at, status, error_code)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (session_id) DO UPDATE SET
            sub_account_id = coalesce(excluded.sub_account_id, sub_account_id),
            caller = coalesce(excluded.caller, caller),
            called = coalesce(excluded.called, called),
            callee = coalesce(excluded.callee, callee),
            ended_at = coalesce(excluded.ended_at, ended_at),
            status = coalesce(excluded.status, status),
            error_code = coalesce(excluded.error_code, error_code)",
    )?;
    let known = &batch.known;
    statement.execute(params![
        session,
        at,
        known.sub_account_id,
        known.caller,
        known.called,
        known.callee,
        known.ended.map(Timestamp::unix_ms),
        known.status,
        known.error_code,
    ])?;
    Ok(())
}

fn session_of(row: &Row<'_>) -> Result<TracedSession, rusqlite::Error> {
    let id: [u8; 16] = row.get(0)?;
    let ended: Option<i64> = row.get(6)?;
    Ok(TracedSession {
        session_id: Uuid::from_bytes(id),
        started: Timestamp::from_unix_ms(row.get(1)?),
        head: TraceHead {
            sub_account_id: row.get(2)?,
            caller: row.get(3)?,
            called: row.get(4)?,
            callee: row.get(5)?,
            ended: ended.map(Timestamp::from_unix_ms),
            status: row.get(7)?,
            error_code: row.get(8)?,
        },
    })
}

/// What the file's rows take; pages that were freed are used again.
fn used_bytes(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let pragma = |name: &str| {
        let value = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        value.optional().map(|it| it.unwrap_or(0).cast_unsigned())
    };
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(pages.saturating_mul(pragma("page_size")?))
}
