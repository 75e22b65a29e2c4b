//! Status updates of other switches' calls: what is read of a request and how each outcome is told.

use std::sync::{Arc, Mutex};

use maskline_events::{CallDirection, Happening, ReportedEvent};
use maskline_http::{CallEventSink, NotReported};
use maskline_store::{StoreError, TakenReport};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ADMIN_KEY, Api, Setup, start_with};

const PATH: &str = "/api/v1/subaccounts/market/call-events";
const SESSION: &str = "0196a1c5-7f00-7000-8000-000000000001";
const LEG: &str = "0196a1c5-7f00-7000-8000-00000000000a";

/// Notes what it is given, and answers as it was told or with made-up ids.
#[derive(Default)]
struct Sink {
    requests: Mutex<Vec<(String, Vec<ReportedEvent>)>>,
    fails: Mutex<Option<NotReported>>,
}

#[async_trait::async_trait]
impl CallEventSink for Sink {
    async fn report(
        &self,
        sub_account_id: String,
        events: Vec<ReportedEvent>,
    ) -> Result<Vec<TakenReport>, NotReported> {
        if let Some(fault) = self.fails.lock().unwrap().take() {
            return Err(fault);
        }
        let taken = (1..=events.len() as u64).map(|sequence| TakenReport {
            event_id: Uuid::from_u64_pair(0xe, sequence),
            sequence,
            repeated: false,
        });
        let taken = taken.collect();
        self.requests.lock().unwrap().push((sub_account_id, events));
        Ok(taken)
    }
}

async fn site() -> (Api, String, Arc<Sink>) {
    let sink = Arc::new(Sink::default());
    let api = start_with(Setup {
        call_events: sink.clone(),
        ..Setup::default()
    })
    .await;
    let key = api.sub_account("market").await;
    (api, key, sink)
}

fn received() -> Value {
    json!({
        "sessionId": SESSION, "callId": LEG, "callStatus": "CALL_RECEIVED",
        "callDirection": "INBOUND", "source": "+6591110001", "destination": "6531580001",
        "idempotencyKey": "k1"
    })
}

/// A [`received`] with one field changed; null takes it away.
fn with(field: &str, value: Value) -> Value {
    let mut event = received();
    if value.is_null() {
        event.as_object_mut().unwrap().remove(field);
    } else {
        event[field] = value;
    }
    event
}

#[tokio::test]
async fn one_update_or_a_list_is_taken_and_answered_with_its_events() {
    let (api, key, sink) = site().await;
    let taken = api.post(PATH, &key, received()).await.expect(202);
    let first = json!({"eventId": "00000000-0000-000e-0000-000000000001", "sequence": 1});
    assert_eq!(taken.json, json!({"events": [first]}));

    let ended = json!({
        "sessionId": SESSION, "callId": LEG, "callStatus": "CALL_DISCONNECTED",
        "callDirection": "INBOUND", "callType": "VOIP", "source": "anonymous",
        "destination": "+6531580001", "sipCode": 487, "timestamp": "2026-01-06T18:17:19.375+08:00",
        "errorDetails": {"errorCode": -2002, "errorMsg": "no route"}, "eventData": null,
        "idempotencyKey": "k2", "sessionIdleSeconds": 60, "more": {"ignored": true}
    });
    let list = json!([received(), ended]);
    let taken = api.post(PATH, ADMIN_KEY, list).await.expect(202);
    assert_eq!(taken.json["events"][1]["sequence"], 2);
    let requests = sink.requests.lock().unwrap();
    let (owner, events) = &requests[1];
    assert_eq!(owner, "market");
    assert_eq!(events[0], requests[0].1[0]);
    assert_eq!(events[0].happening, Happening::Began);
    assert_eq!(events[0].destination.as_str(), "+6531580001");
    let event = &events[1];
    assert_eq!(event.direction, CallDirection::Inbound);
    assert_eq!(
        event.timestamp.unwrap().to_string(),
        "2026-01-06T10:17:19.375Z"
    );
    assert_eq!(event.idle.unwrap().as_secs(), 60);
    let Happening::Ended { sip_code, error } = &event.happening else {
        panic!("{event:?}");
    };
    assert_eq!(
        (*sip_code, error.as_ref().unwrap().error_msg.as_str()),
        (487, "no route")
    );
}

