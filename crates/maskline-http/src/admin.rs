//! Administration: sub-accounts, their keys and their numbers. Needs the admin key.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use maskline_events::{EarlyMedia, Msisdn, Timestamp};
use maskline_store::{NewNumber, NewSubAccount, SubAccount, VirtualNumber};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::AdminAccess;
use crate::changes::carried_through;
use crate::countries;
use crate::error::ApiError;
use crate::extract::{self, JsonBody};
use crate::state::ApiState;

/// The shortest complete E.164 numbers have 7 digits (+683); what is shorter is an emergency or
/// short number behind a calling code.
const SHORTEST_NUMBER: usize = 7;

const LONGEST_REFERENCE: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_sub_accounts, create_sub_account))
        .routes(routes!(create_key))
        .routes(routes!(assign_number))
}

/// A sub-account to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateSubAccount {
    /// 3 to 50 letters, digits, `-`, `.`, `_` or `&`.
    #[schema(pattern = r"^[A-Za-z0-9\-._&]{3,50}$", example = "marketplace")]
    sub_account_id: String,
    /// Countries that it may call, ISO 3166-1 alpha-2. Absent or empty: those of its own numbers.
    #[schema(example = json!(["SG"]))]
    countries: Option<Vec<String>>,
}

/// A sub-account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubAccountEntry {
    /// Its id.
    sub_account_id: String,
    /// Countries that it may call; empty: those of its own numbers.
    countries: Vec<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    date_created: Timestamp,
}

impl From<SubAccount> for SubAccountEntry {
    fn from(sub_account: SubAccount) -> Self {
        Self {
            sub_account_id: sub_account.sub_account_id,
            countries: sub_account.countries,
            date_created: sub_account.created,
        }
    }
}

/// All sub-accounts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubAccountList {
    /// How many.
    count: usize,
    /// Ordered by id.
    sub_accounts: Vec<SubAccountEntry>,
}

/// A new API key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewKey {
    /// The key. Never shown again.
    api_key: String,
}

/// A number to be assigned.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AssignNumber {
    /// E.164, with or without `+`, 7 to 15 digits.
    #[schema(example = "+6560000001")]
    msisdn: String,
    /// The owner's own name for it, 1 to 100 characters.
    #[schema(example = "pool-1")]
    reference_id: String,
    /// The trunk by which its calls go out; absent: the first configured one.
    trunk: Option<String>,
    /// What its callers hear before the answer: `ringback` (their own carrier's ringing tone; absent
    /// or null mean the same), or `passThrough` (what the callee's side sends).
    #[schema(value_type = Option<String>, pattern = "^(ringback|passThrough)$", example = "ringback")]
    early_media: Option<EarlyMedia>,
}

/// A number that was assigned.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AssignedNumber {
    /// Whose it is.
    sub_account_id: String,
    /// E.164 with `+`.
    #[schema(value_type = String, example = "+6560000001")]
    msisdn: Msisdn,
    /// The owner's own name for it.
    reference_id: String,
    /// The trunk by which its calls go out; null: the first configured one.
    trunk: Option<String>,
    /// What its callers hear before the answer: `ringback` or `passThrough`.
    #[schema(value_type = String, pattern = "^(ringback|passThrough)$", example = "ringback")]
    early_media: EarlyMedia,
    /// ISO 3166-1 alpha-2; absent for codes of no country.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "SG")]
    country_code: Option<String>,
    /// When it was assigned.
    #[schema(value_type = String, format = DateTime)]
    date_created: Timestamp,
}

impl From<VirtualNumber> for AssignedNumber {
    fn from(number: VirtualNumber) -> Self {
        Self {
            sub_account_id: number.sub_account_id,
            msisdn: number.msisdn,
            reference_id: number.reference_id,
            trunk: number.trunk,
            early_media: number.early_media,
            country_code: number.country_code,
            date_created: number.created,
        }
    }
}

/// The sub-account in an administration path; whether it exists is the store's to say.
pub(crate) struct SubAccountInPath(pub(crate) String);

impl FromRequestParts<ApiState> for SubAccountInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, ApiError> {
        extract::path_parameter(parts, "subAccountId")
            .await
            .map(Self)
    }
}

/// All sub-accounts.
#[utoipa::path(get, path = "/api/v1/admin/subaccounts", tag = "administration",
    operation_id = "listSubAccounts",
    responses((status = 200, description = "The sub-accounts", body = SubAccountList)),
    security(("adminKey" = [])))]
async fn list_sub_accounts(
    _admin: AdminAccess,
    State(state): State<ApiState>,
) -> Result<Json<SubAccountList>, ApiError> {
    let all = state.store().sub_accounts().await?;
    Ok(Json(SubAccountList {
        count: all.len(),
        sub_accounts: all.into_iter().map(SubAccountEntry::from).collect(),
    }))
}

/// Makes a sub-account.
#[utoipa::path(post, path = "/api/v1/admin/subaccounts", tag = "administration",
    operation_id = "createSubAccount",
    request_body = CreateSubAccount,
    responses((status = 201, description = "It was made", body = SubAccountEntry),
        (status = 409, description = "There is one of that id", body = crate::error::ErrorBody)),
    security(("adminKey" = [])))]
async fn create_sub_account(
    _admin: AdminAccess,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<CreateSubAccount>,
) -> Result<(StatusCode, Json<SubAccountEntry>), ApiError> {
    check_sub_account_id(&body.sub_account_id)?;
    let new = NewSubAccount {
        sub_account_id: body.sub_account_id,
        countries: checked_countries(body.countries.unwrap_or_default())?,
    };
    let change = async move {
        let made = state.store().create_sub_account(new, state.now()).await?;
        state.config.on_change.numbers_changed().await;
        Ok((StatusCode::CREATED, Json(made.into())))
    };
    carried_through(change).await
}

