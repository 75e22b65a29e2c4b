//! SDP offer and answer for one audio stream (RFC 8866, RFC 3264), made for privacy.
//!
//! [`parse()`] keeps of a party's description only what is needed to carry its audio: an address, a
//! port, known codecs with known parameters, a direction. [`write_offer`] and [`write_answer`]
//! build everything from nothing, so that no origin, session name, tool, candidate or unknown
//! attribute of one party can reach the other.
//!
//! What doesn't live here: what a hold or a codec means for a call (the dialogs), and packets
//! (`maskline-media`).
//!
//! Deliberately narrower than the RFCs: a host name in `c=` is refused (resolving it would mean IO
//! inside a decision, and packets to wherever a stranger's DNS points), and so is a multicast
//! address; only `RTP/AVP` and `RTP/SAVP` with keys in it (RFC 4568) are carried; the `t=` line of an answer is always `0 0`.

mod codec;
mod crypto;
mod negotiate;
mod parse;
mod transcoding;
mod write;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use maskline_media::addresses::are_alike;
use serde::{Deserialize, Serialize};

pub use codec::{Codec, CodecName};
pub use crypto::{Crypto, OfferedLine, OurKeys, OurSrtp, SrtpPolicy, without_keys};
pub use negotiate::{
    Negotiated, between, defaults, media_payloads, negotiate, negotiate_defaults,
    numbered_as_offered, offered_to, towards_callee,
};
pub use parse::{MAX_BYTES, MAX_FORMATS, MAX_STREAMS, Terms, parse, parse_answer, parse_for};
pub use transcoding::Transcoding;
pub use write::{write_answer, write_offer};

/// Who sends, in the words of the party that describes itself (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Sends and receives.
    SendRecv,
    /// Sends only: has put the other side on hold.
    SendOnly,
    /// Receives only.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The same stream in the words of the other party: what an answer that agrees says
    /// (RFC 3264 §6.1).
    #[must_use]
    pub const fn answered(self) -> Self {
        match self {
            Self::SendRecv => Self::SendRecv,
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::Inactive => Self::Inactive,
        }
    }

    /// Whether the describing party sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the describing party wants to receive.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// No more than another direction allows: an answer sends and receives only what was offered
    /// (RFC 3264 §6.1).
    #[must_use]
    pub const fn within(self, most: Self) -> Self {
        match (
            self.sends() && most.sends(),
            self.receives() && most.receives(),
        ) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The same without the wish to receive.
    const fn deaf(self) -> Self {
        match self {
            Self::SendRecv | Self::SendOnly => Self::SendOnly,
            Self::RecvOnly | Self::Inactive => Self::Inactive,
        }
    }

    /// The attribute's name.
    const fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// What a party said of its audio: the first audio stream that can be carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaDescription {
    /// Where the party wants RTP. The address may be unspecified (an old-style hold): then
    /// [`Self::direction`] does not receive.
    pub rtp: SocketAddr,
    /// Where the party wants RTCP (RFC 3605 `a=rtcp`, else the next port). `None`: nowhere, because
    /// it said so (RFC 3556 `b=RS:0` and `b=RR:0`), wrote something unreadable or out of our reach, or is
    /// on hold.
    pub rtcp: Option<SocketAddr>,
    /// Whether the party wants both on one port (RFC 5761 `a=rtcp-mux`), which it may of its offer and
    /// of any answer to ours: [`Self::rtcp`] is [`Self::rtp`] then.
    #[serde(default)]
    pub rtcp_mux: bool,
    /// The codecs that we can pass on, each once, in the party's order of preference. At least one
    /// is for voice.
    pub codecs: Vec<Codec>,
    /// Milliseconds of audio per packet (RFC 8866 §6.4), 1-200.
    pub ptime_ms: Option<u16>,
    /// Who sends, in this party's words. An address of `0.0.0.0` counts as not receiving
    /// (RFC 3264 §8.4), and so does `::`.
    pub direction: Direction,
    /// Which of [`Self::streams`] this is.
    pub audio_index: usize,
    /// Every `m=` line in order: an answer needs one for each (RFC 3264 §6).
    pub streams: Vec<Stream>,
    /// The key by which the party sends, and the suite; `None`: its packets are plain. In no snapshot.
    #[serde(skip)]
    pub srtp: Option<Crypto>,
    /// Session id and version of the `o=` line (RFC 8866 §5.2), by which a party says whether it
    /// describes itself anew. `None`: they are no numbers. Never written.
    #[serde(default)]
    pub origin: Option<(u64, u64)>,
}

