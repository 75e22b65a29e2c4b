//! From the store's configuration to the switch's directory, at the start and after each change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::{EventParameters, WebhookType};
use maskline_http::ProvisioningChanged;
use maskline_net::SipNode;
use maskline_store::{EndpointSettings, ParameterStore, SqliteStore, Store, StoreError};
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
        // Checked when they were set: what fails here was written by another version.
        let read = entries.and_then(|it| EventParameters::new(&it, |_| true).ok());
        if read.is_none() {
            tracing::error!(
                sub_account = owner,
                "the event parameters can't be read: events go without them until they are set again"
            );
        }
        Some((owner, read?))
    });
    Ok(Arc::new(directory.with_parameters(parameters)))
}

/// How long a change may take to reach the switch before the API answers all the same.
const AT_MOST: Duration = Duration::from_secs(1);

/// Changes of numbers on their way from the API to the switch: asked for, and done.
pub(crate) struct Reloads {
    asked: watch::Sender<u64>,
    done: watch::Sender<u64>,
}

impl Reloads {
    /// None yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            asked: watch::Sender::new(0),
            done: watch::Sender::new(0),
        })
    }

    /// Waits until the switch knows what the store holds now, a second at most.
    pub(crate) async fn reload(&self) {
        let mut wanted = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            wanted = *asked;
        });
        let mut done = self.done.subscribe();
        let reloaded = done.wait_for(|done| *done >= wanted);
        // Late, it is still on its way.
        let _ = tokio::time::timeout(AT_MOST, reloaded).await;
    }

    /// Carries changes over, as many at once as have come together, until it is dropped.
    pub(crate) async fn follow(
        self: Arc<Self>,
        store: Arc<SqliteStore>,
        sip: SipNode,
        reports: watch::Sender<Arc<Directory>>,
    ) {
        let mut asked = self.asked.subscribe();
        // Something may have changed since the node read the directory for its start.
        asked.mark_changed();
        while asked.changed().await.is_ok() {
            let wanted = *asked.borrow_and_update();
            match directory(&store).await {
                Ok(directory) => {
                    reports.send_replace(Arc::clone(&directory));
                    sip.directory_changed(directory);
                    self.done.send_replace(wanted);
                }
                Err(error) => {
                    tracing::error!(%error, "the numbers can't be read; the switch keeps the old ones");
                    asked.mark_changed();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Hears of changes from the API's request tasks.
pub(crate) struct Changes {
    /// Carries numbers and permissions to the switch.
    pub(crate) reloads: Arc<Reloads>,
    /// Sends to the webhooks; the VCA client asks its cache of them.
    pub(crate) delivery: Arc<Dispatcher>,
}

#[async_trait]
impl ProvisioningChanged for Changes {
    async fn numbers_changed(&self) {
        self.reloads.reload().await;
    }

    fn webhook_changed(&self, sub_account_id: &str, webhook_type: WebhookType) {
        self.delivery.endpoint_changed(sub_account_id, webhook_type);
    }

    fn settings_changed(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        settings: &EndpointSettings,
    ) {
        self.delivery
            .settings_changed(sub_account_id, webhook_type, settings);
    }
}
