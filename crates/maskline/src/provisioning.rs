//! From the store's configuration to the switch's directory, at the start and after each change.

use std::collections::BTreeSet;
use std::sync::Arc;

use maskline_events::WebhookType;
use maskline_http::ProvisioningChanged;
use maskline_store::{Store, StoreError};
use maskline_switch::{Directory, NumberEntry};
use maskline_webhook::Endpoints;
use tokio::sync::Notify;

/// Reads all numbers and permissions.
///
/// # Errors
/// The store's.
pub(crate) async fn directory(store: &dyn Store) -> Result<Arc<Directory>, StoreError> {
    let numbers = store.numbers(None).await?;
    let sub_accounts = store.sub_accounts().await?;
    Ok(Arc::new(Directory::new(
        numbers.into_iter().map(|number| NumberEntry {
            msisdn: number.msisdn,
            sub_account_id: number.sub_account_id,
            reference_id: number.reference_id,
            trunk: number.trunk,
        }),
        sub_accounts.into_iter().map(|sub_account| {
            let countries: BTreeSet<_> = sub_account.countries.into_iter().collect();
            (sub_account.sub_account_id, countries)
        }),
    )))
}

/// Hears of changes from the API's request tasks.
pub(crate) struct Changes {
    /// Numbers or sub-accounts changed: whoever waits reads the directory again.
    pub(crate) numbers: Arc<Notify>,
    /// Caches of webhooks, to be told which changed: of the delivery and of the VCA client.
    pub(crate) endpoints: Vec<Arc<Endpoints>>,
}

impl ProvisioningChanged for Changes {
    fn numbers_changed(&self) {
        self.numbers.notify_one();
    }

    fn webhook_changed(&self, sub_account_id: &str, webhook_type: WebhookType) {
        for endpoints in &self.endpoints {
            endpoints.changed(sub_account_id, webhook_type);
        }
    }
}
