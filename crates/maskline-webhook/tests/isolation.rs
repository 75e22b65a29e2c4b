//! Endpoints that hang, beside others: real sockets, a real store.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::WebhookType;
use maskline_store::{
    CommittedEvents, Deliveries, EventRow, PendingPage, SessionBacklog, Settlement, SqliteStore,
    Store, StoreError, StoredEvent,
};
use maskline_webhook::{DeliveryConfig, Dispatcher};
use support::{
    Database, OWNER, Receiver, Reply, call, commit, hook, open_client, own, set, store_for, until,
};
use uuid::Uuid;

const HUNG: u128 = 100;

/// Longer than any test waits for anything: what hangs, hangs on.
fn config() -> DeliveryConfig {
    DeliveryConfig {
        attempt_deadline: Duration::from_secs(120),
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

fn hung(n: u128) -> String {
    format!("hung{n}")
}

/// Events of `sessions` sessions of each hung sub-account, numbered from `from`.
fn of_the_hung(from: u128, sessions: u128) -> Vec<EventRow> {
    (1..=HUNG)
        .flat_map(|n| {
            (0..sessions).flat_map(move |s| call(&hung(n), from + n * 1_000 + s, 2, false))
        })
        .collect()
}

/// Delivers 60 whole calls of the healthy one, and checks that each came in order.
async fn the_healthy_one_goes_on(store: &SqliteStore, dispatcher: &Dispatcher, well: &Receiver) {
    let before = well.requests().len();
    for session in 1..=60 {
        happen(store, dispatcher, call(OWNER, session, 3, true)).await;
    }
    until("the healthy one's are through", || {
        well.requests().len() - before == 240
    })
    .await;
    let mut next = BTreeMap::new();
    for request in well.requests().split_off(before) {
        let (session, ordinal) = request.key();
        let expected = next.entry(session).or_insert(1);
        assert_eq!(ordinal, *expected, "{session}");
        assert_eq!(request.is_summary(), ordinal == 4);
        assert_eq!(request.header("webhook-gap"), "");
        *expected += 1;
    }
    let unanswered = dispatcher
        .counters()
        .of(WebhookType::Vcs)
        .unanswered
        .load(Ordering::Relaxed);
    assert_eq!(unanswered, 0, "the others hang on meanwhile");
}

async fn a_store_with_hung_ones(database: &Database, well: &str, dead: &str) -> Arc<SqliteStore> {
    let store = store_for(database, well).await;
    for n in 1..=HUNG {
        own(&store, &hung(n)).await;
        hook(&store, &hung(n), WebhookType::Vcs, dead).await;
    }
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_endpoints_that_hang_keep_a_healthy_one_from_nothing() {
    let dead = Receiver::start(|_, _| Reply::Stall).await;
    let well = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = a_store_with_hung_ones(&database, &well.url, &dead.url).await;
    let dispatcher = start(&store, config());
    happen(&store, &dispatcher, of_the_hung(10_000, 10)).await;
    until("they have places", || dead.requests().len() >= 200).await;
    the_healthy_one_goes_on(&store, &dispatcher, &well).await;
    assert!(dead.requests().len() <= 400, "few places each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_endpoints_that_stop_answering_at_once_keep_a_healthy_one_from_nothing() {
    let hangs = Arc::new(AtomicBool::new(false));
    let stalls = Arc::clone(&hangs);
    let dead = Receiver::start(move |_, _| {
        if stalls.load(Ordering::SeqCst) {
            Reply::Stall
        } else {
            Reply::Status(200)
        }
    })
    .await;
    let well = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = a_store_with_hung_ones(&database, &well.url, &dead.url).await;
    let dispatcher = start(&store, config());
    happen(&store, &dispatcher, of_the_hung(10_000, 2)).await;
    until("all of them have answered", || dead.requests().len() == 400).await;
    until("no attempt runs", || {
        dispatcher.counters().in_flight.load(Ordering::Relaxed) == 0
    })
    .await;
    hangs.store(true, Ordering::SeqCst);
    happen(&store, &dispatcher, of_the_hung(500_000, 10)).await;
    until("they have every place", || dead.requests().len() >= 900).await;
    the_healthy_one_goes_on(&store, &dispatcher, &well).await;
}

#[tokio::test]
async fn an_endpoint_s_own_settings_go_for_it_alone() {
    let slow = |_: &support::Received, _| Reply::Late(Duration::from_millis(5), 200);
    let (one, many) = (Receiver::start(slow).await, Receiver::start(slow).await);
    let database = Database::new();
    let store = store_for(&database, &one.url).await;
    own(&store, "other").await;
    hook(&store, "other", WebhookType::Vcs, &many.url).await;
    set(&store, OWNER, WebhookType::Vcs, |settings| {
        settings.max_in_flight = Some(1);
    })
    .await;
    let dispatcher = start(&store, config());
    for session in 1..=40 {
        happen(&store, &dispatcher, call(OWNER, session, 1, false)).await;
        happen(&store, &dispatcher, call("other", 100 + session, 1, false)).await;
    }
    until("all are through", || {
        one.requests().len() == 40 && many.requests().len() == 40
    })
    .await;
    assert_eq!(one.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backlog_of_a_dead_endpoint_keeps_a_healthy_one_from_nothing() {
    let dead = Receiver::start(|_, _| Reply::Stall).await;
    let well = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &well.url).await;
    own(&store, "a-dead-one").await;
    hook(&store, "a-dead-one", WebhookType::Vcs, &dead.url).await;
    let backlog: Vec<EventRow> = (1..=1_000)
        .flat_map(|session| call("a-dead-one", 10_000 + session, 5, false))
        .collect();
    commit(&store, &backlog).await;
    let config = DeliveryConfig {
        events_in_memory: 400,
        page: 50,
        ..config()
    };
    let dispatcher = start(&store, config);
    let level = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    until("its share of the memory is full", || {
        level(&dispatcher.counters().events) >= 95
    })
    .await;
    for session in 20_000..20_050 {
        happen(&store, &dispatcher, call("a-dead-one", session, 20, false)).await;
    }
    the_healthy_one_goes_on(&store, &dispatcher, &well).await;
    assert!(level(&dispatcher.counters().events) <= 400);
}

/// A store in which the second event of a session can't be read.
struct Spoilt(Arc<SqliteStore>, Uuid);

impl Spoilt {
    fn spoil(&self, rows: Vec<StoredEvent>) -> Vec<StoredEvent> {
        let spoil = |row: StoredEvent| match row.key() {
            Some((session, 2)) if session == self.1 => StoredEvent::Broken {
                session_id: Some(session),
                ordinal: 2,
                reason: "body: not text".to_owned(),
            },
            _ => row,
        };
        rows.into_iter().map(spoil).collect()
    }
}

#[async_trait]
impl Deliveries for Spoilt {
    async fn pending_owners(&self) -> Result<Vec<String>, StoreError> {
        self.0.pending_owners().await
    }

    async fn pending(
        &self,
        sub_account_id: &str,
        after: Option<(Uuid, u64)>,
        limit: u32,
    ) -> Result<PendingPage, StoreError> {
        let mut page = self.0.pending(sub_account_id, after, limit).await?;
        page.events = self.spoil(page.events);
        Ok(page)
    }

    async fn backlog(
        &self,
        sub_account_id: &str,
        session_id: Uuid,
        after: u64,
        limit: u32,
    ) -> Result<SessionBacklog, StoreError> {
        let asked = self.0.backlog(sub_account_id, session_id, after, limit);
        let mut backlog = asked.await?;
        backlog.pending = self.spoil(backlog.pending);
        Ok(backlog)
    }

    async fn settle(&self, results: Arc<[Settlement]>) -> Result<(), StoreError> {
        self.0.settle(results).await
    }
}

#[tokio::test]
async fn a_broken_row_stops_its_session_and_nothing_else() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    for session in 1..=20 {
        commit(&store, &call(OWNER, session, 3, true)).await;
    }
    let spoilt = Uuid::from_u128(7);
    let dispatcher = Dispatcher::start(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::new(Spoilt(Arc::clone(&store), spoilt)),
        open_client(),
        DeliveryConfig {
            page: 5,
            ..config()
        },
        None,
    );
    until("all others are through", || {
        receiver.requests().len() == 19 * 4 + 1
    })
    .await;
    // It goes on with what happens now, and the session still stands.
    happen(&store, &dispatcher, call(OWNER, 30, 3, true)).await;
    until("a new call is through", || {
        receiver.requests().len() == 20 * 4 + 1
    })
    .await;
    let of_it = |received: &support::Received| received.key().0 == spoilt;
    let sent: Vec<u64> = receiver
        .requests()
        .iter()
        .filter(|received| of_it(received))
        .map(|received| received.key().1)
        .collect();
    assert_eq!(sent, [1]);
    let told = dispatcher.counters().broken_rows.load(Ordering::Relaxed);
    assert_eq!(told, 1);
}
