//! Double CRLFs to UDP trunks, so that NATs between keep our mapping (RFC 5626 §3.5.1 has them for
//! streams; SIP elements drop them on UDP). Those on connections are in `tcp`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use maskline_switch::sip::Transport;
use maskline_switch::{SwitchConfig, TrunkId};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::intake::Intake;

/// A ping (RFC 5626 §4.4.1).
pub(crate) const PING: &[u8] = b"\r\n\r\n";

/// How soon a trunk whose addresses are not known yet is looked at again.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The ways to one trunk's UDP addresses.
pub(crate) struct Ways {
    /// Each listener's socket, if it is one of UDP.
    pub(crate) sockets: Vec<Option<Arc<UdpSocket>>>,
    pub(crate) config: SwitchConfig,
    pub(crate) trunk: TrunkId,
    /// Knows the trunk's addresses of the moment.
    pub(crate) intake: Arc<Intake>,
}

impl Ways {
    fn now(&self) -> Vec<(SocketAddr, &UdpSocket)> {
        let targets = self.intake.targets();
        let of_trunk = targets.of(self.trunk).iter();
        of_trunk
            .filter(|target| target.transport == Transport::Udp)
            .filter_map(|target| {
                let peer = self.config.peer_at(target.transport, target.addr)?;
                let socket = self.sockets.get(usize::from(peer.listener))?.as_deref()?;
                Some((peer.addr, socket))
            })
            .collect()
    }
}

/// Sends a ping to each address every now and then until `stop`.
pub(crate) async fn keep_alive(ways: Ways, every: Duration, stop: CancellationToken) {
    let sent = metrics::counter!("maskline_sip_keepalives_total", "transport" => "udp");
    loop {
        let known = ways.now();
        for (to, socket) in &known {
            // What does not fit into the socket's buffer is missed by nobody.
            if socket.try_send_to(PING, *to).is_ok() {
                sent.increment(1);
            }
        }
        let wait = if known.is_empty() {
            every.min(UNKNOWN)
        } else {
            every
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
