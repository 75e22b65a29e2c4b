//! One masked call: its legs, its dialogs, and where it stands.
//!
//! Data and small questions about it; what happens is decided in [`crate::shard`].

pub mod early;
pub mod presses;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use maskline_events::{
    ErrorDetails, LastAction, LegStatus, Msisdn, Party, SessionStatus, Timestamp,
};
use maskline_media::{MediaKey, Quality, Side, Tick};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::attempts::{Abandoned, Attempts};
use crate::config::TrunkId;
use crate::credentials::Answers;
use crate::dialog::Dialog;
use crate::directory::NumberEntry;
use crate::io::{RecordedEvent, SessionKey};
use crate::modification::{Acknowledged, Asked, ChangeRate, OwnRequest};
use crate::sdp::{MediaDescription, Negotiated, OurKeys, OurSrtp, SrtpPolicy};
use crate::sip::{HeaderName, Headers, Peer, Response, TxId, view};
use early::{EarlyDialogs, Provisionals};
use presses::Presses;

use crate::sip::extensions::Expiry;

/// One leg as events and the summary show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// The leg's id on the wire.
    pub call_id: Uuid,
    /// A: the caller. B: the virtual number.
    pub source: Party,
    /// A: the virtual number. B: the callee.
    pub destination: Party,
    /// The owner's name of the virtual number.
    pub reference_id: String,
    /// When its INVITE arrived or left.
    pub initiated: Timestamp,
    /// When it was answered.
    pub connected: Option<Timestamp>,
    /// The same on the monotonic clock of this run.
    #[serde(skip)]
    pub connected_tick: Option<Tick>,
    /// Whether a 180 was seen.
    pub ringing: bool,
    /// How it ended.
    pub end: Option<LegEnd>,
}

/// How a leg ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LegEnd {
    /// When.
    pub at: Timestamp,
    /// Whole seconds that it was connected.
    pub duration_seconds: u64,
    /// Its final SIP status.
    pub sip_code: u16,
    /// How, in the summary's words.
    pub status: LegStatus,
}

impl Leg {
    /// Whole seconds that the leg has been connected; by the monotonic clock, or by the wall clock
    /// when it was answered in an earlier run.
    #[must_use]
    pub fn duration_seconds(&self, tick: Tick, wall: Timestamp) -> u64 {
        if let Some(end) = &self.end {
            return end.duration_seconds;
        }
        match (self.connected_tick, self.connected) {
            (Some(connected), _) => tick.since(connected).as_secs(),
            (None, Some(connected)) => {
                let elapsed_ms = wall.unix_ms().saturating_sub(connected.unix_ms());
                u64::try_from(elapsed_ms / 1000).unwrap_or(0)
            }
            (None, None) => 0,
        }
    }
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// The trunk's limits are asked.
    Admitting,
    /// CALL_RECEIVED is on its way to the journal.
    Journaling,
    /// The VCA endpoint is asked.
    Asking,
    /// A callee is decided; the outbound trunk's limits are asked, then media ports.
    Preparing(Target),
    /// B's leg exists; its INVITE waits for the journal, or is out.
    Calling,
    /// B answered; A's 200 waits for the journal.
    Answering,
    /// A was answered.
    Connected,
    /// Every leg has ended; the media's figures are waited for.
    Closing,
    /// The summary is written; what SIP still owes is finished.
    Summarised,
}

/// Whom to call, from which number and by which trunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The callee.
    pub destination: Msisdn,
    /// The virtual number that the callee sees.
    pub source: Arc<NumberEntry>,
    /// The trunk.
    pub trunk: TrunkId,
    /// Which of its addresses.
    pub peer: Peer,
}

/// The media ports of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Media {
    /// None were asked for.
    None,
    /// Asked for.
    Opening,
    /// Taken.
    Open {
        /// RTP port towards A.
        caller_port: u16,
        /// RTP port towards B.
        callee_port: u16,
    },
    /// An earlier run had them; they are being taken again.
    Resuming {
        /// RTP port towards A.
        caller_port: u16,
        /// RTP port towards B.
        callee_port: u16,
    },
    /// Given back, or about to be.
    Closing,
}

/// Whether a party was asked if it still knows its dialog, as it is after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// There was no reason to ask.
    #[default]
    None,
    /// It was asked.
    Asked,
    /// It does.
    Answered,
    /// There is no way to ask it until it opens a stream.
    Unreachable,
}

