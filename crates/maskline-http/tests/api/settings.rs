//! A webhook's settings.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use maskline_events::signing::PublicKey;
use maskline_events::{Timestamp, WebhookType};
use maskline_store::{
    EndpointConfig, EndpointSecrets, EventRow, JournalBatch, JournalEntry, NewWebhook, SwitchedOff,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ADMIN_KEY, Api, START_MS, Setup, check_tls, start, start_with};

const WEBHOOKS: &str = "/api/v1/subaccounts/market/webhooks";
const PATH: &str = "/api/v1/subaccounts/market/webhooks/VCS/settings";
const OF_VCA: &str = "/api/v1/subaccounts/market/webhooks/VCA/settings";

/// As [`all_set`] shows it.
fn all() -> Value {
    let mut all = all_set();
    all["headers"]["x-tenant"] = json!("blue");
    all
}

/// What the sender would use.
async fn used(api: &Api, kind: WebhookType) -> EndpointConfig {
    let now = Timestamp::from_unix_ms(START_MS);
    let endpoint = api.store.shared().endpoint("market", kind, now).await;
    endpoint.unwrap().unwrap().config
}

async fn with_webhooks() -> (Api, String) {
    with_webhooks_of(start().await).await
}

async fn with_webhooks_of(api: Api) -> (Api, String) {
    let key = api.sub_account("market").await;
    for kind in ["VCS", "VCA"] {
        let body = json!({"type": kind, "url": "https://example.com"});
        api.post(WEBHOOKS, &key, body).await.expect(200);
    }
    api.changes.take();
    (api, key)
}

fn unset() -> Value {
    json!({"maxInFlight": null, "ratePerSecond": null, "retryDelaysSeconds": null,
        "orderDeadlineSeconds": null, "attemptTimeoutMs": null, "disableAfterSeconds": null,
        "signatures": null, "redaction": null, "headers": null, "tls": null})
}

fn all_set() -> Value {
    json!({"maxInFlight": 8, "ratePerSecond": 0.5, "retryDelaysSeconds": [1, 60, 86_400],
        "orderDeadlineSeconds": 5, "attemptTimeoutMs": 2_500, "disableAfterSeconds": 0,
        "signatures": ["v1", "v1a"], "redaction": "token", "headers": {"x-tenant": null}, "tls": null})
}

#[tokio::test]
async fn what_is_put_is_what_is_shown_and_what_is_left_out_is_unset() {
    let (api, key) = with_webhooks().await;
    let mut begin = api.get(PATH, &key).await.expect(200).json;
    let public_key = begin["publicKey"].take();
    let public_key = public_key.as_str().unwrap().to_owned();
    assert!(public_key.parse::<PublicKey>().is_ok(), "{public_key}");
    begin.as_object_mut().unwrap().remove("publicKey");
    assert_eq!(
        begin,
        json!({"subAccountId": "market", "type": "VCS", "enabled": true, "disabledReason": null,
            "failingSince": null, "settings": unset(), "statusCode": 0, "statusMessage": "ok"})
    );
    let put = api.put(PATH, &key, all()).await.expect(200);
    assert_eq!(put.json["settings"], all_set());
    let told = api.changes.take();
    assert!(
        told.len() == 1 && told[0].starts_with("VCS of market, Requests: {\"maxInFlight\":8,"),
        "{told:?}"
    );
    // What is shown, put back, changes nothing, and so does what was put.
    let shown = api.get(PATH, &key).await.expect(200).json["settings"].clone();
    for same in [shown, all()] {
        let again = api.put(PATH, &key, same).await.expect(200);
        assert_eq!(again.json, put.json);
    }
    assert!(api.changes.take().is_empty());
    let one = json!({"attemptTimeoutMs": 100});
    let put = api.put(PATH, ADMIN_KEY, one).await.expect(200);
    let mut expected = unset();
    expected["attemptTimeoutMs"] = json!(100);
    assert_eq!(put.json["settings"], expected);
    for signatures in [json!(["v1"]), json!(["v1a"])] {
        let one = json!({"signatures": signatures});
        let put = api.put(PATH, &key, one).await.expect(200);
        assert_eq!(put.json["settings"]["signatures"], signatures);
        assert_eq!(put.json["publicKey"], public_key);
    }
    let put = api.put(PATH, &key, json!({})).await.expect(200);
    assert_eq!(put.json["settings"], unset());
    // Of a VCA webhook the signatures can be set.
    let both = json!({"signatures": ["v1a", "v1"]});
    let put = api.put(OF_VCA, &key, both).await.expect(200);
    assert_eq!(put.json["settings"]["signatures"], json!(["v1", "v1a"]));
    assert_ne!(put.json["publicKey"], public_key);
}

