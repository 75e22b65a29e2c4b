//! The endpoints of webhooks as the sender needs them, cached for a few seconds.
//!
//! What lives elsewhere: setting and changing them (`maskline-store`, the HTTP API).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maskline_events::{Timestamp, WebhookType};
use maskline_store::{EndpointSettings, Store, StoreError};
use tokio::time::Instant;

use crate::client::{SendError, Target};
use crate::egress::EgressPolicy;

/// Most endpoints that are remembered; with one more the cache starts anew.
const MAX_CACHED: usize = 10_000;

/// What the store says: no enabled webhook, one that can't be used, or one that can.
pub(crate) type Known = Option<Result<Arc<Target>, Arc<SendError>>>;

/// Hears of the settings with which an endpoint was found in the store. Called while the cache is
/// locked: it must not block.
pub(crate) trait SettingsSeen: Send + Sync + 'static {
    /// These are its settings.
    fn seen(&self, sub_account_id: &str, webhook_type: WebhookType, settings: &EndpointSettings);
}

/// A cache in front of [`Store::endpoint`]. A change made through this node's API is seen at once
/// ([`Endpoints::changed`]), one made elsewhere after the time to live.
pub struct Endpoints {
    store: Arc<dyn Store>,
    policy: EgressPolicy,
    ttl: Duration,
    cache: Mutex<Cache>,
    seen: Option<Arc<dyn SettingsSeen>>,
}

#[derive(Default)]
struct Cache {
    /// By sub-account and type.
    entries: BTreeMap<String, BTreeMap<WebhookType, Entry>>,
    /// Of the entries, all of them.
    count: usize,
    /// Counts changes, so that what was read before one is not remembered after it.
    changes: u64,
}

impl Cache {
    fn entry(&mut self, sub_account_id: &str, webhook_type: WebhookType) -> Option<&mut Entry> {
        self.entries.get_mut(sub_account_id)?.get_mut(&webhook_type)
    }
}

struct Entry {
    known: Known,
    expires: Instant,
}

impl Endpoints {
    /// A cache whose entries live for `ttl`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, policy: EgressPolicy, ttl: Duration) -> Self {
        Self {
            store,
            policy,
            ttl,
            cache: Mutex::new(Cache::default()),
            seen: None,
        }
    }

    /// One that tells `seen` what it finds.
    pub(crate) fn watched(self, seen: Arc<dyn SettingsSeen>) -> Self {
        Self {
            seen: Some(seen),
            ..self
        }
    }

    /// Forgets one endpoint: its webhook was set, deleted, disabled, or its secret rotated.
    pub fn changed(&self, sub_account_id: &str, webhook_type: WebhookType) {
        let mut cache = self.lock();
        cache.changes += 1;
        let of_owner = cache.entries.get_mut(sub_account_id);
        if of_owner.is_some_and(|it| it.remove(&webhook_type).is_some()) {
            cache.count -= 1;
        }
    }

    /// Forgets one endpoint whose settings have changed to these.
    pub(crate) fn settings_changed(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        settings: &EndpointSettings,
    ) {
        self.changed(sub_account_id, webhook_type);
        // After that, so that what was read before is not said after it.
        if let Some(seen) = &self.seen {
            seen.seen(sub_account_id, webhook_type, settings);
        }
    }

    /// The endpoint to ask now. While the store fails, what it said last is still used: without
    /// the store nobody can have changed it here.
    pub(crate) async fn lookup(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        now: Timestamp,
    ) -> Result<Known, StoreError> {
        let changes = {
            let mut cache = self.lock();
            let changes = cache.changes;
            if let Some(entry) = cache.entry(sub_account_id, webhook_type) {
                if entry.expires > Instant::now() {
                    return Ok(entry.known.clone());
                }
                // One asks the store again; the others go on with what is known until it answers.
                entry.expires = Instant::now() + Duration::from_secs(1);
            }
            changes
        };
        let found = self.store.endpoint(sub_account_id, webhook_type, now).await;
        let mut cache = self.lock();
        let known = match found {
            Ok(endpoint) => endpoint.map(|endpoint| {
                Target::new(endpoint, &self.policy)
                    .map(|target| Arc::new(target.owned_by(sub_account_id, webhook_type)))
                    .map_err(Arc::new)
            }),
            Err(error) => {
                return match cache.entry(sub_account_id, webhook_type) {
                    Some(entry) => Ok(entry.known.clone()),
                    None => Err(error),
                };
            }
        };
        if cache.changes == changes {
            if let (Some(seen), Some(Ok(target))) = (&self.seen, &known) {
                seen.seen(sub_account_id, webhook_type, target.settings());
            }
            if cache.count >= MAX_CACHED {
                cache.entries.clear();
                cache.count = 0;
            }
            let entry = Entry {
                known: known.clone(),
                expires: Instant::now() + self.ttl,
            };
            let owner = sub_account_id.to_owned();
            let of_owner = cache.entries.entry(owner).or_default();
            if of_owner.insert(webhook_type, entry).is_none() {
                cache.count += 1;
            }
        }
        Ok(known)
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        // Nothing panics while it is held, and a map is whole between two calls.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
