//! The dispatcher with a real store and real receivers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::WebhookType;
use maskline_events::signing::{self, SignedHeaders};
use maskline_store::{
    CommittedEvents, Deliveries, DeliveryState, EventHistory as _, EventRow, Outcome, PendingPage,
    Replay, ReplayOf, SessionBacklog, Settlement, SqliteStore, Store, StoreError,
};
use maskline_webhook::{
    AttemptReport, DeliveryConfig, DeliveryObserver, Dispatcher, EgressClient, EgressPolicy,
    Schedule,
};
use support::{
    Database, OWNER, Received, Receiver, Reply, call, commit, events_of, hook, now, open_client,
    own, pending_events, store_for, until, until_async,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Retries after 20 ms, again and again.
fn hasty() -> DeliveryConfig {
    DeliveryConfig {
        attempt_deadline: ms(300),
        schedule: Schedule {
            delays: vec![ms(20); 10_000],
            ..Schedule::default()
        },
        ..DeliveryConfig::default()
    }
}

fn start(store: &Arc<SqliteStore>, config: DeliveryConfig) -> Dispatcher {
    Dispatcher::start(
        Arc::clone(store) as Arc<dyn Store>,
        Arc::clone(store) as Arc<dyn Deliveries>,
        open_client(),
        config,
        None,
    )
}

async fn happen(store: &SqliteStore, dispatcher: &Dispatcher, events: Vec<EventRow>) {
    commit(store, &events).await;
    dispatcher.committed(events);
}

async fn outcome(store: &SqliteStore, session: u128, ordinal: u64) -> Outcome {
    let events = events_of(store, Uuid::from_u128(session)).await;
    let found = events.into_iter().find(|(row, _)| row.ordinal == ordinal);
    found.unwrap().1
}

async fn settled(store: &SqliteStore) {
    until_async("every delivery is final", || async {
        pending_events(store).await.is_empty()
    })
    .await;
}

#[derive(Default)]
struct Seen(Mutex<Vec<(EventRow, AttemptReport)>>);

impl DeliveryObserver for Seen {
    fn attempted(&self, event: &EventRow, attempt: &AttemptReport) {
        let mut seen = self.0.lock().unwrap();
        seen.push((event.clone(), attempt.clone()));
    }
}

#[tokio::test]
async fn a_session_is_delivered_in_order_signed_recorded_and_observed() {
    let receiver = Receiver::start(|_, _| Reply::Body("thanks".to_owned())).await;
    let database = Database::new();
    let store = database.open();
    own(&store, OWNER).await;
    let mut secrets = BTreeMap::new();
    for kind in [WebhookType::Vcs, WebhookType::Vss] {
        let text = hook(&store, OWNER, kind, &receiver.url).await.unwrap();
        secrets.insert(kind, signing::parse_secret(&text).unwrap());
    }
    let seen = Arc::new(Seen::default());
    let dispatcher = Dispatcher::start(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&store) as Arc<dyn Deliveries>,
        open_client(),
        DeliveryConfig::default(),
        Some(Arc::clone(&seen) as Arc<dyn DeliveryObserver>),
    );
    let events = call(OWNER, 1, 7, true);
    for event in &events {
        happen(&store, &dispatcher, vec![event.clone()]).await;
    }
    settled(&store).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 8);
    for (request, event) in requests.iter().zip(&events) {
        assert_eq!(request.id(), event.event_id);
        assert_eq!(request.body, event.body.as_bytes());
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("authorization"), "Bearer opensesame");
        assert_eq!(request.header("webhook-gap"), "");
        let headers = SignedHeaders {
            id: request.header("webhook-id"),
            timestamp: request.header("webhook-timestamp"),
            signature: request.header("webhook-signature"),
        };
        let secret = [&secrets[&event.webhook_type]];
        let seconds = now().unix_ms() / 1_000;
        signing::verify(&secret, headers, &request.body, seconds, 60).unwrap();
    }
    for (_, outcome) in events_of(&store, Uuid::from_u128(1)).await {
        assert_eq!(outcome.state, DeliveryState::Delivered);
        assert_eq!((outcome.attempts, outcome.status), (1, Some(200)));
    }
    let seen = seen.0.lock().unwrap();
    let told: Vec<u64> = seen.iter().map(|(event, _)| event.ordinal).collect();
    assert_eq!(told, (1..=8).collect::<Vec<_>>());
    let counters = dispatcher.counters();
    let delivered = |kind| counters.of(kind).delivered.load(Ordering::Relaxed);
    assert_eq!(delivered(WebhookType::Vcs), 7);
    assert_eq!(delivered(WebhookType::Vss), 1);
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_new_process_goes_on_with_the_same_ids_and_in_order() {
    let up = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&up);
    let receiver = Receiver::start(move |request, _| {
        let (_, ordinal) = request.key();
        let ok = ordinal <= 2 || well.load(Ordering::SeqCst);
        Reply::Status(if ok { 200 } else { 503 })
    })
    .await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let first = start(&store, hasty());
    happen(&store, &first, call(OWNER, 1, 5, true)).await;
    until_async("event 3 was tried several times", || async {
        outcome(&store, 1, 3).await.attempts >= 3
    })
    .await;
    drop(first);
    let store = database.reopen(store).await;
    let before = receiver.requests();
    up.store(true, Ordering::SeqCst);
    let _second = start(&store, hasty());
    settled(&store).await;
    let after = receiver.requests().split_off(before.len());
    let ordinals: Vec<u64> = after.iter().map(|request| request.key().1).collect();
    assert_eq!(ordinals, [3, 4, 5, 6]);
    let tried = |requests: &[Received]| {
        let of_3 = requests.iter().find(|request| request.key().1 == 3);
        of_3.unwrap().id()
    };
    assert_eq!(tried(&before), tried(&after));
    assert!(outcome(&store, 1, 3).await.attempts >= 4);
}