#[tokio::test]
async fn a_new_secret_has_another_public_key() {
    let (api, key) = with_webhooks().await;
    let before = api.get(PATH, &key).await.expect(200).json;
    let rotate = format!("{WEBHOOKS}/VCS/rotate-secret");
    api.post(&rotate, &key, json!({})).await.expect(200);
    let after = api.get(PATH, &key).await.expect(200).json;
    assert_ne!(after["publicKey"], before["publicKey"]);
}

#[tokio::test]
async fn events_are_shown_as_they_would_be_sent() {
    let (api, key) = with_webhooks().await;
    let body = "{\"payload\":{\"source\":\"+6591234567\",\"sequence\":1}}";
    let id = Uuid::from_u128(1);
    let event = EventRow {
        event_id: id,
        session_id: id,
        sub_account_id: "market".to_owned(),
        ordinal: 1,
        webhook_type: WebhookType::Vcs,
        at: Timestamp::from_unix_ms(START_MS),
        body: body.to_owned(),
    };
    let broken = EventRow {
        event_id: Uuid::from_u128(2),
        ordinal: 2,
        body: "{\"source\":\"+6591234567\"".to_owned(),
        ..event.clone()
    };
    let summary = EventRow {
        event_id: Uuid::from_u128(3),
        ordinal: 3,
        webhook_type: WebhookType::Vss,
        ..event.clone()
    };
    let entry = JournalEntry {
        session_id: id,
        sub_account_id: "market".to_owned(),
        snapshot: None,
        events: vec![event, broken, summary],
    };
    let entries = vec![Arc::new(entry)];
    let store = api.store.shared();
    let commit = store.commit(JournalBatch { entries });
    commit.await.unwrap();
    let list = "/api/v1/subaccounts/market/events";
    for (redaction, shown) in [
        ("full", body.to_owned()),
        ("masked", body.replace("+6591234567", "+65••••4567")),
    ] {
        let settings = json!({ "redaction": redaction });
        api.put(PATH, &key, settings).await.expect(200);
        let page = api.get(list, &key).await.expect(200).json;
        assert_eq!(page["events"][0]["body"], shown, "{redaction}");
        // Nothing is known to be hidden from the webhook of summaries, which there is none of.
        let last = page["events"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&last["type"], &last["body"]),
            (&json!("VSS"), &json!(body))
        );
        let unreadable = page["unreadable"].as_u64().unwrap_or(0);
        assert_eq!(unreadable, u64::from(redaction == "masked"));
    }
}

#[tokio::test]
async fn setting_a_webhook_anew_keeps_its_settings_and_deleting_it_forgets_them() {
    let (api, key) = with_webhooks().await;
    api.put(PATH, &key, all()).await.expect(200);
    let body = json!({"type": "VCS", "url": "https://example.com:443/new", "enabled": false});
    api.post(WEBHOOKS, &key, body.clone()).await.expect(200);
    let kept = api.get(PATH, &key).await.expect(200);
    assert_eq!(kept.json["settings"], all_set());
    assert_eq!(kept.json["enabled"], false);
    let enabled = json!({"type": "VCS", "url": "https://EXAMPLE.com"});
    api.post(WEBHOOKS, &key, enabled).await.expect(200);
    let headers = used(&api, WebhookType::Vcs).await.secrets.headers;
    assert_eq!(headers["x-tenant"], "blue");
    api.delete(&format!("{WEBHOOKS}/VCS"), &key)
        .await
        .expect(200);
    api.get(PATH, &key).await.expect(404);
    api.put(PATH, &key, json!({})).await.expect(404);
    api.post(WEBHOOKS, &key, body).await.expect(200);
    let anew = api.get(PATH, &key).await.expect(200);
    assert_eq!(anew.json["settings"], unset());
}

