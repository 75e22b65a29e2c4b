//! SQL of other switches' calls: known keys, sessions, and what a group of requests writes.
//!
//! A group is decided whole, in memory, before its first write; a request that is refused leaves no
//! trace. What lives elsewhere: the rules ([`ReportedRules`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use maskline_events::{ReportedEvent, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::SqliteStore;
use super::events::Inserts;
use super::fault::{Fault, broken};
use crate::intake::{
    CallEvents, ClosedSessions, ReportRequest, Reported, ReportedGroup, ReportedRules, TakenReport,
};
use crate::model::EventRow;
use crate::store::{Store, StoreError};

impl CallEvents for SqliteStore {
    async fn report<R: ReportedRules>(
        &self,
        group: Vec<ReportRequest>,
        rules: Arc<R>,
        now: Timestamp,
    ) -> Result<ReportedGroup<R::Refusal>, StoreError> {
        let low_on_space = self.low_on_space().then(|| self.writer.place().to_owned());
        self.writer
            .run(move |connection| {
                let mut deciding = Deciding {
                    connection,
                    rules: &*rules,
                    now,
                    low_on_space: low_on_space.as_deref(),
                    sessions: BTreeMap::new(),
                    keys: BTreeMap::new(),
                    events: Vec::new(),
                };
                let mut answers = Vec::with_capacity(group.len());
                for request in &group {
                    answers.push(deciding.request(request)?);
                }
                let (events, idle_at) = deciding.write()?;
                Ok(ReportedGroup {
                    answers,
                    events,
                    idle_at,
                })
            })
            .await
    }

    async fn close_idle<R: ReportedRules>(
        &self,
        rules: Arc<R>,
        now: Timestamp,
        limit: u32,
    ) -> Result<ClosedSessions, StoreError> {
        self.writer
            .run(move |connection| close_idle(connection, &*rules, now, limit))
            .await
    }
}

/// What is known of a session id.
#[derive(Clone)]
enum Known<S> {
    /// Nothing: an update may begin it.
    Free,
    /// This sub-account's.
    Of(String, S),
    /// In use by a call that is not a reported one.
    Elsewhere,
    /// Its state can't be read.
    Unreadable(String),
}

/// Why a request goes no further.
enum Stop<R> {
    Refused(usize, R),
    Failed(StoreError),
    Fault(Fault),
}

impl<R> From<Fault> for Stop<R> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

struct Session<S> {
    known: Known<S>,
    changed: bool,
}

/// A group on its way: what was read, and what its requests have changed so far.
struct Deciding<'a, R: ReportedRules> {
    connection: &'a Connection,
    rules: &'a R,
    now: Timestamp,
    /// The store's place, if it has little space left.
    low_on_space: Option<&'a str>,
    sessions: BTreeMap<Uuid, Session<R::Session>>,
    /// Keys that are new in this group, by sub-account and key.
    keys: BTreeMap<(String, String), TakenReport>,
    events: Vec<EventRow>,
}

