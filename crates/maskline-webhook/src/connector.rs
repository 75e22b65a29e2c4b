//! Connections to webhook endpoints: resolves the name itself and connects only to an address that
//! the policy allows, so that no answer of DNS reaches into the operator's network. Knows no
//! proxy.
//!
//! What lives elsewhere: how many connections and lookups there may be (`connections`, `lookups`),
//! TLS on top, kept connections and the deadline (`client`).

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::http::Extensions;
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_service::Service;

use crate::address::{self, Host, Refused};
use crate::connections::{self, Connections, Full, MAX_CONNECTIONS, Owner, Seat, Stream};
use crate::egress::{self, EgressPolicy, UrlFault};
use crate::lookups::{LookupFault, Lookups, MAX_LOOKUPS};
use crate::network::Network;

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// How long one address is tried alone before the next one joins (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFault {
    #[error(transparent)]
    Url(#[from] UrlFault),
    #[error(
        "the name resolves to a {0} address only, which is refused unless the operator allows it"
    )]
    Refused(Refused),
    #[error("the name does not resolve")]
    Unresolved,
    #[error("too many connections or name lookups are under way")]
    Full,
    #[error("no connection: {}", .0.kind())]
    Io(io::Error),
}

/// A connector that asks the policy about the address that it connects to.
#[derive(Clone)]
pub(crate) struct GuardedConnector {
    policy: EgressPolicy,
    network: Arc<dyn Network>,
    connections: Connections,
    lookups: Lookups,
}

impl GuardedConnector {
    pub(crate) fn new(policy: EgressPolicy, network: Arc<dyn Network>) -> Self {
        Self::at_most(MAX_CONNECTIONS, policy, network)
    }

    /// One whose clones make so many connections at most.
    pub(crate) fn at_most(
        connections: usize,
        policy: EgressPolicy,
        network: Arc<dyn Network>,
    ) -> Self {
        Self {
            policy,
            network,
            connections: Connections::new(connections),
            lookups: Lookups::new(MAX_LOOKUPS),
        }
    }

    /// The same over another network, with lookups of its own.
    pub(crate) fn over(&self, network: Arc<dyn Network>) -> Self {
        Self {
            network,
            lookups: self.lookups.apart(),
            ..self.clone()
        }
    }

    pub(crate) const fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(crate) const fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    async fn connect(self, uri: Uri, owner: Owner) -> Result<TokioIo<Stream>, ConnectFault> {
        let port = egress::port(&uri)?;
        let candidates = match egress::target_host(&uri, &self.policy)? {
            Host::Address(address) => Arc::from([address]),
            Host::Name(name) => {
                let found = self.lookups.resolve(&self.network, &name, &owner).await;
                found.map_err(|fault| match fault {
                    LookupFault::Full => ConnectFault::Full,
                    LookupFault::Unresolved => ConnectFault::Unresolved,
                })?
            }
        };
        // What was checked is what is connected to: the name is not asked for again.
        let allowed = allowed(&candidates, port, &self.policy)?;
        first_to_answer(&self.network, allowed, &self.connections, &owner)
            .await
            .map(TokioIo::new)
    }
}

/// Of a name's addresses those that may be connected to.
fn allowed(
    candidates: &[IpAddr],
    port: u16,
    policy: &EgressPolicy,
) -> Result<Vec<SocketAddr>, ConnectFault> {
    let mut why = ConnectFault::Unresolved;
    let mut allowed = Vec::new();
    for &address in candidates {
        match address::refusal(address) {
            Some(reason) if !policy.allow_private_targets => why = ConnectFault::Refused(reason),
            Some(_) | None => allowed.push(SocketAddr::new(address, port)),
        }
    }
    allowed.truncate(MAX_ADDRESSES);
    if allowed.is_empty() {
        Err(why)
    } else {
        Ok(allowed)
    }
}

/// Tries the addresses in the resolver's order, the next one when the last has failed or takes
/// long and there is room for one more, and keeps the first connection.
async fn first_to_answer(
    network: &Arc<dyn Network>,
    addresses: Vec<SocketAddr>,
    connections: &Connections,
    owner: &Owner,
) -> Result<Stream, ConnectFault> {
    let mut waiting = addresses.into_iter();
    let mut running = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if waiting.len() > 0 {
            let place = if running.is_empty() {
                let place = connections.take(owner).await;
                Some(place.map_err(|Full| ConnectFault::Full)?)
            } else {
                connections.try_take_another(&owner.webhook)
            };
            if let Some(place) = place
                && let Some(address) = waiting.next()
            {
                let connecting = network.connect(address);
                running.spawn(async move {
                    let tcp = connecting.await?;
                    // A request is one small write: waiting for more only adds delay.
                    tcp.set_nodelay(true)?;
                    Ok(place.filled(tcp))
                });
            }
        } else if running.is_empty() {
            return Err(ConnectFault::Io(last));
        }
        tokio::select! {
            Some(finished) = running.join_next() => match finished {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            },
            () = sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

impl Service<Uri> for GuardedConnector {
    type Response = TokioIo<Stream>;
    type Error = ConnectFault;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectFault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri, connections::owner()))
    }
}

