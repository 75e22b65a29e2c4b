//! How the audio of a session goes, while it goes on.

use std::net::SocketAddr;
use std::time::Duration;

use crate::one_way::OneWay;
use crate::quality::Received;
use crate::round_trip::{FarReport, RoundTrip};

/// Both sides of a session, as of its last look at itself: when both are programmed, and every 2.5 s from then on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MediaReport {
    /// A.
    pub caller: SideReport,
    /// B.
    pub callee: SideReport,
    /// Who carries it, if not this process.
    pub carried_by: Option<CarriedBy>,
}

/// A session at a daemon that carries its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedBy {
    /// Where the daemon takes orders.
    pub instance: SocketAddr,
    /// What it calls the session.
    pub call_id: String,
}

/// One side: what its party sends, what is sent to it, and what it says of that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SideReport {
    /// Where the party asked for RTP; `None` before it was programmed.
    pub described: Option<SocketAddr>,
    /// Where its RTP comes from, once it did.
    pub latched: Option<SocketAddr>,
    /// Whether RTP and RTCP share a port (RFC 5761).
    pub rtcp_mux: bool,
    /// Whether it is expected to send.
    pub sends: bool,
    /// Whether it wants to receive.
    pub receives: bool,
    /// Whether it holds the other.
    pub holds: bool,
    /// What came of it.
    pub received: Option<Received>,
    /// The mean opinion score of that, 1.0-4.5.
    pub mos: Option<f64>,
    /// RTP packets sent to it.
    pub sent_packets: u32,
    /// Their payload bytes.
    pub sent_octets: u32,
    /// What it says of what we send.
    pub far: Option<FarReport>,
    /// How long the way to it and back is.
    pub round_trip: Option<RoundTrip>,
    /// Since when neither RTP nor RTCP came; `None` if none ever did.
    pub silent_for: Option<Duration>,
    /// It should be heard and is not, while the other is.
    pub one_way: Option<OneWay>,
}
