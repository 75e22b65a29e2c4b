//! Tests on real files. What several of them need is here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::panic,
    clippy::print_stdout
)]

mod configuration;
mod crash;
mod deliveries;
mod full;
mod hiding;
mod history;
mod intake;
mod journal;
mod lost;
mod opening;
mod parameters;
mod settings;
mod traces;
mod upgrade;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maskline_events::{Timestamp, WebhookType};
use tempfile::TempDir;
use uuid::Uuid;

use super::{SqliteLocation, SqliteOptions, SqliteStore};
use crate::deliveries::{Deliveries, StoredEvent};
use crate::model::{EventRow, JournalBatch, JournalEntry, Outcome, SwitchedOff};
use crate::secrets::MasterKey;
use crate::store::{Store as _, StoreError};

pub(super) fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maskline.db");
    (directory, path)
}

pub(super) fn options() -> SqliteOptions {
    SqliteOptions {
        reserve_bytes: 0,
        ..SqliteOptions::default()
    }
}

pub(super) fn try_open(path: &Path) -> Result<SqliteStore, StoreError> {
    let location = SqliteLocation::File(path.to_owned());
    let key = location.master_key(None).unwrap();
    SqliteStore::open(&location, &key, options())
}

pub(super) fn open(path: &Path) -> SqliteStore {
    try_open(path).unwrap()
}

pub(super) fn ephemeral() -> SqliteStore {
    let key = MasterKey::random().unwrap();
    SqliteStore::open(&SqliteLocation::Ephemeral, &key, options()).unwrap()
}

/// Switches a webhook of `acme` off, as the receiver's 410 does.
pub(super) async fn disable(store: &SqliteStore, kind: WebhookType) {
    let asked = store.endpoint("acme", kind, at(0)).await.unwrap().unwrap();
    let disabled = store.disable_webhook("acme", kind, asked.revision).await;
    assert_eq!(disabled.unwrap(), SwitchedOff::Now);
}

pub(super) fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_767_694_639_375 + ms)
}

/// Session and event ids made of numbers, so that a failing test can be read.
pub(super) fn id(kind: u64, number: u64) -> Uuid {
    Uuid::from_u64_pair(kind, number)
}

pub(super) fn event(session: u64, ordinal: u64) -> EventRow {
    EventRow {
        event_id: id(session, ordinal),
        session_id: id(0, session),
        sub_account_id: "acme".to_owned(),
        ordinal,
        webhook_type: WebhookType::Vcs,
        at: at(i64::try_from(ordinal).unwrap()),
        body: format!("{{\"session\":{session},\"ordinal\":{ordinal}}}"),
    }
}

pub(super) fn entry(session: u64, ordinals: std::ops::RangeInclusive<u64>) -> JournalEntry {
    JournalEntry {
        session_id: id(0, session),
        sub_account_id: "acme".to_owned(),
        snapshot: Some(format!("after {}", ordinals.end()).into_bytes()),
        events: ordinals.map(|ordinal| event(session, ordinal)).collect(),
    }
}

pub(super) fn batch(entries: Vec<JournalEntry>) -> JournalBatch {
    JournalBatch {
        entries: entries.into_iter().map(Arc::new).collect(),
    }
}

/// Every event of a session, each of which can be read.
pub(super) async fn events_of(store: &SqliteStore, session: Uuid) -> Vec<(EventRow, Outcome)> {
    whole(store.session(session).await.unwrap())
}

/// Everything that is pending, by sub-account, session and ordinal.
pub(super) async fn pending_events(store: &SqliteStore) -> Vec<(EventRow, Outcome)> {
    let mut events = Vec::new();
    for owner in store.pending_owners().await.unwrap() {
        events.extend(whole(
            store.pending(&owner, None, 10_000).await.unwrap().events,
        ));
    }
    events
}

fn whole(events: Vec<StoredEvent>) -> Vec<(EventRow, Outcome)> {
    let whole = |event| match event {
        StoredEvent::Whole(event, outcome) => (event, outcome),
        StoredEvent::Broken { reason, .. } => panic!("{reason}"),
    };
    events.into_iter().map(whole).collect()
}

/// Waits for a condition, and fails with its name when it does not come true.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
