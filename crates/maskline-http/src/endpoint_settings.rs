//! What a sub-account sets about how a webhook of its own is sent to. An addition to the contract.
//!
//! What of it is not shown is in `secret`, TLS in `tls`. What lives elsewhere: keeping settings (`maskline-store`), what they do (`maskline-webhook`).

mod secret;
mod tls;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use maskline_events::{Redaction, Timestamp, WebhookType};
use maskline_store::{
    EndpointConfig, EndpointSecrets, EndpointSettings, SettingsFault, ShownSettings, Signatures,
    TlsSettings,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::SubAccountAccess;
use crate::changes::carried_through;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::state::ApiState;
use crate::webhooks::TypeInPath;
use secret::{Headers, Text};
use tls::TlsBody;

/// Whether these TLS settings, with this client key, can be used; the fault repeats nothing of them.
pub type TlsCheck =
    Arc<dyn Fn(&TlsSettings, Option<&str>) -> Result<(), SettingsFault> + Send + Sync>;

/// Requests at once.
const IN_FLIGHT: RangeInclusive<u32> = 1..=256;
/// Requests per second.
const RATE: RangeInclusive<f64> = 0.1..=10_000.0;
const MOST_DELAYS: usize = 20;
const DELAY_SECONDS: RangeInclusive<u32> = 1..=86_400;
const ORDER_DEADLINE_SECONDS: RangeInclusive<u32> = 1..=86_400;
const ATTEMPT_MS: RangeInclusive<u32> = 100..=30_000;
const DISABLE_AFTER_SECONDS: RangeInclusive<u32> = 0..=2_592_000;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(show, set))
}

/// How a webhook is sent to. What is absent or null is as the operator has it.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct SettingsBody {
    /// Most requests at once, 1 to 256. Not for VCA.
    #[schema(minimum = 1, maximum = 256, example = 8)]
    max_in_flight: Option<u32>,
    /// Most requests per second, 0.1 to 10,000, and as many at once after a rest; in steps of 0.001.
    /// Not for VCA.
    #[schema(minimum = 0.1, maximum = 10_000.0, example = 50.0)]
    rate_per_second: Option<f64>,
    /// Seconds, 1 to 86,400 each, give or take a tenth, after which the first, second … failure is
    /// tried again; at most 20. After these an event is dead; an empty list: at its first failure. Not
    /// for VCA.
    #[schema(max_items = 20, example = json!([1, 10, 60, 600, 3600]))]
    retry_delays_seconds: Option<Vec<u32>>,
    /// An event that is not through after so long, 1 to 86,400, no longer holds up the later ones of
    /// its session. Not for VCA.
    #[schema(minimum = 1, maximum = 86_400, example = 600)]
    order_deadline_seconds: Option<u32>,
    /// One attempt, from name lookup to the end of the answer, 100 to 30,000. Not for VCA.
    #[schema(minimum = 100, maximum = 30_000, example = 5_000)]
    attempt_timeout_ms: Option<u32>,
    /// With nothing but failures for so long the webhook is switched off, at most 2,592,000; 0: never.
    /// Not for VCA.
    #[schema(minimum = 0, maximum = 2_592_000, example = 86_400)]
    disable_after_seconds: Option<u32>,
    /// Versions of the signatures: `v1` by the signing secret, `v1a` by the private key of `publicKey`.
    /// One or both; null: `v1`.
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 2, example = json!(["v1", "v1a"]))]
    signatures: Option<Vec<Version>>,
    /// What bodies show of phone numbers: `full` (null means the same), `masked` (`+65••••4567`) or
    /// `token` (`tok_…`, equal for equal numbers of the sub-account). Not for VCA.
    #[schema(value_type = Option<String>, pattern = "^(full|masked|token)$", example = "masked")]
    redaction: Option<Redaction>,
    /// Headers to be sent along, at most 16 and 4,096 bytes: names, and values of visible ASCII. A
    /// value is never shown again but as null, and null keeps it. Not `authorization`, `host`,
    /// `user-agent`, `traceparent`, `tracestate`, `content-…`, `webhook-…`, nor what is for a connection
    /// or a proxy.
    #[schema(value_type = Option<std::collections::BTreeMap<String, Option<String>>>, example = json!({"x-tenant": "blue"}))]
    headers: Option<Headers>,
    /// TLS, if it is not as for every other endpoint.
    tls: Option<TlsBody>,
}