#[tokio::test]
async fn another_receiver_gets_no_header_value_and_no_key_and_the_settings_show_what_is_left() {
    let (api, key) = with_webhooks().await;
    let mut all = all();
    all["tls"] = json!({"ca": "CA", "clientCertificate": "CERT", "clientKey": "KEY"});
    let mut left = all_set();
    left["headers"] = Value::Null;
    left["tls"] = json!({"ca": "CA", "clientCertificate": null, "clientKey": null});
    // Without its key, and where there is no TLS: nothing is sent there.
    let mut in_the_clear = left.clone();
    in_the_clear["tls"]["clientCertificate"] = json!("CERT");
    for (before, after) in [
        ("https://example.com", "http://example.com"),
        ("https://example.com", "https://other.example"),
        ("https://example.com", "https://example.com:8443"),
    ] {
        let set = |url: &str| {
            let (api, key) = (&api, &key);
            let webhook = NewWebhook {
                sub_account_id: "market".to_owned(),
                webhook_type: WebhookType::Vcs,
                url: url.to_owned(),
                http_auth_header: None,
                enabled: true,
            };
            async move {
                let now = Timestamp::from_unix_ms(START_MS);
                let set = api.store.shared().set_webhook(webhook, now).await;
                assert!(set.unwrap().is_none());
                api.get(PATH, key).await.expect(200).json["settings"].clone()
            }
        };
        set(before).await;
        api.put(PATH, &key, all.clone()).await.expect(200);
        let is_https = after.starts_with("https:");
        let expected = if is_https { &left } else { &in_the_clear };
        assert_eq!(set(after).await, *expected, "{after}");
        let moved = used(&api, WebhookType::Vcs).await;
        assert!(moved.secrets == EndpointSecrets::default(), "{after}");
        // Going back brings nothing back, nor does null.
        assert_eq!(set(before).await, left);
        let body = json!({"headers": {"x-tenant": null}});
        let refused = api.put(PATH, &key, body).await.expect(422);
        assert_eq!(
            refused.json["statusMessage"],
            "headers.x-tenant: has no value that could be kept: give one"
        );
        api.put(PATH, &key, left.clone()).await.expect(200);
    }
    // A certificate alone leaves no TLS behind, and what other webhooks have stays.
    api.put(
        PATH,
        &key,
        json!({"tls": {"clientCertificate": "CERT", "clientKey": "KEY"}}),
    )
    .await
    .expect(200);
    let mine = json!({"headers": {"x-tenant": "blue"}});
    api.put(OF_VCA, &key, mine).await.expect(200);
    let body = json!({"type": "VCS", "url": "https://other.example"});
    api.post(WEBHOOKS, &key, body).await.expect(200);
    assert!(used(&api, WebhookType::Vcs).await == EndpointConfig::default());
    let other = used(&api, WebhookType::Vca).await.secrets.headers;
    assert_eq!(other["x-tenant"], "blue");
}

