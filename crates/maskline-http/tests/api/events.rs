//! Looking back at events, their logs, replays.

use std::sync::Arc;
use std::time::Duration;

use maskline_events::{Timestamp, WebhookType};
use maskline_store::{
    AttemptRecord, DeliveryState, EventRow, JournalBatch, JournalEntry, Outcome, Settlement,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ADMIN_KEY, Api, START_MS, start};

fn session(number: u64) -> Uuid {
    Uuid::from_u64_pair(0, number)
}

fn event(owner: &str, number: u64, ordinal: u64) -> EventRow {
    EventRow {
        event_id: Uuid::from_u64_pair(number, ordinal),
        session_id: session(number),
        sub_account_id: owner.to_owned(),
        ordinal,
        webhook_type: WebhookType::Vcs,
        at: Timestamp::from_unix_ms(START_MS + i64::try_from(ordinal).unwrap()),
        body: format!("{{\"b\": {number},\"a\":{ordinal}}}"),
    }
}

async fn commit(api: &Api, events: Vec<EventRow>) {
    let entry = JournalEntry {
        session_id: events[0].session_id,
        sub_account_id: events[0].sub_account_id.clone(),
        snapshot: None,
        events,
    };
    let entries = vec![Arc::new(entry)];
    let batch = JournalBatch { entries };
    api.store.shared().commit(batch).await.unwrap();
}

async fn settle(api: &Api, event: &EventRow, state: DeliveryState) {
    let settlement = Settlement {
        sub_account_id: event.sub_account_id.clone(),
        session_id: event.session_id,
        ordinal: event.ordinal,
        outcome: Outcome {
            event_id: event.event_id,
            state,
            attempts: 1,
            next_attempt_at: None,
            status: Some(503),
            error: Some("the receiver answered 503".to_owned()),
            at: event.at,
        },
        attempt: Some(AttemptRecord {
            duration: Duration::from_millis(12),
            answer: b"go \xff away".to_vec(),
            truncated: false,
        }),
    };
    let deliveries = api.store.deliveries();
    deliveries
        .settle(Arc::from(vec![settlement]))
        .await
        .unwrap();
}

fn path(rest: &str) -> String {
    format!("/api/v1/subaccounts/shop/{rest}")
}

fn cursors(json: &Value) -> Vec<String> {
    let events = json["events"].as_array().unwrap();
    let text = |event: &Value| event["cursor"].as_str().unwrap().to_owned();
    events.iter().map(text).collect()
}

#[tokio::test]
async fn a_receiver_that_was_away_reads_what_it_missed_page_by_page_as_it_was_sent() {
    let api = start().await;
    let key = api.sub_account("shop").await;
    api.sub_account("other").await;
    for number in 1..=3 {
        commit(
            &api,
            vec![event("shop", number, 1), event("shop", number, 2)],
        )
        .await;
        commit(&api, vec![event("other", number + 10, 1)]).await;
    }
    settle(&api, &event("shop", 1, 1), DeliveryState::Dead).await;
    let first = api.get(&path("events?limit=4"), &key).await.expect(200);
    assert_eq!(
        (&first.json["count"], &first.json["more"]),
        (&json!(4), &json!(true))
    );
    assert_eq!(
        first.json["events"][0],
        json!({
            "cursor": "e1", "eventId": event("shop", 1, 1).event_id, "sessionId": session(1),
            "type": "VCS", "timestamp": event("shop", 1, 1).at, "state": "DEAD", "attempts": 1,
            "body": event("shop", 1, 1).body,
        })
    );
    assert_eq!(first.json["events"][1]["state"], "PENDING");
    let next = first.json["next"].as_str().unwrap();
    let rest = api
        .get(&path(&format!("events?after={next}")), ADMIN_KEY)
        .await;
    let rest = rest.expect(200).json;
    assert_eq!(
        (&rest["count"], &rest["more"], &rest["gap"]),
        (&json!(2), &json!(false), &json!(false))
    );
    let mut all = cursors(&first.json);
    all.extend(cursors(&rest));
    assert_eq!(all, ["e1", "e2", "e4", "e5", "e7", "e8"]);

    let end = rest["next"].as_str().unwrap();
    let none = api
        .get(&path(&format!("events?after={end}&type=VCS")), &key)
        .await;
    assert_eq!(none.expect(200).json["count"], 0);
    let summaries = api.get(&path("events?type=VSS"), &key).await.expect(200);
    assert_eq!(summaries.json["count"], 0);
    let strange = api.get(&path("events?after=effff"), &key).await.expect(200);
    assert_eq!(strange.json["gap"], true);
}

#[tokio::test]
async fn the_log_of_an_event_says_what_each_attempt_came_to() {
    let api = start().await;
    let key = api.sub_account("shop").await;
    let one = event("shop", 1, 1);
    commit(&api, vec![one.clone()]).await;
    let log = path(&format!("events/{}/attempts", one.event_id));
    assert_eq!(api.get(&log, &key).await.expect(200).json["count"], 0);
    settle(&api, &one, DeliveryState::Dead).await;
    let reply = api.get(&log, &key).await.expect(200);
    assert_eq!(
        reply.json["attempts"],
        json!([{
            "number": 1, "timestamp": one.at, "state": "DEAD", "status": 503, "durationMs": 12,
            "error": "the receiver answered 503", "answer": "go \u{fffd} away", "truncated": false,
        }])
    );
}

