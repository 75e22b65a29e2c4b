//! From the store's configuration to the switch's directory, at the start and after each change.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::{EventParameters, ParameterEntry, WebhookType};
use maskline_http::ProvisioningChanged;
use maskline_store::{
    EndpointSettings, ParameterStore, SettingsDifference, SqliteStore, Store, StoreError,
};
use maskline_switch::{Directory, NumberEntry};
use maskline_webhook::Dispatcher;
use tokio::sync::watch;

/// Reads all numbers, permissions and what sub-accounts add to their events.
///
/// # Errors
/// The store's.
pub(crate) async fn directory(store: &SqliteStore) -> Result<Arc<Directory>, StoreError> {
    let numbers = store.numbers(None).await?;
    let sub_accounts = store.sub_accounts().await?;
    let parameters = store.all_event_parameters().await?;
    let directory = Directory::new(
        numbers.into_iter().map(|number| NumberEntry {
            msisdn: number.msisdn,
            sub_account_id: number.sub_account_id,
            reference_id: number.reference_id,
            trunk: number.trunk,
            early_media: number.early_media,
        }),
        sub_accounts.into_iter().map(|sub_account| {
            let countries: BTreeSet<_> = sub_account.countries.into_iter().collect();
            (sub_account.sub_account_id, countries)
        }),
    );
    let parameters = parameters.into_iter().filter_map(|(owner, entries)| {
        let read = readable(&owner, entries);
        Some((owner, read?))
    });
    Ok(Arc::new(directory.with_parameters(parameters)))
}

/// What a sub-account adds to its events, if it can be read.
fn readable(owner: &str, entries: Option<Vec<ParameterEntry>>) -> Option<EventParameters> {
    // Checked when they were set: what fails here was written by another version.
    let read = entries.and_then(|it| EventParameters::new(&it, |_| true).ok());
    if read.is_none() {
        tracing::error!(
            sub_account = owner,
            "the event parameters can't be read: events go without them until they are set again"
        );
    }
    read
}

/// The directory with what these sub-accounts add to their events now, and all else as it was; `None`:
/// it has that already.
async fn with_parameters_of(
    owners: &BTreeSet<String>,
    mut directory: Directory,
    store: &dyn ParameterStore,
) -> Result<Option<Arc<Directory>>, StoreError> {
    let mut is_new = false;
    for owner in owners {
        let entries = match store.event_parameters(owner).await {
            Ok(entries) => Some(entries),
            Err(StoreError::BrokenRow { .. }) => None,
            Err(StoreError::NotFound { .. }) => Some(Vec::new()),
            Err(error) => return Err(error),
        };
        let parameters = readable(owner, entries).unwrap_or_default();
        if directory.parameters(owner) != Some(&parameters).filter(|it| !it.is_empty()) {
            directory.set_parameters(owner, parameters);
            is_new = true;
        }
    }
    Ok(is_new.then(|| Arc::new(directory)))
}

/// How long a change may take to reach the switch before the API answers all the same.
const AT_MOST: Duration = Duration::from_secs(5);
/// Between two changes that sub-accounts asked for: however many they ask for together, no shard hears of
/// more in a second than this allows.
const BETWEEN: Duration = Duration::from_millis(20);
/// After the store could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// What has changed in the store since the switch heard of it.
#[derive(Default)]
struct Changed {
    /// Numbers, sub-accounts: all is read again.
    everything: bool,
    /// What these add to their events.
    parameters: BTreeSet<String>,
}

impl Changed {
    fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        self.parameters.extend(other.parameters);
    }
}

/// Changes of numbers and event parameters on their way from the API to the switch: asked for, and done.
pub(crate) struct Reloads {
    changed: Mutex<Changed>,
    asked: watch::Sender<u64>,
    done: watch::Sender<u64>,
}

impl Reloads {
    /// None yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            changed: Mutex::default(),
            asked: watch::Sender::new(0),
            done: watch::Sender::new(0),
        })
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        // Nothing panics while it is held.
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the switch knows what the store holds now, five seconds at most; whether it does.
    pub(crate) async fn reload(&self) -> bool {
        self.changed().everything = true;
        self.ask();
        self.settled().await
    }

    /// The same where nothing can have changed but what one sub-account adds to its events.
    async fn reload_parameters(&self, sub_account_id: &str) -> bool {
        self.changed().parameters.insert(sub_account_id.to_owned());
        self.ask();
        self.settled().await
    }

    fn ask(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// Waits until all is carried over that was asked for until now.
    async fn settled(&self) -> bool {
        let wanted = *self.asked.borrow();
        let mut done = self.done.subscribe();
        let reloaded = done.wait_for(|done| *done >= wanted);
        // Late, it is still on its way.
        matches!(tokio::time::timeout(AT_MOST, reloaded).await, Ok(Ok(_)))
    }

    /// Carries changes over, as many at once as have come together, until it is dropped. `known` has the
    /// directory as it is, and `tell` is for whoever does not watch it.
    pub(crate) async fn follow(
        self: Arc<Self>,
        store: Arc<SqliteStore>,
        known: watch::Sender<Arc<Directory>>,
        tell: impl Fn(Arc<Directory>) + Send,
    ) {
        let mut asked = self.asked.subscribe();
        // Something may have changed since the node read the directory for its start.
        self.changed().everything = true;
        asked.mark_changed();
        while asked.changed().await.is_ok() {
            let wanted = *asked.borrow_and_update();
            let changed = std::mem::take(&mut *self.changed());
            let read = if changed.everything {
                directory(&store).await.map(Some)
            } else {
                let before = Directory::clone(&known.borrow());
                with_parameters_of(&changed.parameters, before, &*store).await
            };
            match read {
                Ok(directory) => {
                    if let Some(directory) = directory {
                        known.send_replace(Arc::clone(&directory));
                        tell(directory);
                    }
                    self.done.send_replace(wanted);
                    if !changed.everything {
                        tokio::time::sleep(BETWEEN).await;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "numbers and event parameters can't be read; the switch keeps the old ones");
                    self.changed().add(changed);
                    asked.mark_changed();
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Hears of changes from the API's request tasks.
pub(crate) struct Changes {
    /// Carries numbers, permissions and event parameters to the switch.
    pub(crate) reloads: Arc<Reloads>,
    /// Sends to the webhooks; the VCA client asks its cache of them.
    pub(crate) delivery: Arc<Dispatcher>,
}

#[async_trait]
impl ProvisioningChanged for Changes {
    async fn numbers_changed(&self) {
        self.reloads.reload().await;
    }

    async fn parameters_set(&self, sub_account_id: &str) -> bool {
        self.reloads.reload_parameters(sub_account_id).await
    }

    fn webhook_changed(&self, sub_account_id: &str, webhook_type: WebhookType) {
        self.delivery.endpoint_changed(sub_account_id, webhook_type);
    }

    fn settings_changed(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        settings: &EndpointSettings,
        difference: SettingsDifference,
    ) {
        self.delivery
            .settings_changed(sub_account_id, webhook_type, settings, difference);
    }
}
