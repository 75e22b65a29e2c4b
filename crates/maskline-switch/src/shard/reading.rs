//! What a party offers or answers, as far as we can take it, and what it hears when we can't.

use maskline_media::Side;
use maskline_media::addresses::are_alike;

use super::Shard;
use crate::sdp::{self, MediaDescription, SdpFaultKind};
use crate::session::Session;
use crate::sip::{HeaderName, Request, TxId, view};

/// Why a request is refused before anything of it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) status: u16,
    /// The counter's reason.
    pub(super) reason: &'static str,
}

/// No `application/sdp`.
const NOT_SDP: Unfit = Unfit::new(415, "not_sdp");
/// The party's addresses are of a family that we have none of.
const ADDRESS_FAMILY: Unfit = Unfit::new(488, "address_family");

impl Unfit {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

impl Shard {
    /// The offer in a request; `None`: it has no body.
    pub(super) fn offer_in(&self, request: &Request) -> Result<Option<MediaDescription>, Unfit> {
        if request.body().is_empty() {
            return Ok(None);
        }
        if !view::is_sdp(&request.headers) {
            return Err(NOT_SDP);
        }
        match sdp::parse_for(request.body(), self.config.media_addresses) {
            Ok(offer) => Ok(Some(offer)),
            Err(fault) if fault.kind == SdpFaultKind::AddressFamily => Err(ADDRESS_FAMILY),
            Err(_) => Err(Unfit::new(488, "sdp_unusable")),
        }
    }

    /// A side's answer to our offer. One of another family than was offered is none: the party would
    /// send to one address of ours and want to hear from another.
    pub(super) fn answer_in(
        &self,
        s: &Session,
        side: Side,
        body: &[u8],
    ) -> Option<MediaDescription> {
        let answer = sdp::parse_for(body, self.config.media_addresses).ok()?;
        let local = self.local(s, side, 0);
        let known = s.party(side).described.as_ref();
        let offered = known.map_or(local.address, |known| local.towards(known.rtp.ip()));
        let at = answer.rtp.ip();
        (at.is_unspecified() || are_alike(at, offered)).then_some(answer)
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
