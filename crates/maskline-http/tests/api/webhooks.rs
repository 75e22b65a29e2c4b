//! Setting, listing, deleting webhooks and rotating their secrets.

use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Reply, start};

const PATH: &str = "/api/v1/subaccounts/market/webhooks";

#[tokio::test]
async fn a_new_webhook_is_answered_with_its_secret_this_once() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let empty = api.get(PATH, &key).await.expect(200);
    assert_eq!(
        empty.json,
        json!({"subAccountId": "market", "count": 0, "webhooks": [], "statusCode": 0, "statusMessage": "ok"})
    );
    let body =
        json!({"type": "VCS", "url": "https://example.com/vcs", "httpAuthHeader": "Basic eDp5"});
    let mut set = api.post(PATH, &key, body).await.expect(200);
    let secret = set.json["webhooks"][0]["signingSecret"].take();
    assert!(secret.as_str().unwrap().starts_with("whsec_"), "{secret}");
    set.json["webhooks"][0]
        .as_object_mut()
        .unwrap()
        .remove("signingSecret");
    let listed = json!({
        "subAccountId": "market", "count": 1, "statusCode": 0, "statusMessage": "ok",
        "webhooks": [{"type": "VCS", "url": "https://example.com/vcs", "enabled": true,
            "httpAuthHeaderAvailable": true}]
    });
    assert_eq!(set.json, listed);
    let reply = api.get(PATH, &key).await.expect(200);
    assert_eq!(reply.json, listed);
    assert!(!reply.text.contains("eDp5"));
    assert_eq!(api.changes.take(), ["VCS of market"]);
}

#[tokio::test]
async fn a_second_post_replaces_the_webhook_and_keeps_its_secret() {
    let api = start().await;
    let key = api.sub_account("market").await;
    for (body, enabled) in [
        (json!({"type": "VCA", "url": "https://a.example"}), true),
        (
            json!({"type": "VCA", "url": "https://b.example", "enabled": false}),
            false,
        ),
        (
            json!({"type": "VCA", "url": "https://c.example", "active": true}),
            true,
        ),
        (
            json!({"type": "VCA", "url": "https://d.example", "active": false, "httpAuthHeader": null}),
            false,
        ),
        (
            json!({"type": "VCA", "url": "https://e.example", "enabled": null, "httpAuthHeader": ""}),
            true,
        ),
    ] {
        let url = body["url"].clone();
        let reply = api.post(PATH, &key, body).await.expect(200);
        let entry = &reply.json["webhooks"][0];
        assert_eq!(reply.json["count"], 1);
        assert_eq!(
            (&entry["url"], &entry["enabled"]),
            (&url, &json!(enabled)),
            "{}",
            reply.text
        );
        assert_eq!(entry["httpAuthHeaderAvailable"], false);
        let is_first = url == "https://a.example";
        assert_eq!(entry.get("signingSecret").is_some(), is_first);
    }
}

#[tokio::test]
async fn each_type_has_a_webhook_of_its_own_and_the_admin_key_may_set_them() {
    let api = start().await;
    api.sub_account("market").await;
    for (index, kind) in ["VNU", "VRU", "VSS", "VCS", "VCA"].into_iter().enumerate() {
        let body = json!({"type": kind, "url": format!("https://example.com/{kind}")});
        let reply = api.post(PATH, ADMIN_KEY, body).await.expect(200);
        assert_eq!(reply.json["count"], index + 1);
        let with_secret: Vec<&Value> = reply.json["webhooks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry.get("signingSecret").is_some())
            .map(|entry| &entry["type"])
            .collect();
        assert_eq!(with_secret, [kind]);
    }
}

#[tokio::test]
async fn a_deleted_webhook_is_answered_as_it_was_and_is_gone() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let body = json!({"type": "VSS", "url": "https://example.com", "enabled": false});
    api.post(PATH, &key, body.clone()).await.expect(200);
    api.changes.take();
    let path = format!("{PATH}/VSS");
    let reply = api.delete(&path, &key).await.expect(200);
    assert_eq!(
        reply.json,
        json!({"subAccountId": "market", "type": "VSS", "url": "https://example.com", "enabled": false,
            "httpAuthHeaderAvailable": false, "statusCode": 0, "statusMessage": "deleted"})
    );
    assert_eq!(api.changes.take(), ["VSS of market"]);
    not_there(api.delete(&path, &key).await);
    assert_eq!(api.get(PATH, &key).await.json["count"], 0);
    assert!(api.changes.take().is_empty(), "nothing changed");
    // Made anew, it has a new secret.
    let again = api.post(PATH, &key, body).await.expect(200);
    assert!(again.json["webhooks"][0]["signingSecret"].is_string());
}

