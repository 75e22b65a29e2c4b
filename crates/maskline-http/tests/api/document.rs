//! The OpenAPI document: served, committed, complete.

use std::path::Path;

use crate::support::{DOCUMENT, start};

#[tokio::test]
async fn the_document_is_served() {
    let api = start().await;
    let reply = api
        .send("GET", "/openapi.json", None, None)
        .await
        .expect(200);
    assert_eq!(reply.text, maskline_http::openapi_json());
}

#[test]
fn the_committed_document_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let now = maskline_http::openapi_json();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "docs/openapi.json is not what the code serves: run \
         `UPDATE_OPENAPI=1 cargo test -p maskline-http committed_document` and commit it"
    );
}

#[test]
fn the_document_has_exactly_these_operations_each_described() {
    let mut found = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push(format!("{} {path}", method.to_uppercase()));
            assert!(operation["summary"].is_string(), "{path}");
            assert!(operation["operationId"].is_string(), "{path}");
        }
    }
    found.sort();
    let mut expected = vec![
        "DELETE /api/v1/subaccounts/{subAccountId}/webhooks/{type}",
        "GET /api/v1/admin/calls/{sessionId}/media",
        "GET /api/v1/admin/subaccounts",
        "GET /api/v1/admin/trunks",
        "GET /api/v1/sessions",
        "GET /api/v1/sessions/{sessionId}/trace",
        "GET /api/v1/sessions/{sessionId}/trace.pcap",
        "GET /api/v1/subaccounts/{subAccountId}/event-parameters",
        "GET /api/v1/subaccounts/{subAccountId}/events",
        "GET /api/v1/subaccounts/{subAccountId}/events/{eventId}/attempts",
        "GET /api/v1/subaccounts/{subAccountId}/numbers",
        "GET /api/v1/subaccounts/{subAccountId}/numbers/{number}",
        "GET /api/v1/subaccounts/{subAccountId}/webhooks",
        "GET /api/v1/subaccounts/{subAccountId}/webhooks/{type}/settings",
        "PUT /api/v1/subaccounts/{subAccountId}/webhooks/{type}/settings",
        "GET /api/v1/voice-ip-addresses",
        "GET /healthz",
        "GET /metrics",
        "GET /openapi.json",
        "PATCH /api/v1/admin/subaccounts/{subAccountId}/numbers/{number}",
        "PUT /api/v1/subaccounts/{subAccountId}/event-parameters",
        "POST /api/v1/admin/subaccounts",
        "POST /api/v1/admin/subaccounts/{subAccountId}/keys",
        "POST /api/v1/subaccounts/{subAccountId}/call-events",
        "POST /api/v1/admin/subaccounts/{subAccountId}/numbers",
        "POST /api/v1/subaccounts/{subAccountId}/replays",
        "POST /api/v1/subaccounts/{subAccountId}/webhooks",
        "POST /api/v1/subaccounts/{subAccountId}/webhooks/{type}/rotate-secret",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}
