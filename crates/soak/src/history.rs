//! What the switch itself says: its history by the API, its tables once it has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, ensure};
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;
use uuid::Uuid;

use crate::call::{STEPS, number_of};
use crate::client::Client;
use crate::ledger::Slot;
use crate::report::Report;
use crate::subject::account_name;

/// Events by where their delivery stands, as the API lists them.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// How many of each state.
    pub(crate) states: BTreeMap<String, u64>,
    /// Those that are not delivered, with their ids.
    pub(crate) kept: BTreeMap<Slot, Uuid>,
    /// Those that were given up.
    pub(crate) dead: BTreeSet<Slot>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<Entry<'a>>,
    next: &'a str,
    more: bool,
    gap: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    event_id: Uuid,
    session_id: Uuid,
    r#type: &'a str,
    state: &'a str,
    #[serde(borrow)]
    body: std::borrow::Cow<'a, str>,
}

impl History {
    /// Reads all of these accounts.
    pub(crate) async fn read(api: SocketAddr, accounts: &[u16]) -> anyhow::Result<Self> {
        let mut history = Self::default();
        let mut client = Client::new(api);
        for account in accounts {
            let path = format!("/api/v1/subaccounts/{}/events", account_name(*account));
            let mut after = String::new();
            loop {
                let path = format!("{path}?limit=1000{after}");
                let answer = client.request("GET", &path, "").await?;
                ensure!(answer.status == 200, "{path}: {}", answer.status);
                let page: Page<'_> = serde_json::from_slice(answer.body)?;
                ensure!(!page.gap, "{path}: events are gone");
                for entry in &page.events {
                    history.take(entry)?;
                }
                after = format!("&after={}", page.next);
                if !page.more {
                    break;
                }
            }
        }
        Ok(history)
    }

    fn take(&mut self, entry: &Entry<'_>) -> anyhow::Result<()> {
        *self.states.entry(entry.state.to_owned()).or_default() += 1;
        if entry.state == "DELIVERED" {
            return Ok(());
        }
        let session = number_of(entry.session_id).context("a session of nobody")?;
        let body: serde_json::Value = serde_json::from_str(&entry.body)?;
        let sequence = body.pointer("/payload/sequence");
        let sequence = sequence.and_then(serde_json::Value::as_u64);
        let event = match sequence {
            Some(sequence) if entry.r#type == "VCS" => usize::try_from(sequence)?.saturating_sub(1),
            _ => STEPS,
        };
        let slot = Slot { session, event };
        self.kept.insert(slot, entry.event_id);
        if entry.state == "DEAD" {
            self.dead.insert(slot);
        }
        Ok(())
    }

    /// Whether it is kept. The id of a summary is known once it has arrived.
    pub(crate) fn keeps(&self, slot: Slot, id: Uuid) -> bool {
        let kept = self.kept.get(&slot);
        kept.is_some_and(|kept| *kept == id || slot.event == STEPS && id.is_nil())
    }

    /// How many there are.
    pub(crate) fn events(&self) -> u64 {
        self.states.values().sum()
    }

    /// How many of each state, in words.
    pub(crate) fn in_words(&self) -> String {
        let words = self.states.iter();
        let words = words.map(|(state, count)| format!("{count} {}", state.to_lowercase()));
        words.collect::<Vec<_>>().join(", ")
    }
}

/// What no table of an ended switch may hold, and the query that counts it.
const ORPHANS: [(&str, &str); 9] = [
    (
        "pending rows without event",
        "SELECT count(*) FROM pending AS p WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.position = p.position \
         AND e.session_id = p.session_id AND e.ordinal = p.ordinal AND e.sub_account_id = p.sub_account_id)",
    ),
    (
        "events neither pending nor settled",
        "SELECT count(*) FROM events AS e WHERE NOT EXISTS (SELECT 1 FROM pending AS p WHERE p.sub_account_id = e.sub_account_id \
         AND p.session_id = e.session_id AND p.ordinal = e.ordinal) AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.position = e.position AND a.state >= 2)",
    ),
    (
        "pending events that are settled",
        "SELECT count(*) FROM pending AS p JOIN attempts AS a ON a.position = p.position WHERE a.state >= 2",
    ),
    (
        "keys without event",
        "SELECT count(*) FROM call_event_keys AS k WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.position = k.position)",
    ),
    (
        "status events without key",
        "SELECT count(*) FROM events AS e WHERE e.webhook_type = 'VCS' AND NOT EXISTS \
         (SELECT 1 FROM call_event_keys AS k WHERE k.position = e.position)",
    ),
    (
        "attempts without event",
        "SELECT count(*) FROM attempts AS a WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.position = a.position)",
    ),
    (
        "ended sessions without summary",
        "SELECT count(*) FROM reported_sessions AS s WHERE s.idle_at IS NULL AND NOT EXISTS \
         (SELECT 1 FROM events AS e WHERE e.session_id = s.session_id AND e.webhook_type = 'VSS')",
    ),
    (
        "sessions with two summaries, or one and no end",
        "SELECT count(*) FROM (SELECT session_id, count(*) AS many FROM events WHERE webhook_type = 'VSS' GROUP BY session_id) AS v \
         WHERE v.many > 1 OR NOT EXISTS (SELECT 1 FROM reported_sessions AS s WHERE s.session_id = v.session_id AND s.idle_at IS NULL)",
    ),
    (
        "sessions whose events leave a gap",
        "SELECT count(*) FROM (SELECT session_id FROM events GROUP BY session_id HAVING max(ordinal) <> count(*))",
    ),
];

/// The database of a switch that has ended.
pub(crate) struct Closed {
    database: Connection,
}

impl Closed {
    pub(crate) fn open(file: &Path) -> anyhow::Result<Self> {
        let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Ok(Self { database })
    }

    /// Counts what must not be there.
    pub(crate) fn check(&self, report: &mut Report) -> anyhow::Result<()> {
        let intact: String = self
            .database
            .query_row("PRAGMA quick_check", [], |row| row.get(0))?;
        report.promise("database", &intact, "ok", intact == "ok");
        let mut orphans = 0;
        for (what, query) in ORPHANS {
            let count: i64 = self.database.query_row(query, [], |row| row.get(0))?;
            let count = count.unsigned_abs();
            if count > 0 {
                report.none_of(what, count);
            }
            orphans += count;
        }
        report.none_of("orphans, by 9 queries", orphans);
        Ok(())
    }

    /// Sessions of which an event was parked at some time, or is lost.
    pub(crate) fn late_or_lost(&self) -> anyhow::Result<BTreeSet<u32>> {
        let mut query = self.database.prepare(
            "SELECT DISTINCT e.session_id FROM events AS e JOIN attempts AS a ON a.position = e.position WHERE a.state IN (1, 3, 4) \
             UNION SELECT session_id FROM pending WHERE state = 1",
        )?;
        let ids = query.query_map([], |row| row.get::<_, String>(0))?;
        let mut sessions = BTreeSet::new();
        for id in ids {
            sessions.extend(number_of(Uuid::parse_str(&id?)?));
        }
        Ok(sessions)
    }
}
