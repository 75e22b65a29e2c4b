//! The intake's task over a real store that can be made to wait and to fail.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use maskline_events::{CallDirection, CallType, Happening, Msisdn, Party};
use maskline_store::{
    ClosedSessions, MasterKey, SqliteLocation, SqliteOptions, SqliteStore, StoredEvent,
};

use super::*;
use crate::node::wall;

struct Slow {
    store: SqliteStore,
    /// One permit lets one group through.
    gate: Semaphore,
    fails: AtomicBool,
}

impl CallEvents for Slow {
    async fn report<R: ReportedRules>(
        &self,
        group: Vec<ReportRequest>,
        rules: Arc<R>,
        now: Timestamp,
    ) -> Result<ReportedGroup<R::Refusal>, StoreError> {
        self.gate.acquire().await.unwrap().forget();
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Secret);
        }
        self.store.report(group, rules, now).await
    }

    fn close_idle<R: ReportedRules>(
        &self,
        rules: Arc<R>,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<ClosedSessions, StoreError>> + Send {
        self.store.close_idle(rules, now, limit)
    }
}

/// Notes what it was told of, and whether that was in the store by then.
#[derive(Default)]
struct Told(Mutex<Vec<(Uuid, u64)>>);

impl CommittedEvents for Told {
    fn committed(&self, events: Vec<EventRow>) {
        let rows = events.iter().map(|it| (it.session_id, it.ordinal));
        self.0.lock().unwrap().extend(rows);
    }
}

struct World {
    store: Arc<Slow>,
    told: Arc<Told>,
    reports: Arc<Reports>,
}

fn world(gate: usize, idle: Duration) -> World {
    let key = MasterKey::random().unwrap();
    let options = SqliteOptions {
        reserve_bytes: 0,
        ..SqliteOptions::default()
    };
    let store = Arc::new(Slow {
        store: SqliteStore::open(&SqliteLocation::Ephemeral, &key, options).unwrap(),
        gate: Semaphore::new(gate),
        fails: AtomicBool::new(false),
    });
    let told = Arc::new(Told::default());
    let delivery = Arc::clone(&told) as Arc<dyn CommittedEvents>;
    let runtime = Handle::current();
    let directory = watch::channel(Arc::default()).1;
    let (reports, _task) = Reports::start(
        Arc::clone(&store),
        delivery,
        idle,
        directory,
        wall,
        &runtime,
    );
    World {
        store,
        told,
        reports,
    }
}

const LONG: Duration = Duration::from_secs(3_600);

fn begins(session: u128, key: &str) -> ReportedEvent {
    let number = Party::Number(Msisdn::parse("+6531580001").unwrap());
    ReportedEvent {
        session_id: Uuid::from_u128(session),
        call_id: Uuid::from_u128(session + 1_000_000),
        direction: CallDirection::Inbound,
        call_type: CallType::Pstn,
        source: number.clone(),
        destination: number,
        timestamp: None,
        happening: Happening::Began,
        idempotency_key: key.to_owned(),
        idle: None,
    }
}

