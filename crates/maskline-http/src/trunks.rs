//! The trunks as they are now. Needs the admin key.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::AdminAccess;
use crate::error::ApiError;
use crate::state::ApiState;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_trunks))
}

/// One trunk.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrunkStatus {
    /// Its name in the configuration.
    #[schema(example = "carrier")]
    pub name: String,
    /// Legs that are up, in and out.
    pub calls: u32,
    /// Its registration with the carrier; absent when it needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub registration: Option<TrunkRegistrationStatus>,
    /// Where its calls may be sent; nowhere while its name is not resolved.
    pub targets: Vec<TrunkTarget>,
}

/// An address that a trunk's calls may be sent to.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrunkTarget {
    /// IP address and port.
    #[schema(example = "192.0.2.10:5060")]
    pub address: String,
    /// `udp`, `tcp` or `tls`.
    #[schema(example = "udp")]
    pub transport: String,
    /// Whether it answers OPTIONS, or is not asked. One that is down is tried after all others.
    pub up: bool,
}

/// A trunk's registration with its carrier.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrunkRegistrationStatus {
    /// Whether the carrier has a binding of ours that has not run out.
    pub registered: bool,
    /// Why the last attempt failed, and what to do; absent once one succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failure: Option<String>,
}

/// All trunks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrunkList {
    /// How many.
    count: usize,
    /// In the configuration's order.
    trunks: Vec<TrunkStatus>,
}

/// List the trunks.
///
/// What the configuration names, how many calls each carries, and whether it is registered.
#[utoipa::path(get, path = "/api/v1/admin/trunks", tag = "administration",
    operation_id = "listTrunks",
    responses((status = 200, description = "The trunks", body = TrunkList)),
    security(("adminKey" = [])))]
async fn list_trunks(
    _admin: AdminAccess,
    State(state): State<ApiState>,
) -> Result<Json<TrunkList>, ApiError> {
    let trunks = (state.config.trunk_status)();
    Ok(Json(TrunkList {
        count: trunks.len(),
        trunks,
    }))
}
