//! SQL of looking back: pages of events, the log of one, replays, forgetting.
//!
//! Queries walk by position, a bounded number of rows at a time: an index by sub-account or time would
//! cost every event. What lives elsewhere: what the calls promise (`history`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::{Timestamp, WebhookType};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::SqliteStore;
use super::deliveries::{key, stored};
use super::events::{EVENT, LAST_ATTEMPT, state, state_code, uuid};
use super::fault::{Fault, broken};
use crate::deliveries::StoredEvent;
use crate::history::{
    EventHistory, EventPage, ForgetStep, LoggedAttempt, Replay, ReplayOf, ReplayStep,
};
use crate::model::DeliveryState;
use crate::store::StoreError;

/// Most positions that one query walks over.
const WALK: i64 = 20_000;
/// Most events that one step of a replay makes pending.
const REPLAYED: usize = 500;
/// Most lines of a log.
const LINES: u32 = 100;
/// So many events in a row that happened too late to be old end a pass of forgetting: what is behind
/// them happened later still, but for what a clock that was set left between. When they were last
/// sent says nothing of what is behind them, since a replay may be of any number of old ones.
const YOUNG: u32 = 2_000;

const PENDING: &str = "LEFT JOIN pending ON pending.sub_account_id = events.sub_account_id \
                       AND pending.session_id = events.session_id \
                       AND pending.ordinal = events.ordinal";

#[async_trait]
impl EventHistory for SqliteStore {
    async fn page(
        &self,
        sub_account_id: &str,
        after: Option<u64>,
        webhook_type: Option<WebhookType>,
        limit: u32,
    ) -> Result<EventPage, StoreError> {
        let owner = sub_account_id.to_owned();
        self.readers
            .run(move |connection| page(connection, &owner, after, webhook_type, limit))
            .await
    }

    async fn attempts(
        &self,
        sub_account_id: &str,
        event_id: Uuid,
    ) -> Result<Option<Vec<LoggedAttempt>>, StoreError> {
        let owner = sub_account_id.to_owned();
        self.readers
            .run(move |connection| attempts(connection, &owner, event_id))
            .await
    }

    async fn replay(
        &self,
        replay: &Replay,
        after: u64,
        now: Timestamp,
    ) -> Result<ReplayStep, StoreError> {
        let replay = replay.clone();
        let found = self
            .readers
            .run(move |connection| candidates(connection, &replay, after))
            .await?;
        let next = found.next;
        if found.positions.is_empty() {
            return Ok(ReplayStep {
                next,
                ..ReplayStep::default()
            });
        }
        let (events, sessions) = self
            .writer
            .run(move |connection| revive(connection, &found.positions, now))
            .await?;
        Ok(ReplayStep {
            events,
            sessions,
            next,
        })
    }

    async fn forget(
        &self,
        settled_before: Timestamp,
        after: u64,
        limit: u32,
    ) -> Result<ForgetStep, StoreError> {
        if !self.writer.is_idle() {
            return Ok(ForgetStep {
                forgotten: 0,
                next: Some(after),
            });
        }
        let (positions, next) = self
            .readers
            .run(move |connection| old(connection, settled_before, after, limit))
            .await?;
        if positions.is_empty() {
            return Ok(ForgetStep { forgotten: 0, next });
        }
        let forgotten = self
            .writer
            .run(move |connection| delete(connection, &positions))
            .await?;
        Ok(ForgetStep { forgotten, next })
    }
}

/// No position is above this.
fn position(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn highest(connection: &Connection) -> Result<i64, Fault> {
    let highest = connection
        .prepare_cached("SELECT MAX(position) FROM events")?
        .query_row([], |row| row.get::<_, Option<i64>>(0))?;
    Ok(highest.unwrap_or(0))
}

/// Where to begin so that no time is spent on positions that were forgotten.
fn before_first(connection: &Connection, from: i64, highest: i64) -> Result<i64, Fault> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT MIN(position) FROM events WHERE position > ?1")?
        .query_row([from], |row| row.get(0))?;
    Ok(first.map_or(highest, |first| first - 1))
}

pub(super) fn event_page() -> String {
    format!(
        "SELECT {EVENT}, events.position FROM events {PENDING} {LAST_ATTEMPT} \
         WHERE events.position > ?1 AND events.position <= ?2 AND events.sub_account_id = ?3 \
         AND (?4 IS NULL OR events.webhook_type = ?4) ORDER BY events.position LIMIT ?5"
    )
}

