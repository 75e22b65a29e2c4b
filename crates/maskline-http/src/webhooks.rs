//! A sub-account's webhooks: list, set, delete, rotate the secret (contract §5).

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::HeaderValue;
use axum::http::request::Parts;
use maskline_events::WebhookType;
use maskline_store::{EndpointConfig, NewWebhook, StoreError, Webhook, is_https};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::SubAccountAccess;
use crate::changes::carried_through;
use crate::error::ApiError;
use crate::extract::{self, JsonBody};
use crate::state::ApiState;

const LONGEST_URL: usize = 2048;
const LONGEST_AUTH_HEADER: usize = 4096;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, set))
        .routes(routes!(delete))
        .routes(routes!(rotate_secret))
}

/// A webhook to be set.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetWebhook {
    /// `VCA`, `VCS`, `VSS`, `VRU` or `VNU`.
    #[schema(value_type = String, pattern = "^(VCA|VCS|VSS|VRU|VNU)$", example = "VCS")]
    r#type: WebhookType,
    /// Where to, http or https, at most 2,048 bytes.
    #[schema(example = "https://example.com/voice/status")]
    url: String,
    /// The whole value of the `Authorization` header to send along, at most 4,096 bytes of visible
    /// ASCII. Absent, null or empty: none.
    http_auth_header: Option<String>,
    /// Whether it is used; true if absent. `active` is another name for it.
    #[serde(alias = "active")]
    enabled: Option<bool>,
}

/// A webhook.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookEntry {
    /// `VCA`, `VCS`, `VSS`, `VRU` or `VNU`.
    #[schema(value_type = String, pattern = "^(VCA|VCS|VSS|VRU|VNU)$", example = "VCS")]
    r#type: WebhookType,
    /// Where to.
    url: String,
    /// Whether it is used.
    enabled: bool,
    /// Whether an `Authorization` header is sent along.
    http_auth_header_available: bool,
    /// `whsec_` and base64 of 32 bytes: only in the answer that creates the webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    signing_secret: Option<String>,
    /// Settings that were for the receiver before and are forgotten with its scheme, host or port:
    /// `headers`, `tls.clientCertificate`. Only in the answer that forgets them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, nullable = false, example = json!(["headers"]))]
    forgotten_settings: Option<Vec<&'static str>>,
}

impl From<Webhook> for WebhookEntry {
    fn from(webhook: Webhook) -> Self {
        Self {
            r#type: webhook.webhook_type,
            url: webhook.url,
            enabled: webhook.enabled,
            http_auth_header_available: webhook.http_auth_header_available,
            signing_secret: None,
            forgotten_settings: None,
        }
    }
}

/// A sub-account's webhooks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookList {
    /// Whose.
    sub_account_id: String,
    /// How many.
    count: usize,
    /// One per type at most.
    webhooks: Vec<WebhookEntry>,
    /// 0.
    status_code: i32,
    /// `ok`.
    #[schema(example = "ok")]
    status_message: &'static str,
}

/// The webhook that was deleted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeletedWebhook {
    /// Whose.
    sub_account_id: String,
    /// Which.
    #[schema(value_type = String, pattern = "^(VCA|VCS|VSS|VRU|VNU)$", example = "VCS")]
    r#type: WebhookType,
    /// Where it went.
    url: String,
    /// Whether it was used.
    enabled: bool,
    /// Whether an `Authorization` header was sent along.
    http_auth_header_available: bool,
    /// 0.
    status_code: i32,
    /// `deleted`.
    #[schema(example = "deleted")]
    status_message: &'static str,
}

/// A new signing secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RotatedSecret {
    /// Which webhook's.
    #[schema(value_type = String, pattern = "^(VCA|VCS|VSS|VRU|VNU)$", example = "VCS")]
    r#type: WebhookType,
    /// `whsec_` and base64 of 32 bytes. Never shown again.
    signing_secret: String,
}

/// The `{type}` of a path; another text names no resource.
pub(crate) struct TypeInPath(pub(crate) WebhookType);

impl FromRequestParts<ApiState> for TypeInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, ApiError> {
        let text = extract::path_parameter(parts, "type").await?;
        text.parse()
            .map(Self)
            .map_err(|_unknown| ApiError::NotFound("The webhook"))
    }
}

