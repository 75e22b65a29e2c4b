//! SQL of deliveries: what is pending, what became of it, the log of attempts.
//!
//! What lives elsewhere: writing events (`sqlite::events`), what the calls promise (`deliveries`).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use maskline_events::{Timestamp, WebhookType};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::SqliteStore;
use super::events::{self, EVENT, LAST_ATTEMPT, event, state_code};
use super::failing;
use super::fault::{Fault, broken};
use super::settings;
use crate::deliveries::{
    Deliveries, LOGGED_ANSWER_BYTES, Lost, PendingPage, SessionBacklog, Settlement, StoredEvent,
};
use crate::settings::EndpointSettings;
use crate::store::StoreError;

impl SqliteStore {
    /// Every event of a session with where its delivery stands, in order, however many. For those
    /// who look at a store; the delivery reads [`Deliveries::backlog`].
    ///
    /// # Errors
    /// The store's.
    pub async fn session(&self, session_id: Uuid) -> Result<Vec<StoredEvent>, StoreError> {
        self.readers
            .run(move |connection| session(connection, session_id))
            .await
    }
}

#[async_trait]
impl Deliveries for SqliteStore {
    async fn pending_owners(&self) -> Result<Vec<String>, StoreError> {
        self.readers.run(pending_owners).await
    }

    async fn pending(
        &self,
        sub_account_id: &str,
        after: Option<(Uuid, u64)>,
        limit: u32,
    ) -> Result<PendingPage, StoreError> {
        let owner = sub_account_id.to_owned();
        self.readers
            .run(move |connection| pending(connection, &owner, after, limit))
            .await
    }

    async fn backlog(
        &self,
        sub_account_id: &str,
        session_id: Uuid,
        after: u64,
        limit: u32,
    ) -> Result<SessionBacklog, StoreError> {
        let owner = sub_account_id.to_owned();
        self.readers
            .run(move |connection| backlog(connection, &owner, session_id, after, limit))
            .await
    }

    async fn settle(&self, results: Arc<[Settlement]>) -> Result<(), StoreError> {
        self.writer
            .run_lazily(move |connection| settle(connection, &results))
            .await
    }

    async fn all_settings(
        &self,
    ) -> Result<Vec<(String, WebhookType, EndpointSettings)>, StoreError> {
        self.readers.run(settings::all).await
    }

    async fn failing(&self) -> Result<Vec<(String, WebhookType, Timestamp)>, StoreError> {
        self.readers.run(failing::failing).await
    }

    async fn note_failing(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        since: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let owner = sub_account_id.to_owned();
        self.writer
            .run(move |connection| failing::note(connection, &owner, webhook_type, since))
            .await
    }

    async fn disable_failing(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        since: Timestamp,
    ) -> Result<bool, StoreError> {
        let owner = sub_account_id.to_owned();
        self.writer
            .run(move |connection| failing::disable(connection, &owner, webhook_type, since))
            .await
    }
}

/// One step per sub-account, however much each has.
pub(super) const NEXT_OWNER: &str =
    "SELECT MIN(sub_account_id) FROM pending WHERE sub_account_id > ?1";

fn pending_owners(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut next = connection.prepare_cached(NEXT_OWNER)?;
    let mut owners = Vec::new();
    let mut last = String::new();
    while let Some(owner) = next.query_row([&last], |row| row.get::<_, Option<String>>(0))? {
        last.clone_from(&owner);
        owners.push(owner);
    }
    Ok(owners)
}

pub(super) fn pending_page() -> String {
    format!(
        "SELECT {EVENT}, pending.session_id, pending.ordinal \
         FROM pending LEFT JOIN events ON events.position = pending.position {LAST_ATTEMPT} \
         WHERE pending.sub_account_id = ?1 AND (pending.session_id, pending.ordinal) > (?2, ?3) \
         ORDER BY pending.session_id, pending.ordinal"
    )
}

/// Index of the first column after those of an event.
const AFTER_EVENT: usize = 13;

