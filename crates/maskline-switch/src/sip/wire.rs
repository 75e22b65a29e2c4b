//! Bytes to messages: what is read, what is refused with a status, what is dropped and counted.
//!
//! The library's parser is exact but not bounded in time for a line with thousands of parameters,
//! so a message is weighed before it is parsed. Framing of streams is in [`super::framing`].

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sipx_sip::headers::Via;
use sipx_sip::headers::via::first_hop_end;
use sipx_sip::message::{Header, StatusCode};
use sipx_sip::{
    HeaderName, Limits, Message, Method, Request, Response, ResponseBuilder, parse_frame,
};

/// Largest head or body that is looked at, in bytes.
pub const MAX_PART_BYTES: usize = 65_535;
/// Longest line of a head, in bytes.
const MAX_LINE_BYTES: usize = 4_096;
/// Most parameters in one line of a head: the library compares each URI parameter with each.
const MAX_LINE_PARAMETERS: usize = 64;

/// How a message travels (RFC 3261 §18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams; transactions retransmit.
    Udp,
    /// A stream; it does not lose.
    Tcp,
    /// A stream within TLS (RFC 3261 §26.2.1).
    Tls,
}

impl Transport {
    /// As `Via` writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Whether messages travel on a connection, which loses and reorders nothing.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls => true,
        }
    }

    /// The port of an address that names none (RFC 3261 §19.1.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }

    /// What a `sip:` URI says of it; nothing of UDP.
    #[must_use]
    pub const fn uri_parameter(self) -> &'static str {
        match self {
            Self::Udp => "",
            Self::Tcp => ";transport=tcp",
            Self::Tls => ";transport=tls",
        }
    }
}

/// The far end of a message, and the socket of ours that it goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Index of our listening socket in the configuration.
    pub listener: u16,
    /// How the message travels.
    pub transport: Transport,
    /// The far end; for a stream, the connection is the one to this address.
    pub addr: SocketAddr,
}

/// Why a message is not looked at. Each is counted by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Only CRLF: a keepalive (RFC 5626 §4.4.1).
    Keepalive,
    /// Too long, or too many parameters in one line.
    TooCostly,
    /// Not SIP.
    Malformed,
}

/// A message that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Why.
    pub reason: Reason,
    /// The refusal to send back, when it was a request that says where it came from.
    pub refusal: Option<Bytes>,
}

impl Unreadable {
    fn silent(reason: Reason) -> Self {
        Self {
            reason,
            refusal: None,
        }
    }
}

/// Limits of one message; a datagram cannot be larger, and no call needs a larger one.
pub(super) fn limits() -> Limits {
    Limits {
        max_message_bytes: MAX_PART_BYTES,
        max_body_bytes: MAX_PART_BYTES,
        max_headers: 128,
        max_header_bytes: MAX_LINE_BYTES,
        max_folding_lines: 8,
    }
}

/// Reads one datagram. `peer` is where it came from: `received` and `rport` are written into the
/// top `Via` of a request (RFC 3261 §18.2.1, RFC 3581 §4), so that its answers find their way.
///
/// # Errors
/// [`Unreadable`]: count it, and send its refusal if it has one.
pub fn read_datagram(datagram: &[u8], peer: Peer) -> Result<Message, Unreadable> {
    read_shared_datagram(&Bytes::copy_from_slice(datagram), peer)
}

/// As [`read_datagram`]; the message shares the datagram's bytes.
///
/// # Errors
/// As [`read_datagram`].
pub fn read_shared_datagram(datagram: &Bytes, peer: Peer) -> Result<Message, Unreadable> {
    let start = datagram
        .iter()
        .position(|b| !matches!(b, b'\r' | b'\n' | 0))
        .ok_or_else(|| Unreadable::silent(Reason::Keepalive))?;
    let datagram = datagram.slice(start..);
    if !is_affordable(&datagram) {
        return Err(Unreadable::silent(Reason::TooCostly));
    }
    let parsed = sipx_sip::parse_datagram(datagram.clone(), &limits());
    finish(parsed.ok(), &datagram, peer)
}

/// Reads one message that a stream's framing cut out; as [`read_datagram`] otherwise.
///
/// # Errors
/// As [`read_datagram`].
pub fn read_frame(frame: Bytes, peer: Peer) -> Result<Message, Unreadable> {
    if !is_affordable(&frame) {
        return Err(Unreadable::silent(Reason::TooCostly));
    }
    let parsed = parse_frame(frame.clone(), &limits());
    finish(parsed.ok(), &frame, peer)
}

