//! Keys: which opens what, how they are sent, and what too many wrong ones get.

use hyper::Request;
use serde_json::json;

use crate::support::{ADMIN_KEY, Setup, start, start_with};

const NUMBERS: &str = "/api/v1/subaccounts/market/numbers";
const ADMIN: &str = "/api/v1/admin/subaccounts";

#[tokio::test]
async fn a_key_opens_its_own_sub_account_and_tells_nothing_of_others() {
    let api = start().await;
    let key = api.sub_account("market").await;
    let other = api.sub_account("other").await;
    api.get(NUMBERS, &key).await.expect(200);
    let denied = "The API key has no right to this";
    // One that exists, one that does not, one that can't.
    for id in ["other", "nobody", "x", "market%00", "Market"] {
        let path = format!("/api/v1/subaccounts/{id}/numbers");
        let reply = api.get(&path, &key).await;
        reply.expect_fault(403, "403", denied);
    }
    let reply = api.get(NUMBERS, &other).await;
    reply.expect_fault(403, "403", denied);
    let reply = api
        .get("/api/v1/subaccounts/nobody/numbers", ADMIN_KEY)
        .await;
    reply.expect_fault(404, "404", "The sub-account does not exist");
}

#[tokio::test]
async fn a_sub_accounts_key_opens_no_administration() {
    let api = start().await;
    let key = api.sub_account("market").await;
    for (method, path) in [
        ("GET", ADMIN.to_owned()),
        ("POST", ADMIN.to_owned()),
        ("POST", format!("{ADMIN}/market/keys")),
        ("POST", format!("{ADMIN}/market/numbers")),
        ("POST", format!("{ADMIN}/nobody/keys")),
        ("PATCH", format!("{ADMIN}/market/numbers/6560000001")),
    ] {
        let body = Some(b"{}".to_vec());
        api.send(method, &path, Some(&key), body).await.expect(403);
    }
}

#[tokio::test]
async fn without_a_known_key_every_protected_operation_is_401() {
    let api = start().await;
    api.sub_account("market").await;
    for (path, item) in crate::support::DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let path = path
                .replace("{subAccountId}", "market")
                .replace("{type}", "VCS")
                .replace("{number}", "6560000001");
            let method = method.to_uppercase();
            let is_open = operation.get("security").is_none();
            for key in [None, Some("mk_wrong")] {
                let reply = api.send(&method, &path, key, None).await;
                if is_open {
                    assert_eq!(reply.status.as_u16(), 200, "{method} {path}");
                    continue;
                }
                let reply = reply.expect_fault(401, "401", "The API key is missing or unknown");
                assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            }
        }
    }
}

#[tokio::test]
async fn the_key_comes_in_one_bearer_header_and_nowhere_else() {
    let api = start().await;
    let key = api.sub_account("market").await;
    for (values, status) in [
        (vec![format!("Bearer {key}")], 200),
        (vec![format!("bearer {key}")], 200),
        (vec![format!("BEARER  {key} ")], 200),
        (vec![key.clone()], 401),
        (vec![format!("Basic {key}")], 401),
        (vec![format!("Token {key}")], 401),
        (vec![format!("Bearer{key}")], 401),
        (vec![format!("Bearer {key},{key}")], 401),
        (vec![format!("Bearer \"{key}\"")], 401),
        (vec![format!("Bearer {key} {key}")], 401),
        (vec!["Bearer".to_owned()], 401),
        (vec!["Bearer ".to_owned()], 401),
        (vec![String::new()], 401),
        (vec![format!("Bearer {}", key.to_uppercase())], 401),
        (vec![format!("Bearer {}", "k".repeat(10_000))], 401),
        (vec![format!("Bearer {key}"), format!("Bearer {key}")], 401),
    ] {
        let mut request = Request::builder().uri(NUMBERS);
        for value in &values {
            request = request.header("authorization", value);
        }
        let reply = api.request(request.body(Vec::new()).unwrap()).await;
        assert_eq!(reply.status.as_u16(), status, "{}", values.len());
    }
    let path = format!("{NUMBERS}?access_token={key}");
    api.send("GET", &path, None, None).await.expect(401);
}

#[tokio::test]
async fn after_too_many_wrong_keys_an_address_waits_but_good_keys_go_on() {
    let api = start_with(Setup {
        failed_authentications_per_minute: 3,
        ..Setup::default()
    })
    .await;
    let key = api.sub_account("market").await;
    let unused = api.sub_account("other").await;
    api.get(NUMBERS, &key).await.expect(200);
    for wrong in ["a", "b", "c"] {
        api.get(NUMBERS, wrong).await.expect(401);
    }
    let message = "Too many failed authentications from this address";
    for wrong in ["d", "e", "mk_tooshort"] {
        let reply = api.get(NUMBERS, wrong).await;
        let reply = reply.expect_fault(429, "429", message);
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
    }
    api.send("GET", NUMBERS, None, None).await.expect(429);
    api.post(ADMIN, "d", json!({})).await.expect(429);
    // Clients behind one proxy don't suffer for each other: neither one whose key was used before,
    // nor one that comes for the first time (it is known, and has no right to this).
    api.get(NUMBERS, &key).await.expect(200);
    api.get(NUMBERS, &unused).await.expect(403);
    for open in ["/healthz", "/metrics", "/api/v1/voice-ip-addresses"] {
        api.send("GET", open, None, None).await.expect(200);
    }
}
