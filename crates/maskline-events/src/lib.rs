//! The wire contract of Maskline as types: what a webhook receiver reads and what it answers.
//!
//! This crate is pure: no clock, no IO, no randomness. A receiver written in Rust can depend on it
//! alone; the switch and the delivery use the same types, so that both ends cannot drift.
//!
//! What lives elsewhere: deciding when an event happens (`maskline-switch`), keeping it
//! (`maskline-store`) and sending it (`maskline-webhook`).

pub mod additional;
pub mod call_status;
pub mod callflow;
pub mod early_media;
pub mod envelope;
pub mod error_code;
pub mod msisdn;
pub mod redaction;
pub mod reported;
pub mod sequence;
pub mod signing;
pub mod summary;
pub mod timestamp;

pub use additional::{EventParameters, ParameterEntry, ParameterFault, SessionValue};
pub use call_status::{
    CallActionPayload, CallDirection, CallStatus, CallStatusPayload, CallType, EventData, Update,
};
pub use callflow::{Action, Callflow, CallflowFault};
pub use early_media::EarlyMedia;
pub use envelope::{Envelope, EventType, WebhookType};
pub use error_code::{ErrorCode, ErrorDetails};
pub use msisdn::{Msisdn, MsisdnError, Party, PartyFormat, shown_digits};
pub use redaction::{Hiding, Redaction};
pub use reported::{Happening, ReportFault, ReportedEvent};
pub use summary::{
    CallQuality, LastAction, LegStatus, LegSummary, SessionDetails, SessionStatus,
    SessionSummaryPayload,
};
pub use timestamp::Timestamp;
