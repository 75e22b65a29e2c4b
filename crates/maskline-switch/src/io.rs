//! What goes into a shard and what comes out of it.
//!
//! Inputs are facts in the past tense; actions are orders. An order that can fail is answered by an
//! input.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maskline_events::{Callflow, ErrorDetails, SessionStatus, Timestamp, WebhookType};
use maskline_media::{MediaCommand, MediaEvent, Side, Tick};
use uuid::Uuid;

use crate::admission::Refusal;
use crate::config::TrunkId;
use crate::directory::Directory;
use crate::dispatch::Arrival;
use crate::registration::RegistrationState;
use crate::sip::Peer;
use crate::targets::{TargetKey, TrunkTargets};
use crate::trace::TraceEntry;

/// A session's key within its shard: random, never 0, part of our tags.
pub type SessionKey = u64;

/// The time, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For durations and deadlines.
    pub tick: Tick,
    /// For what people read.
    pub wall: Timestamp,
}

/// A commit's number: ascending within a shard.
pub type CommitId = u64;

/// What happened outside.
#[derive(Debug)]
pub enum Input {
    /// A SIP message arrived.
    MessageArrived(Box<Arrival>),
    /// A connection to a peer could not be made, or broke.
    TransportFailed(Peer),
    /// These commits are durable.
    Committed(Vec<CommitId>),
    /// The journal will never take these, for what they hold: their sessions end.
    CommitsRejected(Vec<CommitId>),
    /// Commits fail (`true`) or succeed again (`false`). While they fail, new calls are refused.
    JournalDown(bool),
    /// The answer to [`Action::AskCallflow`].
    CallflowAnswered {
        /// Whose.
        session: SessionKey,
        /// What the endpoint answered.
        answer: CallflowAnswer,
    },
    /// The answer to [`Action::Admit`].
    Admission {
        /// Whose.
        session: SessionKey,
        /// Which leg.
        side: Side,
        /// On which trunk.
        trunk: TrunkId,
        /// Whether the trunk takes it.
        result: Result<(), Refusal>,
    },
    /// The media engine said something.
    Media(MediaEvent),
    /// Numbers or permissions changed.
    DirectoryChanged(Arc<Directory>),
    /// Addresses of trunks were found, or changed: all that are known.
    TrunkTargets(Arc<TrunkTargets>),
    /// These addresses of trunks do not answer OPTIONS; all others do, or are not asked.
    TargetsDown(Arc<BTreeSet<TargetKey>>),
    /// A session that an earlier run of this node left open.
    SessionFound {
        /// Its last snapshot.
        snapshot: Vec<u8>,
        /// How long no process ran, at least; `None`: that is not known, and the call is ended.
        away: Option<Duration>,
    },
    /// New calls are refused from now on; live ones go on.
    DrainStarted,
    /// The drain's deadline passed: live calls are ended.
    DrainEnded,
    /// Nothing but the time: [`crate::Shard::deadline`] has come.
    DeadlineReached,
}

/// What a VCA endpoint answered.
#[derive(Clone, Debug, PartialEq)]
pub enum CallflowAnswer {
    /// A checked callflow.
    Callflow(Callflow),
    /// It could not be asked or did not answer properly: -2002. The text holds no phone number.
    Unreachable(String),
    /// It answered what is no callflow: -2003. The text is the JSON path and the reason.
    Invalid(String),
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Put these bytes on the wire.
    Send {
        /// To whom.
        peer: Peer,
        /// One whole SIP message.
        bytes: Bytes,
    },
    /// Make this durable, then say [`Input::Committed`].
    Commit {
        /// The number to report.
        id: CommitId,
        /// What to write.
        record: JournalRecord,
    },
    /// Ask the VCA endpoint what to do; answered by [`Input::CallflowAnswered`].
    AskCallflow {
        /// Whose.
        session: SessionKey,
        /// The sub-account whose endpoint is asked.
        sub_account_id: String,
        /// The request's id.
        event_id: Uuid,
        /// The whole request body.
        body: String,
    },
    /// Ask the owner of the trunks' limits for a place; answered by [`Input::Admission`].
    Admit {
        /// Whose.
        session: SessionKey,
        /// Which leg.
        side: Side,
        /// On which trunk.
        trunk: TrunkId,
        /// Who brings the call, on the caller's side.
        source: Option<IpAddr>,
    },
    /// Take a place on a trunk for a leg that is up already, also above the limit.
    Occupy {
        /// On which trunk.
        trunk: TrunkId,
    },
    /// Give a place back.
    Release {
        /// On which trunk.
        trunk: TrunkId,
    },
    /// Tell every shard by [`Input::TargetsDown`] which addresses of trunks do not answer.
    TargetsDown(Arc<BTreeSet<TargetKey>>),
    /// For the media engine.
    Media(MediaCommand),
    /// A trunk's registration has changed, for the log, the gauge and the API.
    TrunkRegistered {
        /// Which.
        trunk: TrunkId,
        /// Where it stands now.
        state: RegistrationState,
    },
    /// Count this reason.
    Count(&'static str),
    /// Something is wrong with a session that goes on: for the log.
    Warn {
        /// Which.
        session_id: Uuid,
        /// What, and what to do. No phone number.
        text: String,
    },
    /// Something happened in a session, for whoever wants to see later how the call went.
    Trace(Box<TraceEntry>),
    /// A session is over, for the log and the counters.
    Ended {
        /// Which.
        session_id: Uuid,
        /// Whose.
        sub_account_id: String,
        /// How.
        status: SessionStatus,
        /// Why, when the platform failed.
        error: Option<ErrorDetails>,
    },
}

/// One session's part of the journal.
#[derive(Clone, PartialEq)]
pub struct JournalRecord {
    /// The session.
    pub session_id: Uuid,
    /// Its sub-account.
    pub sub_account_id: String,
    /// From which a restarted node adopts the session; `None`: it is over.
    pub snapshot: Option<Vec<u8>>,
    /// New events in order.
    pub events: Vec<RecordedEvent>,
}

/// One event, as it will be sent.
#[derive(Clone, PartialEq)]
pub struct RecordedEvent {
    /// The idempotency key.
    pub event_id: Uuid,
    /// The order within the session.
    pub ordinal: u64,
    /// Which webhook it goes to.
    pub webhook_type: WebhookType,
    /// When it happened.
    pub at: Timestamp,
    /// The whole request body.
    pub body: String,
}