/// Makes an API key for a sub-account. The request needs no body.
#[utoipa::path(post, path = "/api/v1/admin/subaccounts/{subAccountId}/keys", tag = "administration",
    operation_id = "createKey",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    responses((status = 201, description = "The key, this once", body = NewKey)),
    security(("adminKey" = [])))]
async fn create_key(
    _admin: AdminAccess,
    SubAccountInPath(sub_account_id): SubAccountInPath,
    State(state): State<ApiState>,
) -> Result<(StatusCode, Json<NewKey>), ApiError> {
    let api_key = state
        .store()
        .create_api_key(&sub_account_id, state.now())
        .await?;
    Ok((StatusCode::CREATED, Json(NewKey { api_key })))
}

/// Assigns a virtual number to a sub-account.
#[utoipa::path(post, path = "/api/v1/admin/subaccounts/{subAccountId}/numbers", tag = "administration",
    operation_id = "assignNumber",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    request_body = AssignNumber,
    responses((status = 201, description = "It was assigned", body = AssignedNumber),
        (status = 409, description = "The number is assigned already", body = crate::error::ErrorBody)),
    security(("adminKey" = [])))]
async fn assign_number(
    _admin: AdminAccess,
    SubAccountInPath(sub_account_id): SubAccountInPath,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<AssignNumber>,
) -> Result<(StatusCode, Json<AssignedNumber>), ApiError> {
    let number = checked_number(body, sub_account_id, &state)?;
    let change = async move {
        let assigned = state.store().assign_number(number, state.now()).await?;
        state.config.on_change.numbers_changed().await;
        Ok((StatusCode::CREATED, Json(assigned.into())))
    };
    carried_through(change).await
}

fn check_sub_account_id(id: &str) -> Result<(), ApiError> {
    let is_valid = (3..=50).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._&".contains(&byte));
    if is_valid {
        return Ok(());
    }
    Err(ApiError::field(
        "subAccountId",
        "must be 3 to 50 letters, digits, '-', '.', '_' or '&'",
    ))
}

/// Sorted, each once.
fn checked_countries(mut given: Vec<String>) -> Result<Vec<String>, ApiError> {
    if let Some(at) = given
        .iter()
        .position(|country| !countries::is_assigned(country))
    {
        return Err(ApiError::field(
            &format!("countries[{at}]"),
            "is no assigned ISO 3166-1 alpha-2 code in upper case",
        ));
    }
    given.sort_unstable();
    given.dedup();
    Ok(given)
}

fn checked_number(
    body: AssignNumber,
    sub_account_id: String,
    state: &ApiState,
) -> Result<NewNumber, ApiError> {
    let msisdn = Msisdn::parse(&body.msisdn)
        .map_err(|error| ApiError::field("msisdn", error.to_string()))?;
    if msisdn.digits().len() < SHORTEST_NUMBER {
        return Err(ApiError::field(
            "msisdn",
            "is an emergency or short number: a virtual number has at least 7 digits",
        ));
    }
    check_reference(&body.reference_id)?;
    if let Some(trunk) = &body.trunk {
        check_trunk(trunk, state)?;
    }
    let country_code = (state.config.country_of)(&msisdn);
    Ok(NewNumber {
        msisdn,
        sub_account_id,
        reference_id: body.reference_id,
        trunk: body.trunk,
        country_code,
        early_media: body.early_media.unwrap_or_default(),
    })
}

pub(crate) fn check_reference(reference_id: &str) -> Result<(), ApiError> {
    let characters = reference_id.chars().count();
    if !(1..=LONGEST_REFERENCE).contains(&characters) {
        return Err(ApiError::field(
            "referenceId",
            format!("must have 1 to {LONGEST_REFERENCE} characters, has {characters}"),
        ));
    }
    if reference_id.chars().any(char::is_control) {
        return Err(ApiError::field(
            "referenceId",
            "must not hold control characters",
        ));
    }
    Ok(())
}

pub(crate) fn check_trunk(trunk: &str, state: &ApiState) -> Result<(), ApiError> {
    let configured = &state.config.trunks;
    if configured.iter().any(|it| it == trunk) {
        return Ok(());
    }
    Err(ApiError::field(
        "trunk",
        format!(
            "is not configured; configured are: {}",
            configured.join(", ")
        ),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_account_id_has_the_contracts_characters_and_length() {
        for id in ["abc", "A-b.c_d&9", &"x".repeat(50)] {
            assert!(check_sub_account_id(id).is_ok(), "{id}");
        }
        for id in ["", "ab", "a b", "a/b", "abc\n", "äbc", &"x".repeat(51)] {
            assert!(check_sub_account_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn countries_are_assigned_codes_sorted_and_each_once() {
        let given = |codes: &[&str]| codes.iter().map(|&code| code.to_owned()).collect();
        assert_eq!(
            checked_countries(given(&["SG", "MY", "SG"])).unwrap(),
            ["MY", "SG"]
        );
        for bad in ["sg", "SGP", "XX", "ZZ", "UK", "", "EU"] {
            let fault = checked_countries(given(&["SG", bad])).unwrap_err();
            assert!(
                matches!(&fault, ApiError::Field { field, .. } if field == "countries[1]"),
                "{bad}: {fault:?}"
            );
        }
    }
}
