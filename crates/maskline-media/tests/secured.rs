//! The relay between a party whose packets are protected and one whose are plain: who is heard, who is
//! not, and that a failure moves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::SocketAddr;
use std::time::Duration;

use maskline_media::rtcp::RtcpCompound;
use maskline_media::rtp::RtpPacket;
use maskline_media::srtp::Protection;
use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, DropReason, PayloadMap, Relay, RelayOutput, RemoteMedia,
    Side, SrtpKey, SrtpKeys, SrtpSuite, Tick, Verdict, VoiceCodec,
};

const A: &str = "192.0.2.1:4000";
const B: &str = "198.51.100.1:5000";
const B_RTCP: &str = "198.51.100.1:5001";
const OUR_KEY: SrtpKey = SrtpKey([1; 30]);
const THEIR_KEY: SrtpKey = SrtpKey([2; 30]);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn media(at: &str, srtp: Option<SrtpKeys>) -> RemoteMedia {
    let rtp = addr(at);
    RemoteMedia {
        rtp,
        rtcp: Some(SocketAddr::new(rtp.ip(), rtp.port() + 1)),
        rtcp_mux: false,
        srtp,
        sources: vec![rtp.ip()],
        payloads: vec![PayloadMap {
            here: 0,
            there: 0,
            clock_rate: 8_000,
            telephone_event: false,
            codec: Some(VoiceCodec::Pcmu),
            carriage: Carriage::AsIs,
        }],
        sends: true,
        receives: true,
        listens: false,
        holds: false,
    }
}

/// What our end has, and what the party's has.
const fn keys(suite: SrtpSuite, ours: SrtpKey, theirs: SrtpKey) -> (SrtpKeys, SrtpKeys) {
    let here = SrtpKeys {
        suite,
        ours,
        theirs,
    };
    let there = SrtpKeys {
        suite,
        ours: theirs,
        theirs: ours,
    };
    (here, there)
}

/// A is plain, B protected.
struct Bench {
    relay: Relay,
    b: Protection,
    out: Vec<u8>,
}

impl Bench {
    fn new(suite: SrtpSuite) -> Self {
        let (here, there) = keys(suite, OUR_KEY, THEIR_KEY);
        let mut relay = Relay::new(Tick::ZERO, 42, Duration::from_secs(60));
        relay.program_caller(Tick::ZERO, CallerMedia(media(A, None)));
        relay.program_callee(Tick::ZERO, CalleeMedia(media(B, Some(here))));
        Self {
            relay,
            b: Protection::new(there),
            out: Vec::new(),
        }
    }

    fn program(&mut self, at: &str, srtp: Option<SrtpKeys>) {
        self.relay
            .program_callee(Tick::ZERO, CalleeMedia(media(at, srtp)));
    }

    /// What B hears of a plain packet of A.
    fn towards_b(&mut self, packet: &[u8]) -> Vec<u8> {
        let verdict = self.from(Side::Caller, A, packet);
        assert_eq!(verdict, Verdict::Forward { to: addr(B) });
        let mut clear = Vec::new();
        self.b.open_rtp(&self.out, &mut clear).unwrap();
        clear
    }

    fn protected(&mut self, sequence: u16) -> Vec<u8> {
        let mut packet = audio(sequence);
        self.b.protect_rtp(&mut packet).unwrap();
        packet
    }

    fn from(&mut self, side: Side, from: &str, datagram: &[u8]) -> Verdict {
        let out = &mut self.out;
        self.relay
            .on_rtp(Tick::ZERO, side, addr(from), datagram, out)
    }

    fn drops(&mut self, reason: DropReason) -> u64 {
        self.relay.take_counters().drops.of(reason)
    }
}

fn audio(sequence: u16) -> Vec<u8> {
    let mut out = Vec::new();
    RtpPacket {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp: u32::from(sequence) * 160,
        ssrc: 0x5151_5151,
        payload: &[sequence as u8; 160],
    }
    .write(&mut out);
    out
}

fn payload(packet: &[u8]) -> Vec<u8> {
    RtpPacket::parse(packet).unwrap().payload.to_vec()
}

