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
}

impl MediaSocket {
    /// A socket that is bound and does not block.
    pub(super) fn new(socket: UdpSocket) -> Self {
        let local = socket.local_addr();
        Self {
            may_connect: local.is_ok_and(|local| !local.ip().is_unspecified()),
            socket,
            peer: None,
        }
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

    /// From now on for this party alone, or for anyone.
    pub(super) fn keep_for(&mut self, peer: Option<SocketAddr>) {
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
