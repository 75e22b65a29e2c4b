//! Commits, outcomes, and what is read back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use maskline_events::WebhookType;

use super::super::{SqliteStore, deliveries, events, history};
use super::{at, batch, directory, entry, ephemeral, event, events_of, id, open, pending_events};
use crate::deliveries::{Deliveries as _, Settlement};
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

/// Settles events of which the id says which they are, as [`event`] makes them.
async fn settle(store: &SqliteStore, outcomes: impl IntoIterator<Item = Outcome>) {
    let settlement = |outcome: Outcome| {
        let (session, ordinal) = outcome.event_id.as_u64_pair();
        Settlement {
            sub_account_id: event(session, ordinal).sub_account_id,
            session_id: id(0, session),
            ordinal,
            outcome,
            attempt: None,
        }
    };
    let results = outcomes.into_iter().map(settlement).collect();
    store.settle(results).await.unwrap();
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

    let events = events_of(&open(&path), id(0, 1)).await;
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
    settle(&store, [delivered.clone()]).await;
    store.commit(twice).await.unwrap();
    let events = events_of(&store, id(0, 1)).await;
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
    assert!(events_of(&store, id(0, 2)).await.is_empty());
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
async fn the_outcome_of_an_unknown_event_changes_nothing_and_does_not_stop_the_others() {
    let store = ephemeral();
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    let known = outcome(1, 1, DeliveryState::Delivered);
    settle(&store, [outcome(7, 7, DeliveryState::Delivered), known]).await;
    assert!(pending_events(&store).await.is_empty());
}

#[tokio::test]
async fn nothing_that_is_read_is_sorted_or_searched_through() {
    let (_directory, path) = directory();
    let store = open(&path);
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    for query in [
        events::whole_session(),
        deliveries::pending_page(),
        deliveries::backlog_page(),
        deliveries::LAST_OF_SESSION.to_owned(),
        deliveries::LOST.to_owned(),
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
    let all = pending_events(&store).await;
    assert_eq!(all.len(), 256 * 4 - 16);
    let counters = store.counters();
    let transactions = counters.transactions.load(Ordering::Relaxed);
    assert_eq!(counters.writes.load(Ordering::Relaxed), 1024);
    assert!(
        transactions <= 256,
        "{transactions} transactions for 1024 commits"
    );
}
