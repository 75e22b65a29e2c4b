//! What the journal keeps of a connected call so that it goes on after a short restart: both
//! parties' media and where the call stands in the configuration, by names that outlive a run.
//!
//! Session timers and whatever else a living call comes to need are added here, each with a serde
//! default that means "as it was before there was one"; [`crate::shard`] takes them up where a call
//! is revived.

use std::net::{IpAddr, SocketAddr};

use maskline_media::Side;
use serde::{Deserialize, Serialize};

use crate::config::{SwitchConfig, TrunkId};
use crate::sdp::{MediaDescription, Negotiated};
use crate::session::{Allows, PartyDialog, Session, Stage};
use crate::sip::Peer;

/// A connected call beside its dialogs and legs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Living {
    /// Whether A is known to have its 200.
    pub acknowledged: bool,
    /// The answer that a reliable provisional gave A, while its 200 has to repeat it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_early: Option<String>,
    /// The RTP port towards A.
    pub caller_port: u16,
    /// The RTP port towards B.
    pub callee_port: u16,
    /// Where they are, if not at the node's own media address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_address: Option<IpAddr>,
    /// What both agreed on.
    pub negotiated: Negotiated,
    /// A.
    pub caller: LivingParty,
    /// B.
    pub callee: LivingParty,
}

/// One party of a connected call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivingParty {
    /// What it last said of its media.
    pub described: MediaDescription,
    /// The version of our last SDP to it.
    pub sdp_version: u64,
    /// Whether it holds the other.
    pub holding: bool,
    /// What its `Allow` named.
    #[serde(default)]
    pub allows: Allows,
    /// The name of the trunk whose place its leg holds.
    pub trunk: String,
    /// Where the socket is bound that its messages come by.
    pub socket: SocketAddr,
}

impl Living {
    /// `None`: the call is not connected, its media are protected, or something of it is missing.
    #[must_use]
    pub fn of(session: &Session, config: &SwitchConfig) -> Option<Self> {
        let connected = matches!(session.stage, Stage::Answering | Stage::Connected);
        let up = session.is_live(Side::Caller) && session.is_live(Side::Callee);
        if !connected || !up {
            return None;
        }
        let keyed = |side| {
            let described = session.party(side).described.as_ref();
            described.is_some_and(|it| it.srtp.is_some())
        };
        // Keys are not written down: such a call is ended by the next run.
        if keyed(Side::Caller) || keyed(Side::Callee) {
            return None;
        }
        let (caller_port, callee_port) = session.media_ports()?;
        let invite = session.caller_invite.cseq.split_whitespace().next();
        let invite: Option<u32> = invite.and_then(|number| number.parse().ok());
        let pending = session.caller.pending_2xx.as_ref();
        let waits = pending.is_some_and(|pending| Some(pending.cseq) == invite);
        let acknowledged = session.stage == Stage::Connected && !waits;
        let early = session.provisionals.heard.as_ref();
        let early = early.filter(|heard| heard.is_answer && !acknowledged);
        Some(Self {
            acknowledged,
            answered_early: early.map(|heard| heard.sdp.clone()),
            caller_port,
            callee_port,
            media_address: session.media_address,
            negotiated: session.negotiated.clone()?,
            caller: LivingParty::of(session, Side::Caller, config)?,
            callee: LivingParty::of(session, Side::Callee, config)?,
        })
    }
}

impl LivingParty {
    fn of(session: &Session, side: Side, config: &SwitchConfig) -> Option<Self> {
        let PartyDialog {
            dialog,
            described,
            sdp_version,
            holding,
            allows,
            ..
        } = session.party(side);
        let held = session.places.iter().find(|(held, _)| *held == side);
        let listener = usize::from(dialog.as_ref()?.peer.listener);
        Some(Self {
            described: described.clone()?,
            sdp_version: *sdp_version,
            holding: *holding,
            allows: *allows,
            trunk: config.trunk(held?.1)?.name.clone(),
            socket: config.listeners.get(listener)?.bound,
        })
    }

    /// The trunk of this name, and the socket that the peer's messages now come by; `None`: the
    /// configuration no longer has it, or no address of the party's family.
    #[must_use]
    pub fn placed(&self, peer: Peer, config: &SwitchConfig) -> Option<(TrunkId, u16)> {
        let at = self.described.rtp.ip();
        if !at.is_unspecified() {
            config.media_addresses.like(at)?;
        }
        let named = config.trunks.iter().position(|it| it.name == self.trunk)?;
        let bound = config.listeners.iter().position(|listener| {
            listener.bound == self.socket && listener.sent_by.transport == peer.transport
        })?;
        Some((
            TrunkId(u16::try_from(named).ok()?),
            u16::try_from(bound).ok()?,
        ))
    }
}