#[tokio::test]
async fn what_is_replayed_is_pending_again_and_told() {
    let api = start().await;
    let key = api.sub_account("shop").await;
    for number in 1..=2 {
        let call = vec![event("shop", number, 1), event("shop", number, 2)];
        commit(&api, call.clone()).await;
        settle(&api, &call[0], DeliveryState::Delivered).await;
        settle(&api, &call[1], DeliveryState::Dead).await;
    }
    for kind in ["VCS", "VSS"] {
        let webhook = json!({"type": kind, "url": "https://example.com"});
        api.post(&path("webhooks"), &key, webhook).await.expect(200);
    }
    api.changes.take();
    let (from, to) = (event("shop", 1, 2).at, event("shop", 1, 2).at);
    let ok = |events| json!({"events": events, "statusCode": 0, "statusMessage": "ok"});
    let one = json!({"eventId": event("shop", 1, 1).event_id});
    for (body, events, told) in [
        (one.clone(), 1, vec![session(1)]),
        (one, 0, vec![]),
        (
            json!({"type": "VCS", "from": from, "to": to}),
            2,
            vec![session(1), session(2)],
        ),
        (
            json!({"sessionId": session(2), "states": ["DEAD"]}),
            0,
            vec![],
        ),
        (json!({"sessionId": session(2)}), 1, vec![session(2)]),
    ] {
        let reply = api.post(&path("replays"), &key, body).await.expect(202);
        assert_eq!(reply.json, ok(events));
        let told: Vec<String> = told.iter().map(|id| format!("{id} of shop")).collect();
        assert_eq!(api.changes.take(), told);
    }
    let list = api.get(&path("events"), &key).await.expect(200).json;
    for event in list["events"].as_array().unwrap() {
        assert_eq!(event["state"], "PENDING");
    }
}

#[tokio::test]
async fn a_replay_says_which_of_its_events_have_nowhere_to_go() {
    let api = start().await;
    let key = api.sub_account("shop").await;
    let call = event("shop", 1, 1);
    commit(&api, vec![call.clone()]).await;
    settle(&api, &call, DeliveryState::NoEndpoint).await;
    let by_time = json!({"type": "VCS", "from": call.at, "to": call.at});
    let by_id = json!({"sessionId": call.session_id});
    let without = async |body: &Value| {
        let reply = api.post(&path("replays"), &key, body.clone()).await;
        reply.expect(202).json["withoutWebhook"].clone()
    };
    assert_eq!(without(&by_id).await, json!(["VCS", "VSS"]));
    for (enabled, expected) in [(false, json!(["VCS"])), (true, Value::Null)] {
        let webhook = json!({"type": "VCS", "url": "https://example.com", "enabled": enabled});
        api.post(&path("webhooks"), &key, webhook).await.expect(200);
        assert_eq!(without(&by_time).await, expected);
    }
    assert_eq!(without(&by_id).await, json!(["VSS"]));
}

#[tokio::test]
async fn events_of_another_sub_account_can_neither_be_seen_nor_replayed() {
    let api = start().await;
    let own = api.sub_account("shop").await;
    let foreign = api.sub_account("other").await;
    let theirs = event("other", 1, 1);
    commit(&api, vec![theirs.clone()]).await;
    settle(&api, &theirs, DeliveryState::Dead).await;
    let log = path(&format!("events/{}/attempts", theirs.event_id));
    for (key, status) in [(&own, 404), (&foreign, 403)] {
        api.get(&log, key).await.expect(status);
        for body in [
            json!({"eventId": theirs.event_id}),
            json!({"sessionId": theirs.session_id}),
        ] {
            api.post(&path("replays"), key, body).await.expect(status);
        }
    }
    api.get(&path("events"), &foreign).await.expect(403);
    assert_eq!(
        api.get(&path("events"), &own).await.expect(200).json["count"],
        0
    );
    let time = json!({"type": "VCS", "from": theirs.at, "to": theirs.at});
    let none = api.post(&path("replays"), &own, time).await.expect(202);
    assert_eq!(none.json["events"], 0);
    api.get("/api/v1/subaccounts/nobody/events", ADMIN_KEY)
        .await
        .expect(404);
    assert!(api.changes.take().is_empty());
}

#[tokio::test]
async fn parameters_that_say_nothing_are_refused_by_name() {
    let api = start().await;
    let key = api.sub_account("shop").await;
    for (query, message) in [
        ("limit=0", "limit: is no number from 1 to 1000"),
        ("limit=1001", "limit: is no number from 1 to 1000"),
        ("after=1", "after: is no cursor of ours"),
        ("after=e", "after: is no cursor of ours"),
        ("after=e-1", "after: is no cursor of ours"),
        ("after=effffffffffffffff", "after: is no cursor of ours"),
        ("type=XYZ", "type: is no type of webhook"),
        (
            "state=DEAD",
            "query: a parameter is unknown, there twice, or broken",
        ),
    ] {
        let reply = api.get(&path(&format!("events?{query}")), &key).await;
        reply.expect_fault(422, "1001", message);
    }
    let which = "body: needs `eventId`, or `sessionId`, or `type`, `from` and `to`";
    let id = session(1);
    let (early, late) = ("2026-01-06T10:00:00.000Z", "2026-01-06T10:00:01.000Z");
    for (body, message) in [
        (json!({}), which),
        (json!({"eventId": id, "sessionId": id}), which),
        (json!({"eventId": id, "type": "VCS"}), which),
        (json!({"type": "VCS", "from": early}), which),
        (
            json!({"type": "VCS", "from": late, "to": early}),
            "to: is before `from`",
        ),
        (json!({"eventId": id, "states": []}), "states: is empty"),
        (
            json!({"eventId": id, "after": "x"}),
            "after: is no cursor of ours",
        ),
    ] {
        let reply = api.post(&path("replays"), &key, body).await;
        reply.expect_fault(422, "1001", message);
    }
    api.get(&path("events/no-uuid/attempts"), &key)
        .await
        .expect(404);
}