/// One side's dialog and what it owes.
#[derive(Clone, Default)]
pub struct PartyDialog {
    /// The dialog, once there is one.
    pub dialog: Option<Dialog>,
    /// A 2xx of ours that was not acknowledged yet.
    pub pending_2xx: Option<Pending2xx>,
    /// A BYE that is to be sent.
    pub owed_bye: Option<OwedBye>,
    /// What this party last described of its media.
    pub described: Option<MediaDescription>,
    /// Whether its media are protected, and by which keys of ours.
    pub srtp: LegSrtp,
    /// The version of our last SDP to this party (RFC 3264 §8: each new one counts up).
    pub sdp_version: u64,
    /// Our last SDP to this party, so that the version counts up when a new one differs. Whoever
    /// restores a session without it counts the version up.
    pub last_sdp: Option<String>,
    /// Whether this party holds the other.
    pub holding: bool,
    /// Our re-INVITE or UPDATE on this side that is not settled.
    pub own: Option<OwnRequest>,
    /// How often it changed the call.
    pub changes: ChangeRate,
    /// The ACK of our last re-INVITE on this side.
    pub acknowledged: Option<Acknowledged>,
    /// The credentials of our last re-INVITE on this side, which its ACK carries too.
    pub reinvite_credentials: Vec<(HeaderName, String)>,
    /// What its `Allow` named of what we might send.
    pub allows: Allows,
    /// Its key presses.
    pub presses: Presses,
    /// Its session timer, if one runs.
    pub expiry: Option<Expiry>,
    /// What this party's trunk has asked us of our credentials.
    pub answers: Answers,
    /// Whether it was asked if it is still there.
    pub probe: Probe,
}

impl PartyDialog {
    /// Whether the party counts as having our 2xx though no ACK came: one that still knows its dialog
    /// after a restart has the 2xx that made it, and of one that can't be reached nothing is known
    /// until it says something. Of a 2xx to a re-INVITE that says nothing.
    #[must_use]
    pub fn has_2xx_unacknowledged(&self) -> bool {
        let made_it = self
            .pending_2xx
            .as_ref()
            .is_some_and(|pending| !pending.within);
        made_it
            && match self.probe {
                Probe::Answered | Probe::Unreachable => true,
                Probe::None | Probe::Asked => false,
            }
    }
}

/// Whether a party's media are protected, as its trunk and its way have it. In no snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegSrtp {
    /// Whether they may be, or must.
    pub policy: SrtpPolicy,
    /// Our keys, where they may be.
    pub keys: Option<OurKeys>,
}

impl LegSrtp {
    /// Our end, for a description.
    #[must_use]
    pub fn ours(&self) -> Option<OurSrtp> {
        self.keys.map(|keys| OurSrtp {
            keys,
            offered: self.policy == SrtpPolicy::Required,
        })
    }
}

/// Methods that a party takes, by the `Allow` of its INVITE or 2xx.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allows {
    /// INFO (RFC 6086).
    pub info: bool,
    /// UPDATE (RFC 3311 §4).
    pub update: bool,
}

impl Allows {
    /// What a message's `Allow` names.
    #[must_use]
    pub fn of(headers: &Headers) -> Self {
        Self {
            info: view::allows(headers, "INFO") == Some(true),
            update: view::allows(headers, "UPDATE") == Some(true),
        }
    }
}

/// Why an owed BYE has not left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwedBye {
    /// It waits for its commit, at most a second.
    Gated,
    /// It waits for the ACK to our 2xx (RFC 3261 §15).
    Unacknowledged,
}

/// A 2xx of ours to an INVITE, sent again until it is acknowledged (RFC 3261 §13.3.1.4).
#[derive(Clone)]
pub struct Pending2xx {
    /// Its transaction.
    pub tx: TxId,
    /// The response.
    pub response: Response,
    /// Its `CSeq` number.
    pub cseq: u32,
    /// The time to the next one.
    pub interval: std::time::Duration,
    /// When to give up.
    pub gives_up: Tick,
    /// Whether it carries an offer, so that the ACK carries the answer.
    pub offers: bool,
    /// Whether it answers a re-INVITE: then a BYE does not prove that it arrived.
    pub within: bool,
}

