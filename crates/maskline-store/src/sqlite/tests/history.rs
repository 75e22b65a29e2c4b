//! Looking back at events, replaying them, forgetting them.

use maskline_events::{Timestamp, WebhookType};
use rusqlite::Connection;
use uuid::Uuid;

use super::super::SqliteStore;
use super::deliveries::{settle, settlement};
use super::{at, batch, directory, entry, ephemeral, event, id, open};
use crate::deliveries::{Deliveries, StoredEvent};
use crate::history::{EventHistory, EventPage, ForgetStep, Replay, ReplayOf};
use crate::model::{DeliveryState, JournalEntry};
use crate::store::{Store, StoreError};

fn of(owner: &str, session: u64, ordinals: std::ops::RangeInclusive<u64>) -> JournalEntry {
    let mut entry = entry(session, ordinals);
    entry.sub_account_id = owner.to_owned();
    for event in &mut entry.events {
        event.sub_account_id = owner.to_owned();
    }
    entry
}

fn positions(page: &EventPage) -> Vec<u64> {
    page.events.iter().map(|(position, _)| *position).collect()
}

async fn pages(store: &SqliteStore, owner: &str, limit: u32) -> Vec<u64> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.page(owner, after, None, limit).await.unwrap();
        assert!(!page.gap && page.events.len() <= limit as usize);
        seen.extend(positions(&page));
        if !page.more {
            return seen;
        }
        after = Some(page.next);
    }
}

fn replay(of: ReplayOf, states: &[DeliveryState]) -> Replay {
    Replay {
        sub_account_id: "acme".to_owned(),
        of,
        states: states.to_vec(),
    }
}

const ANY: [DeliveryState; 3] = [
    DeliveryState::Delivered,
    DeliveryState::Dead,
    DeliveryState::NoEndpoint,
];

async fn pending(store: &SqliteStore) -> Vec<(Uuid, u64)> {
    let rows = store.pending("acme", None, 10_000).await.unwrap().events;
    rows.iter().filter_map(StoredEvent::key).collect()
}

#[tokio::test]
async fn events_are_read_once_each_in_the_order_of_their_commits_whoever_else_has_some() {
    let store = ephemeral();
    for session in 1..=5 {
        let (ours, theirs) = (of("acme", session, 1..=3), of("zeta", session + 10, 1..=2));
        store.commit(batch(vec![ours, theirs])).await.unwrap();
    }
    settle(&store, vec![settlement(1, 2, DeliveryState::Dead)]).await;
    let wanted: Vec<u64> = (0..5)
        .flat_map(|it| [5 * it + 1, 5 * it + 2, 5 * it + 3])
        .collect();
    for limit in [1, 2, 7, 1_000] {
        assert_eq!(pages(&store, "acme", limit).await, wanted, "{limit}");
    }
    assert_eq!(pages(&store, "zeta", 1).await.len(), 10);
    assert!(pages(&store, "none", 1).await.is_empty());

    let page = store.page("acme", Some(1), None, 1).await.unwrap();
    let (2, StoredEvent::Whole(found, outcome)) = &page.events[0] else {
        panic!("{page:?}");
    };
    assert_eq!((found, outcome.state), (&event(1, 2), DeliveryState::Dead));
    // What is committed later comes after the last cursor.
    let end = store.page("acme", Some(25), None, 9).await.unwrap();
    assert!(end.events.is_empty() && !end.more && end.next == 25);
    store
        .commit(batch(vec![of("acme", 9, 1..=1)]))
        .await
        .unwrap();
    let later = store.page("acme", Some(end.next), None, 9).await.unwrap();
    assert_eq!(positions(&later), [26]);
}

#[tokio::test]
async fn a_page_may_be_of_one_type_and_goes_on_behind_a_broken_row() {
    let (_directory, path) = directory();
    let store = open(&path);
    let mut call = entry(1, 1..=4);
    call.events[3].webhook_type = WebhookType::Vss;
    store.commit(batch(vec![call])).await.unwrap();
    let summaries = store.page("acme", None, Some(WebhookType::Vss), 9).await;
    assert_eq!(positions(&summaries.unwrap()), [4]);
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE events SET body = x'ff' WHERE position = 2", [])
        .unwrap();
    let page = store.page("acme", None, None, 9).await.unwrap();
    assert_eq!(positions(&page), [1, 2, 3, 4]);
    assert!(matches!(page.events[1].1, StoredEvent::Broken { .. }));
}

