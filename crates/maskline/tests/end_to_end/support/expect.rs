//! What was told of a call, in words short enough for a table, and the rules that hold for every
//! call.

use std::collections::{BTreeMap, BTreeSet};

use maskline_events::WebhookType;
use serde_json::{Value, json};

use super::receiver::Received;
use super::site::{CALLER, REFERENCE, SUB_ACCOUNT, VIRTUAL};

/// The status events in their order: `A received`, `B ringing`, `B disconnected 487`,
/// `A disconnected 500 -2002`, …
pub fn told(received: &[Received]) -> Vec<String> {
    status_events(received)
        .into_values()
        .map(in_words)
        .collect()
}

/// Status events by sequence. At least once is allowed, so an event may have come twice.
fn status_events(received: &[Received]) -> BTreeMap<u64, &Received> {
    let status = received.iter().filter(|it| it.webhook == WebhookType::Vcs);
    status
        .map(|it| (it.payload("sequence").as_u64().unwrap(), it))
        .collect()
}

fn in_words(event: &Received) -> String {
    let leg = match event.payload("callDirection").as_str() {
        Some("INBOUND") => "A",
        Some("OUTBOUND") => "B",
        other => panic!("callDirection {other:?}"),
    };
    let code = event.payload("sipCode").as_u64().unwrap();
    let what = match event.payload("callStatus").as_str().unwrap() {
        "CALL_RECEIVED" => "received".to_owned(),
        "CALL_INITIATED" => "initiated".to_owned(),
        "CALL_CONNECTED" => "connected".to_owned(),
        "CALL_UPDATED" => event.payload("eventData")["update"]
            .as_str()
            .unwrap()
            .to_lowercase(),
        "DTMF_RECEIVED" => format!(
            "pressed {}",
            event.payload("eventData")["dtmf"].as_str().unwrap()
        ),
        "CALL_DISCONNECTED" => match event.payload("errorDetails")["errorCode"].as_i64() {
            Some(error) => return format!("{leg} disconnected {code} {error}"),
            None => return format!("{leg} disconnected {code}"),
        },
        other => panic!("callStatus {other}"),
    };
    assert_eq!(code, 200, "sipCode of {event:?}");
    format!("{leg} {what}")
}

/// Whether what was told is what was expected. Each entry is a step; ` & ` joins those whose order
/// the wire leaves open, and a leading `?` marks one that may be missing.
pub fn fits(told: &[String], expected: &[&str]) -> bool {
    let mut rest = told;
    for step in expected {
        let mut open: Vec<&str> = step.split(" & ").collect();
        while let Some((first, others)) = rest.split_first() {
            let Some(at) = open
                .iter()
                .position(|it| it.trim_start_matches('?') == first)
            else {
                break;
            };
            open.remove(at);
            rest = others;
        }
        if open.iter().any(|it| !it.starts_with('?')) {
            return false;
        }
    }
    rest.is_empty()
}

/// The rules of the contract that every session keeps, whatever happened. `callee` is the number
/// that the callflow names.
///
/// # Panics
///
/// When one is broken.
pub fn check_rules(received: &[Received], callee: &str) {
    let status = status_events(received);
    let sequence: Vec<u64> = status.keys().copied().collect();
    let without_gap: Vec<u64> = (1..=sequence.len() as u64).collect();
    assert_eq!(sequence, without_gap, "sequence: 1, 2, 3 … without a gap");

    let mut ids = BTreeSet::new();
    for event in status.values() {
        check_fields(event, callee);
        assert!(
            ids.insert(event.payload("eventId").to_string()),
            "one eventId each: {event:?}"
        );
    }
    for event in received {
        let namespace = &event.body["namespace"];
        assert_eq!(namespace, "VOICE");
        assert_eq!(event.body["eventType"], json!(event.webhook.event_type()));
        assert_eq!(
            event.body["description"],
            event.webhook.event_type().description()
        );
        if event.webhook == WebhookType::Vcs {
            let first = status[&event.payload("sequence").as_u64().unwrap()];
            assert_eq!(
                first.raw, event.raw,
                "what comes twice is the same, byte for byte"
            );
            assert_eq!(
                event.header("webhook-id"),
                event.payload("eventId").as_str().unwrap()
            );
        }
    }
    check_order(received);

    for leg in ["INBOUND", "OUTBOUND"] {
        let of_leg: Vec<&str> = status
            .values()
            .filter(|it| it.payload("callDirection") == leg)
            .map(|it| it.payload("callStatus").as_str().unwrap())
            .collect();
        let Some((first, last)) = of_leg.first().zip(of_leg.last()) else {
            continue;
        };
        assert_eq!(
            *first,
            if leg == "INBOUND" {
                "CALL_RECEIVED"
            } else {
                "CALL_INITIATED"
            }
        );
        assert_eq!(*last, "CALL_DISCONNECTED", "{leg}: the last event");
        for once in [
            "CALL_RECEIVED",
            "CALL_INITIATED",
            "CALL_CONNECTED",
            "CALL_DISCONNECTED",
        ] {
            let count = of_leg.iter().filter(|it| **it == once).count();
            assert!(count <= 1, "{leg}: {once} came {count} times");
        }
    }
}

