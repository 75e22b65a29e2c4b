//! What a webhook's owner has set for it, at the delivery of events.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maskline_events::{Redaction, WebhookType};
use maskline_store::{
    CommittedEvents, Deliveries, DeliveryState, SettingsDifference, Signatures, SqliteStore, Store,
};
use maskline_webhook::{BreakerConfig, DeliveryConfig, Dispatcher, Schedule};
use support::{
    Database, OWNER, Receiver, Reply, call, commit, events_of, open_client, set, store_for, until,
    until_async,
};
use uuid::Uuid;

const VCS: WebhookType = WebhookType::Vcs;

fn start(store: &Arc<SqliteStore>, config: DeliveryConfig) -> Dispatcher {
    Dispatcher::start(
        Arc::clone(store) as Arc<dyn Store>,
        Arc::clone(store) as Arc<dyn Deliveries>,
        open_client(),
        config,
        None,
    )
}

/// Many sessions with one event each, all of them in the store.
async fn backlog(store: &SqliteStore, sessions: u128) {
    for session in 1..=sessions {
        commit(store, &call(OWNER, session, 1, false)).await;
    }
}

/// How the only event of session 1 stands once its attempt is recorded.
async fn outcome(store: &SqliteStore) -> maskline_store::Outcome {
    let id = Uuid::from_u128(1);
    until_async("an attempt is recorded", || async {
        events_of(store, id).await[0].1.attempts > 0
    })
    .await;
    events_of(store, id).await.remove(0).1
}

