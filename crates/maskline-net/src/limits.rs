//! The bounds of queues, connections and waits.

use std::time::Duration;

/// How much may wait where, and for how long. The defaults suit a node of a few thousand calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetLimits {
    /// Messages that wait for a shard. Requests that open something new are refused with 503 before
    /// it is full; of the rest, a datagram above it is dropped (its sender repeats it), a stream
    /// waits.
    pub shard_queue: usize,
    /// VCA requests of one shard at the same time; a call above it is told that its endpoint can't
    /// be reached.
    pub callflow_requests: usize,
    /// Commits that a shard keeps while the journal takes none.
    pub held_commits: usize,
    /// TCP and TLS connections in all, both directions.
    pub connections: usize,
    /// TCP and TLS connections that one address may open.
    pub connections_per_address: usize,
    /// TLS handshakes that peers began and that are not done.
    pub handshakes: usize,
    /// The same, of one address.
    pub handshakes_per_address: usize,
    /// TLS handshakes that addresses of no trunk may begin in a second, all together; none may
    /// unless a trunk is known by its certificate.
    pub stranger_handshakes_per_second: u32,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// Messages that wait to be written to one connection; one more ends it.
    pub connection_queue: usize,
    /// How long making a connection may take.
    pub connect: Duration,
    /// How long after a first failure a peer is not connected to again; doubled by each further
    /// one, up to `backoff_most`. What is to be sent meanwhile fails at once.
    pub backoff: Duration,
    /// The longest pause after failures.
    pub backoff_most: Duration,
    /// How long a peer may take to answer a ping of ours.
    pub pong: Duration,
    /// How long a peer may take no bytes.
    pub write: Duration,
    /// How long a message may take from its first bytes to its last. A peer that sends halves of
    /// messages would otherwise keep its places for as long as one that rests.
    pub message: Duration,
    /// How long a connection may bring neither a whole message nor a ping. Longer than a call
    /// lasts: a peer may have no other way to end it. Dead peers are found by TCP's own keepalive.
    pub idle: Duration,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            shard_queue: 2_048,
            callflow_requests: 4_096,
            held_commits: 4_096,
            connections: 2_048,
            connections_per_address: 256,
            handshakes: 256,
            handshakes_per_address: 32,
            stranger_handshakes_per_second: 20,
            handshake: Duration::from_secs(5),
            connection_queue: 512,
            connect: Duration::from_secs(5),
            backoff: Duration::from_millis(100),
            backoff_most: Duration::from_secs(5),
            pong: Duration::from_secs(10),
            write: Duration::from_secs(10),
            message: Duration::from_secs(32),
            idle: Duration::from_secs(5 * 3_600),
        }
    }
}
