//! Handshakes, both ways: how many may go on at once and for how long, and why one failed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use maskline_switch::PeerCertificate;
use rustls::Error;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::Tls;
use crate::limits::NetLimits;

/// Bounds the handshakes that peers began.
#[derive(Debug)]
pub(crate) struct Handshakes {
    limits: NetLimits,
    going: Mutex<Going>,
}

#[derive(Debug)]
struct Going {
    by_address: HashMap<IpAddr, usize>,
    total: usize,
    /// Handshakes that strangers may still begin, in thousandths, and when that was so.
    strangers: u64,
    at: Instant,
}

/// A handshake's place; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Handshake {
    handshakes: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    pub(crate) fn new(limits: NetLimits) -> Self {
        Self {
            limits,
            going: Mutex::new(Going {
                by_address: HashMap::new(),
                total: 0,
                strangers: u64::from(limits.stranger_handshakes_per_second) * 1_000,
                at: Instant::now(),
            }),
        }
    }

    /// Takes a place; the reason, when there is none. A stranger is one that only its certificate
    /// can make a trunk's.
    pub(crate) fn begin(
        self: &Arc<Self>,
        address: IpAddr,
        stranger: bool,
    ) -> Result<Handshake, &'static str> {
        let mut going = self.lock();
        if going.total >= self.limits.handshakes {
            return Err("handshakes");
        }
        let count = going.by_address.get(&address).copied().unwrap_or(0);
        if count >= self.limits.handshakes_per_address {
            return Err("handshakes_of_address");
        }
        if stranger {
            let now = Instant::now();
            let most = u64::from(self.limits.stranger_handshakes_per_second) * 1_000;
            let millis = now.saturating_duration_since(going.at).as_millis();
            let gained = u64::try_from(millis)
                .unwrap_or(u64::MAX)
                .saturating_mul(u64::from(self.limits.stranger_handshakes_per_second));
            if gained > 0 {
                going.strangers = going.strangers.saturating_add(gained).min(most);
                going.at = now;
            }
            going.strangers = going
                .strangers
                .checked_sub(1_000)
                .ok_or("handshakes_of_strangers")?;
        }
        going.total += 1;
        going.by_address.insert(address, count + 1);
        Ok(Handshake {
            handshakes: Arc::clone(self),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Going> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut going = self.handshakes.lock();
        going.total = going.total.saturating_sub(1);
        let left = going.by_address.get(&self.address).map_or(0, |n| n - 1);
        if left == 0 {
            going.by_address.remove(&self.address);
        } else {
            going.by_address.insert(self.address, left);
        }
    }
}

/// The handshake of a peer that connected; with the certificate that it showed. `None`: it failed,
/// which is counted.
pub(crate) async fn accept(
    tls: &Tls,
    limits: &NetLimits,
    stream: TcpStream,
    from: SocketAddr,
) -> Option<(server::TlsStream<TcpStream>, Option<PeerCertificate>)> {
    let material = tls.current();
    let (server, clients) = material.server.as_ref().zip(material.clients.as_ref())?;
    let accepting = TlsAcceptor::from(Arc::clone(server)).accept(stream);
    let accepted = match tokio::time::timeout(limits.handshake, accepting).await {
        Ok(accepted) => accepted,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match accepted {
        Ok(stream) => {
            count("in", "ok");
            let shown = stream.get_ref().1.peer_certificates();
            let certificate = shown
                .and_then(<[_]>::first)
                .map(|certificate| clients.identify(certificate));
            Some((stream, certificate))
        }
        Err(error) => {
            let reason = reason(&error);
            count("in", reason);
            tracing::info!(peer = %from, reason, %error, "a TLS handshake of a peer failed");
            None
        }
    }
}

/// The handshake with a trunk's carrier, whose certificate must verify.
pub(crate) async fn connect(
    tls: &Tls,
    limits: &NetLimits,
    stream: TcpStream,
    to: SocketAddr,
) -> io::Result<client::TlsStream<TcpStream>> {
    let Some(connector) = tls.connector(to) else {
        return Err(io::Error::other("no trunk says whom to trust there"));
    };
    let name = connector.server_name.clone();
    let connecting = TlsConnector::from(connector.config).connect(name, stream);
    let connected = match tokio::time::timeout(limits.handshake, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match &connected {
        Ok(_) => count("out", "ok"),
        Err(error) => {
            let reason = reason(error);
            count("out", reason);
            tracing::warn!(
                trunk = %connector.trunk,
                peer = %to,
                server_name = %connector.server_name.to_str(),
                reason,
                %error,
                "a TLS handshake with a trunk failed"
            );
        }
    }
    connected
}

fn count(direction: &'static str, result: &'static str) {
    metrics::counter!(
        "maskline_sip_tls_handshakes_total", "direction" => direction, "result" => result
    )
    .increment(1);
}

/// A handshake's failure in one word.
fn reason(error: &io::Error) -> &'static str {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => "certificate",
        Some(Error::AlertReceived(_)) => "alert",
        Some(Error::PeerIncompatible(_)) => "incompatible",
        Some(Error::InvalidMessage(_)) => "not_tls",
        Some(_) => "misbehaved",
        None if error.kind() == io::ErrorKind::TimedOut => "timeout",
        None => "connection",
    }
}
