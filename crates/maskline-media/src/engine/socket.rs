//! One media socket, which the kernel keeps for its party alone once that is known.
//!
//! A connected socket costs less to send from, and what others send to it is dropped by the kernel
//! before it costs a system call.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// A socket of one flow of one side; it never blocks.
#[derive(Debug)]
pub(super) struct MediaSocket {
    socket: UdpSocket,
    /// The local address is known, so that connecting cannot choose another one.
    may_connect: bool,
    peer: Option<SocketAddr>,
    is_ipv4: bool,
}

/// The sockets of one flow of one side, one of each family that we have an address of. They share a
/// port number; that of its party's family is used.
#[derive(Debug)]
pub(super) struct MediaSockets {
    pub(super) first: MediaSocket,
    pub(super) second: Option<MediaSocket>,
}

impl MediaSockets {
    /// The first, or the second if there is one.
    pub(super) const fn at(&self, second: bool) -> Option<&MediaSocket> {
        if second {
            self.second.as_ref()
        } else {
            Some(&self.first)
        }
    }

    /// From the socket of the receiver's family; `false`: the system did not take it, or there is none.
    pub(super) fn send(&self, datagram: &[u8], to: SocketAddr) -> bool {
        let socket = if self.first.is_of_family(to) {
            Some(&self.first)
        } else {
            self.second.as_ref()
        };
        socket.is_some_and(|socket| socket.send(datagram, to))
    }

    /// From now on the one of its family is for this party alone, and the other for anyone; each is for
    /// anyone without a party.
    pub(super) fn keep_for(&mut self, peer: Option<SocketAddr>) {
        self.first.keep_for(peer);
        if let Some(second) = &mut self.second {
            second.keep_for(peer);
        }
    }
}

impl MediaSocket {
    /// A socket that is bound and does not block.
    pub(super) fn new(socket: UdpSocket) -> Self {
        let local = socket.local_addr().ok();
        Self {
            may_connect: local.is_some_and(|local| !local.ip().is_unspecified()),
            is_ipv4: local.is_none_or(|local| local.is_ipv4()),
            socket,
            peer: None,
        }
    }

    const fn is_of_family(&self, address: SocketAddr) -> bool {
        self.is_ipv4 == address.is_ipv4()
    }

    /// The next datagram; `None`: there is none, or an error that belongs to one sent earlier.
    pub(super) fn receive(&self, into: &mut [u8]) -> Option<(usize, SocketAddr)> {
        // The source is asked for even of a connected socket: what came before still waits in it.
        self.socket.recv_from(into).ok()
    }

    /// Whether the system took it. Late audio is worthless: what it does not take now is dropped.
    pub(super) fn send(&self, datagram: &[u8], to: SocketAddr) -> bool {
        if self.peer != Some(to) {
            return self.socket.send_to(datagram, to).is_ok();
        }
        match self.socket.send(datagram) {
            Ok(_) => true,
            // That is said of an earlier one, and this one did not leave.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.socket.send(datagram).is_ok()
            }
            Err(_) => false,
        }
    }

    /// From now on for this party alone if it is of this family, else for anyone.
    pub(super) fn keep_for(&mut self, peer: Option<SocketAddr>) {
        let peer = peer.filter(|peer| self.is_of_family(*peer));
        if self.peer == peer || !self.may_connect {
            return;
        }
        let kept = match peer {
            Some(peer) => self.socket.connect(peer),
            None => Ok(rustix::net::connect_unspec(&self.socket)).and_then(|done| Ok(done?)),
        };
        match kept {
            Ok(()) => self.peer = peer,
            // As before: a socket that is not connected carries as well.
            Err(error) => tracing::debug!(%error, "a media socket can't be connected anew"),
        }
    }
}

impl std::os::fd::AsFd for MediaSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
