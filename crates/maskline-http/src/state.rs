//! What the API is made of: its configuration, the state that handlers share, and the router.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use maskline_events::{Msisdn, Timestamp, WebhookType};
use maskline_media::MediaReport;
use maskline_store::{
    EndpointSettings, EventHistory, ParameterStore, SettingsDifference, Store, WebhookSettings,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::{KeyHash, KnownKeys, Throttles};
use crate::call_events::CallEventSink;
use crate::changes::ChangeLimit;
use crate::endpoint_settings::TlsCheck;
use crate::replays::ReplayedEvents;
use crate::traces::Traces;
use crate::trunks::TrunkStatus;
use crate::turns::{Lines, LongWork};
use crate::{frame, openapi};

/// Reads the clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Whether a webhook may be sent to this URL; the error is shown to the API's client.
pub type UrlCheck = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// ISO 3166-1 alpha-2 of a number's country; `None` for codes of no country.
pub type CountryLookup = Arc<dyn Fn(&Msisdn) -> Option<String> + Send + Sync>;

/// Looks at the trunks, in the configuration's order.
pub type TrunkStatuses = Arc<dyn Fn() -> Vec<TrunkStatus> + Send + Sync>;

/// How the audio of a live session goes; `None`: there is no such session, or it has no audio yet.
pub type MediaReports = Arc<dyn Fn(Uuid) -> Option<MediaReport> + Send + Sync>;

/// Renders all metrics in Prometheus' text format.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// How many failed authentications per minute one source address may make, unless configured.
pub const DEFAULT_FAILED_AUTHENTICATIONS_PER_MINUTE: u32 = 20;

/// Pages of up to 1,000 events that are in memory to be read, hidden and written.
const PAGES_AT_ONCE: usize = 2;
/// Replays, which write step by step.
const REPLAYS_AT_ONCE: usize = 2;
/// Checks of certificates and keys, milliseconds each.
const CHECKS_AT_ONCE: usize = 1;

/// Told of each change, after it is durable, so that the switch and the delivery need not poll.
///
/// All are called from a request's task: they must not block.
#[async_trait]
pub trait ProvisioningChanged: Send + Sync {
    /// Sub-accounts or numbers changed. The answer to the client waits for this, so that whoever
    /// provisioned a number can call it at once.
    async fn numbers_changed(&self);
    /// What a sub-account adds to its events changed, or was set again as it is. True once the events
    /// that happen from now on have what the store has now; false if that takes longer than a client
    /// should wait, though it is still on its way.
    async fn parameters_set(&self, sub_account_id: &str) -> bool;
    /// One webhook was set, deleted, or got a new secret.
    fn webhook_changed(&self, sub_account_id: &str, webhook_type: WebhookType);
    /// The settings of one webhook are these now, and differ so from what they were.
    fn settings_changed(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        settings: &EndpointSettings,
        difference: SettingsDifference,
    );
}

/// What the API needs.
pub struct ApiConfig {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The same store, for what sub-accounts add to their events.
    pub parameters: Arc<dyn ParameterStore>,
    /// The same store, to look back at events.
    pub history: Arc<dyn EventHistory>,
    /// The same store, for the settings of webhooks.
    pub settings: Arc<dyn WebhookSettings>,
    /// Told of events that are to be sent once more.
    pub replayed: Arc<dyn ReplayedEvents>,
    /// The admin key from the configuration. When there is one, the store's own admin key is not
    /// accepted: setting a new key ends the old one.
    pub admin_key: Option<String>,
    /// Names of the configured trunks.
    pub trunks: Vec<String>,
    /// The trunks as they are now.
    pub trunk_status: TrunkStatuses,
    /// Looks at a session's audio.
    pub media_report: MediaReports,
    /// Takes status updates of other switches' calls.
    pub call_events: Arc<dyn CallEventSink>,
    /// Addresses or networks from which webhooks are sent, for receivers' allow-lists.
    pub egress_addresses: Vec<String>,
    /// The egress guard's opinion of a webhook URL.
    pub check_webhook_url: UrlCheck,
    /// Whether TLS settings of a webhook can be used.
    pub check_webhook_tls: TlsCheck,
    /// Told of changes.
    pub on_change: Arc<dyn ProvisioningChanged>,
    /// The country of a number.
    pub country_of: CountryLookup,
    /// The clock of timestamps in answers and of stored changes.
    pub clock: Clock,
    /// What `/metrics` answers.
    pub metrics_text: MetricsText,
    /// How calls went; `None`: it is not kept.
    pub traces: Option<Traces>,
    /// Set while the switch drains: `/healthz` answers 503, the rest of the API goes on.
    pub draining: Arc<AtomicBool>,
    /// Set while the journal cannot be written: `/healthz` answers 503.
    pub journal_down: Arc<AtomicBool>,
    /// See [`DEFAULT_FAILED_AUTHENTICATIONS_PER_MINUTE`].
    pub failed_authentications_per_minute: u32,
}

/// Makes the API's routes.
///
/// Behind [`crate::serve()`] each request carries its peer's address, by which failed authentications
/// are limited; served by anything else, all requests count as one address.
pub fn router(config: ApiConfig) -> Router {
    let state = ApiState::new(config);
    let (routes, _document) = openapi::routes().split_for_parts();
    frame::layered(routes, &state).with_state(state)
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct ApiState(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: ApiConfig,
    pub(crate) admin_key: Option<KeyHash>,
    pub(crate) throttles: Throttles,
    pub(crate) known_keys: KnownKeys,
    pub(crate) change_limit: ChangeLimit,
    /// Pages of events, and logs of one.
    pub(crate) reading: LongWork,
    /// Replays: each looks at much, on the thread that writes.
    pub(crate) replaying: LongWork,
    /// Certificates and keys that are about to be set: whoever sets them waits for no reader.
    pub(crate) checking: LongWork,
    /// Settings of webhooks that are written and told.
    pub(crate) settings_changes: Lines,
    store_health: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl std::ops::Deref for ApiState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl ApiState {
    fn new(mut config: ApiConfig) -> Self {
        let admin_key = config.admin_key.take().map(|key| KeyHash::of(&key));
        let throttles = Throttles::new(config.failed_authentications_per_minute);
        if let Some(admin_key) = admin_key {
            // The operator's own key must work however many others fail behind the same proxy.
            throttles.succeeded(admin_key);
        }
        Self(Arc::new(Inner {
            config,
            admin_key,
            throttles,
            known_keys: KnownKeys::default(),
            change_limit: ChangeLimit::default(),
            reading: LongWork::new(PAGES_AT_ONCE),
            replaying: LongWork::new(REPLAYS_AT_ONCE),
            checking: LongWork::new(CHECKS_AT_ONCE),
            settings_changes: Lines::default(),
            store_health: tokio::sync::Mutex::new(None),
        }))
    }
}

impl Inner {
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.config.store
    }

    pub(crate) fn parameters(&self) -> &dyn ParameterStore {
        &*self.config.parameters
    }

    pub(crate) fn history(&self) -> &dyn EventHistory {
        &*self.config.history
    }

    pub(crate) fn settings(&self) -> &dyn WebhookSettings {
        &*self.config.settings
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.config.clock)()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.config.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn is_journal_down(&self) -> bool {
        self.config.journal_down.load(Ordering::Relaxed)
    }

    /// Whether the store answered within 2 s, asked at most once a second however many ask: anybody
    /// may call `/healthz`.
    pub(crate) async fn is_store_up(&self) -> bool {
        let mut last = self.store_health.lock().await;
        if let Some((asked, up)) = *last
            && asked.elapsed() < Duration::from_secs(1)
        {
            return up;
        }
        let up = match tokio::time::timeout(Duration::from_secs(2), self.store().ping()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "health check: the store does not answer");
                false
            }
            Err(_elapsed) => {
                tracing::warn!("health check: the store did not answer within 2 s");
                false
            }
        };
        *last = Some((Instant::now(), up));
        up
    }
}
