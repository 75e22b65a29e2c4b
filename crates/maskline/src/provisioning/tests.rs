//! Changes on their way from a real store to who watches.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use maskline_events::{EarlyMedia, Msisdn, Timestamp};
use maskline_store::{MasterKey, NewNumber, NewSubAccount, SqliteLocation, SqliteOptions};
use serde_json::json;
use tokio::task::JoinSet;

use super::*;

struct World {
    store: Arc<SqliteStore>,
    reloads: Arc<Reloads>,
    known: watch::Receiver<Arc<Directory>>,
    told: Arc<AtomicUsize>,
}

fn now() -> Timestamp {
    Timestamp::from_unix_ms(1_767_694_639_375)
}

fn number() -> Msisdn {
    Msisdn::parse("+6531001001").unwrap()
}

impl World {
    /// Sub-accounts of these names, and a switch that knows them.
    async fn open(names: &[&str]) -> Self {
        let key = MasterKey::random().unwrap();
        let options = SqliteOptions {
            reserve_bytes: 0,
            ..SqliteOptions::default()
        };
        let store = SqliteStore::open(&SqliteLocation::Ephemeral, &key, options).unwrap();
        let store = Arc::new(store);
        for name in names {
            let new = NewSubAccount {
                sub_account_id: (*name).to_owned(),
                countries: Vec::new(),
            };
            store.create_sub_account(new, now()).await.unwrap();
        }
        let (sender, known) = watch::channel(Arc::default());
        let (reloads, told) = (Reloads::new(), Arc::new(AtomicUsize::new(0)));
        let counts = Arc::clone(&told);
        let tell = move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
        };
        let follow = Arc::clone(&reloads).follow(Arc::clone(&store), sender, tell);
        tokio::spawn(follow);
        assert!(reloads.reload().await);
        Self {
            store,
            reloads,
            known,
            told,
        }
    }

    async fn set(&self, owner: &str, tenant: &str) {
        let entries = json!([{"name": "tenant", "value": tenant}]);
        let entries = serde_json::from_value(entries).unwrap();
        let set = self.store.set_event_parameters(owner, entries);
        set.await.unwrap();
    }

    fn knows(&self, owner: &str, tenant: Option<&str>) -> bool {
        let expected = tenant.map(|tenant| {
            let entries = json!([{"name": "tenant", "value": tenant}]);
            let entries: Vec<ParameterEntry> = serde_json::from_value(entries).unwrap();
            EventParameters::new(&entries, |_| true).unwrap()
        });
        self.known.borrow().parameters(owner) == expected.as_ref()
    }

    fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn the_parameters_of_the_one_that_changed_are_read_and_nothing_else() {
    let world = World::open(&["acme", "other"]).await;
    world.set("acme", "one").await;
    // What nobody told of stays unread.
    world.set("other", "one").await;
    let new = NewNumber {
        msisdn: number(),
        sub_account_id: "other".to_owned(),
        reference_id: "desk".to_owned(),
        country_code: Some("SG".to_owned()),
        trunk: None,
        early_media: EarlyMedia::Ringback,
    };
    world.store.assign_number(new, now()).await.unwrap();
    assert!(world.reloads.reload_parameters("acme").await);
    assert!(world.knows("acme", Some("one")) && world.knows("other", None));
    assert!(world.known.borrow().is_empty());
    // A change of numbers reads all, and what comes after it begins there.
    assert!(world.reloads.reload().await);
    world
        .store
        .set_event_parameters("acme", Vec::new())
        .await
        .unwrap();
    assert!(world.reloads.reload_parameters("acme").await);
    assert!(world.knows("acme", None) && world.knows("other", Some("one")));
    assert!(world.known.borrow().number(&number()).is_some());
}

#[tokio::test]
async fn what_is_asked_for_together_is_told_at_once() {
    let names: Vec<String> = (0..10).map(|it| format!("owner{it}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::open(&names).await;
    for name in &names {
        world.set(name, "one").await;
    }
    let before = world.told();
    let mut all = JoinSet::new();
    for name in names.iter().cycle().take(500) {
        let (reloads, name) = (Arc::clone(&world.reloads), (*name).to_owned());
        all.spawn(async move { reloads.reload_parameters(&name).await });
    }
    assert!(all.join_all().await.into_iter().all(|is_known| is_known));
    assert_eq!(world.told() - before, 1);
    assert!(names.iter().all(|name| world.knows(name, Some("one"))));
}

#[tokio::test]
async fn who_sets_the_same_again_hears_of_it_when_it_is_in_use_and_the_shards_hear_of_nothing() {
    let world = World::open(&["acme", "other"]).await;
    let before = world.told();
    for round in ["one", "two"] {
        // It is kept, and whoever set it has not yet told of it.
        world.set("acme", round).await;
        assert!(world.reloads.reload_parameters("acme").await);
        assert!(world.knows("acme", Some(round)));
        let told = world.told();
        for owner in ["acme", "other"] {
            assert!(world.reloads.reload_parameters(owner).await);
        }
        assert_eq!(world.told(), told);
    }
    assert_eq!(world.told() - before, 2);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_so() {
    let reloads = Reloads::new();
    assert!(reloads.settled().await, "nothing has changed");
    assert!(!reloads.reload_parameters("acme").await);
    assert!(!reloads.settled().await, "it is still on its way");
    assert!(!reloads.reload().await);
}
