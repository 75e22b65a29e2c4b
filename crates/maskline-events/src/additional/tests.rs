//! What may be configured, and what an event gets of it.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::call_status::{CallActionPayload, CallStatus, CallType, EventData, Update};
use crate::envelope::{Envelope, EventType};
use crate::error_code::{ErrorCode, ErrorDetails};
use crate::msisdn::{Party, PartyFormat};
use crate::timestamp::Timestamp;

fn number(text: &str) -> Party {
    Party::Number(Msisdn::parse(text).unwrap())
}

/// With every field that a payload may have.
fn payload() -> CallStatusPayload {
    CallStatusPayload {
        event_id: Uuid::from_u128(1),
        call_id: Uuid::from_u128(2),
        session_id: Uuid::from_u128(3),
        sub_account_id: "acme".to_owned(),
        call_status: CallStatus::CallInitiated,
        call_direction: CallDirection::Outbound,
        call_type: CallType::Pstn,
        source: number("+6531001001"),
        destination: number("+6591234567"),
        source_format: PartyFormat::Msisdn,
        destination_format: PartyFormat::Msisdn,
        source_country_code: Some("SG".to_owned()),
        destination_country_code: Some("SG".to_owned()),
        call_duration: 0,
        sip_code: 200,
        timestamp: Timestamp::from_unix_ms(0),
        sequence: 1,
        source_ref_id: Some("desk \"1\"".to_owned()),
        destination_ref_id: Some("elsewhere".to_owned()),
        event_data: Some(EventData {
            dtmf: Some("5".to_owned()),
            update: Some(Update::Held),
        }),
        error_details: Some(ErrorDetails::new(ErrorCode::Internal)),
    }
}

fn body(payload: &CallStatusPayload) -> String {
    serde_json::to_string(&Envelope::new(EventType::CallStatus, payload)).unwrap()
}

fn read(entries: Value) -> Result<EventParameters, ParameterFault> {
    let entries: Vec<ParameterEntry> = serde_json::from_value(entries).unwrap();
    EventParameters::new(&entries, |it| it == "SG" || it == "MY")
}

/// What is added to the body of this payload.
fn added(entries: Value, payload: &CallStatusPayload) -> String {
    let before = body(payload);
    let mut after = before.clone();
    read(entries).unwrap().add_to(&mut after, payload);
    let kept = before.strip_suffix("}}").unwrap();
    let added = after.strip_prefix(kept).expect("the rest stays");
    added.strip_suffix("}}").unwrap().to_owned()
}

#[test]
fn every_field_of_a_payload_is_refused_as_a_name_however_it_is_capitalised() {
    let whole = CallActionPayload {
        call: payload(),
        client_action_id: Some("x".to_owned()),
    };
    let whole = serde_json::to_value(whole).unwrap();
    let fields: Vec<&String> = whole.as_object().unwrap().keys().collect();
    assert_eq!(fields.len(), CONTRACT_FIELDS.len());
    for field in fields {
        for name in [field.clone(), field.to_uppercase(), field.to_lowercase()] {
            let fault = read(json!([{"name": "mine", "value": 1}, {"name": name, "value": 1}]));
            let fault = fault.unwrap_err();
            assert_eq!((fault.index, fault.field), (1, "name"), "{name}");
            let reason = format!("must not be that of the field `{field}`");
            assert_eq!(fault.reason, reason);
        }
    }
}

#[test]
fn a_name_whose_values_are_shown_although_numbers_are_hidden_is_refused() {
    for field in KEPT {
        let fault = read(json!([{"name": field, "value": 1}])).unwrap_err();
        let reason = format!("must not be that of the field `{field}`");
        assert_eq!(fault.reason, reason);
    }
}

#[test]
fn what_can_t_be_used_is_refused_by_its_place_and_field() {
    let long = "x".repeat(65);
    for (entries, fault) in [
        (
            json!([{"name": "", "value": 1}]),
            "[0].name: is not 1 to 64",
        ),
        (
            json!([{"name": "1a", "value": 1}]),
            "[0].name: is not 1 to 64",
        ),
        (
            json!([{"name": "_a", "value": 1}]),
            "[0].name: is not 1 to 64",
        ),
        (
            json!([{"name": "a-b", "value": 1}]),
            "[0].name: is not 1 to 64",
        ),
        (
            json!([{"name": "a\"", "value": 1}]),
            "[0].name: is not 1 to 64",
        ),
        (
            json!([{"name": "é", "value": 1}]),
            "[0].name: is not 1 to 64",
        ),
        (
            json!([{"name": long, "value": 1}]),
            "[0].name: is not 1 to 64",
        ),
        (json!([{"name": "a"}]), "[0].value: an entry has either"),
        (
            json!([{"name": "a", "value": null}]),
            "[0].value: an entry has either",
        ),
        (
            json!([{"name": "a", "value": 1, "from": "leg"}]),
            "[0].value: an entry has either",
        ),
        (
            json!([{"name": "a", "value": [1]}]),
            "[0].value: must be a text, a number or a boolean",
        ),
        (
            json!([{"name": "a", "value": {"b": 1}}]),
            "[0].value: must be a text, a number or a boolean",
        ),
        (
            json!([{"name": "a", "value": 1, "country": "sg"}]),
            "[0].country: is no assigned",
        ),
        (
            json!([{"name": "a", "value": 1, "country": "XX"}]),
            "[0].country: is no assigned",
        ),
        (
            json!([{"name": "a", "value": 1, "prefix": ""}]),
            "[0].prefix: is no beginning",
        ),
        (
            json!([{"name": "a", "value": 1, "prefix": "+0"}]),
            "[0].prefix: is no beginning",
        ),
        (
            json!([{"name": "a", "value": 1, "prefix": "+65 9"}]),
            "[0].prefix: is no beginning",
        ),
        (
            json!([{"name": "a", "value": 1, "prefix": "1234567890123456"}]),
            "[0].prefix: is no beginning",
        ),
        (
            json!([{"name": "a", "value": 1, "country": "SG", "prefix": "65"}]),
            "[0].prefix: can't stand beside `country`",
        ),
        (
            json!([{"name": "a", "value": 1}, {"name": "a", "from": "leg"}]),
            "[1].name: is there already for the same destinations",
        ),
        (
            json!([{"name": "a", "value": 1, "prefix": "65"}, {"name": "a", "value": 2, "prefix": "+65"}]),
            "[1].name: is there already for the same destinations",
        ),
        (
            json!([{"name": "ab", "value": 1}, {"name": "Ab", "value": 1, "country": "SG"}]),
            "[1].name: differs from another name by its capitals alone",
        ),
        (
            json!([{"name": "a", "value": "x".repeat(2_000)}, {"name": "b", "from": "referenceId"}]),
            "[1].value: an event may grow by 2048 bytes, not by 2414",
        ),
        (
            json!([{"name": "a", "value": "\u{1}".repeat(400)}]),
            "[0].value: an event may grow by 2048 bytes, not by 2407",
        ),
        (
            Value::from(vec![json!({"name": "a", "value": 1}); 201]),
            "[200].name: is beyond the 200 entries",
        ),
    ] {
        let said = read(entries.clone()).unwrap_err().to_string();
        assert!(said.starts_with(fault), "{entries}: {said}");
    }
}

