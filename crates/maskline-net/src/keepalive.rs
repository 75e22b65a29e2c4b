//! Double CRLFs to UDP trunks, so that NATs between keep our mapping (RFC 5626 §3.5.1 has them for
//! streams; SIP elements drop them on UDP). Those on connections are in `tcp`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// A ping (RFC 5626 §4.4.1).
pub(crate) const PING: &[u8] = b"\r\n\r\n";

/// Sends a ping every now and then until `stop`.
pub(crate) async fn keep_alive(
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    every: Duration,
    stop: CancellationToken,
) {
    let sent = metrics::counter!("maskline_sip_keepalives_total", "transport" => "udp");
    loop {
        // What does not fit into the socket's buffer is missed by nobody.
        if socket.try_send_to(PING, to).is_ok() {
            sent.increment(1);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}
