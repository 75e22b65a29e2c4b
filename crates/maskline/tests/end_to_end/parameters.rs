//! A sub-account adds fields to its events: those of our own calls, of another switch's, and after a
//! restart.

use maskline_events::WebhookType;
use serde_json::{Value, json};

use crate::support::receiver::Received;
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, FROM, Options, REFERENCE, SUB_ACCOUNT, Site, VIRTUAL};
use crate::support::switch::ADMIN_KEY;

async fn set(site: &Site, parameters: &Value) {
    let path = format!("subaccounts/{SUB_ACCOUNT}/event-parameters");
    let body = json!({ "parameters": parameters });
    let answer = site.call_api("PUT", &path, ADMIN_KEY, Some(&body)).await;
    assert_eq!(answer.json()["parameters"], *parameters);
}

/// Checks what was told of the next session, its question included if there was one, and gives how
/// many events that were. A killed switch may tell of an earlier one once more.
async fn check(site: &Site, line: Option<&str>, checked: &mut Vec<Value>) -> usize {
    let is_next = |it: &Received| {
        it.webhook == WebhookType::Vss && !checked.contains(it.payload("sessionId"))
    };
    let summary = site.receiver.wait_for("a summary", is_next).await;
    let session = summary.payload("sessionId").clone();
    let all = site.receiver.received();
    let of_it = all.iter().filter(|it| it.payload("sessionId") == &session);
    let mut told = 0;
    for event in of_it {
        let payload = &event.body["payload"];
        if event.webhook == WebhookType::Vss {
            assert_eq!(payload.get("tenant"), None, "{payload}");
            continue;
        }
        let leg = match payload["callDirection"].as_str() {
            Some("INBOUND") => "A",
            _ => "B",
        };
        let tenant = match payload["destination"].as_str() {
            Some(VIRTUAL) => "sg",
            Some(CALLEE) => "callees",
            _ => "all",
        };
        assert_eq!(payload["tenant"], tenant, "{payload}");
        assert_eq!(payload["end"], leg, "{payload}");
        assert_eq!(payload.get("line").and_then(Value::as_str), line);
        assert_eq!(payload["subAccountId"], SUB_ACCOUNT);
        told += 1;
    }
    checked.push(session);
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_both_kinds_of_calls_have_the_configured_fields_also_after_a_restart() {
    let mut site = Site::open("parameters", Options::new(Transport::Udp)).await;
    let path = format!("subaccounts/{SUB_ACCOUNT}/event-parameters");
    let bad = json!({"parameters": [{"name": "callstatus", "value": "CALL_CONNECTED"}]});
    let refused = site.call_api("PUT", &path, ADMIN_KEY, Some(&bad)).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("parameters[0].name: "), "{refused:?}");
    let parameters = json!([
        {"name": "tenant", "value": "all"},
        {"name": "tenant", "value": "sg", "country": "SG"},
        {"name": "tenant", "value": "callees", "prefix": &CALLEE[..8]},
        {"name": "end", "from": "leg"},
        {"name": "line", "from": "referenceId"},
    ]);
    set(&site, &parameters).await;
    let mut checked = Vec::new();
    for round in 0..2 {
        if round == 1 {
            site.switch.take().unwrap().kill();
            site.restart().await;
            let shown = site.call_api("GET", &path, ADMIN_KEY, None).await.json();
            assert_eq!(shown["parameters"], parameters);
        }
        let callee = site.phone(site.callee_run("callee_answers")).await;
        let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
        assert_eq!(caller.finish().await.complaint, "");
        assert_eq!(callee.finish().await.complaint, "");
        let told = check(&site, Some(REFERENCE), &mut checked).await;
        assert!(told >= 7, "the question and six steps at least: {told}");
    }

    // Another switch's call, abroad.
    let step = |status: &str| {
        json!({
            "sessionId": "0196a1c5-7f00-7000-8000-000000000001",
            "callId": "0196a1c5-7f00-7000-8000-000000000002",
            "callStatus": status, "callDirection": "OUTBOUND", "source": VIRTUAL,
            "destination": "+4930123456", "idempotencyKey": status,
        })
    };
    let steps = json!([step("CALL_INITIATED"), step("CALL_DISCONNECTED")]);
    let path = format!("subaccounts/{SUB_ACCOUNT}/call-events");
    let answer = site.call_api("POST", &path, ADMIN_KEY, Some(&steps)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(check(&site, None, &mut checked).await, 2);
}
