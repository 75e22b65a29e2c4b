//! What the journal keeps of a session beside its events, so that a restarted node can finish it.
//!
//! The format is JSON with a version; fields are only ever added, with defaults, so that a snapshot
//! of the previous version is read by the next.

use std::net::SocketAddr;
use std::sync::Arc;

use maskline_events::{ErrorDetails, LastAction, Msisdn, SessionStatus};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::attempts::OpenInvite;
use crate::config::SwitchConfig;
use crate::dialog::Dialog;
use crate::directory::NumberEntry;
use crate::io::SessionKey;
use crate::living::Living;
use crate::session::{CalleeInvite, CallerInvite, InviteParts, Leg, Session, Stage};
use crate::sip::extensions::Expiry;
use crate::sip::{LocalTag, Peer};

/// The version that this code writes.
const VERSION: u32 = 1;

/// One session, as of its last commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Format version.
    pub version: u32,
    /// The shard that its tags carry: the owner, unless the node had another number of shards when
    /// the call began.
    pub shard: u16,
    /// Its key there: part of our tags.
    pub key: SessionKey,
    /// Its id.
    pub session_id: Uuid,
    /// Where the sockets of that run were bound: what the `listener` of each peer here counts.
    #[serde(default)]
    pub sockets: Vec<SocketAddr>,
    /// The virtual number that was called.
    pub number: NumberEntry,
    /// The last ordinal that was used.
    pub ordinal: u64,
    /// Leg A.
    pub a: Leg,
    /// Leg B.
    pub b: Option<Leg>,
    /// The number of a caller who withholds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<Msisdn>,
    /// A's INVITE.
    pub caller_invite: CallerInvite,
    /// Whether A's 200 was decided.
    pub caller_answered: bool,
    /// A's dialog.
    pub caller: Option<Dialog>,
    /// A's session timer.
    #[serde(default)]
    pub caller_expiry: Option<Expiry>,
    /// Whether A is owed a BYE.
    pub caller_owed_bye: bool,
    /// B's INVITE.
    pub callee_invite: Option<InviteParts>,
    /// Whether that INVITE was given up and has no final answer yet: B may still ring.
    #[serde(default)]
    pub callee_cancelling: bool,
    /// INVITEs that B's took the place of, and that have no final answer yet.
    #[serde(default)]
    pub abandoned_invites: Vec<OpenInvite>,
    /// B's dialog, once it answered.
    pub callee: Option<Dialog>,
    /// B's session timer.
    #[serde(default)]
    pub callee_expiry: Option<Expiry>,
    /// Whether B is owed a BYE.
    pub callee_owed_bye: bool,
    /// The callflow's last action.
    pub last_action: Option<LastAction>,
    /// How the session ended, if that was decided.
    pub status: Option<SessionStatus>,
    /// Why.
    pub error: Option<ErrorDetails>,
    /// Whether the summary is written.
    pub summarised: bool,
    /// What a connected call needs to go on after a short restart; absent while there is nothing to
    /// go on with, and in what an earlier version wrote. What can't be read of it counts as absent:
    /// the call is ended then, and not left.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "if_readable"
    )]
    pub living: Option<Living>,
}

fn if_readable<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value: Option<serde_json::Value> = Deserialize::deserialize(deserializer)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// Why a snapshot is not usable.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No JSON of this shape. The parser's own words may repeat a value, which may be a number.
    #[error("a session's snapshot can't be read: {:?} fault in line {}, column {}", .0.classify(), .0.line(), .0.column())]
    Unreadable(#[from] serde_json::Error),
    /// Made by a newer version.
    #[error("a session's snapshot has version {0}, this version knows up to {VERSION}")]
    TooNew(u32),
}

impl Snapshot {
    /// The snapshot of a session.
    #[must_use]
    pub fn of(session: &Session, config: &SwitchConfig) -> Self {
        // The dialogs' tags carry the shard of the run that made them, and messages follow those.
        let tag = session.caller.dialog.as_ref();
        let carried = tag.and_then(|dialog| LocalTag::parse(&dialog.local_tag));
        Self {
            version: VERSION,
            shard: carried.map_or(config.shard, |tag| tag.shard),
            key: session.key,
            session_id: session.id,
            sockets: config.listeners.iter().map(|it| it.bound).collect(),
            number: NumberEntry::clone(&session.number),
            ordinal: session.ordinal,
            a: session.a.clone(),
            b: session.b.clone(),
            withheld: session.withheld.clone(),
            caller_invite: session.caller_invite.clone(),
            caller_answered: session.a.connected.is_some(),
            caller: session.caller.dialog.clone(),
            caller_expiry: session.caller.expiry,
            callee_expiry: session.callee.expiry,
            caller_owed_bye: session.caller.owed_bye.is_some(),
            callee_invite: session
                .outbound
                .as_ref()
                .map(|outbound| outbound.parts.clone()),
            callee_cancelling: session
                .outbound
                .as_ref()
                .is_some_and(|outbound| matches!(outbound.invite, CalleeInvite::Cancelling { .. })),
            abandoned_invites: session.attempts.open().collect(),
            callee: session.callee.dialog.clone(),
            callee_owed_bye: session.callee.owed_bye.is_some(),
            last_action: session.last_action,
            status: session.status,
            error: session.error.clone(),
            summarised: session.stage == Stage::Summarised,
            living: Living::of(session, config),
        }
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let snapshot: Self = serde_json::from_slice(bytes)?;
        if snapshot.version > VERSION {
            return Err(SnapshotError::TooNew(snapshot.version));
        }
        Ok(snapshot)
    }

    /// Names every peer's socket as this run does: by where it is bound and, if there is none any
    /// more, another one of the transport.
    pub fn take_sockets(&mut self, config: &SwitchConfig) {
        let sockets = std::mem::take(&mut self.sockets);
        let peers = [
            Some(&mut self.caller_invite.peer),
            self.caller.as_mut().map(|dialog| &mut dialog.peer),
            self.callee_invite.as_mut().map(|parts| &mut parts.peer),
            self.callee.as_mut().map(|dialog| &mut dialog.peer),
        ];
        let abandoned = self.abandoned_invites.iter_mut();
        for peer in peers
            .into_iter()
            .flatten()
            .chain(abandoned.map(|open| &mut open.parts.peer))
        {
            take_socket(peer, &sockets, config);
        }
    }

    /// The stored form. A snapshot holds only texts, numbers and lists, which always serialise.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The number that was called.
    #[must_use]
    pub fn number(&self) -> Arc<NumberEntry> {
        Arc::new(self.number.clone())
    }
}

fn take_socket(peer: &mut Peer, sockets: &[SocketAddr], config: &SwitchConfig) {
    let known = usize::from(peer.listener);
    // A snapshot of an earlier version names none.
    let bound = match sockets.get(known) {
        Some(bound) => Some(*bound),
        None => config.listeners.get(known).map(|listener| listener.bound),
    };
    let of_transport = || {
        let numbered = (0..).zip(config.listeners.iter());
        numbered.filter(|(_, listener)| listener.sent_by.transport == peer.transport)
    };
    let now = of_transport()
        .find(|(_, listener)| Some(listener.bound) == bound)
        .or_else(|| of_transport().next());
    if let Some((at, _)) = now {
        peer.listener = at;
    }
}