impl<R: ReportedRules> Deciding<'_, R> {
    /// Decides a request, all or nothing.
    fn request(&mut self, request: &ReportRequest) -> Result<Reported<R::Refusal>, Fault> {
        let events_before = self.events.len();
        let mut undo = Undo {
            sessions: BTreeMap::new(),
            keys: Vec::new(),
        };
        match self.taken(request, &mut undo) {
            Ok(taken) => Ok(Reported::Taken(taken)),
            Err(stop) => {
                self.events.truncate(events_before);
                self.sessions.append(&mut undo.sessions);
                for key in &undo.keys {
                    self.keys.remove(key);
                }
                match stop {
                    Stop::Refused(index, refusal) => Ok(Reported::Refused { index, refusal }),
                    Stop::Failed(error) => Ok(Reported::Failed(error)),
                    Stop::Fault(fault) => Err(fault),
                }
            }
        }
    }

    fn taken(
        &mut self,
        request: &ReportRequest,
        undo: &mut Undo<R::Session>,
    ) -> Result<Vec<TakenReport>, Stop<R::Refusal>> {
        let owner = &request.sub_account_id;
        let mut taken = Vec::with_capacity(request.events.len());
        for (index, event) in request.events.iter().enumerate() {
            if let Some(first) = self.first_answer(owner, &event.idempotency_key)? {
                taken.push(TakenReport {
                    repeated: true,
                    ..first
                });
                continue;
            }
            let made = self.apply(owner, index, event, undo)?;
            let Some(first) = made.first() else {
                return Err(broken("reported_sessions", "an update made no event").into());
            };
            let report = TakenReport {
                event_id: first.event_id,
                sequence: first.ordinal,
                repeated: false,
            };
            let key = (owner.clone(), event.idempotency_key.clone());
            self.keys.insert(key.clone(), report);
            undo.keys.push(key);
            self.events.extend(made);
            taken.push(report);
        }
        Ok(taken)
    }

    fn apply(
        &mut self,
        owner: &str,
        index: usize,
        event: &ReportedEvent,
        undo: &mut Undo<R::Session>,
    ) -> Result<Vec<EventRow>, Stop<R::Refusal>> {
        let id = event.session_id;
        let session = match self.sessions.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Session {
                known: known(self.connection, self.rules, id)?,
                changed: false,
            }),
        };
        if let Entry::Vacant(entry) = undo.sessions.entry(id) {
            entry.insert(Session {
                known: session.known.clone(),
                changed: session.changed,
            });
        }
        if let Known::Free = session.known {
            if let Some(place) = self.low_on_space {
                let place = place.to_owned();
                return Err(Stop::Failed(StoreError::Full { place }));
            }
            session.known = Known::Of(owner.to_owned(), self.rules.begin());
        }
        let made = match &mut session.known {
            Known::Of(whose, state) if whose == owner => {
                self.rules.report(state, owner, event, self.now)
            }
            Known::Of(..) | Known::Elsewhere | Known::Free => Err(self.rules.foreign()),
            Known::Unreadable(reason) => {
                return Err(Stop::Failed(StoreError::BrokenRow {
                    table: "reported_sessions",
                    reason: reason.clone(),
                }));
            }
        };
        let made = made.map_err(|refusal| Stop::Refused(index, refusal))?;
        session.changed = true;
        Ok(made)
    }

    /// The answer that a key got first, in this group or before.
    fn first_answer(&self, owner: &str, key: &str) -> Result<Option<TakenReport>, Fault> {
        let named = (owner.to_owned(), key.to_owned());
        if let Some(report) = self.keys.get(&named) {
            return Ok(Some(*report));
        }
        let found = self
            .connection
            .prepare_cached(
                "SELECT events.event_id, events.ordinal FROM call_event_keys JOIN events \
                 ON events.position = call_event_keys.position \
                 WHERE call_event_keys.sub_account_id = ?1 \
                 AND call_event_keys.idempotency_key = ?2",
            )?
            .query_row([owner, key], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let Some((event_id, ordinal)) = found else {
            return Ok(None);
        };
        Ok(Some(TakenReport {
            event_id: uuid(&event_id)?,
            sequence: u64::try_from(ordinal)
                .map_err(|_| broken("events", "an ordinal is negative"))?,
            repeated: true,
        }))
    }

    /// Writes what was decided.
    fn write(self) -> Result<(Vec<EventRow>, Option<Timestamp>), Fault> {
        let mut keys: BTreeMap<Uuid, (String, String)> = self
            .keys
            .into_iter()
            .map(|(key, report)| (report.event_id, key))
            .collect();
        let mut remember = self.connection.prepare_cached(
            "INSERT INTO call_event_keys (sub_account_id, idempotency_key, position) \
             VALUES (?1, ?2, ?3) ON CONFLICT (sub_account_id, idempotency_key) \
             DO UPDATE SET position = excluded.position",
        )?;
        let mut inserts = Inserts::prepare(self.connection)?;
        for event in &self.events {
            inserts.write(event)?;
            if let Some((owner, key)) = keys.remove(&event.event_id) {
                // The table of pending events has no rowid: this is the event's position.
                let position = self.connection.last_insert_rowid();
                remember.execute(params![owner, key, position])?;
            }
        }
        let mut first = None;
        for (id, session) in self.sessions {
            let Session {
                known: Known::Of(owner, state),
                changed: true,
            } = session
            else {
                continue;
            };
            let idle_at = self.rules.idle_at(&state, self.now);
            let bytes = self.rules.write(&state);
            write_session(self.connection, id, &owner, &bytes, idle_at, self.now)?;
            first = match (first, idle_at) {
                (Some(first), Some(idle_at)) => Some(idle_at.min(first)),
                (first, idle_at) => first.or(idle_at),
            };
        }
        Ok((self.events, first))
    }
}

