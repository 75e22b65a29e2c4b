//! Calls and deliveries as spans, in the JSON of OTLP 1 (opentelemetry-proto, "JSON Protobuf
//! Encoding"). Pure.
//!
//! A session is a trace: its id is the trace's. Ids of spans follow from those of sessions and
//! events, so that nothing has to be carried along, and who exports a part needs no other.

use maskline_events::{Timestamp, WebhookType};
use maskline_store::{DeliveryState, EventRow};
use maskline_trace::Story;
use maskline_webhook::AttemptReport;
use serde_json::{Value, json};
use uuid::Uuid;

/// One span. It holds no phone number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    trace: Uuid,
    id: u64,
    parent: Option<u64>,
    name: String,
    kind: Kind,
    /// Microseconds since 1970.
    start_us: i64,
    end_us: i64,
    attributes: Vec<(&'static str, Value)>,
    error: Option<String>,
}

/// OTLP's `SpanKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// The span of a whole session.
fn root(session: Uuid) -> u64 {
    session.as_u64_pair().1
}

fn micros(at: Timestamp) -> i64 {
    at.unix_ms().saturating_mul(1_000)
}

/// Milliseconds with a fraction, of a story.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a float becomes the nearest whole number there is"
)]
fn micros_of(ms: f64) -> i64 {
    (ms * 1_000.0).round() as i64
}

/// A call that has ended: the span of all of it, and one for each of its stages.
pub(super) fn call(story: &Story) -> Vec<Span> {
    let (trace, root) = (story.session_id, root(story.session_id));
    let start_us = micros(story.start_time);
    let mut attributes = vec![
        ("maskline.session_id", json!(trace)),
        ("maskline.end", json!(story.end)),
    ];
    if let Some(sub_account) = &story.sub_account_id {
        attributes.push(("maskline.sub_account", json!(sub_account)));
    }
    if let Some(status) = story.session_status {
        attributes.push(("maskline.session_status", json!(status)));
    }
    let mut spans = vec![Span {
        trace,
        id: root,
        parent: None,
        name: "masked call".to_owned(),
        kind: Kind::Server,
        start_us,
        end_us: start_us + micros_of(story.duration_ms),
        attributes,
        error: story.error_details.as_ref().map(|it| it.error_msg.clone()),
    }];
    spans.extend((1..).zip(&story.stages).map(|(number, stage)| {
        let start_us = start_us + micros_of(stage.at_ms);
        Span {
            trace,
            id: root.wrapping_add(number),
            parent: Some(root),
            name: stage.name.clone(),
            kind: Kind::Internal,
            start_us,
            end_us: start_us + micros_of(stage.duration_ms),
            attributes: Vec::new(),
            error: None,
        }
    }));
    spans
}

/// An attempt at an event, and with the last one the event's whole way from when it happened.
pub(super) fn delivery(event: &EventRow, report: &AttemptReport) -> Vec<Span> {
    let outcome = &report.outcome;
    let kind = event.webhook_type.as_str();
    let id = event.event_id.as_u64_pair().1;
    let end_us = micros(outcome.at);
    let about = |more: Vec<(&'static str, Value)>| {
        let mut attributes = vec![
            ("maskline.event_id", json!(event.event_id)),
            ("maskline.webhook_type", json!(kind)),
            ("maskline.sub_account", json!(event.sub_account_id)),
        ];
        attributes.extend(more);
        attributes
    };
    let mut spans = Vec::new();
    if outcome.state != DeliveryState::NoEndpoint {
        let mut more = vec![
            ("maskline.attempt", json!(outcome.attempts)),
            ("maskline.webhook_gap", json!(report.gap)),
        ];
        if let Some(status) = outcome.status {
            more.push(("http.response.status_code", json!(status)));
        }
        let took = i64::try_from(report.took.as_micros()).unwrap_or(i64::MAX);
        spans.push(Span {
            trace: event.session_id,
            // A replay counts its attempts from the beginning.
            id: id
                .wrapping_add(outcome.attempts.into())
                .wrapping_add(end_us.unsigned_abs() << 16),
            parent: Some(id),
            name: format!("POST {kind}"),
            kind: Kind::Client,
            start_us: end_us.saturating_sub(took),
            end_us,
            attributes: about(more),
            error: outcome.error.clone(),
        });
    }
    let error = match outcome.state {
        DeliveryState::Pending | DeliveryState::Parked => return spans,
        DeliveryState::Delivered => None,
        DeliveryState::Dead => Some("it was given up"),
        DeliveryState::NoEndpoint => Some("there is no enabled webhook"),
    };
    // A number's change belongs to no call.
    let of_a_call = event.webhook_type != WebhookType::Vnu;
    spans.push(Span {
        trace: event.session_id,
        id,
        parent: of_a_call.then(|| root(event.session_id)),
        name: format!("{kind} until it was through"),
        kind: Kind::Internal,
        start_us: micros(event.at),
        end_us,
        attributes: about(vec![("maskline.attempts", json!(outcome.attempts))]),
        error: error.map(str::to_owned),
    });
    spans
}

