//! The store over SQLite: one file (WAL, `synchronous=FULL`), one writer thread, a few readers.
//!
//! What lives elsewhere: gathering a shard's decisions into batches (`journal`). The SQL is in
//! `sqlite::events` and `sqlite::config`, grouping of transactions in `sqlite::writer`.

mod config;
mod deliveries;
mod events;
mod failing;
mod fault;
mod history;
mod intake;
mod lock;
mod parameters;
mod readers;
mod reserve;
mod schema;
mod settings;
mod traces;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::{Msisdn, Timestamp, WebhookType};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use uuid::Uuid;

use crate::model::{
    ApiKeyScope, Endpoint, JournalBatch, NewNumber, NewSubAccount, NewWebhook, NodeEpoch,
    NumberChange, OpenSession, SubAccount, SwitchedOff, VirtualNumber, Webhook,
};
use crate::secrets::{self, ApiKeyHash, KeyError, MasterKey, Vault};
use crate::store::{Store, StoreError};
use fault::Fault;
use lock::FileLock;
use readers::Readers;
use reserve::Reserve;
use writer::Writer;

pub use traces::{TraceBatch, TraceFile, TraceFilter, TraceHead, TraceRetention, TracedSession};
pub use writer::WriterCounters;

/// How long a statement waits for a lock of SQLite's own (a checkpoint, a backup tool).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqliteLocation {
    /// This file; its directory exists. `.key`, `.lock` and `.reserve` files lie beside it.
    File(PathBuf),
    /// A temporary directory that goes when the store is dropped.
    Ephemeral,
}

/// A `[store] url` that is not one of SQLite's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a store url is `sqlite:` and a path, or `sqlite::memory:`")]
pub struct NotSqliteUrl;

impl SqliteLocation {
    /// Reads `sqlite:PATH` or `sqlite::memory:`.
    ///
    /// # Errors
    /// [`NotSqliteUrl`].
    pub fn parse(url: &str) -> Result<Self, NotSqliteUrl> {
        match url.strip_prefix("sqlite:").ok_or(NotSqliteUrl)? {
            "" => Err(NotSqliteUrl),
            ":memory:" => Ok(Self::Ephemeral),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }

    /// The master key of this database: the value of `MASKLINE_MASTER_KEY` if it is set, else the key
    /// file beside the database, else (nothing there yet) a new one in such a file. An ephemeral
    /// database has a random key.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn master_key(&self, configured: Option<&str>) -> Result<MasterKey, KeyError> {
        match (configured, self) {
            (Some(text), _) => MasterKey::from_base64(text),
            (None, Self::File(path)) => MasterKey::from_file_beside(path),
            (None, Self::Ephemeral) => MasterKey::random(),
        }
    }
}

/// What can be chosen about a [`SqliteStore`].
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// Disk space reserved for the moment at which the disk is full; 0 for none. 16 MiB by default.
    pub reserve_bytes: u64,
    /// Connections for queries, 1 or more. 4 by default.
    pub readers: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            reserve_bytes: 16 << 20,
            readers: 4,
        }
    }
}

/// The store over one SQLite file. Dropping it waits until queued writes are done.
pub struct SqliteStore {
    readers: Readers,
    writer: Writer,
    vault: Arc<Vault>,
    low: Arc<AtomicBool>,
    /// Removed after the database is closed.
    _ephemeral: Option<tempfile::TempDir>,
}

