//! Webhooks that have nothing but failures: since when, and for how long before they are disabled.
//!
//! The store is written at the first failure after a success and at the first success after a
//! failure, and at no other attempt.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maskline_events::{Timestamp, WebhookType};
use maskline_store::Deliveries;

use super::AttemptResult;
use super::schedule::ms;

type Key = (String, WebhookType);

/// What is known of the webhooks that may be failing. One that is not among them is not.
pub(super) struct Failing {
    store: Arc<dyn Deliveries>,
    known: Mutex<BTreeMap<Key, Known>>,
    loaded: AtomicBool,
}

#[derive(Clone, Copy)]
enum Known {
    Since(Timestamp),
    /// It was set anew: the store says.
    No,
}

impl Failing {
    pub(super) fn new(store: Arc<dyn Deliveries>) -> Self {
        Self {
            store,
            known: Mutex::default(),
            loaded: AtomicBool::new(false),
        }
    }

    /// The webhook was set, deleted, or its secret rotated.
    pub(super) fn changed(&self, owner: &str, kind: WebhookType) {
        self.lock().insert((owner.to_owned(), kind), Known::No);
    }

    /// Hears of an attempt's result; gives since when the webhook had failed if it is disabled now.
    /// `after`: how long it may fail; `None`: for ever.
    /// While the store fails nothing is disabled and nothing is noted: the next attempt says it again.
    pub(super) async fn ended(
        &self,
        owner: &str,
        kind: WebhookType,
        after: Option<Duration>,
        result: &AttemptResult,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.load().await?;
        match result {
            AttemptResult::Delivered { .. } => {
                self.well(owner, kind).await;
                None
            }
            AttemptResult::Failed { .. } => {
                let key = (owner.to_owned(), kind);
                let known = self.lock().get(&key).copied();
                let since = match known {
                    Some(Known::Since(since)) => since,
                    Some(Known::No) | None => {
                        let noted = self.store.note_failing(owner, kind, Some(now)).await;
                        let since = noted.ok().flatten()?;
                        self.lock().insert(key.clone(), Known::Since(since));
                        since
                    }
                };
                let after = after?;
                if now.unix_ms().saturating_sub(since.unix_ms()) < ms(after) {
                    return None;
                }
                let disabled = self.store.disable_failing(owner, kind, since).await.ok()?;
                self.lock().insert(key, Known::No);
                disabled.then_some(since)
            }
            AttemptResult::Gone | AttemptResult::NoEndpoint | AttemptResult::Postponed => None,
        }
    }

    async fn well(&self, owner: &str, kind: WebhookType) {
        let key = {
            let known = self.lock();
            if known.is_empty() {
                return;
            }
            let key = (owner.to_owned(), kind);
            if !known.contains_key(&key) {
                return;
            }
            key
        };
        if self.store.note_failing(owner, kind, None).await.is_ok() {
            self.lock().remove(&key);
        }
    }

