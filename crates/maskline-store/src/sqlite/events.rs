//! SQL of the journal: sessions, events, outcomes of their delivery, the node's epoch.
//!
//! What lives elsewhere: configuration (`sqlite::config`), when any of this runs (`journal`).

use std::time::{SystemTime, UNIX_EPOCH};

use maskline_events::{Timestamp, WebhookType};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::fault::{Fault, broken, named};
use crate::model::{
    DeliveryState, EventRow, JournalBatch, JournalEntry, NodeEpoch, OpenSession, Outcome,
};
use crate::secrets::random_uuid;

/// Columns of an event with its outcome, as [`event`] reads them: the last line of its log is how
/// it stands, unless it is pending.
pub(super) const EVENT: &str = "events.event_id, events.session_id, events.sub_account_id, events.ordinal, \
                     events.webhook_type, events.at, events.body, \
                     COALESCE(pending.state, last.state), \
                     COALESCE(pending.attempts, last.attempts), pending.next_attempt_at, \
                     last.status, last.error, COALESCE(pending.outcome_at, last.at)";
pub(super) const LAST_ATTEMPT: &str = "LEFT JOIN attempts AS last ON last.position = events.position \
                            AND last.number = (SELECT MAX(number) FROM attempts \
                            WHERE attempts.position = events.position)";

pub(crate) fn commit(connection: &Connection, batch: &JournalBatch) -> Result<(), Fault> {
    let mut inserts = Inserts::prepare(connection)?;
    for entry in &batch.entries {
        for event in &entry.events {
            inserts.write(event)?;
        }
        write_snapshot(connection, entry)?;
    }
    Ok(())
}

/// The statements that write events, prepared once for a group.
pub(super) struct Inserts<'c> {
    event: CachedStatement<'c>,
    pending: CachedStatement<'c>,
}

impl<'c> Inserts<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> Result<Self, Fault> {
        Ok(Self {
            event: connection.prepare_cached(
                "INSERT INTO events (event_id, session_id, sub_account_id, ordinal, webhook_type, \
                 at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (event_id) DO NOTHING",
            )?,
            pending: connection.prepare_cached(
                "INSERT INTO pending (sub_account_id, session_id, ordinal, position, state, \
                 attempts, outcome_at) VALUES (?1, ?2, ?3, last_insert_rowid(), ?4, 0, ?5)",
            )?,
        })
    }

    /// Writes an event that is to be delivered, unless it is there.
    pub(super) fn write(&mut self, event: &EventRow) -> Result<(), Fault> {
        let ordinal = i64::try_from(event.ordinal)
            .map_err(|_| broken("events", "an ordinal is out of range"))?;
        let (mut event_text, mut session_text) = (Uuid::encode_buffer(), Uuid::encode_buffer());
        let event_id: &str = event.event_id.hyphenated().encode_lower(&mut event_text);
        let session_id: &str = event
            .session_id
            .hyphenated()
            .encode_lower(&mut session_text);
        let at = event.at.unix_ms();
        let inserted = self
            .event
            .execute(params![
                event_id,
                session_id,
                event.sub_account_id,
                ordinal,
                event.webhook_type.as_str(),
                at,
                event.body,
            ])
            .map_err(|error| {
                named(
                    error,
                    "an event of this session with this ordinal",
                    "the session",
                )
            })?;
        if inserted == 1 {
            self.pending.execute(params![
                event.sub_account_id,
                session_id,
                ordinal,
                state_code(DeliveryState::Pending),
                at,
            ])?;
        }
        Ok(())
    }
}

fn write_snapshot(connection: &Connection, entry: &JournalEntry) -> Result<(), Fault> {
    let session_id = entry.session_id.to_string();
    match &entry.snapshot {
        Some(snapshot) => connection
            .prepare_cached(
                "INSERT INTO sessions (session_id, sub_account_id, snapshot, updated) \
                 VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (session_id) DO UPDATE \
                 SET snapshot = excluded.snapshot, updated = excluded.updated",
            )?
            .execute(params![
                session_id,
                entry.sub_account_id,
                snapshot,
                system_time_ms()
            ])?,
        None => connection
            .prepare_cached("DELETE FROM sessions WHERE session_id = ?1")?
            .execute([session_id])?,
    };
    Ok(())
}

