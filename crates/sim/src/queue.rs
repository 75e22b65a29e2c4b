//! The queues between the wires and the shards of a process that takes time for each message: what
//! waits, what is refused for overload, what is lost. As `maskline-net` has them, on the virtual clock.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use maskline_switch::Arrival;
use maskline_switch::overload::{self, QueueFill, Weight};
use maskline_switch::sip::{Message, view};

use crate::network::Wire;
use crate::scenario::QueuePlan;

/// What all repetitions of a request share, and no other request.
type Mark = (Wire, Option<String>, Option<String>, Vec<u8>);

/// The queues of one process.
#[derive(Debug)]
pub(crate) struct Queues {
    plan: QueuePlan,
    shards: Vec<Queue>,
    /// Whether a request that asked for something new was taken.
    before: BTreeMap<Mark, bool>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// What waits in its stream for room in the queue, in the order of its coming.
    held: VecDeque<Waiting>,
    busy: bool,
}

/// A message and the wire that it came by.
pub(crate) type Waiting = (Wire, Box<Arrival>);

/// What becomes of an arrival.
#[derive(Debug)]
pub(crate) enum Offered {
    /// It waits; `begins`: the shard had nothing to do and takes it after its time.
    Waits { begins: bool },
    /// This is sent back.
    Refused {
        response: Bytes,
        reason: &'static str,
    },
    /// It is lost.
    Lost,
}

impl Queues {
    pub(crate) fn new(plan: QueuePlan, shards: u16) -> Self {
        Self {
            plan,
            shards: (0..shards).map(|_| Queue::default()).collect(),
            before: BTreeMap::new(),
        }
    }

    /// How long a shard takes for a message.
    pub(crate) const fn service(&self) -> std::time::Duration {
        self.plan.service
    }

    pub(crate) fn offer(&mut self, shard: u16, wire: Wire, arrival: Box<Arrival>) -> Offered {
        let capacity = self.plan.capacity;
        let Some(queue) = self.shards.get_mut(usize::from(shard)) else {
            return Offered::Lost;
        };
        let weight = Weight::of(&arrival);
        let mark = (weight == Weight::Opens).then(|| mark_of(wire, &arrival));
        let before = mark
            .as_ref()
            .and_then(|mark| self.before.get(mark))
            .copied();
        let weighed_as = match before {
            Some(true) => Weight::Belongs,
            Some(false) | None => weight,
        };
        let refused = match before {
            Some(false) => Err("overload"),
            Some(true) | None => queue
                .fill(capacity, &arrival)
                .take(weighed_as)
                .map_err(overload::Overload::reason),
        };
        let behind_others = queue.held.iter().any(|(held, _)| *held == wire);
        let is_stream = arrival.peer.transport.is_stream();
        match (refused, mark) {
            (Ok(()), mark) if !behind_others => {
                self.before.extend(mark.map(|mark| (mark, true)));
                queue.waiting.push_back((wire, arrival));
            }
            (Err(reason), Some(mark)) if weighed_as == Weight::Opens => {
                let Some(response) = overload::refusal(&arrival) else {
                    return Offered::Lost;
                };
                self.before.insert(mark, false);
                return Offered::Refused { response, reason };
            }
            (Ok(()) | Err(_), mark) if is_stream => {
                self.before.extend(mark.map(|mark| (mark, true)));
                queue.held.push_back((wire, arrival));
            }
            (Ok(()) | Err(_), _) => return Offered::Lost,
        }
        Offered::Waits {
            begins: !std::mem::replace(&mut queue.busy, true),
        }
    }

    /// The message whose time in the shard is over, and whether another begins.
    pub(crate) fn serve(&mut self, shard: u16) -> Option<(Waiting, bool)> {
        let capacity = self.plan.capacity;
        let queue = self.shards.get_mut(usize::from(shard))?;
        let served = queue.waiting.pop_front();
        while let Some((_, next)) = queue.held.front()
            && queue.fill(capacity, next).take(Weight::Belongs).is_ok()
        {
            queue.waiting.extend(queue.held.pop_front());
        }
        queue.busy = !queue.waiting.is_empty();
        Some((served?, queue.busy))
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        let of = |queue: &Queue| queue.waiting.len() + queue.held.len();
        self.shards.iter().map(of).sum()
    }
}

impl Queue {
    fn fill(&self, capacity: usize, arrival: &Arrival) -> QueueFill {
        let of_trunk = |(_, it): &&Waiting| it.trunk == arrival.trunk;
        QueueFill {
            waiting: self.waiting.len(),
            of_trunk: self.waiting.iter().filter(of_trunk).count(),
            capacity,
        }
    }
}

fn mark_of(wire: Wire, arrival: &Arrival) -> Mark {
    let headers = arrival.message.headers();
    let method = match &arrival.message {
        Message::Request(request) => request.method.as_bytes().to_vec(),
        Message::Response(_) => Vec::new(),
    };
    (
        wire,
        view::top_branch(headers),
        view::call_id(headers),
        method,
    )
}
