//! A phone's RTP and RTCP sockets, packets as RFC 3550 and RFC 4733 have them, and what an SDP says of where to send them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::sipp::{Message, Sipp};
use super::site::{CALLEE_ADDRESS, CALLER_ADDRESS, Site};

/// PCMA, as the scenarios announce it.
pub const PCMA: u8 = 8;
/// telephone-event, as the scenarios announce it.
pub const TELEPHONE_EVENT: u8 = 101;

/// The sources by which A sends, and B.
pub const A: [u8; 4] = *b"AAAA";
pub const B: [u8; 4] = *b"BBBB";
/// How many packets each sends to be heard.
pub const PACKETS: u16 = 50;

/// The sockets of one phone.
#[derive(Debug)]
pub struct Media {
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

/// An RTP packet to be sent.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The payload type.
    pub payload_type: u8,
    /// The first packet of a talk spurt, or of a key press.
    pub marker: bool,
    /// The sequence number.
    pub sequence: u16,
    /// The timestamp.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: [u8; 4],
    /// Contributing sources, at most 15.
    pub csrc: Vec<[u8; 4]>,
    /// A header extension (RFC 8285, one-byte form), padded to words.
    pub extension: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Packet {
    /// 20 ms of audio.
    pub fn audio(ssrc: [u8; 4], index: u16, octet: u8) -> Self {
        Self {
            payload_type: PCMA,
            marker: index == 0,
            sequence: 1_000 + index,
            timestamp: 160 * u32::from(index),
            ssrc,
            csrc: Vec::new(),
            extension: Vec::new(),
            payload: vec![octet; 160],
        }
    }

    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let extended = if self.extension.is_empty() { 0 } else { 0x10 };
        let csrc_count = u8::try_from(self.csrc.len()).unwrap();
        let mut bytes = vec![0x80 | extended | csrc_count];
        bytes.push(u8::from(self.marker) << 7 | self.payload_type);
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc);
        bytes.extend(self.csrc.iter().flatten());
        if !self.extension.is_empty() {
            assert_eq!(self.extension.len() % 4, 0, "whole words");
            bytes.extend([0xBE, 0xDE]);
            bytes.extend(
                u16::try_from(self.extension.len() / 4)
                    .unwrap()
                    .to_be_bytes(),
            );
            bytes.extend(&self.extension);
        }
        bytes.extend(&self.payload);
        bytes
    }
}

impl Media {
    /// Opens an RTP port and the next one for RTCP.
    pub async fn open(address: &str, port: u16) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let rtp = UdpSocket::bind((address, port)).await.unwrap();
        let rtcp = UdpSocket::bind((address, port + 1)).await.unwrap();
        Self { rtp, rtcp }
    }

    /// A's, and B's.
    pub async fn of_both(site: &Site) -> (Self, Self) {
        (
            Self::open(CALLER_ADDRESS, site.ports.caller_media()).await,
            Self::open(CALLEE_ADDRESS, site.ports.callee_media()).await,
        )
    }

    /// Sends an RTP packet.
    pub async fn send(&self, packet: &Packet, to: SocketAddr) {
        self.rtp.send_to(&packet.bytes(), to).await.unwrap();
    }

    /// Sends these bytes from the RTP port.
    pub async fn send_bytes(&self, bytes: &[u8], to: SocketAddr) {
        self.rtp.send_to(bytes, to).await.unwrap();
    }

    /// Sends an RTCP packet to the port next to `rtp`.
    pub async fn send_control(&self, bytes: &[u8], rtp: SocketAddr) {
        let rtcp = SocketAddr::new(rtp.ip(), rtp.port() + 1);
        self.rtcp.send_to(bytes, rtcp).await.unwrap();
    }

    /// Sends an RTCP packet from the RTP port to the RTP port (RFC 5761).
    pub async fn send_control_shared(&self, bytes: &[u8], rtp: SocketAddr) {
        self.rtp.send_to(bytes, rtp).await.unwrap();
    }

    /// The next packet on the RTP port, whatever it is, if one comes within `wait`.
    pub async fn receive_within(&self, wait: Duration) -> Option<Vec<u8>> {
        next(&self.rtp, wait).await
    }

    /// The next RTP packet, if one comes soon.
    pub async fn receive(&self) -> Option<Vec<u8>> {
        next(&self.rtp, Duration::from_millis(500)).await
    }

    /// The next RTCP packet, if one comes within `wait`.
    pub async fn receive_control(&self, wait: Duration) -> Option<Vec<u8>> {
        next(&self.rtcp, wait).await
    }
}

async fn next(socket: &UdpSocket, wait: Duration) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 2048];
    let (length, _) = timeout(wait, socket.recv_from(&mut bytes))
        .await
        .ok()?
        .unwrap();
    bytes.truncate(length);
    Some(bytes)
}

/// Where the body of a message wants RTP.
pub fn announced(message: &Message) -> SocketAddr {
    let field = |start: &str| {
        let line = message
            .text
            .lines()
            .find_map(|line| line.trim_end().strip_prefix(start));
        line.unwrap_or_else(|| panic!("no {start} in {}", message.text))
    };
    let port = field("m=audio ").split(' ').next().unwrap();
    let (family, address) = field("c=IN ").split_once(' ').unwrap();
    let address: IpAddr = address.parse().unwrap();
    assert_eq!(family, if address.is_ipv4() { "IP4" } else { "IP6" });
    SocketAddr::new(address, port.parse().unwrap())
}

/// Where A was told to send, by the 200 to its INVITE, and where B was, by the INVITE.
pub fn told_to_send(caller: &Sipp, callee: &Sipp) -> (SocketAddr, SocketAddr) {
    let mut of_a = caller.messages().into_iter();
    let answer = of_a.find(|it| it.received && it.status() == Some(200));
    let offer = callee.messages().into_iter().find(|it| it.received);
    (
        announced(&answer.expect("A got its 200")),
        announced(&offer.expect("B got an INVITE")),
    )
}

/// A and B send [`PACKETS`] each, and each hears all of the other's.
pub async fn assert_hear_each_other(a: (&Media, SocketAddr), b: (&Media, SocketAddr)) {
    for index in 0..PACKETS {
        a.0.send(&Packet::audio(A, index, 0x11), a.1).await;
        b.0.send(&Packet::audio(B, index, 0x22), b.1).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_heard(b.0, 0x11).await;
    assert_heard(a.0, 0x22).await;
}

/// [`PACKETS`] of this octet arrive, of which nothing tells who sent them.
pub async fn assert_heard(media: &Media, octet: u8) {
    for index in 0..PACKETS {
        let packet = media
            .receive()
            .await
            .unwrap_or_else(|| panic!("packet {index} never came"));
        assert_eq!(packet.len(), 172, "a header without extras, and 20 ms");
        assert_eq!(packet[12..], [octet; 160], "packet {index}");
        assert_ne!(packet[8..12], A, "the sender's SSRC is not passed on");
        assert_ne!(packet[8..12], B, "the sender's SSRC is not passed on");
    }
}