/// A connector with a deadline of its own: the pool goes on with a connect whose request was
/// served by another connection, and nothing else would end it. Nor would such a connection have
/// an answer behind which it is kept: it is, if nothing is asked over it within a second.
#[derive(Clone)]
pub(crate) struct Deadlined<C> {
    pub(crate) inner: C,
    pub(crate) deadline: Duration,
}

impl<C> Service<Uri> for Deadlined<C>
where
    C: Service<Uri>,
    C::Response: Connection,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let deadline = self.deadline;
        Box::pin(async move {
            match tokio::time::timeout(deadline, connecting).await {
                Ok(Ok(connection)) => {
                    let mut extras = Extensions::new();
                    connection.connected().get_extras(&mut extras);
                    if let Some(seat) = extras.remove::<Seat>() {
                        tokio::spawn(seat.rest_unless_used());
                    }
                    Ok(connection)
                }
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

impl fmt::Debug for GuardedConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedConnector")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::network::Later;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn of_a_name_s_addresses_only_public_ones_are_connected_to() {
        let strict = EgressPolicy::default();
        let mixed = addresses(&["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1"]);
        let public = addresses(&["8.8.8.8", "2606:4700::1"]);
        let expected: Vec<_> = public.iter().map(|ip| SocketAddr::new(*ip, 443)).collect();
        assert_eq!(allowed(&mixed, 443, &strict).unwrap(), expected);
        let open = EgressPolicy {
            allow_private_targets: true,
        };
        assert_eq!(allowed(&mixed, 443, &open).unwrap().len(), 4);
        let private = allowed(&addresses(&["169.254.169.254"]), 80, &strict);
        assert!(matches!(
            private,
            Err(ConnectFault::Refused(Refused::LinkLocal))
        ));
        let none = allowed(&[], 80, &strict);
        assert!(matches!(none, Err(ConnectFault::Unresolved)));
    }

    /// Answers after a while.
    #[derive(Debug)]
    struct Slow(Duration);

    impl Network for Slow {
        fn resolve(&self, _name: String) -> Later<Vec<IpAddr>> {
            let takes = self.0;
            Box::pin(async move {
                sleep(takes).await;
                Ok(addresses(&["8.8.8.8"]))
            })
        }

        fn connect(&self, _to: SocketAddr) -> Later<TcpStream> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn want_of_a_connection_is_no_timeout_however_long_the_name_took() {
        for (lookup_ms, ends_ms) in [(100, 500), (600, 600), (900, 900)] {
            let network = Arc::new(Slow(Duration::from_millis(lookup_ms)));
            let mut none = GuardedConnector::at_most(0, EgressPolicy::default(), network);
            let deadline = Duration::from_secs(1);
            let owner = Owner::new(Arc::from("a"), deadline);
            let began = tokio::time::Instant::now();
            let uri = Uri::from_static("http://hooks.example.com/");
            let request = connections::owned(owner, async move { none.call(uri).await });
            let fault = tokio::time::timeout(deadline, request).await.unwrap();
            assert!(matches!(fault, Err(ConnectFault::Full)));
            assert_eq!(began.elapsed(), Duration::from_millis(ends_ms));
        }
    }

    #[tokio::test]
    async fn a_dead_address_is_passed_over_for_one_that_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let dead = {
            let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            closed.local_addr().unwrap()
        };
        let network: Arc<dyn Network> = Arc::new(crate::network::SystemNetwork::default());
        let connections = Connections::new(1);
        let owner = Owner::new(Arc::from("a"), Duration::from_secs(1));
        let both = first_to_answer(&network, vec![dead, alive], &connections, &owner).await;
        assert_eq!(both.unwrap().peer_addr().unwrap(), alive);
        let one = first_to_answer(&network, vec![dead], &connections, &owner).await;
        assert!(matches!(one, Err(ConnectFault::Io(_))));
    }
}