#[tokio::test]
async fn a_cursor_behind_which_something_was_forgotten_or_that_is_of_another_store_says_so() {
    let store = ephemeral();
    store
        .commit(batch(vec![
            of("acme", 1, 1..=2),
            of("zeta", 2, 1..=2),
            of("acme", 3, 1..=1),
        ]))
        .await
        .unwrap();
    let mut theirs = settlement(2, 1, DeliveryState::Delivered);
    theirs.sub_account_id = "zeta".to_owned();
    settle(
        &store,
        vec![settlement(1, 2, DeliveryState::Delivered), theirs],
    )
    .await;
    assert_eq!(store.forget(at(90_000), 0, 200).await.unwrap().forgotten, 2);
    let gap = async |owner, after| store.page(owner, after, None, 9).await.unwrap().gap;
    assert!(gap("acme", Some(1)).await);
    assert!(!gap("acme", Some(2)).await);
    assert!(!gap("acme", None).await);
    assert!(gap("zeta", Some(2)).await);
    assert!(!gap("zeta", Some(3)).await);
    let beyond = store.page("acme", Some(6), None, 9).await.unwrap();
    assert!(beyond.gap && beyond.next == 5);
}

#[tokio::test]
async fn the_log_of_an_event_is_its_owners_and_goes_on_over_replays() {
    let store = ephemeral();
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    settle(&store, vec![settlement(1, 1, DeliveryState::Dead)]).await;
    let again = replay(ReplayOf::Event(id(1, 1)), &ANY);
    let step = store.replay(&again, 0, at(5_000)).await.unwrap();
    assert_eq!(
        (step.events, &step.sessions[..], step.next),
        (1, &[id(0, 1)][..], None)
    );
    settle(&store, vec![settlement(1, 1, DeliveryState::Delivered)]).await;
    let log = store.attempts("acme", id(1, 1)).await.unwrap().unwrap();
    let told: Vec<_> = log
        .iter()
        .map(|it| (it.number, it.state, it.status))
        .collect();
    assert_eq!(
        told,
        [
            (1, DeliveryState::Dead, Some(503)),
            (2, DeliveryState::Delivered, Some(200))
        ]
    );
    assert_eq!(log[1].answer, b"thanks");
    assert_eq!(log[1].duration.unwrap().as_millis(), 12);
    assert!(store.attempts("zeta", id(1, 1)).await.unwrap().is_none());
    assert!(store.attempts("acme", id(9, 9)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_replay_takes_what_is_over_and_in_the_states_that_were_asked_for() {
    let store = ephemeral();
    store
        .commit(batch(vec![
            of("acme", 1, 1..=4),
            of("acme", 2, 1..=1),
            of("zeta", 3, 1..=1),
        ]))
        .await
        .unwrap();
    let dead = [DeliveryState::Dead];
    settle(
        &store,
        vec![
            settlement(1, 1, DeliveryState::Delivered),
            settlement(1, 2, DeliveryState::Dead),
            settlement(1, 3, DeliveryState::Parked),
            settlement(1, 4, DeliveryState::NoEndpoint),
            settlement(2, 1, DeliveryState::Dead),
        ],
    )
    .await;
    let session = ReplayOf::Session(id(0, 1));
    let step = store
        .replay(&replay(session.clone(), &dead), 0, at(9))
        .await
        .unwrap();
    assert_eq!(step.events, 1);
    assert_eq!(pending(&store).await, [(id(0, 1), 2), (id(0, 1), 3)]);
    let step = store
        .replay(&replay(session.clone(), &ANY), 0, at(9))
        .await
        .unwrap();
    assert_eq!(step.events, 2);
    // It is on its way already.
    let step = store
        .replay(&replay(session, &ANY), 0, at(9))
        .await
        .unwrap();
    assert_eq!((step.events, step.sessions.len()), (0, 0));
    let time = ReplayOf::Time {
        webhook_type: WebhookType::Vcs,
        from: at(1),
        to: at(1),
    };
    let step = store.replay(&replay(time, &dead), 0, at(9)).await.unwrap();
    assert_eq!((step.events, &step.sessions[..]), (1, &[id(0, 2)][..]));
    let StoredEvent::Whole(row, stands) = &store.pending("acme", None, 1).await.unwrap().events[0]
    else {
        panic!("not whole");
    };
    assert_eq!(
        (row, stands.attempts, stands.next_attempt_at),
        (&event(1, 1), 0, None)
    );

    for strange in [
        ReplayOf::Event(id(3, 1)),
        ReplayOf::Event(id(9, 9)),
        ReplayOf::Session(id(0, 3)),
        ReplayOf::Session(id(0, 9)),
    ] {
        let error = store
            .replay(&replay(strange, &ANY), 0, at(9))
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_long_replay_goes_in_steps_and_misses_nothing() {
    let store = ephemeral();
    let calls = (1..=130).map(|session| entry(session, 1..=9)).collect();
    store.commit(batch(calls)).await.unwrap();
    let all = (1..=130).flat_map(|session| {
        (1..=9).map(move |ordinal| settlement(session, ordinal, DeliveryState::NoEndpoint))
    });
    settle(&store, all.collect()).await;
    let time = ReplayOf::Time {
        webhook_type: WebhookType::Vcs,
        from: at(0),
        to: at(8),
    };
    let wish = replay(time, &ANY);
    let (mut steps, mut after, mut events) = (0, Some(0), 0);
    while let Some(from) = after {
        let step = store.replay(&wish, from, at(9)).await.unwrap();
        events += step.events;
        after = step.next;
        steps += 1;
    }
    assert_eq!((steps, events), (3, 130 * 8));
    assert_eq!(pending(&store).await.len(), 130 * 8);
}

/// How many rows each of these tables has.
fn rows(path: &std::path::Path) -> Vec<i64> {
    let connection = Connection::open(path).unwrap();
    [
        "events",
        "pending",
        "attempts",
        "call_event_keys",
        "reported_sessions",
    ]
    .map(|table| {
        let count = format!("SELECT COUNT(*) FROM {table}");
        connection.query_row(&count, [], |row| row.get(0)).unwrap()
    })
    .to_vec()
}

async fn forget(store: &SqliteStore, before: Timestamp, limit: u32) -> u64 {
    let (mut forgotten, mut after) = (0, Some(0));
    while let Some(from) = after {
        let step: ForgetStep = store.forget(before, from, limit).await.unwrap();
        assert!(step.forgotten <= u64::from(limit));
        forgotten += step.forgotten;
        after = step.next;
    }
    forgotten
}

/// Has all of a session delivered at that time, however often it was before.
async fn deliver(store: &SqliteStore, session: u64, events: u64, time: Timestamp) {
    let results = (1..=events).map(|ordinal| {
        let mut result = settlement(session, ordinal, DeliveryState::Delivered);
        result.outcome.at = time;
        result
    });
    settle(store, results.collect()).await;
}

#[tokio::test]
async fn old_events_that_were_replayed_keep_those_behind_them_from_nothing() {
    const REPLAYED: u64 = 2_500;
    const OLD: u64 = 450;
    let store = ephemeral();
    let mut young = entry(3, 1..=1);
    young.events[0].at = at(90_000);
    let calls = vec![entry(1, 1..=REPLAYED), entry(2, 1..=OLD), young];
    store.commit(batch(calls)).await.unwrap();
    deliver(&store, 1, REPLAYED, at(10_000)).await;
    deliver(&store, 2, OLD, at(10_000)).await;
    let all = replay(ReplayOf::Session(id(0, 1)), &ANY);
    let mut after = Some(0);
    while let Some(from) = after {
        after = store.replay(&all, from, at(80_000)).await.unwrap().next;
    }
    deliver(&store, 1, REPLAYED, at(80_000)).await;

    let (mut steps, mut after) = (Vec::new(), Some(0));
    while let Some(from) = after {
        let step = store.forget(at(20_000), from, 200).await.unwrap();
        steps.push(step.forgotten);
        after = step.next;
    }
    assert_eq!(steps, [200, 200, 50]);
    assert_eq!(
        forget(&store, at(80_001), 200).await,
        REPLAYED,
        "they go when they were last sent so long ago"
    );
}

#[tokio::test]
async fn a_step_that_walks_over_many_and_deletes_none_goes_on_behind_them() {
    const SENT_LATE: u64 = 20_300;
    let store = ephemeral();
    let calls = vec![entry(1, 1..=SENT_LATE), entry(2, 1..=10)];
    store.commit(batch(calls)).await.unwrap();
    deliver(&store, 1, SENT_LATE, at(90_000)).await;
    deliver(&store, 2, 9, at(10_000)).await;
    let first = store.forget(at(50_000), 0, 200).await.unwrap();
    assert_eq!((first.forgotten, first.next), (0, Some(20_000)));
    let then = store.forget(at(50_000), 20_000, 200).await.unwrap();
    assert_eq!((then.forgotten, then.next), (9, None));
}

#[tokio::test]
async fn a_pass_ends_at_a_long_run_of_what_happened_too_late_and_at_no_shorter_one() {
    const LATE: u64 = 1_999;
    let store = ephemeral();
    let late = |session, count| {
        let mut late = entry(session, 1..=count);
        late.events.iter_mut().for_each(|it| it.at = at(90_000));
        late
    };
    let old = |session| entry(session, 1..=1);
    // A clock that was set back lets some that are old lie behind some that are not.
    let calls = vec![old(1), late(2, LATE), old(3), late(4, LATE + 1), old(5)];
    store.commit(batch(calls)).await.unwrap();
    store.commit(batch(vec![old(6)])).await.unwrap();
    for session in [1, 3, 5] {
        deliver(&store, session, 1, at(10_000)).await;
    }
    let step = store.forget(at(20_000), 0, 200).await.unwrap();
    assert_eq!((step.forgotten, step.next), (2, None));
}

#[tokio::test]
async fn what_was_settled_long_ago_goes_with_all_that_belongs_to_it_and_nothing_else_does() {
    let (_directory, path) = directory();
    let store = open(&path);
    store
        .commit(batch(
            (1..=4).map(|session| entry(session, 1..=2)).collect(),
        ))
        .await
        .unwrap();
    let mut late = settlement(2, 1, DeliveryState::Dead);
    late.outcome.at = at(60_000);
    settle(
        &store,
        vec![
            settlement(1, 1, DeliveryState::Delivered),
            settlement(1, 2, DeliveryState::NoEndpoint),
            late,
            settlement(2, 2, DeliveryState::Dead),
            settlement(3, 1, DeliveryState::Parked),
            settlement(4, 1, DeliveryState::Delivered),
            settlement(4, 2, DeliveryState::Delivered),
        ],
    )
    .await;
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch(
        "INSERT INTO call_event_keys VALUES ('acme', 'one', 1), ('acme', 'three', 3);
         INSERT INTO reported_sessions SELECT session_id, 'acme', x'00', NULL, 0 FROM events
         WHERE ordinal = 1;",
    )
    .unwrap();
    // Replayed: it is on its way once more.
    let again = replay(ReplayOf::Event(id(2, 2)), &ANY);
    store.replay(&again, 0, at(9)).await.unwrap();
    assert_eq!(rows(&path), [8, 3, 7, 2, 4]);

    assert_eq!(forget(&store, at(1_000), 1).await, 0);
    assert_eq!(forget(&store, at(1_001), 1).await, 3);
    // Both of the first session and one of the last; the highest position stays.
    assert_eq!(rows(&path), [5, 3, 4, 1, 3]);
    assert!(store.session(id(0, 1)).await.unwrap().is_empty());
    let raw_highest: i64 = raw
        .query_row("SELECT MAX(position) FROM events", [], |row| row.get(0))
        .unwrap();
    assert_eq!(raw_highest, 8);
    assert_eq!(forget(&store, at(60_001), 200).await, 1);
    assert_eq!(forget(&store, at(90_000), 200).await, 0);
}