fn page(
    connection: &Connection,
    owner: &str,
    after: Option<u64>,
    webhook_type: Option<WebhookType>,
    limit: u32,
) -> Result<EventPage, Fault> {
    let highest = highest(connection)?;
    let mut from = after.map_or(0, position);
    let mut page = EventPage::default();
    if from > highest {
        // A store that was put back to an earlier state. It can't tell what the reader has seen.
        page.gap = true;
        from = highest;
    }
    if after.is_some() {
        let forgotten: Option<i64> = connection
            .prepare_cached("SELECT up_to FROM forgotten WHERE sub_account_id = ?1")?
            .query_row([owner], |row| row.get(0))
            .optional()?;
        page.gap |= forgotten.is_some_and(|up_to| up_to > from);
    }
    let from = before_first(connection, from, highest)?;
    let to = from.saturating_add(WALK).min(highest);
    let mut statement = connection.prepare_cached(&event_page())?;
    let kind = webhook_type.map(WebhookType::as_str);
    let mut rows = statement.query(params![from, to, owner, kind, limit])?;
    let mut last = from;
    while let Some(row) = rows.next()? {
        last = row.get(13)?;
        let found = match key(row, 1, 3) {
            Some(key) => stored(row, key),
            None => StoredEvent::Broken {
                session_id: None,
                ordinal: 0,
                reason: "its session or ordinal can't be read".to_owned(),
            },
        };
        page.events.push((last.cast_unsigned(), found));
    }
    let full = page.events.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = if full { last } else { to };
    page.next = next.cast_unsigned();
    page.more = next < highest;
    Ok(page)
}

fn position_of(connection: &Connection, owner: &str, event_id: Uuid) -> Result<Option<i64>, Fault> {
    Ok(connection
        .prepare_cached("SELECT position FROM events WHERE event_id = ?1 AND sub_account_id = ?2")?
        .query_row(params![event_id.to_string(), owner], |row| row.get(0))
        .optional()?)
}

fn attempts(
    connection: &Connection,
    owner: &str,
    event_id: Uuid,
) -> Result<Option<Vec<LoggedAttempt>>, Fault> {
    let Some(position) = position_of(connection, owner, event_id)? else {
        return Ok(None);
    };
    let mut statement = connection.prepare_cached(
        "SELECT number, at, state, status, duration_ms, error, answer, truncated FROM attempts \
         WHERE position = ?1 ORDER BY number DESC LIMIT ?2",
    )?;
    let mut rows = statement.query(params![position, LINES])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let negative = |_| broken("attempts", "a number is negative");
        let duration: Option<i64> = row.get(4)?;
        lines.push(LoggedAttempt {
            number: u64::try_from(row.get::<_, i64>(0)?).map_err(negative)?,
            at: Timestamp::from_unix_ms(row.get(1)?),
            state: state(row.get(2)?)?,
            status: row.get(3)?,
            duration: duration
                .map(|ms| u64::try_from(ms).map(Duration::from_millis))
                .transpose()
                .map_err(negative)?,
            error: row.get(5)?,
            answer: row.get::<_, Option<Vec<u8>>>(6)?.unwrap_or_default(),
            truncated: row.get(7)?,
        });
    }
    lines.reverse();
    Ok(Some(lines))
}

struct Candidates {
    positions: Vec<i64>,
    next: Option<u64>,
}

/// `?1` and `?2` bound the position. Each row: position, and the last state unless it is pending.
pub(super) fn replayable(which: &str) -> String {
    format!(
        "SELECT events.position, last.state FROM events {PENDING} {LAST_ATTEMPT} \
         WHERE events.position > ?1 AND events.position <= ?2 AND events.sub_account_id = ?3 \
         AND pending.position IS NULL AND {which} ORDER BY events.position"
    )
}

fn candidates(connection: &Connection, replay: &Replay, after: u64) -> Result<Candidates, Fault> {
    const IN_TIME: &str = "events.webhook_type = ?4 AND events.at >= ?5 AND events.at <= ?6";
    let owner = replay.sub_account_id.as_str();
    let from = position(after);
    let highest = highest(connection)?;
    match &replay.of {
        ReplayOf::Event(id) => {
            let Some(position) = position_of(connection, owner, *id)? else {
                return Err(StoreError::NotFound { what: "The event" }.into());
            };
            let mut statement = connection.prepare_cached(&replayable("1 = 1"))?;
            let rows = statement.query(params![position - 1, position, owner])?;
            wanted(rows, &replay.states, highest)
        }
        ReplayOf::Session(id) => {
            let session = id.to_string();
            let known: bool = connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM events WHERE session_id = ?1 \
                     AND sub_account_id = ?2)",
                )?
                .query_row(params![session, owner], |row| row.get(0))?;
            if !known {
                return Err(StoreError::NotFound {
                    what: "The session",
                }
                .into());
            }
            let mut statement = connection.prepare_cached(&of_session())?;
            let rows = statement.query(params![from, highest, owner, session])?;
            wanted(rows, &replay.states, highest)
        }
        ReplayOf::Time {
            webhook_type,
            from: begin,
            to: end,
        } => {
            let from = before_first(connection, from, highest)?;
            let to = from.saturating_add(WALK).min(highest);
            let mut statement = connection.prepare_cached(&replayable(IN_TIME))?;
            let rows = statement.query(params![
                from,
                to,
                owner,
                webhook_type.as_str(),
                begin.unix_ms(),
                end.unix_ms()
            ])?;
            let mut found = wanted(rows, &replay.states, to)?;
            if found.next.is_none() && to < highest {
                found.next = Some(to.cast_unsigned());
            }
            Ok(found)
        }
    }
}

