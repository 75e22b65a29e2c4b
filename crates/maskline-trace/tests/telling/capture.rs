//! The packet capture, byte by byte.

use std::net::SocketAddr;

use maskline_switch::sip::Transport;
use maskline_trace::pcap;

use crate::answered;

struct Packet {
    seconds: u32,
    micros: u32,
    bytes: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn packets(capture: &[u8]) -> Vec<Packet> {
    assert_eq!(word(capture, 0), 0xa1b2_c3d4);
    assert_eq!(word(capture, 20), 101);
    let mut packets = Vec::new();
    let mut at = 24;
    while at < capture.len() {
        let length = word(capture, at + 8) as usize;
        assert_eq!(word(capture, at + 12) as usize, length);
        packets.push(Packet {
            seconds: word(capture, at),
            micros: word(capture, at + 4),
            bytes: capture[at + 16..at + 16 + length].to_vec(),
        });
        at += 16 + length;
    }
    packets
}

/// The ones' complement sum over some bytes, which is all ones where the checksum is among them.
fn sum(parts: &[&[u8]]) -> u32 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[test]
fn datagrams_have_the_right_addresses_lengths_checksums_and_times() {
    let listeners: [SocketAddr; 1] = ["192.0.2.1:5070".parse().unwrap()];
    let packets = packets(&pcap(&answered(Transport::Udp).entries, &listeners));
    assert_eq!(packets.len(), 13);
    for Packet { bytes, .. } in &packets {
        assert_eq!(usize::from(short(bytes, 2)), bytes.len());
        assert_eq!(sum(&[&bytes[..20]]), 0xffff);
        let length = short(bytes, 24);
        assert_eq!(usize::from(length), bytes.len() - 20);
        let pseudo = [0, 17, (length >> 8) as u8, length as u8];
        assert_eq!(sum(&[&bytes[12..20], &pseudo, &bytes[20..]]), 0xffff);
    }
    let first = &packets[0].bytes;
    assert_eq!(first[12..20], [192, 0, 2, 10, 192, 0, 2, 1]);
    assert_eq!((short(first, 20), short(first, 22)), (5060, 5070));
    assert!(first[28..].starts_with(b"INVITE "));
    assert_eq!(packets[2].bytes[12..20], [192, 0, 2, 1, 198, 51, 100, 9]);
    assert_eq!((packets[0].seconds, packets[0].micros), (1_767_657_600, 0));
    assert_eq!(
        (packets[2].seconds, packets[2].micros),
        (1_767_657_600, 14_700)
    );
}

#[test]
fn segments_of_a_connection_follow_each_other() {
    let everywhere: [SocketAddr; 1] = ["0.0.0.0:5070".parse().unwrap()];
    let packets = packets(&pcap(&answered(Transport::Tcp).entries, &everywhere));
    let mut next = std::collections::BTreeMap::new();
    for Packet { bytes, .. } in &packets {
        assert_eq!(bytes[9], 6);
        let ports = (short(bytes, 20), short(bytes, 22));
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(number(24), *next.get(&ports).unwrap_or(&1), "sequence");
        assert_eq!(
            number(28),
            *next.get(&(ports.1, ports.0)).unwrap_or(&1),
            "acknowledgement"
        );
        let payload = u32::try_from(bytes.len() - 40).unwrap();
        next.insert(ports, number(24) + payload);
        let length = u16::try_from(bytes.len() - 20).unwrap().to_be_bytes();
        let pseudo = [0, 6, length[0], length[1]];
        assert_eq!(sum(&[&bytes[12..20], &pseudo, &bytes[20..]]), 0xffff);
        // Which of our addresses it was is not known.
        assert!(bytes[12..20].windows(4).any(|it| it == [192, 0, 2, 255]));
    }
}