impl SqliteStore {
    /// Opens the database, making or migrating it. Blocks; for start-up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the file can't be used or another process has it open,
    /// [`StoreError::TooNew`], [`StoreError::Secret`] if it was made under another master key.
    pub fn open(
        location: &SqliteLocation,
        key: &MasterKey,
        options: SqliteOptions,
    ) -> Result<Self, StoreError> {
        let (path, ephemeral) = match location {
            SqliteLocation::File(path) => (path.clone(), None),
            SqliteLocation::Ephemeral => {
                let directory = tempfile::tempdir().map_err(|error| StoreError::Unavailable {
                    place: "a temporary directory".to_owned(),
                    reason: error.to_string(),
                })?;
                (directory.path().join("maskline.db"), Some(directory))
            }
        };
        let place: Arc<str> = path.display().to_string().into();
        // The same file by another name has to meet the same lock.
        let path = create_private(&path).map_err(|error| StoreError::Unavailable {
            place: place.to_string(),
            reason: error.to_string(),
        })?;
        let lock = FileLock::take(&path, &place)?;
        let vault = Arc::new(Vault::new(key));
        let connection =
            prepare(&path, &vault, &place).map_err(|fault| fault.into_store_error(&place))?;
        let directory = secrets::directory_of(&path).to_owned();
        secrets::sync_directory(&directory).map_err(|error| StoreError::Unavailable {
            place: place.to_string(),
            reason: error.to_string(),
        })?;
        let low = Arc::new(AtomicBool::new(false));
        let reserve = Reserve::beside(&path, options.reserve_bytes, Arc::clone(&low));
        Ok(Self {
            readers: Readers::new(path, Arc::clone(&place), options.readers),
            writer: Writer::start(connection, lock, reserve, directory, place)?,
            vault,
            low,
            _ephemeral: ephemeral,
        })
    }

    /// What the writer has done since the store was opened.
    #[must_use]
    pub fn counters(&self) -> &WriterCounters {
        self.writer.counters()
    }
}

/// Makes the file if it is missing, for its owner alone: event bodies hold phone numbers. SQLite gives
/// its other files the same mode.
fn create_private(path: &Path) -> std::io::Result<PathBuf> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    path.canonicalize()
}