#[tokio::test]
async fn the_first_requests_after_a_start_keep_to_what_is_set() {
    let receiver = Receiver::start(|_, _| Reply::Late(Duration::from_millis(5), 200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    set(&store, OWNER, VCS, |settings| {
        settings.max_in_flight = Some(1);
    })
    .await;
    backlog(&store, 40).await;
    let store = database.reopen(store).await;
    let _dispatcher = start(&store, DeliveryConfig::default());
    until("all are through", || receiver.requests().len() == 40).await;
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn settings_that_change_while_events_wait_take_effect() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    // One now, one in 1,000 s.
    set(&store, OWNER, VCS, |settings| {
        settings.rate_per_1000_seconds = Some(1);
    })
    .await;
    backlog(&store, 20).await;
    let dispatcher = start(&store, DeliveryConfig::default());
    until("one is through", || receiver.requests().len() == 1).await;
    let settings = set(&store, OWNER, VCS, |settings| {
        settings.rate_per_1000_seconds = None;
    })
    .await;
    assert_eq!(receiver.requests().len(), 1);
    dispatcher.settings_changed(OWNER, VCS, &settings, SettingsDifference::Handling);
    until("all are through", || receiver.requests().len() == 20).await;
}

#[tokio::test]
async fn only_a_change_of_its_requests_has_an_endpoint_asked_that_is_left_alone() {
    let receiver = Receiver::start(|_, _| Reply::Status(503)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    backlog(&store, 60).await;
    let config = DeliveryConfig {
        breaker: BreakerConfig {
            pause: Duration::from_secs(3_600),
            longest_pause: Duration::from_secs(3_600),
            ..BreakerConfig::default()
        },
        ..DeliveryConfig::default()
    };
    let dispatcher = start(&store, config);
    let open = || dispatcher.counters().breakers_open.load(Ordering::Relaxed) == 1;
    until("it is left alone", || {
        open() && receiver.requests().len() >= 8
    })
    .await;
    for most in [20, 21, 20, 21] {
        let settings = set(&store, OWNER, VCS, |settings| {
            settings.max_in_flight = Some(most);
        })
        .await;
        dispatcher.settings_changed(OWNER, VCS, &settings, SettingsDifference::Handling);
    }
    let signatures = set(&store, OWNER, VCS, |settings| {
        settings.signatures = Some(Signatures::Both);
    })
    .await;
    // No more than four more were under way when it was.
    let before = receiver.requests().len();
    assert!(before <= 12, "{before}");
    dispatcher.settings_changed(OWNER, VCS, &signatures, SettingsDifference::Requests);
    until("it is asked again", || {
        receiver.requests().len() >= before + 4
    })
    .await;
    let last = receiver.requests().len();
    assert!(last <= before + 12, "{before} {last}");
}

#[tokio::test]
async fn settings_that_another_process_changed_take_effect_once_the_store_is_asked_again() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let config = DeliveryConfig {
        endpoint_ttl: Duration::ZERO,
        ..DeliveryConfig::default()
    };
    let dispatcher = start(&store, config);
    let one = call(OWNER, 1, 1, false);
    commit(&store, &one).await;
    dispatcher.committed(one);
    until("it is through", || receiver.requests().len() == 1).await;
    set(&store, OWNER, VCS, |settings| {
        settings.retry_delays_seconds = Some(Vec::new());
    })
    .await;
    let dead = Receiver::start(|_, _| Reply::Status(500)).await;
    support::hook(&store, OWNER, VCS, &dead.url).await;
    for session in 2..=3 {
        let next = call(OWNER, session, 1, false);
        commit(&store, &next).await;
        dispatcher.committed(next);
        let id = Uuid::from_u128(session);
        until_async("its attempt is recorded", || async {
            events_of(&store, id).await[0].1.attempts > 0
        })
        .await;
    }
    let last = events_of(&store, Uuid::from_u128(3)).await;
    assert_eq!(last[0].1.state, DeliveryState::Dead);
}

#[tokio::test]
async fn an_attempt_ends_at_the_endpoint_s_own_deadline() {
    let receiver = Receiver::start(|_, _| Reply::Stall).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    set(&store, OWNER, VCS, |settings| {
        settings.attempt_timeout_ms = Some(150);
        settings.retry_delays_seconds = Some(vec![3_600]);
    })
    .await;
    backlog(&store, 1).await;
    let config = DeliveryConfig {
        attempt_deadline: Duration::from_secs(600),
        ..DeliveryConfig::default()
    };
    let _dispatcher = start(&store, config);
    let outcome = outcome(&store).await;
    let error = outcome.error.unwrap();
    assert_eq!(error, "no whole answer within 150 ms");
    // Its retry, too, is when the endpoint wants it, give or take a tenth.
    let next = outcome.next_attempt_at.unwrap().unix_ms() - outcome.at.unix_ms();
    assert!((3_240_000..=3_960_000).contains(&next), "{next}");
}

#[tokio::test]
async fn an_attempt_lasts_no_longer_than_the_operator_lets_it() {
    let receiver = Receiver::start(|_, _| Reply::Stall).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    set(&store, OWNER, VCS, |settings| {
        settings.attempt_timeout_ms = Some(30_000);
    })
    .await;
    backlog(&store, 1).await;
    let config = DeliveryConfig {
        attempt_deadline: Duration::from_millis(150),
        ..DeliveryConfig::default()
    };
    let _dispatcher = start(&store, config);
    let error = outcome(&store).await.error.unwrap();
    assert_eq!(error, "no whole answer within 150 ms");
}

#[tokio::test]
async fn a_failure_goes_by_the_settings_that_its_attempt_found() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let owners: Vec<String> = (1..=24).map(|n| format!("owner{n}")).collect();
    for owner in &owners {
        support::own(&store, owner).await;
        support::hook(&store, owner, VCS, &receiver.url).await;
        set(&store, owner, VCS, |settings| {
            settings.retry_delays_seconds = Some(Vec::new());
            settings.redaction = Some(Redaction::Masked);
        })
        .await;
    }
    let config = DeliveryConfig {
        endpoint_ttl: Duration::ZERO,
        ..DeliveryConfig::default()
    };
    let dispatcher = start(&store, config);
    let fails = async |owner: &str, session: u128| {
        // Nothing of it can be hidden: the attempt ends as soon as it has found the settings.
        let mut event = call(owner, session, 1, false);
        event[0].body = "no JSON".to_owned();
        commit(&store, &event).await;
        dispatcher.committed(event);
        let id = Uuid::from_u128(session);
        until_async("its attempt is recorded", || async {
            events_of(&store, id).await[0].1.attempts > 0
        })
        .await;
        events_of(&store, id).await.remove(0).1.state
    };
    for (owner, session) in owners.iter().zip(1..) {
        assert_eq!(fails(owner, session).await, DeliveryState::Dead);
        set(&store, owner, VCS, |settings| {
            settings.retry_delays_seconds = None;
        })
        .await;
        let state = fails(owner, 1_000 + session).await;
        assert_eq!(state, DeliveryState::Pending, "{owner}");
    }
}

#[tokio::test]
async fn an_endpoint_that_wants_no_retries_has_none() {
    let receiver = Receiver::start(|_, _| Reply::Status(500)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    set(&store, OWNER, VCS, |settings| {
        settings.retry_delays_seconds = Some(Vec::new());
    })
    .await;
    backlog(&store, 1).await;
    let _dispatcher = start(&store, DeliveryConfig::default());
    let outcome = outcome(&store).await;
    assert_eq!((outcome.state, outcome.attempts), (DeliveryState::Dead, 1));
}

/// Fails for ever; retried each 20 ms.
async fn failing_for_ever(
    database: &Database,
    own: Option<u32>,
    operator: Option<Duration>,
) -> (Arc<SqliteStore>, Receiver, Dispatcher) {
    let receiver = Receiver::start(|_, _| Reply::Status(400)).await;
    let store = store_for(database, &receiver.url).await;
    set(&store, OWNER, VCS, move |settings| {
        settings.disable_after_seconds = own;
    })
    .await;
    backlog(&store, 1).await;
    let config = DeliveryConfig {
        schedule: Schedule {
            delays: vec![Duration::from_millis(20); 10_000],
            ..Schedule::default()
        },
        disable_after: operator,
        ..DeliveryConfig::default()
    };
    let dispatcher = start(&store, config);
    (store, receiver, dispatcher)
}

#[tokio::test]
async fn an_endpoint_is_switched_off_when_it_wants_it_although_the_operator_never_would() {
    let database = Database::new();
    let (store, receiver, dispatcher) = failing_for_ever(&database, Some(1), None).await;
    until("it is off", || {
        dispatcher.counters().disabled.load(Ordering::Relaxed) == 1
    })
    .await;
    assert!(receiver.requests().len() > 1);
    let webhooks = store.webhooks(OWNER).await.unwrap();
    let vcs = webhooks.iter().find(|webhook| webhook.webhook_type == VCS);
    assert!(!vcs.unwrap().enabled);
}

#[tokio::test]
async fn an_endpoint_that_never_wants_to_be_switched_off_is_not() {
    let database = Database::new();
    let soon = Some(Duration::from_millis(1));
    let (_store, receiver, dispatcher) = failing_for_ever(&database, Some(0), soon).await;
    until("it is tried on", || receiver.requests().len() >= 20).await;
    assert_eq!(dispatcher.counters().disabled.load(Ordering::Relaxed), 0);
}
