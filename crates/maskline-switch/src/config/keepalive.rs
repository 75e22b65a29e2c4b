//! Keeping a trunk's way open through NATs and firewalls.

use std::time::Duration;

/// What is sent to a trunk while nothing else is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// How often a double CRLF goes out (RFC 5626 §3.5.1): on connections that we opened, whose peer
    /// must answer, and to the address of a UDP trunk, which need not. `None`: never.
    pub crlf: Option<Duration>,
    /// How often each of its addresses is asked by OPTIONS; `None`: never.
    pub options: Option<Duration>,
}