/// The body of one export.
pub(super) fn export(service: &str, spans: &[Span]) -> Value {
    // A trace without an id is none, and costs the others their export.
    let valid = spans.iter().filter(|it| !it.trace.is_nil());
    let spans: Vec<Value> = valid.map(rendered).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": [attribute("service.name", &json!(service))]},
        "scopeSpans": [{
            "scope": {"name": "maskline", "version": env!("CARGO_PKG_VERSION")},
            "spans": spans,
        }],
    }]})
}

fn rendered(span: &Span) -> Value {
    let nanos = |us: i64| us.saturating_mul(1_000).to_string();
    let attributes = span.attributes.iter();
    let attributes: Vec<Value> = attributes.map(|(key, it)| attribute(key, it)).collect();
    json!({
        "traceId": span.trace.simple().to_string(),
        "spanId": format!("{:016x}", span.id),
        "parentSpanId": span.parent.map_or_else(String::new, |it| format!("{it:016x}")),
        "name": span.name,
        "kind": span.kind as i32,
        "startTimeUnixNano": nanos(span.start_us),
        "endTimeUnixNano": nanos(span.end_us.max(span.start_us)),
        "attributes": attributes,
        // STATUS_CODE_UNSET and STATUS_CODE_ERROR.
        "status": span.error.as_ref().map_or_else(
            || json!({}),
            |message| json!({"code": 2, "message": message}),
        ),
    })
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(flag) => json!({"boolValue": flag}),
        // Whole numbers are texts in Protobuf's JSON.
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            json!({"stringValue": value.to_string()})
        }
    };
    json!({"key": key, "value": value})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::time::Duration;

    use maskline_store::Outcome;

    use super::*;

    fn report(state: DeliveryState, attempts: u32) -> AttemptReport {
        AttemptReport {
            outcome: Outcome {
                event_id: Uuid::from_u128(0x0196_0000_0000_7000_8000_0000_0000_0100),
                state,
                attempts,
                next_attempt_at: None,
                status: Some(503),
                error: Some("the receiver answered 503".to_owned()),
                at: Timestamp::from_unix_ms(10_000),
            },
            gap: false,
            took: Duration::from_micros(1_500),
        }
    }

    fn event() -> EventRow {
        EventRow {
            event_id: Uuid::from_u128(0x0196_0000_0000_7000_8000_0000_0000_0100),
            session_id: Uuid::from_u128(0x0196_a1c5_7f00_7000_8000_0000_0000_0001),
            sub_account_id: "shop".to_owned(),
            ordinal: 1,
            webhook_type: WebhookType::Vcs,
            at: Timestamp::from_unix_ms(9_000),
            body: "+6591234567".to_owned(),
        }
    }

    #[test]
    fn each_attempt_is_a_span_within_the_event_s_which_ends_with_the_last_one() {
        let first = delivery(&event(), &report(DeliveryState::Pending, 1));
        let last = delivery(&event(), &report(DeliveryState::Delivered, 2));
        assert_eq!((first.len(), last.len()), (1, 2));
        let text = export("maskline-1", &[first, last].concat());
        let spans = &text["resourceSpans"][0]["scopeSpans"][0]["spans"];
        let (one, two, whole) = (&spans[0], &spans[1], &spans[2]);
        assert_eq!(one["traceId"], "0196a1c57f0070008000000000000001");
        assert_eq!(one["startTimeUnixNano"], "9998500000");
        assert_eq!(one["endTimeUnixNano"], "10000000000");
        assert_eq!(one["status"]["code"], 2);
        assert_eq!(one["parentSpanId"], whole["spanId"]);
        assert_eq!(two["parentSpanId"], whole["spanId"]);
        assert_ne!(one["spanId"], two["spanId"]);
        assert_eq!(whole["parentSpanId"], "8000000000000001");
        assert_eq!(whole["startTimeUnixNano"], "9000000000");
        assert_eq!(whole["status"], json!({}));
        let attribute = json!({"key": "maskline.attempts", "value": {"intValue": "2"}});
        assert!(whole["attributes"].as_array().unwrap().contains(&attribute));
        assert!(!text.to_string().contains("91234567"));
    }

    #[test]
    fn an_event_without_an_endpoint_has_no_attempt_and_says_why() {
        let spans = delivery(&event(), &report(DeliveryState::NoEndpoint, 0));
        assert_eq!(spans.len(), 1);
        assert_eq!(
            spans[0].error.as_deref(),
            Some("there is no enabled webhook")
        );
    }
}