fn connects(session: u128, key: &str) -> ReportedEvent {
    ReportedEvent {
        happening: Happening::Connected,
        ..begins(session, key)
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let within = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(20), within);
    within
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn what_waits_is_one_commit_and_delivery_hears_of_it_in_its_order() {
    let world = world(0, LONG);
    let report = |events| {
        let reports = Arc::clone(&world.reports);
        tokio::spawn(async move { reports.report("acme".to_owned(), events).await })
    };
    let first = report(vec![begins(1, "a")]);
    let level = |level| world.reports.counters.waiting.load(Ordering::Relaxed) == level;
    until("the first is on its way", || {
        level(1) && world.reports.queue.capacity() == MOST_WAITING
    })
    .await;
    let second = report(vec![connects(1, "b"), begins(2, "c")]);
    until("the second waits", || level(3)).await;
    let third = report(vec![connects(2, "d")]);
    until("the third waits", || level(4)).await;
    world.store.gate.add_permits(2);
    for (task, sequences) in [(first, vec![1]), (second, vec![2, 1]), (third, vec![2])] {
        let taken = task.await.unwrap().unwrap();
        assert!(taken.iter().map(|it| it.sequence).eq(sequences));
    }
    assert_eq!(world.reports.counters.groups.load(Ordering::Relaxed), 2);
    let told = world.told.0.lock().unwrap();
    let told: Vec<_> = told.iter().map(|(id, it)| (id.as_u128(), *it)).collect();
    assert_eq!(told, [(1, 1), (1, 2), (2, 1), (2, 2)]);
    assert!(level(0));
}

#[tokio::test]
async fn beyond_so_many_waiting_updates_a_request_is_refused_and_later_ones_are_not() {
    let world = world(0, LONG);
    let many = |from: u128| {
        let events = (0..10_000).map(|it| begins(from + it, &format!("k{}", from + it)));
        events.collect::<Vec<_>>()
    };
    let reports = &world.reports;
    let report = |events| reports.report("acme".to_owned(), events);
    let (one, two, three) = tokio::join!(report(many(0)), report(many(10_000)), async {
        let refused = report(vec![begins(90_000, "x")]).await;
        world.store.gate.add_permits(9);
        refused
    });
    assert!(matches!(three, Err(NotReported::Busy)), "{three:?}");
    assert_eq!(one.unwrap().len() + two.unwrap().len(), MOST_WAITING);
    report(vec![begins(90_000, "x")]).await.unwrap();
    assert_eq!(reports.counters.busy.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_stops_waiting_is_taken_all_the_same_and_finds_it_by_the_key() {
    let world = world(0, LONG);
    let given_up = world
        .reports
        .report("acme".to_owned(), vec![begins(1, "a")]);
    let given_up = tokio::time::timeout(Duration::from_millis(20), given_up).await;
    assert!(given_up.is_err());
    world.store.gate.add_permits(9);
    let again = world
        .reports
        .report("acme".to_owned(), vec![begins(1, "a")]);
    let again = again.await.unwrap();
    assert!(again[0].repeated);
    assert_eq!(world.told.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_that_fails_fails_its_group_and_tells_delivery_nothing() {
    let world = world(9, LONG);
    world.store.fails.store(true, Ordering::Relaxed);
    let failed = world
        .reports
        .report("acme".to_owned(), vec![begins(1, "a")]);
    assert!(matches!(failed.await, Err(NotReported::Failed(_))));
    assert!(world.told.0.lock().unwrap().is_empty());
    world.store.fails.store(false, Ordering::Relaxed);
    let again = world
        .reports
        .report("acme".to_owned(), vec![begins(1, "a")]);
    assert!(!again.await.unwrap()[0].repeated);
}

#[tokio::test]
async fn a_session_of_which_nothing_is_heard_is_ended_and_summed_up() {
    let world = world(9, Duration::from_secs(1));
    let events = vec![begins(1, "a"), connects(1, "b")];
    world
        .reports
        .report("acme".to_owned(), events)
        .await
        .unwrap();
    let closed = || world.reports.counters.closed.load(Ordering::Relaxed) == 1;
    until("the session is closed", closed).await;
    let events = world.store.store.session(Uuid::from_u128(1)).await;
    let bodies: Vec<_> = events
        .unwrap()
        .into_iter()
        .map(|stored| match stored {
            StoredEvent::Whole(event, _) => event.body,
            StoredEvent::Broken { reason, .. } => panic!("{reason}"),
        })
        .collect();
    assert_eq!(bodies.len(), 4);
    assert!(bodies[2].contains("CALL_DISCONNECTED") && bodies[2].contains("-2001"));
    assert!(
        bodies[3].contains("\"sessionStatus\":\"ERROR\""),
        "{}",
        bodies[3]
    );
    assert_eq!(world.told.0.lock().unwrap().len(), 4);
    let late = world
        .reports
        .report("acme".to_owned(), vec![connects(1, "c")])
        .await;
    let Err(NotReported::Refused { index: 0, reason }) = late else {
        panic!("{late:?}");
    };
    assert_eq!(reason, "the session is over");
}