#[tokio::test]
async fn what_was_committed_while_nobody_delivered_is_delivered_at_the_start() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    for session in 1..=30 {
        commit(&store, &call(OWNER, session, 5, true)).await;
    }
    let config = DeliveryConfig {
        page: 7,
        events_in_memory: 40,
        ..hasty()
    };
    let _dispatcher = start(&store, config);
    settled(&store).await;
    let mut next = BTreeMap::new();
    for request in receiver.requests() {
        let (session, ordinal) = request.key();
        let expected = next.entry(session).or_insert(1);
        assert_eq!(ordinal, *expected, "{session}");
        *expected += 1;
    }
    assert_eq!(next.len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_overtakes_another_of_its_session_whatever_the_receiver_does() {
    let receiver = Receiver::start(|_, number| {
        // Spread by a multiplicative hash, the same in every run.
        let draw = (number as u32).wrapping_mul(2_654_435_761) >> 24;
        match draw {
            0..20 => Reply::Status(500),
            20..40 => Reply::Reset,
            40..50 => Reply::CutOff,
            50..55 => Reply::Stall,
            55..60 => Reply::Drip,
            60..70 => Reply::Garbage,
            70..80 => Reply::Header(429, "retry-after", "0".to_owned()),
            80..90 => Reply::Flood(1_000_000),
            _ => Reply::Status(200),
        }
    })
    .await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let dispatcher = start(&store, hasty());
    const SESSIONS: u128 = 60;
    for session in 1..=SESSIONS {
        happen(&store, &dispatcher, call(OWNER, session, 6, true)).await;
    }
    settled(&store).await;
    // In order of first arrival there is no inversion, and the summary is last.
    let mut highest: BTreeMap<Uuid, u64> = BTreeMap::new();
    for request in receiver.requests() {
        let (session, ordinal) = request.key();
        let seen = highest.entry(session).or_insert(0);
        assert!(ordinal <= *seen + 1, "{session}: {ordinal} after {seen}");
        *seen = ordinal.max(*seen);
        assert_eq!(request.header("webhook-gap"), "");
    }
    assert_eq!(highest.len(), SESSIONS as usize);
    assert!(highest.values().all(|last| *last == 7));
    for session in 1..=SESSIONS {
        for (_, outcome) in events_of(&store, Uuid::from_u128(session)).await {
            assert_eq!(outcome.state, DeliveryState::Delivered);
        }
    }
}

#[tokio::test]
async fn a_dead_endpoint_delays_nobody_else() {
    let dead = Receiver::start(|_, _| Reply::Stall).await;
    let well = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &dead.url).await;
    own(&store, "other").await;
    hook(&store, "other", WebhookType::Vcs, &well.url).await;
    hook(&store, "other", WebhookType::Vss, &well.url).await;
    let config = DeliveryConfig {
        attempt_deadline: Duration::from_secs(60),
        per_endpoint: 4,
        in_all: 16,
        ..hasty()
    };
    let dispatcher = start(&store, config);
    for session in 1..=50 {
        happen(&store, &dispatcher, call(OWNER, session, 3, false)).await;
    }
    until("the dead one has its places", || dead.requests().len() == 4).await;
    for session in 101..=120 {
        happen(&store, &dispatcher, call("other", session, 3, true)).await;
    }
    until("the other's are through", || well.requests().len() == 80).await;
    assert_eq!(dead.requests().len(), 4);
}

