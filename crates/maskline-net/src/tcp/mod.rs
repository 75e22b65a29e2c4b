//! SIP over TCP and TLS: the table of connections, which finds or makes the one to a peer.
//!
//! A message goes out on the connection that the peer's address names; if there is none, one is
//! made. What can't be written is told to every shard, since a stream repeats nothing by itself.

mod accept;
mod backoff;
mod connection;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use maskline_switch::sip::{Peer, Transport};
use maskline_switch::{SwitchConfig, TrunkId};
use metrics::{Counter, Gauge};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use accept::accept;
use backoff::Backoff;

use crate::intake::Intake;
use crate::limits::NetLimits;
use crate::tls::{self, Handshakes, Tls};

/// All TCP and TLS connections of the node.
pub(crate) struct Connections {
    table: Mutex<Table>,
    limits: NetLimits,
    /// Where each listener is bound, in their order.
    bound: Vec<SocketAddr>,
    /// By trunk: what calls to it are sent to, and how often its connections are pinged.
    trunks: Vec<(Option<Peer>, Option<Duration>)>,
    tls: Arc<Tls>,
    handshakes: Arc<Handshakes>,
    intake: Arc<Intake>,
    failures: Vec<mpsc::Sender<Peer>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    up: Gauge,
    unreported: Counter,
}

struct Table {
    open: HashMap<Peer, Entry>,
    /// Connections that a trunk opened and that serve for requests to it (RFC 5923).
    reused: HashMap<Peer, Entry>,
    accepted: HashMap<IpAddr, usize>,
    total: usize,
    last_id: u64,
    backoff: Backoff,
}

#[derive(Clone)]
struct Entry {
    id: u64,
    queue: mpsc::Sender<Bytes>,
    /// Ends the connection at once: it has lost a message.
    cut: CancellationToken,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    ByPeer,
    ByUs,
}

/// A connection's place in the table; dropping it frees the place.
struct Place {
    connections: Arc<Connections>,
    peer: Peer,
    opened: Opened,
    /// Whose it is by the certificate of the client that opened it.
    trunk: Option<TrunkId>,
    /// What else it serves for: requests to the trunk that opened it.
    serves: Option<Peer>,
    entry: Entry,
}

