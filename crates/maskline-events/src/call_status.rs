//! Call status (VCS) and call action (VCA) payloads (contract §2 and §4).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error_code::ErrorDetails;
use crate::msisdn::{Party, PartyFormat};
use crate::timestamp::Timestamp;

/// What happened to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CallStatus {
    /// B's first INVITE is sent.
    CallInitiated,
    /// A's INVITE was accepted for handling.
    CallReceived,
    /// The leg was answered.
    CallConnected,
    /// The leg ended; its last event.
    CallDisconnected,
    /// Ringing, hold, resume or a media change: see [`Update`].
    CallUpdated,
    /// A key was pressed.
    DtmfReceived,
    /// Only in a VCA request: a capture ended.
    ActionCompleted,
}

/// Which way a leg was set up, seen from the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CallDirection {
    /// From a caller to the platform.
    Inbound,
    /// From the platform to a callee.
    Outbound,
}

/// The kind of leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CallType {
    /// Over a trunk.
    Pstn,
    /// Reserved for registered SIP users.
    Voip,
}

/// The kind of a `CALL_UPDATED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Update {
    /// First 180 of the callee.
    Ringing,
    /// This leg's party put the other on hold.
    Held,
    /// And took it back.
    Resumed,
    /// Codec or address changed.
    Media,
}

/// `eventData`: at most one of its fields is present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventData {
    /// The key, with `DTMF_RECEIVED`; the captured keys (or null) in a VCA request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtmf: Option<String>,
    /// The kind of change, with `CALL_UPDATED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
}

/// One step of one leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallStatusPayload {
    /// One per event, the same on every retry and replay.
    pub event_id: Uuid,
    /// One per leg.
    pub call_id: Uuid,
    /// One per masked call.
    pub session_id: Uuid,
    /// The sub-account that owns the virtual number.
    pub sub_account_id: String,
    /// What happened.
    pub call_status: CallStatus,
    /// The leg's direction.
    pub call_direction: CallDirection,
    /// The leg's kind.
    pub call_type: CallType,
    /// A: the caller. B: the virtual number.
    pub source: Party,
    /// A: the virtual number. B: the callee.
    pub destination: Party,
    /// How `source` is written.
    pub source_format: PartyFormat,
    /// How `destination` is written.
    pub destination_format: PartyFormat,
    /// ISO 3166-1 alpha-2; absent for withheld callers and codes of no country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_country_code: Option<String>,
    /// ISO 3166-1 alpha-2; absent for codes of no country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_country_code: Option<String>,
    /// Whole seconds that the leg has been connected.
    pub call_duration: u64,
    /// The leg's final SIP status; 200 as long as it has no failing one.
    pub sip_code: u16,
    /// When it happened.
    pub timestamp: Timestamp,
    /// 1, 2, 3 … over the session's events.
    pub sequence: u64,
    /// The virtual number's reference, on the outbound leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ref_id: Option<String>,
    /// The virtual number's reference, on the inbound leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ref_id: Option<String>,
    /// The key or the kind of change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_data: Option<EventData>,
    /// Why the platform ended the leg, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_details: Option<ErrorDetails>,
}

/// A VCA request: the call as in [`CallStatusPayload`], and the answer to it is the callflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallActionPayload {
    /// The call; `callStatus` is `CALL_RECEIVED` or `ACTION_COMPLETED`.
    #[serde(flatten)]
    pub call: CallStatusPayload,
    /// The callflow's `clientActionId`, echoed with `ACTION_COMPLETED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_action_id: Option<String>,
}
