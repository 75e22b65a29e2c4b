//! Changing a number that is assigned. Needs the admin key; assigning one is `admin`.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use maskline_events::{EarlyMedia, Msisdn};
use maskline_store::NumberChange;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::{AssignedNumber, SubAccountInPath, check_reference, check_trunk};
use crate::auth::AdminAccess;
use crate::changes::carried_through;
use crate::error::ApiError;
use crate::extract::{self, JsonBody};
use crate::state::ApiState;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(change_number))
}

/// What a number is to have from now on: at least one of the fields. What is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ChangeNumber {
    /// The owner's own name for it, 1 to 100 characters.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, example = "pool-1")]
    reference_id: Option<String>,
    /// The trunk by which its calls go out; null: none of its own.
    #[serde(default, deserialize_with = "or_null")]
    #[schema(value_type = Option<String>, example = "carrier")]
    trunk: Option<Option<String>>,
    /// What its callers hear before the answer: `ringback` (their own carrier's ringing tone) or
    /// `passThrough` (what the callee's side sends).
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Option<String>, nullable = false, pattern = "^(ringback|passThrough)$",
        example = "passThrough")]
    early_media: Option<EarlyMedia>,
}

/// Null is a value of its own, and absence another.
fn or_null<'de, T, D>(field: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(field).map(Some)
}

/// Null is refused: absence already says "as it is".
fn not_null<'de, T, D>(field: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    match Option::deserialize(field)? {
        Some(value) => Ok(Some(value)),
        None => Err(D::Error::custom("must not be null")),
    }
}

/// The `{number}` of an administration path, with or without `+`; what is no number does not exist.
pub(crate) struct NumberToChange(Msisdn);

impl FromRequestParts<ApiState> for NumberToChange {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, ApiError> {
        let text = extract::path_parameter(parts, "number").await?;
        Msisdn::parse(&text)
            .map(Self)
            .map_err(|_no_number| ApiError::NotFound("the number"))
    }
}

/// Changes an assigned number; what is absent stays. The next call uses it, live calls go on as they began.
#[utoipa::path(patch, path = "/api/v1/admin/subaccounts/{subAccountId}/numbers/{number}",
    tag = "administration", operation_id = "changeNumber",
    params(("subAccountId" = String, Path, description = "The sub-account"),
        ("number" = String, Path, description = "E.164, with or without `+`")),
    request_body = ChangeNumber,
    responses((status = 200, description = "The number as it is now", body = AssignedNumber)),
    security(("adminKey" = [])))]
async fn change_number(
    _admin: AdminAccess,
    SubAccountInPath(sub_account_id): SubAccountInPath,
    NumberToChange(msisdn): NumberToChange,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<ChangeNumber>,
) -> Result<Json<AssignedNumber>, ApiError> {
    let change = checked(body, &state)?;
    let change = async move {
        let (store, now) = (state.store(), state.now());
        let changed = store.change_number(&sub_account_id, &msisdn, change, now);
        let changed = changed.await?;
        state.config.on_change.numbers_changed().await;
        Ok(Json(changed.into()))
    };
    carried_through(change).await
}

fn checked(body: ChangeNumber, state: &ApiState) -> Result<NumberChange, ApiError> {
    let change = NumberChange {
        reference_id: body.reference_id,
        trunk: body.trunk,
        early_media: body.early_media,
    };
    if change == NumberChange::default() {
        return Err(ApiError::field(
            "body",
            "must have at least one of `referenceId`, `trunk` and `earlyMedia`",
        ));
    }
    if let Some(reference_id) = &change.reference_id {
        check_reference(reference_id)?;
    }
    if let Some(Some(trunk)) = &change.trunk {
        check_trunk(trunk, state)?;
    }
    Ok(change)
}
