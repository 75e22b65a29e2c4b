//! SQL of the fields that sub-accounts add to their events: a JSON text per sub-account.

use async_trait::async_trait;
use maskline_events::ParameterEntry;
use rusqlite::{Connection, OptionalExtension};

use super::SqliteStore;
use super::fault::{Fault, broken};
use crate::parameters::{KnownParameters, ParameterStore};
use crate::store::StoreError;

#[async_trait]
impl ParameterStore for SqliteStore {
    async fn event_parameters(
        &self,
        sub_account_id: &str,
    ) -> Result<Vec<ParameterEntry>, StoreError> {
        let id = sub_account_id.to_owned();
        self.readers
            .run(move |connection| event_parameters(connection, &id))
            .await
    }

    async fn set_event_parameters(
        &self,
        sub_account_id: &str,
        entries: Vec<ParameterEntry>,
    ) -> Result<(), StoreError> {
        let id = sub_account_id.to_owned();
        self.writer
            .run(move |connection| set_event_parameters(connection, &id, &entries))
            .await
    }

    async fn all_event_parameters(&self) -> Result<Vec<(String, KnownParameters)>, StoreError> {
        self.readers.run(all_event_parameters).await
    }
}

fn not_found() -> Fault {
    let what = "the sub-account";
    StoreError::NotFound { what }.into()
}

fn event_parameters(connection: &Connection, id: &str) -> Result<Vec<ParameterEntry>, Fault> {
    let found: Option<String> = connection
        .prepare_cached("SELECT event_parameters FROM sub_accounts WHERE sub_account_id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    serde_json::from_str(&found.ok_or_else(not_found)?)
        .map_err(|_| broken("sub_accounts", "the event parameters are no list of them"))
}

fn set_event_parameters(
    connection: &Connection,
    id: &str,
    entries: &[ParameterEntry],
) -> Result<(), Fault> {
    let text = serde_json::to_string(entries)
        .map_err(|error| broken("sub_accounts", error.to_string()))?;
    let changed = connection.execute(
        "UPDATE sub_accounts SET event_parameters = ?2 WHERE sub_account_id = ?1",
        [id, &text],
    )?;
    if changed == 0 {
        return Err(not_found());
    }
    Ok(())
}

fn all_event_parameters(connection: &Connection) -> Result<Vec<(String, KnownParameters)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT sub_account_id, event_parameters FROM sub_accounts \
         WHERE event_parameters <> '[]' ORDER BY sub_account_id",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(1)?;
        found.push((row.get(0)?, serde_json::from_str(&text).ok()));
    }
    Ok(found)
}
