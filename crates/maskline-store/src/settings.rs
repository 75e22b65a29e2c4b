//! What a webhook's owner has set about how it is sent to, beyond its URL.
//!
//! What lives elsewhere: checking what a caller of the API sent (`maskline-http`), what it means when
//! something is sent (`maskline-webhook`), the SQL (`sqlite::settings`).

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::signing::PublicKey;
use maskline_events::{Hiding, Redaction, Timestamp, WebhookType};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// The settings of one webhook, without what is secret of them. What is `None` is as the operator
/// has it. [`Default`]: nothing is set.
///
/// Kept as JSON: a field that is added later has to have a default, and what a newer version wrote
/// is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSettings {
    /// Most requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Most requests per 1,000 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_1000_seconds: Option<u32>,
    /// How long after the first, second … failure the next attempt is made; after these the event
    /// is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_delays_seconds: Option<Vec<u32>>,
    /// How old an event can become before the later ones of its session go on without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_deadline_seconds: Option<u32>,
    /// One attempt, from name lookup to the end of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_timeout_ms: Option<u32>,
    /// After how long with nothing but failures the webhook is disabled; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_after_seconds: Option<u32>,
    /// How it is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures: Option<Signatures>,
    /// What it shows of phone numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,
    /// TLS, if it is not as for every other endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// The versions of signatures that an endpoint gets. [`Default`]: `v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signatures {
    /// By the signing secret.
    #[default]
    V1,
    /// By the private key.
    V1a,
    /// By both.
    Both,
}

impl Signatures {
    /// Whether there are `v1` signatures.
    #[must_use]
    pub const fn has_v1(self) -> bool {
        match self {
            Self::V1 | Self::Both => true,
            Self::V1a => false,
        }
    }

    /// Whether there are `v1a` signatures.
    #[must_use]
    pub const fn has_v1a(self) -> bool {
        match self {
            Self::V1a | Self::Both => true,
            Self::V1 => false,
        }
    }
}

/// Whom an endpoint's TLS trusts, and who it says that we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsSettings {
    /// Certificates in PEM: these authorities and no others. `None`: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Certificates in PEM, ours first; its key is among the secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
}

impl EndpointSettings {
    /// One attempt's deadline, if it is set.
    #[must_use]
    pub fn attempt_timeout(&self) -> Option<Duration> {
        let ms = self.attempt_timeout_ms?;
        Some(Duration::from_millis(u64::from(ms)))
    }

    /// After how long with nothing but failures the webhook is disabled, if it is set; `Some(None)`:
    /// never.
    #[must_use]
    pub fn disable_after(&self) -> Option<Option<Duration>> {
        let seconds = u64::from(self.disable_after_seconds?);
        Some((seconds > 0).then(|| Duration::from_secs(seconds)))
    }
}

/// What is secret of a webhook's settings. Kept sealed; no `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSecrets {
    /// Headers that are sent along: lower-case names and values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The key of the client certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
}

/// Settings as a change of them begins and ends.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EndpointConfig {
    /// What may be shown.
    pub settings: EndpointSettings,
    /// What may not.
    pub secrets: EndpointSecrets,
}

/// How settings differ from those before, as far as what is known of the receiver goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsDifference {
    /// When requests are made, how long they may take, or what of numbers they show.
    Handling,
    /// Over which TLS, with which headers or signatures: a receiver that refused the requests of before,
    /// or took them, need not do so with these.
    Requests,
}

impl EndpointConfig {
    /// How these differ from those before; `None`: not at all.
    #[must_use]
    pub fn difference(&self, before: &Self) -> Option<SettingsDifference> {
        if self == before {
            return None;
        }
        let of_requests = |config: &Self| {
            // Named, each of them: a new one has to find its side.
            let EndpointSettings {
                max_in_flight: _,
                rate_per_1000_seconds: _,
                retry_delays_seconds: _,
                order_deadline_seconds: _,
                attempt_timeout_ms: _,
                disable_after_seconds: _,
                signatures,
                redaction: _,
                tls,
            } = &config.settings;
            (signatures.unwrap_or_default(), tls.clone())
        };
        let are_alike = of_requests(self) == of_requests(before) && self.secrets == before.secrets;
        Some(match are_alike {
            true => SettingsDifference::Handling,
            false => SettingsDifference::Requests,
        })
    }
}

/// A webhook's settings, and what they are for.
#[derive(Clone, PartialEq, Eq)]
pub struct ShownSettings {
    /// The webhook's URL.
    pub url: String,
    /// Whether the webhook is used.
    pub enabled: bool,
    /// Why it was switched off, if it was not its owner who did it.
    pub disabled_reason: Option<String>,
    /// Since when nothing but failures are known of it.
    pub failing_since: Option<Timestamp>,
    /// The settings.
    pub config: EndpointConfig,
    /// What its `v1a` signatures are checked with, whether it gets any or not.
    pub public_key: PublicKey,
}

/// Why settings can't be what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsFault {
    /// The field, by its path.
    pub field: String,
    /// What is wrong with it and what to do. Repeats no secret.
    pub reason: String,
}

impl SettingsFault {
    /// A fault of this field.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// The store, as the API's settings of webhooks see it.
#[async_trait]
pub trait WebhookSettings: Send + Sync + 'static {
    /// The settings of a webhook.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such webhook.
    async fn settings(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
    ) -> Result<ShownSettings, StoreError>;

    /// How numbers are hidden from a sub-account's webhooks, of those from which they are.
    ///
    /// # Errors
    /// [`StoreError::BrokenRow`] if that can't be read of one of them.
    async fn hidings(
        &self,
        sub_account_id: &str,
    ) -> Result<BTreeMap<WebhookType, Hiding>, StoreError>;

    /// Sets these in place of those that were read, and gives them. `None`: the URL or the settings are
    /// no longer those, and nothing was changed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such webhook.
    async fn replace_settings(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        read: ShownSettings,
        config: EndpointConfig,
        now: Timestamp,
    ) -> Result<Option<ShownSettings>, StoreError>;
}
