//! From a received packet to the shard that owns its call, before any state is kept.
//!
//! A stranger's packet ends here: it is dropped and counted, and never answered, so that a scanner
//! learns nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{PeerCertificate, Trunk, TrunkId};
use crate::sip::wire::{self, Reason};
use crate::sip::{LocalTag, Message, Method, Peer, Unreadable, tag, view};
use crate::targets::TrunkTargets;

/// A message on its way to a shard.
#[derive(Clone)]
pub struct Arrival {
    /// Where it came from.
    pub peer: Peer,
    /// The trunk that the peer belongs to.
    pub trunk: TrunkId,
    /// The message.
    pub message: Message,
    /// The message as it was on the wire.
    pub raw: Bytes,
}

/// What becomes of a packet.
#[derive(Debug)]
pub enum Verdict {
    /// Hand it to this shard.
    Deliver {
        /// The shard.
        shard: u16,
        /// The message.
        arrival: Box<Arrival>,
    },
    /// Send this back and count the reason; no state was made.
    Refuse {
        /// The response.
        response: Bytes,
        /// The reason, for the counter.
        reason: &'static str,
    },
    /// Count the reason.
    Discard {
        /// The reason, for the counter.
        reason: &'static str,
    },
}

/// Assigns packets to shards. Cheap to clone; keeps nothing between packets.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    trunks: Arc<[Trunk]>,
    targets: Arc<TrunkTargets>,
    shards: u16,
}

impl Dispatcher {
    /// For this many shards (at least one).
    #[must_use]
    pub fn new(trunks: Arc<[Trunk]>, shards: u16) -> Self {
        Self {
            targets: Arc::new(TrunkTargets::configured(&trunks)),
            trunks,
            shards: shards.max(1),
        }
    }

    /// The addresses of trunks changed.
    pub fn set_targets(&mut self, targets: Arc<TrunkTargets>) {
        self.targets = targets;
    }

    /// The addresses of trunks, as they were told last.
    #[must_use]
    pub const fn targets(&self) -> &Arc<TrunkTargets> {
        &self.targets
    }

    /// Whether an address belongs to any trunk; a stream from elsewhere is closed at once.
    #[must_use]
    pub fn knows(&self, source: IpAddr) -> bool {
        self.trunk_of(source).is_some()
    }

    /// Looks at a datagram.
    #[must_use]
    pub fn datagram(&self, peer: Peer, datagram: &[u8]) -> Verdict {
        let Some(trunk) = self.trunk_of(peer.addr.ip()) else {
            return Verdict::Discard { reason: "stranger" };
        };
        let may_open = self.may_open(trunk, peer.addr.ip());
        let raw = Bytes::copy_from_slice(datagram);
        match wire::read_shared_datagram(&raw, peer) {
            Ok(message) => self.assign(peer, (trunk, may_open), message, raw),
            Err(unreadable) => refuse(unreadable),
        }
    }

    /// The trunk that a connection belongs to by the certificate of its client, whatever its
    /// address is.
    #[must_use]
    pub fn trunk_by_certificate(&self, certificate: &PeerCertificate) -> Option<TrunkId> {
        self.trunks
            .iter()
            .position(|trunk| trunk.tls.is_client(certificate))
            .and_then(|at| u16::try_from(at).ok())
            .map(TrunkId)
    }

    /// Whether any trunk is known by a certificate: then a stranger may begin a TLS handshake.
    #[must_use]
    pub fn knows_certificates(&self) -> bool {
        self.trunks.iter().any(|trunk| trunk.tls.has_clients())
    }

    /// Looks at a message that a stream's framing cut out. `by_certificate`: the trunk that its
    /// connection belongs to by [`Self::trunk_by_certificate`].
    #[must_use]
    pub fn frame(&self, peer: Peer, by_certificate: Option<TrunkId>, frame: Bytes) -> Verdict {
        let source = peer.addr.ip();
        let Some(trunk) = by_certificate.or_else(|| self.trunk_of(source)) else {
            return Verdict::Discard { reason: "stranger" };
        };
        let may_open = by_certificate.is_some() || self.may_open(trunk, source);
        match wire::read_frame(frame.clone(), peer) {
            Ok(message) => self.assign(peer, (trunk, may_open), message, frame),
            Err(unreadable) => refuse(unreadable),
        }
    }

