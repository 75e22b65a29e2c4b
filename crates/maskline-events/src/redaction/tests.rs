//! What is hidden, what stays, and that typed receivers still read it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::call_status::{
    CallActionPayload, CallDirection, CallStatus, CallStatusPayload, CallType,
};
use crate::envelope::{Envelope, EventType};
use crate::error_code::{ErrorCode, ErrorDetails};
use crate::summary::SessionSummaryPayload;
use crate::timestamp::Timestamp;

fn masked() -> Hiding {
    Hiding::new(Redaction::Masked, || Zeroizing::new([0; 32])).unwrap()
}

fn tokens(key: u8) -> Hiding {
    Hiding::new(Redaction::Token, || Zeroizing::new([key; 32])).unwrap()
}

fn number(text: &str) -> Msisdn {
    Msisdn::parse(text).unwrap()
}

/// Its id has no digit.
fn payload(source: Party, destination: Party) -> CallStatusPayload {
    CallStatusPayload {
        event_id: Uuid::from_u128(u128::MAX),
        call_id: Uuid::from_u128(u128::MAX),
        session_id: Uuid::from_u128(u128::MAX),
        sub_account_id: "acme".to_owned(),
        call_status: CallStatus::CallDisconnected,
        call_direction: CallDirection::Outbound,
        call_type: CallType::Pstn,
        source_format: source.format(),
        destination_format: destination.format(),
        source,
        destination,
        source_country_code: Some("SG".to_owned()),
        destination_country_code: None,
        call_duration: 12,
        sip_code: 200,
        timestamp: Timestamp::from_unix_ms(0),
        sequence: 7,
        source_ref_id: None,
        destination_ref_id: None,
        event_data: None,
        error_details: None,
    }
}

fn body(payload: &CallStatusPayload) -> String {
    serde_json::to_string(&Envelope::new(EventType::CallStatus, payload)).unwrap()
}

const STATUS: &str = "{\"namespace\":\"VOICE\",\"eventType\":\"CALL_STATUS\",\
    \"description\":\"Status update of a call\",\"payload\":{\"eventId\":\"e-6591234567\",\
    \"source\":\"+6531001001\",\"destination\":\"+6591234567\",\"sourceFormat\":\"MSISDN\",\
    \"destinationFormat\":\"MSISDN\",\"callDuration\":659123,\"sequence\":1,\
    \"sourceRefId\":\"desk +6531001001, 65310010\",\"tenant\":\"t-42\",\"hotline\":6591234567,\
    \"rate\":0.5,\"vip\":true,\"none\":null}}";

#[test]
fn numbers_are_masked_and_nothing_else_changes() {
    let expected = STATUS
        .replace(
            "desk +6531001001, 65310010",
            "desk +65••••1001, +65••••1001",
        )
        .replace("\"+6531001001\"", "\"+65••••1001\"")
        .replace("\"+6591234567\"", "\"+65••••4567\"")
        .replace(":6591234567", ":\"+65••••4567\"")
        .replace("\"MSISDN\"", "\"MASKED\"");
    assert_eq!(masked().body(STATUS).unwrap(), expected);
}

#[test]
fn tokens_stand_for_numbers_and_nothing_else_changes() {
    // As another implementation of HMAC-SHA256 has them.
    let (one, other) = ("tok_CYAWvmEPolEztjWbLj9_cn", "tok_mBhBljfVae-4kRK5nUzlWk");
    let expected = STATUS
        .replace("desk +6531001001, 65310010", &format!("desk {one}, {one}"))
        .replace("\"+6531001001\"", &format!("\"{one}\""))
        .replace("\"+6591234567\"", &format!("\"{other}\""))
        .replace(":6591234567", &format!(":\"{other}\""))
        .replace("\"MSISDN\"", "\"TOKEN\"");
    assert_eq!(tokens(7).body(STATUS).unwrap(), expected);
}

#[test]
fn a_token_is_the_same_for_the_same_number_and_key_and_another_for_any_other() {
    let first = tokens(1).number(&number("+6591234567"));
    assert_eq!(tokens(1).number(&number("6591234567")), first);
    assert_ne!(tokens(1).number(&number("+6591234568")), first);
    assert_ne!(tokens(2).number(&number("+6591234567")), first);
}

#[test]
fn withheld_callers_and_formats_of_no_number_stay() {
    let call = payload(Party::Anonymous, Party::Number(number("+6591234567")));
    for hiding in [masked(), tokens(1)] {
        let told: Value = serde_json::from_str(&hiding.body(&body(&call)).unwrap()).unwrap();
        assert_eq!(told["payload"]["source"], "anonymous");
        assert_eq!(told["payload"]["sourceFormat"], "ANONYMOUS");
        assert_ne!(told["payload"]["destination"], "+6591234567");
        assert_ne!(told["payload"]["destinationFormat"], "MSISDN");
    }
}