#[tokio::test]
async fn why_a_webhook_was_switched_off_is_shown_until_it_is_set_again() {
    let (api, key) = with_webhooks().await;
    let store = api.store.shared();
    let since = Timestamp::from_unix_ms(START_MS);
    let noting = api.store.deliveries();
    let noted = noting.note_failing("market", WebhookType::Vcs, Some(since));
    noted.await.unwrap();
    let shown = api.get(PATH, &key).await.expect(200).json;
    assert_eq!(shown["failingSince"], "2026-01-06T10:17:19.375Z");
    let endpoint = store.endpoint("market", WebhookType::Vcs, since).await;
    let revision = endpoint.unwrap().unwrap().revision;
    let disabled = store.disable_webhook("market", WebhookType::Vcs, revision);
    assert_eq!(disabled.await.unwrap(), SwitchedOff::Now);
    let shown = api.get(PATH, &key).await.expect(200).json;
    assert_eq!(shown["enabled"], false);
    assert_eq!(shown["disabledReason"], "the receiver answered 410");
    assert_eq!(shown["failingSince"], Value::Null);
    // Settings can be changed meanwhile, and enable nothing.
    let put = api.put(PATH, &key, all()).await.expect(200).json;
    assert_eq!(
        (&put["enabled"], &put["settings"]),
        (&json!(false), &all_set())
    );
    let body = json!({"type": "VCS", "url": "https://example.com"});
    api.post(WEBHOOKS, &key, body).await.expect(200);
    let shown = api.get(PATH, &key).await.expect(200).json;
    assert_eq!(shown["enabled"], true);
    assert_eq!(shown["disabledReason"], Value::Null);
}

#[tokio::test]
async fn a_setting_that_can_not_be_is_named_and_nothing_is_changed() {
    let (api, key) = with_webhooks().await;
    api.put(PATH, &key, all()).await.expect(200);
    api.changes.take();
    let many: Vec<u32> = vec![1; 21];
    for (path, body, message) in [
        (
            PATH,
            json!({"maxInFlight": 0}),
            "maxInFlight: has to be 1 to 256",
        ),
        (
            PATH,
            json!({"maxInFlight": 257}),
            "maxInFlight: has to be 1 to 256",
        ),
        (
            PATH,
            json!({"maxInFlight": "8"}),
            "maxInFlight: invalid type: string \"8\"",
        ),
        (
            PATH,
            json!({"ratePerSecond": 0}),
            "ratePerSecond: has to be 0.1 to 10000",
        ),
        (
            PATH,
            json!({"ratePerSecond": 10_001}),
            "ratePerSecond: has to be 0.1 to 10000",
        ),
        (
            PATH,
            json!({"retryDelaysSeconds": many}),
            "retryDelaysSeconds: has to hold 20",
        ),
        (
            PATH,
            json!({"retryDelaysSeconds": [1, 0]}),
            "retryDelaysSeconds[1]: has to be 1 to 86400",
        ),
        (
            PATH,
            json!({"orderDeadlineSeconds": 86_401}),
            "orderDeadlineSeconds: has to be 1 to 86400",
        ),
        (
            PATH,
            json!({"attemptTimeoutMs": 30_001}),
            "attemptTimeoutMs: has to be 100 to 30000",
        ),
        (
            PATH,
            json!({"attemptTimeoutMs": -1}),
            "attemptTimeoutMs: invalid value: integer `-1`",
        ),
        (
            PATH,
            json!({"disableAfterSeconds": 2_592_001}),
            "disableAfterSeconds: has to be 0 to 2592000",
        ),
        (
            PATH,
            json!({"maxInFlights": 8}),
            "maxInFlights: unknown field",
        ),
        (PATH, json!({"enabled": true}), "enabled: unknown field"),
        (
            PATH,
            json!({"signatures": []}),
            "signatures: has to be `v1`",
        ),
        (
            PATH,
            json!({"signatures": ["v1", "v1"]}),
            "signatures: has to be `v1`",
        ),
        (
            PATH,
            json!({"signatures": ["v2"]}),
            "signatures[0]: unknown variant `v2`",
        ),
        (
            PATH,
            json!({"redaction": "some"}),
            "redaction: unknown variant `some`",
        ),
        (
            PATH,
            json!({"publicKey": "whpk_AAAA"}),
            "publicKey: unknown field",
        ),
        (
            OF_VCA,
            json!({"redaction": "masked"}),
            "redaction: is for webhooks",
        ),
        (PATH, json!([]), "Invalid JSON request body"),
        (
            OF_VCA,
            json!({"maxInFlight": 8}),
            "maxInFlight: is for webhooks that are delivered",
        ),
        (
            OF_VCA,
            json!({"ratePerSecond": 8}),
            "ratePerSecond: is for webhooks",
        ),
        (
            OF_VCA,
            json!({"retryDelaysSeconds": []}),
            "retryDelaysSeconds: is for webhooks",
        ),
        (
            OF_VCA,
            json!({"orderDeadlineSeconds": 8}),
            "orderDeadlineSeconds: is for webhooks",
        ),
        (
            OF_VCA,
            json!({"attemptTimeoutMs": 800}),
            "attemptTimeoutMs: is for webhooks",
        ),
        (
            OF_VCA,
            json!({"disableAfterSeconds": 8}),
            "disableAfterSeconds: is for webhooks",
        ),
    ] {
        let reply = api.put(path, &key, body).await.expect(422);
        let said = reply.json["statusMessage"].as_str().unwrap();
        assert!(said.starts_with(message), "{said}");
    }
    assert!(api.changes.take().is_empty());
    let shown = api.get(PATH, &key).await.expect(200);
    assert_eq!(shown.json["settings"], all_set());
    api.put(OF_VCA, &key, json!({})).await.expect(200);
}

