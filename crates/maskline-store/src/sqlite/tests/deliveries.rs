//! What is pending, what became of it, and the log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maskline_events::WebhookType;
use rusqlite::Connection;
use uuid::Uuid;

use super::super::SqliteStore;
use super::{at, batch, directory, entry, ephemeral, event, id, open};
use crate::deliveries::{
    AttemptRecord, Deliveries, LOGGED_ANSWER_BYTES, SessionBacklog, Settlement, StoredEvent,
};
use crate::model::{DeliveryState, JournalEntry, Outcome};
use crate::store::Store;

pub(super) fn outcome(session: u64, ordinal: u64, state: DeliveryState, attempts: u32) -> Outcome {
    let failed = state != DeliveryState::Delivered;
    Outcome {
        event_id: id(session, ordinal),
        state,
        attempts,
        next_attempt_at: (!state.is_final()).then(|| at(90_000)),
        status: Some(if failed { 503 } else { 200 }),
        error: failed.then(|| "the receiver answered 503".to_owned()),
        at: at(1000 * i64::from(attempts)),
    }
}

pub(super) fn settlement(session: u64, ordinal: u64, state: DeliveryState) -> Settlement {
    Settlement {
        sub_account_id: "acme".to_owned(),
        session_id: id(0, session),
        ordinal,
        outcome: outcome(session, ordinal, state, 1),
        attempt: Some(AttemptRecord {
            duration: Duration::from_millis(12),
            answer: b"thanks".to_vec(),
            truncated: false,
        }),
    }
}

pub(super) async fn settle(store: &SqliteStore, results: Vec<Settlement>) {
    store.settle(results.into()).await.unwrap();
}

fn keys(events: &[StoredEvent]) -> Vec<Option<(Uuid, u64)>> {
    events.iter().map(StoredEvent::key).collect()
}

/// The log as the table has it: position, number, state, attempts, status, duration, answer, cut.
type Line = (i64, i64, i64, i64, Option<i64>, Option<i64>, i64, bool);

fn log(path: &Path) -> Vec<Line> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection
        .prepare("SELECT position, number, state, attempts, status, duration_ms, length(answer), truncated FROM attempts ORDER BY position, number")
        .unwrap();
    let lines = statement.query_map([], |row| {
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
            row.get(5)?,
            row.get::<_, Option<i64>>(6)?.unwrap_or(0),
            row.get(7)?,
        ))
    });
    lines.unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn what_is_pending_is_read_by_sub_account_in_pages_and_in_order() {
    let store = ephemeral();
    let mut other = entry(7, 1..=1);
    other.sub_account_id = "zeta".to_owned();
    other.events[0].sub_account_id = "zeta".to_owned();
    store
        .commit(batch(vec![entry(2, 9..=11), entry(1, 1..=3), other]))
        .await
        .unwrap();
    settle(
        &store,
        vec![
            settlement(1, 1, DeliveryState::Delivered),
            settlement(1, 2, DeliveryState::Parked),
            settlement(2, 9, DeliveryState::Dead),
            settlement(2, 10, DeliveryState::NoEndpoint),
        ],
    )
    .await;
    assert_eq!(store.pending_owners().await.unwrap(), ["acme", "zeta"]);
    let first = store.pending("acme", None, 2).await.unwrap().events;
    assert_eq!(keys(&first), [Some((id(0, 1), 2)), Some((id(0, 1), 3))]);
    let parked = outcome(1, 2, DeliveryState::Parked, 1);
    assert_eq!(first[0], StoredEvent::Whole(event(1, 2), parked));
    let rest = store
        .pending("acme", first[1].key(), 2)
        .await
        .unwrap()
        .events;
    assert_eq!(keys(&rest), [Some((id(0, 2), 11))]);
    let none = store
        .pending("acme", rest[0].key(), 2)
        .await
        .unwrap()
        .events;
    assert!(none.is_empty());
    let zeta = store.pending("zeta", None, 9).await.unwrap().events;
    assert_eq!(keys(&zeta), [Some((id(0, 7), 1))]);
    assert!(
        store
            .pending("nobody", None, 9)
            .await
            .unwrap()
            .events
            .is_empty()
    );
}