/// A sub-account's webhooks.
#[utoipa::path(get, path = "/api/v1/subaccounts/{subAccountId}/webhooks", tag = "webhooks",
    operation_id = "listWebhooks",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    responses((status = 200, description = "The webhooks", body = WebhookList)),
    security(("apiKey" = [])))]
async fn list(
    access: SubAccountAccess,
    State(state): State<ApiState>,
) -> Result<Json<WebhookList>, ApiError> {
    listed(access.sub_account_id, &state).await.map(Json)
}

/// Sets a webhook; one of the same type is replaced and keeps its signing secret and its settings. With
/// another scheme, host or port in its URL it forgets its headers, client certificate and key, and the
/// answer says so in `forgottenSettings`. One whose settings have TLS is refused a URL without.
#[utoipa::path(post, path = "/api/v1/subaccounts/{subAccountId}/webhooks", tag = "webhooks",
    operation_id = "setWebhook",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    request_body = SetWebhook,
    responses((status = 200, description = "All webhooks; a new one with its signing secret", body = WebhookList),
        (status = 429, description = "Too many changes, or too many failed authentications; see `Retry-After`", body = crate::error::ErrorBody)),
    security(("apiKey" = [])))]
async fn set(
    access: SubAccountAccess,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<SetWebhook>,
) -> Result<Json<WebhookList>, ApiError> {
    let webhook_type = body.r#type;
    let webhook = checked(body, &access.sub_account_id, &state)?;
    let before = config_of(&access.sub_account_id, webhook_type, &state).await?;
    if before.settings.tls.is_some() && !is_https(&webhook.url) {
        let reason =
            "is not https, and the webhook's settings have TLS: PUT settings without `tls` first";
        return Err(ApiError::field("url", reason));
    }
    state.change_limit.admit(&access)?;
    let id = access.sub_account_id;
    let (changing, of) = (state.clone(), id.clone());
    let change = async move {
        let set = changing.store().set_webhook(webhook, changing.now());
        let secret = set.await?;
        changing.config.on_change.webhook_changed(&of, webhook_type);
        Ok(secret)
    };
    let secret = carried_through(change).await?;
    let after = config_of(&id, webhook_type, &state).await?;
    let mut list = listed(id, &state).await?;
    if let Some(entry) = list
        .webhooks
        .iter_mut()
        .find(|entry| entry.r#type == webhook_type)
    {
        entry.signing_secret = secret;
        entry.forgotten_settings = forgotten(&before, &after);
    }
    Ok(Json(list))
}

/// The settings of a webhook. None are set if there is no such webhook, or what is set can't be read: then
/// nothing is sent with it, and setting it anew is not refused for it.
async fn config_of(
    sub_account_id: &str,
    webhook_type: WebhookType,
    state: &ApiState,
) -> Result<EndpointConfig, ApiError> {
    match state
        .settings()
        .settings(sub_account_id, webhook_type)
        .await
    {
        Ok(shown) => Ok(shown.config),
        Err(StoreError::NotFound { .. } | StoreError::BrokenRow { .. } | StoreError::Secret) => {
            Ok(EndpointConfig::default())
        }
        Err(
            error @ (StoreError::Conflict { .. }
            | StoreError::Full { .. }
            | StoreError::Unavailable { .. }
            | StoreError::TooNew { .. }),
        ) => Err(error.into()),
    }
}

fn forgotten(before: &EndpointConfig, after: &EndpointConfig) -> Option<Vec<&'static str>> {
    let certificate = |config: &EndpointConfig| {
        let tls = config.settings.tls.as_ref();
        tls.is_some_and(|tls| tls.client_certificate.is_some())
    };
    let headers = |config: &EndpointConfig| !config.secrets.headers.is_empty();
    let all = [
        ("headers", headers(before) && !headers(after)),
        (
            "tls.clientCertificate",
            certificate(before) && !certificate(after),
        ),
    ];
    let forgotten = all.into_iter().filter(|(_, is)| *is).map(|(name, _)| name);
    Some(forgotten.collect::<Vec<_>>()).filter(|names| !names.is_empty())
}

