//! Forward-only migrations, embedded.
//!
//! A released migration is never edited; a change is a new file with the next number. Each runs in a
//! transaction of its own together with the row that says so, so that a crash in between leaves
//! the version before it. `tests/fixtures` holds a database of each earlier version.

use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use crate::store::StoreError;

/// Migration `n` (counted from 1) brings a database of version `n - 1` to version `n`.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_initial.sql"),
    include_str!("../migrations/0002_early_media.sql"),
    include_str!("../migrations/0003_delivery.sql"),
];

/// The version that this program writes.
pub(crate) const fn known() -> u32 {
    MIGRATIONS.len() as u32
}

/// Brings the database to [`known`].
///
/// # Errors
/// [`StoreError::TooNew`] for a schema of a later version; nothing is changed then.
pub(crate) fn migrate(connection: &mut Connection, place: &str) -> Result<(), Fault> {
    let found = version(connection)?;
    if found > known() {
        return Err(StoreError::TooNew {
            place: place.to_owned(),
            found,
            known: known(),
        }
        .into());
    }
    for (number, sql) in (1_u32..).zip(MIGRATIONS) {
        if number <= found {
            continue;
        }
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL);
             DELETE FROM schema_version;",
        )?;
        transaction.execute("INSERT INTO schema_version (version) VALUES (?1)", [number])?;
        transaction.commit()?;
        tracing::info!(place, version = number, "the store's schema was migrated");
    }
    Ok(())
}

fn version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    if !connection.table_exists(None, "schema_version")? {
        return Ok(0);
    }
    let version = connection
        .query_row("SELECT version FROM schema_version", [], |row| row.get(0))
        .optional()?;
    Ok(version.unwrap_or(0))
}
