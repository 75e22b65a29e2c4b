//! The fields that a sub-account adds to its call events.

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
        assert_eq!(api.changes.take(), ["numbers"]);
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