    /// The shard that a number in a tag, a branch or a snapshot stands for, also when the node had
    /// another number of shards then.
    #[must_use]
    pub fn shard(&self, carried: u16) -> u16 {
        carried % self.shards
    }

    /// The first trunk that takes calls from an address, else the first that knows it: two trunks
    /// may share a carrier's address, and one of them only calls out.
    #[must_use]
    pub fn trunk_of(&self, source: IpAddr) -> Option<TrunkId> {
        let source = source.to_canonical();
        let ids = || (0..=u16::MAX).map(TrunkId).zip(self.trunks.iter());
        ids()
            .find(|(_, trunk)| trunk.allows(source))
            .or_else(|| ids().find(|(id, _)| self.targets.has(*id, source)))
            .map(|(id, _)| id)
    }

    /// `may_open`: whether the trunk's peer may begin a call.
    fn assign(
        &self,
        peer: Peer,
        (trunk, may_open): (TrunkId, bool),
        message: Message,
        raw: Bytes,
    ) -> Verdict {
        let shard = match &message {
            Message::Request(request) => {
                let findings = sipx_sip::validate_request(request);
                if let Some(fault) = findings.iter().find(|finding| !finding.is_repairable()) {
                    let status = fault.status();
                    let phrase = crate::sip::compose::phrase(status);
                    return match wire::refuse_statelessly(request, status, phrase) {
                        Some(response) => Verdict::Refuse {
                            response,
                            reason: "invalid",
                        },
                        None => Verdict::Discard { reason: "invalid" },
                    };
                }
                let opens = matches!(request.method, Method::Invite | Method::Cancel);
                match view::to_tag(&request.headers) {
                    Some(tag) => LocalTag::parse(&tag).map(|tag| tag.shard),
                    None if opens && !may_open => {
                        return Verdict::Discard {
                            reason: "not_allowed",
                        };
                    }
                    None => None,
                }
            }
            Message::Response(response) => {
                if !sipx_sip::validate_response(response).is_empty() {
                    return Verdict::Discard { reason: "invalid" };
                }
                let branch = view::top_branch(&response.headers);
                match branch.as_deref().and_then(tag::shard_of_branch) {
                    Some(shard) => Some(shard),
                    None => {
                        return Verdict::Discard {
                            reason: "not_our_branch",
                        };
                    }
                }
            }
        };
        let shard = shard.unwrap_or_else(|| by_call_id(&message));
        Verdict::Deliver {
            shard: self.shard(shard),
            arrival: Box::new(Arrival {
                peer,
                trunk,
                message,
                raw,
            }),
        }
    }

    fn may_open(&self, trunk: TrunkId, source: IpAddr) -> bool {
        self.trunks
            .get(usize::from(trunk.0))
            .is_some_and(|trunk| trunk.allows(source.to_canonical()))
    }
}

fn refuse(unreadable: Unreadable) -> Verdict {
    let reason = match unreadable.reason {
        Reason::Keepalive => "keepalive",
        Reason::TooCostly => "too_costly",
        Reason::Malformed => "malformed",
    };
    match unreadable.refusal {
        Some(response) => Verdict::Refuse { response, reason },
        None => Verdict::Discard { reason },
    }
}

/// A new call goes where its Call-ID hashes to: a retransmission, its CANCEL and its ACK go the
/// same way without a table.
fn by_call_id(message: &Message) -> u16 {
    let mut hasher = DefaultHasher::new();
    view::call_id(message.headers()).hash(&mut hasher);
    u16::try_from(hasher.finish() & 0xffff).unwrap_or(0)
}