#[tokio::test]
async fn a_broken_row_is_named_and_the_page_goes_on_behind_it() {
    let (_directory, path) = directory();
    let store = open(&path);
    let whole: Vec<JournalEntry> = (1..=6).map(|session| entry(session, 1..=1)).collect();
    store.commit(batch(whole)).await.unwrap();
    let raw = Connection::open(&path).unwrap();
    let spoil = |sql: &str, session: u64| {
        assert_eq!(raw.execute(sql, [id(0, session).to_string()]).unwrap(), 1);
    };
    spoil(
        "UPDATE events SET webhook_type = 'XYZ' WHERE session_id = ?1",
        2,
    );
    spoil("UPDATE events SET body = x'c328' WHERE session_id = ?1", 3);
    spoil("UPDATE pending SET state = 9 WHERE session_id = ?1", 4);
    spoil("DELETE FROM events WHERE session_id = ?1", 5);
    raw.execute_batch(
        "INSERT INTO pending VALUES ('acme', '000', 1, 1, 0, 0, NULL, 0);
         INSERT INTO pending VALUES ('acme', '0000', 1, 1, 0, 0, NULL, 0);",
    )
    .unwrap();

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.pending("acme", after, 2).await.unwrap().events;
        let last = page.iter().rev().find_map(StoredEvent::key);
        let whole = page.iter().filter(|it| it.key().is_some()).count();
        seen.extend(page);
        if whole < 2 {
            break;
        }
        after = last;
    }
    let told: Vec<_> = seen
        .iter()
        .map(|found| match found {
            StoredEvent::Whole(event, _) => (Some(event.session_id), "whole".to_owned()),
            StoredEvent::Broken {
                session_id, reason, ..
            } => (*session_id, reason.clone()),
        })
        .collect();
    assert_eq!(told[0], (Some(id(0, 1)), "whole".to_owned()));
    assert_eq!(told[1].0, Some(id(0, 2)));
    assert!(told[1].1.contains("unknown webhook type"), "{told:?}");
    assert!(told[2].0.is_none() && told[2].1.starts_with("2 pending rows"));
    assert_eq!(told[3].0, Some(id(0, 3)));
    assert!(told[3].1.contains("body"), "{told:?}");
    assert_eq!(told[4].0, Some(id(0, 4)));
    assert!(told[4].1.contains("delivery state"), "{told:?}");
    assert_eq!(told[5].0, Some(id(0, 5)));
    assert!(told[5].1.contains("event_id"), "{told:?}");
    assert_eq!(told[6], (Some(id(0, 6)), "whole".to_owned()));
    assert_eq!(told.len(), 7);

    let session = store.session(id(0, 3)).await.unwrap();
    assert!(matches!(
        session[..],
        [StoredEvent::Broken { ordinal: 1, .. }]
    ));
}

#[tokio::test]
async fn of_a_session_only_what_is_pending_is_read_in_pages_from_any_place_on() {
    let (_directory, path) = directory();
    let store = open(&path);
    let mut call = entry(1, 1..=9);
    call.events[8].webhook_type = WebhookType::Vss;
    let calls = vec![call, entry(2, 1..=3)];
    store.commit(batch(calls)).await.unwrap();
    let read = async |after, limit| {
        let backlog = store.backlog("acme", id(0, 1), after, limit);
        let SessionBacklog {
            pending,
            more,
            last,
            has_summary,
            lost,
        } = backlog.await.unwrap();
        assert!(lost.is_empty());
        let ordinals: Vec<_> = pending.iter().map(|it| it.key().unwrap().1).collect();
        (ordinals, more, last, has_summary)
    };
    assert_eq!(read(0, 3).await, (vec![1, 2, 3], true, 9, true));
    let settled = [1, 2, 4, 5, 9].map(|it| settlement(1, it, DeliveryState::Delivered));
    settle(&store, settled.to_vec()).await;
    settle(&store, vec![settlement(1, 3, DeliveryState::Parked)]).await;
    // What is settled is not even looked at.
    let raw = Connection::open(&path).unwrap();
    raw.execute("UPDATE events SET body = x'c328' WHERE ordinal = 4", [])
        .unwrap();
    assert_eq!(read(0, 3).await, (vec![3, 6, 7], true, 9, true));
    assert_eq!(read(7, 3).await, (vec![8], false, 9, true));
    assert_eq!(read(8, 3).await, (vec![], false, 9, true));
    assert_eq!(read(9, 3).await, (vec![], false, 0, false));
    let parked = outcome(1, 3, DeliveryState::Parked, 1);
    let first = store.backlog("acme", id(0, 1), 0, 1).await.unwrap();
    assert_eq!(first.pending, [StoredEvent::Whole(event(1, 3), parked)]);
    let other = store.backlog("zeta", id(0, 1), 0, 9).await.unwrap();
    assert!(other.pending.is_empty());

    raw.execute("UPDATE events SET body = x'c328' WHERE ordinal = 7", [])
        .unwrap();
    let behind = store.backlog("acme", id(0, 1), 6, 9).await.unwrap();
    assert!(matches!(
        behind.pending[..],
        [
            StoredEvent::Broken { ordinal: 7, .. },
            StoredEvent::Whole(..)
        ]
    ));
    raw.execute("UPDATE events SET ordinal = 'x' WHERE ordinal = 8", [])
        .unwrap();
    let behind = store.backlog("acme", id(0, 1), 6, 9).await.unwrap();
    assert!(matches!(
        behind.pending[..],
        [StoredEvent::Broken { ordinal: 0, .. }]
    ));
    assert!(!behind.more);
}