/// A version of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum Version {
    V1,
    V1a,
}

/// A webhook's settings.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShownBody {
    /// Whose.
    sub_account_id: String,
    /// Which.
    #[schema(value_type = String, pattern = "^(VCA|VCS|VSS|VRU|VNU)$", example = "VCS")]
    r#type: WebhookType,
    /// Whether it is used.
    enabled: bool,
    /// Why it was switched off, if it was not the sub-account that did it.
    #[schema(example = "the receiver answered 410")]
    disabled_reason: Option<String>,
    /// Since when it has had nothing but failures.
    #[schema(value_type = Option<String>, format = DateTime)]
    failing_since: Option<Timestamp>,
    /// What `v1a` signatures are checked with: `whpk_` and base64 of an Ed25519 key. A rotation of the
    /// secret makes another one; the old one signs too for 24 h.
    #[schema(example = "whpk_…")]
    public_key: String,
    /// The settings, null where nothing is set. Put back as they are, they change nothing.
    settings: SettingsBody,
    /// 0.
    status_code: i32,
    /// `ok`.
    #[schema(example = "ok")]
    status_message: &'static str,
}

/// A webhook's settings, without secrets.
#[utoipa::path(get, path = "/api/v1/subaccounts/{subAccountId}/webhooks/{type}/settings", tag = "webhooks",
    operation_id = "getWebhookSettings",
    params(("subAccountId" = String, Path, description = "The sub-account"),
        ("type" = String, Path, description = "`VCA`, `VCS`, `VSS`, `VRU` or `VNU`")),
    responses((status = 200, description = "The settings", body = ShownBody)),
    security(("apiKey" = [])))]
async fn show(
    access: SubAccountAccess,
    TypeInPath(webhook_type): TypeInPath,
    State(state): State<ApiState>,
) -> Result<Json<ShownBody>, ApiError> {
    let store = state.settings();
    let shown = store.settings(&access.sub_account_id, webhook_type).await?;
    Ok(Json(answer(access.sub_account_id, webhook_type, shown)))
}

/// Sets how a webhook is sent to, all of it: what is absent is as the operator has it. The webhook's URL
/// and secret stay. Setting the webhook anew keeps its settings, but with another scheme, host or port it
/// forgets its headers, client certificate and key; deleting it forgets all of them. The same settings again
/// change nothing. At most 60 changes a minute with a sub-account's key, of all its webhooks and parameters.
#[utoipa::path(put, path = "/api/v1/subaccounts/{subAccountId}/webhooks/{type}/settings", tag = "webhooks",
    operation_id = "setWebhookSettings",
    params(("subAccountId" = String, Path, description = "The sub-account"),
        ("type" = String, Path, description = "`VCA`, `VCS`, `VSS`, `VRU` or `VNU`")),
    request_body = SettingsBody,
    responses((status = 200, description = "The settings as they are now", body = ShownBody),
        (status = 409, description = "The webhook or its settings were changed while these were checked: try again", body = crate::error::ErrorBody),
        (status = 429, description = "Too many changes, too many whose certificates wait to be checked, or too many failed authentications; see `Retry-After`", body = crate::error::ErrorBody)),
    security(("apiKey" = [])))]