#[tokio::test]
async fn past_the_order_deadline_later_events_go_on_with_a_gap_until_it_is_through() {
    let up = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&up);
    let receiver = Receiver::start(move |request, _| {
        let ok = request.key().1 != 2 || well.load(Ordering::SeqCst);
        Reply::Status(if ok { 200 } else { 500 })
    })
    .await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let mut config = hasty();
    config.schedule.order_deadline = ms(200);
    let dispatcher = start(&store, config);
    let mut events = call(OWNER, 1, 5, true);
    let late = events.split_off(4);
    happen(&store, &dispatcher, events).await;
    let through = |ordinal: u64| receiver.requests().iter().any(|r| r.key().1 == ordinal);
    until("4 goes on", || through(4)).await;
    until_async("2 is parked", || async {
        outcome(&store, 1, 2).await.state == DeliveryState::Parked
    })
    .await;
    for request in receiver.requests() {
        let expected = if request.key().1 > 2 { "true" } else { "" };
        assert_eq!(request.header("webhook-gap"), expected);
    }
    up.store(true, Ordering::SeqCst);
    until_async("2 is through", || async {
        outcome(&store, 1, 2).await.state == DeliveryState::Delivered
    })
    .await;
    happen(&store, &dispatcher, late).await;
    settled(&store).await;
    let requests = receiver.requests();
    let last = &requests[requests.len() - 2..];
    assert!(last.iter().all(|r| r.header("webhook-gap").is_empty()));
    assert!(last[1].is_summary());
}

/// Tries each event once.
fn once() -> DeliveryConfig {
    let mut config = hasty();
    config.schedule.delays = Vec::new();
    config
}

async fn replay(store: &SqliteStore, dispatcher: &Dispatcher, of: ReplayOf) {
    let replay = Replay {
        sub_account_id: OWNER.to_owned(),
        of,
        states: vec![DeliveryState::Dead, DeliveryState::Delivered],
    };
    let step = store.replay(&replay, 0, now()).await.unwrap();
    assert_eq!(step.events, 1);
    dispatcher.replayed(OWNER, step.sessions).await;
    settled(store).await;
}

#[tokio::test]
async fn after_a_dead_event_later_ones_have_a_gap_until_it_is_replayed_and_delivered() {
    let receiver = Receiver::start(|request, number| {
        let fails = number == 0 && request.key().1 == 1;
        Reply::Status(if fails { 500 } else { 200 })
    })
    .await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let dispatcher = start(&store, once());
    let events = call(OWNER, 1, 3, true);
    happen(&store, &dispatcher, events.clone()).await;
    settled(&store).await;
    assert_eq!(outcome(&store, 1, 1).await.state, DeliveryState::Dead);
    let gaps = |requests: &[Received]| -> Vec<(u64, bool)> {
        let gap = |it: &Received| (it.key().1, it.header("webhook-gap") == "true");
        requests.iter().map(gap).collect()
    };
    let told = [(1, false), (2, true), (3, true), (4, true)];
    assert_eq!(gaps(&receiver.requests()), told);
    assert!(receiver.requests()[3].is_summary());

    replay(&store, &dispatcher, ReplayOf::Event(events[1].event_id)).await;
    assert_eq!(gaps(&receiver.requests()[4..]), [(2, true)]);
    replay(&store, &dispatcher, ReplayOf::Event(events[0].event_id)).await;
    assert_eq!(gaps(&receiver.requests()[5..]), [(1, false)]);
    replay(&store, &dispatcher, ReplayOf::Event(events[2].event_id)).await;
    assert_eq!(gaps(&receiver.requests()[6..]), [(3, false)]);
}

