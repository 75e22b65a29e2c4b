//! The fields that the made-up sub-account adds to its events, and what must come of them: they are
//! there, with the right value, and no field of the contract is another because of them.

use maskline_events::{
    CallActionPayload, CallDirection, CallStatusPayload, Envelope, EventParameters, ParameterEntry,
    SessionValue,
};
use maskline_switch::{JournalRecord, RecordedEvent};
use serde_json::{Map, Value};

use crate::scenario::Sabotage;

/// What the sub-account has configured. Callees are of `+6581987`, virtual numbers of Singapore.
pub(crate) fn configured() -> EventParameters {
    let given = |name: &str, value: &str| ParameterEntry {
        name: name.to_owned(),
        value: Some(value.into()),
        from: None,
        country: None,
        prefix: None,
    };
    let of = |name: &str, from| ParameterEntry {
        value: None,
        from: Some(from),
        ..given(name, "")
    };
    let entries = [
        given("tenant", "for all"),
        ParameterEntry {
            country: Some("SG".to_owned()),
            ..given("tenant", "of Singapore")
        },
        ParameterEntry {
            prefix: Some("+6581987".to_owned()),
            ..given("tenant", "of callees")
        },
        of("line", SessionValue::ReferenceId),
        of("end", SessionValue::Leg),
    ];
    EventParameters::new(&entries, |_| true).unwrap_or_default()
}

/// A status event has what is configured, and beside it nothing that its payload lacks.
pub(crate) fn check_event(body: &str, payload: &CallStatusPayload) -> Result<(), String> {
    check(body, payload, payload_of(payload)?)
}

/// So has a question about a call.
pub(crate) fn check_request(body: &str) -> Result<(), String> {
    let read: Envelope<CallActionPayload> = serde_json::from_str(body)
        .map_err(|error| format!("a VCA request does not read: {error}"))?;
    check(body, &read.payload.call, payload_of(&read.payload)?)
}

fn payload_of(payload: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(payload).map_err(|error| error.to_string())
}

fn check(body: &str, call: &CallStatusPayload, contract: Value) -> Result<(), String> {
    let read: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let mut told: Map<String, Value> = match read.get("payload") {
        Some(Value::Object(payload)) => payload.clone(),
        Some(_) | None => return Err("an event without a payload".to_owned()),
    };
    let destination = call.destination.as_str();
    let tenant = if destination.starts_with("+6581987") {
        "of callees"
    } else if destination.starts_with("+65") {
        "of Singapore"
    } else {
        "for all"
    };
    // Only this leg's own reference is a field of it.
    let (end, line, other) = match call.call_direction {
        CallDirection::Inbound => ("A", &call.destination_ref_id, &call.source_ref_id),
        CallDirection::Outbound => ("B", &call.source_ref_id, &call.destination_ref_id),
    };
    let line = line.as_deref().unwrap_or_default();
    for (name, expected) in [("tenant", tenant), ("end", end), ("line", line)] {
        if told.remove(name) != Some(expected.into())
            || body.matches(&format!("\"{name}\":")).count() != 1
        {
            return Err(format!("a parameter is not there, or another: {body}"));
        }
    }
    if Value::Object(told) != contract || other.is_some() || !line.starts_with("ref-") {
        return Err(format!("a parameter has changed the contract: {body}"));
    }
    Ok(())
}

/// Breaks what a shard wants committed, if the run is to.
pub(crate) fn sabotaged(mut record: JournalRecord, sabotage: Sabotage) -> JournalRecord {
    if let Sabotage::AddToEvents(text) = sabotage {
        let breaks = |event: &mut RecordedEvent| {
            if let Some(before) = event.body.strip_suffix("}}") {
                event.body = format!("{before},{text}}}}}");
            }
        };
        record.events.iter_mut().for_each(breaks);
    }
    record
}
