//! Health, metrics, egress addresses, and paths and methods that there are not.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::support::{ADMIN_KEY, PANIC_URL, start};

#[tokio::test]
async fn health_says_whether_new_calls_are_taken() {
    let api = start().await;
    let health = async || {
        let reply = api.send("GET", "/healthz", None, None).await;
        (reply.status.as_u16(), reply.json["status"].clone())
    };
    assert_eq!(health().await, (200, json!("ok")));
    api.journal_down.store(true, Ordering::Relaxed);
    assert_eq!(health().await, (503, json!("journal_down")));
    api.draining.store(true, Ordering::Relaxed);
    assert_eq!(health().await, (503, json!("draining")));
    // The API goes on while calls drain.
    api.get("/api/v1/admin/subaccounts", ADMIN_KEY)
        .await
        .expect(200);
    api.draining.store(false, Ordering::Relaxed);
    api.journal_down.store(false, Ordering::Relaxed);
    assert_eq!(health().await, (200, json!("ok")));
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let api = start().await;
    let reply = api.send("GET", "/metrics", None, None).await.expect(200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(reply.text.ends_with("maskline_test 1\n"));
}

#[tokio::test]
async fn the_egress_addresses_are_told_to_anybody() {
    let api = start().await;
    let path = "/api/v1/voice-ip-addresses";
    let reply = api.send("GET", path, None, None).await.expect(200);
    assert_eq!(
        reply.json,
        json!({"ipAddresses": ["203.0.113.5", "198.51.100.0/28"], "statusCode": 0, "statusMessage": "ok"})
    );
}

#[tokio::test]
async fn an_unknown_path_is_404_and_an_unknown_method_405_in_the_frame() {
    let api = start().await;
    for path in [
        "/",
        "/api",
        "/api/v1/subaccounts",
        "/healthz/",
        "/api/v2/x",
        "/%FF",
        "/metrics/..",
    ] {
        let reply = api.get(path, ADMIN_KEY).await;
        reply.expect_fault(404, "404", "The path does not exist");
    }
    for (method, path, allow) in [
        ("POST", "/healthz", "GET,HEAD"),
        (
            "PUT",
            "/api/v1/subaccounts/market/webhooks",
            "GET,HEAD,POST",
        ),
        ("GET", "/api/v1/subaccounts/market/webhooks/VCS", "DELETE"),
        ("BREW", "/metrics", "GET,HEAD"),
    ] {
        let reply = api.send(method, path, None, None).await;
        let message = "The path does not support this method";
        let reply = reply.expect_fault(405, "405", message);
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn no_answer_may_be_cached_or_sniffed() {
    let api = start().await;
    for path in ["/healthz", "/api/v1/admin/subaccounts", "/nowhere"] {
        let reply = api.get(path, ADMIN_KEY).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test]
async fn a_broken_store_is_500_without_internals_and_unhealthy() {
    let api = start().await;
    let key = api.sub_account("market").await;
    api.get("/api/v1/subaccounts/market/webhooks", &key)
        .await
        .expect(200);
    api.store.break_table("webhooks");
    let reply = api.get("/api/v1/subaccounts/market/webhooks", &key).await;
    reply.expect_fault(500, "500", "Internal error");
    let api = start().await;
    api.store.break_table("node");
    let reply = api.send("GET", "/healthz", None, None).await.expect(503);
    assert_eq!(reply.json, json!({"status": "store_unavailable"}));
}

#[tokio::test]
async fn a_panic_is_500_without_internals_and_the_api_goes_on() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let path = "/api/v1/subaccounts/market/webhooks";
    let body = json!({"type": "VCS", "url": PANIC_URL});
    let reply = api.post(path, &key, body).await;
    reply.expect_fault(500, "500", "Internal error");
    let reply = api.get(path, &key).await.expect(200);
    assert_eq!(reply.json["count"], 0);
}
