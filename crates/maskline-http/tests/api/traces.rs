//! How calls went: for the admin key, without numbers unless everything is asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use maskline_events::{Party, SessionStatus, Timestamp};
use maskline_http::Traces;
use maskline_media::Side;
use maskline_store::{SqliteLocation, TraceBatch, TraceFile, TraceHead};
use maskline_switch::sip::{Peer, Transport};
use maskline_switch::trace::{Direction, Step, TraceEvent, TracedMessage, TracedSide};
use maskline_switch::{Now, Tick, TraceEntry};
use uuid::Uuid;

use crate::support::{ADMIN_KEY, Api, START_MS, Setup, start, start_with};

const SESSION: Uuid = Uuid::from_u128(0x0192_aaaa_bbbb_7ccc_8ddd_0000_0000_0001);
const NUMBER: &str = "+6591234567";

const INVITE: &str = "INVITE sip:+6531580001@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1\r\n\
    From: \"Alice Tan\" <sip:+6591234567@192.0.2.9>;tag=a1\r\nTo: <sip:+6531580001@192.0.2.1>\r\nCall-ID: 91234567@192.0.2.9\r\n\
    CSeq: 1 INVITE\r\nX-Note: 9123-4567\r\nAuthorization: Digest username=\"u\", response=\"5ec4e7\"\r\nContent-Length: 0\r\n\r\n";

fn entries() -> Vec<TraceEntry> {
    let message = |direction, text: &str| {
        TraceEvent::Message(TracedMessage {
            direction,
            side: Side::Caller,
            peer: Peer {
                listener: 0,
                transport: Transport::Udp,
                addr: "192.0.2.9:5060".parse().unwrap(),
            },
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            length: text.len(),
        })
    };
    let number = |text: &str| Party::Number(text.parse().unwrap());
    let all = vec![
        message(Direction::In, INVITE),
        message(Direction::In, INVITE),
        TraceEvent::Step(Step::Leg {
            side: TracedSide::A,
            call_id: Uuid::from_u128(5),
            source: number(NUMBER),
            destination: number("+6531580001"),
            trunk: Some("carrier".into()),
            sub_account_id: "acme".to_owned(),
        }),
        TraceEvent::Step(Step::Asked),
        TraceEvent::Step(Step::Answered {
            outcome: "hangup".into(),
            usable: true,
        }),
        message(
            Direction::Out,
            "SIP/2.0 603 Decline\r\nCSeq: 1 INVITE\r\n\r\n",
        ),
        TraceEvent::Step(Step::Ended {
            status: SessionStatus::Completed,
            error: None,
        }),
    ];
    let entry = |(at, what)| TraceEntry {
        session_id: SESSION,
        at: Now {
            tick: Tick::from_start(Duration::from_millis(at)),
            wall: Timestamp::from_unix_ms(START_MS),
        },
        what,
    };
    (100..).zip(all).map(entry).collect()
}

async fn with_a_call() -> Api {
    let file = TraceFile::open(&SqliteLocation::Ephemeral, 1).unwrap();
    let batch = TraceBatch {
        session_id: SESSION,
        at: Timestamp::from_unix_ms(START_MS),
        entries: maskline_trace::encode(&entries()),
        known: TraceHead {
            sub_account_id: Some("acme".to_owned()),
            caller: Some(NUMBER.to_owned()),
            called: Some("+6531580001".to_owned()),
            ended: Some(Timestamp::from_unix_ms(START_MS + 1_234)),
            status: Some("COMPLETED".to_owned()),
            ..TraceHead::default()
        },
    };
    file.append(&[batch]).unwrap();
    start_with(Setup {
        traces: Some(Traces {
            file: Arc::new(file),
            listeners: vec!["192.0.2.1:5060".parse().unwrap()],
        }),
        ..Setup::default()
    })
    .await
}

fn path(rest: &str) -> String {
    format!("/api/v1/sessions/{SESSION}/{rest}")
}