#[tokio::test]
async fn a_new_process_knows_what_never_arrived() {
    let receiver = Receiver::start(|request, _| {
        let fails = request.key().1 == 1;
        Reply::Status(if fails { 500 } else { 200 })
    })
    .await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let first = start(&store, once());
    let calls: Vec<_> = (1..=2).map(|it| call(OWNER, it, 3, true)).collect();
    for call in &calls {
        happen(&store, &first, call[..2].to_vec()).await;
    }
    settled(&store).await;
    drop(first);
    let store = database.reopen(store).await;
    // What is pending at the start, and what comes while the session is not in memory.
    commit(&store, &calls[0][2..3]).await;
    let second = start(&store, once());
    settled(&store).await;
    happen(&store, &second, calls[0][3..].to_vec()).await;
    happen(&store, &second, calls[1][2..].to_vec()).await;
    settled(&store).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 8);
    for request in requests {
        let expected = if request.key().1 > 1 { "true" } else { "" };
        assert_eq!(request.header("webhook-gap"), expected);
    }
}

#[tokio::test]
async fn a_410_disables_the_webhook_and_keeps_the_events() {
    let receiver = Receiver::start(|_, _| Reply::Status(410)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let dispatcher = start(&store, hasty());
    happen(&store, &dispatcher, call(OWNER, 1, 3, false)).await;
    settled(&store).await;
    assert_eq!(receiver.requests().len(), 1);
    let states: Vec<_> = events_of(&store, Uuid::from_u128(1))
        .await
        .into_iter()
        .map(|(_, outcome)| outcome.state)
        .collect();
    assert_eq!(
        states,
        [
            DeliveryState::Dead,
            DeliveryState::NoEndpoint,
            DeliveryState::NoEndpoint
        ]
    );
    for webhook in store.webhooks(OWNER).await.unwrap() {
        assert_eq!(webhook.enabled, webhook.webhook_type != WebhookType::Vcs);
    }
    // Set anew, it is used at once.
    let back = Receiver::start(|_, _| Reply::Status(200)).await;
    hook(&store, OWNER, WebhookType::Vcs, &back.url).await;
    dispatcher.endpoint_changed(OWNER, WebhookType::Vcs);
    happen(&store, &dispatcher, call(OWNER, 2, 1, false)).await;
    until("the new one is used", || back.requests().len() == 1).await;
}

#[tokio::test]
async fn a_410_to_what_was_asked_before_the_webhook_was_set_again_disables_nothing() {
    let go_on = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&go_on);
    let receiver = Receiver::start(move |_, number| match number {
        0 => Reply::Held(Arc::clone(&held), 410),
        _ => Reply::Status(200),
    })
    .await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let mut config = hasty();
    config.attempt_deadline = Duration::from_secs(60);
    let dispatcher = start(&store, config);
    happen(&store, &dispatcher, call(OWNER, 1, 1, false)).await;
    until("it is asked", || receiver.requests().len() == 1).await;
    // Nobody tells the dispatcher: it was another node, or the telling is on its way.
    hook(&store, OWNER, WebhookType::Vcs, &receiver.url).await;
    go_on.add_permits(1);
    until_async("it is asked again", || async {
        outcome(&store, 1, 1).await.state == DeliveryState::Delivered
    })
    .await;
    for webhook in store.webhooks(OWNER).await.unwrap() {
        assert!(webhook.enabled);
    }
    let asked = receiver.requests()[0].id();
    let log = store.attempts(OWNER, asked).await;
    let first = &log.unwrap().unwrap()[0];
    assert_eq!(first.status, Some(410));
    let error = "410 from a webhook that was changed meanwhile";
    assert_eq!(first.error.as_deref(), Some(error));
}