#[tokio::test]
async fn a_rotated_secret_is_new_each_time() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let path = format!("{PATH}/VCS/rotate-secret");
    not_there(api.post(&path, &key, Value::Null).await);
    let body = json!({"type": "VCS", "url": "https://example.com"});
    let made = api.post(PATH, &key, body).await.expect(200);
    api.changes.take();
    let mut secrets = vec![made.json["webhooks"][0]["signingSecret"].clone()];
    for _ in 0..2 {
        let reply = api.post(&path, &key, Value::Null).await.expect(200);
        assert_eq!(reply.json["type"], "VCS");
        let secret = reply.json["signingSecret"].clone();
        assert!(secret.as_str().unwrap().starts_with("whsec_"));
        assert!(!secrets.contains(&secret));
        secrets.push(secret);
    }
    assert_eq!(api.changes.take(), ["VCS of market", "VCS of market"]);
}

#[tokio::test]
async fn a_type_that_there_is_not_is_404_in_a_path_and_422_in_a_body() {
    let api = start().await;
    let key = api.sub_account("market").await;
    for kind in ["vcs", "XYZ", "%FF", "VCS%00"] {
        not_there(api.delete(&format!("{PATH}/{kind}"), &key).await);
    }
    let body = json!({"type": "vcs", "url": "https://example.com"});
    let reply = api.post(PATH, &key, body).await.expect(422);
    let message = reply.json["statusMessage"].as_str().unwrap();
    assert!(message.starts_with("type: unknown variant"), "{message}");
}

#[tokio::test]
async fn a_bad_field_is_named_with_its_reason() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let long_url = format!("https://example.com/{}", "x".repeat(2048));
    let good = json!({"type": "VCS", "url": "https://example.com"});
    for (field, value, message) in [
        (
            "url",
            json!("http://example.com"),
            "url: must be https here",
        ),
        ("url", json!(long_url), "url: is longer than 2048 bytes"),
        (
            "url",
            json!(7),
            "url: invalid type: integer `7`, expected a string",
        ),
        (
            "url",
            Value::Null,
            "url: invalid type: null, expected a string",
        ),
        (
            "httpAuthHeader",
            json!("Bearer x\r\nEvil: 1"),
            "httpAuthHeader: is no header value: visible ASCII, space and tab only",
        ),
        (
            "httpAuthHeader",
            json!("Bearer é"),
            "httpAuthHeader: is no header value: visible ASCII, space and tab only",
        ),
        (
            "httpAuthHeader",
            json!(" Bearer x"),
            "httpAuthHeader: begins or ends with a space",
        ),
        (
            "httpAuthHeader",
            json!("x".repeat(4097)),
            "httpAuthHeader: is longer than 4096 bytes",
        ),
        (
            "enabled",
            json!("true"),
            "enabled: invalid type: string \"true\", expected a boolean",
        ),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let reply = api.post(PATH, &key, body).await;
        reply.expect_fault(422, "1001", message);
    }
    api.post(PATH, &key, json!({"type": "VCS"}))
        .await
        .expect_fault(422, "1001", "body: missing field `url`");
    assert!(api.changes.take().is_empty());
    assert_eq!(api.get(PATH, &key).await.json["count"], 0);
}

#[track_caller]
fn not_there(reply: Reply) {
    let reply = reply.expect(404);
    assert_eq!(reply.json["statusCode"], "404");
    let message = reply.json["statusMessage"].as_str().unwrap();
    assert!(message.ends_with("does not exist"), "{message}");
}