fn prepare(path: &Path, vault: &Vault, place: &str) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::Unavailable {
            place: place.to_owned(),
            reason: "its file system does not support a write-ahead log".to_owned(),
        }
        .into());
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // A disk that is full must not keep a transaction from being undone.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // After a burst the log is cut back to this.
    connection.pragma_update(None, "journal_size_limit", 64_i64 << 20)?;
    // 32 MiB: pages that are written again and again go from the log to the database once.
    connection.pragma_update(None, "wal_autocheckpoint", 8_192)?;
    // In KiB, negative: what is written is rarely read back from the file.
    connection.pragma_update(None, "cache_size", -32_768)?;
    schema::migrate(&mut connection, place)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    config::check_key(&transaction, vault)?;
    transaction.commit()?;
    Ok(connection)
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, batch: JournalBatch) -> Result<(), StoreError> {
        self.writer
            .run(move |connection| events::commit(connection, &batch))
            .await
    }

    fn low_on_space(&self) -> bool {
        self.low.load(Ordering::Acquire)
    }

    async fn begin_epoch(&self) -> Result<NodeEpoch, StoreError> {
        self.writer.run(events::begin_epoch).await
    }

    async fn open_sessions(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<OpenSession>, StoreError> {
        self.readers
            .run(move |connection| events::open_sessions(connection, after, limit))
            .await
    }

    async fn endpoint(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, StoreError> {
        let (vault, id) = (Arc::clone(&self.vault), sub_account_id.to_owned());
        self.readers
            .run(move |connection| settings::endpoint(connection, &vault, &id, webhook_type, now))
            .await
    }

    async fn webhooks(&self, sub_account_id: &str) -> Result<Vec<Webhook>, StoreError> {
        let id = sub_account_id.to_owned();
        self.readers
            .run(move |connection| config::webhooks(connection, &id))
            .await
    }

    async fn set_webhook(
        &self,
        webhook: NewWebhook,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let vault = Arc::clone(&self.vault);
        self.writer
            .run(move |connection| config::set_webhook(connection, &vault, &webhook, now))
            .await
    }

    async fn delete_webhook(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
    ) -> Result<Webhook, StoreError> {
        let id = sub_account_id.to_owned();
        self.writer
            .run(move |connection| config::delete_webhook(connection, &id, webhook_type))
            .await
    }

    async fn disable_webhook(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        revision: i64,
    ) -> Result<SwitchedOff, StoreError> {
        let id = sub_account_id.to_owned();
        self.writer
            .run(move |connection| config::disable_webhook(connection, &id, webhook_type, revision))
            .await
    }

    async fn rotate_secret(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let (vault, id) = (Arc::clone(&self.vault), sub_account_id.to_owned());
        self.writer
            .run(move |connection| {
                config::rotate_secret(connection, &vault, &id, webhook_type, now)
            })
            .await
    }

    async fn create_sub_account(
        &self,
        sub_account: NewSubAccount,
        now: Timestamp,
    ) -> Result<SubAccount, StoreError> {
        self.writer
            .run(move |connection| config::create_sub_account(connection, &sub_account, now))
            .await
    }

    async fn sub_accounts(&self) -> Result<Vec<SubAccount>, StoreError> {
        self.readers.run(config::sub_accounts).await
    }

    async fn create_api_key(
        &self,
        sub_account_id: &str,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let (key, hash) = new_key("mk_")?;
        let id = sub_account_id.to_owned();
        self.writer
            .run(move |connection| config::insert_api_key(connection, &hash, Some(&id), now))
            .await?;
        Ok(key)
    }

    async fn ensure_admin_key(&self, now: Timestamp) -> Result<Option<String>, StoreError> {
        let (key, hash) = new_key("mka_")?;
        let made = self
            .writer
            .run(move |connection| {
                if config::has_admin_key(connection)? {
                    return Ok(false);
                }
                config::insert_api_key(connection, &hash, None, now)?;
                Ok(true)
            })
            .await?;
        Ok(made.then_some(key))
    }

    async fn authenticate(&self, key: &str) -> Result<Option<ApiKeyScope>, StoreError> {
        let Some(hash) = ApiKeyHash::of(key) else {
            return Ok(None);
        };
        self.readers
            .run(move |connection| config::authenticate(connection, &hash))
            .await
    }

    async fn assign_number(
        &self,
        number: NewNumber,
        now: Timestamp,
    ) -> Result<VirtualNumber, StoreError> {
        self.writer
            .run(move |connection| config::assign_number(connection, &number, now))
            .await
    }

    async fn change_number(
        &self,
        sub_account_id: &str,
        msisdn: &Msisdn,
        change: NumberChange,
        now: Timestamp,
    ) -> Result<VirtualNumber, StoreError> {
        let (id, msisdn) = (sub_account_id.to_owned(), msisdn.clone());
        self.writer
            .run(move |connection| config::change_number(connection, &id, &msisdn, &change, now))
            .await
    }

    async fn numbers(
        &self,
        sub_account_id: Option<&str>,
    ) -> Result<Vec<VirtualNumber>, StoreError> {
        let id = sub_account_id.map(str::to_owned);
        self.readers
            .run(move |connection| config::numbers(connection, id.as_deref()))
            .await
    }

    async fn number(
        &self,
        sub_account_id: &str,
        msisdn: &Msisdn,
    ) -> Result<Option<VirtualNumber>, StoreError> {
        let (id, msisdn) = (sub_account_id.to_owned(), msisdn.clone());
        self.readers
            .run(move |connection| config::number(connection, &id, &msisdn))
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.readers
            .run(|connection| {
                connection.query_row("SELECT COUNT(*) FROM node", [], |_| Ok(()))?;
                Ok(())
            })
            .await
    }
}

fn new_key(prefix: &str) -> Result<(String, ApiKeyHash), StoreError> {
    let key = secrets::new_api_key(prefix)?;
    let hash = ApiKeyHash::of(&key).ok_or(StoreError::Secret)?;
    Ok((key, hash))
}