#[tokio::test]
async fn retry_after_is_honoured_for_429_and_503() {
    for status in [429, 503] {
        let receiver = Receiver::start(move |_, number| match number {
            0 => Reply::Header(status, "retry-after", "1".to_owned()),
            _ => Reply::Status(200),
        })
        .await;
        let database = Database::new();
        let store = store_for(&database, &receiver.url).await;
        let dispatcher = start(&store, hasty());
        happen(&store, &dispatcher, call(OWNER, 1, 1, false)).await;
        settled(&store).await;
        let requests = receiver.requests();
        assert_eq!(requests.len(), 2);
        let waited = requests[1].at - requests[0].at;
        assert!(waited >= ms(990), "{status}: {waited:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let elsewhere = Receiver::start(|_, _| Reply::Status(200)).await;
    let location = elsewhere.url.clone();
    let receiver =
        Receiver::start(move |_, _| Reply::Header(302, "location", location.clone())).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let dispatcher = start(&store, DeliveryConfig::default());
    happen(&store, &dispatcher, call(OWNER, 1, 1, false)).await;
    until_async("it is recorded", || async {
        outcome(&store, 1, 1).await.attempts == 1
    })
    .await;
    let outcome = outcome(&store, 1, 1).await;
    assert_eq!(
        (outcome.state, outcome.status),
        (DeliveryState::Pending, Some(302))
    );
    let wait = outcome.next_attempt_at.unwrap().unix_ms() - outcome.at.unix_ms();
    assert!((900..=1_100).contains(&wait), "{wait}");
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_private_target_is_refused_and_its_reason_recorded_without_the_url() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let strict = EgressClient::new(EgressPolicy::default(), &[]).unwrap();
    let dispatcher = Dispatcher::start(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&store) as Arc<dyn Deliveries>,
        strict,
        hasty(),
        None,
    );
    happen(&store, &dispatcher, call(OWNER, 1, 1, false)).await;
    until_async("it is recorded", || async {
        outcome(&store, 1, 1).await.attempts >= 1
    })
    .await;
    let error = outcome(&store, 1, 1).await.error.unwrap();
    assert!(
        error.contains("loopback") && !error.contains("127"),
        "{error}"
    );
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_event_without_a_webhook_is_kept_and_holds_nothing_back() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = database.open();
    own(&store, OWNER).await;
    hook(&store, OWNER, WebhookType::Vss, &receiver.url).await;
    let dispatcher = start(&store, hasty());
    happen(&store, &dispatcher, call(OWNER, 1, 3, true)).await;
    settled(&store).await;
    assert_eq!(receiver.requests().len(), 1);
    assert!(receiver.requests()[0].is_summary());
    assert_eq!(receiver.requests()[0].header("webhook-gap"), "");
    assert_eq!(outcome(&store, 1, 2).await.state, DeliveryState::NoEndpoint);
}

#[tokio::test]
async fn both_secrets_sign_while_one_is_rotated() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = database.open();
    own(&store, OWNER).await;
    let kind = WebhookType::Vcs;
    let old = hook(&store, OWNER, kind, &receiver.url).await.unwrap();
    let dispatcher = start(&store, hasty());
    happen(&store, &dispatcher, call(OWNER, 1, 1, false)).await;
    settled(&store).await;
    let new = store.rotate_secret(OWNER, kind, now()).await.unwrap();
    dispatcher.endpoint_changed(OWNER, kind);
    happen(&store, &dispatcher, call(OWNER, 2, 1, false)).await;
    settled(&store).await;
    let request = receiver.requests().remove(1);
    for secret in [old, new] {
        let secret = [signing::parse_secret(&secret).unwrap()];
        let headers = SignedHeaders {
            id: request.header("webhook-id"),
            timestamp: request.header("webhook-timestamp"),
            signature: request.header("webhook-signature"),
        };
        let seconds = now().unix_ms() / 1_000;
        signing::verify(&secret, headers, &request.body, seconds, 60).unwrap();
    }
}