#[test]
fn a_plain_party_and_a_protected_one_hear_each_other_by_either_suite() {
    for suite in SrtpSuite::ALL {
        let mut bench = Bench::new(suite);
        for sequence in 1..=200 {
            let heard = bench.towards_b(&audio(sequence));
            assert_eq!(payload(&heard), [sequence as u8; 160]);
            assert!(
                !contains(&bench.out, &[sequence as u8; 16]),
                "it is encrypted"
            );
            let packet = bench.protected(sequence);
            let verdict = bench.from(Side::Callee, B, &packet);
            assert_eq!(verdict, Verdict::Forward { to: addr(A) });
            assert_eq!(payload(&bench.out), [sequence as u8; 160]);
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|it| it == part)
}

#[test]
fn a_packet_of_another_key_or_of_none_is_never_heard_and_latches_nothing() {
    let mut bench = Bench::new(SrtpSuite::AesCm128Sha1Tag80);
    let (_, wrong) = keys(SrtpSuite::AesCm128Sha1Tag80, OUR_KEY, SrtpKey([3; 30]));
    let mut stranger = Protection::new(wrong);
    let mut forged = audio(1);
    stranger.protect_rtp(&mut forged).unwrap();
    for datagram in [forged, audio(1), vec![0x80; 200], vec![]] {
        for from in [B, "198.51.100.1:6000"] {
            let verdict = bench.from(Side::Callee, from, &datagram);
            assert_eq!(verdict, Verdict::Drop(DropReason::NotAuthentic));
        }
    }
    assert_eq!(bench.drops(DropReason::NotAuthentic), 8);
    assert_eq!(bench.relay.only_rtp_source(Side::Callee), None);
    // Behind a NAT, B is heard from wherever its first authentic packet comes.
    let packet = bench.protected(1);
    assert!(matches!(
        bench.from(Side::Callee, "198.51.100.1:6000", &packet),
        Verdict::Forward { .. }
    ));
    let verdict = bench.from(Side::Callee, "198.51.100.1:6000", &packet);
    assert_eq!(verdict, Verdict::Drop(DropReason::Replayed));
    // A stranger costs no decryption.
    let verdict = bench.from(Side::Callee, "203.0.113.9:5000", &packet);
    assert_eq!(verdict, Verdict::Drop(DropReason::Stranger));
}

#[test]
fn reports_are_protected_both_ways_and_those_of_another_key_count_for_nothing() {
    let mut bench = Bench::new(SrtpSuite::AesCm128Sha1Tag32);
    bench.towards_b(&audio(1));
    let (due, _) = bench.relay.deadline().unwrap();
    let later = due + Duration::from_secs(8);
    bench.relay.on_deadline(later);
    let mut reports = 0;
    while let Some(output) = bench.relay.poll() {
        if let RelayOutput::SendRtcp {
            side: Side::Callee,
            datagram,
            to,
            ..
        } = output
        {
            assert_eq!(to, addr(B_RTCP));
            let mut clear = Vec::new();
            bench.b.open_rtcp(&datagram, &mut clear).unwrap();
            assert!(RtcpCompound::parse(&clear).is_ok());
            assert!(!contains(&datagram, &clear[8..24]), "it is encrypted");
            reports += 1;
        }
    }
    assert_eq!(reports, 1);
    let plain = [0x80, 201, 0, 1, 1, 2, 3, 4];
    let mut packet = plain.to_vec();
    bench.b.protect_rtcp(&mut packet).unwrap();
    bench.relay.take_counters();
    for datagram in [&plain[..], &packet, &packet] {
        bench
            .relay
            .on_rtcp(later, Side::Callee, addr(B_RTCP), datagram);
    }
    let counters = bench.relay.take_counters();
    assert_eq!(counters.drops.of(DropReason::NotAuthentic), 1);
    assert_eq!(counters.drops.of(DropReason::Replayed), 1);
    assert_eq!(counters.drops.total(), 2);
}

#[test]
fn a_party_that_changes_its_key_is_heard_by_the_new_one_alone_and_still_hears_us() {
    let mut bench = Bench::new(SrtpSuite::AesCm128Sha1Tag80);
    let old = bench.protected(1);
    bench.towards_b(&audio(1));
    let new = SrtpKey([9; 30]);
    let (here, there) = keys(SrtpSuite::AesCm128Sha1Tag80, OUR_KEY, new);
    bench.program(B, Some(here));
    let verdict = bench.from(Side::Callee, B, &old);
    assert_eq!(verdict, Verdict::Drop(DropReason::NotAuthentic));
    bench.b.rekey(there);
    let packet = bench.protected(2);
    assert!(matches!(
        bench.from(Side::Callee, B, &packet),
        Verdict::Forward { .. }
    ));
    assert_eq!(payload(&bench.towards_b(&audio(2))), [2; 160]);
    // Described again with the same key, nothing starts over.
    bench.program(B, Some(here));
    let verdict = bench.from(Side::Callee, B, &packet);
    assert_eq!(verdict, Verdict::Drop(DropReason::Replayed));
    assert_eq!(payload(&bench.towards_b(&audio(3))), [3; 160]);
}

#[test]
fn a_party_that_turns_protection_off_and_on_is_never_sent_two_packets_by_one_index() {
    let mut bench = Bench::new(SrtpSuite::AesCm128Sha1Tag80);
    let (here, _) = keys(SrtpSuite::AesCm128Sha1Tag80, OUR_KEY, THEIR_KEY);
    bench.towards_b(&audio(1));
    bench.program(B, None);
    let verdict = bench.from(Side::Caller, A, &audio(2));
    assert_eq!(verdict, Verdict::Forward { to: addr(B) });
    assert_eq!(payload(&bench.out), [2; 160], "plain");
    bench.program(B, Some(here));
    // A sends other words by a number that it used before.
    let mut again = audio(1);
    again[40] ^= 1;
    let verdict = bench.from(Side::Caller, A, &again);
    assert_eq!(verdict, Verdict::Drop(DropReason::Replayed));
    assert_eq!(payload(&bench.towards_b(&audio(3))), [3; 160]);
}

#[test]
fn what_we_make_ourselves_is_protected_as_well() {
    let mut bench = Bench::new(SrtpSuite::AesCm128Sha1Tag80);
    bench.towards_b(&audio(1));
    bench.relay.press(Tick::ZERO, Side::Caller, '5', true);
    let mut made = 0;
    while let Some(output) = bench.relay.poll() {
        if let RelayOutput::SendRtp {
            side: Side::Callee,
            to,
            datagram,
        } = output
        {
            assert_eq!(to, addr(B));
            let mut clear = Vec::new();
            bench.b.open_rtp(&datagram, &mut clear).unwrap();
            assert!(!contains(&datagram, &payload(&clear)[..16]));
            made += 1;
        }
    }
    assert!(made > 0, "the press is played as a tone");
}