/// B's INVITE.
#[derive(Clone)]
pub enum CalleeInvite {
    /// It waits for the journal.
    Gated,
    /// It is out.
    Calling {
        /// Its transaction.
        tx: TxId,
        /// Whether any 1xx came.
        provisional: bool,
    },
    /// It was given up; a final answer is waited for.
    Cancelling {
        /// Its transaction.
        tx: TxId,
        /// Whether the CANCEL is out; it waits for a 1xx (RFC 3261 §9.1).
        sent: bool,
    },
    /// A 2xx made a dialog.
    Answered {
        /// The ACK, sent again for each repeated 2xx; `None`: an earlier run sent it.
        ack: Option<Bytes>,
        /// Where it goes.
        peer: Peer,
    },
    /// Nothing more will come of it.
    Ended,
}

/// What is needed to build B's INVITE again: for its CANCEL, its ACK and a restarted node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteParts {
    /// Request-URI.
    pub uri: String,
    /// Branch.
    pub branch: String,
    /// `From`, tag included.
    pub from: String,
    /// `To`.
    pub to: String,
    /// More headers, name and value: who calls, as the trunk wants it said.
    #[serde(default)]
    pub extra: Vec<(String, String)>,
    /// `Call-ID`.
    pub call_id: String,
    /// `CSeq` number: each try in the same call has the next one.
    #[serde(default = "first_cseq")]
    pub cseq: u32,
    /// The session interval that it asks for, in seconds; 0: none (RFC 4028).
    #[serde(default)]
    pub session_expires: u32,
    /// The shortest one that it takes, in seconds.
    #[serde(default)]
    pub session_least: u32,
    /// Where it goes.
    pub peer: Peer,
    /// The trunk's name; empty in a snapshot of a version that kept none.
    #[serde(default)]
    pub trunk: String,
}

/// The `CSeq` number of every INVITE before it was kept.
const fn first_cseq() -> u32 {
    1
}

/// The B side's SIP.
#[derive(Clone)]
pub struct Callee {
    /// Its INVITE.
    pub parts: InviteParts,
    /// How far that is.
    pub invite: CalleeInvite,
    /// What it made before the answer.
    pub early: EarlyDialogs,
    /// How often it was refused for its credentials.
    pub tries: u8,
    /// The credentials that it carries; the ACK to its 2xx carries the same (RFC 3261 §22.1).
    pub credentials: Vec<(HeaderName, String)>,
}

/// What is needed to refuse A's INVITE after a restart, when its transaction is gone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerInvite {
    /// Its `Via` values in order.
    pub vias: Vec<String>,
    /// `From`.
    pub from: String,
    /// `To`, with our tag.
    pub to: String,
    /// `Call-ID`.
    pub call_id: String,
    /// `CSeq`.
    pub cseq: String,
    /// What our 2xx depends on, name and value: extensions and the session timer.
    #[serde(default)]
    pub terms: Vec<(String, String)>,
    /// Where its answers go.
    pub peer: Peer,
}

/// A session's timers; one of each kind at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionTimer {
    /// No callflow came.
    CallflowGuard,
    /// No media port came.
    MediaGuard,
    /// The callee rings for too long.
    NoAnswer,
    /// The call lasts for too long.
    MaxDuration,
    /// Our 2xx to this side is sent again, or given up.
    Resend(Side),
    /// Our re-INVITE or UPDATE on this side is tried again, or has waited long enough.
    Modify(Side),
    /// A provisional answer of ours to A is sent again, or given up.
    ResendProvisional,
    /// This side's session is refreshed by us.
    Refresh(Side),
    /// Nobody refreshed this side's session.
    Expiry(Side),
    /// Nothing at all came back from the trunk.
    TrunkSilence,
    /// No final answer came to this attempt's INVITE, which was cancelled.
    AbandonGuard(u8),
    /// Owed BYEs have waited long enough for their commit.
    ByeGate,
    /// No final answer came to a cancelled INVITE.
    CancelGuard,
    /// No media figures came.
    SummaryGuard,
}