#[tokio::test]
async fn only_the_sub_account_and_the_admin_see_and_change_settings() {
    let (api, key) = with_webhooks().await;
    let other = api.sub_account("other").await;
    for (method, body) in [("GET", None), ("PUT", Some(b"{}".to_vec()))] {
        api.send(method, PATH, None, body.clone()).await.expect(401);
        api.send(method, PATH, Some(&other), body.clone())
            .await
            .expect(403);
        let missing = PATH.replace("VCS", "VSS");
        api.send(method, &missing, Some(&key), body.clone())
            .await
            .expect(404);
        let unknown = PATH.replace("VCS", "XYZ");
        api.send(method, &unknown, Some(&key), body)
            .await
            .expect(404);
    }
}

#[tokio::test]
async fn headers_are_shown_by_name_and_keep_a_value_that_is_put_back_as_null() {
    let (api, key) = with_webhooks().await;
    for (path, kind) in [(PATH, WebhookType::Vcs), (OF_VCA, WebhookType::Vca)] {
        let body = json!({"headers": {"X-Tenant": "blue", "x-pass": "open sesame"}});
        let put = api.put(path, &key, body).await.expect(200);
        let names = json!({"x-tenant": null, "x-pass": null});
        assert_eq!(put.json["settings"]["headers"], names);
        let shown = api.get(path, &key).await.expect(200);
        assert_eq!(shown.json["settings"]["headers"], names);
        for text in [&put.text, &shown.text] {
            assert!(!text.contains("blue") && !text.contains("sesame"), "{text}");
        }
        let mut back = shown.json["settings"].clone();
        back["headers"]["x-more"] = json!("3");
        api.put(path, &key, back).await.expect(200);
        let headers = used(&api, kind).await.secrets.headers;
        let headers: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let all = [
            ("x-more", "3"),
            ("x-pass", "open sesame"),
            ("x-tenant", "blue"),
        ];
        assert_eq!(headers, all);
        // What is left out is forgotten, for good.
        let body = json!({"headers": {"x-more": null}});
        api.put(path, &key, body).await.expect(200);
        assert_eq!(used(&api, kind).await.secrets.headers.len(), 1);
        let body = json!({"headers": {"x-pass": null}});
        let refused = api.put(path, &key, body).await.expect(422);
        let said = refused.json["statusMessage"].as_str().unwrap();
        assert_eq!(
            said,
            "headers.x-pass: has no value that could be kept: give one"
        );
    }
    assert!(api.changes.take().iter().all(|told| !told.contains("blue")));
    api.put(PATH, &key, json!({})).await.expect(200);
    assert!(used(&api, WebhookType::Vcs).await == EndpointConfig::default());
}