/// Each event's first arrival comes after those before it, and the summary after them all.
fn check_order(received: &[Received]) {
    let mut last = 0;
    let mut summary = None;
    for event in received {
        match event.webhook {
            WebhookType::Vcs => {
                assert!(
                    summary.is_none(),
                    "a status event after the summary: {event:?}"
                );
                let sequence = event.payload("sequence").as_u64().unwrap();
                assert!(
                    sequence <= last + 1,
                    "{sequence} arrived right after {last}"
                );
                last = last.max(sequence);
            }
            WebhookType::Vss => {
                let again = summary.get_or_insert_with(|| event.raw.clone());
                assert_eq!(*again, event.raw, "one summary");
            }
            _ => {}
        }
    }
}

fn check_fields(event: &Received, callee: &str) {
    let inbound = event.payload("callDirection") == "INBOUND";
    let caller = event.payload("sourceFormat") == "MSISDN";
    let expected = if inbound {
        (
            if caller { CALLER } else { "anonymous" },
            VIRTUAL,
            "destinationRefId",
        )
    } else {
        (VIRTUAL, callee, "sourceRefId")
    };
    let (source, destination, reference) = expected;
    assert_eq!(event.payload("source"), source, "{event:?}");
    assert_eq!(event.payload("destination"), destination, "{event:?}");
    assert_eq!(event.payload(reference), REFERENCE, "{event:?}");
    assert_eq!(event.payload("destinationFormat"), "MSISDN", "{event:?}");
    let abroad = !inbound && !callee.starts_with("+65");
    assert!(
        abroad || event.payload("destinationCountryCode") == "SG",
        "{event:?}"
    );
    let country = if caller { json!("SG") } else { Value::Null };
    assert_eq!(event.payload("sourceCountryCode"), &country, "{event:?}");
    assert_eq!(event.payload("subAccountId"), SUB_ACCOUNT, "{event:?}");
    assert_eq!(event.payload("callType"), "PSTN", "{event:?}");
    let at = event.payload("timestamp").as_str().unwrap();
    assert!(
        at.len() == 24 && at.ends_with('Z'),
        "milliseconds and Z: {at}"
    );
}

/// The summary in words: `BUSY A=COMPLETED B=BUSY`, with the error code at the end if there is one.
pub fn summed_up(summary: &Received) -> String {
    let details = summary.payload("details");
    let leg = |name: &str| {
        details[name]["callStatus"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    };
    let session = summary.payload("sessionStatus").as_str().unwrap();
    let mut words = format!("{session} A={} B={}", leg("callA"), leg("callB"));
    if let Some(error) = summary.payload("errorDetails")["errorCode"].as_i64() {
        words.push_str(&format!(" {error}"));
    }
    let legs = details.as_object().unwrap().len() as u64;
    assert_eq!(
        summary.payload("callCount").as_u64(),
        Some(legs),
        "callCount of {summary:?}"
    );
    words
}
