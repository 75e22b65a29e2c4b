//! SQL of webhooks that have nothing but failures.

use maskline_events::{Timestamp, WebhookType};
use rusqlite::{Connection, OptionalExtension, params};

use super::events::webhook_type;
use super::fault::Fault;

pub(super) fn failing(
    connection: &Connection,
) -> Result<Vec<(String, WebhookType, Timestamp)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT sub_account_id, webhook_type, failing_since FROM webhooks \
         WHERE failing_since IS NOT NULL",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        let since = Timestamp::from_unix_ms(row.get(2)?);
        // A row that can't be read is no reason to know nothing of the others.
        if let Ok(kind) = webhook_type(&kind, "webhooks") {
            found.push((row.get(0)?, kind, since));
        }
    }
    Ok(found)
}

pub(super) fn note(
    connection: &Connection,
    owner: &str,
    kind: WebhookType,
    since: Option<Timestamp>,
) -> Result<Option<Timestamp>, Fault> {
    let Some(since) = since else {
        connection.execute(
            "UPDATE webhooks SET failing_since = NULL WHERE sub_account_id = ?1 \
             AND webhook_type = ?2 AND failing_since IS NOT NULL",
            params![owner, kind.as_str()],
        )?;
        return Ok(None);
    };
    let noted: Option<i64> = connection
        .prepare_cached(
            "UPDATE webhooks SET failing_since = COALESCE(failing_since, ?3) \
             WHERE sub_account_id = ?1 AND webhook_type = ?2 RETURNING failing_since",
        )?
        .query_row(params![owner, kind.as_str(), since.unix_ms()], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(noted.map(Timestamp::from_unix_ms))
}

pub(super) fn disable(
    connection: &Connection,
    owner: &str,
    kind: WebhookType,
    since: Timestamp,
) -> Result<bool, Fault> {
    let changed = connection.execute(
        "UPDATE webhooks SET enabled = 0, failing_since = NULL, \
         disabled_reason = 'nothing but failures for too long' \
         WHERE sub_account_id = ?1 AND webhook_type = ?2 AND failing_since = ?3 AND enabled <> 0",
        params![owner, kind.as_str(), since.unix_ms()],
    )?;
    Ok(changed > 0)
}