fn pending(
    connection: &Connection,
    owner: &str,
    after: Option<(Uuid, u64)>,
    limit: u32,
) -> Result<PendingPage, Fault> {
    // The empty text comes before every id.
    let (session, ordinal) = match after {
        Some((session, ordinal)) => (
            session.to_string(),
            i64::try_from(ordinal).unwrap_or(i64::MAX),
        ),
        None => (String::new(), 0),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut statement = connection.prepare_cached(&pending_page())?;
    let mut rows = statement.query(params![owner, session, ordinal])?;
    let mut page = Vec::new();
    let mut sessions: BTreeMap<Uuid, (u64, u64)> = BTreeMap::new();
    let mut without_key = 0_u64;
    while page.len() < limit
        && let Some(row) = rows.next()?
    {
        match key(row, AFTER_EVENT, AFTER_EVENT + 1) {
            Some(key) => {
                let (count, last) = sessions.entry(key.0).or_default();
                (*count, *last) = (*count + 1, key.1);
                page.push(stored(row, key));
            }
            None => without_key += 1,
        }
    }
    let mut lost_of = BTreeMap::new();
    for (session, (count, last)) in sessions {
        let found = lost(connection, owner, session, last, count)?;
        if !found.is_empty() {
            lost_of.insert(session, found);
        }
    }
    if without_key > 0 {
        page.push(StoredEvent::Broken {
            session_id: None,
            ordinal: 0,
            reason: format!("{without_key} pending rows have no readable session or ordinal"),
        });
    }
    Ok(PendingPage {
        events: page,
        lost: lost_of,
    })
}

/// How many events of a session are looked through for what was lost, besides those of a page: so
/// that a long session costs no more than this. Few calls have a tenth of it.
pub(super) const LOOKED_BACK: u64 = 1_000;

/// By ordinals, of which a session has each once: they bound how much is read. CROSS: its events
/// come first, in whatever order the planner would have it.
pub(super) const LOST: &str = "SELECT events.ordinal, events.webhook_type, last.state \
     FROM events CROSS JOIN attempts AS last ON last.position = events.position \
     AND last.number = (SELECT MAX(number) FROM attempts WHERE attempts.position = events.position) \
     WHERE events.session_id = ?2 AND events.ordinal > ?3 AND events.ordinal <= ?4 \
     AND events.sub_account_id = ?1 AND last.state IN (3, 4) \
     AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.sub_account_id = ?1 \
     AND pending.session_id = ?2 AND pending.ordinal = events.ordinal)";

/// What was lost of a session up to and with that ordinal. `beside`: how many events up to there
/// are known to be pending.
fn lost(
    connection: &Connection,
    owner: &str,
    session_id: Uuid,
    up_to: u64,
    beside: u64,
) -> Result<Lost, Fault> {
    let mut lost = Lost::default();
    if beside >= up_to {
        // Ordinals begin with 1: these are all.
        return Ok(lost);
    }
    let from = up_to.saturating_sub(LOOKED_BACK.saturating_add(beside));
    let ordinal = |ordinal| i64::try_from(ordinal).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(LOST)?;
    let session = session_id.to_string();
    let mut rows = statement.query(params![owner, session, ordinal(from), ordinal(up_to)])?;
    while let Some(row) = rows.next()? {
        let kind = row.get_ref(1)?.as_str().ok();
        // A row that can't be read tells nothing.
        let Some(kind) = kind.and_then(|text| text.parse().ok()) else {
            continue;
        };
        let found: i64 = row.get(0)?;
        lost.note(found.cast_unsigned(), kind, events::state(row.get(2)?)?);
    }
    Ok(lost)
}

pub(super) fn backlog_page() -> String {
    format!(
        "SELECT {EVENT}, pending.session_id, pending.ordinal \
         FROM pending LEFT JOIN events ON events.position = pending.position {LAST_ATTEMPT} \
         WHERE pending.sub_account_id = ?1 AND pending.session_id = ?2 \
         AND pending.ordinal > ?3 AND pending.ordinal <= ?4 ORDER BY pending.ordinal LIMIT ?5"
    )
}

pub(super) const LAST_OF_SESSION: &str = "SELECT ordinal, webhook_type FROM events WHERE session_id = ?1 AND ordinal > ?2 \
     ORDER BY ordinal DESC LIMIT 1";

fn backlog(
    connection: &Connection,
    owner: &str,
    session_id: Uuid,
    after: u64,
    limit: u32,
) -> Result<SessionBacklog, Fault> {
    let session = session_id.to_string();
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut backlog = SessionBacklog::default();
    // First: what is committed between the two queries must not count as settled.
    let mut last = connection.prepare_cached(LAST_OF_SESSION)?;
    let mut rows = last.query(params![session, after])?;
    let Some(row) = rows.next()? else {
        return Ok(backlog);
    };
    // What is no number comes behind all numbers.
    let Ok(last) = row.get::<_, i64>(0) else {
        backlog.pending.push(without_ordinal(session_id));
        return Ok(backlog);
    };
    backlog.last = last.cast_unsigned();
    let kind = row.get_ref(1)?.as_str().ok();
    backlog.has_summary = kind == Some(WebhookType::Vss.as_str());
    let mut statement = connection.prepare_cached(&backlog_page())?;
    let mut rows = statement.query(params![owner, session, after, last, limit])?;
    while let Some(row) = rows.next()? {
        let Some(key) = key(row, AFTER_EVENT, AFTER_EVENT + 1) else {
            backlog.pending.push(without_ordinal(session_id));
            return Ok(backlog);
        };
        backlog.pending.push(stored(row, key));
    }
    let count = backlog.pending.len();
    backlog.more = count >= usize::try_from(limit).unwrap_or(usize::MAX);
    let end = backlog.pending.last().and_then(StoredEvent::key);
    let up_to = match end {
        Some((_, ordinal)) if backlog.more => ordinal,
        Some(_) | None => backlog.last,
    };
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    backlog.lost = lost(connection, owner, session_id, up_to, count)?;
    Ok(backlog)
}

fn session(connection: &Connection, session_id: Uuid) -> Result<Vec<StoredEvent>, Fault> {
    let mut statement = connection.prepare_cached(&events::whole_session())?;
    let mut rows = statement.query([session_id.to_string()])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(match key(row, 1, 3) {
            Some(key) => stored(row, key),
            None => without_ordinal(session_id),
        });
    }
    Ok(events)
}

