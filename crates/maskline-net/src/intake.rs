//! From received bytes to the queue of the shard that owns the call.

use std::net::IpAddr;

use bytes::Bytes;
use maskline_switch::sip::Peer;
use maskline_switch::{Arrival, Dispatcher, PeerCertificate, TrunkId, Verdict};
use metrics::Counter;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// What all receiving tasks share.
pub(crate) struct Intake {
    dispatcher: Dispatcher,
    shards: Vec<mpsc::Sender<Box<Arrival>>>,
    delivered: Counter,
    overflowed: Counter,
}

impl Intake {
    pub(crate) fn new(dispatcher: Dispatcher, shards: Vec<mpsc::Sender<Box<Arrival>>>) -> Self {
        Self {
            dispatcher,
            shards,
            delivered: metrics::counter!("maskline_sip_messages_total"),
            overflowed: metrics::counter!("maskline_sip_queue_overflow_total"),
        }
    }

    /// Whether an address belongs to any trunk.
    pub(crate) fn knows(&self, source: IpAddr) -> bool {
        self.dispatcher.knows(source)
    }

    /// The trunk that an address belongs to.
    pub(crate) fn trunk_of(&self, source: IpAddr) -> Option<TrunkId> {
        self.dispatcher.trunk_of(source)
    }

    /// Whether any trunk is known by its certificate.
    pub(crate) fn knows_certificates(&self) -> bool {
        self.dispatcher.knows_certificates()
    }

    /// The trunk whose client shows a certificate.
    pub(crate) fn trunk_by_certificate(&self, certificate: &PeerCertificate) -> Option<TrunkId> {
        self.dispatcher.trunk_by_certificate(certificate)
    }

    /// Takes a datagram; never waits: what finds its shard's queue full is dropped and counted.
    /// Returns what is to be sent back at once.
    pub(crate) fn datagram(&self, peer: Peer, datagram: &[u8]) -> Option<Bytes> {
        let (shard, arrival) = match self.dispatcher.datagram(peer, datagram) {
            Verdict::Deliver { shard, arrival } => (shard, arrival),
            Verdict::Refuse { response, reason } => return refuse(response, reason),
            Verdict::Discard { reason } => return discard(reason),
        };
        match self
            .shards
            .get(usize::from(shard))
            .map(|q| q.try_send(arrival))
        {
            Some(Ok(())) => self.delivered.increment(1),
            Some(Err(TrySendError::Full(_))) => self.overflowed.increment(1),
            // The node is stopping.
            Some(Err(TrySendError::Closed(_))) | None => {}
        }
        None
    }

    /// Takes a message of a stream; waits while its shard's queue is full, so that the peer is
    /// slowed down: on a stream nothing is repeated. Returns what is to be sent back at once.
    /// `trunk`: whose the connection is by its client's certificate.
    pub(crate) async fn frame(
        &self,
        peer: Peer,
        trunk: Option<TrunkId>,
        frame: Bytes,
    ) -> Option<Bytes> {
        let (shard, arrival) = match self.dispatcher.frame(peer, trunk, frame) {
            Verdict::Deliver { shard, arrival } => (shard, arrival),
            Verdict::Refuse { response, reason } => return refuse(response, reason),
            Verdict::Discard { reason } => return discard(reason),
        };
        if let Some(queue) = self.shards.get(usize::from(shard))
            && queue.send(arrival).await.is_ok()
        {
            self.delivered.increment(1);
        }
        None
    }
}

fn refuse(response: Bytes, reason: &'static str) -> Option<Bytes> {
    metrics::counter!("maskline_sip_refused_total", "reason" => reason).increment(1);
    Some(response)
}

fn discard(reason: &'static str) -> Option<Bytes> {
    metrics::counter!("maskline_sip_discarded_total", "reason" => reason).increment(1);
    None
}