#[tokio::test]
async fn a_call_is_told_without_numbers_and_names() {
    let api = with_a_call().await;
    let reply = api.get(&path("trace"), ADMIN_KEY).await.expect(200);
    for secret in ["1234567", "9123-4567", "Alice", "5ec4e7", "1580001"] {
        assert!(!reply.text.contains(secret), "{secret} in {}", reply.text);
    }
    let json = &reply.json;
    assert_eq!(json["sessionStatus"], "COMPLETED");
    assert_eq!(json["end"], "the callflow said hangup; A heard 603 Decline");
    assert_eq!(json["legs"][0]["source"], "+65••••4567");
    assert_eq!(json["ladder"][0]["message"]["retransmission"], false);
    assert_eq!(json["ladder"][1]["message"]["retransmission"], true);
    assert_eq!(json["stages"][0]["name"], "VCA");
    assert_eq!(json["stages"][0]["durationMs"], 1.0);
}

#[tokio::test]
async fn a_call_is_told_in_full_when_that_is_asked_for_but_for_credentials() {
    let api = with_a_call().await;
    let reply = api
        .get(&path("trace?full=true"), ADMIN_KEY)
        .await
        .expect(200);
    assert!(reply.text.contains(NUMBER) && reply.text.contains("Alice Tan"));
    assert!(!reply.text.contains("5ec4e7"), "{}", reply.text);
    let reply = api.get(&path("trace.pcap"), ADMIN_KEY).await.expect(200);
    assert!(reply.text.contains("Alice Tan") && !reply.text.contains("5ec4e7"));
    api.get(&path("trace?full=maybe"), ADMIN_KEY)
        .await
        .expect_fault(422, "1001", "full: must be true or false");
}

#[tokio::test]
async fn a_call_is_drawn_for_a_terminal() {
    let api = with_a_call().await;
    let request = Request::builder()
        .method("GET")
        .uri(path("trace"))
        .header("authorization", format!("Bearer {ADMIN_KEY}"))
        .header("accept", "text/plain");
    let reply = api
        .request(request.body(Vec::new()).unwrap())
        .await
        .expect(200);
    assert!(reply.text.contains("again"), "{}", reply.text);
    assert!(reply.text.contains("603 Decline"), "{}", reply.text);
    assert!(reply.text.lines().all(|line| line.chars().count() <= 100));
}

#[tokio::test]
async fn sessions_are_listed_and_found_by_number() {
    let api = with_a_call().await;
    let reply = api.get("/api/v1/sessions", ADMIN_KEY).await.expect(200);
    assert_eq!(reply.json["count"], 1);
    assert_eq!(reply.json["sessions"][0]["durationMs"], 1_234);
    assert!(!reply.text.contains("1234567"), "{}", reply.text);
    for (query, count) in [
        ("number=%2B6591234567", 1),
        ("number=+6591234567", 1),
        ("number=6531580001&full=true", 1),
        ("number=6591234568&limit=1", 0),
    ] {
        let path = format!("/api/v1/sessions?{query}");
        let reply = api.get(&path, ADMIN_KEY).await.expect(200);
        assert_eq!(reply.json["count"], count, "{query}");
    }
    for (query, message) in [
        ("limit=0", "limit: must be 1 to 500"),
        ("limit=501", "limit: must be 1 to 500"),
        (
            "limit=1&limit=2",
            "query: a parameter is unknown, there twice, or broken",
        ),
    ] {
        let path = format!("/api/v1/sessions?{query}");
        let reply = api.get(&path, ADMIN_KEY).await;
        reply.expect_fault(422, "1001", message);
    }
}

#[tokio::test]
async fn only_the_admin_key_may_see_calls_and_what_is_not_kept_is_not_found() {
    let api = with_a_call().await;
    let key = api.sub_account("acme").await;
    for rest in ["trace", "trace.pcap"] {
        api.get(&path(rest), &key).await.expect(403);
        api.send("GET", &path(rest), None, None).await.expect(401);
        let other = Uuid::from_u128(9);
        for session in [other.to_string(), "x".to_owned()] {
            let path = format!("/api/v1/sessions/{session}/{rest}");
            api.get(&path, ADMIN_KEY).await.expect(404);
        }
    }
    api.get("/api/v1/sessions", &key).await.expect(403);
    let without = start().await;
    without.get("/api/v1/sessions", ADMIN_KEY).await.expect(404);
}