#[test]
fn of_a_short_number_nothing_is_shown() {
    for short in ["+112", "+12345", "+1234567"] {
        let call = payload(Party::Number(number(short)), Party::Anonymous);
        let told: Value = serde_json::from_str(&masked().body(&body(&call)).unwrap()).unwrap();
        assert_eq!(told["payload"]["source"], "+••••", "{short}");
        assert_eq!(told["payload"]["sipCode"], 200);
    }
}

#[test]
fn what_is_no_number_where_one_belongs_is_not_shown() {
    let odd = json!({"payload": {"source": "65 9123 4567", "msisdn": ""}}).to_string();
    let expected = json!({"payload": {"source": "••••", "msisdn": "••••"}}).to_string();
    assert_eq!(masked().body(&odd).unwrap(), expected);
    assert_eq!(tokens(1).body(&odd).unwrap(), expected);
}

#[test]
fn summaries_and_lists_of_numbers_are_hidden_at_any_depth() {
    let leg = |source: &str, destination: &str| {
        json!({
            "callId": Uuid::nil(), "callDirection": "INBOUND", "callType": "PSTN",
            "initiatedTimestamp": "2026-01-06T10:17:19.375Z",
            "disconnectedTimestamp": "2026-01-06T10:17:33.375Z",
            "source": source, "destination": destination,
            "sourceFormat": "MSISDN", "destinationFormat": "MSISDN",
            "callStatus": "COMPLETED", "callDuration": 3,
            "callQuality": {"mos": 4.4, "packetLossRate": 0.659_123, "jitter": 2}
        })
    };
    let summary = json!({
        "namespace": "VOICE", "eventType": "SESSION_SUMMARY", "description": "x",
        "payload": {
            "sessionId": Uuid::nil(), "subAccountId": "acme", "sessionStatus": "ERROR",
            "startTime": "2026-01-06T10:17:19.375Z", "endTime": "2026-01-06T10:17:33.375Z",
            "lastAction": "MAKE_CALL", "callCount": 2,
            "errorDetails": {"errorCode": -2002, "errorMsg": "no route to 6591234567"},
            "details": {
                "callA": leg("+6581110001", "+6531001001"),
                "callB": leg("+6531001001", "+6591234567")
            }
        }
    });
    let told = tokens(3).body(&summary.to_string()).unwrap();
    for digits in ["81110001", "31001001", "91234567"] {
        assert!(!told.contains(digits), "{told}");
    }
    let read: Envelope<SessionSummaryPayload> = serde_json::from_str(&told).unwrap();
    let (a, b) = (read.payload.details.call_a, read.payload.details.call_b);
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.destination, b.source, "equal numbers, equal tokens");
    assert_eq!(a.destination_format, PartyFormat::Token);
    assert_ne!(a.source, b.destination);
    assert_eq!(a.call_quality.unwrap().packet_loss_rate, 0.659_123);
    assert!(matches!(b.destination, Party::Token(_)), "{b:?}");

    let updated = json!({"payload": {"totalNumbers": 1, "virtualNumbers": [
        {"msisdn": "+6531001001", "referenceId": "6531001001", "rentalPrice": 0}
    ]}});
    let told: Value = serde_json::from_str(&masked().body(&updated.to_string()).unwrap()).unwrap();
    let told = &told["payload"]["virtualNumbers"][0];
    assert_eq!(told["msisdn"], "+65••••1001");
    assert_eq!(told["referenceId"], "+65••••1001");
}

/// What becomes of a text beside a leg from +6581110001.
fn beside(hiding: &Hiding, text: &Value) -> Value {
    let body = json!({"payload": {"source": "+6581110001", "mine": text}}).to_string();
    let mut told: Value = serde_json::from_str(&hiding.body(&body).unwrap()).unwrap();
    told["payload"]["mine"].take()
}

#[test]
fn a_number_in_a_text_is_hidden_however_it_is_written_and_whosever_it_is() {
    for written in [
        "+6591234567",
        "6591234567",
        "+65 9123 4567",
        "+65\u{a0}9123\u{a0}4567",
        "+65-9123-4567",
        "+65 (9123) 45.67",
        "+65.9123.4567",
        "+6-5-9-1-2-3-4-5-6-7",
        "+65\u{202f}9123 \u{2011} 4567",
    ] {
        let text = json!(format!("no route to {written}, given up (503)"));
        let token = tokens(1).number(&number("+6591234567"));
        assert_eq!(
            beside(&masked(), &text),
            "no route to +65••••4567, given up (503)",
            "{written}"
        );
        assert_eq!(
            beside(&tokens(1), &text),
            format!("no route to {token}, given up (503)")
        );
    }
    // The leg's own, in part and with separators.
    assert_eq!(beside(&masked(), &json!("8111-00 x")), "+65••••0001 x");
    // What no number begins with, and what is longer than one.
    assert_eq!(beside(&masked(), &json!("dial 09123 4567")), "dial ••••");
    let long = json!("6591234567 6591234568");
    assert_eq!(beside(&tokens(1), &long), "••••");
    assert_eq!(beside(&masked(), &json!(6_591_234_567_u64)), "+65••••4567");
}

