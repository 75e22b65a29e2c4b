//! Taking connections: from known addresses only, and not too many.

use std::sync::Arc;
use std::time::Duration;

use maskline_switch::sip::{Peer, Transport};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Connections, Opened, connection};

/// The pause after an error: most often, the process has no file descriptor left.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop`.
pub(crate) async fn accept(
    tcp: TcpListener,
    listener: u16,
    connections: Arc<Connections>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = tcp.accept() => accepted,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                metrics::counter!("maskline_sip_tcp_accept_errors_total").increment(1);
                tracing::warn!(%error, "no SIP connection can be accepted; it is tried again");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        if !connections.intake.knows(addr.ip()) {
            metrics::counter!("maskline_sip_tcp_refused_total", "reason" => "stranger")
                .increment(1);
            continue;
        }
        let peer = Peer {
            listener,
            transport: Transport::Tcp,
            addr,
        };
        if let Some((place, queue)) = connections.place(peer, Opened::ByPeer) {
            let serving = connection::serve(stream, place, queue);
            connections.tasks.spawn(serving);
        }
    }
}