fn finish(parsed: Option<Message>, raw: &[u8], peer: Peer) -> Result<Message, Unreadable> {
    match parsed {
        Some(Message::Request(mut request)) => {
            stamp_top_via(&mut request, peer.addr);
            Ok(Message::Request(request))
        }
        Some(response) => Ok(response),
        None => Err(Unreadable {
            reason: Reason::Malformed,
            refusal: salvage(raw, peer.addr),
        }),
    }
}

/// Whether a message is cheap enough to parse.
fn is_affordable(message: &[u8]) -> bool {
    let head_end = message
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .unwrap_or(message.len());
    let head = message.get(..head_end).unwrap_or_default();
    head.len() <= MAX_PART_BYTES
        && head.split(|&b| b == b'\n').all(|line| {
            line.len() <= MAX_LINE_BYTES
                && line.iter().filter(|&&b| matches!(b, b';' | b'&')).count() <= MAX_LINE_PARAMETERS
        })
}

/// Writes where a request really came from into its top `Via`.
fn stamp_top_via(request: &mut Request, source: SocketAddr) -> Option<()> {
    let header = request.headers.get(&HeaderName::Via)?;
    let value = header.value().into_owned();
    let (hop, other_hops) = value.split_at_checked(first_hop_end(&value))?;
    let via = Via::parse_one(hop).ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut stamped = format!(
        "{}/{}/{} {}",
        text(&via.protocol),
        text(&via.version),
        text(&via.transport),
        via.host
    );
    if let Some(port) = via.port {
        stamped.push_str(&format!(":{port}"));
    }
    for param in &via.params {
        let name = text(&param.name);
        if name.eq_ignore_ascii_case("received") || name.eq_ignore_ascii_case("rport") {
            continue;
        }
        match &param.value {
            Some(value) => stamped.push_str(&format!(";{name}={}", text(value))),
            None => stamped.push_str(&format!(";{name}")),
        }
    }
    stamped.push_str(&format!(";received={}", source.ip()));
    if via.rport().is_some() {
        stamped.push_str(&format!(";rport={}", source.port()));
    }
    stamped.push_str(&text(other_hops));
    let header = Header::build(HeaderName::Via, stamped).ok()?;
    request.headers.remove_first(&HeaderName::Via);
    request.headers.push_front(header);
    Some(())
}

/// Where a response to a request goes (RFC 3261 §18.2.2, RFC 3581 §4).
pub(super) fn response_target(request: &Request, peer: Peer) -> Peer {
    if peer.transport.is_stream() {
        return peer;
    }
    let Some(Ok(via)) = request.headers.typed::<Via>() else {
        return peer;
    };
    if via.rport().is_some() {
        return peer;
    }
    let port = via.port.unwrap_or(5060);
    Peer {
        addr: SocketAddr::new(peer.addr.ip(), port),
        ..peer
    }
}

/// Where a response goes when the stream that brought its request is gone: to the address that it
/// came from and the port of its top `Via` (RFC 3261 §18.2.2).
pub(super) fn response_second_way(request: &Request, peer: Peer) -> Option<Peer> {
    if !peer.transport.is_stream() {
        return None;
    }
    let via = request.headers.typed::<Via>()?.ok()?;
    let port = via.port.unwrap_or(peer.transport.default_port());
    let addr = SocketAddr::new(peer.addr.ip(), port);
    (addr != peer.addr).then_some(Peer { addr, ..peer })
}

/// A 400 for a request that does not parse, from the lines that a response copies; `None` when it
/// is a response, an ACK, or does not say enough.
fn salvage(raw: &[u8], source: SocketAddr) -> Option<Bytes> {
    let mut lines = raw.split(|&b| b == b'\n');
    let first = lines.next()?;
    if first
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/") || start == b"ACK ")
    {
        return None;
    }
    let needed = [
        HeaderName::Via,
        HeaderName::From,
        HeaderName::To,
        HeaderName::CallId,
        HeaderName::CSeq,
    ];
    let mut head = b"UNREADABLE sip:unreadable.invalid SIP/2.0\r\n".to_vec();
    let mut copying = false;
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(&start) = line.first() else { break };
        if !matches!(start, b' ' | b'\t') {
            let name = line.split(|&b| b == b':').next()?.trim_ascii_end();
            copying = needed.contains(&HeaderName::parse(&Bytes::copy_from_slice(name)));
        }
        if copying {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"Max-Forwards: 70\r\n\r\n");
    let Ok(Message::Request(mut request)) = sipx_sip::parse_datagram(Bytes::from(head), &limits())
    else {
        return None;
    };
    stamp_top_via(&mut request, source)?;
    refuse_statelessly(&request, 400, "Bad Request")
}

