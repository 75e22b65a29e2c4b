//! The fields that a sub-account adds to its call events.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, start};

const PATH: &str = "/api/v1/subaccounts/market/event-parameters";

fn whole(parameters: &Value) -> Value {
    json!({
        "subAccountId": "market", "count": parameters.as_array().unwrap().len(),
        "parameters": parameters, "statusCode": 0, "statusMessage": "ok"
    })
}

#[tokio::test]
async fn what_is_set_replaces_what_was_and_the_switch_hears_of_it() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let none = whole(&json!([]));
    assert_eq!(api.get(PATH, &key).await.expect(200).json, none);
    for parameters in [
        json!([
            {"name": "tenant", "value": "eu-1"},
            {"name": "tenant", "value": 7, "country": "MY"},
            {"name": "tenant", "value": true, "prefix": "+659"},
            {"name": "line", "from": "referenceId"},
        ]),
        json!([{"name": "other", "value": 1.5}]),
        json!([]),
    ] {
        let body = json!({ "parameters": parameters });
        let expected = whole(&parameters);
        let reply = api.put(PATH, &key, body).await.expect(200);
        assert_eq!(reply.json, expected);
        assert_eq!(api.changes.take(), ["parameters of market"]);
        assert_eq!(api.get(PATH, ADMIN_KEY).await.expect(200).json, expected);
    }
}

#[tokio::test]
async fn a_bad_one_is_refused_by_its_place_and_changes_nothing() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let before = json!({"parameters": [{"name": "tenant", "value": "eu-1"}]});
    api.put(PATH, &key, before).await.expect(200);
    api.changes.take();
    let shown = api.get(PATH, &key).await.json;
    for (entry, message) in [
        (
            json!({"name": "sequence", "value": 1}),
            "parameters[1].name: must not be that of the field `sequence`",
        ),
        (
            json!({"name": "ERRORDETAILS", "value": 1}),
            "parameters[1].name: must not be that of the field `errorDetails`",
        ),
        (
            json!({"name": "a", "value": 1, "country": "UK"}),
            "parameters[1].country: is no assigned ISO 3166-1 alpha-2 code in upper case",
        ),
        (
            json!({"name": "a", "value": 1, "destination": "+65"}),
            "parameters[1].destination: unknown field `destination`, expected one of `name`, \
             `value`, `from`, `country`, `prefix`",
        ),
        (
            json!({"name": "a", "from": "source"}),
            "parameters[1].from: unknown variant `source`, expected one of `referenceId`, \
             `subAccountId`, `leg`",
        ),
        (json!({"value": 1}), "parameters[1]: missing field `name`"),
    ] {
        let body = json!({"parameters": [{"name": "fine", "value": 1}, entry]});
        let reply = api.put(PATH, &key, body).await;
        reply.expect_fault(422, "1001", message);
    }
    let reply = api.put(PATH, &key, json!({})).await;
    reply.expect_fault(422, "1001", "body: missing field `parameters`");
    assert_eq!(api.get(PATH, &key).await.json, shown);
    assert!(api.changes.take().is_empty());
}

#[tokio::test]
async fn only_the_sub_accounts_own_key_and_the_admins_open_them() {
    let api = start().await;
    let key = api.sub_account("market").await;
    api.sub_account("other").await;
    let path = "/api/v1/subaccounts/other/event-parameters";
    let body = json!({ "parameters": [] });
    api.get(path, &key).await.expect(403);
    api.put(path, &key, body.clone()).await.expect(403);
    let nobody = "/api/v1/subaccounts/nobody/event-parameters";
    let reply = api.put(nobody, ADMIN_KEY, body).await;
    reply.expect_fault(404, "404", "The sub-account does not exist");
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_is_answered_when_the_switch_has_been_asked() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let body = json!({"parameters": [{"name": "tenant", "value": "eu-1"}]});
    api.put(PATH, &key, body.clone()).await.expect(200);
    api.changes.take();
    let expected = whole(&body["parameters"]);
    let again = api.put(PATH, &key, body.clone()).await.expect(200);
    assert_eq!(again.json, expected);
    assert_eq!(api.changes.take(), ["parameters of market"]);

    api.changes.late.store(true, Ordering::Relaxed);
    let other = json!({"parameters": [{"name": "tenant", "value": "eu-2"}]});
    for _ in 0..2 {
        let late = api.put(PATH, &key, other.clone()).await.expect(202);
        let mut expected = whole(&other["parameters"]);
        expected["statusMessage"] = json!("pending");
        assert_eq!(late.json, expected);
        assert_eq!(api.changes.take(), ["parameters of market"]);
    }
    // They are kept all the same.
    let shown = api.get(PATH, &key).await.expect(200).json;
    assert_eq!(shown, whole(&other["parameters"]));
}

#[tokio::test]
async fn a_sub_account_changes_something_sixty_times_a_minute_and_nobody_else_is_counted() {
    let api = start().await;
    let (key, other) = (
        api.sub_account("market").await,
        api.sub_account("other").await,
    );
    let body = |value: u32| json!({"parameters": [{"name": "tenant", "value": value}]});
    for value in 0..60 {
        api.put(PATH, &key, body(value)).await.expect(200);
    }
    let refused = api.put(PATH, &key, body(60)).await;
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    let message = "The sub-account changes too much; more than 60 times in a minute";
    refused.expect_fault(429, "429", message);
    let hook = json!({"type": "VCS", "url": "https://example.com"});
    let webhooks = "/api/v1/subaccounts/market/webhooks";
    let refused = api.post(webhooks, &key, hook.clone()).await;
    refused.expect_fault(429, "429", message);
    let shown = api.get(PATH, &key).await.expect(200).json;
    assert_eq!(shown["parameters"][0]["value"], 59);
    // What changes nothing, the operator, and another sub-account.
    api.put(PATH, &key, body(59)).await.expect(200);
    api.put(PATH, ADMIN_KEY, body(60)).await.expect(200);
    let webhooks = "/api/v1/subaccounts/other/webhooks";
    api.post(webhooks, &other, hook).await.expect(200);
}
