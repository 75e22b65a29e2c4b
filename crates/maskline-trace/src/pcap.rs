//! A call as a packet capture (libpcap format, raw IP) that Wireshark and tshark read as SIP.
//!
//! What the network did is made up around what was said: one UDP datagram, or one TCP segment of a
//! connection that is up, for each message, between the real addresses and at the real time. A
//! message that was cut when it was kept is cut here too. What went through TLS is shown as it was
//! within it: on a port that Wireshark takes for TLS, it has to be told to decode SIP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use maskline_switch::sip::Transport;
use maskline_switch::trace::{Direction, TraceEvent, TracedMessage};

use crate::codec::Entry;
use crate::redact::hide_credentials;

/// Raw IPv4 or IPv6, without a link layer.
const LINKTYPE_RAW: u32 = 101;
/// The most that a packet may be.
const SNAP: u32 = 65_535;

/// The capture of a call. `listeners` are our sockets' addresses by their index; one that is not
/// known any more is shown as 192.0.2.255 (RFC 5737) or 2001:db8::ffff. Credentials are overwritten.
#[must_use]
pub fn pcap(entries: &[Entry], listeners: &[SocketAddr]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, SNAP, LINKTYPE_RAW] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let mut sequences: BTreeMap<(SocketAddr, SocketAddr), u32> = BTreeMap::new();
    let mut origin = None;
    for entry in entries {
        let TraceEvent::Message(message) = &entry.what else {
            continue;
        };
        let at = time_of(entry, &mut origin);
        let ours = ours(message, listeners);
        let (from, to) = match message.direction {
            Direction::In => (message.peer.addr, ours),
            Direction::Out => (ours, message.peer.addr),
        };
        let mut payload = message.bytes.to_vec();
        hide_credentials(&mut payload);
        payload.truncate(60_000);
        let segment = match message.peer.transport {
            Transport::Udp => udp(from, to, &payload),
            Transport::Tcp | Transport::Tls => tcp(from, to, &payload, &mut sequences),
        };
        let packet = ip(from, to, message.peer.transport, &segment);
        let length = u32::try_from(packet.len()).unwrap_or(0);
        let seconds = u32::try_from(at / 1_000_000).unwrap_or(0);
        let micros = u32::try_from(at % 1_000_000).unwrap_or(0);
        for word in [seconds, micros, length, length] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&packet);
    }
    out
}

/// Microseconds since 1970: the run's first wall clock, and ticks from there.
fn time_of(entry: &Entry, origin: &mut Option<(u64, u64, u64)>) -> u64 {
    let wall = u64::try_from(entry.at.unix_ms())
        .unwrap_or(0)
        .saturating_mul(1_000);
    let (run, tick, base) = match *origin {
        Some(known) if known.0 == entry.run => known,
        Some(_) | None => (entry.run, entry.tick_us, wall),
    };
    *origin = Some((run, tick, base));
    base.saturating_add(entry.tick_us.saturating_sub(tick))
}

fn ours(message: &TracedMessage, listeners: &[SocketAddr]) -> SocketAddr {
    let peer = message.peer.addr;
    let known = listeners.get(usize::from(message.peer.listener));
    let port = known.map_or(5060, SocketAddr::port);
    let fits = |it: &&SocketAddr| it.is_ipv4() == peer.is_ipv4() && !it.ip().is_unspecified();
    let ip = known.filter(fits).map_or_else(
        || match peer {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 255)),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xffff)),
        },
        SocketAddr::ip,
    );
    SocketAddr::new(ip, port)
}

fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(payload.len() + 8);
    for word in [from.port(), to.port(), length, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(payload);
    let sum = checksum(from, to, 17, &out);
    put(&mut out, 6, if sum == 0 { 0xffff } else { sum });
    out
}

fn tcp(
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
    sequences: &mut BTreeMap<(SocketAddr, SocketAddr), u32>,
) -> Vec<u8> {
    let acknowledged = *sequences.entry((to, from)).or_insert(1);
    let next = sequences.entry((from, to)).or_insert(1);
    let sequence = *next;
    *next = next.wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
    let mut out = Vec::with_capacity(payload.len() + 20);
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&acknowledged.to_be_bytes());
    // Five words of header; PSH and ACK; a full window.
    out.extend_from_slice(&[0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
    let sum = checksum(from, to, 6, &out);
    put(&mut out, 16, sum);
    out
}

fn ip(from: SocketAddr, to: SocketAddr, transport: Transport, segment: &[u8]) -> Vec<u8> {
    let protocol = match transport {
        Transport::Udp => 17,
        Transport::Tcp | Transport::Tls => 6,
    };
    let length = segment.len();
    let mut out = Vec::with_capacity(length + 40);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(length + 20).unwrap_or(u16::MAX);
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&total.to_be_bytes());
            out.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
            let sum = folded(sum_of(0, &out));
            put(&mut out, 10, sum);
        }
        (from, to) => {
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[protocol, 64]);
            out.extend_from_slice(&v6(from));
            out.extend_from_slice(&v6(to));
        }
    }
    out.extend_from_slice(segment);
    out
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// Of the pseudo-header and the segment (RFC 768, RFC 9293 §3.1, RFC 8200 §8.1).
fn checksum(from: SocketAddr, to: SocketAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut sum = 0;
    for ip in [from.ip(), to.ip()] {
        sum = match ip {
            IpAddr::V4(ip) => sum_of(sum, &ip.octets()),
            IpAddr::V6(ip) => sum_of(sum, &ip.octets()),
        };
    }
    let length = u32::try_from(segment.len()).unwrap_or(0);
    sum = sum_of(sum, &length.to_be_bytes());
    sum = sum_of(sum, &[0, protocol]);
    folded(sum_of(sum, segment))
}

fn sum_of(sum: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(sum, |sum, pair| {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([high, low]))
    })
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