impl Connections {
    /// `bound`: where each listener is bound. `failures`: how each shard is told of a peer that
    /// can't be written to.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a part of its own, wired together once"
    )]
    pub(crate) fn new(
        limits: NetLimits,
        bound: Vec<SocketAddr>,
        config: &SwitchConfig,
        tls: Arc<Tls>,
        intake: Arc<Intake>,
        failures: Vec<mpsc::Sender<Peer>>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            table: Mutex::new(Table {
                open: HashMap::new(),
                reused: HashMap::new(),
                accepted: HashMap::new(),
                total: 0,
                last_id: 0,
                backoff: Backoff::new(limits.backoff, limits.backoff_most),
            }),
            limits,
            bound,
            trunks: config
                .trunks
                .iter()
                .map(|trunk| (config.peer_of(trunk), trunk.keepalive.crlf))
                .collect(),
            tls,
            handshakes: Arc::new(Handshakes::new(limits)),
            intake,
            failures,
            stop,
            tasks: TaskTracker::new(),
            up: metrics::gauge!("maskline_sip_tcp_connections"),
            unreported: metrics::counter!("maskline_sip_failures_unreported_total"),
        }
    }

    /// Queues a message for a peer; never waits. A failure comes back to the shards.
    pub(crate) fn send(self: &Arc<Self>, peer: Peer, bytes: Bytes) {
        let (known, pausing) = {
            let table = self.lock();
            let known = table.open.get(&peer).or_else(|| table.reused.get(&peer));
            (known.cloned(), table.backoff.holds(&peer, Instant::now()))
        };
        let bytes = match known {
            Some(entry) => match entry.queue.try_send(bytes) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    tracing::warn!(peer = %peer.addr, "a connection is cut: its peer reads too slowly");
                    entry.cut.cancel();
                    return;
                }
                // It is ending; a new one takes its place.
                Err(TrySendError::Closed(bytes)) => bytes,
            },
            None => bytes,
        };
        if self.stop.is_cancelled() {
            return;
        }
        if pausing {
            metrics::counter!("maskline_sip_tcp_refused_total", "reason" => "backoff").increment(1);
            self.failed(peer);
            return;
        }
        let Some((place, queue)) = self.place(peer, Opened::ByUs) else {
            self.failed(peer);
            return;
        };
        // The queue is new and holds at least one message.
        let _ = place.entry.queue.try_send(bytes);
        self.tasks.spawn(dial(Arc::clone(self), place, queue));
    }

    /// Ends when every connection has; call after `stop`.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes a place in the table; `None`: there is none left.
    fn place(
        self: &Arc<Self>,
        peer: Peer,
        opened: Opened,
    ) -> Option<(Place, mpsc::Receiver<Bytes>)> {
        let (queue, queued) = mpsc::channel(self.limits.connection_queue.max(1));
        let mut table = self.lock();
        if table.total >= self.limits.connections {
            metrics::counter!("maskline_sip_tcp_refused_total", "reason" => "total").increment(1);
            return None;
        }
        if opened == Opened::ByPeer {
            let count = table.accepted.entry(peer.addr.ip()).or_default();
            if *count >= self.limits.connections_per_address {
                metrics::counter!("maskline_sip_tcp_refused_total", "reason" => "address")
                    .increment(1);
                return None;
            }
            *count += 1;
        }
        table.total += 1;
        table.last_id += 1;
        let entry = Entry {
            id: table.last_id,
            queue,
            cut: CancellationToken::new(),
        };
        table.open.insert(peer, entry.clone());
        drop(table);
        self.up.increment(1.0);
        let place = Place {
            connections: Arc::clone(self),
            peer,
            opened,
            trunk: None,
            serves: None,
            entry,
        };
        Some((place, queued))
    }

    /// Lets a connection that a trunk opened serve for requests to that trunk as well, until it ends.
    /// Its client has proved to be the trunk.
    fn reuse(&self, place: &mut Place, trunk: TrunkId) {
        let Some((Some(towards), _)) = self.trunks.get(usize::from(trunk.0)) else {
            return;
        };
        if towards.transport == place.peer.transport && *towards != place.peer {
            place.serves = Some(*towards);
            self.lock().reused.insert(*towards, place.entry.clone());
        }
    }

    /// How often a connection of ours is pinged.
    fn pinged(&self, peer: Peer) -> Option<Duration> {
        let targets = self.intake.targets();
        let mut trunks = (0..=u16::MAX).map(TrunkId).zip(&self.trunks);
        trunks
            .find(|(trunk, _)| targets.of(*trunk).iter().any(|it| it.addr == peer.addr))
            .and_then(|(_, (_, every))| *every)
    }

    /// Tells the shards that a peer can't be written to.
    fn failed(&self, peer: Peer) {
        for shard in &self.failures {
            // A shard that misses it learns of it by its transactions' own timeout.
            if shard.try_send(peer).is_err() {
                self.unreported.increment(1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.lock();
        table.total = table.total.saturating_sub(1);
        if table
            .open
            .get(&self.peer)
            .is_some_and(|entry| entry.id == self.entry.id)
        {
            table.open.remove(&self.peer);
        }
        if let Some(serves) = self.serves
            && table
                .reused
                .get(&serves)
                .is_some_and(|entry| entry.id == self.entry.id)
        {
            table.reused.remove(&serves);
        }
        if self.opened == Opened::ByPeer {
            let address = self.peer.addr.ip();
            let left = table
                .accepted
                .get(&address)
                .map_or(0, |n| n.saturating_sub(1));
            if left == 0 {
                table.accepted.remove(&address);
            } else {
                table.accepted.insert(address, left);
            }
        }
        drop(table);
        self.connections.up.decrement(1.0);
    }
}

/// Makes a connection, then serves it.
async fn dial(connections: Arc<Connections>, place: Place, queue: mpsc::Receiver<Bytes>) {
    let peer = place.peer;
    let local = connections.bound.get(usize::from(peer.listener)).copied();
    let connecting = tokio::time::timeout(connections.limits.connect, connect(local, peer.addr));
    let connected = tokio::select! {
        () = connections.stop.cancelled() => return,
        connected = connecting => connected,
    };
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let error = match (connected, peer.transport) {
        (Ok(mut stream), Transport::Udp | Transport::Tcp) => {
            connections.lock().backoff.connected(&peer);
            connection::prepare(&stream);
            let (reader, writer) = stream.split();
            return connection::serve(reader, writer, place, queue).await;
        }
        (Ok(stream), Transport::Tls) => {
            connection::prepare(&stream);
            let secured = tokio::select! {
                () = connections.stop.cancelled() => return,
                secured = tls::connect(&connections.tls, &connections.limits, stream, peer.addr) => secured,
            };
            match secured {
                Ok(stream) => {
                    connections.lock().backoff.connected(&peer);
                    let (reader, writer) = tokio::io::split(stream);
                    return connection::serve(reader, writer, place, queue).await;
                }
                Err(error) => error,
            }
        }
        (Err(error), _) => error,
    };
    metrics::counter!("maskline_sip_tcp_connect_failures_total").increment(1);
    tracing::warn!(peer = %peer.addr, %error, "no SIP connection can be made");
    connections.lock().backoff.failed(peer, Instant::now());
    drop(place);
    connections.failed(peer);
}

/// Connects from the listener's own address, by which the peer knows us.
async fn connect(local: Option<SocketAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(local) = local
        && !local.ip().is_unspecified()
        && local.is_ipv4() == to.is_ipv4()
    {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    socket.connect(to).await
}
