//! Changing a number that is assigned.

use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Api, start};

const ADMIN: &str = "/api/v1/admin/subaccounts/market/numbers";
const LIST: &str = "/api/v1/subaccounts/market/numbers";

/// The sub-account `market` with two numbers of the trunk `backup`, and its key.
async fn with_numbers() -> (Api, String) {
    let api = start().await;
    let key = api.sub_account("market").await;
    for number in ["6560000001", "6560000002"] {
        let body = json!({"msisdn": number, "referenceId": "ref", "trunk": "backup"});
        api.post(ADMIN, ADMIN_KEY, body).await.expect(201);
    }
    assert_eq!(api.changes.take(), ["numbers", "numbers"]);
    (api, key)
}

#[tokio::test]
async fn what_is_given_changes_and_what_is_absent_stays() {
    let (api, key) = with_numbers().await;
    let before = api.get(LIST, &key).await.expect(200).json;
    let path = format!("{ADMIN}/6560000001");
    let mut expected = json!({
        "subAccountId": "market", "msisdn": "+6560000001", "referenceId": "ref", "trunk": "backup",
        "earlyMedia": "ringback", "countryCode": "SG", "dateCreated": before["numbers"][0]["dateCreated"]
    });
    let mut updated = before["numbers"][0]["dateUpdated"].clone();
    for change in [
        json!({"earlyMedia": "passThrough"}),
        json!({"trunk": null}),
        json!({"referenceId": "other"}),
        json!({"trunk": "carrier", "earlyMedia": "ringback", "referenceId": "third"}),
        // The same again is a change too.
        json!({"trunk": "carrier"}),
    ] {
        let reply = api.patch(&path, ADMIN_KEY, change.clone()).await;
        for (field, value) in change.as_object().unwrap() {
            expected[field] = value.clone();
        }
        assert_eq!(reply.expect(200).json, expected, "{change}");
        assert_eq!(api.changes.take(), ["numbers"], "{change}");
        let list = api.get(LIST, &key).await.expect(200).json;
        let number = &list["numbers"][0];
        for field in ["referenceId", "earlyMedia", "dateCreated"] {
            assert_eq!(number[field], expected[field], "{change}");
        }
        let moved = number["dateUpdated"].clone();
        assert!(moved.as_str() > updated.as_str(), "{change}: {moved}");
        assert_eq!(list["lastUpdatedAt"], moved);
        updated = moved;
        assert_eq!(
            list["numbers"][1], before["numbers"][1],
            "the other one stays"
        );
    }
}

#[tokio::test]
async fn a_number_is_changed_by_its_digits_with_or_without_plus() {
    let (api, _) = with_numbers().await;
    for number in ["6560000001", "+6560000001", "%2B6560000001"] {
        let body = json!({"referenceId": number});
        let path = format!("{ADMIN}/{number}");
        let reply = api.patch(&path, ADMIN_KEY, body).await.expect(200);
        assert_eq!(reply.json["msisdn"], "+6560000001");
        assert_eq!(reply.json["referenceId"], number);
    }
}

#[tokio::test]
async fn a_bad_change_is_refused_by_field_and_changes_nothing() {
    let (api, key) = with_numbers().await;
    let before = api.get(LIST, &key).await.json;
    let path = format!("{ADMIN}/6560000001");
    let unknown = "unknown field `msisdn`, expected one of `referenceId`, `trunk`, `earlyMedia`";
    for (body, message) in [
        (
            json!({}),
            "body: must have at least one of `referenceId`, `trunk` and `earlyMedia`",
        ),
        (
            json!({"earlyMedia": "passThrough", "msisdn": "+6560000002"}),
            &format!("msisdn: {unknown}"),
        ),
        (
            json!({"earlyMedia": "passthrough"}),
            "earlyMedia: unknown variant `passthrough`, expected `ringback` or `passThrough`",
        ),
        (
            json!({"referenceId": null}),
            "referenceId: must not be null",
        ),
        (json!({"earlyMedia": null}), "earlyMedia: must not be null"),
        (
            json!({"referenceId": ""}),
            "referenceId: must have 1 to 100 characters, has 0",
        ),
        (
            json!({"trunk": null, "referenceId": "a\u{7}"}),
            "referenceId: must not hold control characters",
        ),
        (
            json!({"earlyMedia": "passThrough", "trunk": "nowhere"}),
            "trunk: is not configured; configured are: carrier, backup",
        ),
        (
            json!({"trunk": 5}),
            "trunk: invalid type: integer `5`, expected a string",
        ),
    ] {
        let reply = api.patch(&path, ADMIN_KEY, body).await;
        reply.expect_fault(422, "1001", message);
    }
    let reply = api.patch(&path, ADMIN_KEY, Value::Null).await;
    reply.expect_fault(422, "1001", "Invalid JSON request body");
    assert_eq!(api.get(LIST, &key).await.json, before);
    assert!(api.changes.take().is_empty());
}

#[tokio::test]
async fn a_number_that_is_not_the_sub_accounts_is_404_and_stays() {
    let (api, key) = with_numbers().await;
    api.sub_account("other").await;
    let before = api.get(LIST, &key).await.json;
    for (sub_account, number) in [
        ("other", "6560000001"),
        ("nobody", "6560000001"),
        ("market", "6560000009"),
        ("market", "abc"),
        ("market", "00"),
    ] {
        let path = format!("/api/v1/admin/subaccounts/{sub_account}/numbers/{number}");
        let reply = api.patch(&path, ADMIN_KEY, json!({"trunk": null})).await;
        reply.expect_fault(404, "404", "the number does not exist");
    }
    assert_eq!(api.get(LIST, &key).await.json, before);
    assert!(api.changes.take().is_empty());
}
