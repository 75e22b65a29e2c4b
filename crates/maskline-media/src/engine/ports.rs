//! The ports of the engine: pairs of an even RTP port and the RTCP port above it, taken in turn
//! and rested before they are taken again. A pair is taken on all addresses or on none, so that its
//! number means the same to parties of either family.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::addresses::MediaAddresses;
use crate::command::OpenFailure;
use crate::engine::socket::{MediaSocket, MediaSockets};
use crate::engine::{EngineConfig, at_port};

/// How many pairs are tried for one side of a session before its opening is refused: it bounds
/// how long a worker is kept from its packets by ports that other processes hold.
const MAX_ATTEMPTS: usize = 128;

/// All port pairs that are not taken.
#[derive(Debug)]
pub(super) struct PortPool {
    addresses: MediaAddresses,
    /// Where parties are told that these are.
    announced: MediaAddresses,
    quarantine: Duration,
    /// Oldest release first, and so by time of availability.
    free: Mutex<VecDeque<Resting>>,
    capacity: usize,
    taken: AtomicUsize,
    passed_over: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Resting {
    port: u16,
    /// `None`: never used.
    until: Option<Instant>,
}

/// A port pair with its sockets. The sockets close before the ports go back.
#[derive(Debug)]
pub(super) struct PortPair {
    pub(super) rtp: MediaSockets,
    pub(super) rtcp: MediaSockets,
    lease: Lease,
}

/// A taken port pair; dropping it gives the ports back.
#[derive(Debug)]
pub(super) struct Lease {
    port: u16,
    pool: Arc<PortPool>,
}

impl PortPool {
    pub(super) fn new(config: &EngineConfig) -> Self {
        let last = *config.ports.end();
        let free: VecDeque<_> = config
            .ports
            .clone()
            .filter(|port| *port > 0 && port.is_multiple_of(2) && *port < last)
            .map(|port| Resting { port, until: None })
            .collect();
        Self {
            addresses: config.addresses,
            announced: config.announced,
            quarantine: config.quarantine,
            capacity: free.len(),
            free: Mutex::new(free),
            taken: AtomicUsize::new(0),
            passed_over: AtomicU64::new(0),
        }
    }

    /// How many pairs there are in all.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many ports are taken.
    pub(super) fn in_use(&self) -> usize {
        self.taken.load(Ordering::Relaxed) * 2
    }

    /// How often a pair was passed over because another process has one of its ports.
    pub(super) fn passed_over(&self) -> u64 {
        self.passed_over.load(Ordering::Relaxed)
    }

    /// Takes the pair that has rested longest and binds it.
    pub(super) fn take(self: &Arc<Self>) -> Result<PortPair, OpenFailure> {
        for _ in 0..MAX_ATTEMPTS.min(self.capacity) {
            let lease = self.lease().ok_or(OpenFailure::PortsExhausted)?;
            match lease.bind() {
                Ok((rtp, rtcp)) => return Ok(PortPair { rtp, rtcp, lease }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    self.passed_over.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::warn!(addresses = ?self.addresses, %error, "no media port can be opened");
                    return Err(OpenFailure::Unavailable);
                }
            }
        }
        Err(OpenFailure::PortsExhausted)
    }

    fn lease(self: &Arc<Self>) -> Option<Lease> {
        let mut free = self.lock();
        let now = Instant::now();
        let rested = |resting: &Resting| resting.until.is_none_or(|until| until <= now);
        let Resting { port, .. } = free.pop_front_if(|resting| rested(resting))?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some(Lease {
            port,
            pool: Arc::clone(self),
        })
    }

    /// Takes this very pair, rested or not: it is the same call's as before.
    pub(super) fn lease_again(self: &Arc<Self>, port: u16) -> Option<Lease> {
        let mut free = self.lock();
        let at = free.iter().position(|resting| resting.port == port)?;
        free.remove(at);
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some(Lease {
            port,
            pool: Arc::clone(self),
        })
    }

    /// Binds a pair that was taken.
    pub(super) fn bind(lease: Lease) -> Result<PortPair, OpenFailure> {
        match lease.bind() {
            Ok((rtp, rtcp)) => Ok(PortPair { rtp, rtcp, lease }),
            Err(error) => {
                tracing::warn!(port = lease.port, %error, "a call's media port can't be taken again");
                Err(OpenFailure::PortsLost)
            }
        }
    }

    /// A thread that died while it held the lock left no half-done change behind.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Resting>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PortPair {
    /// The RTP port.
    pub(super) const fn port(&self) -> u16 {
        self.lease.port
    }

    /// Whether an address is that of one of its sockets.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        let ports = [self.lease.port, self.lease.port.saturating_add(1)];
        let pool = &self.lease.pool;
        ports.contains(&address.port())
            && pool
                .addresses
                .iter()
                .chain(pool.announced.iter())
                .any(|ours| ours == address.ip())
    }
}

impl Lease {
    fn bind(&self) -> io::Result<(MediaSockets, MediaSockets)> {
        let on_all = |port| {
            let bound = |address| udp_socket(address, port).map(MediaSocket::new);
            let addresses = self.pool.addresses;
            Ok::<_, io::Error>(MediaSockets {
                first: bound(addresses.first())?,
                second: addresses.second().map(bound).transpose()?,
            })
        };
        Ok((on_all(self.port)?, on_all(self.port.saturating_add(1))?))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut free = self.pool.lock();
        free.push_back(Resting {
            port: self.port,
            until: Some(Instant::now() + self.pool.quarantine),
        });
        drop(free);
        self.pool.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the address can be bound at all.
pub(super) fn probe(address: IpAddr) -> io::Result<()> {
    udp_socket(address, 0).map(drop)
}

fn udp_socket(address: IpAddr, port: u16) -> io::Result<std::net::UdpSocket> {
    let address = at_port(address, port);
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // An IPv4 peer would show up as a mapped address, which no source list names.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
