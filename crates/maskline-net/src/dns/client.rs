//! Asking name servers: a new port and a random id for each question, TCP where a reply was cut.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::message::{self, Kind, Record, Reply};

/// How long one server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each server is asked before the question is given up.
const ROUNDS: usize = 2;
/// The port of name servers.
const DNS_PORT: u16 = 53;
/// Servers that are asked.
const MAX_SERVERS: usize = 4;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("{0:?} is no name")]
    NoName(String),
    #[error("no name server is configured")]
    NoServer,
    #[error("no name server answered for {0}")]
    Unanswered(String),
    #[error("{0} has no address")]
    NoAddress(String),
}

/// Where questions go.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Empty: those of the system.
    servers: Vec<SocketAddr>,
}

/// An answer and for how many seconds it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    pub(crate) ttl: u32,
}

impl Client {
    /// `servers` empty: those of `/etc/resolv.conf`, read again for each question.
    pub(crate) const fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// Asks one server after the other. A name without such records is an empty answer.
    pub(crate) async fn ask(&self, name: &str, kind: Kind) -> Result<Found, DnsError> {
        let servers = if self.servers.is_empty() {
            system_servers()
        } else {
            self.servers.clone()
        };
        if servers.is_empty() {
            return Err(DnsError::NoServer);
        }
        for _ in 0..ROUNDS {
            for server in servers.iter().take(MAX_SERVERS) {
                let id = new_id();
                let question = message::question(id, name, kind)
                    .ok_or_else(|| DnsError::NoName(name.to_owned()))?;
                match exchange(*server, &question, id, name, kind).await {
                    Ok(Reply::Found { records, ttl }) => return Ok(Found { records, ttl }),
                    Ok(Reply::Failed(code)) => {
                        tracing::debug!(%server, name, code, "a name server can't tell");
                    }
                    Ok(Reply::Truncated) => {}
                    Err(error) => tracing::debug!(%server, name, %error, "a name server failed"),
                }
            }
        }
        Err(DnsError::Unanswered(name.to_owned()))
    }
}

async fn exchange(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
    kind: Kind,
) -> std::io::Result<Reply> {
    match by_datagram(server, question, id, name, kind).await? {
        Reply::Truncated => timeout(PATIENCE, by_stream(server, question, id, name, kind)).await?,
        whole @ (Reply::Found { .. } | Reply::Failed(_)) => Ok(whole),
    }
}

async fn by_datagram(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
    kind: Kind,
) -> std::io::Result<Reply> {
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await?;
    // Only this server's datagrams are received.
    socket.connect(server).await?;
    socket.send(question).await?;
    let until = Instant::now() + PATIENCE;
    let mut buffer = [0; 4_096];
    loop {
        let length = timeout_at(until, socket.recv(&mut buffer)).await??;
        let bytes = buffer.get(..length).unwrap_or_default();
        // What does not answer the question may be forged: the right one may still come.
        if let Ok(reply) = message::reply(bytes, id, name, kind) {
            return Ok(reply);
        }
    }
}

async fn by_stream(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
    kind: Kind,
) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    message::reply(&bytes, id, name, kind).map_err(std::io::Error::other)
}

/// Without randomness the port alone keeps forgers out.
fn new_id() -> u16 {
    let mut id = [0; 2];
    let _ = OsRng.try_fill_bytes(&mut id);
    u16::from_be_bytes(id)
}

fn system_servers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    servers_of(&text)
}

/// The `nameserver` lines of a `resolv.conf`.
fn servers_of(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            let ip: IpAddr = words.next()?.parse().ok()?;
            Some(SocketAddr::new(ip, DNS_PORT))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_the_system_are_read() {
        let text = "# nameserver 9.9.9.9\nsearch example\nnameserver 192.0.2.53\n\
                    nameserver  2001:db8::53 \nnameserver fe80::1%eth0\noptions ndots:1\n";
        let expected: Vec<SocketAddr> = ["192.0.2.53:53", "[2001:db8::53]:53"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        assert_eq!(servers_of(text), expected);
    }
}