/// Deletes a webhook, its header and its secrets.
#[utoipa::path(delete, path = "/api/v1/subaccounts/{subAccountId}/webhooks/{type}", tag = "webhooks",
    operation_id = "deleteWebhook",
    params(("subAccountId" = String, Path, description = "The sub-account"),
        ("type" = String, Path, description = "`VCA`, `VCS`, `VSS`, `VRU` or `VNU`")),
    responses((status = 200, description = "What it was", body = DeletedWebhook)),
    security(("apiKey" = [])))]
async fn delete(
    access: SubAccountAccess,
    TypeInPath(webhook_type): TypeInPath,
    State(state): State<ApiState>,
) -> Result<Json<DeletedWebhook>, ApiError> {
    state.change_limit.admit(&access)?;
    let id = access.sub_account_id;
    let of = id.clone();
    let change = async move {
        let webhook = state.store().delete_webhook(&of, webhook_type).await?;
        state.config.on_change.webhook_changed(&of, webhook_type);
        Ok(webhook)
    };
    let webhook = carried_through(change).await?;
    Ok(Json(DeletedWebhook {
        sub_account_id: id,
        r#type: webhook.webhook_type,
        url: webhook.url,
        enabled: webhook.enabled,
        http_auth_header_available: webhook.http_auth_header_available,
        status_code: 0,
        status_message: "deleted",
    }))
}

/// Makes a new signing secret; the old one signs too for 24 h.
#[utoipa::path(post, path = "/api/v1/subaccounts/{subAccountId}/webhooks/{type}/rotate-secret", tag = "webhooks",
    operation_id = "rotateWebhookSecret",
    params(("subAccountId" = String, Path, description = "The sub-account"),
        ("type" = String, Path, description = "`VCA`, `VCS`, `VSS`, `VRU` or `VNU`")),
    responses((status = 200, description = "The new secret", body = RotatedSecret)),
    security(("apiKey" = [])))]
async fn rotate_secret(
    access: SubAccountAccess,
    TypeInPath(webhook_type): TypeInPath,
    State(state): State<ApiState>,
) -> Result<Json<RotatedSecret>, ApiError> {
    state.change_limit.admit(&access)?;
    let id = access.sub_account_id;
    let change = async move {
        let rotate = state.store().rotate_secret(&id, webhook_type, state.now());
        let signing_secret = rotate.await?;
        state.config.on_change.webhook_changed(&id, webhook_type);
        Ok(signing_secret)
    };
    let signing_secret = carried_through(change).await?;
    Ok(Json(RotatedSecret {
        r#type: webhook_type,
        signing_secret,
    }))
}

async fn listed(sub_account_id: String, state: &ApiState) -> Result<WebhookList, ApiError> {
    let webhooks: Vec<WebhookEntry> = state
        .store()
        .webhooks(&sub_account_id)
        .await?
        .into_iter()
        .map(WebhookEntry::from)
        .collect();
    Ok(WebhookList {
        sub_account_id,
        count: webhooks.len(),
        webhooks,
        status_code: 0,
        status_message: "ok",
    })
}

fn checked(
    body: SetWebhook,
    sub_account_id: &str,
    state: &ApiState,
) -> Result<NewWebhook, ApiError> {
    if body.url.len() > LONGEST_URL {
        return Err(ApiError::field("url", "is longer than 2048 bytes"));
    }
    (state.config.check_webhook_url)(&body.url).map_err(|reason| ApiError::field("url", reason))?;
    let http_auth_header = body.http_auth_header.filter(|value| !value.is_empty());
    if let Some(value) = &http_auth_header {
        check_header_value(value)?;
    }
    Ok(NewWebhook {
        sub_account_id: sub_account_id.to_owned(),
        webhook_type: body.r#type,
        url: body.url,
        http_auth_header,
        enabled: body.enabled.unwrap_or(true),
    })
}

fn check_header_value(value: &str) -> Result<(), ApiError> {
    let refused = |reason| Err(ApiError::field("httpAuthHeader", reason));
    if value.len() > LONGEST_AUTH_HEADER {
        return refused("is longer than 4096 bytes");
    }
    if !value.is_ascii() || HeaderValue::from_str(value).is_err() {
        return refused("is no header value: visible ASCII, space and tab only");
    }
    if value.trim() != value {
        return refused("begins or ends with a space");
    }
    Ok(())
}