#[tokio::test]
async fn a_wrong_field_is_named_with_its_path_and_nothing_is_taken() {
    let (api, key, sink) = site().await;
    for (event, message) in [
        (
            with("sessionId", Value::Null),
            "body: missing field `sessionId`",
        ),
        (
            with("callStatus", json!("RINGING")),
            "callStatus: unknown variant `RINGING`, expected one of `CALL_INITIATED`, `CALL_RECEIVED`, `CALL_CONNECTED`, `CALL_DISCONNECTED`, `CALL_UPDATED`, `DTMF_RECEIVED`, `ACTION_COMPLETED`",
        ),
        (
            with("callStatus", json!("ACTION_COMPLETED")),
            "callStatus: ACTION_COMPLETED is no status of a leg",
        ),
        (
            with("callDirection", json!("OUTBOUND")),
            "callStatus: an OUTBOUND leg begins with CALL_INITIATED",
        ),
        (
            with("destination", json!("anonymous")),
            "destination: is no MSISDN",
        ),
        (
            with("destination", json!("+65••••4567")),
            "destination: is no MSISDN",
        ),
        (
            with("source", json!("tok_CYAWvmEPolEztjWbLj9_cn")),
            "source: is neither an MSISDN nor `anonymous`",
        ),
        (
            with("source", json!("sip:alice")),
            "source: an MSISDN is digits with an optional leading +; offset 0 holds something else",
        ),
        (
            with("idempotencyKey", json!("")),
            "idempotencyKey: is not 1 to 128 visible ASCII characters without a space",
        ),
        (
            with("idempotencyKey", json!("a b")),
            "idempotencyKey: is not 1 to 128 visible ASCII characters without a space",
        ),
        (
            with("idempotencyKey", json!("x".repeat(129))),
            "idempotencyKey: is not 1 to 128 visible ASCII characters without a space",
        ),
        (
            with("sessionIdleSeconds", json!(0)),
            "sessionIdleSeconds: is not within 1 to 86400",
        ),
        (
            with("sessionIdleSeconds", json!(86_401)),
            "sessionIdleSeconds: is not within 1 to 86400",
        ),
        (
            with("timestamp", json!("1969-12-31T23:59:59Z")),
            "timestamp: is not within the years 1970 to 9999",
        ),
        (
            with("sipCode", json!(99)),
            "sipCode: is not within 100 to 699",
        ),
        (
            with("eventData", json!({"dtmf": "1"})),
            "eventData: dtmf belongs to DTMF_RECEIVED alone",
        ),
    ] {
        api.post(PATH, &key, event.clone())
            .await
            .expect_fault(422, "1001", message);
        let list = json!([received(), event]);
        let message = message.replace("body: ", ": ");
        api.post(PATH, &key, list).await.expect_fault(
            422,
            "1001",
            &format!(
                "[1]{}{message}",
                if message.starts_with(':') { "" } else { "." }
            ),
        );
    }
    let uuid = api
        .post(PATH, &key, with("callId", json!("a84b4c76e66710")))
        .await
        .expect(422);
    let message = uuid.json["statusMessage"].as_str().unwrap();
    assert!(
        message.starts_with("callId: UUID parsing failed"),
        "{message}"
    );
    for body in [json!([]), json!(vec![received(); 1_001])] {
        let message = "body: an array holds 1 to 1000 objects";
        api.post(PATH, &key, body)
            .await
            .expect_fault(422, "1001", message);
    }
    assert!(sink.requests.lock().unwrap().is_empty());
    api.post(PATH, &key, json!(vec![received(); 1_000]))
        .await
        .expect(202);
}

#[tokio::test]
async fn what_is_not_taken_says_why_and_when_to_come_back() {
    let (api, key, sink) = site().await;
    let fail = |fault| *sink.fails.lock().unwrap() = Some(fault);
    let reason = "the leg has ended".to_owned();
    fail(NotReported::Refused { index: 3, reason });
    let refused = api.post(PATH, &key, received()).await.expect(409);
    assert_eq!(refused.json["statusMessage"], "[3]: the leg has ended");
    assert_eq!(refused.json["index"], 3);
    assert_eq!(refused.json["statusCode"], "409");
    fail(NotReported::Busy);
    let busy = api.post(PATH, &key, received()).await;
    assert_eq!(busy.header("retry-after"), Some("1"));
    busy.expect_fault(429, "429", "Too much waits to be written; try again");
    fail(NotReported::Failed(StoreError::Conflict { what: "a row" }));
    api.post(PATH, &key, received())
        .await
        .expect_fault(500, "500", "Internal error");
}

#[tokio::test]
async fn a_list_may_be_a_mebibyte_long_and_no_longer() {
    let (api, key, sink) = site().await;
    let padded = |length: usize| {
        let mut body = json!([received()]).to_string().into_bytes();
        body.resize(length, b' ');
        Some(body)
    };
    let send = |body| api.send("POST", PATH, Some(&key), body);
    send(padded(1 << 20)).await.expect(202);
    send(padded((1 << 20) + 1))
        .await
        .expect_fault(413, "413", "The request body is above 1024 kB");
    assert_eq!(sink.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn updates_are_taken_of_a_sub_account_that_the_key_has_a_right_to() {
    let (api, key, sink) = site().await;
    let other = api.sub_account("other").await;
    api.send("POST", PATH, None, None).await.expect(401);
    api.post(PATH, &other, received()).await.expect(403);
    let unknown = PATH.replace("market", "nobody");
    api.post(&unknown, &key, received()).await.expect(403);
    api.post(&unknown, ADMIN_KEY, received()).await.expect(404);
    assert!(sink.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_key_that_was_looked_up_is_good_for_two_seconds_without_the_store() {
    let (api, key, _sink) = site().await;
    api.post(PATH, &key, received()).await.expect(202);
    api.store.break_table("api_keys");
    api.post(PATH, &key, received()).await.expect(202);
    api.post(PATH, "mk_unknown", received()).await.expect(500);
}