/// An `m=` line, as far as refusing it takes.
///
/// Short, plain tokens. They are only ever written back to the party that wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// `audio`, `video`, …
    pub media: String,
    /// `RTP/AVP`, `udptl`, …
    pub proto: String,
    /// The first format.
    pub format: String,
}

/// Our own end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// What we write into `o=` and `c=` of an offer to a party that has not described itself.
    pub address: IpAddr,
    /// Our address of the other family: what a party of that family is told.
    pub second: Option<IpAddr>,
    /// Our keys, if the party's media may be protected.
    pub srtp: Option<OurSrtp>,
    /// The RTP port; RTCP is the next one.
    pub port: u16,
    /// Of our own making, the same for the whole dialog. The top bit is not written: RFC 3264 §5
    /// wants a signed number.
    pub session_id: u64,
    /// One more for each description that differs from the last (RFC 3264 §8). Top bit as above.
    pub version: u64,
}

impl Local {
    /// What a party is told that is at this address: ours of the same family, if we have one.
    ///
    /// Of a party that holds by `0.0.0.0` nothing is known: IPv6 phones write that, too.
    #[must_use]
    pub fn towards(&self, party: IpAddr) -> IpAddr {
        let held = party.is_unspecified() && party.is_ipv4();
        let other = self.second.filter(|second| are_alike(*second, party));
        other.filter(|_| !held).unwrap_or(self.address)
    }
}

/// Why a description cannot be used, and on which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SDP line {line}: {kind}")]
pub struct SdpFault {
    /// Counted from 1; the last line where something is missing.
    pub line: usize,
    /// What is wrong.
    pub kind: SdpFaultKind,
}

/// What is wrong with a description. Never repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SdpFaultKind {
    /// More than [`MAX_BYTES`].
    #[error("the description has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// The first line is not `v=0`.
    #[error("a description starts with v=0")]
    Version,
    /// Not a letter, an equals sign and a value.
    #[error("a line is a letter, an equals sign and a value")]
    NotALine,
    /// An `m=` line that does not read.
    #[error("a media line has a kind, a port, a transport and formats")]
    MediaLine,
    /// More than [`MAX_STREAMS`] `m=` lines.
    #[error("more than {MAX_STREAMS} media lines")]
    TooManyStreams,
    /// More than [`MAX_FORMATS`] formats on one `m=` line.
    #[error("more than {MAX_FORMATS} formats on one media line")]
    TooManyFormats,
    /// No audio stream at all.
    #[error("no audio stream")]
    NoAudio,
    /// Port 0: the party does not want the stream (RFC 3264 §6).
    #[error("the audio stream is refused (port 0)")]
    Refused,
    /// Another transport than was agreed on for the party, or more than one port.
    #[error(
        "audio is carried over RTP/AVP, or over RTP/SAVP where the trunk has SRTP, on one port only"
    )]
    Transport,
    /// An answer whose `a=crypto` is not exactly one of the lines that were offered.
    #[error("an answer has one a=crypto line, of the tag and suite of one that was offered")]
    NotOffered,
    /// `RTP/SAVP` without a key that we can use.
    #[error("RTP/SAVP needs a key that can be used (a=crypto)")]
    NoKey,
    /// No `c=` for the audio stream.
    #[error("no connection address for the audio stream")]
    NoConnection,
    /// A `c=` line that does not read.
    #[error("a connection is IN IP4 or IN IP6 and an address of that family")]
    Connection,
    /// A host name in `c=`.
    #[error("a connection address is a number, not a host name")]
    HostName,
    /// A multicast or broadcast address in `c=`.
    #[error("a connection address belongs to one host")]
    NotUnicast,
    /// An address of a family that we have none of.
    #[error("a connection address is of a family in which media can be carried")]
    AddressFamily,
    /// No voice codec that we can pass on.
    #[error("no voice codec that can be passed on")]
    NoCodec,
}
