//! Administration.

use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Setup, start, start_with};

const PATH: &str = "/api/v1/admin/subaccounts";

#[tokio::test]
async fn a_sub_account_is_made_listed_and_refused_a_second_time() {
    let api = start().await;
    let body = json!({"subAccountId": "market", "countries": ["SG", "MY", "SG"]});
    let mut made = api.post(PATH, ADMIN_KEY, body.clone()).await.expect(201);
    assert!(made.json["dateCreated"].take().is_string());
    assert_eq!(
        made.json,
        json!({"subAccountId": "market", "countries": ["MY", "SG"], "dateCreated": null})
    );
    assert_eq!(api.changes.take(), ["numbers"]);
    let again = api.post(PATH, ADMIN_KEY, body).await.expect(409);
    assert_eq!(again.json["statusCode"], "409");
    assert!(api.changes.take().is_empty());
    let body = json!({"subAccountId": "A.b_c&d-1"});
    api.post(PATH, ADMIN_KEY, body).await.expect(201);
    let list = api.get(PATH, ADMIN_KEY).await.expect(200);
    let ids: Vec<&Value> = list.json["subAccounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["subAccountId"])
        .collect();
    assert_eq!(list.json["count"], 2);
    assert_eq!(ids, ["A.b_c&d-1", "market"]);
    // An id with characters that a URL may or may not encode is the same sub-account.
    for id in ["A.b_c&d-1", "A%2Eb_c%26d-1"] {
        let path = format!("/api/v1/subaccounts/{id}/webhooks");
        let reply = api.get(&path, ADMIN_KEY).await.expect(200);
        assert_eq!(reply.json["subAccountId"], "A.b_c&d-1");
    }
}

#[tokio::test]
async fn a_bad_sub_account_is_refused_by_field() {
    let api = start().await;
    let id = "subAccountId: must be 3 to 50 letters, digits, '-', '.', '_' or '&'";
    let country = "is no assigned ISO 3166-1 alpha-2 code in upper case";
    for (body, message) in [
        (json!({"subAccountId": "ab"}), id.to_owned()),
        (json!({"subAccountId": "a/../b"}), id.to_owned()),
        (
            json!({"subAccountId": "abc", "countries": ["SG", "sg"]}),
            format!("countries[1]: {country}"),
        ),
        (
            json!({"subAccountId": "abc", "countries": ["XX"]}),
            format!("countries[0]: {country}"),
        ),
        (
            json!({"subAccountId": "abc", "countries": [5]}),
            "countries[0]: invalid type: integer `5`, expected a string".to_owned(),
        ),
        (
            json!({"subAccountId": "abc", "country": ["SG"]}),
            "country: unknown field `country`, expected `subAccountId` or `countries`".to_owned(),
        ),
        (json!({}), "body: missing field `subAccountId`".to_owned()),
    ] {
        let reply = api.post(PATH, ADMIN_KEY, body).await;
        reply.expect_fault(422, "1001", &message);
    }
    assert_eq!(api.get(PATH, ADMIN_KEY).await.json["count"], 0);
}

#[tokio::test]
async fn a_key_made_here_opens_its_sub_account() {
    let api = start().await;
    let body = json!({"subAccountId": "market"});
    api.post(PATH, ADMIN_KEY, body).await.expect(201);
    let path = format!("{PATH}/market/keys");
    let first = api
        .send("POST", &path, Some(ADMIN_KEY), None)
        .await
        .expect(201);
    let second = api.post(&path, ADMIN_KEY, json!({})).await.expect(201);
    assert_ne!(first.json["apiKey"], second.json["apiKey"]);
    for reply in [first, second] {
        let key = reply.json["apiKey"].as_str().unwrap();
        api.get("/api/v1/subaccounts/market/numbers", key)
            .await
            .expect(200);
    }
    let path = format!("{PATH}/nobody/keys");
    let reply = api.post(&path, ADMIN_KEY, json!({})).await.expect(404);
    assert_eq!(reply.json["statusCode"], "404");
}

#[tokio::test]
async fn a_number_is_assigned_once() {
    let api = start().await;
    api.sub_account("market").await;
    api.sub_account("other").await;
    let path = format!("{PATH}/market/numbers");
    let body = json!({"msisdn": "6560000001", "referenceId": "ref", "trunk": "backup"});
    let mut made = api.post(&path, ADMIN_KEY, body.clone()).await.expect(201);
    assert!(made.json["dateCreated"].take().is_string());
    assert_eq!(
        made.json,
        json!({"subAccountId": "market", "msisdn": "+6560000001", "referenceId": "ref",
            "trunk": "backup", "earlyMedia": "ringback", "countryCode": "SG", "dateCreated": null})
    );
    assert_eq!(api.changes.take(), ["numbers"]);
    for sub_account in ["market", "other"] {
        let path = format!("{PATH}/{sub_account}/numbers");
        api.post(&path, ADMIN_KEY, body.clone()).await.expect(409);
    }
    let path = format!("{PATH}/nobody/numbers");
    let body = json!({"msisdn": "6560000002", "referenceId": "ref"});
    api.post(&path, ADMIN_KEY, body).await.expect(404);
    assert!(api.changes.take().is_empty());
}

#[tokio::test]
async fn a_bad_number_is_refused_by_field() {
    let api = start().await;
    api.sub_account("market").await;
    let path = format!("{PATH}/market/numbers");
    let short = "msisdn: is an emergency or short number: a virtual number has at least 7 digits";
    let good = json!({"msisdn": "+6560000001", "referenceId": "ref"});
    for (field, value, message) in [
        ("msisdn", json!("112"), short),
        ("msisdn", json!("+65999"), short),
        ("msisdn", json!("911"), short),
        (
            "msisdn",
            json!("006560000001"),
            "msisdn: an MSISDN starts with a country calling code, never with 0",
        ),
        (
            "msisdn",
            json!("+65 6000 0001"),
            "msisdn: an MSISDN is digits with an optional leading +; offset 3 holds something else",
        ),
        (
            "msisdn",
            json!(6_560_000_001_u64),
            "msisdn: invalid type: integer `6560000001`, expected a string",
        ),
        (
            "referenceId",
            json!(""),
            "referenceId: must have 1 to 100 characters, has 0",
        ),
        (
            "referenceId",
            json!("é".repeat(101)),
            "referenceId: must have 1 to 100 characters, has 101",
        ),
        (
            "referenceId",
            json!("a\u{0}b"),
            "referenceId: must not hold control characters",
        ),
        (
            "trunk",
            json!("nowhere"),
            "trunk: is not configured; configured are: carrier, backup",
        ),
        (
            "earlyMedia",
            json!("passthrough"),
            "earlyMedia: unknown variant `passthrough`, expected `ringback` or `passThrough`",
        ),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let reply = api.post(&path, ADMIN_KEY, body).await;
        reply.expect_fault(422, "1001", message);
    }
    let mut body = good;
    body["referenceId"] = json!("é".repeat(100));
    body["trunk"] = Value::Null;
    body["earlyMedia"] = Value::Null;
    api.post(&path, ADMIN_KEY, body).await.expect(201);
}

#[tokio::test]
async fn what_a_numbers_callers_hear_before_the_answer_is_said_when_it_is_assigned() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let path = format!("{PATH}/market/numbers");
    let policies = [Some("ringback"), Some("passThrough"), None];
    for (number, policy) in (6_560_000_001_u64..).zip(policies) {
        let mut body = json!({"msisdn": number.to_string(), "referenceId": "ref"});
        if let Some(policy) = policy {
            body["earlyMedia"] = json!(policy);
        }
        let made = api.post(&path, ADMIN_KEY, body).await.expect(201);
        assert_eq!(made.json["earlyMedia"], policy.unwrap_or("ringback"));
    }
    let list = api.get("/api/v1/subaccounts/market/numbers", &key).await;
    let listed: Vec<_> = (0..3)
        .map(|at| &list.json["numbers"][at]["earlyMedia"])
        .collect();
    assert_eq!(listed, ["ringback", "passThrough", "ringback"]);
}

#[tokio::test]
async fn the_stores_admin_key_counts_only_while_none_is_configured() {
    let api = start_with(Setup {
        admin_key: None,
        ..Setup::default()
    })
    .await;
    let made = api.store.admin_key().await;
    api.get(PATH, &made).await.expect(200);
    api.get(PATH, ADMIN_KEY).await.expect(401);
    let api = start().await;
    let made = api.store.admin_key().await;
    api.get(PATH, ADMIN_KEY).await.expect(200);
    api.get(PATH, &made).await.expect(401);
}