/// What a request that is refused puts back.
struct Undo<S> {
    sessions: BTreeMap<Uuid, Session<S>>,
    keys: Vec<(String, String)>,
}

fn known<R: ReportedRules>(
    connection: &Connection,
    rules: &R,
    id: Uuid,
) -> Result<Known<R::Session>, Fault> {
    let id = id.to_string();
    let found = connection
        .prepare_cached(
            "SELECT sub_account_id, state FROM reported_sessions WHERE session_id = ?1",
        )?
        .query_row([&id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    if let Some((owner, state)) = found {
        return Ok(match rules.read(&state) {
            Ok(session) => Known::Of(owner, session),
            Err(reason) => Known::Unreadable(reason),
        });
    }
    let used: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM events WHERE session_id = ?1) \
             OR EXISTS (SELECT 1 FROM sessions WHERE session_id = ?1)",
        )?
        .query_row([&id], |row| row.get(0))?;
    Ok(if used { Known::Elsewhere } else { Known::Free })
}

fn write_session(
    connection: &Connection,
    id: Uuid,
    owner: &str,
    state: &[u8],
    idle_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO reported_sessions (session_id, sub_account_id, state, idle_at, updated) \
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (session_id) DO UPDATE \
             SET state = excluded.state, idle_at = excluded.idle_at, updated = excluded.updated",
        )?
        .execute(params![
            id.to_string(),
            owner,
            state,
            idle_at.map(Timestamp::unix_ms),
            now.unix_ms(),
        ])?;
    Ok(())
}

fn close_idle<R: ReportedRules>(
    connection: &Connection,
    rules: &R,
    now: Timestamp,
    limit: u32,
) -> Result<ClosedSessions, Fault> {
    let mut idle = connection.prepare_cached(
        "SELECT session_id, sub_account_id, state FROM reported_sessions \
         WHERE idle_at <= ?1 ORDER BY idle_at LIMIT ?2",
    )?;
    let rows: Vec<(String, String, Vec<u8>)> = idle
        .query_map(params![now.unix_ms(), limit], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut closed = ClosedSessions::default();
    let mut inserts = Inserts::prepare(connection)?;
    for (id, owner, state) in rows {
        let id = uuid(&id)?;
        match rules.read(&state) {
            Ok(mut session) => {
                let made = rules.close_idle(&mut session, &owner, id, now);
                for event in &made {
                    inserts.write(event)?;
                }
                closed.events.extend(made);
                closed.sessions += 1;
                write_session(connection, id, &owner, &rules.write(&session), None, now)?;
            }
            Err(_) => {
                write_session(connection, id, &owner, &state, None, now)?;
                closed.unreadable.push(id);
            }
        }
    }
    let next: Option<i64> = connection
        .prepare_cached("SELECT MIN(idle_at) FROM reported_sessions WHERE idle_at IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    closed.next = next.map(Timestamp::from_unix_ms);
    Ok(closed)
}

fn uuid(text: &str) -> Result<Uuid, Fault> {
    Uuid::try_parse(text).map_err(|_| broken("events", "an id is no UUID"))
}
