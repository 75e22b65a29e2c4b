//! The network as webhooks see it: names are resolved and connections made here, and nowhere else.
//!
//! A trait, so that a test can answer for DNS and see what would be connected to. What lives elsewhere:
//! which of a name's addresses may be connected to (`connector`).

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;

/// Most names that are resolved at once: each takes a thread while the resolver waits.
const MAX_LOOKUPS: usize = 64;

/// What comes of it, later.
pub type Later<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Resolves names and makes connections. It decides nothing: it is asked for allowed addresses only.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a name, in the order in which they are to be tried.
    fn resolve(&self, name: String) -> Later<Vec<IpAddr>>;

    /// A connection to this very address.
    fn connect(&self, to: SocketAddr) -> Later<TcpStream>;
}

/// The operating system's resolver and sockets.
#[derive(Clone, Debug)]
pub struct SystemNetwork {
    lookups: Arc<Semaphore>,
}

impl Default for SystemNetwork {
    fn default() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }
}

impl Network for SystemNetwork {
    fn resolve(&self, name: String) -> Later<Vec<IpAddr>> {
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            let permit = lookups.acquire_owned().await;
            // A lookup runs on to its end on its thread although nobody waits for it any more, so
            // the permit goes with it.
            let lookup = tokio::spawn(async move {
                let found = lookup_host((name, 0)).await;
                drop(permit);
                found.map(|addresses| addresses.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    }

    fn connect(&self, to: SocketAddr) -> Later<TcpStream> {
        Box::pin(TcpStream::connect(to))
    }
}
