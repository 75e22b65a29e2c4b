//! A real store whose commits fail when a test says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use maskline_events::{Msisdn, Timestamp, WebhookType};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::model::{
    ApiKeyScope, Endpoint, JournalBatch, NewNumber, NewSubAccount, NewWebhook, NodeEpoch,
    NumberChange, OpenSession, SubAccount, SwitchedOff, VirtualNumber, Webhook,
};
use crate::secrets::MasterKey;
use crate::sqlite::{SqliteLocation, SqliteOptions, SqliteStore};
use crate::store::{Store, StoreError};

pub(super) struct FaultyStore {
    pub(super) inner: SqliteStore,
    pub(super) low: AtomicBool,
    failing: AtomicUsize,
    failing_after: AtomicUsize,
    gate: Mutex<()>,
}

impl FaultyStore {
    pub(super) fn new() -> Self {
        let options = SqliteOptions {
            reserve_bytes: 0,
            ..SqliteOptions::default()
        };
        let key = MasterKey::random().unwrap();
        Self {
            inner: SqliteStore::open(&SqliteLocation::Ephemeral, &key, options).unwrap(),
            low: AtomicBool::new(false),
            failing: AtomicUsize::new(0),
            failing_after: AtomicUsize::new(0),
            gate: Mutex::new(()),
        }
    }

    /// The next commits write nothing and say that the disk is full.
    pub(super) fn fail_next(&self, commits: usize) {
        self.failing.store(commits, Ordering::SeqCst);
    }

    /// The next commits are written, and say that they are not.
    pub(super) fn fail_next_after_writing(&self, commits: usize) {
        self.failing_after.store(commits, Ordering::SeqCst);
    }

    /// Commits hang as long as the guard lives.
    pub(super) async fn hold(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().await
    }
}

fn count_down(counter: &AtomicUsize) -> bool {
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        })
        .is_ok()
}

#[async_trait]
impl Store for FaultyStore {
    async fn commit(&self, batch: JournalBatch) -> Result<(), StoreError> {
        drop(self.gate.lock().await);
        let place = || "the test".to_owned();
        if count_down(&self.failing) {
            return Err(StoreError::Full { place: place() });
        }
        self.inner.commit(batch).await?;
        if count_down(&self.failing_after) {
            return Err(StoreError::Unavailable {
                place: place(),
                reason: "the answer was lost".to_owned(),
            });
        }
        Ok(())
    }

    fn low_on_space(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    async fn begin_epoch(&self) -> Result<NodeEpoch, StoreError> {
        self.inner.begin_epoch().await
    }

    async fn open_sessions(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<OpenSession>, StoreError> {
        self.inner.open_sessions(after, limit).await
    }

    async fn endpoint(
        &self,
        id: &str,
        kind: WebhookType,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, StoreError> {
        self.inner.endpoint(id, kind, now).await
    }

    async fn webhooks(&self, id: &str) -> Result<Vec<Webhook>, StoreError> {
        self.inner.webhooks(id).await
    }

    async fn set_webhook(
        &self,
        webhook: NewWebhook,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        self.inner.set_webhook(webhook, now).await
    }

    async fn delete_webhook(&self, id: &str, kind: WebhookType) -> Result<Webhook, StoreError> {
        self.inner.delete_webhook(id, kind).await
    }

    async fn disable_webhook(
        &self,
        id: &str,
        kind: WebhookType,
        revision: i64,
    ) -> Result<SwitchedOff, StoreError> {
        self.inner.disable_webhook(id, kind, revision).await
    }

    async fn rotate_secret(
        &self,
        id: &str,
        kind: WebhookType,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        self.inner.rotate_secret(id, kind, now).await
    }

    async fn create_sub_account(
        &self,
        new: NewSubAccount,
        now: Timestamp,
    ) -> Result<SubAccount, StoreError> {
        self.inner.create_sub_account(new, now).await
    }

    async fn sub_accounts(&self) -> Result<Vec<SubAccount>, StoreError> {
        self.inner.sub_accounts().await
    }

    async fn create_api_key(&self, id: &str, now: Timestamp) -> Result<String, StoreError> {
        self.inner.create_api_key(id, now).await
    }

    async fn ensure_admin_key(&self, now: Timestamp) -> Result<Option<String>, StoreError> {
        self.inner.ensure_admin_key(now).await
    }

    async fn authenticate(&self, key: &str) -> Result<Option<ApiKeyScope>, StoreError> {
        self.inner.authenticate(key).await
    }

    async fn assign_number(
        &self,
        new: NewNumber,
        now: Timestamp,
    ) -> Result<VirtualNumber, StoreError> {
        self.inner.assign_number(new, now).await
    }

    async fn change_number(
        &self,
        id: &str,
        msisdn: &Msisdn,
        change: NumberChange,
        now: Timestamp,
    ) -> Result<VirtualNumber, StoreError> {
        self.inner.change_number(id, msisdn, change, now).await
    }

    async fn numbers(&self, id: Option<&str>) -> Result<Vec<VirtualNumber>, StoreError> {
        self.inner.numbers(id).await
    }

    async fn number(&self, id: &str, msisdn: &Msisdn) -> Result<Option<VirtualNumber>, StoreError> {
        self.inner.number(id, msisdn).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}