/// A 503 that keeps no state and asks to come back later (RFC 3261 §21.5.4).
#[must_use]
pub fn refuse_for_now(request: &Request, retry_after_seconds: &str) -> Option<Bytes> {
    let mut response = stateless(request, 503, "Service Unavailable")?;
    let header = Header::build(HeaderName::RetryAfter, retry_after_seconds.to_owned()).ok()?;
    response.headers.push_front(header);
    Some(Message::Response(response).to_bytes())
}

/// A final refusal that keeps no state, as for a request that cannot be acted on.
#[must_use]
pub fn refuse_statelessly(request: &Request, status: u16, phrase: &str) -> Option<Bytes> {
    stateless(request, status, phrase).map(|response| Message::Response(response).to_bytes())
}

fn stateless(request: &Request, status: u16, phrase: &str) -> Option<Response> {
    if request.method == Method::Ack {
        return None;
    }
    let mut response =
        ResponseBuilder::to_request(request, StatusCode::new(status)?, phrase.to_owned())
            .ok()?
            .build();
    response.headers.remove_all(&HeaderName::HistoryInfo);
    Some(response)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    const OPTIONS: &str = "OPTIONS sip:a@b.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1;rport\r\n\
        From: <sip:c@d>;tag=1\r\nTo: <sip:a@b.example>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n\r\n";

    fn peer() -> Peer {
        Peer {
            listener: 0,
            transport: Transport::Udp,
            addr: "198.51.100.7:4321".parse().unwrap(),
        }
    }

    #[test]
    fn a_request_is_stamped_with_where_it_came_from_and_its_answer_goes_there() {
        let Message::Request(request) = read_datagram(OPTIONS.as_bytes(), peer()).unwrap() else {
            panic!("a request");
        };
        let via = request.headers.value(&HeaderName::Via).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&via),
            "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1;received=198.51.100.7;rport=4321"
        );
        assert_eq!(response_target(&request, peer()), peer());
    }

    #[test]
    fn without_rport_an_answer_goes_to_the_port_of_the_via() {
        let text = OPTIONS.replace(";rport", "");
        let Message::Request(request) = read_datagram(text.as_bytes(), peer()).unwrap() else {
            panic!("a request");
        };
        assert_eq!(
            response_target(&request, peer()).addr,
            "198.51.100.7:5060".parse().unwrap()
        );
    }

    #[test]
    fn a_broken_request_with_a_readable_via_gets_a_400_and_noise_gets_nothing() {
        let broken = OPTIONS.replace("sip:a@b.example SIP/2.0", "sip:#;:: SIP/2.0");
        let unreadable = read_datagram(broken.as_bytes(), peer()).unwrap_err();
        let refusal = String::from_utf8(unreadable.refusal.unwrap().to_vec()).unwrap();
        assert!(
            refusal.starts_with("SIP/2.0 400 Bad Request\r\n"),
            "{refusal}"
        );
        assert!(refusal.contains("rport=4321"), "{refusal}");
        for (noise, reason) in [
            (&b"\r\n\r\n"[..], Reason::Keepalive),
            (b"", Reason::Keepalive),
            (b"jaK", Reason::Malformed),
            (b"SIP/2.0 999 x\r\nVia: y\r\n\r\n", Reason::Malformed),
            (&[0xff; 1500], Reason::Malformed),
        ] {
            let unreadable = read_datagram(noise, peer()).unwrap_err();
            assert_eq!(unreadable, Unreadable::silent(reason));
        }
    }

    #[test]
    fn a_line_with_thousands_of_parameters_is_not_parsed_at_all() {
        let costly = OPTIONS.replacen(
            "b.example SIP",
            &format!("b.example{} SIP", ";x".repeat(900)),
            1,
        );
        assert_eq!(
            read_datagram(costly.as_bytes(), peer()).unwrap_err(),
            Unreadable::silent(Reason::TooCostly)
        );
    }
}
