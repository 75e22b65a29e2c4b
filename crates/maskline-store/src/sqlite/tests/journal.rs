//! Commits, outcomes, and what is read back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use maskline_events::WebhookType;

use super::super::{deliveries, events, history};
use super::{at, batch, directory, entry, ephemeral, event, id, open};
use crate::model::{DeliveryState, JournalEntry, Outcome};
use crate::store::{Store, StoreError};

fn outcome(session: u64, ordinal: u64, state: DeliveryState) -> Outcome {
    Outcome {
        event_id: id(session, ordinal),
        state,
        attempts: 3,
        next_attempt_at: (!state.is_final()).then(|| at(90_000)),
        status: Some(503),
        error: Some("the receiver answered 503".to_owned()),
        at: at(1000),
    }
}

fn keys(rows: &[(crate::model::EventRow, Outcome)]) -> Vec<(uuid::Uuid, u64)> {
    rows.iter()
        .map(|(event, _)| (event.session_id, event.ordinal))
        .collect()
}

#[tokio::test]
async fn what_was_committed_is_read_back_after_a_restart() {
    let (_directory, path) = directory();
    let store = open(&path);
    let mut summary = event(1, 3);
    summary.webhook_type = WebhookType::Vss;
    let mut last = entry(1, 1..=2);
    last.events.push(summary.clone());
    store.commit(batch(vec![last])).await.unwrap();
    drop(store);

    let events = open(&path).session_events(id(0, 1)).await.unwrap();
    let rows: Vec<_> = events.iter().map(|(event, _)| event.clone()).collect();
    assert_eq!(rows, [event(1, 1), event(1, 2), summary]);
    assert_eq!(
        events[0].1,
        Outcome {
            event_id: id(1, 1),
            state: DeliveryState::Pending,
            attempts: 0,
            next_attempt_at: None,
            status: None,
            error: None,
            at: event(1, 1).at,
        }
    );
}

#[tokio::test]
async fn a_batch_that_is_committed_again_changes_nothing() {
    let store = ephemeral();
    let twice = batch(vec![entry(1, 1..=2)]);
    store.commit(twice.clone()).await.unwrap();
    let delivered = outcome(1, 1, DeliveryState::Delivered);
    store.record(vec![delivered.clone()]).await.unwrap();
    store.commit(twice).await.unwrap();
    let events = store.session_events(id(0, 1)).await.unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].1, delivered);
}

#[tokio::test]
async fn another_event_with_a_taken_ordinal_is_an_error_and_nothing_of_its_batch_is_kept() {
    let store = ephemeral();
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    let mut taken = entry(1, 1..=1);
    taken.events[0].event_id = id(9, 9);
    let error = store
        .commit(batch(vec![entry(2, 1..=2), taken]))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert!(!error.is_passing());
    assert!(store.session_events(id(0, 2)).await.unwrap().is_empty());
    assert_eq!(store.open_sessions(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_snapshot_is_replaced_and_then_deleted_with_its_session() {
    let store = ephemeral();
    store.commit(batch(vec![entry(2, 1..=1)])).await.unwrap();
    store
        .commit(batch(vec![entry(1, 1..=1), entry(2, 2..=2)]))
        .await
        .unwrap();
    let open = store.open_sessions(None, 10).await.unwrap();
    let snapshots: Vec<_> = open
        .iter()
        .map(|session| (session.session_id, session.snapshot.as_slice()))
        .collect();
    assert_eq!(
        snapshots,
        [(id(0, 1), &b"after 1"[..]), (id(0, 2), &b"after 2"[..])]
    );

    let over = JournalEntry {
        snapshot: None,
        ..entry(1, 2..=2)
    };
    store.commit(batch(vec![over])).await.unwrap();
    let first = store.open_sessions(None, 1).await.unwrap();
    assert_eq!(first[0].session_id, id(0, 2));
    let after = store.open_sessions(Some(id(0, 2)), 1).await.unwrap();
    assert!(after.is_empty());
}

#[tokio::test]
async fn what_is_unsettled_comes_in_pages_by_sub_account_session_and_ordinal() {
    let store = ephemeral();
    store
        .commit(batch(vec![entry(2, 9..=11), entry(1, 1..=3)]))
        .await
        .unwrap();
    store
        .record(vec![
            outcome(1, 1, DeliveryState::Delivered),
            outcome(1, 2, DeliveryState::Parked),
            outcome(1, 3, DeliveryState::Pending),
            outcome(2, 9, DeliveryState::Dead),
            outcome(2, 10, DeliveryState::NoEndpoint),
        ])
        .await
        .unwrap();
    let first = store.unsettled(None, 2).await.unwrap();
    assert_eq!(keys(&first), [(id(0, 1), 2), (id(0, 1), 3)]);
    assert_eq!(first[0].1, outcome(1, 2, DeliveryState::Parked));
    let rest = store.unsettled(Some(event(1, 3).place()), 2).await.unwrap();
    assert_eq!(keys(&rest), [(id(0, 2), 11)]);
    let none = store
        .unsettled(Some(event(2, 11).place()), 2)
        .await
        .unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_dead_event_that_is_replayed_is_unsettled_again() {
    let store = ephemeral();
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    store
        .record(vec![outcome(1, 1, DeliveryState::Dead)])
        .await
        .unwrap();
    assert!(store.unsettled(None, 9).await.unwrap().is_empty());
    store
        .record(vec![outcome(1, 1, DeliveryState::Pending)])
        .await
        .unwrap();
    assert_eq!(store.unsettled(None, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_outcome_of_an_unknown_event_changes_nothing_and_does_not_stop_the_others() {
    let store = ephemeral();
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    store
        .record(vec![
            outcome(7, 7, DeliveryState::Delivered),
            outcome(1, 1, DeliveryState::Delivered),
        ])
        .await
        .unwrap();
    assert!(store.unsettled(None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn nothing_that_is_read_is_sorted_or_searched_through() {
    let (_directory, path) = directory();
    let store = open(&path);
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    for query in [
        events::unsettled_page(),
        events::whole_session(),
        deliveries::pending_page(),
        deliveries::NEXT_OWNER.to_owned(),
        history::event_page(),
        history::replayable("events.at >= ?4"),
        history::of_session(),
        history::settled_page(),
    ] {
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
            .unwrap();
        let count = statement.parameter_count();
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(vec![""; count]), |row| {
                row.get(3)
            })
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for step in plan {
            assert!(!step.contains("TEMP B-TREE"), "{step}: {query}");
            assert!(!step.starts_with("SCAN"), "{step}: {query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_committers_share_transactions_and_a_bad_one_fails_alone() {
    let store = Arc::new(ephemeral());
    let committers: Vec<_> = (1..=256)
        .map(|session| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut failed = 0;
                for ordinal in 1..=4 {
                    let mut entry = entry(session, ordinal..=ordinal);
                    // Every 16th session uses an ordinal twice.
                    if session % 16 == 0 && ordinal == 4 {
                        entry.events[0].ordinal = 1;
                    }
                    failed += usize::from(store.commit(batch(vec![entry])).await.is_err());
                }
                failed
            })
        })
        .collect();
    let mut failed = 0;
    for committer in committers {
        failed += committer.await.unwrap();
    }
    assert_eq!(failed, 16);
    let all = store.unsettled(None, 10_000).await.unwrap();
    assert_eq!(all.len(), 256 * 4 - 16);
    let counters = store.counters();
    let transactions = counters.transactions.load(Ordering::Relaxed);
    assert_eq!(counters.writes.load(Ordering::Relaxed), 1024);
    assert!(
        transactions <= 256,
        "{transactions} transactions for 1024 commits"
    );
}
