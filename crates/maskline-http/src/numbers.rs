//! A sub-account's virtual numbers, read only (contract §5); assigning them is administration.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use maskline_events::{EarlyMedia, Msisdn, Timestamp};
use maskline_store::VirtualNumber;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::SubAccountAccess;
use crate::error::{ApiError, FaultBody};
use crate::extract;
use crate::state::ApiState;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
}

/// A virtual number.
///
/// A self-hosted switch rents out nothing and does not probe its numbers: the prices are 0, the
/// billing unit is 1 s, the currency `USD`, and the health is that of a number never found ill.
/// The fields are here because the contract's receivers read them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NumberEntry {
    /// E.164 with `+`.
    #[schema(value_type = String, example = "+6560000001")]
    msisdn: Msisdn,
    /// When it was assigned.
    #[schema(value_type = String, format = DateTime)]
    date_created: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    date_updated: Timestamp,
    /// ISO 3166-1 alpha-2; absent for codes of no country.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "SG")]
    country_code: Option<String>,
    /// `Active`.
    #[schema(example = "Active")]
    operational_status: &'static str,
    /// The owner's own name for it.
    reference_id: String,
    /// 0.
    rental_price: f64,
    /// 0.
    incoming_rate: f64,
    /// 1.
    billing_unit: u32,
    /// `USD`.
    #[schema(example = "USD")]
    billing_currency: &'static str,
    /// The path of this number's own resource.
    uri: String,
    /// `VIRTUAL`.
    #[schema(example = "VIRTUAL")]
    number_type: &'static str,
    /// False.
    number_health_check_enabled: bool,
    /// That of a number that is not probed.
    number_health: NumberHealth,
    /// What its callers hear before the answer: `ringback` or `passThrough`.
    #[schema(value_type = String, pattern = "^(ringback|passThrough)$", example = "ringback")]
    early_media: EarlyMedia,
}

/// A number's health.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NumberHealth {
    /// True.
    is_healthy: bool,
    /// `UNKNOWN`: it is not probed.
    #[schema(example = "UNKNOWN")]
    status: &'static str,
    /// Null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_checked_time: Option<Timestamp>,
}

impl From<VirtualNumber> for NumberEntry {
    fn from(number: VirtualNumber) -> Self {
        let uri = format!(
            "/api/v1/subaccounts/{}/numbers/{}",
            number.sub_account_id,
            number.msisdn.digits()
        );
        Self {
            msisdn: number.msisdn,
            date_created: number.created,
            date_updated: number.updated,
            country_code: number.country_code,
            operational_status: "Active",
            reference_id: number.reference_id,
            rental_price: 0.0,
            incoming_rate: 0.0,
            billing_unit: 1,
            billing_currency: "USD",
            uri,
            number_type: "VIRTUAL",
            number_health_check_enabled: false,
            number_health: NumberHealth {
                is_healthy: true,
                status: "UNKNOWN",
                last_checked_time: None,
            },
            early_media: number.early_media,
        }
    }
}

/// A sub-account's virtual numbers.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NumberList {
    /// How many.
    total_numbers: usize,
    /// The latest change of one of them; null if there is none.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_updated_at: Option<Timestamp>,
    /// Ordered by number.
    numbers: Vec<NumberEntry>,
}

/// One number, found.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FoundNumber {
    /// 0.
    status_code: i32,
    /// `ok`.
    #[schema(example = "ok")]
    status_message: &'static str,
    /// When it was looked up.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// The number.
    payload: NumberPayload,
}

/// What is told of one number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NumberPayload {
    /// The owner's own name for it.
    reference_id: String,
    /// E.164 with `+`.
    #[schema(value_type = String, example = "+6560000001")]
    msisdn: Msisdn,
    /// ISO 3166-1 alpha-2; absent for codes of no country.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "SG")]
    country_code: Option<String>,
}

/// The `{number}` of a path, with or without `+`; what is no number is nobody's number.
pub(crate) struct NumberInPath(Msisdn);

impl FromRequestParts<ApiState> for NumberInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, ApiError> {
        extract::path_parameter(parts, "number")
            .await
            .ok()
            .and_then(|text| Msisdn::parse(&text).ok())
            .map(Self)
            .ok_or(ApiError::NumberNotFound)
    }
}

/// A sub-account's virtual numbers.
#[utoipa::path(get, path = "/api/v1/subaccounts/{subAccountId}/numbers", tag = "numbers",
    operation_id = "listNumbers",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    responses((status = 200, description = "The numbers", body = NumberList)),
    security(("apiKey" = [])))]
async fn list(
    access: SubAccountAccess,
    State(state): State<ApiState>,
) -> Result<Json<NumberList>, ApiError> {
    let numbers = state.store().numbers(Some(&access.sub_account_id)).await?;
    Ok(Json(NumberList {
        total_numbers: numbers.len(),
        last_updated_at: numbers.iter().map(|number| number.updated).max(),
        numbers: numbers.into_iter().map(NumberEntry::from).collect(),
    }))
}

/// One virtual number.
#[utoipa::path(get, path = "/api/v1/subaccounts/{subAccountId}/numbers/{number}", tag = "numbers",
    operation_id = "findNumber",
    params(("subAccountId" = String, Path, description = "The sub-account"),
        ("number" = String, Path, description = "E.164, with or without `+`")),
    responses((status = 200, description = "The number", body = FoundNumber),
        (status = 404, description = "Not one of this sub-account's", body = FaultBody)),
    security(("apiKey" = [])))]
async fn one(
    access: SubAccountAccess,
    NumberInPath(msisdn): NumberInPath,
    State(state): State<ApiState>,
) -> Result<Json<FoundNumber>, ApiError> {
    let number = state
        .store()
        .number(&access.sub_account_id, &msisdn)
        .await?
        .ok_or(ApiError::NumberNotFound)?;
    Ok(Json(FoundNumber {
        status_code: 0,
        status_message: "ok",
        timestamp: state.now(),
        payload: NumberPayload {
            reference_id: number.reference_id,
            msisdn: number.msisdn,
            country_code: number.country_code,
        },
    }))
}