#[tokio::test]
async fn headers_that_are_not_the_sub_account_s_to_set_are_refused() {
    let (api, key) = with_webhooks().await;
    let fault = async |headers: Value| {
        let body = json!({"headers": headers});
        let reply = api.put(PATH, &key, body).await.expect(422);
        reply.json["statusMessage"].as_str().unwrap().to_owned()
    };
    for name in [
        "Connection",
        "keep-alive",
        "Proxy-Authorization",
        "proxy-connection",
        "TE",
        "Trailer",
        "transfer-encoding",
        "upgrade",
        "Host",
        "Content-Length",
        "content-type",
        "content-encoding",
        "Authorization",
        "webhook-id",
        "Webhook-Anything",
        "user-agent",
        "traceparent",
        "tracestate",
        "expect",
    ] {
        let said = fault(json!({name: "x"})).await;
        let begins = format!("headers.{name}: can't be set");
        assert!(said.starts_with(&begins), "{said}");
    }
    for (headers, said) in [
        (json!({"a b": "x"}), "headers.a b: is no header name"),
        (json!({"": "x"}), "headers.: is no header name"),
        (
            json!({"x-a": "1", "X-A": "2"}),
            "headers.x-a: is there twice",
        ),
        (
            json!({"x-a": ""}),
            "headers.x-a: is empty, or begins or ends with a space",
        ),
        (
            json!({"x-a": " secret"}),
            "headers.x-a: is empty, or begins or ends with a space",
        ),
        (
            json!({"x-a": "sec\nret"}),
            "headers.x-a: is no header value: visible ASCII, space and tab only",
        ),
        (
            json!({"x-a": "sécret"}),
            "headers.x-a: is no header value: visible ASCII, space and tab only",
        ),
        (
            json!({"x-a": 4711}),
            "headers.x-a: has to be a string or null",
        ),
        (
            json!({"x-a": ["secret"]}),
            "headers.x-a: has to be a string or null",
        ),
        (
            json!("secret"),
            "headers: has to be an object of header names and values",
        ),
        (
            json!(["secret"]),
            "headers: has to be an object of header names and values",
        ),
        (
            json!({"x-a": "y".repeat(4_094)}),
            "headers: holds more than 4096 bytes of names and values",
        ),
    ] {
        assert_eq!(fault(headers).await, said);
    }
    let many: serde_json::Map<_, _> = (0..17).map(|it| (format!("x-{it}"), json!("y"))).collect();
    assert_eq!(
        fault(json!(many)).await,
        "headers: has to hold 16 headers at most"
    );
    // As much as there may be.
    let most = json!({"headers": {"x-a": "y".repeat(4_093)}});
    api.put(PATH, &key, most).await.expect(200);
}

#[tokio::test]
async fn tls_shows_certificates_and_no_key_and_keeps_a_key_that_is_put_back_as_null() {
    let (api, key) = with_webhooks().await;
    for (path, kind) in [(PATH, WebhookType::Vcs), (OF_VCA, WebhookType::Vca)] {
        let body = json!({"tls": {"ca": "CA", "clientCertificate": "CERT", "clientKey": "KEY"}});
        let put = api.put(path, &key, body).await.expect(200);
        let shown = json!({"ca": "CA", "clientCertificate": "CERT", "clientKey": null});
        assert_eq!(put.json["settings"]["tls"], shown);
        assert!(!put.text.contains("KEY"), "{}", put.text);
        let back = put.json["settings"].clone();
        api.put(path, &key, back).await.expect(200);
        let kept = used(&api, kind).await;
        assert_eq!(kept.secrets.client_key.as_deref(), Some("KEY"));
        assert_eq!(
            kept.settings.tls.unwrap().client_certificate.as_deref(),
            Some("CERT")
        );
        // Without its certificate a key is not kept.
        let body = json!({"tls": {"ca": "CA"}});
        api.put(path, &key, body).await.expect(200);
        assert_eq!(used(&api, kind).await.secrets.client_key, None);
        let body = json!({"tls": {"clientCertificate": "CERT"}});
        let refused = api.put(path, &key, body).await.expect(422);
        let said = refused.json["statusMessage"].as_str().unwrap();
        assert_eq!(said, "tls.clientKey: does not fit here");
        // Nothing in it is as good as none.
        let put = api.put(path, &key, json!({"tls": {}})).await.expect(200);
        assert_eq!(put.json["settings"]["tls"], Value::Null);
    }
    for (tls, fault) in [
        (
            json!("-----BEGIN"),
            "tls: has to be an object of ca, clientCertificate and clientKey",
        ),
        (
            json!(["-----BEGIN"]),
            "tls: has to be an object of ca, clientCertificate and clientKey",
        ),
        (
            json!({"key": "-----BEGIN"}),
            "tls: has to be an object of ca, clientCertificate and clientKey",
        ),
        (
            json!({"ca": ["-----BEGIN"]}),
            "tls.ca: has to be a string or null",
        ),
        (
            json!({"clientKey": "-----BEGIN"}),
            "tls.clientKey: does not fit here",
        ),
    ] {
        let reply = api.put(PATH, &key, json!({ "tls": tls })).await.expect(422);
        assert_eq!(reply.json["statusMessage"], fault);
    }
}

