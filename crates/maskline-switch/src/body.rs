//! The bodies of webhooks: one form for our own calls and for those that another switch reports.

use maskline_events::{CallStatusPayload, Envelope, EventParameters, Party, WebhookType};
use serde::Serialize;

use crate::country::country_of;

/// Payloads hold only texts, numbers and lists, which always serialise.
pub(crate) fn body_of<P: Serialize>(kind: WebhookType, payload: P) -> String {
    serde_json::to_string(&Envelope::new(kind.event_type(), payload)).unwrap_or_default()
}

/// The body of a status event, with what its sub-account adds.
pub(crate) fn status_body(
    payload: &CallStatusPayload,
    parameters: Option<&EventParameters>,
) -> String {
    let mut body = body_of(WebhookType::Vcs, payload);
    if let Some(parameters) = parameters {
        parameters.add_to(&mut body, payload);
    }
    body
}

/// The country of a party that is a number.
pub(crate) fn country(party: &Party) -> Option<String> {
    party.number().and_then(country_of).map(str::to_owned)
}