async fn set(
    access: SubAccountAccess,
    TypeInPath(webhook_type): TypeInPath,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<SettingsBody>,
) -> Result<Json<ShownBody>, ApiError> {
    let store = state.settings();
    let read = store.settings(&access.sub_account_id, webhook_type).await?;
    let config = changed(&body, webhook_type, &read.url, &read.config).map_err(faulty)?;
    let Some(difference) = config.difference(&read.config) else {
        return Ok(Json(answer(access.sub_account_id, webhook_type, read)));
    };
    state.change_limit.admit(&access)?;
    check_tls(access.line(), &config, &read.config, &state).await?;
    let id = access.sub_account_id;
    let change = async move {
        // Told in the order in which they are written.
        let _front = state.settings_changes.front(&id).await;
        let (store, now) = (state.settings(), state.now());
        let set = store.replace_settings(&id, webhook_type, read, config, now);
        let shown = set
            .await?
            .ok_or(ApiError::Outdated("The webhook or its settings"))?;
        let settings = &shown.config.settings;
        let on_change = &state.config.on_change;
        on_change.settings_changed(&id, webhook_type, settings, difference);
        Ok(Json(answer(id, webhook_type, shown)))
    };
    carried_through(change).await
}

fn faulty(fault: SettingsFault) -> ApiError {
    ApiError::field(&fault.field, fault.reason)
}

/// Whether certificates and keys can be used, unless they are those that were set before. Reading and
/// comparing them takes milliseconds.
async fn check_tls(
    line: &str,
    config: &EndpointConfig,
    before: &EndpointConfig,
    state: &ApiState,
) -> Result<(), ApiError> {
    let (tls, key) = (&config.settings.tls, &config.secrets.client_key);
    let is_known = *tls == before.settings.tls && *key == before.secrets.client_key;
    let Some(tls) = tls.clone().filter(|_| !is_known) else {
        return Ok(());
    };
    let (key, check) = (key.clone(), Arc::clone(&state.config.check_webhook_tls));
    let turn = state.checking.turn(line).await?;
    let (checked, _place) = turn.work(move || check(&tls, key.as_deref())).await?;
    checked.map_err(faulty)
}

fn answer(sub_account_id: String, r#type: WebhookType, shown: ShownSettings) -> ShownBody {
    ShownBody {
        sub_account_id,
        r#type,
        enabled: shown.enabled,
        disabled_reason: shown.disabled_reason,
        failing_since: shown.failing_since,
        public_key: shown.public_key.to_string(),
        settings: SettingsBody::from(shown.config),
        status_code: 0,
        status_message: "ok",
    }
}

impl From<EndpointConfig> for SettingsBody {
    fn from(config: EndpointConfig) -> Self {
        let settings = config.settings;
        Self {
            max_in_flight: settings.max_in_flight,
            rate_per_second: settings
                .rate_per_1000_seconds
                .map(|rate| f64::from(rate) / 1_000.0),
            retry_delays_seconds: settings.retry_delays_seconds,
            order_deadline_seconds: settings.order_deadline_seconds,
            attempt_timeout_ms: settings.attempt_timeout_ms,
            disable_after_seconds: settings.disable_after_seconds,
            signatures: settings.signatures.map(|them| match them {
                Signatures::V1 => vec![Version::V1],
                Signatures::V1a => vec![Version::V1a],
                Signatures::Both => vec![Version::V1, Version::V1a],
            }),
            redaction: settings.redaction,
            headers: names(config.secrets.headers),
            tls: settings.tls.map(TlsBody::from),
        }
    }
}

fn names(headers: BTreeMap<String, String>) -> Option<Headers> {
    let names = headers.into_keys().map(|name| (name, Text(None)));
    Some(Headers(names.collect())).filter(|Headers(names)| !names.is_empty())
}