/// One masked call.
pub struct Session {
    /// Its key within the shard.
    pub key: SessionKey,
    /// Its id on the wire.
    pub id: Uuid,
    /// The virtual number that was called.
    pub number: Arc<NumberEntry>,
    /// Where it stands.
    pub stage: Stage,
    /// The last ordinal that was used.
    pub ordinal: u64,
    /// Leg A.
    pub a: Leg,
    /// Leg B.
    pub b: Option<Leg>,
    /// The number of a caller who withholds it. No event and no message holds it.
    pub withheld: Option<Msisdn>,
    /// A's SIP.
    pub caller: PartyDialog,
    /// A's INVITE; `None` after a restart.
    pub invite: Option<TxId>,
    /// The same for a restart.
    pub caller_invite: CallerInvite,
    /// Its provisional answers.
    pub provisionals: Provisionals,
    /// Whether A's INVITE has its final answer.
    pub final_sent: bool,
    /// B's dialog.
    pub callee: PartyDialog,
    /// B's INVITE.
    pub outbound: Option<Callee>,
    /// The attempts before and after it.
    pub attempts: Attempts,
    /// What both sides agreed on.
    pub negotiated: Option<Negotiated>,
    /// The ports.
    pub media: Media,
    /// Where they are, if not at the node's own media address.
    pub media_address: Option<IpAddr>,
    /// The callflow's last action.
    pub last_action: Option<LastAction>,
    /// How the session ended, once that is decided.
    pub status: Option<SessionStatus>,
    /// Why, when the platform failed.
    pub error: Option<ErrorDetails>,
    /// Trunk places that are held: inbound, outbound.
    pub places: Vec<(Side, TrunkId)>,
    /// Deadlines that are set.
    pub timers: BTreeMap<SessionTimer, (Tick, u64)>,
    /// Gates that are not open yet.
    pub gates: usize,
    /// Whether the journal holds a snapshot of this session.
    pub snapshot_kept: bool,
    /// Events that the next commit takes.
    pub unsaved: Vec<RecordedEvent>,
    /// The media figures, once they are known.
    pub quality: (Option<Quality>, Option<Quality>),
}

impl Session {
    /// The media engine's name for this session.
    #[must_use]
    pub const fn media_key(&self, shard: u16) -> MediaKey {
        MediaKey {
            shard,
            id: self.key,
        }
    }

    /// The RTP ports towards A and towards B, while they are open.
    #[must_use]
    pub const fn media_ports(&self) -> Option<(u16, u16)> {
        match self.media {
            Media::Open {
                caller_port,
                callee_port,
            }
            | Media::Resuming {
                caller_port,
                callee_port,
            } => Some((caller_port, callee_port)),
            Media::None | Media::Opening | Media::Closing => None,
        }
    }

    /// The RTP port towards a side, while it is open.
    #[must_use]
    pub const fn port_towards(&self, side: Side) -> Option<u16> {
        match (self.media_ports(), side) {
            (Some((caller_port, _)), Side::Caller) => Some(caller_port),
            (Some((_, callee_port)), Side::Callee) => Some(callee_port),
            (None, _) => None,
        }
    }

    /// A leg, if it exists.
    #[must_use]
    pub const fn leg(&self, side: Side) -> Option<&Leg> {
        match side {
            Side::Caller => Some(&self.a),
            Side::Callee => self.b.as_ref(),
        }
    }

    /// A leg, if it exists.
    pub const fn leg_mut(&mut self, side: Side) -> Option<&mut Leg> {
        match side {
            Side::Caller => Some(&mut self.a),
            Side::Callee => self.b.as_mut(),
        }
    }

    /// A side's dialog.
    #[must_use]
    pub const fn party(&self, side: Side) -> &PartyDialog {
        match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        }
    }

    /// A side's dialog.
    pub const fn party_mut(&mut self, side: Side) -> &mut PartyDialog {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }

    /// What a side asked for and has no final answer to yet.
    #[must_use]
    pub fn asked_by(&self, side: Side) -> Option<&Asked> {
        self.party(side.other()).own.as_ref()?.asked()
    }

    /// Whether a leg exists and has not ended.
    #[must_use]
    pub fn is_live(&self, side: Side) -> bool {
        self.leg(side).is_some_and(|leg| leg.end.is_none())
    }

    /// Whether anything of SIP is left to do, so that the session must stay.
    #[must_use]
    pub fn owes_sip(&self) -> bool {
        let owed = |party: &PartyDialog| {
            party.owed_bye.is_some()
                || party.pending_2xx.is_some()
                || party.own.as_ref().is_some_and(OwnRequest::owes_sip)
        };
        let inviting = self.outbound.as_ref().is_some_and(|callee| {
            matches!(
                callee.invite,
                CalleeInvite::Gated
                    | CalleeInvite::Calling { .. }
                    | CalleeInvite::Cancelling { .. }
            )
        });
        let abandoned = self.attempts.abandoned.iter().any(Abandoned::is_open);
        owed(&self.caller) || owed(&self.callee) || inviting || abandoned || self.gates > 0
    }
}
