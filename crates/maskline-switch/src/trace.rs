//! What a shard tells of a call so that a person can see later what happened: its messages as they
//! were on the wire, and the steps between them.
//!
//! Entries leave the shard at once ([`crate::Action::Trace`]); keeping and drawing them is not done
//! here.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use maskline_events::{CallStatus, ErrorDetails, Party, SessionStatus};
use maskline_media::Side;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::io::Now;
use crate::sip::Peer;

/// How much of a call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceLimits {
    /// Whether anything is.
    pub enabled: bool,
    /// Most messages of a session; those after them are only counted.
    pub messages: u16,
    /// Most bytes of a message; the rest is cut off.
    pub message_bytes: usize,
}

impl Default for TraceLimits {
    /// Off: whoever carries out the actions says whether anybody listens.
    fn default() -> Self {
        Self {
            enabled: false,
            messages: 200,
            message_bytes: 8_192,
        }
    }
}

/// One thing that happened in a session.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceEntry {
    /// The session.
    pub session_id: Uuid,
    /// When, on both clocks.
    pub at: Now,
    /// What.
    pub what: TraceEvent,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum TraceEvent {
    /// A message was on the wire.
    Message(TracedMessage),
    /// A step within the switch.
    Step(Step),
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To us.
    In,
    /// From us.
    Out,
}

/// One SIP message of a session.
#[derive(Clone, PartialEq)]
pub struct TracedMessage {
    /// Which way it went.
    pub direction: Direction,
    /// Whose dialog it belongs to.
    pub side: Side,
    /// The far end.
    pub peer: Peer,
    /// The message, cut at [`TraceLimits::message_bytes`].
    pub bytes: Bytes,
    /// Its whole length, bytes.
    pub length: usize,
}

impl fmt::Debug for TracedMessage {
    /// Without the message: it is full of phone numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracedMessage")
            .field("direction", &self.direction)
            .field("side", &self.side)
            .field("peer", &self.peer)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// A text that is mostly one of ours.
pub type Text = Cow<'static, str>;

/// A step within the switch. Stored as JSON: variants and fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "step",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Step {
    /// A leg began.
    Leg {
        /// Which.
        side: TracedSide,
        /// Its id in events.
        call_id: Uuid,
        /// Who calls.
        source: Party,
        /// Who is called.
        destination: Party,
        /// By which trunk.
        trunk: Option<Text>,
        /// Whose number was called.
        sub_account_id: String,
    },
    /// An event was decided on.
    Event {
        /// Of this leg.
        side: TracedSide,
        /// Which.
        status: CallStatus,
        /// The leg's status so far.
        sip_code: u16,
    },
    /// Something waits until the journal has what leads to it.
    Waits {
        /// What.
        what: Text,
    },
    /// The journal has it: what waited goes on.
    Goes {
        /// What.
        what: Text,
    },
    /// The VCA endpoint is asked.
    Asked,
    /// It answered, or did not.
    Answered {
        /// What it wants, or why there is no answer. No phone number.
        outcome: Text,
        /// Whether it is a callflow.
        usable: bool,
    },
    /// The media engine took ports.
    MediaOpened {
        /// RTP port towards A.
        caller_port: u16,
        /// RTP port towards B.
        callee_port: u16,
    },
    /// A timer fired.
    Timer {
        /// Which.
        timer: Text,
    },
    /// Something else that a person wants to know. No phone number.
    Note {
        /// What.
        text: Text,
    },
    /// A restarted node took the session up.
    Adopted,
    /// The session is over.
    Ended {
        /// How.
        status: SessionStatus,
        /// Why, when the platform failed.
        error: Option<ErrorDetails>,
    },
    /// So many messages were not kept.
    LeftOut {
        /// How many.
        messages: u32,
    },
    /// A step of a newer version.
    #[serde(other)]
    Unknown,
}

/// A side, as traces write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TracedSide {
    /// The caller.
    A,
    /// The callee.
    B,
}

impl From<Side> for TracedSide {
    fn from(side: Side) -> Self {
        match side {
            Side::Caller => Self::A,
            Side::Callee => Self::B,
        }
    }
}
