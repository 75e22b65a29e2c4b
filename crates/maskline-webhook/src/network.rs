//! The network as webhooks see it: names are resolved and connections made here, and nowhere else.
//!
//! A trait, so that a test can answer for DNS and see what would be connected to. What lives elsewhere:
//! how many names are resolved at once (`lookups`), which of a name's addresses may be connected to
//! (`connector`).

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;

use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// What comes of it, later.
pub type Later<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Resolves names and makes connections. It decides nothing: it is asked for allowed addresses only.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a name, in the order in which they are to be tried. It is not asked for the
    /// same name again before it has answered, and is never dropped before that.
    fn resolve(&self, name: String) -> Later<Vec<IpAddr>>;

    /// A connection to this very address.
    fn connect(&self, to: SocketAddr) -> Later<TcpStream>;
}

/// The addresses of this machine from which connections are made. [`Default`]: the system chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceAddresses {
    /// To IPv4 addresses.
    pub v4: Option<Ipv4Addr>,
    /// To IPv6 addresses.
    pub v6: Option<Ipv6Addr>,
}

impl SourceAddresses {
    /// A socket that is bound as it is to be for a connection to this address; `None`: any will do.
    fn socket(self, to: IpAddr) -> io::Result<Option<TcpSocket>> {
        let (socket, from) = match (to, self.v4, self.v6) {
            (_, None, None) => return Ok(None),
            (IpAddr::V4(_), Some(from), _) => (TcpSocket::new_v4()?, IpAddr::V4(from)),
            (IpAddr::V6(_), _, Some(from)) => (TcpSocket::new_v6()?, IpAddr::V6(from)),
            // From any other address receivers would not know that it is us.
            (IpAddr::V4(_), None, Some(_)) | (IpAddr::V6(_), Some(_), None) => {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
        };
        socket.bind(SocketAddr::new(from, 0))?;
        Ok(Some(socket))
    }
}

/// The operating system's resolver and sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork {
    sources: SourceAddresses,
}

impl SystemNetwork {
    /// Makes connections from these addresses only; to a family of which there is none, not at all
    /// if there is one of the other.
    #[must_use]
    pub const fn from_sources(sources: SourceAddresses) -> Self {
        Self { sources }
    }
}

impl Network for SystemNetwork {
    fn resolve(&self, name: String) -> Later<Vec<IpAddr>> {
        Box::pin(async move {
            let found = lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    fn connect(&self, to: SocketAddr) -> Later<TcpStream> {
        let sources = self.sources;
        Box::pin(async move {
            // An IPv4 address within IPv6 is connected to by IPv4.
            let mapped = SocketAddr::new(to.ip().to_canonical(), to.port());
            match sources.socket(mapped.ip())? {
                Some(socket) => socket.connect(mapped).await,
                None => TcpStream::connect(to).await,
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn connections_come_from_the_source_of_their_family_and_from_no_other_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let from = Ipv4Addr::new(127, 0, 0, 2);
        let network = SystemNetwork::from_sources(SourceAddresses {
            v4: Some(from),
            v6: None,
        });
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        for to in [to, SocketAddr::new(mapped, to.port())] {
            let stream = network.connect(to).await.unwrap();
            let (_, seen) = listener.accept().await.unwrap();
            assert_eq!(seen.ip(), IpAddr::V4(from));
            assert_eq!(stream.local_addr().unwrap(), seen);
        }
        let other = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), to.port());
        let refused = network.connect(other).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
        // Without any the system chooses.
        let chosen = SystemNetwork::default().connect(to).await.unwrap();
        assert_eq!(chosen.local_addr().unwrap().ip(), to.ip());
    }
}
