//! The fields that a sub-account adds to its call events. An addition to the contract.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use maskline_events::{EventParameters, ParameterEntry, SessionValue};
use maskline_store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::SubAccountAccess;
use crate::changes::carried_through;
use crate::countries;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::state::ApiState;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list, replace))
}

/// A field that call events get, for all destinations, those of a country, or those of a prefix. Where
/// several of a name fit, the longest prefix counts, then the country, then what is for all.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EventParameter {
    /// The field's name: 1 to 64 letters, digits and `_`, with a letter first; none of the contract's.
    #[schema(pattern = "^[A-Za-z][A-Za-z0-9_]{0,63}$", example = "tenant")]
    name: String,
    /// Its value: a text, a number or a boolean. Either this or `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "eu-1")]
    value: Option<Value>,
    /// Or what the call says: `referenceId` of its virtual number, `subAccountId`, or `leg` (`A`, `B`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, pattern = "^(referenceId|subAccountId|leg)$")]
    from: Option<SessionValue>,
    /// Only where the event's `destination` is in this country, ISO 3166-1 alpha-2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "SG")]
    country: Option<String>,
    /// Or only where it begins with this, with or without `+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    prefix: Option<String>,
}

impl From<ParameterEntry> for EventParameter {
    fn from(entry: ParameterEntry) -> Self {
        Self {
            name: entry.name,
            value: entry.value,
            from: entry.from,
            country: entry.country,
            prefix: entry.prefix,
        }
    }
}

impl From<EventParameter> for ParameterEntry {
    fn from(entry: EventParameter) -> Self {
        Self {
            name: entry.name,
            value: entry.value,
            from: entry.from,
            country: entry.country,
            prefix: entry.prefix,
        }
    }
}

/// All fields that call events get.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SetEventParameters {
    /// At most 200, by which an event grows by 2 kB at most. Empty: none.
    parameters: Vec<EventParameter>,
}

/// All fields that a sub-account's call events get.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventParameterList {
    /// Whose.
    sub_account_id: String,
    /// How many.
    count: usize,
    /// In the order in which they were given.
    parameters: Vec<EventParameter>,
    /// 0.
    status_code: i32,
    /// `ok`; of a 202 `pending`.
    #[schema(example = "ok")]
    status_message: &'static str,
}

fn listed(
    sub_account_id: String,
    entries: Vec<ParameterEntry>,
    status_message: &'static str,
) -> Json<EventParameterList> {
    Json(EventParameterList {
        sub_account_id,
        count: entries.len(),
        parameters: entries.into_iter().map(EventParameter::from).collect(),
        status_code: 0,
        status_message,
    })
}

/// The fields that a sub-account's call events get.
#[utoipa::path(get, path = "/api/v1/subaccounts/{subAccountId}/event-parameters", tag = "webhooks",
    operation_id = "listEventParameters",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    responses((status = 200, description = "The fields", body = EventParameterList)),
    security(("apiKey" = [])))]
async fn list(
    access: SubAccountAccess,
    State(state): State<ApiState>,
) -> Result<Json<EventParameterList>, ApiError> {
    let id = access.sub_account_id;
    let entries = state.parameters().event_parameters(&id).await?;
    Ok(listed(id, entries, "ok"))
}

/// Replaces the fields that a sub-account's call events get. Events that happen after a 200 have them. The
/// same ones again change nothing. At most 60 changes a minute with a sub-account's key, those of its
/// webhooks among them.
#[utoipa::path(put, path = "/api/v1/subaccounts/{subAccountId}/event-parameters", tag = "webhooks",
    operation_id = "setEventParameters",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    request_body = SetEventParameters,
    responses((status = 200, description = "The fields as they are now", body = EventParameterList),
        (status = 202, description = "They are kept, and go for events as soon as the switch has read them: that takes longer than five seconds", body = EventParameterList),
        (status = 429, description = "Too many changes, or too many failed authentications; see `Retry-After`", body = crate::error::ErrorBody)),
    security(("apiKey" = [])))]
async fn replace(
    access: SubAccountAccess,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<SetEventParameters>,
) -> Result<(StatusCode, Json<EventParameterList>), ApiError> {
    let entries: Vec<ParameterEntry> = body.parameters.into_iter().map(Into::into).collect();
    EventParameters::new(&entries, countries::is_assigned).map_err(|fault| {
        let field = format!("parameters[{}].{}", fault.index, fault.field);
        ApiError::field(&field, fault.reason)
    })?;
    let is_new = match state
        .parameters()
        .event_parameters(&access.sub_account_id)
        .await
    {
        Ok(known) => known != entries,
        // Setting them again is what mends it.
        Err(StoreError::BrokenRow { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    if is_new {
        state.change_limit.admit(&access)?;
    }
    let id = access.sub_account_id;
    let change = async move {
        if is_new {
            let set = state
                .parameters()
                .set_event_parameters(&id, entries.clone());
            set.await?;
        }
        // Also of what is not new: whoever has set it may not have come as far as this.
        let is_known = state.config.on_change.parameters_set(&id).await;
        let (status, message) = match is_known {
            true => (StatusCode::OK, "ok"),
            false => (StatusCode::ACCEPTED, "pending"),
        };
        Ok((status, listed(id, entries, message)))
    };
    carried_through(change).await
}
