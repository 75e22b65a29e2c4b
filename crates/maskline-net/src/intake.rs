//! From received bytes to the queue of the shard that owns the call.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use maskline_switch::overload::{self, Overload, Weight};
use maskline_switch::sip::Peer;
use maskline_switch::{Arrival, Dispatcher, PeerCertificate, TrunkId, TrunkTargets, Verdict};
use metrics::Counter;

use crate::queue::{Before, NotPut, Queue, Repetitions};

/// What all receiving tasks share.
pub(crate) struct Intake {
    /// Written only when the addresses of trunks change.
    dispatcher: RwLock<Dispatcher>,
    shards: Vec<Queue>,
    repetitions: Repetitions,
    delivered: Counter,
    overflowed: Counter,
}

impl Intake {
    pub(crate) fn new(dispatcher: Dispatcher, shards: Vec<Queue>) -> Self {
        Self {
            dispatcher: RwLock::new(dispatcher),
            shards,
            repetitions: Repetitions::new(),
            delivered: metrics::counter!("maskline_sip_messages_total"),
            overflowed: metrics::counter!("maskline_sip_queue_overflow_total"),
        }
    }

    /// Whether an address belongs to any trunk.
    pub(crate) fn knows(&self, source: IpAddr) -> bool {
        self.dispatcher().knows(source)
    }

    /// The addresses of trunks changed.
    pub(crate) fn set_targets(&self, targets: Arc<TrunkTargets>) {
        self.dispatcher
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .set_targets(targets);
    }

    /// The addresses of trunks, as they are now.
    pub(crate) fn targets(&self) -> Arc<TrunkTargets> {
        Arc::clone(self.dispatcher().targets())
    }

    fn dispatcher(&self) -> RwLockReadGuard<'_, Dispatcher> {
        self.dispatcher
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The trunk that an address belongs to.
    pub(crate) fn trunk_of(&self, source: IpAddr) -> Option<TrunkId> {
        self.dispatcher().trunk_of(source)
    }

    /// Whether any trunk is known by its certificate.
    pub(crate) fn knows_certificates(&self) -> bool {
        self.dispatcher().knows_certificates()
    }

    /// The trunk whose client shows a certificate.
    pub(crate) fn trunk_by_certificate(&self, certificate: &PeerCertificate) -> Option<TrunkId> {
        self.dispatcher().trunk_by_certificate(certificate)
    }

    /// Takes a datagram; never waits: what is too much for its shard's queue is refused if it opens
    /// something new, and else dropped and counted. Returns what is to be sent back at once.
    pub(crate) fn datagram(&self, peer: Peer, datagram: &[u8]) -> Option<Bytes> {
        let verdict = self.dispatcher().datagram(peer, datagram);
        let (shard, arrival) = match verdict {
            Verdict::Deliver { shard, arrival } => (shard, arrival),
            Verdict::Refuse { response, reason } => return refuse(response, reason),
            Verdict::Discard { reason } => return discard(reason),
        };
        let queue = self.shards.get(usize::from(shard))?;
        match self.offer(queue, arrival) {
            Offered::Taken | Offered::Closed => None,
            Offered::Refused(response) => Some(response),
            Offered::NotNow(_) => {
                self.overflowed.increment(1);
                None
            }
        }
    }

    /// Takes a message of a stream; one that belongs to what there is waits for room in its shard's
    /// queue, so that the peer is slowed down: on a stream nothing is repeated. Returns what is to be
    /// sent back at once.
    /// `trunk`: whose the connection is by its client's certificate.
    pub(crate) async fn frame(
        &self,
        peer: Peer,
        trunk: Option<TrunkId>,
        frame: Bytes,
    ) -> Option<Bytes> {
        let verdict = self.dispatcher().frame(peer, trunk, frame);
        let (shard, arrival) = match verdict {
            Verdict::Deliver { shard, arrival } => (shard, arrival),
            Verdict::Refuse { response, reason } => return refuse(response, reason),
            Verdict::Discard { reason } => return discard(reason),
        };
        let queue = self.shards.get(usize::from(shard))?;
        match self.offer(queue, arrival) {
            Offered::Taken | Offered::Closed => None,
            Offered::Refused(response) => Some(response),
            Offered::NotNow(arrival) => {
                if queue.put(arrival).await {
                    self.delivered.increment(1);
                }
                None
            }
        }
    }

    fn offer(&self, queue: &Queue, arrival: Box<Arrival>) -> Offered {
        let weight = Weight::of(&arrival);
        let (mark, before) = match weight {
            Weight::Belongs => (None, Before::Unseen),
            Weight::Opens => {
                let (mark, before) = self.repetitions.look_up(&arrival);
                (Some(mark), before)
            }
        };
        let put = match before {
            Before::Unseen => queue.offer(arrival, weight),
            Before::Taken => queue.offer(arrival, Weight::Belongs),
            Before::Refused => Err(NotPut::Overload(arrival, Overload::Queue)),
        };
        match put {
            Ok(()) => {
                self.delivered.increment(1);
                if let Some(mark) = mark {
                    self.repetitions.took(mark);
                }
                Offered::Taken
            }
            Err(NotPut::Closed) => Offered::Closed,
            // A repetition of what was taken is not refused.
            Err(NotPut::Overload(arrival, _)) if before == Before::Taken => {
                Offered::NotNow(arrival)
            }
            Err(NotPut::Overload(arrival, overload)) => match (mark, overload::refusal(&arrival)) {
                (Some(mark), Some(response)) => {
                    self.repetitions.refused(mark);
                    count_refused(overload.reason());
                    Offered::Refused(response)
                }
                (None | Some(_), _) => Offered::NotNow(arrival),
            },
        }
    }
}

/// What became of an arrival.
enum Offered {
    Taken,
    /// Send this back.
    Refused(Bytes),
    /// There is no room for it now.
    NotNow(Box<Arrival>),
    /// The node is stopping.
    Closed,
}

fn refuse(response: Bytes, reason: &'static str) -> Option<Bytes> {
    count_refused(reason);
    Some(response)
}

fn count_refused(reason: &'static str) {
    metrics::counter!("maskline_sip_refused_total", "reason" => reason).increment(1);
}

fn discard(reason: &'static str) -> Option<Bytes> {
    metrics::counter!("maskline_sip_discarded_total", "reason" => reason).increment(1);
    None
}
