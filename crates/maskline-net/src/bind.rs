//! Taking the listening addresses.
//!
//! A UDP address gets several sockets (SO_REUSEPORT), so that several tasks receive. That option
//! would let a second process take the same address without an error and half of the packets: so
//! the first socket is bound without it, and gets it afterwards for its siblings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use maskline_switch::sip::Transport;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::error::NetError;

/// Asked for as receive buffer of a UDP socket, in bytes; the kernel gives at most `rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// One address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    /// How messages travel.
    pub transport: Transport,
    /// The address; port 0 takes a free one.
    pub addr: SocketAddr,
}

/// Bound sockets; what arrives waits in the kernel until [`crate::SipNode::start`].
#[derive(Debug)]
pub struct Sockets {
    pub(crate) listeners: Vec<Listening>,
}

/// The sockets of one address.
#[derive(Debug)]
pub(crate) enum Listening {
    Udp {
        bound: SocketAddr,
        sockets: Vec<Arc<UdpSocket>>,
    },
    Stream {
        bound: SocketAddr,
        listener: TcpListener,
        transport: Transport,
    },
}

impl Sockets {
    /// What is bound, in the order of the list that was given, with the ports that were taken.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listening::bound).collect()
    }
}

impl Sockets {
    /// Whether any of them speaks TLS.
    pub(crate) fn speak_tls(&self) -> bool {
        self.listeners.iter().any(|listening| match listening {
            Listening::Udp { .. } => false,
            Listening::Stream { transport, .. } => *transport == Transport::Tls,
        })
    }
}

impl Listening {
    pub(crate) const fn bound(&self) -> SocketAddr {
        match self {
            Self::Udp { bound, .. } | Self::Stream { bound, .. } => *bound,
        }
    }
}

/// Binds every address, a UDP one with `udp_sockets` sockets (one per shard is a good number; at
/// least one). Call within a runtime. IPv6 addresses take IPv6 only.
///
/// # Errors
/// [`NetError::Bind`] for the first address that can't be had.
pub fn bind(listeners: &[ListenSpec], udp_sockets: u16) -> Result<Sockets, NetError> {
    if listeners.len() > usize::from(u16::MAX) {
        return Err(NetError::TooManyListeners(listeners.len()));
    }
    let bound = listeners.iter().enumerate().map(|(index, spec)| {
        let (transport, bound) = match spec.transport {
            Transport::Udp => ("udp", bind_udp(spec.addr, udp_sockets)),
            Transport::Tcp => ("tcp", bind_stream(spec)),
            Transport::Tls => ("tls", bind_stream(spec)),
        };
        bound.map_err(|source| NetError::Bind {
            listener: index,
            transport,
            addr: spec.addr,
            source,
        })
    });
    Ok(Sockets {
        listeners: bound.collect::<Result<_, _>>()?,
    })
}

fn bind_udp(addr: SocketAddr, count: u16) -> io::Result<Listening> {
    let first = udp_socket(addr)?;
    first.bind(&addr.into())?;
    first.set_reuse_port(true)?;
    let first = UdpSocket::from_std(first.into())?;
    let bound = first.local_addr()?;
    let mut sockets = vec![Arc::new(first)];
    for _ in 1..count {
        let sibling = udp_socket(bound)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&bound.into())?;
        sockets.push(Arc::new(UdpSocket::from_std(sibling.into())?));
    }
    Ok(Listening::Udp { bound, sockets })
}

fn udp_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_stream(spec: &ListenSpec) -> io::Result<Listening> {
    let addr = spec.addr;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted node must not wait for connections of its earlier run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let bound = listener.local_addr()?;
    Ok(Listening::Stream {
        bound,
        listener,
        transport: spec.transport,
    })
}
