//! Who reads events while others do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use maskline_events::{Timestamp, WebhookType};
use maskline_store::{
    EventHistory, EventPage, ForgetStep, LoggedAttempt, Replay, ReplayStep, StoreError,
};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{Api, DEADLINE, Reply, Setup, start_with};

/// A history that is slow to give the pages of those who have something.
struct Slow {
    store: Arc<dyn EventHistory>,
    go_on: Arc<Semaphore>,
    reading: Arc<Mutex<BTreeMap<String, usize>>>,
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
        if sub_account_id.starts_with("slow") {
            let owner = sub_account_id.to_owned();
            let reading = {
                let mut reading = self.reading.lock().unwrap();
                let count = reading.entry(owner).or_insert(0);
                *count += 1;
                *count
            };
            assert_eq!(reading, 1, "{sub_account_id} has several pages read");
            self.go_on.acquire().await.unwrap().forget();
            self.reading.lock().unwrap().remove(sub_account_id);
        }
        let page = self.store.page(sub_account_id, after, webhook_type, limit);
        page.await
    }

    async fn attempts(
        &self,
        sub_account_id: &str,
        event_id: Uuid,
    ) -> Result<Option<Vec<LoggedAttempt>>, StoreError> {
        self.store.attempts(sub_account_id, event_id).await
    }

    async fn replay(
        &self,
        replay: &Replay,
        after: u64,
        now: Timestamp,
    ) -> Result<ReplayStep, StoreError> {
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
            let reading = Arc::default();
            Arc::new(Slow {
                store,
                go_on: gate,
                reading,
            })
        }),
        ..Setup::default()
    };
    (Arc::new(start_with(setup).await), go_on)
}

/// So many readers at once; what they are answered, as it comes.
fn readers(api: &Arc<Api>, owner: &str, key: &str, count: usize) -> JoinSet<Reply> {
    let path = format!("/api/v1/subaccounts/{owner}/events");
    let mut readers = JoinSet::new();
    for _ in 0..count {
        let (api, path, key) = (Arc::clone(api), path.clone(), key.to_owned());
        readers.spawn(async move { api.get(&path, &key).await });
    }
    readers
}

const MESSAGE: &str = "The sub-account has 16 such requests that are not yet answered";

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
        let reply = reply.expect(200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    // Whose answers came has places again.
    go_on.add_permits(16);
    for reply in readers(&api, "slow", &key, 16).join_all().await {
        reply.expect(200);
    }
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
            reply.expect(200);
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
