//! The queue between those who receive and a shard: how much waits in it, and whose it is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use maskline_switch::overload::{Overload, QueueFill, Weight};
use maskline_switch::sip::{Message, view};
use maskline_switch::{Arrival, TrunkId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

/// Where arrivals are put.
pub(crate) struct Queue {
    sender: mpsc::Sender<Box<Arrival>>,
    load: Arc<Load>,
}

/// Where the shard takes them from.
pub(crate) struct Arrivals {
    receiver: mpsc::Receiver<Box<Arrival>>,
    load: Arc<Load>,
}

/// Why an arrival was not put.
pub(crate) enum NotPut {
    /// It is given back.
    Overload(Box<Arrival>, Overload),
    /// The shard has ended.
    Closed,
}

struct Load {
    waiting: AtomicUsize,
    of_trunk: Vec<AtomicUsize>,
    capacity: usize,
    room: Notify,
}

/// A queue of this many messages, for this many trunks.
pub(crate) fn queue(capacity: usize, trunks: usize) -> (Queue, Arrivals) {
    let capacity = capacity.max(1);
    let (sender, receiver) = mpsc::channel(capacity);
    let load = Arc::new(Load {
        waiting: AtomicUsize::new(0),
        of_trunk: (0..trunks).map(|_| AtomicUsize::new(0)).collect(),
        capacity,
        room: Notify::new(),
    });
    let queue = Queue {
        sender,
        load: Arc::clone(&load),
    };
    (queue, Arrivals { receiver, load })
}

impl Load {
    fn of(&self, trunk: TrunkId) -> Option<&AtomicUsize> {
        self.of_trunk.get(usize::from(trunk.0))
    }

    /// Several may look at the same time: the bounds of the decision are soft by as many messages as
    /// there are receiving tasks, and the channel's own is hard.
    fn fill(&self, trunk: TrunkId) -> QueueFill {
        QueueFill {
            waiting: self.waiting.load(Ordering::Relaxed),
            of_trunk: self.of(trunk).map_or(0, |it| it.load(Ordering::Relaxed)),
            capacity: self.capacity,
        }
    }

    fn add(&self, trunk: TrunkId) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(of_trunk) = self.of(trunk) {
            of_trunk.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn remove(&self, trunk: TrunkId) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(of_trunk) = self.of(trunk) {
            of_trunk.fetch_sub(1, Ordering::Relaxed);
        }
        self.room.notify_waiters();
    }
}

impl Queue {
    /// Puts an arrival, unless that is too much for the queue or for its trunk's share.
    pub(crate) fn offer(&self, arrival: Box<Arrival>, weight: Weight) -> Result<(), NotPut> {
        let trunk = arrival.trunk;
        if let Err(overload) = self.load.fill(trunk).take(weight) {
            return Err(NotPut::Overload(arrival, overload));
        }
        self.load.add(trunk);
        self.sender.try_send(arrival).map_err(|error| {
            self.load.remove(trunk);
            match error {
                TrySendError::Full(arrival) => NotPut::Overload(arrival, Overload::Queue),
                TrySendError::Closed(_) => NotPut::Closed,
            }
        })
    }

    /// Puts an arrival as soon as there is room; `false`: the shard has ended.
    pub(crate) async fn put(&self, mut arrival: Box<Arrival>) -> bool {
        loop {
            let room = self.load.room.notified();
            tokio::pin!(room);
            // From here on no room that is made goes unheard.
            room.as_mut().enable();
            match self.offer(arrival, Weight::Belongs) {
                Ok(()) => return true,
                Err(NotPut::Closed) => return false,
                Err(NotPut::Overload(given_back, _)) => arrival = given_back,
            }
            room.await;
        }
    }
}

impl Arrivals {
    pub(crate) async fn recv(&mut self) -> Option<Box<Arrival>> {
        let arrival = self.receiver.recv().await?;
        self.load.remove(arrival.trunk);
        Some(arrival)
    }

    pub(crate) fn try_recv(&mut self) -> Option<Box<Arrival>> {
        let arrival = self.receiver.try_recv().ok()?;
        self.load.remove(arrival.trunk);
        Some(arrival)
    }

    /// Messages that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.load.waiting.load(Ordering::Relaxed)
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.receiver.close();
        self.load.room.notify_waiters();
    }
}

/// What became of the requests that were taken or refused lately, so that a repetition meets the
/// same: one that is refused after its first was taken would end a call that its shard goes on
/// with. A table of fixed size; what falls out of it is weighed as new.
pub(crate) struct Repetitions {
    slots: Vec<AtomicU64>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Unseen,
    Taken,
    Refused,
}

/// Slots: a few seconds' worth of requests at the highest rate. 128 kB.
const SLOTS: usize = 1 << 14;

/// Names a request in [`Repetitions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Repetitions {
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The request's name, and what became of it before. What all its repetitions share, and no
    /// other request: source, branch, Call-ID and method (RFC 3261 §17.2.3).
    pub(crate) fn look_up(&self, arrival: &Arrival) -> (Mark, Before) {
        let mut hasher = DefaultHasher::new();
        arrival.peer.hash(&mut hasher);
        let headers = arrival.message.headers();
        view::top_branch(headers).hash(&mut hasher);
        view::call_id(headers).hash(&mut hasher);
        if let Message::Request(request) = &arrival.message {
            request.method.as_bytes().hash(&mut hasher);
        }
        let mark = Mark(hasher.finish() | 1);
        let kept = self.slot(mark).map_or(0, |it| it.load(Ordering::Relaxed));
        let before = if kept == mark.taken() {
            Before::Taken
        } else if kept == mark.refused() {
            Before::Refused
        } else {
            Before::Unseen
        };
        (mark, before)
    }

    pub(crate) fn took(&self, mark: Mark) {
        self.keep(mark, mark.taken());
    }

    pub(crate) fn refused(&self, mark: Mark) {
        self.keep(mark, mark.refused());
    }

    fn keep(&self, mark: Mark, value: u64) {
        if let Some(slot) = self.slot(mark) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    fn slot(&self, mark: Mark) -> Option<&AtomicU64> {
        // The low bit is no part of the name.
        let at = usize::try_from(mark.0 >> 1).unwrap_or(0) % SLOTS;
        self.slots.get(at)
    }
}

impl Mark {
    /// Never 0, which stands for nothing.
    const fn taken(self) -> u64 {
        self.0
    }

    const fn refused(self) -> u64 {
        self.0 & !1
    }
}
