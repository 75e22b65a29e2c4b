//! What the store says of events that ended undelivered.

use maskline_events::WebhookType;
use rusqlite::Connection;

use super::super::SqliteStore;
use super::super::deliveries::LOOKED_BACK;
use super::deliveries::{settle, settlement};
use super::{at, batch, directory, entry, ephemeral, id, open};
use crate::deliveries::{Deliveries, Lost};
use crate::history::{EventHistory as _, Replay, ReplayOf};
use crate::model::DeliveryState;
use crate::store::Store;

const DEAD: DeliveryState = DeliveryState::Dead;
const NO_ENDPOINT: DeliveryState = DeliveryState::NoEndpoint;
const DELIVERED: DeliveryState = DeliveryState::Delivered;

fn lost(ended: &[(u64, WebhookType, DeliveryState)]) -> Lost {
    let mut lost = Lost::default();
    for (ordinal, kind, state) in ended {
        lost.note(*ordinal, *kind, *state);
    }
    lost
}

/// What the page of `acme` after that event says of a session.
async fn of_page(store: &SqliteStore, after: Option<(u64, u64)>, limit: u32, session: u64) -> Lost {
    let after = after.map(|(session, ordinal)| (id(0, session), ordinal));
    let page = store.pending("acme", after, limit).await.unwrap();
    page.lost.get(&id(0, session)).cloned().unwrap_or_default()
}

async fn of_session(store: &SqliteStore, after: u64, limit: u32) -> Lost {
    let read = store.backlog("acme", id(0, 1), after, limit);
    read.await.unwrap().lost
}

/// Session 1: 2 and 5 dead, 3 (VRU) and 7 without an endpoint, 4, 6, 9 and 10 pending.
async fn some_lost(store: &SqliteStore) {
    let mut call = entry(1, 1..=10);
    call.events[2].webhook_type = WebhookType::Vru;
    store
        .commit(batch(vec![call, entry(2, 1..=2)]))
        .await
        .unwrap();
    let ended = [
        (1, DELIVERED),
        (2, DEAD),
        (3, NO_ENDPOINT),
        (4, DeliveryState::Parked),
        (5, DEAD),
        (7, NO_ENDPOINT),
        (8, DELIVERED),
    ];
    let ended = ended.map(|(ordinal, state)| settlement(1, ordinal, state));
    settle(store, ended.to_vec()).await;
}

#[tokio::test]
async fn a_page_says_what_was_lost_of_its_sessions_before_its_last_event_of_each() {
    let store = ephemeral();
    some_lost(&store).await;
    let to_5 = [
        (2, WebhookType::Vcs, DEAD),
        (3, WebhookType::Vru, NO_ENDPOINT),
    ];
    let all = [to_5[0], to_5[1], (7, WebhookType::Vcs, NO_ENDPOINT)];
    assert_eq!(of_page(&store, None, 1, 1).await, lost(&to_5));
    assert_eq!(of_page(&store, None, 2, 1).await, lost(&to_5), "up to 6");
    assert_eq!(of_page(&store, None, 3, 1).await, lost(&all), "up to 9");
    assert_eq!(of_page(&store, Some((1, 6)), 9, 1).await, lost(&all));
    let page = store.pending("acme", None, 9).await.unwrap();
    assert_eq!(page.lost.len(), 1, "of session 2 nothing was lost");
}

#[tokio::test]
async fn a_session_that_is_read_says_what_was_lost_of_it() {
    let store = ephemeral();
    some_lost(&store).await;
    let to_5 = [
        (2, WebhookType::Vcs, DEAD),
        (3, WebhookType::Vru, NO_ENDPOINT),
    ];
    let all = [to_5[0], to_5[1], (7, WebhookType::Vcs, NO_ENDPOINT)];
    assert_eq!(of_session(&store, 0, 2).await, lost(&to_5), "up to 6");
    assert_eq!(of_session(&store, 0, 9).await, lost(&all));
    assert_eq!(of_session(&store, 9, 9).await, lost(&all), "before it, too");
    // All that is pending is delivered, and nothing is behind 10.
    let rest = [4, 6, 9, 10].map(|it| settlement(1, it, DELIVERED));
    settle(&store, rest.to_vec()).await;
    assert_eq!(of_session(&store, 0, 9).await, lost(&all));
    let other = store.backlog("zeta", id(0, 1), 0, 9).await.unwrap();
    assert!(other.lost.is_empty(), "another sub-account's");
}

#[tokio::test]
async fn what_is_replayed_is_not_lost_and_what_dies_again_is() {
    let store = ephemeral();
    some_lost(&store).await;
    let replay = Replay {
        sub_account_id: "acme".to_owned(),
        of: ReplayOf::Session(id(0, 1)),
        states: vec![DEAD, NO_ENDPOINT],
    };
    assert_eq!(store.replay(&replay, 0, at(9)).await.unwrap().events, 4);
    assert!(of_session(&store, 0, 99).await.is_empty());
    assert!(of_page(&store, None, 99, 1).await.is_empty());
    let mut again = vec![settlement(1, 2, DELIVERED), settlement(1, 5, DEAD)];
    for result in &mut again {
        result.outcome.at = at(99_000);
    }
    settle(&store, again).await;
    let five = lost(&[(5, WebhookType::Vcs, DEAD)]);
    assert_eq!(of_session(&store, 0, 99).await, five);
    assert_eq!(of_page(&store, None, 99, 1).await, five);
}

#[tokio::test]
async fn of_a_long_session_a_bounded_part_is_looked_through() {
    const END: u64 = LOOKED_BACK + 50;
    let (_directory, path) = directory();
    let store = open(&path);
    store.commit(batch(vec![entry(1, 1..=END)])).await.unwrap();
    let ended = (1..=END - 10).map(|ordinal| {
        let dead = ordinal == 30 || ordinal == 40;
        settlement(1, ordinal, if dead { DEAD } else { DELIVERED })
    });
    settle(&store, ended.collect()).await;
    // Ten are pending, and 1,000 are looked through besides those: from 41 on.
    assert!(of_session(&store, 0, 99).await.is_empty());
    assert!(of_page(&store, None, 99, 1).await.is_empty());
    // Up to the first that is pending: from 41 on, too.
    assert!(of_session(&store, 0, 1).await.is_empty());
    assert!(of_page(&store, None, 1, 1).await.is_empty());
    let raw = Connection::open(&path).unwrap();
    let dies = "UPDATE attempts SET state = 3 WHERE position IN \
                (SELECT position FROM events WHERE ordinal = 41)";
    assert_eq!(raw.execute(dies, []).unwrap(), 1);
    let first = lost(&[(41, WebhookType::Vcs, DEAD)]);
    assert_eq!(of_session(&store, 0, 99).await, first);
    assert_eq!(of_page(&store, None, 99, 1).await, first);
    assert_eq!(of_session(&store, 0, 1).await, first);
    assert_eq!(of_page(&store, None, 1, 1).await, first);
}