    /// Reads what an earlier process noted, once.
    async fn load(&self) -> Option<()> {
        if self.loaded.load(Ordering::Acquire) {
            return Some(());
        }
        let failing = self.store.failing().await.ok()?;
        let mut known = self.lock();
        // Two attempts may come here; what is known meanwhile is newer.
        if !self.loaded.swap(true, Ordering::AcqRel) {
            for (owner, kind, since) in failing {
                known.entry((owner, kind)).or_insert(Known::Since(since));
            }
        }
        Some(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Known>> {
        // Nothing panics while it is held, and a map is whole between two calls.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use async_trait::async_trait;
    use maskline_store::{Settlement, StoreError, StoredEvent};
    use uuid::Uuid;

    use super::*;

    const SHOP: (&str, WebhookType) = ("shop", WebhookType::Vcs);

    /// Notes of one webhook.
    #[derive(Default)]
    struct Notes {
        since: Mutex<Option<Timestamp>>,
        writes: Mutex<u32>,
    }

    #[async_trait]
    impl Deliveries for Notes {
        async fn pending_owners(&self) -> Result<Vec<String>, StoreError> {
            Ok(Vec::new())
        }

        async fn pending(
            &self,
            _sub_account_id: &str,
            _after: Option<(Uuid, u64)>,
            _limit: u32,
        ) -> Result<Vec<StoredEvent>, StoreError> {
            Ok(Vec::new())
        }

        async fn session(&self, _session_id: Uuid) -> Result<Vec<StoredEvent>, StoreError> {
            Ok(Vec::new())
        }

        async fn settle(&self, _results: Arc<[Settlement]>) -> Result<(), StoreError> {
            Ok(())
        }

        async fn failing(&self) -> Result<Vec<(String, WebhookType, Timestamp)>, StoreError> {
            let since = *self.since.lock().unwrap();
            let noted = since.map(|since| (SHOP.0.to_owned(), SHOP.1, since));
            Ok(noted.into_iter().collect())
        }

        async fn note_failing(
            &self,
            _sub_account_id: &str,
            _webhook_type: WebhookType,
            since: Option<Timestamp>,
        ) -> Result<Option<Timestamp>, StoreError> {
            *self.writes.lock().unwrap() += 1;
            let mut noted = self.since.lock().unwrap();
            *noted = since.map(|since| noted.unwrap_or(since));
            Ok(*noted)
        }

        async fn disable_failing(
            &self,
            _sub_account_id: &str,
            _webhook_type: WebhookType,
            since: Timestamp,
        ) -> Result<bool, StoreError> {
            let mut noted = self.since.lock().unwrap();
            Ok(noted.take_if(|noted| *noted == since).is_some())
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_767_694_639_000 + seconds * 1_000)
    }

    /// And for how long a webhook may fail.
    struct Watch(Failing, Option<Duration>);

    async fn says(watch: &Watch, well: bool, seconds: i64) -> Option<Timestamp> {
        let result = if well {
            AttemptResult::Delivered { status: 200 }
        } else {
            AttemptResult::Failed {
                status: None,
                error: String::new(),
                retry_after: None,
            }
        };
        let Watch(failing, after) = watch;
        failing
            .ended(SHOP.0, SHOP.1, *after, &result, at(seconds))
            .await
    }

    fn with(notes: &Arc<Notes>, after: Option<Duration>) -> Watch {
        Watch(
            Failing::new(Arc::clone(notes) as Arc<dyn Deliveries>),
            after,
        )
    }

    #[tokio::test]
    async fn only_failures_that_no_success_interrupts_disable() {
        let notes = Arc::new(Notes::default());
        let failing = with(&notes, Some(Duration::from_secs(100)));
        for seconds in 0..1_000 {
            let well = seconds % 100 == 50;
            assert_eq!(says(&failing, well, seconds).await, None);
        }
        assert_eq!(*notes.writes.lock().unwrap(), 1 + 10 + 10);
        // The last success was at 950.
        for seconds in 1_000..1_051 {
            assert_eq!(says(&failing, false, seconds).await, None);
        }
        assert_eq!(says(&failing, false, 1_051).await, Some(at(951)));
        assert_eq!(says(&failing, false, 1_052).await, None);
    }

    #[tokio::test]
    async fn what_was_noted_goes_on_after_a_restart_and_ends_when_the_webhook_is_set() {
        let notes = Arc::new(Notes::default());
        let after = Some(Duration::from_secs(100));
        says(&with(&notes, after), false, 0).await;
        let failing = with(&notes, after);
        assert_eq!(says(&failing, false, 99).await, None);
        // Setting it clears the note in the store.
        *notes.since.lock().unwrap() = None;
        failing.0.changed(SHOP.0, SHOP.1);
        assert_eq!(says(&failing, false, 100).await, None);
        assert_eq!(says(&failing, false, 199).await, None);
        assert_eq!(says(&failing, false, 200).await, Some(at(100)));
        // A new secret clears nothing.
        says(&failing, false, 300).await;
        failing.0.changed(SHOP.0, SHOP.1);
        assert_eq!(says(&failing, false, 400).await, Some(at(300)));
        // Noted elsewhere since then: what is known here is old.
        says(&failing, false, 500).await;
        *notes.since.lock().unwrap() = Some(at(590));
        assert_eq!(says(&failing, false, 600).await, None);
        assert_eq!(says(&failing, false, 690).await, Some(at(590)));
    }

    #[tokio::test]
    async fn without_a_limit_failures_are_noted_once_and_never_disable() {
        let notes = Arc::new(Notes::default());
        let failing = with(&notes, None);
        assert_eq!(says(&failing, false, 0).await, None);
        assert_eq!(says(&failing, false, 1_000_000_000).await, None);
        assert_eq!(*notes.since.lock().unwrap(), Some(at(0)));
        assert_eq!(*notes.writes.lock().unwrap(), 1);
        assert_eq!(says(&failing, true, 1_000_000_001).await, None);
        assert_eq!(*notes.since.lock().unwrap(), None);
        // The limit is given with each attempt; what failed before it counts.
        says(&failing, false, 1_000_000_002).await;
        let limited = Watch(failing.0, Some(Duration::from_secs(100)));
        assert_eq!(says(&limited, false, 1_000_000_101).await, None);
        assert_eq!(
            says(&limited, false, 1_000_000_102).await,
            Some(at(1_000_000_002))
        );
    }
}
