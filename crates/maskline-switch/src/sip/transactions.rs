//! SIP transactions (RFC 3261 §17, RFC 6026) over the library's machines: timers, where answers go,
//! and what each client transaction is for.
//!
//! Pure: what is to be sent and what the switch must hear of are drained after each call.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use maskline_media::Tick;
use sipx_sip::transaction::{ClientState, Dispatch, ServerState};
use sipx_sip::{
    Message, Method, Output, Reliability, Request, Response, Timer, Timers, TransactionKey,
    TransactionLayer, TuEvent,
};

use super::large::Large;
use super::wire::{Peer, response_second_way, response_target};

/// The base timers of RFC 3261 §17.1.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SipTimers {
    /// Round-trip estimate; 500 ms by the RFC.
    pub t1: Duration,
    /// Longest retransmission interval; 4 s by the RFC.
    pub t2: Duration,
    /// Longest time that a message stays in the network; 5 s by the RFC.
    pub t4: Duration,
}

impl SipTimers {
    /// All three scaled to this T1, in the RFC's proportions.
    #[must_use]
    pub fn from_t1(t1: Duration) -> Self {
        Self {
            t1,
            t2: t1 * 8,
            t4: t1 * 10,
        }
    }

    /// 64·T1: when a transaction gives up.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.t1 * 64
    }
}

impl Default for SipTimers {
    fn default() -> Self {
        Self::from_t1(Duration::from_millis(500))
    }
}

/// A transaction of ours, client or server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Role {
    Client,
    Server,
}

#[derive(Debug)]
struct Entry<O> {
    role: Role,
    key: TransactionKey,
    /// Where this transaction's messages go.
    peer: Peer,
    /// Where they go once the stream to `peer` has failed.
    second_way: Option<Peer>,
    /// The same request for a datagram, if it went by a stream for its size.
    datagram: Option<Box<(Peer, Request)>>,
    /// What a client transaction is for; `None` on the server side.
    owner: Option<O>,
    /// How often a client's request has been sent before, without credentials that were good.
    tries: u8,
    timers: Vec<(Timer, (Tick, u64))>,
}

/// A request of ours that was refused for its credentials.
#[derive(Debug)]
pub struct Challenged {
    /// The request.
    pub request: Request,
    /// Where it went.
    pub peer: Peer,
    /// Where it would have gone if the stream to `peer` had failed.
    pub second_way: Option<Peer>,
    /// How often it had been sent before.
    pub tries: u8,
}

/// What the switch must hear of.
#[derive(Debug)]
pub enum Upcall<O> {
    /// A new request, never a retransmission.
    Request {
        /// Answer through this transaction.
        tx: TxId,
        /// The request.
        request: Request,
        /// Who sent it.
        peer: Peer,
    },
    /// An ACK that no transaction took: for a 2xx.
    Ack(Request),
    /// A response to a request of ours; a 2xx to an INVITE may come several times.
    Response {
        /// What the request was for.
        owner: O,
        /// The response.
        response: Response,
    },
    /// A 401 or 407 to a request of ours.
    Challenged {
        /// What the request was for.
        owner: O,
        /// The response.
        response: Response,
        /// What it refuses.
        challenged: Box<Challenged>,
    },
    /// A response that no transaction took; it may be a late 2xx.
    Stray(Response),
    /// No final answer within 64·T1, or the transport failed.
    Unanswered {
        /// What the request was for.
        owner: O,
        /// Whether it was the transport.
        failed: bool,
    },
}

/// The transactions of one shard.
#[derive(Debug)]
pub struct Transactions<O> {
    uac: TransactionLayer,
    uas: TransactionLayer,
    entries: BTreeMap<TxId, Entry<O>>,
    // tidy: allow(hash-order) because it is only looked up, and the library's key has no order
    ids: HashMap<(Role, TransactionKey), TxId>,
    deadlines: BTreeMap<(Tick, u64), (TxId, Timer)>,
    next: u64,
    limit: usize,
    large: Large,
    outgoing: VecDeque<(Peer, Bytes)>,
    upcalls: VecDeque<Upcall<O>>,
    /// The request that the response being handled refuses: over a stream the library forgets it
    /// before the switch hears of the response.
    refused: Option<Request>,
}

