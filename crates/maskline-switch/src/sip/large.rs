//! Requests that do not fit into one packet travel on a stream (RFC 3261 §18.1.1).

use std::collections::BTreeMap;

use sipx_sip::message::Header;
use sipx_sip::{HeaderName, Message, Request};

use super::compose::SentBy;
use super::view;
use super::wire::{Peer, Transport};
use crate::config::Listener;

/// Largest request that leaves in a datagram, in bytes: the RFC's bound where the path's MTU is
/// unknown.
const MAX_DATAGRAM_BYTES: usize = 1_300;

/// By which stream what is too large for a datagram leaves.
#[derive(Clone, Debug, Default)]
pub struct Large {
    /// The first TCP listener of the same family, by UDP listener.
    streams: BTreeMap<u16, (u16, SentBy)>,
}

impl Large {
    /// For these sockets.
    #[must_use]
    pub fn new(listeners: &[Listener]) -> Self {
        let of = |transport: Transport| {
            (0..=u16::MAX)
                .zip(listeners)
                .filter(move |(_, listener)| listener.sent_by.transport == transport)
        };
        let stream_for = |(at, datagrams): (u16, &Listener)| {
            let (stream, listener) = of(Transport::Tcp)
                .find(|(_, it)| it.bound.is_ipv4() == datagrams.bound.is_ipv4())?;
            Some((at, (stream, listener.sent_by.clone())))
        };
        Self {
            streams: of(Transport::Udp).filter_map(stream_for).collect(),
        }
    }

    /// The request as it leaves by TCP, when it is too large for UDP and there is a way: only its
    /// `Via` differs. `Contact` stays, since the peer's own requests may be small.
    pub(super) fn by_stream(&self, peer: Peer, request: &Request) -> Option<(Peer, Request)> {
        if peer.transport != Transport::Udp {
            return None;
        }
        let (listener, sent_by) = self.streams.get(&peer.listener)?;
        if Message::Request(request.clone()).to_bytes().len() <= MAX_DATAGRAM_BYTES {
            return None;
        }
        let via = sent_by.via(&view::top_branch(&request.headers)?);
        let mut request = request.clone();
        request.headers.remove_first(&HeaderName::Via);
        request
            .headers
            .push_front(Header::build(HeaderName::Via, via).ok()?);
        let peer = Peer {
            listener: *listener,
            transport: Transport::Tcp,
            ..peer
        };
        Some((peer, request))
    }
}
