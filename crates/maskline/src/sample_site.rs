//! What a platform team provisions by the API before its first call, put straight into the store:
//! for the demo and for benchmarks.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use maskline_events::{EarlyMedia, Msisdn, WebhookType};
use maskline_store::{NewNumber, NewSubAccount, NewWebhook, Store};
use maskline_switch::country::country_of;

use crate::node::wall;

/// A sub-account that may call Singapore, with one number, whose webhooks go to one receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleSite<'a> {
    pub(crate) sub_account_id: &'a str,
    /// The virtual number, in E.164 with `+`.
    pub(crate) number: &'a str,
    pub(crate) reference_id: &'a str,
    /// Gets `POST /vca`, `/vcs` and `/vss`.
    pub(crate) receiver: SocketAddr,
}

impl SampleSite<'_> {
    /// Writes it all into an empty store.
    ///
    /// # Errors
    /// A number that is none, or what the store says.
    pub(crate) async fn provision(&self, store: &dyn Store) -> anyhow::Result<()> {
        let number: Msisdn = self.number.parse()?;
        let sub_account = NewSubAccount {
            sub_account_id: self.sub_account_id.to_owned(),
            countries: BTreeSet::from(["SG".to_owned()]).into_iter().collect(),
        };
        store.create_sub_account(sub_account, wall()).await?;
        let number = NewNumber {
            country_code: country_of(&number).map(str::to_owned),
            early_media: EarlyMedia::default(),
            msisdn: number,
            sub_account_id: self.sub_account_id.to_owned(),
            reference_id: self.reference_id.to_owned(),
            trunk: None,
        };
        store.assign_number(number, wall()).await?;
        for (webhook_type, path) in [
            (WebhookType::Vca, "vca"),
            (WebhookType::Vcs, "vcs"),
            (WebhookType::Vss, "vss"),
        ] {
            let webhook = NewWebhook {
                sub_account_id: self.sub_account_id.to_owned(),
                webhook_type,
                url: format!("http://{}/{path}", self.receiver),
                http_auth_header: None,
                enabled: true,
            };
            store.set_webhook(webhook, wall()).await?;
        }
        Ok(())
    }
}
