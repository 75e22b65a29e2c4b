//! The envelope around every payload, and the kinds of webhook (contract §1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kinds of webhook that a sub-account can configure, by their short names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WebhookType {
    /// Voice Call Action: the answer is the callflow.
    Vca,
    /// Voice Call Status.
    Vcs,
    /// Voice Session Summary.
    Vss,
    /// Voice Recording Uploaded.
    Vru,
    /// Virtual Number Updated.
    Vnu,
}

impl WebhookType {
    /// All of them, in the contract's order.
    pub const ALL: [Self; 5] = [Self::Vca, Self::Vcs, Self::Vss, Self::Vru, Self::Vnu];

    /// The short name, as the API and the store write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vca => "VCA",
            Self::Vcs => "VCS",
            Self::Vss => "VSS",
            Self::Vru => "VRU",
            Self::Vnu => "VNU",
        }
    }

    /// The `eventType` and `description` of what is sent to this kind of webhook.
    #[must_use]
    pub const fn event_type(self) -> EventType {
        match self {
            Self::Vca => EventType::CallAction,
            Self::Vcs => EventType::CallStatus,
            Self::Vss => EventType::SessionSummary,
            Self::Vru => EventType::CallRecordingStatus,
            Self::Vnu => EventType::VirtualNumberUpdate,
        }
    }
}

impl fmt::Display for WebhookType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no webhook type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook type is one of VCA, VCS, VSS, VRU, VNU")]
pub struct UnknownWebhookType;

impl FromStr for WebhookType {
    type Err = UnknownWebhookType;

    fn from_str(text: &str) -> Result<Self, UnknownWebhookType> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(UnknownWebhookType)
    }
}

/// `eventType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventType {
    /// A VCA request.
    CallAction,
    /// A VCS event.
    CallStatus,
    /// A VSS event.
    SessionSummary,
    /// A VRU event.
    CallRecordingStatus,
    /// A VNU event.
    VirtualNumberUpdate,
}

impl EventType {
    /// `description`, exactly as the contract has it.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::CallAction => "Action request of a call",
            Self::CallStatus => "Status update of a call",
            Self::SessionSummary => "Summary of a completed call session",
            Self::CallRecordingStatus => "Call recording status updated",
            Self::VirtualNumberUpdate => "Status of account virtual number(s) updated",
        }
    }
}

/// What a webhook request's body holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<P> {
    /// Always `VOICE`.
    pub namespace: String,
    /// The kind of payload.
    pub event_type: EventType,
    /// The kind in words.
    pub description: String,
    /// The payload.
    pub payload: P,
}

impl<P> Envelope<P> {
    /// Wraps a payload.
    #[must_use]
    pub fn new(event_type: EventType, payload: P) -> Self {
        Self {
            namespace: "VOICE".to_owned(),
            event_type,
            description: event_type.description().to_owned(),
            payload,
        }
    }
}
