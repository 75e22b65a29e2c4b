//! Taking connections: from known addresses only, and not too many.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maskline_switch::sip::{Peer, Transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Connections, Opened, Place, connection};
use crate::tls::{self, Handshake};

/// The pause after an error: most often, the process has no file descriptor left.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop`.
pub(crate) async fn accept(
    tcp: TcpListener,
    listener: u16,
    transport: Transport,
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
        let peer = Peer {
            listener,
            transport,
            addr,
        };
        let known = connections.intake.knows(addr.ip());
        match transport {
            Transport::Tls if known || connections.intake.knows_certificates() => {
                match connections.handshakes.begin(addr.ip(), !known) {
                    Ok(place) => {
                        let connections = Arc::clone(&connections);
                        let tasks = connections.tasks.clone();
                        tasks.spawn(secure(stream, peer, known, place, connections));
                    }
                    Err(reason) => refused(reason),
                }
            }
            Transport::Udp | Transport::Tcp if known => {
                if let Some((place, queue)) = connections.place(peer, Opened::ByPeer) {
                    connections.tasks.spawn(plain(stream, place, queue));
                }
            }
            Transport::Udp | Transport::Tcp | Transport::Tls => refused("stranger"),
        }
    }
}

fn refused(reason: &'static str) {
    metrics::counter!("maskline_sip_tcp_refused_total", "reason" => reason).increment(1);
}

async fn plain(mut stream: TcpStream, place: Place, queue: mpsc::Receiver<Bytes>) {
    connection::prepare(&stream);
    let (reader, writer) = stream.split();
    connection::serve(reader, writer, place, queue).await;
}

/// The handshake; then the connection, if its address or its certificate is a trunk's.
async fn secure(
    stream: TcpStream,
    peer: Peer,
    known: bool,
    handshake: Handshake,
    connections: Arc<Connections>,
) {
    connection::prepare(&stream);
    let secured = tokio::select! {
        () = connections.stop.cancelled() => return,
        secured = tls::accept(&connections.tls, &connections.limits, stream, peer.addr) => secured,
    };
    drop(handshake);
    let Some((stream, certificate)) = secured else {
        return;
    };
    let intake = &connections.intake;
    let trunk = certificate
        .as_ref()
        .and_then(|it| intake.trunk_by_certificate(it));
    // Whom we would believe if we had connected, we believe if it has.
    let proved = trunk.or_else(|| {
        let certificate = certificate.as_ref()?;
        let of_address = intake.trunk_of(peer.addr.ip())?;
        let is_server = connections.tls.is_server(of_address, certificate);
        is_server.then_some(of_address)
    });
    if trunk.is_none() && !known {
        refused("stranger");
        return;
    }
    let Some((mut place, queue)) = connections.place(peer, Opened::ByPeer) else {
        return;
    };
    place.trunk = trunk;
    if let Some(trunk) = proved {
        connections.reuse(&mut place, trunk);
    }
    let (reader, writer) = tokio::io::split(stream);
    connection::serve(reader, writer, place, queue).await;
}
