//! Why the node's sockets and shards do not start.

use std::io;
use std::net::SocketAddr;

use crate::tls::TlsFault;

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A listening address can't be had.
    #[error("{transport}:{addr}: {}", reason(source))]
    Bind {
        /// Index of the address in the list that was given.
        listener: usize,
        /// `udp`, `tcp` or `tls`.
        transport: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// More listening addresses than the switch can number.
    #[error("{0} addresses to listen on, at most 65535 are possible")]
    TooManyListeners(usize),
    /// The switch's listeners are not the sockets that were bound.
    #[error("the switch is configured for {configured} listening sockets, {bound} are bound")]
    Listeners {
        /// In the switch's configuration.
        configured: usize,
        /// Bound.
        bound: usize,
    },
    /// There is not one channel per shard.
    #[error(
        "{shards} shards need a channel each, {media} of media and {journal} of the journal were given"
    )]
    Shards {
        /// Shards.
        shards: u16,
        /// Channels of media events.
        media: usize,
        /// Channels of journal reports.
        journal: usize,
    },
    /// A certificate or a key can't be used.
    #[error("{fault}")]
    Tls {
        /// The key, the file and the reason.
        fault: TlsFault,
    },
    /// A socket speaks TLS, and there is no certificate for it.
    #[error("a TLS socket needs a certificate")]
    NoCertificate,
    /// The operating system gives no randomness, without which tags could be guessed.
    #[error("the operating system gives no random bytes: {0}")]
    Randomness(String),
}

fn reason(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "the address is in use by another socket".to_owned()
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "this machine does not have the address".to_owned()
    } else if kind == io::ErrorKind::PermissionDenied {
        "not permitted (ports below 1024 need a privilege)".to_owned()
    } else {
        error.to_string()
    }
}
