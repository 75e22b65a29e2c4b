//! Asking a trunk's callers for their credentials.
//!
//! Only a new INVITE is asked: an ACK and a CANCEL can't be (RFC 3261 §22.1), requests within a
//! dialog carry our unguessable tag, and no other request does anything.

use super::Shard;
use crate::dispatch::Arrival;
use crate::doorkeeper::Admittance;
use crate::sip::{HeaderName, Message, Method, Peer, Request, TxId, view};

impl Shard {
    /// Whether a message is a new call of a source that has answered wrongly too often.
    pub(super) fn is_silenced(&self, arrival: &Arrival) -> bool {
        let Message::Request(request) = &arrival.message else {
            return false;
        };
        request.method == Method::Invite
            && self
                .doorkeeper
                .is_silenced(self.now.tick, arrival.peer.addr.ip())
            && view::to_tag(&request.headers).is_none()
    }

    /// Whether a new call comes from who its trunk says; answers it itself when not.
    pub(super) fn admits(&mut self, tx: TxId, invite: &Request, peer: Peer) -> bool {
        let (trunk, tick) = (self.arriving_by, self.now.tick);
        let inbound = self.config.trunk(trunk).map(|trunk| &trunk.auth.inbound);
        let Some(inbound) = inbound.and_then(Option::as_ref) else {
            return true;
        };
        let call_id = view::call_id(&invite.headers).unwrap_or_default();
        let request = ("INVITE", call_id.as_str(), &invite.headers);
        let verdict = self
            .doorkeeper
            .judge(tick, inbound, trunk, request, peer.addr.ip());
        let Admittance::Challenge { stale, reason } = verdict else {
            return true;
        };
        let rng = &mut self.rng;
        let challenges: Vec<_> = self
            .doorkeeper
            .challenges(tick, inbound, trunk, &call_id, stale, rng)
            .into_iter()
            .map(|value| (HeaderName::WwwAuthenticate, value))
            .collect();
        self.count(reason);
        self.refuse(tx, invite, 401, &challenges);
        false
    }
}
