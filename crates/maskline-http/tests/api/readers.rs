//! Who reads or replays events while others do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use maskline_events::{Timestamp, WebhookType};
use maskline_store::{
    EventHistory, EventPage, ForgetStep, LoggedAttempt, Replay, ReplayOf, ReplayStep, StoreError,
};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{ADMIN_KEY, Api, DEADLINE, Reply, Setup, start_with};

/// An event that there is not, which is found out at once.
const QUICK: Uuid = Uuid::max();

/// A history that is slow to give the pages of some, and to replay what they ask for.
struct Slow {
    store: Arc<dyn EventHistory>,
    go_on: Arc<Semaphore>,
    at_work: Arc<Mutex<BTreeSet<String>>>,
}

impl Slow {
    /// Waits for a permit if this is one of the slow, with nothing of the kind beside it.
    async fn worked(&self, what: &str, owner: &str) {
        if owner.starts_with("slow") {
            let work = format!("{what} of {owner}");
            let is_first = self.at_work.lock().unwrap().insert(work.clone());
            assert!(is_first, "two at once: {work}");
            self.go_on.acquire().await.unwrap().forget();
            self.at_work.lock().unwrap().remove(&work);
        }
    }
}

#[async_trait]
impl EventHistory for Slow {
    async fn page(
        &self,
        sub_account_id: &str,
        after: Option<u64>,
        webhook_type: Option<WebhookType>,
        limit: u32,
    ) -> Result<EventPage, StoreError> {
        self.worked("page", sub_account_id).await;
        let page = self.store.page(sub_account_id, after, webhook_type, limit);
        page.await
    }

    async fn attempts(
        &self,
        sub_account_id: &str,
        event_id: Uuid,
    ) -> Result<Option<Vec<LoggedAttempt>>, StoreError> {
        if event_id != QUICK {
            self.worked("page", sub_account_id).await;
        }
        self.store.attempts(sub_account_id, event_id).await
    }

    async fn replay(
        &self,
        replay: &Replay,
        after: u64,
        now: Timestamp,
    ) -> Result<ReplayStep, StoreError> {
        if !matches!(replay.of, ReplayOf::Event(QUICK)) {
            self.worked("replay", &replay.sub_account_id).await;
        }
        self.store.replay(replay, after, now).await
    }

    async fn forget(
        &self,
        settled_before: Timestamp,
        after: u64,
        limit: u32,
    ) -> Result<ForgetStep, StoreError> {
        self.store.forget(settled_before, after, limit).await
    }
}

/// An API whose history gives a slow page for each permit.
async fn slow() -> (Arc<Api>, Arc<Semaphore>) {
    let go_on = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&go_on);
    let setup = Setup {
        history: Box::new(move |store| {
            Arc::new(Slow {
                store,
                go_on: gate,
                at_work: Arc::default(),
            })
        }),
        ..Setup::default()
    };
    (Arc::new(start_with(setup).await), go_on)
}

/// So many readers at once, every other of a page and of one event's log; what they are answered, as it
/// comes.
fn readers(api: &Arc<Api>, owner: &str, key: &str, count: usize) -> JoinSet<Reply> {
    let mut readers = JoinSet::new();
    for number in 0..count {
        let path = if number % 2 == 0 {
            format!("/api/v1/subaccounts/{owner}/events")
        } else {
            log(owner, Uuid::nil())
        };
        let (api, key) = (Arc::clone(api), key.to_owned());
        readers.spawn(async move { api.get(&path, &key).await });
    }
    readers
}

fn log(owner: &str, event: Uuid) -> String {
    format!("/api/v1/subaccounts/{owner}/events/{event}/attempts")
}

/// Whether a page was read, or what there is not was looked for.
fn was_read(reply: &Reply) -> bool {
    matches!(reply.status.as_u16(), 200 | 404)
}

const MESSAGE: &str = "16 such requests are not yet answered; try again when they are";