#[tokio::test]
async fn tls_is_for_a_webhook_whose_url_is_https() {
    let (api, key) = with_webhooks().await;
    let plain = NewWebhook {
        sub_account_id: "market".to_owned(),
        webhook_type: WebhookType::Vcs,
        url: "http://example.com".to_owned(),
        http_auth_header: None,
        enabled: true,
    };
    let now = Timestamp::from_unix_ms(START_MS);
    api.store.shared().set_webhook(plain, now).await.unwrap();
    let body = json!({"tls": {"ca": "CA"}});
    let reply = api.put(PATH, &key, body).await.expect(422);
    let said = reply.json["statusMessage"].as_str().unwrap();
    assert!(
        said.starts_with("tls: is for a webhook whose url is https"),
        "{said}"
    );
}

#[tokio::test]
async fn only_other_tls_headers_or_signatures_are_told_as_other_requests() {
    let (api, key) = with_webhooks().await;
    let begin = json!({"headers": {"x-a": "1"}, "tls": {"ca": "CA"}, "maxInFlight": 3});
    api.put(PATH, &key, begin.clone()).await.expect(200);
    for (field, value, difference) in [
        ("maxInFlight", json!(4), "Handling"),
        ("ratePerSecond", json!(7.5), "Handling"),
        ("retryDelaysSeconds", json!([5]), "Handling"),
        ("orderDeadlineSeconds", json!(50), "Handling"),
        ("attemptTimeoutMs", json!(5_000), "Handling"),
        ("disableAfterSeconds", json!(50), "Handling"),
        ("redaction", json!("masked"), "Handling"),
        // That is what there is without.
        ("signatures", json!(["v1"]), "Handling"),
        ("signatures", json!(["v1", "v1a"]), "Requests"),
        ("headers", json!({"x-a": "2"}), "Requests"),
        ("headers", json!(null), "Requests"),
        ("tls", json!({"ca": "CB"}), "Requests"),
        ("tls", json!(null), "Requests"),
    ] {
        api.put(PATH, &key, begin.clone()).await.expect(200);
        api.changes.take();
        let mut body = begin.clone();
        body[field] = value;
        api.put(PATH, &key, body).await.expect(200);
        let told = api.changes.take();
        let begins = format!("VCS of market, {difference}: ");
        assert!(
            told.len() == 1 && told[0].starts_with(&begins),
            "{field}: {told:?}"
        );
    }
}

