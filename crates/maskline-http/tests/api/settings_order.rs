//! Settings of one webhook that several change at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::{Hiding, Timestamp, WebhookType};
use maskline_store::{EndpointConfig, ShownSettings, StoreError, WebhookSettings};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{Setup, start_with};

/// A store that is slow to answer that settings have been written, where `maxInFlight` is 1.
struct Slow {
    store: Arc<dyn WebhookSettings>,
    written: Arc<Notify>,
    go_on: Arc<Notify>,
}

#[async_trait]
impl WebhookSettings for Slow {
    async fn settings(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
    ) -> Result<ShownSettings, StoreError> {
        self.store.settings(sub_account_id, webhook_type).await
    }

    async fn hidings(
        &self,
        sub_account_id: &str,
    ) -> Result<BTreeMap<WebhookType, Hiding>, StoreError> {
        self.store.hidings(sub_account_id).await
    }

    async fn replace_settings(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        read: ShownSettings,
        config: EndpointConfig,
        now: Timestamp,
    ) -> Result<Option<ShownSettings>, StoreError> {
        let is_slow = config.settings.max_in_flight == Some(1);
        let (store, kind) = (&self.store, webhook_type);
        let done = store.replace_settings(sub_account_id, kind, read, config, now);
        let done = done.await;
        if is_slow {
            self.written.notify_one();
            self.go_on.notified().await;
        }
        done
    }
}

#[tokio::test]
async fn of_two_changes_the_last_that_was_written_is_the_last_that_is_told() {
    let (written, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tells, gate) = (Arc::clone(&written), Arc::clone(&go_on));
    let setup = Setup {
        settings: Box::new(move |store| {
            Arc::new(Slow {
                store,
                written: tells,
                go_on: gate,
            })
        }),
        ..Setup::default()
    };
    let api = Arc::new(start_with(setup).await);
    let mut keys = Vec::new();
    for owner in ["market", "other"] {
        let key = api.sub_account(owner).await;
        let hook = json!({"type": "VCS", "url": "https://example.com"});
        let webhooks = format!("/api/v1/subaccounts/{owner}/webhooks");
        api.post(&webhooks, &key, hook).await.expect(200);
        keys.push(key);
    }
    api.changes.take();
    let put = |owner: usize, settings: Value| {
        let (api, key) = (Arc::clone(&api), keys[owner].clone());
        let owner = ["market", "other"][owner];
        let path = format!("/api/v1/subaccounts/{owner}/webhooks/VCS/settings");
        tokio::spawn(async move { api.put(&path, &key, settings).await.expect(200) })
    };
    let first = put(0, json!({"maxInFlight": 1}));
    written.notified().await;
    // Another's goes past it.
    put(1, json!({"maxInFlight": 3})).await.unwrap();
    let mut second = put(0, json!({"maxInFlight": 2}));
    // It has to wait. Where it did not it would be told by now.
    let waiting = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(waiting.is_err(), "{waiting:?}");
    go_on.notify_one();
    first.await.unwrap();
    let shown = second.await.unwrap();
    assert_eq!(shown.json["settings"]["maxInFlight"], 2);
    let told = api.changes.take();
    let expected = [("other", 3), ("market", 1), ("market", 2)];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, (owner, count)) in told.iter().zip(expected) {
        assert!(told.contains(owner), "{told}");
        assert!(told.contains(&format!(":{count}")), "{told}");
    }
}