#[tokio::test]
async fn many_readers_of_one_sub_account_delay_no_other_s_and_the_seventeenth_is_refused() {
    let (api, go_on) = slow().await;
    let (key, other) = (
        api.sub_account("slow").await,
        api.sub_account("other").await,
    );
    let mut all = readers(&api, "slow", &key, 17);
    // Only one can be answered as yet.
    let refused = all.join_next().await.unwrap().unwrap();
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.expect_fault(429, "429", MESSAGE);
    for _ in 0..3 {
        let events = api.get("/api/v1/subaccounts/other/events", &other).await;
        assert_eq!(events.expect(200).json["count"], 0);
    }
    go_on.add_permits(16);
    for reply in all.join_all().await {
        assert!(was_read(&reply));
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    // Whose answers came has places again.
    go_on.add_permits(16);
    for reply in readers(&api, "slow", &key, 16).join_all().await {
        assert!(was_read(&reply));
    }
}

#[tokio::test]
async fn whatever_a_sub_account_reads_and_replays_the_operator_has_a_line_of_its_own() {
    let (api, go_on) = slow().await;
    let key = api.sub_account("slow").await;
    let replays = "/api/v1/subaccounts/slow/replays";
    let nothing = json!({"eventId": Uuid::nil()});
    let mut all = readers(&api, "slow", &key, 16);
    for _ in 0..17 {
        let (api, key, nothing) = (Arc::clone(&api), key.clone(), nothing.clone());
        all.spawn(async move { api.post(replays, &key, nothing).await });
    }
    let refused = all.join_next().await.unwrap().unwrap();
    refused.expect_fault(429, "429", MESSAGE);

    let quick = log("slow", QUICK);
    api.get(&quick, ADMIN_KEY).await.expect(404);
    let quick = json!({"eventId": QUICK});
    api.post(replays, ADMIN_KEY, quick).await.expect(404);
    go_on.add_permits(2 * 16);
    for reply in all.join_all().await {
        assert!(was_read(&reply));
    }
    // Whose replays are done has places again.
    go_on.add_permits(1);
    api.post(replays, &key, nothing).await.expect(404);
}

#[tokio::test]
async fn no_reader_delays_a_change_of_tls_settings() {
    let (api, go_on) = slow().await;
    let mut all = Vec::new();
    for owner in ["slow", "slow2", "slow3"] {
        let key = api.sub_account(owner).await;
        let mut readers = readers(&api, owner, &key, 17);
        let refused = readers.join_next().await.unwrap().unwrap();
        refused.expect_fault(429, "429", MESSAGE);
        all.push((owner, key, readers));
    }
    for (owner, key, _) in &all {
        let webhooks = format!("/api/v1/subaccounts/{owner}/webhooks");
        let hook = json!({"type": "VCS", "url": "https://example.com"});
        api.post(&webhooks, key, hook).await.expect(200);
        let settings = format!("{webhooks}/VCS/settings");
        let tls = json!({"tls": {"ca": "CA"}});
        api.put(&settings, key, tls).await.expect(200);
    }
    go_on.add_permits(3 * 16);
    for (_, _, readers) in all {
        for reply in readers.join_all().await {
            assert!(was_read(&reply));
        }
    }
}

#[tokio::test]
async fn readers_that_hang_up_give_their_places_back_and_have_no_second_page_read_beside_the_first()
{
    let (api, go_on) = slow().await;
    let key = api.sub_account("slow").await;
    for _ in 0..3 {
        let mut all = readers(&api, "slow", &key, 17);
        let refused = all.join_next().await.unwrap().unwrap();
        refused.expect_fault(429, "429", MESSAGE);
        // Cuts the connections, that of the one whose page is being read too.
        all.shutdown().await;
        let next = async {
            loop {
                let reply = readers(&api, "slow", &key, 1).join_all().await.remove(0);
                if reply.status != 429 {
                    return reply;
                }
            }
        };
        go_on.add_permits(17);
        let next = tokio::time::timeout(DEADLINE, next).await;
        next.expect("no place was given back").expect(200);
        // It was behind all of them.
        go_on.forget_permits(usize::MAX);
    }
}