#[test]
fn of_each_name_the_longest_prefix_counts_then_the_country_then_what_is_for_all() {
    let entries = json!([
        {"name": "a", "value": "all"},
        {"name": "a", "value": "short", "prefix": "659"},
        {"name": "a", "value": "long", "prefix": "+65912"},
        {"name": "a", "value": "other", "prefix": "6592"},
        {"name": "a", "value": "sg", "country": "SG"},
        {"name": "a", "value": "my", "country": "MY"},
        {"name": "b", "value": true, "country": "MY"},
    ]);
    let mut call = payload();
    for (destination, country, expected) in [
        ("+6591234567", Some("SG"), ",\"a\":\"long\""),
        ("+6591334567", Some("SG"), ",\"a\":\"short\""),
        ("+6581234567", Some("SG"), ",\"a\":\"sg\""),
        ("+60312345678", Some("MY"), ",\"a\":\"my\",\"b\":true"),
        ("+4930123456", Some("DE"), ",\"a\":\"all\""),
        ("+80012345678", None, ",\"a\":\"all\""),
    ] {
        call.destination = number(destination);
        call.destination_country_code = country.map(str::to_owned);
        assert_eq!(added(entries.clone(), &call), expected, "{destination}");
    }
    call.destination = Party::Anonymous;
    call.destination_country_code = None;
    assert_eq!(added(entries, &call), ",\"a\":\"all\"");
}

#[test]
fn values_are_written_as_json_and_those_of_the_call_are_its_own() {
    let entries = json!([
        {"name": "z", "value": "a\"\\\n"}, {"name": "y", "value": 1.5}, {"name": "x", "value": -3},
        {"name": "w", "value": false}, {"name": "ref", "from": "referenceId"},
        {"name": "Account", "from": "subAccountId"}, {"name": "leg", "from": "leg"},
    ]);
    let mut b = payload();
    b.destination_ref_id = None;
    assert_eq!(
        added(entries.clone(), &b),
        ",\"Account\":\"acme\",\"leg\":\"B\",\"ref\":\"desk \\\"1\\\"\",\"w\":false,\"x\":-3,\
         \"y\":1.5,\"z\":\"a\\\"\\\\\\n\""
    );
    let mut a = payload();
    a.call_direction = CallDirection::Inbound;
    a.source_ref_id = None;
    let told = added(entries.clone(), &a);
    assert!(told.starts_with(",\"Account\":\"acme\",\"leg\":\"A\",\"ref\":\"elsewhere\","));
    a.destination_ref_id = None;
    let told = added(entries, &a);
    assert!(told.starts_with(",\"Account\":\"acme\",\"leg\":\"A\",\"w\":false,"));
}

#[test]
fn an_event_reads_the_same_with_them_as_without() {
    let entries = json!([{"name": "tenant", "value": "eu"}, {"name": "leg", "from": "leg"}]);
    let parameters = read(entries).unwrap();
    let call = payload();
    let mut told = body(&call);
    parameters.add_to(&mut told, &call);
    let back: Envelope<CallStatusPayload> = serde_json::from_str(&told).unwrap();
    assert_eq!(back.payload, call);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["payload"]["tenant"], "eu");
    assert_eq!(told.as_object().unwrap().len(), 4);
}

#[test]
fn an_event_never_grows_by_more_than_was_said() {
    let mut call = payload();
    call.destination_ref_id = None;
    // The longest reference id that the API takes, each way of being long.
    for longest in ["\"".repeat(100), "𝄞".repeat(100)] {
        call.source_ref_id = Some(longest);
        let entries = json!([{"name": "ref", "from": "referenceId"}]);
        let most = read(entries.clone()).unwrap().most_bytes();
        assert!(added(entries, &call).len() <= most);
    }
}

#[test]
fn nothing_is_added_where_nothing_is_configured() {
    assert!(read(json!([])).unwrap().is_empty());
    assert_eq!(added(json!([]), &payload()), "");
    let mut text = "no body of ours".to_owned();
    let one = read(json!([{"name": "a", "value": 1}])).unwrap();
    one.add_to(&mut text, &payload());
    assert_eq!(text, "no body of ours");
}