/// For people who look at the table; nothing is decided by it.
fn system_time_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

pub(crate) fn begin_epoch(connection: &Connection) -> Result<NodeEpoch, Fault> {
    let known: Option<String> = connection
        .query_row("SELECT node_id FROM node", [], |row| row.get(0))
        .optional()?;
    let node_id = match known {
        Some(text) => uuid(&text, "node")?,
        None => {
            let node_id = random_uuid()?;
            connection.execute(
                "INSERT INTO node (node_id, boot_epoch) VALUES (?1, 0)",
                [node_id.to_string()],
            )?;
            node_id
        }
    };
    let boot_epoch: i64 = connection.query_row(
        "UPDATE node SET boot_epoch = boot_epoch + 1 WHERE node_id = ?1 RETURNING boot_epoch",
        [node_id.to_string()],
        |row| row.get(0),
    )?;
    Ok(NodeEpoch {
        node_id,
        boot_epoch: u64::try_from(boot_epoch)
            .map_err(|_| broken("node", "a boot epoch is negative"))?,
    })
}

pub(crate) fn open_sessions(
    connection: &Connection,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<OpenSession>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT session_id, sub_account_id, snapshot FROM sessions \
         WHERE session_id > ?1 ORDER BY session_id LIMIT ?2",
    )?;
    // The empty text comes before every id.
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let mut rows = statement.query(params![after, limit])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        sessions.push(OpenSession {
            session_id: uuid(&row.get::<_, String>(0)?, "sessions")?,
            sub_account_id: row.get(1)?,
            snapshot: row.get(2)?,
        });
    }
    Ok(sessions)
}

pub(super) fn whole_session() -> String {
    format!(
        "SELECT {EVENT} FROM events LEFT JOIN pending \
         ON pending.sub_account_id = events.sub_account_id \
         AND pending.session_id = events.session_id AND pending.ordinal = events.ordinal \
         {LAST_ATTEMPT} WHERE events.session_id = ?1 ORDER BY events.ordinal"
    )
}

pub(super) fn event(row: &Row<'_>) -> Result<(EventRow, Outcome), Fault> {
    const TABLE: &str = "events";
    let event_id = uuid(&row.get::<_, String>(0)?, TABLE)?;
    let ordinal: i64 = row.get(3)?;
    let webhook_type: String = row.get(4)?;
    let event = EventRow {
        event_id,
        session_id: uuid(&row.get::<_, String>(1)?, TABLE)?,
        sub_account_id: row.get(2)?,
        ordinal: u64::try_from(ordinal).map_err(|_| broken(TABLE, "an ordinal is negative"))?,
        webhook_type: self::webhook_type(&webhook_type, TABLE)?,
        at: Timestamp::from_unix_ms(row.get(5)?),
        body: row.get(6)?,
    };
    let outcome = Outcome {
        event_id,
        state: state(row.get(7)?)?,
        attempts: row.get(8)?,
        next_attempt_at: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_unix_ms),
        status: row.get(10)?,
        error: row.get(11)?,
        at: Timestamp::from_unix_ms(row.get(12)?),
    };
    Ok((event, outcome))
}

pub(crate) fn webhook_type(text: &str, table: &'static str) -> Result<WebhookType, Fault> {
    text.parse()
        .map_err(|_| broken(table, "an unknown webhook type"))
}

pub(super) fn uuid(text: &str, table: &'static str) -> Result<Uuid, Fault> {
    Uuid::try_parse(text).map_err(|_| broken(table, "an id is no UUID"))
}

pub(super) const fn state_code(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => 0,
        DeliveryState::Parked => 1,
        DeliveryState::Delivered => 2,
        DeliveryState::Dead => 3,
        DeliveryState::NoEndpoint => 4,
    }
}

pub(super) fn state(code: i64) -> Result<DeliveryState, Fault> {
    Ok(match code {
        0 => DeliveryState::Pending,
        1 => DeliveryState::Parked,
        2 => DeliveryState::Delivered,
        3 => DeliveryState::Dead,
        4 => DeliveryState::NoEndpoint,
        _ => return Err(broken("events", "an unknown delivery state")),
    })
}
