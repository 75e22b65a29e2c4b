//! What a party offers or answers, as far as we can take it, and what it hears when we can't.

use maskline_media::addresses::are_alike;
use maskline_media::srtp::KEY_BYTES;
use maskline_media::{Side, SrtpKey, SrtpSuite};
use rand::RngCore;

use super::Shard;
use crate::config::TrunkId;
use crate::sdp::{self, MediaDescription, SdpFaultKind, SrtpPolicy, Terms};
use crate::session::{LegSrtp, Session};
use crate::sip::{HeaderName, Request, Transport, TxId, view};

/// Why a request is refused before anything of it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) status: u16,
    /// The counter's reason.
    pub(super) reason: &'static str,
}

/// No `application/sdp`.
const NOT_SDP: Unfit = Unfit::new(415, "not_sdp");
/// Keys would be told to anybody on the way.
pub(super) const KEYS_IN_THE_CLEAR: Unfit = Unfit::new(488, "keys_in_the_clear");
/// The party's addresses are of a family that we have none of.
const ADDRESS_FAMILY: Unfit = Unfit::new(488, "address_family");

impl Unfit {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

impl Shard {
    /// The offer in a request; `None`: it has no body.
    pub(super) fn offer_in(
        &self,
        tx: TxId,
        request: &Request,
        leg: &LegSrtp,
    ) -> Result<Option<MediaDescription>, Unfit> {
        if request.body().is_empty() {
            return Ok(None);
        }
        // Our answer goes where the request came from.
        let by = self.transactions.peer(tx).map(|peer| peer.transport);
        if leg.keys.is_some() && by != Some(Transport::Tls) {
            return Err(KEYS_IN_THE_CLEAR);
        }
        if !view::is_sdp(&request.headers) {
            return Err(NOT_SDP);
        }
        match sdp::parse_for(request.body(), self.terms(leg.policy)) {
            Ok(offer) => Ok(Some(offer)),
            Err(fault) if fault.kind == SdpFaultKind::AddressFamily => Err(ADDRESS_FAMILY),
            Err(_) => Err(Unfit::new(488, "sdp_unusable")),
        }
    }

    /// What a party of this policy can be taken with.
    pub(super) const fn terms(&self, srtp: SrtpPolicy) -> Terms {
        Terms {
            addresses: self.config.media_addresses,
            srtp,
        }
    }

    /// Whether a new leg's media are protected, by its trunk; `None`: they must be, and its signalling
    /// would tell the keys to anybody.
    pub(super) fn srtp_of(&mut self, trunk: TrunkId, transport: Transport) -> Option<LegSrtp> {
        let policy = self
            .config
            .trunk(trunk)
            .map_or(SrtpPolicy::Off, |it| it.srtp);
        if policy == SrtpPolicy::Off || transport != Transport::Tls {
            return (policy != SrtpPolicy::Required).then(LegSrtp::default);
        }
        // The generator is seeded by the system (in production) and one-way: the tags that it also makes
        // tell nothing of it.
        let mut keys = [SrtpKey([0; KEY_BYTES]); SrtpSuite::ALL.len()];
        for SrtpKey(key) in &mut keys {
            self.rng.fill_bytes(key);
        }
        Some(LegSrtp {
            policy,
            keys: Some(keys),
        })
    }

    /// A side's answer to our offer. One of another family than was offered is none: the party would
    /// send to one address of ours and want to hear from another. So is a protected one to a plain offer,
    /// a plain one to a protected offer, and one that takes no line of `a=crypto` that was offered, or several
    /// (RFC 4568 §5.1.3): its party and we would protect media in different ways.
    pub(super) fn answer_in(
        &mut self,
        s: &Session,
        side: Side,
        body: &[u8],
    ) -> Option<MediaDescription> {
        let terms = self.terms(s.party(side).srtp.policy);
        let local = self.local(s, side, 0);
        let known = s.party(side).described.as_ref();
        let lines = local.srtp.map(|own| own.lines(known)).unwrap_or_default();
        let answer = match sdp::parse_answer(body, terms, &lines) {
            Ok(answer) => answer,
            Err(fault) => {
                if fault.kind == SdpFaultKind::NotOffered {
                    self.count("answer_with_other_key");
                }
                return None;
            }
        };
        let offered = known.map_or(local.address, |known| local.towards(known.rtp.ip()));
        let at = answer.rtp.ip();
        let fits = at.is_unspecified() || are_alike(at, offered);
        fits.then_some(answer)
    }

    /// What a refusal says beside its status.
    pub(super) fn refusal_headers(&self, tx: TxId, unfit: Unfit) -> Vec<(HeaderName, String)> {
        let peer = self.transactions.peer(tx);
        match peer {
            // RFC 3261 §21.4.13: a 415 says what is accepted.
            _ if unfit == NOT_SDP => {
                vec![(HeaderName::Accept, "application/sdp".to_owned())]
            }
            // RFC 3261 §20.43.
            Some(peer) if unfit == ADDRESS_FAMILY => {
                let agent = self.sent_by(peer).host_port;
                let warning = format!("301 {agent} \"Incompatible network address formats\"");
                vec![(HeaderName::Warning, warning)]
            }
            Some(_) | None => Vec::new(),
        }
    }
}