#[tokio::test]
async fn each_attempt_is_logged_with_its_duration_and_the_beginning_of_its_answer() {
    let (_directory, path) = directory();
    let store = open(&path);
    store.commit(batch(vec![entry(1, 1..=2)])).await.unwrap();
    let mut long = settlement(1, 1, DeliveryState::Pending);
    long.attempt = Some(AttemptRecord {
        duration: Duration::from_millis(10_000),
        answer: vec![b'x'; LOGGED_ANSWER_BYTES + 1],
        truncated: false,
    });
    let mut last = settlement(1, 1, DeliveryState::Delivered);
    last.outcome.attempts = 2;
    let mut nowhere = settlement(1, 2, DeliveryState::NoEndpoint);
    nowhere.attempt = None;
    nowhere.outcome.status = None;
    nowhere.outcome.attempts = 0;
    settle(&store, vec![long, last]).await;
    settle(&store, vec![nowhere]).await;
    assert_eq!(
        log(&path),
        [
            (1, 1, 0, 1, Some(503), Some(10_000), 16 * 1024, true),
            (1, 2, 2, 2, Some(200), Some(12), 6, false),
            (2, 1, 4, 0, None, None, 0, false),
        ]
    );
    assert!(store.pending_owners().await.unwrap().is_empty());
    let events = store.session(id(0, 1)).await.unwrap();
    let StoredEvent::Whole(_, stands) = &events[0] else {
        panic!("{events:?}");
    };
    let mut wanted = outcome(1, 1, DeliveryState::Delivered, 1);
    wanted.attempts = 2;
    assert_eq!(stands, &wanted);
}

#[tokio::test]
async fn what_is_settled_again_or_is_not_there_changes_nothing() {
    let (_directory, path) = directory();
    let store = open(&path);
    store.commit(batch(vec![entry(1, 1..=2)])).await.unwrap();
    let results: Arc<[Settlement]> = Arc::from(vec![
        settlement(1, 1, DeliveryState::Delivered),
        settlement(1, 2, DeliveryState::Pending),
        settlement(9, 9, DeliveryState::Delivered),
    ]);
    store.settle(Arc::clone(&results)).await.unwrap();
    store.settle(results).await.unwrap();
    // Not even a late failure takes back that an event was delivered.
    settle(&store, vec![settlement(1, 1, DeliveryState::Pending)]).await;
    let states: Vec<_> = log(&path).iter().map(|it| (it.0, it.1, it.2)).collect();
    assert_eq!(states, [(1, 1, 2), (2, 1, 0)]);
    let left = store.pending("acme", None, 9).await.unwrap().events;
    assert_eq!(keys(&left), [Some((id(0, 1), 2))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_wait_for_a_commit_to_ride_with() {
    const ROUNDS: u64 = 5;
    let store = Arc::new(ephemeral());
    let transactions = || store.counters().transactions.load(Ordering::Relaxed);
    store
        .commit(batch(vec![entry(1, 1..=ROUNDS)]))
        .await
        .unwrap();
    let mut rode = 0;
    for round in 1..=ROUNDS {
        let before = transactions();
        let shared = Arc::clone(&store);
        let settled = tokio::spawn(async move {
            settle(
                &shared,
                vec![settlement(1, round, DeliveryState::Delivered)],
            )
            .await;
        });
        // Long enough for the writer to have begun, had it not waited.
        tokio::time::sleep(Duration::from_millis(10)).await;
        store
            .commit(batch(vec![entry(round + 1, 1..=1)]))
            .await
            .unwrap();
        settled.await.unwrap();
        rode += u64::from(transactions() == before + 1);
    }
    // A machine that is busy elsewhere for 40 ms spoils a round.
    assert!(rode * 2 > ROUNDS, "{rode} of {ROUNDS}");
}