#[test]
fn too_few_digits_for_a_number_stay() {
    for text in [
        "t-42, 503 (10.5 s)",
        "desk 123456",
        "12-34.56",
        "1, 2, 3, 4, 5, 6, 7, 8",
        "v1.2.3 ()-. ",
        "",
    ] {
        assert_eq!(beside(&masked(), &json!(text)), text);
    }
    for figure in [json!(0.25), json!(-123_456), json!(4711)] {
        assert_eq!(beside(&masked(), &figure), figure);
    }
}

#[test]
fn a_leg_s_number_that_is_a_figure_is_hidden_there_and_in_texts() {
    let body = json!({"payload": {"msisdn": 659_123, "source": 1.5, "mine": "to 65-91-23"}});
    let told: Value = serde_json::from_str(&masked().body(&body.to_string()).unwrap()).unwrap();
    let expected = json!({"payload": {"msisdn": "+••••", "source": "••••", "mine": "to +••••"}});
    assert_eq!(told, expected);
}

#[test]
fn a_body_that_is_no_json_is_not_shown_at_all() {
    for text in ["", "{\"source\":\"+6591234567\"", "+6591234567 x"] {
        assert_eq!(masked().body(text), Err(Unreadable));
    }
}

#[test]
fn full_hides_nothing_and_asks_for_no_key() {
    let way = Hiding::new(Redaction::Full, || unreachable!("nobody needs it"));
    assert!(way.is_none());
    assert_eq!(serde_json::to_string(&Redaction::Full).unwrap(), "\"full\"");
    assert_eq!(
        serde_json::from_str::<Redaction>("\"token\"").unwrap(),
        Redaction::Token
    );
}

/// As many digits in a row give a number away (contract §6.4).
const SIX: usize = 6;

/// Numbers of 6 to 15 digits: what is shorter may equal a status or a year.
fn any_number() -> impl Strategy<Value = Msisdn> {
    "[1-9][0-9]{5,14}".prop_map(|digits| number(&digits))
}

proptest! {
    #[test]
    fn a_hidden_body_has_no_run_of_digits_of_the_planted_numbers_and_still_reads(
        numbers in prop::array::uniform2(any_number()),
        before in "[a-z +-]{0,4}",
        extra in prop::option::of("[0-9]{1,3}"),
        key in any::<u8>(),
    ) {
        let [one, other] = &numbers;
        let mut call = payload(Party::Number(one.clone()), Party::Number(other.clone()));
        let extra = extra.unwrap_or_default();
        call.source_ref_id = Some(format!("{before}{}{extra}", one.as_str()));
        call.destination_ref_id = Some(format!("{before}{}{extra}", other.digits()));
        let reason = format!("{}{} {}", before, &other.digits()[..SIX], one.as_str());
        call.error_details = Some(ErrorDetails::with_reason(ErrorCode::Internal, &reason));
        let mut text = body(&call);
        text.truncate(text.len() - 2);
        text.push_str(&format!(",\"mine\":\"{extra}{}\",\"figure\":{}}}}}", other.digits(), one.digits()));
        for hiding in [masked(), tokens(key)] {
            let told = hiding.body(&text).unwrap();
            prop_assert_eq!(&hiding.body(&text).unwrap(), &told);
            for number in &numbers {
                let mut parts = number.digits().as_bytes().windows(SIX);
                let shown = parts.find(|part| told.contains(str::from_utf8(part).unwrap()));
                prop_assert!(shown.is_none(), "{:?} of {:?} in {}", shown, number.as_str(), told);
            }
            let read: Envelope<CallStatusPayload> = serde_json::from_str(&told).unwrap();
            prop_assert_eq!(read.payload.source.as_str(), hiding.number(one));
            prop_assert_eq!(read.payload.source.format(), read.payload.source_format);
            prop_assert_eq!(read.payload.destination.format(), read.payload.destination_format);
            prop_assert_eq!(read.payload.destination.number(), None);
            prop_assert_eq!(read.payload.event_id, call.event_id);
            let again = serde_json::to_value(&read.payload).unwrap();
            prop_assert_eq!(&again["source"], &json!(hiding.number(one)));
        }
    }

    #[test]
    fn whatever_the_text_nothing_panics(text in ".{0,200}") {
        let _ = masked().body(&text);
        let quoted = json!({"source": "+6591234567", "x": text}).to_string();
        prop_assert!(tokens(1).body(&quoted).is_ok());
    }
}

#[test]
fn a_call_action_reads_the_same_types() {
    let call = CallActionPayload {
        call: payload(Party::Anonymous, Party::Masked("+65••••4567".into())),
        client_action_id: None,
    };
    let text = serde_json::to_string(&call).unwrap();
    assert_eq!(
        serde_json::from_str::<CallActionPayload>(&text).unwrap(),
        call
    );
}
