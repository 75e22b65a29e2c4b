//! Reading a sub-account's numbers.

use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, start};

const PATH: &str = "/api/v1/subaccounts/market/numbers";

#[tokio::test]
async fn numbers_are_listed_with_the_contracts_fields() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let empty = api.get(PATH, &key).await.expect(200);
    assert_eq!(
        empty.json,
        json!({"totalNumbers": 0, "lastUpdatedAt": null, "numbers": []})
    );
    let admin = "/api/v1/admin/subaccounts/market/numbers";
    for (number, reference) in [("+6560000002", "two"), ("6560000001", "one")] {
        let body = json!({"msisdn": number, "referenceId": reference});
        api.post(admin, ADMIN_KEY, body).await.expect(201);
    }
    let reply = api.get(PATH, &key).await.expect(200);
    assert_eq!(reply.json["totalNumbers"], 2);
    let numbers = reply.json["numbers"].as_array().unwrap();
    assert_eq!(numbers[1]["referenceId"], "two");
    let created = numbers[0]["dateCreated"].clone();
    assert_eq!(reply.json["lastUpdatedAt"], created, "the later of the two");
    assert_eq!(
        numbers[0],
        json!({
            "msisdn": "+6560000001", "dateCreated": created, "dateUpdated": created, "countryCode": "SG",
            "operationalStatus": "Active", "referenceId": "one", "rentalPrice": 0.0, "incomingRate": 0.0,
            "billingUnit": 1, "billingCurrency": "USD",
            "uri": "/api/v1/subaccounts/market/numbers/6560000001", "numberType": "VIRTUAL",
            "numberHealthCheckEnabled": false,
            "numberHealth": {"isHealthy": true, "status": "UNKNOWN", "lastCheckedTime": null},
            "earlyMedia": "ringback"
        })
    );
    let uri = numbers[0]["uri"].as_str().unwrap();
    assert_eq!(
        api.get(uri, &key).await.json["payload"]["referenceId"],
        "one"
    );
}

#[tokio::test]
async fn one_number_is_found_with_or_without_plus_percent_encoded_or_not() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let body = json!({"msisdn": "+88312345678", "referenceId": "ref"});
    let admin = "/api/v1/admin/subaccounts/market/numbers";
    api.post(admin, ADMIN_KEY, body).await.expect(201);
    for number in [
        "88312345678",
        "+88312345678",
        "%2B88312345678",
        "%38%38312345678",
    ] {
        let mut reply = api.get(&format!("{PATH}/{number}"), &key).await.expect(200);
        assert!(reply.json["timestamp"].take().is_string());
        assert_eq!(
            reply.json,
            json!({"statusCode": 0, "statusMessage": "ok", "timestamp": null,
                "payload": {"referenceId": "ref", "msisdn": "+88312345678"}}),
            "a number of no country has no countryCode"
        );
    }
}

#[tokio::test]
async fn a_number_that_is_not_the_sub_accounts_is_404_in_the_same_frame() {
    let api = start().await;
    let key = api.sub_account("market").await;
    api.sub_account("other").await;
    let body = json!({"msisdn": "+6560000009", "referenceId": "ref"});
    let admin = "/api/v1/admin/subaccounts/other/numbers";
    api.post(admin, ADMIN_KEY, body).await.expect(201);
    for number in [
        "6560000009",
        "6560000001",
        "00",
        "abc",
        "%2B",
        "1234567890123456",
    ] {
        let mut reply = api.get(&format!("{PATH}/{number}"), &key).await.expect(404);
        assert!(reply.json["timestamp"].take().is_string());
        assert_eq!(
            reply.json,
            json!({"statusCode": 404, "timestamp": Value::Null,
                "statusMessage": "The number is not one of this sub-account's"}),
            "{number}"
        );
    } // What names no path at all, or no sub-account, has the common frame.
    let reply = api.get(&format!("{PATH}/%FF"), &key).await;
    reply.expect_fault(404, "404", "The resource does not exist");
    let path = "/api/v1/subaccounts/nobody/numbers/6560000009";
    let reply = api.get(path, ADMIN_KEY).await;
    reply.expect_fault(404, "404", "The sub-account does not exist");
}