/// Stops its session: nobody knows which events it stands before.
fn without_ordinal(session_id: Uuid) -> StoredEvent {
    StoredEvent::Broken {
        session_id: Some(session_id),
        ordinal: 0,
        reason: "its ordinal can't be read".to_owned(),
    }
}

/// Session and ordinal of a row that has them in these columns.
pub(super) fn key(row: &Row<'_>, session: usize, ordinal: usize) -> Option<(Uuid, u64)> {
    let session = row.get_ref(session).ok()?.as_str().ok()?;
    let ordinal = row.get_ref(ordinal).ok()?.as_i64().ok()?;
    Some((Uuid::try_parse(session).ok()?, u64::try_from(ordinal).ok()?))
}

pub(super) fn stored(row: &Row<'_>, (session_id, ordinal): (Uuid, u64)) -> StoredEvent {
    match event(row) {
        Ok((event, outcome)) => StoredEvent::Whole(event, outcome),
        Err(fault) => StoredEvent::Broken {
            session_id: Some(session_id),
            ordinal,
            reason: match fault {
                Fault::Store(StoreError::BrokenRow { reason, .. }) => reason,
                Fault::Store(error) => error.to_string(),
                // Of a column's type; names the column, carries no value.
                Fault::Sql(error) => error.to_string(),
            },
        },
    }
}

fn settle(connection: &Connection, results: &[Settlement]) -> Result<(), Fault> {
    // RETURNING would make a temporary table for each row.
    let mut find = connection.prepare_cached(
        "SELECT position, state = ?4 AND attempts = ?5 AND outcome_at = ?6 FROM pending \
         WHERE sub_account_id = ?1 AND session_id = ?2 AND ordinal = ?3",
    )?;
    let mut done = connection.prepare_cached(
        "DELETE FROM pending WHERE sub_account_id = ?1 AND session_id = ?2 AND ordinal = ?3",
    )?;
    let mut keep = connection.prepare_cached(
        "UPDATE pending SET state = ?4, attempts = ?5, next_attempt_at = ?6, outcome_at = ?7 \
         WHERE sub_account_id = ?1 AND session_id = ?2 AND ordinal = ?3",
    )?;
    let mut log = connection.prepare_cached(
        "INSERT INTO attempts (position, number, at, state, attempts, status, duration_ms, error, \
         answer, truncated) SELECT ?1, COALESCE(MAX(number), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, \
         ?9 FROM attempts WHERE position = ?1",
    )?;
    let mut session_text = [0_u8; uuid::fmt::Hyphenated::LENGTH];
    for result in results {
        let outcome = &result.outcome;
        let session: &str = result
            .session_id
            .hyphenated()
            .encode_lower(&mut session_text);
        let ordinal = i64::try_from(result.ordinal)
            .map_err(|_| broken("pending", "an ordinal is out of range"))?;
        let (at, state) = (outcome.at.unix_ms(), state_code(outcome.state));
        let owner = &result.sub_account_id;
        let found = find
            .query_row(
                params![owner, session, ordinal, state, outcome.attempts, at],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)),
            )
            .optional()?;
        let Some((position, is_known)) = found else {
            continue;
        };
        if outcome.state.is_final() {
            done.execute(params![owner, session, ordinal])?;
        } else if is_known {
            continue;
        } else {
            keep.execute(params![
                owner,
                session,
                ordinal,
                state,
                outcome.attempts,
                outcome.next_attempt_at.map(Timestamp::unix_ms),
                at,
            ])?;
        }
        let attempt = result.attempt.as_ref();
        let answer = attempt.map_or(&[][..], |attempt| &attempt.answer);
        let kept = answer.get(..LOGGED_ANSWER_BYTES).unwrap_or(answer);
        let truncated = attempt.is_some_and(|it| it.truncated) || kept.len() < answer.len();
        log.execute(params![
            position,
            at,
            state,
            outcome.attempts,
            outcome.status,
            attempt.map(|it| i64::try_from(it.duration.as_millis()).unwrap_or(i64::MAX)),
            outcome.error,
            (!kept.is_empty()).then_some(kept),
            truncated,
        ])?;
    }
    Ok(())
}