#[tokio::test]
async fn settings_that_change_while_a_certificate_is_checked_stay_and_the_store_waits_for_no_check()
{
    let (checking, checked) = mpsc::sync_channel(1);
    let (go_on, may_go_on) = mpsc::sync_channel::<()>(1);
    let may_go_on = Mutex::new(may_go_on);
    let setup = Setup {
        check_webhook_tls: Arc::new(move |tls, key| {
            if tls.ca.as_deref() == Some("SLOW") {
                checking.send(()).unwrap();
                may_go_on.lock().unwrap().recv().unwrap();
            }
            check_tls(tls, key)
        }),
        ..Setup::default()
    };
    let (api, key) = with_webhooks_of(start_with(setup).await).await;
    let api = Arc::new(api);
    let slow = |more: Value| {
        let (api, key) = (Arc::clone(&api), key.clone());
        tokio::spawn(async move {
            let mut body = json!({"tls": {"ca": "SLOW"}});
            body["maxInFlight"] = more;
            api.put(PATH, &key, body).await
        })
    };
    let checked = Arc::new(Mutex::new(checked));
    let is_checking = || {
        let checked = Arc::clone(&checked);
        tokio::task::spawn_blocking(move || checked.lock().unwrap().recv().unwrap())
    };
    let message = "The webhook or its settings changed meanwhile; try again";
    // Meanwhile the store takes other changes: of the settings, or of the webhook's URL.
    for change in 0..2 {
        let waiting = slow(json!(9));
        is_checking().await.unwrap();
        if change == 0 {
            let other = json!({"maxInFlight": 5});
            api.put(PATH, &key, other).await.expect(200);
        } else {
            let hook = json!({"type": "VCS", "url": "https://example.com/other"});
            api.post(WEBHOOKS, &key, hook).await.expect(200);
        }
        go_on.send(()).unwrap();
        let refused = waiting.await.unwrap();
        refused.expect_fault(409, "409", message);
        let shown = api.get(PATH, &key).await.expect(200).json;
        assert_eq!(shown["settings"]["maxInFlight"], 5);
        assert_eq!(shown["settings"]["tls"], Value::Null);
    }
    // With nothing in between it is taken.
    let waiting = slow(json!(9));
    is_checking().await.unwrap();
    go_on.send(()).unwrap();
    let taken = waiting.await.unwrap().expect(200).json;
    assert_eq!(taken["settings"]["tls"]["ca"], "SLOW");
}

#[tokio::test]
async fn a_move_tells_what_it_forgets_and_none_leads_from_tls_into_the_clear() {
    let (api, key) = with_webhooks().await;
    let entry = |reply: &Value, kind: &str| {
        let all = reply["webhooks"].as_array().unwrap();
        all.iter().find(|it| it["type"] == kind).unwrap().clone()
    };
    let hook = |url: &str| json!({"type": "VCS", "url": url});
    let with_all = json!({"headers": {"x-a": "1"},
        "tls": {"ca": "CA", "clientCertificate": "CERT", "clientKey": "KEY"}});
    api.put(PATH, &key, with_all).await.expect(200);
    for (url, forgotten) in [
        ("https://example.com/path", Value::Null),
        (
            "https://other.example",
            json!(["headers", "tls.clientCertificate"]),
        ),
        ("https://third.example", Value::Null),
    ] {
        let set = api.post(WEBHOOKS, &key, hook(url)).await.expect(200).json;
        assert_eq!(entry(&set, "VCS")["forgottenSettings"], forgotten, "{url}");
        assert_eq!(entry(&set, "VCA")["forgottenSettings"], Value::Null);
    }
    let message = "url: is not https, and the webhook's settings have TLS: PUT settings without \
                   `tls` first";
    for tls in [
        json!({"ca": "CA"}),
        json!({"clientCertificate": "CERT", "clientKey": "KEY"}),
    ] {
        api.put(PATH, &key, json!({ "tls": tls })).await.expect(200);
        let plain = hook("http://plain.example");
        let refused = api.post(WEBHOOKS, &key, plain).await;
        refused.expect_fault(422, "1001", message);
        let shown = api.get(WEBHOOKS, &key).await.expect(200).json;
        assert_eq!(entry(&shown, "VCS")["url"], "https://third.example");
    }
    let without = json!({"headers": {"x-a": "1"}});
    api.put(PATH, &key, without).await.expect(200);
    let plain = hook("http://plain.example");
    let set = api.post(WEBHOOKS, &key, plain).await.expect(200).json;
    let forgotten = &entry(&set, "VCS")["forgottenSettings"];
    assert_eq!(*forgotten, json!(["headers"]));
}
