//! What needs no key: health, metrics, the egress addresses and the OpenAPI document.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::openapi;
use crate::state::ApiState;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(voice_ip_addresses))
        .routes(routes!(health))
        .routes(routes!(metrics_text))
        .routes(routes!(document))
}

/// From where webhooks are sent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VoiceIpAddresses {
    /// Addresses or networks; empty if the operator has not named them.
    #[schema(example = json!(["203.0.113.5"]))]
    ip_addresses: Vec<String>,
    /// 0.
    status_code: i32,
    /// `ok`.
    #[schema(example = "ok")]
    status_message: &'static str,
}

/// Whether new calls are taken.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    /// `ok`, `draining`, `journal_down` or `store_unavailable`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// The addresses from which webhooks are sent, for receivers' allow-lists.
#[utoipa::path(get, path = "/api/v1/voice-ip-addresses", tag = "system",
    operation_id = "voiceIpAddresses",
    responses((status = 200, description = "The addresses", body = VoiceIpAddresses)))]
async fn voice_ip_addresses(State(state): State<ApiState>) -> Json<VoiceIpAddresses> {
    Json(VoiceIpAddresses {
        ip_addresses: state.config.egress_addresses.clone(),
        status_code: 0,
        status_message: "ok",
    })
}

/// Whether this node takes new calls: for load balancers and supervisors.
#[utoipa::path(get, path = "/healthz", tag = "system",
    operation_id = "health",
    responses((status = 200, description = "It does", body = Health),
        (status = 503, description = "It does not, and why", body = Health)))]
async fn health(State(state): State<ApiState>) -> (StatusCode, Json<Health>) {
    let status = if state.is_draining() {
        "draining"
    } else if state.is_journal_down() {
        "journal_down"
    } else if !state.is_store_up().await {
        "store_unavailable"
    } else {
        return (StatusCode::OK, Json(Health { status: "ok" }));
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status }))
}

/// All metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "system",
    operation_id = "metrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")))]
async fn metrics_text(State(state): State<ApiState>) -> impl IntoResponse {
    let text = (state.config.metrics_text)();
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

static DOCUMENT: LazyLock<String> = LazyLock::new(openapi::openapi_json);

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "system",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn document() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        DOCUMENT.as_str(),
    )
}