/// What the settings become, if the body is one that may be. Certificates are not yet looked at.
fn changed(
    body: &SettingsBody,
    kind: WebhookType,
    url: &str,
    was: &EndpointConfig,
) -> Result<EndpointConfig, SettingsFault> {
    if kind == WebhookType::Vca {
        only_of_the_request(body)?;
    }
    let (tls, client_key) = tls::tls(body.tls.as_ref(), url, was.secrets.client_key.as_ref())?;
    let settings = EndpointSettings {
        max_in_flight: within("maxInFlight", body.max_in_flight, &IN_FLIGHT)?,
        rate_per_1000_seconds: rate(body.rate_per_second)?,
        retry_delays_seconds: delays(body.retry_delays_seconds.as_deref())?,
        order_deadline_seconds: within(
            "orderDeadlineSeconds",
            body.order_deadline_seconds,
            &ORDER_DEADLINE_SECONDS,
        )?,
        attempt_timeout_ms: within("attemptTimeoutMs", body.attempt_timeout_ms, &ATTEMPT_MS)?,
        disable_after_seconds: within(
            "disableAfterSeconds",
            body.disable_after_seconds,
            &DISABLE_AFTER_SECONDS,
        )?,
        signatures: signatures(body.signatures.as_deref())?,
        redaction: body.redaction,
        tls,
    };
    let secrets = EndpointSecrets {
        headers: secret::headers(body.headers.as_ref(), &was.secrets.headers)?,
        client_key,
    };
    Ok(EndpointConfig { settings, secrets })
}

/// A VCA webhook is asked while a call waits for the answer: nothing of it is delivered later.
fn only_of_the_request(body: &SettingsBody) -> Result<(), SettingsFault> {
    let refused = [
        ("maxInFlight", body.max_in_flight.is_some()),
        ("ratePerSecond", body.rate_per_second.is_some()),
        ("retryDelaysSeconds", body.retry_delays_seconds.is_some()),
        (
            "orderDeadlineSeconds",
            body.order_deadline_seconds.is_some(),
        ),
        ("attemptTimeoutMs", body.attempt_timeout_ms.is_some()),
        ("disableAfterSeconds", body.disable_after_seconds.is_some()),
        ("redaction", body.redaction.is_some()),
    ];
    match refused.into_iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(SettingsFault::new(
            field,
            "is for webhooks that are delivered; a VCA webhook is asked: leave it out",
        )),
        None => Ok(()),
    }
}

fn signatures(versions: Option<&[Version]>) -> Result<Option<Signatures>, SettingsFault> {
    match versions {
        None => Ok(None),
        Some([Version::V1]) => Ok(Some(Signatures::V1)),
        Some([Version::V1a]) => Ok(Some(Signatures::V1a)),
        Some([Version::V1, Version::V1a] | [Version::V1a, Version::V1]) => {
            Ok(Some(Signatures::Both))
        }
        Some(_) => Err(SettingsFault::new(
            "signatures",
            "has to be `v1`, `v1a` or both, each once: no request goes unsigned",
        )),
    }
}

fn within(
    field: &str,
    value: Option<u32>,
    bounds: &RangeInclusive<u32>,
) -> Result<Option<u32>, SettingsFault> {
    match value {
        Some(value) if !bounds.contains(&value) => {
            let reason = format!("has to be {} to {}", bounds.start(), bounds.end());
            Err(SettingsFault::new(field, reason))
        }
        Some(_) | None => Ok(value),
    }
}

fn rate(per_second: Option<f64>) -> Result<Option<u32>, SettingsFault> {
    let Some(per_second) = per_second else {
        return Ok(None);
    };
    if !RATE.contains(&per_second) {
        return Err(SettingsFault::new(
            "ratePerSecond",
            "has to be 0.1 to 10000; leave it out for no limit but the operator's",
        ));
    }
    // At most 10,000,000 by the bounds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(Some((per_second * 1_000.0).round() as u32))
}

fn delays(delays: Option<&[u32]>) -> Result<Option<Vec<u32>>, SettingsFault> {
    let Some(delays) = delays else {
        return Ok(None);
    };
    if delays.len() > MOST_DELAYS {
        let reason = format!("has to hold {MOST_DELAYS} delays at most");
        return Err(SettingsFault::new("retryDelaysSeconds", reason));
    }
    for (index, delay) in delays.iter().enumerate() {
        let field = format!("retryDelaysSeconds[{index}]");
        within(&field, Some(*delay), &DELAY_SECONDS)?;
    }
    Ok(Some(delays.to_vec()))
}