#[tokio::test]
async fn a_drain_delivers_what_it_can_and_leaves_the_rest_in_the_store() {
    let receiver = Receiver::start(|request, _| {
        let (session, _) = request.key();
        Reply::Status(if session == Uuid::from_u128(1) {
            500
        } else {
            200
        })
    })
    .await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let dispatcher = start(&store, DeliveryConfig::default());
    for session in 1..=20 {
        happen(&store, &dispatcher, call(OWNER, session, 4, true)).await;
    }
    let started = Instant::now();
    let drained = dispatcher.drain(Duration::from_secs(30)).await;
    assert!(started.elapsed() < Duration::from_secs(20), "it ends early");
    assert_eq!((drained.unsettled, drained.unrecorded), (5, 0));
    let left = pending_events(&store).await;
    let sessions: BTreeSet<_> = left.iter().map(|(row, _)| row.session_id).collect();
    assert_eq!(sessions, BTreeSet::from([Uuid::from_u128(1)]));
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_although_a_receiver_stalls() {
    let receiver = Receiver::start(|_, _| Reply::Stall).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let config = DeliveryConfig {
        attempt_deadline: Duration::from_secs(60),
        ..DeliveryConfig::default()
    };
    let dispatcher = start(&store, config);
    happen(&store, &dispatcher, call(OWNER, 1, 2, false)).await;
    until("the receiver has it", || receiver.requests().len() == 1).await;
    let started = Instant::now();
    let drained = dispatcher.drain(ms(100)).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(drained.unsettled, 2);
    assert_eq!(pending_events(&store).await.len(), 2);
}

#[tokio::test]
async fn a_webhook_with_nothing_but_failures_is_disabled_and_works_again_when_it_is_set() {
    let receiver = Receiver::start(|_, _| Reply::Status(500)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let first = start(&store, hasty());
    happen(&store, &first, call(OWNER, 1, 3, false)).await;
    until_async("it is noted", || async {
        store.failing().await.unwrap().len() == 1
    })
    .await;
    drop(first);
    let store = database.reopen(store).await;
    // What was noted outlives the process that did.
    let config = DeliveryConfig {
        disable_after: Some(ms(1)),
        ..hasty()
    };
    let dispatcher = start(&store, config);
    settled(&store).await;
    for (row, outcome) in events_of(&store, Uuid::from_u128(1)).await {
        assert_eq!(outcome.state, DeliveryState::NoEndpoint, "{}", row.ordinal);
    }
    for webhook in store.webhooks(OWNER).await.unwrap() {
        assert_eq!(webhook.enabled, webhook.webhook_type != WebhookType::Vcs);
    }
    assert!(store.failing().await.unwrap().is_empty());
    assert_eq!(dispatcher.counters().disabled.load(Ordering::Relaxed), 1);
    let back = Receiver::start(|_, _| Reply::Status(200)).await;
    hook(&store, OWNER, WebhookType::Vcs, &back.url).await;
    dispatcher.endpoint_changed(OWNER, WebhookType::Vcs);
    happen(&store, &dispatcher, call(OWNER, 2, 1, false)).await;
    until("the new one is used", || back.requests().len() == 1).await;
}

/// Notes how many sessions were read, and the most events that one read gave.
struct Measured {
    store: Arc<SqliteStore>,
    sessions: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Deliveries for Measured {
    async fn pending_owners(&self) -> Result<Vec<String>, StoreError> {
        self.store.pending_owners().await
    }

    async fn pending(
        &self,
        sub_account_id: &str,
        after: Option<(Uuid, u64)>,
        limit: u32,
    ) -> Result<PendingPage, StoreError> {
        let page = self.store.pending(sub_account_id, after, limit).await?;
        self.most.fetch_max(page.events.len(), Ordering::Relaxed);
        Ok(page)
    }

    async fn backlog(
        &self,
        sub_account_id: &str,
        session_id: Uuid,
        after: u64,
        limit: u32,
    ) -> Result<SessionBacklog, StoreError> {
        let asked = self.store.backlog(sub_account_id, session_id, after, limit);
        let backlog = asked.await?;
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.most
            .fetch_max(backlog.pending.len(), Ordering::Relaxed);
        Ok(backlog)
    }

    async fn settle(&self, results: Arc<[Settlement]>) -> Result<(), StoreError> {
        self.store.settle(results).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_session_is_read_in_pages_and_only_what_is_pending_of_it() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    let measured = Arc::new(Measured {
        store: Arc::clone(&store),
        sessions: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let dispatcher = Dispatcher::start(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&measured) as Arc<dyn Deliveries>,
        open_client(),
        DeliveryConfig {
            page: 20,
            ..hasty()
        },
        None,
    );
    let events = call(OWNER, 1, 402, false);
    happen(&store, &dispatcher, events[..400].to_vec()).await;
    settled(&store).await;
    assert_eq!(measured.sessions.load(Ordering::Relaxed), 0);
    // Nobody is told of one, so the next is out of sequence.
    commit(&store, &events[400..401]).await;
    happen(&store, &dispatcher, events[401..].to_vec()).await;
    settled(&store).await;
    assert_eq!(measured.sessions.load(Ordering::Relaxed), 1);
    assert_eq!(measured.most.load(Ordering::Relaxed), 2);

    let session = Uuid::from_u128(1);
    let replay = Replay {
        sub_account_id: OWNER.to_owned(),
        of: ReplayOf::Session(session),
        states: vec![DeliveryState::Delivered],
    };
    assert_eq!(store.replay(&replay, 0, now()).await.unwrap().events, 402);
    dispatcher.replayed(OWNER, vec![session]).await;
    settled(&store).await;
    let told: Vec<u64> = receiver.requests().iter().map(|it| it.key().1).collect();
    let twice: Vec<u64> = (1..=402).chain(1..=402).collect();
    assert_eq!(told, twice);
    assert_eq!(measured.most.load(Ordering::Relaxed), 20);
}