impl<O: Clone> Transactions<O> {
    /// An empty table that takes requests up to `limit` transactions, and requests of calls that
    /// are up to twice as many.
    #[must_use]
    pub fn new(timers: SipTimers, limit: usize) -> Self {
        let timers = Timers {
            t1: timers.t1,
            t2: timers.t2,
            t4: timers.t4,
        };
        Self {
            uac: TransactionLayer::new(timers),
            uas: TransactionLayer::new(timers),
            entries: BTreeMap::new(),
            ids: HashMap::new(),
            deadlines: BTreeMap::new(),
            next: 0,
            limit,
            large: Large::default(),
            outgoing: VecDeque::new(),
            upcalls: VecDeque::new(),
            refused: None,
        }
    }

    /// How many transactions are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The next message to put on the wire.
    pub fn poll_outgoing(&mut self) -> Option<(Peer, Bytes)> {
        self.outgoing.pop_front()
    }

    /// The next thing that the switch must hear of.
    pub fn poll_upcall(&mut self) -> Option<Upcall<O>> {
        self.upcalls.pop_front()
    }

    /// When [`Self::on_deadline`] is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.deadlines.keys().next().map(|(at, _)| *at)
    }

    /// Takes a message that arrived. `false`: the table is full and a new request was dropped.
    ///
    /// A request of a call that is up (`of_call`) may use as much room again, so that a flood of
    /// others leaves the calls that exist a way to end.
    pub fn receive(&mut self, now: Tick, peer: Peer, message: Message, of_call: bool) -> bool {
        match message {
            Message::Request(request) => {
                let room = if of_call {
                    self.limit.saturating_mul(2)
                } else {
                    self.limit
                };
                self.receive_request(now, peer, request, room)
            }
            Message::Response(response) => {
                self.receive_response(now, peer, response);
                true
            }
        }
    }

    fn receive_request(&mut self, now: Tick, peer: Peer, request: Request, room: usize) -> bool {
        let is_ack = request.method == Method::Ack;
        if !is_ack && self.entries.len() >= room {
            let known = TransactionKey::from_request(&request)
                .is_some_and(|key| self.ids.contains_key(&(Role::Server, key)));
            if !known {
                return false;
            }
        }
        let answers_to = response_target(&request, peer);
        let listens_at = response_second_way(&request, peer);
        match self
            .uas
            .receive(Message::Request(request), reliability(peer))
        {
            Dispatch::Matched { key, outputs } => {
                if let Some(id) = self.ids.get(&(Role::Server, key)).copied() {
                    self.perform(now, id, outputs, peer);
                }
            }
            Dispatch::Created { key, outputs } => {
                let id = self.insert(Role::Server, key, answers_to, None);
                if let Some(way) = listens_at {
                    self.set_second_way(id, way);
                }
                self.perform(now, id, outputs, peer);
            }
            Dispatch::Unmatched(message) => {
                if let (true, Message::Request(ack)) = (is_ack, *message) {
                    self.upcalls.push_back(Upcall::Ack(ack));
                }
            }
        }
        true
    }

    fn receive_response(&mut self, now: Tick, peer: Peer, response: Response) {
        self.refused = matches!(response.status.code(), 401 | 407)
            .then(|| TransactionKey::from_response(&response))
            .flatten()
            .and_then(|key| self.uac.client_request(&key).cloned());
        match self
            .uac
            .receive(Message::Response(response), reliability(peer))
        {
            Dispatch::Matched { key, outputs } | Dispatch::Created { key, outputs } => {
                if let Some(id) = self.ids.get(&(Role::Client, key)).copied() {
                    self.perform(now, id, outputs, peer);
                }
            }
            Dispatch::Unmatched(message) => {
                if let Message::Response(response) = *message {
                    self.upcalls.push_back(Upcall::Stray(response));
                }
            }
        }
    }

    /// Says by which stream requests too large for a datagram leave.
    pub fn set_large(&mut self, large: Large) {
        self.large = large;
    }

    /// Sends a request in a new client transaction; `owner` comes back with each answer. One that
    /// is too large for a datagram goes by TCP, and by UDP after all if nobody listens there.
    pub fn send_request(
        &mut self,
        now: Tick,
        peer: Peer,
        request: Request,
        owner: O,
    ) -> Option<TxId> {
        self.send_again(now, peer, request, owner, 0)
    }

    /// As [`Self::send_request`], for a request that was sent `tries` times before and refused for
    /// its credentials.
    pub fn send_again(
        &mut self,
        now: Tick,
        peer: Peer,
        request: Request,
        owner: O,
        tries: u8,
    ) -> Option<TxId> {
        let (peer, request, datagram) = match self.large.by_stream(peer, &request) {
            Some((way, stream)) => (way, stream, Some(Box::new((peer, request)))),
            None => (peer, request, None),
        };
        let (key, outputs) = self.uac.send_request(request, reliability(peer))?;
        let id = self.insert(Role::Client, key, peer, Some(owner));
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.tries = tries;
            entry.datagram = datagram;
        }
        self.perform(now, id, outputs, peer);
        Some(id)
    }

    /// Sends the request of a client transaction again, by a datagram: its stream failed before
    /// the far end said anything.
    fn send_by_datagram(
        &mut self,
        now: Tick,
        id: TxId,
        peer: Peer,
        request: Request,
    ) -> Option<()> {
        let entry = self.entries.get_mut(&id)?;
        let timers = std::mem::take(&mut entry.timers);
        let old = entry.key.clone();
        for (_, slot) in timers {
            self.deadlines.remove(&slot);
        }
        self.ids.remove(&(Role::Client, old.clone()));
        drop(self.uac.on_transport_error(&old));
        let (key, outputs) = self.uac.send_request(request, reliability(peer))?;
        let entry = self.entries.get_mut(&id)?;
        entry.key = key.clone();
        entry.peer = peer;
        self.ids.insert((Role::Client, key), id);
        self.perform(now, id, outputs, peer);
        Some(())
    }

    /// Takes up an INVITE that an earlier run sent: its answers find it, and it is not sent again.
    pub fn resume_invite(
        &mut self,
        now: Tick,
        peer: Peer,
        invite: Request,
        owner: O,
    ) -> Option<TxId> {
        let (key, mut outputs) = self.uac.send_request(invite, reliability(peer))?;
        outputs.retain(
            |output| matches!(output, Output::SetTimer { timer, .. } if *timer == Timer::B),
        );
        let id = self.insert(Role::Client, key, peer, Some(owner));
        self.perform(now, id, outputs, peer);
        Some(id)
    }

    /// Takes up a request that an earlier run received: its retransmissions and its CANCEL find it,
    /// and the switch does not hear of it again.
    pub fn resume_request(&mut self, now: Tick, peer: Peer, request: Request) -> Option<TxId> {
        // A stream died with that run, and a refusal leaves but once over a stream.
        let answers_to =
            response_second_way(&request, peer).unwrap_or_else(|| response_target(&request, peer));
        let message = Message::Request(request);
        let Dispatch::Created { key, mut outputs } = self.uas.receive(message, reliability(peer))
        else {
            return None;
        };
        outputs.retain(|output| !matches!(output, Output::ToTu(_) | Output::Send(_)));
        let id = self.insert(Role::Server, key, answers_to, None);
        self.perform(now, id, outputs, peer);
        Some(id)
    }

    /// Sends bytes outside any transaction: the ACK to a 2xx.
    pub fn send_bare(&mut self, peer: Peer, message: Message) {
        self.outgoing.push_back((peer, message.to_bytes()));
    }

    /// Answers a request; a 2xx to an INVITE may be sent again until it is acknowledged.
    pub fn respond(&mut self, now: Tick, tx: TxId, response: Response) {
        let Some(entry) = self.entries.get(&tx) else {
            return;
        };
        let (key, peer) = (entry.key.clone(), entry.peer);
        let outputs = self.uas.send_response(&key, response);
        self.perform(now, tx, outputs, peer);
    }

    /// The request that made a server transaction, while that lives.
    #[must_use]
    pub fn request(&self, tx: TxId) -> Option<&Request> {
        let entry = self.entries.get(&tx)?;
        match entry.role {
            Role::Server => self.uas.server_request(&entry.key),
            Role::Client => self.uac.client_request(&entry.key),
        }
    }

    /// Where the answers to a request go.
    #[must_use]
    pub fn peer(&self, tx: TxId) -> Option<Peer> {
        self.entries.get(&tx).map(|entry| entry.peer)
    }

    /// The server transaction of the INVITE that a CANCEL is for, while it is unanswered or
    /// lingers.
    #[must_use]
    pub fn invite_of(&self, cancel: &Request) -> Option<TxId> {
        let key = TransactionKey::for_cancelled_invite(cancel)?;
        let state = self.uas.server_state(&key)?;
        match state {
            ServerState::Trying
            | ServerState::Proceeding
            | ServerState::Completed
            | ServerState::Confirmed
            | ServerState::Accepted => self.ids.get(&(Role::Server, key)).copied(),
            ServerState::Terminated => None,
        }
    }

    /// Forgets a client transaction without telling anyone: an INVITE whose CANCEL was never
    /// followed by a final answer.
    pub fn forget(&mut self, tx: TxId) {
        if let Some(entry) = self.entries.get(&tx) {
            let key = entry.key.clone();
            match entry.role {
                Role::Client => drop(self.uac.on_transport_error(&key)),
                Role::Server => drop(self.uas.on_transport_error(&key)),
            }
            self.remove(tx);
        }
    }

    /// Names where a transaction's messages go if the stream to its peer fails: a peer that opened
    /// a stream and closed it again is reached where it listens.
    pub fn set_second_way(&mut self, tx: TxId, way: Peer) {
        if let Some(entry) = self.entries.get_mut(&tx) {
            entry.second_way = Some(way);
        }
    }

    /// Sends the requests of every client transaction towards a peer by their second way, and tells
    /// those that have none that their transport failed, unless a 1xx came already. One that has its
    /// final answer only waits for repetitions of it. A response takes its second way when it is
    /// sent again.
    pub fn on_transport_failed(&mut self, now: Tick, peer: Peer) {
        let mut hit: Vec<(TxId, TransactionKey)> = Vec::new();
        let mut again = Vec::new();
        for (id, entry) in &mut self.entries {
            let answered = entry.role == Role::Client
                && matches!(
                    self.uac.client_state(&entry.key),
                    Some(ClientState::Completed | ClientState::Accepted)
                );
            if entry.peer != peer || answered {
                continue;
            }
            match (entry.role, entry.second_way.take()) {
                (Role::Client, Some(way)) => {
                    entry.peer = way;
                    if let Some(request) = self.uac.client_request(&entry.key) {
                        let bytes = Message::Request(request.clone()).to_bytes();
                        self.outgoing.push_back((way, bytes));
                    }
                }
                // An INVITE that was heard of is still on at the far end: its answer, or our CANCEL,
                // comes by a new connection.
                (Role::Client, None)
                    if self.uac.client_state(&entry.key) == Some(ClientState::Proceeding) => {}
                (Role::Client, None) => match entry.datagram.take() {
                    Some(datagram) => again.push((*id, datagram)),
                    None => hit.push((*id, entry.key.clone())),
                },
                (Role::Server, Some(way)) => entry.peer = way,
                (Role::Server, None) => {}
            }
        }
        for (id, datagram) in again {
            let (way, request) = *datagram;
            if self.send_by_datagram(now, id, way, request).is_none() {
                self.remove(id);
            }
        }
        for (id, key) in hit {
            let outputs = self.uac.on_transport_error(&key);
            self.perform(now, id, outputs, peer);
        }
    }

    /// Fires every timer that is due.
    pub fn on_deadline(&mut self, now: Tick) {
        while let Some(entry) = self.deadlines.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let (slot, (id, timer)) = (*entry.key(), *entry.get());
            entry.remove();
            let Some(tx) = self.entries.get_mut(&id) else {
                continue;
            };
            tx.timers.retain(|(_, known)| *known != slot);
            let (role, key, peer) = (tx.role, tx.key.clone(), tx.peer);
            let outputs = match role {
                Role::Client => self.uac.on_timer(&key, timer),
                Role::Server => self.uas.on_timer(&key, timer),
            };
            self.perform(now, id, outputs, peer);
        }
    }

    fn insert(&mut self, role: Role, key: TransactionKey, peer: Peer, owner: Option<O>) -> TxId {
        self.next += 1;
        let id = TxId(self.next);
        self.ids.insert((role, key.clone()), id);
        self.entries.insert(
            id,
            Entry {
                role,
                key,
                peer,
                second_way: None,
                datagram: None,
                owner,
                tries: 0,
                timers: Vec::new(),
            },
        );
        id
    }

    fn remove(&mut self, id: TxId) {
        if let Some(entry) = self.entries.remove(&id) {
            for (_, slot) in entry.timers {
                self.deadlines.remove(&slot);
            }
            self.ids.remove(&(entry.role, entry.key));
        }
    }

    fn perform(&mut self, now: Tick, id: TxId, outputs: Vec<Output>, from: Peer) {
        for output in outputs {
            match output {
                Output::Send(message) => {
                    if let Some(entry) = self.entries.get(&id) {
                        self.outgoing.push_back((entry.peer, message.to_bytes()));
                    }
                }
                Output::SetTimer { timer, after } => {
                    self.clear_timer(id, timer);
                    self.next += 1;
                    let slot = (now + after, self.next);
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.timers.push((timer, slot));
                        self.deadlines.insert(slot, (id, timer));
                    }
                }
                Output::ClearTimer(timer) => self.clear_timer(id, timer),
                Output::ToTu(event) => self.tell(id, *event, from),
                Output::Terminated(_) => self.remove(id),
                // The library may add outputs in a minor version; nothing can be done with one
                // that this version does not know.
                _ => {}
            }
        }
    }

    fn clear_timer(&mut self, id: TxId, timer: Timer) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let deadlines = &mut self.deadlines;
        entry.timers.retain(|(known, slot)| {
            if *known == timer {
                deadlines.remove(slot);
            }
            *known != timer
        });
    }

    fn challenged(&mut self, id: TxId) -> Option<Box<Challenged>> {
        let entry = self.entries.get(&id)?;
        Some(Box::new(Challenged {
            request: self.refused.take()?,
            peer: entry.peer,
            second_way: entry.second_way,
            tries: entry.tries,
        }))
    }

    fn tell(&mut self, id: TxId, event: TuEvent, from: Peer) {
        let owner = self.entries.get(&id).and_then(|entry| entry.owner.clone());
        match (event, owner) {
            (TuEvent::Request(request), _) => self.upcalls.push_back(Upcall::Request {
                tx: id,
                request: *request,
                peer: from,
            }),
            (TuEvent::Ack(ack), _) => self.upcalls.push_back(Upcall::Ack(*ack)),
            (TuEvent::Response(response), Some(owner)) => {
                let response = *response;
                let challenged = self.challenged(id);
                self.upcalls.push_back(match challenged {
                    Some(challenged) => Upcall::Challenged {
                        owner,
                        response,
                        challenged,
                    },
                    None => Upcall::Response { owner, response },
                });
            }
            (event @ (TuEvent::Timeout | TuEvent::TransportError), Some(owner)) => {
                let failed = matches!(event, TuEvent::TransportError);
                self.upcalls.push_back(Upcall::Unanswered { owner, failed });
            }
            // A server transaction that hears no ACK to its refusal needs no more of the switch.
            _ => {}
        }
    }
}

fn reliability(peer: Peer) -> Reliability {
    if peer.transport.is_stream() {
        Reliability::Reliable
    } else {
        Reliability::Unreliable
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