/// By the session's own index, whose order is that of positions.
pub(super) fn of_session() -> String {
    format!(
        "SELECT events.position, last.state FROM events {PENDING} {LAST_ATTEMPT} \
         WHERE events.session_id = ?4 AND events.sub_account_id = ?3 \
         AND events.position > ?1 AND events.position <= ?2 \
         AND pending.position IS NULL ORDER BY events.ordinal"
    )
}

fn wanted(
    mut rows: rusqlite::Rows<'_>,
    states: &[DeliveryState],
    to: i64,
) -> Result<Candidates, Fault> {
    let mut positions = Vec::new();
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let is_wanted = row
            .get::<_, Option<i64>>(1)?
            .is_some_and(|code| states.iter().any(|state| state_code(*state) == code));
        if is_wanted {
            positions.push(position);
        }
        if positions.len() >= REPLAYED {
            let next = (position < to).then_some(position.cast_unsigned());
            return Ok(Candidates { positions, next });
        }
    }
    Ok(Candidates {
        positions,
        next: None,
    })
}

/// Makes these pending. One that has become so by itself meanwhile, or is gone, is left alone.
fn revive(
    connection: &Connection,
    positions: &[i64],
    now: Timestamp,
) -> Result<(u64, Vec<Uuid>), Fault> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO pending (sub_account_id, session_id, ordinal, position, state, attempts, \
         outcome_at) SELECT sub_account_id, session_id, ordinal, position, ?2, 0, ?3 FROM events \
         WHERE position = ?1 ON CONFLICT (sub_account_id, session_id, ordinal) DO NOTHING \
         RETURNING session_id",
    )?;
    let pending = state_code(DeliveryState::Pending);
    let mut events = 0;
    let mut sessions = BTreeSet::new();
    for position in positions {
        let session: Option<String> = insert
            .query_row(params![position, pending, now.unix_ms()], |row| row.get(0))
            .optional()?;
        if let Some(session) = session {
            events += 1;
            sessions.insert(uuid(&session, "events")?);
        }
    }
    Ok((events, sessions.into_iter().collect()))
}

pub(super) fn settled_page() -> String {
    format!(
        "SELECT events.position, last.at, pending.position, events.at FROM events {PENDING} {LAST_ATTEMPT} \
         WHERE events.position > ?1 AND events.position < ?2 ORDER BY events.position"
    )
}

/// Positions of what is to go, and where to go on.
fn old(
    connection: &Connection,
    before: Timestamp,
    after: u64,
    limit: u32,
) -> Result<(Vec<i64>, Option<u64>), Fault> {
    let highest = highest(connection)?;
    let from = position(after);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut statement = connection.prepare_cached(&settled_page())?;
    let mut rows = statement.query(params![from, highest])?;
    let mut positions = Vec::new();
    let (mut young, mut walked) = (0, 0);
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let settled: Option<i64> = row.get(1)?;
        let is_pending = row.get::<_, Option<i64>>(2)?.is_some();
        let happened: i64 = row.get(3)?;
        walked += 1;
        if !is_pending && settled.is_some_and(|at| at < before.unix_ms()) {
            positions.push(position);
        }
        young = if happened < before.unix_ms() {
            0
        } else {
            young + 1
        };
        if young >= YOUNG {
            return Ok((positions, None));
        }
        if positions.len() >= limit || walked >= WALK {
            return Ok((positions, Some(position.cast_unsigned())));
        }
    }
    Ok((positions, None))
}

fn delete(connection: &Connection, positions: &[i64]) -> Result<u64, Fault> {
    let mut event = connection.prepare_cached(
        "DELETE FROM events WHERE position = ?1 AND NOT EXISTS (SELECT 1 FROM pending \
         WHERE pending.sub_account_id = events.sub_account_id \
         AND pending.session_id = events.session_id AND pending.ordinal = events.ordinal) \
         RETURNING sub_account_id, session_id",
    )?;
    let mut log = connection.prepare_cached("DELETE FROM attempts WHERE position = ?1")?;
    let mut keys = connection.prepare_cached("DELETE FROM call_event_keys WHERE position = ?1")?;
    let mut reported = connection.prepare_cached(
        "DELETE FROM reported_sessions WHERE session_id = ?1 AND idle_at IS NULL \
         AND NOT EXISTS (SELECT 1 FROM events WHERE events.session_id = ?1)",
    )?;
    let mut owners: BTreeMap<String, i64> = BTreeMap::new();
    let mut forgotten = 0;
    for position in positions {
        let gone: Option<(String, String)> = event
            .query_row([position], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((owner, session)) = gone else {
            continue;
        };
        log.execute([position])?;
        keys.execute([position])?;
        reported.execute([session])?;
        let up_to = owners.entry(owner).or_insert(*position);
        *up_to = (*up_to).max(*position);
        forgotten += 1;
    }
    let mut note = connection.prepare_cached(
        "INSERT INTO forgotten (sub_account_id, up_to) VALUES (?1, ?2) \
         ON CONFLICT (sub_account_id) DO UPDATE SET up_to = excluded.up_to \
         WHERE excluded.up_to > forgotten.up_to",
    )?;
    for (owner, up_to) in owners {
        note.execute(params![owner, up_to])?;
    }
    Ok(forgotten)
}
