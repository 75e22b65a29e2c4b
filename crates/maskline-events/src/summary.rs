//! Session summary (VSS) payload (contract §3).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::call_status::{CallDirection, CallType};
use crate::error_code::ErrorDetails;
use crate::msisdn::{Party, PartyFormat};
use crate::timestamp::Timestamp;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SessionStatus {
    /// Both spoke, or the callflow ended the call.
    Completed,
    /// The callee was busy or declined.
    Busy,
    /// The callee did not answer.
    NoAnswer,
    /// The callee could not be reached.
    Failed,
    /// The caller gave up before the callee's outcome was known.
    Canceled,
    /// The platform, a trunk or the VCA endpoint failed.
    Error,
}

/// How one leg ended: the same words as [`SessionStatus`], seen from the leg.
pub type LegStatus = SessionStatus;

/// The last action of the callflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LastAction {
    /// `makeCall`
    MakeCall,
    /// `say`
    Say,
    /// `playFile`
    PlayFile,
    /// `sayAndCapture`
    SayAndCapture,
    /// `hangup`
    Hangup,
}

/// `callQuality`: what the platform measured of the media that it received on this leg.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallQuality {
    /// Mean opinion score 1.0-4.5 by ITU-T G.107, one decimal.
    pub mos: f64,
    /// Lost fraction of the expected packets, 0.0-1.0.
    pub packet_loss_rate: f64,
    /// Interarrival jitter (RFC 3550 §6.4.1) in milliseconds.
    pub jitter: u32,
}

/// One leg of the summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegSummary {
    /// The leg.
    pub call_id: Uuid,
    /// Its direction.
    pub call_direction: CallDirection,
    /// Its kind.
    pub call_type: CallType,
    /// When its INVITE arrived or left.
    pub initiated_timestamp: Timestamp,
    /// When it was answered, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_timestamp: Option<Timestamp>,
    /// When it ended.
    pub disconnected_timestamp: Timestamp,
    /// A: the caller. B: the virtual number.
    pub source: Party,
    /// A: the virtual number. B: the callee.
    pub destination: Party,
    /// How `source` is written.
    pub source_format: PartyFormat,
    /// How `destination` is written.
    pub destination_format: PartyFormat,
    /// ISO 3166-1 alpha-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_country_code: Option<String>,
    /// ISO 3166-1 alpha-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_country_code: Option<String>,
    /// The virtual number's reference, on callB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ref_id: Option<String>,
    /// The virtual number's reference, on callA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ref_id: Option<String>,
    /// How it ended.
    pub call_status: LegStatus,
    /// Whole seconds that it was connected.
    pub call_duration: u64,
    /// What was measured, when media flowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_quality: Option<CallQuality>,
}

/// The legs that existed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionDetails {
    /// The inbound leg; absent when another switch reported the outbound one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_a: Option<LegSummary>,
    /// The outbound leg; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_b: Option<LegSummary>,
}

/// The one summary of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionSummaryPayload {
    /// The session.
    pub session_id: Uuid,
    /// Its sub-account.
    pub sub_account_id: String,
    /// How it ended.
    pub session_status: SessionStatus,
    /// When A's INVITE arrived.
    pub start_time: Timestamp,
    /// When the last leg ended.
    pub end_time: Timestamp,
    /// The callflow's last action, or null.
    pub last_action: Option<LastAction>,
    /// Legs that existed.
    pub call_count: u32,
    /// When `sessionStatus` is `ERROR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_details: Option<ErrorDetails>,
    /// The legs.
    pub details: SessionDetails,
}
