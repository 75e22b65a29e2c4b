//! SIP over UDP: receiving from and sending through the bound sockets.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use maskline_switch::sip::{Peer, Transport};
use metrics::Counter;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::intake::Intake;

/// Datagrams that one socket may bring before other tasks have their turn.
const BATCH: usize = 64;
/// The largest datagram.
const MAX_DATAGRAM_BYTES: usize = 65_535;
/// How long a shard waits for room in a socket's buffer; then the datagram is lost, as in any other
/// queue on its way.
const SEND_PATIENCE: Duration = Duration::from_millis(5);

/// Receives until `stop`.
pub(crate) async fn receive(
    socket: Arc<UdpSocket>,
    listener: u16,
    intake: Arc<Intake>,
    stop: CancellationToken,
) {
    let received = metrics::counter!("maskline_sip_datagrams_total", "direction" => "in");
    let failed = metrics::counter!("maskline_sip_receive_errors_total");
    let mut buffer = vec![0_u8; MAX_DATAGRAM_BYTES];
    loop {
        let readable = tokio::select! {
            () = stop.cancelled() => return,
            readable = socket.readable() => readable,
        };
        let mut fault = readable.err();
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((bytes, addr)) => {
                    received.increment(1);
                    let peer = Peer {
                        listener,
                        transport: Transport::Udp,
                        addr,
                    };
                    let datagram = buffer.get(..bytes).unwrap_or_default();
                    if let Some(response) = intake.datagram(peer, datagram) {
                        // A stateless refusal that does not fit is asked for again.
                        let _ = socket.try_send_to(&response, addr);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = fault {
            failed.increment(1);
            tracing::debug!(%error, listener, "receiving failed; it goes on");
            // A socket that fails at once each time must not take a whole core.
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It left, or was lost in a way that SIP's retransmissions make good.
    Away,
    /// There is no way to this peer.
    Unreachable,
}

/// The UDP sockets that one shard sends through: one per listener.
pub(crate) struct Outlet {
    sockets: Vec<Option<Arc<UdpSocket>>>,
    sent: Counter,
    lost: Counter,
}

impl Outlet {
    pub(crate) fn new(sockets: Vec<Option<Arc<UdpSocket>>>) -> Self {
        Self {
            sockets,
            sent: metrics::counter!("maskline_sip_datagrams_total", "direction" => "out"),
            lost: metrics::counter!("maskline_sip_send_errors_total"),
        }
    }

    /// Sends a datagram; waits a few milliseconds at most.
    pub(crate) async fn send(&self, peer: Peer, bytes: &[u8]) -> Sent {
        let Some(Some(socket)) = self.sockets.get(usize::from(peer.listener)) else {
            self.lost.increment(1);
            return Sent::Unreachable;
        };
        let result = match socket.try_send_to(bytes, peer.addr) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let sending = socket.send_to(bytes, peer.addr);
                match tokio::time::timeout(SEND_PATIENCE, sending).await {
                    Ok(result) => result,
                    Err(_) => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
            result => result,
        };
        match result {
            Ok(_) => {
                self.sent.increment(1);
                Sent::Away
            }
            Err(error) => {
                self.lost.increment(1);
                tracing::debug!(%error, peer = %peer.addr, "a datagram was not sent");
                if matches!(
                    error.kind(),
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
                ) {
                    Sent::Unreachable
                } else {
                    Sent::Away
                }
            }
        }
    }
}
