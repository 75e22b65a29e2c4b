//! The listener's loop: bounded connections, deadlines for slow peers, and an orderly end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service;

use crate::throttle::Source;

/// How long accepting rests after an error such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a peer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections: usize,
    /// Of these from one address (IPv6: one /64); further ones are closed at once.
    pub connections_per_address: usize,
    /// How long a request's head may take, and how long a connection may rest between requests.
    pub head: Duration,
    /// How old a connection may grow before it is closed, orderly, after the request that it is in.
    pub connection_age: Duration,
    /// How long a connection has for that, at its age's end or at shutdown, before it is cut.
    pub closing: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: 256,
            head: Duration::from_secs(10),
            connection_age: Duration::from_secs(120),
            closing: Duration::from_secs(20),
        }
    }
}

/// Headers in a request.
const MOST_HEADERS: usize = 64;

/// Bytes buffered for a request's head; a longer one gets 431.
const LONGEST_HEAD: usize = 32 * 1024;

/// The address of the peer of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves until `shutdown` resolves, then lets open requests end; with [`ServeLimits::default`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_with(listener, router, shutdown, ServeLimits::default()).await;
}

/// Serves within `limits` until `shutdown` resolves, then accepts nothing more, lets open requests
/// end for at most `limits.closing`, cuts the rest and returns.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
    limits: ServeLimits,
) {
    let mut shutdown = pin!(shutdown);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let addresses = Arc::new(AddressCounts::default());
    let (closing, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        // A place first, then a connection: what does not fit waits in the kernel's backlog.
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            next = next => match next {
                Some(next) => next,
                None => break,
            },
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the API's listener could not accept a connection");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        let Some(place) = addresses.take(peer, limits.connections_per_address) else {
            metrics::counter!("maskline_http_connections_refused_total").increment(1);
            continue;
        };
        let router = router.clone();
        let closing = closing.subscribe();
        connections.spawn(async move {
            connection(stream, peer, router, limits, closing).await;
            drop((place, permit));
        });
    }
    drop(listener);
    closing.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.closing, drained).await.is_err() {
        tracing::warn!(
            left = connections.len(),
            "API requests did not end in time and are cut"
        );
        connections.shutdown().await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: ServeLimits,
    mut closing: watch::Receiver<bool>,
) {
    // Answers are small and written whole: without this each waits for the peer's delayed ACK.
    // Failing only costs that delay.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            // A router is always ready.
            router
                .call(request)
                .await
                .map_err(|never: Infallible| never)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // How a connection ends is the peer's affair: errors are resets and timeouts.
    tokio::select! {
        _ended = &mut connection => return,
        () = sleep(limits.connection_age) => {}
        _closing = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    if timeout(limits.closing, connection).await.is_err() {
        metrics::counter!("maskline_http_connections_cut_total").increment(1);
    }
}

/// Open connections per address.
#[derive(Default)]
struct AddressCounts(Mutex<BTreeMap<Source, usize>>);

/// One connection's count, given back when dropped.
struct Place {
    counts: Arc<AddressCounts>,
    source: Source,
}

impl AddressCounts {
    fn take(self: &Arc<Self>, peer: SocketAddr, most: usize) -> Option<Place> {
        let source = Source::from(peer.ip());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place {
            counts: Arc::clone(self),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}
