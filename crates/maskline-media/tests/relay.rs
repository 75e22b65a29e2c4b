//! The relay, driven by scripts: a packet, what becomes of it, what is noticed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::SocketAddr;
use std::time::Duration;

use maskline_media::codec::g711::{encode_alaw, encode_ulaw};
use maskline_media::rtcp::{Report, ReportBlock, RtcpCompound, RtcpPacket, SenderInfo};
use maskline_media::rtp::RtpPacket;
use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, DropReason, PayloadMap, Relay, RelayOutput, RemoteMedia,
    Side, Tick, Verdict, Voice, VoiceCodec,
};
use proptest::prelude::*;

const A: &str = "192.0.2.1:4000";
const A_RTCP: &str = "192.0.2.1:4001";
const A_BEHIND_NAT: &str = "192.0.2.1:61000";
const A_ELSEWHERE: &str = "192.0.2.1:62000";
const B: &str = "[2001:db8::b]:5000";
const B_RTCP: &str = "[2001:db8::b]:5001";
const STRANGER: &str = "203.0.113.66:4000";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ms(ms: u64) -> Tick {
    Tick::from_start(Duration::from_millis(ms))
}

const fn codec(here: u8, there: u8, telephone_event: bool) -> PayloadMap {
    PayloadMap {
        here,
        there,
        clock_rate: 8_000,
        telephone_event,
        codec: if telephone_event {
            None
        } else {
            Some(VoiceCodec::Pcmu)
        },
        carriage: Carriage::AsIs,
    }
}

fn a_media() -> RemoteMedia {
    RemoteMedia {
        rtp: addr(A),
        rtcp: Some(addr(A_RTCP)),
        rtcp_mux: false,
        srtp: None,
        sources: vec![addr(A).ip()],
        payloads: vec![codec(0, 0, false), codec(101, 96, true)],
        sends: true,
        receives: true,
        listens: false,
        holds: false,
    }
}

fn b_media() -> RemoteMedia {
    RemoteMedia {
        rtp: addr(B),
        rtcp: Some(addr(B_RTCP)),
        rtcp_mux: false,
        srtp: None,
        sources: vec![addr(B).ip()],
        payloads: vec![codec(0, 0, false), codec(96, 101, true)],
        sends: true,
        receives: true,
        listens: false,
        holds: false,
    }
}

fn rtp(payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    RtpPacket {
        marker: sequence == 1,
        payload_type,
        sequence,
        timestamp,
        ssrc: 0x5151_5151,
        payload,
    }
    .write(&mut out);
    out
}

fn audio(n: u16) -> Vec<u8> {
    rtp(0, n, u32::from(n) * 160, &[n as u8; 160])
}

/// A relay, the buffer that it writes to, and short calls.
struct Bench {
    relay: Relay,
    out: Vec<u8>,
}

impl Bench {
    fn unprogrammed() -> Self {
        Self {
            relay: Relay::new(Tick::ZERO, 42, Duration::from_secs(60)),
            out: Vec::new(),
        }
    }

    fn bridged() -> Self {
        let mut bench = Self::unprogrammed();
        bench.a(0, a_media());
        bench.b(0, b_media());
        bench
    }

    fn a(&mut self, at: u64, media: RemoteMedia) {
        self.relay.program_caller(ms(at), CallerMedia(media));
    }

    fn b(&mut self, at: u64, media: RemoteMedia) {
        self.relay.program_callee(ms(at), CalleeMedia(media));
    }

    fn rtp(&mut self, at: u64, side: Side, from: &str, datagram: &[u8]) -> Verdict {
        self.relay
            .on_rtp(ms(at), side, addr(from), datagram, &mut self.out)
    }

    fn outputs(&mut self) -> Vec<RelayOutput> {
        std::iter::from_fn(|| self.relay.poll())
            .filter(|output| !matches!(output, RelayOutput::Report(_)))
            .collect()
    }

    /// Runs the deadlines up to a time and collects what comes out.
    fn until(&mut self, at: u64) -> Vec<(u64, RelayOutput)> {
        let mut seen = Vec::new();
        while let Some((due, _)) = self.relay.deadline().filter(|(due, _)| *due <= ms(at)) {
            self.relay.on_deadline(due);
            let due_ms = u64::try_from(due.since_start().as_millis()).unwrap();
            seen.extend(self.outputs().into_iter().map(|output| (due_ms, output)));
        }
        seen
    }

    fn sent(&self) -> RtpPacket<'_> {
        RtpPacket::parse(&self.out).unwrap()
    }
}

fn to(text: &str) -> Verdict {
    Verdict::Forward { to: addr(text) }
}

#[test]
fn audio_passes_both_ways_between_ipv4_and_ipv6_under_our_ssrc_and_the_receivers_payload_types() {
    let mut bench = Bench::bridged();
    assert_eq!(bench.rtp(0, Side::Caller, A, &audio(1)), to(B));
    let first = bench.sent();
    assert!(first.marker);
    assert_eq!(first.payload, [1; 160]);
    assert_ne!(first.ssrc, 0x5151_5151);
    let (ssrc, sequence, timestamp) = (first.ssrc, first.sequence, first.timestamp);
    assert_eq!(bench.rtp(20, Side::Caller, A, &audio(2)), to(B));
    let second = bench.sent();
    assert_eq!(second.ssrc, ssrc);
    assert_eq!(second.sequence, sequence.wrapping_add(1));
    assert_eq!(second.timestamp, timestamp.wrapping_add(160));
    assert_eq!(bench.rtp(20, Side::Callee, B, &audio(7)), to(A));
    assert_ne!(bench.sent().ssrc, ssrc, "each direction has its own");
    assert_eq!(
        bench.rtp(40, Side::Callee, B, &rtp(96, 8, 1_280, &[5, 0, 0, 160])),
        to(A)
    );
    assert_eq!(bench.sent().payload_type, 101);
}

#[test]
fn nothing_passes_before_both_sides_are_programmed_and_each_drop_has_its_reason() {
    let mut bench = Bench::unprogrammed();
    let verdict = bench.rtp(0, Side::Caller, A, &audio(1));
    assert_eq!(verdict, Verdict::Drop(DropReason::NotProgrammed));
    bench.a(0, a_media());
    let verdict = bench.rtp(0, Side::Caller, A, &audio(1));
    assert_eq!(verdict, Verdict::Drop(DropReason::ReceiverNotProgrammed));
    bench.b(0, b_media());
    assert_eq!(bench.rtp(0, Side::Caller, A, &audio(2)), to(B));
    for (datagram, reason) in [
        (rtp(8, 3, 480, &[]), DropReason::UnknownPayload),
        (vec![0x80; 11], DropReason::MalformedRtp),
        (vec![0x80; 2_049], DropReason::TooLong),
    ] {
        let verdict = bench.rtp(0, Side::Caller, A, &datagram);
        assert_eq!(verdict, Verdict::Drop(reason));
    }
    let counted = bench.relay.take_counters();
    assert_eq!((counted.rtp_received, counted.rtp_forwarded), (6, 1));
    assert_eq!(counted.drops.total(), 5);
    assert_eq!(counted.drops.of(DropReason::UnknownPayload), 1);
    assert_eq!(bench.relay.take_counters().rtp_received, 0);
}

#[test]
fn packets_go_where_a_party_sends_from_once_it_did() {
    let mut bench = Bench::bridged();
    assert_eq!(bench.rtp(0, Side::Callee, B, &audio(1)), to(A));
    assert_eq!(bench.rtp(0, Side::Caller, A_BEHIND_NAT, &audio(1)), to(B));
    assert_eq!(bench.rtp(20, Side::Callee, B, &audio(2)), to(A_BEHIND_NAT));
    let verdict = bench.rtp(20, Side::Caller, A_ELSEWHERE, &audio(2));
    assert_eq!(verdict, Verdict::Drop(DropReason::NotLatched));
}

#[test]
fn the_described_address_is_heard_whoever_of_that_host_was_heard_before() {
    let mut bench = Bench::bridged();
    assert_eq!(bench.rtp(0, Side::Caller, A_ELSEWHERE, &audio(1)), to(B));
    assert_eq!(bench.rtp(20, Side::Caller, A, &audio(700)), to(B));
    assert_eq!(bench.rtp(20, Side::Callee, B, &audio(1)), to(A));
    let verdict = bench.rtp(40, Side::Caller, A_ELSEWHERE, &audio(2));
    assert_eq!(verdict, Verdict::Drop(DropReason::NotLatched));
    assert_eq!(bench.rtp(40, Side::Callee, B, &audio(2)), to(A));
}

#[test]
fn what_was_under_way_from_the_address_of_before_latches_nothing() {
    let moved = RemoteMedia {
        rtp: addr("192.0.2.1:4020"),
        ..a_media()
    };
    let mut bench = Bench::bridged();
    assert_eq!(bench.rtp(0, Side::Caller, A, &audio(1)), to(B));
    bench.a(20, moved.clone());
    for at in [20, 40] {
        let verdict = bench.rtp(at, Side::Caller, A, &audio(2));
        assert_eq!(verdict, Verdict::Drop(DropReason::NotLatched));
        assert_eq!(
            bench.rtp(at, Side::Callee, B, &audio(1)),
            to("192.0.2.1:4020")
        );
    }
    assert_eq!(bench.rtp(60, Side::Caller, A_BEHIND_NAT, &audio(3)), to(B));
    assert_eq!(bench.rtp(60, Side::Callee, B, &audio(2)), to(A_BEHIND_NAT));

    let mut bench = Bench::bridged();
    assert_eq!(bench.rtp(0, Side::Caller, A, &audio(1)), to(B));
    bench.a(20, moved);
    let verdict = bench.rtp(1_000, Side::Caller, A, &audio(2));
    assert_eq!(verdict, Verdict::Drop(DropReason::NotLatched));
    let stays = bench.rtp(3_000, Side::Caller, A, &audio(100));
    assert_eq!(
        stays,
        to(B),
        "it goes on as before for so long that it means it"
    );
    assert_eq!(bench.rtp(3_000, Side::Callee, B, &audio(1)), to(A));
}

#[test]
fn a_stranger_is_never_heard_and_moves_nothing() {
    let mut bench = Bench::bridged();
    for at in [0, 40] {
        let verdict = bench.rtp(at, Side::Caller, STRANGER, &audio(1));
        assert_eq!(verdict, Verdict::Drop(DropReason::Stranger));
        let verdict = bench.rtp(at, Side::Caller, B, &audio(1));
        assert_eq!(verdict, Verdict::Drop(DropReason::Stranger));
        assert_eq!(bench.rtp(at, Side::Callee, B, &audio(1)), to(A));
        assert_eq!(bench.rtp(at, Side::Caller, A, &audio(1)), to(B));
    }
    assert_eq!(bench.relay.close(ms(60)).caller.unwrap().packets, 2);
}

#[test]
fn garbage_from_the_right_address_does_not_latch() {
    let mut bench = Bench::bridged();
    bench.rtp(0, Side::Caller, A_BEHIND_NAT, b"not a packet of any kind");
    bench.rtp(0, Side::Caller, A_BEHIND_NAT, &rtp(33, 1, 1, &[]));
    assert_eq!(bench.rtp(0, Side::Callee, B, &audio(1)), to(A));
    assert_eq!(bench.rtp(0, Side::Caller, A, &audio(1)), to(B));
}

#[test]
fn new_addresses_latch_anew_and_the_stream_goes_on_without_a_jump() {
    let mut bench = Bench::bridged();
    bench.rtp(0, Side::Caller, A_BEHIND_NAT, &audio(1));
    let before = (bench.sent().sequence, bench.sent().timestamp);
    bench.a(10, a_media());
    let verdict = bench.rtp(10, Side::Caller, A_ELSEWHERE, &audio(2));
    assert_eq!(
        verdict,
        Verdict::Drop(DropReason::NotLatched),
        "nothing changed, so the latch holds"
    );
    bench.a(
        20,
        RemoteMedia {
            rtp: addr("198.51.100.9:7000"),
            sources: vec![addr("198.51.100.9:0").ip()],
            ..a_media()
        },
    );
    let moved = "198.51.100.9:7002";
    assert_eq!(
        bench.rtp(20, Side::Callee, B, &audio(1)),
        to("198.51.100.9:7000")
    );
    let verdict = bench.rtp(20, Side::Caller, A_BEHIND_NAT, &audio(3));
    assert_eq!(verdict, Verdict::Drop(DropReason::Stranger));
    assert_eq!(bench.rtp(40, Side::Caller, moved, &audio(900)), to(B));
    let after = (bench.sent().sequence, bench.sent().timestamp);
    assert_eq!(after.0, before.0.wrapping_add(1));
    assert_eq!(after.1, before.1.wrapping_add(320));
}

/// A compound about the SSRC that the party hears us by: a receiver report.
fn receiver_report(about: u32, last_report: u32) -> Vec<u8> {
    Report {
        ssrc: 0x5151_5151,
        cname: "someone",
        sender: None,
        block: Some(ReportBlock {
            ssrc: about,
            fraction_lost: 12,
            cumulative_lost: 1,
            extended_sequence: 20,
            jitter: 80,
            last_report,
            delay_since_last_report: 65_536,
        }),
        goodbye: false,
    }
    .to_bytes()
}

#[test]
fn a_party_that_shares_one_port_is_reported_to_and_heard_there_and_the_other_on_two() {
    let mut bench = Bench::bridged();
    let shared = RemoteMedia {
        rtcp: Some(addr(A)),
        rtcp_mux: true,
        ..a_media()
    };
    bench.a(0, shared);
    assert_eq!(bench.rtp(0, Side::Caller, A_BEHIND_NAT, &audio(1)), to(B));
    assert_eq!(bench.rtp(0, Side::Callee, B, &audio(1)), to(A_BEHIND_NAT));
    let reports = bench.until(8_000);
    let sent = |wanted: Side| {
        reports.iter().find_map(|(_, output)| {
            let RelayOutput::SendRtcp {
                side, muxed, to, ..
            } = output
            else {
                return None;
            };
            (*side == wanted).then_some((*muxed, *to))
        })
    };
    assert_eq!(sent(Side::Caller), Some((true, addr(A_BEHIND_NAT))));
    assert_eq!(sent(Side::Callee), Some((false, addr(B_RTCP))));

    let report = receiver_report(7, 0);
    for (from, verdict) in [
        (A_BEHIND_NAT, Verdict::Taken),
        (STRANGER, Verdict::Drop(DropReason::Stranger)),
        (A_ELSEWHERE, Verdict::Drop(DropReason::NotLatched)),
    ] {
        assert_eq!(bench.rtp(8_000, Side::Caller, from, &report), verdict);
    }
    let verdict = bench.rtp(8_000, Side::Callee, B, &report);
    assert_eq!(
        verdict,
        Verdict::Drop(DropReason::UnknownPayload),
        "B has two ports"
    );
    let counted = bench.relay.take_counters();
    assert_eq!((counted.rtp_received, counted.rtcp_received), (3, 3));
    for cut in 0..report.len() {
        bench.rtp(8_000, Side::Caller, A_BEHIND_NAT, &report[..cut]);
    }
}

#[test]
fn a_party_on_hold_gets_nothing_but_its_presses_are_reported() {
    let mut bench = Bench::bridged();
    let hold = RemoteMedia {
        receives: false,
        ..b_media()
    };
    bench.b(0, hold);
    let verdict = bench.rtp(0, Side::Caller, A, &rtp(101, 1, 160, &[9, 10, 0, 160]));
    assert_eq!(verdict, Verdict::Drop(DropReason::ReceiverOnHold));
    let pressed = RelayOutput::Dtmf {
        side: Side::Caller,
        digit: '9',
    };
    assert_eq!(bench.outputs(), [pressed]);
}

#[test]
fn a_press_that_the_other_side_cannot_take_is_reported_and_not_passed() {
    let mut bench = Bench::bridged();
    let alone = RemoteMedia {
        payloads: vec![codec(0, 0, false), codec(101, PayloadMap::NOT_PASSED, true)],
        ..a_media()
    };
    bench.a(0, alone);
    let verdict = bench.rtp(0, Side::Caller, A, &rtp(101, 1, 160, &[11, 10, 0, 160]));
    assert_eq!(verdict, Verdict::Drop(DropReason::ReceiverLacksCodec));
    assert_eq!(bench.outputs().len(), 1);
}

#[test]
fn packets_are_never_sent_to_nobody_or_everybody() {
    for nowhere in [
        "0.0.0.0:4000",
        "192.0.2.1:0",
        "224.0.0.1:4000",
        "255.255.255.255:4000",
        "[::]:4000",
        "[ff02::1]:4000",
    ] {
        let mut bench = Bench::bridged();
        let media = RemoteMedia {
            rtp: addr(nowhere),
            rtcp: Some(addr(nowhere)),
            ..a_media()
        };
        bench.a(0, media);
        let verdict = bench.rtp(0, Side::Callee, B, &audio(1));
        assert_eq!(verdict, Verdict::Drop(DropReason::NoDestination));
        let to_a = bench.until(30_000).into_iter().any(|(_, output)| {
            matches!(
                output,
                RelayOutput::SendRtcp {
                    side: Side::Caller,
                    ..
                }
            )
        });
        assert!(!to_a);
    }
}

#[test]
fn presses_faster_than_any_finger_are_counted_and_not_reported() {
    let mut bench = Bench::bridged();
    for n in 0..200u16 {
        let packet = rtp(101, n, u32::from(n) * 800, &[1, 0x80, 1, 0]);
        bench.rtp(0, Side::Caller, A, &packet);
    }
    assert_eq!(bench.outputs().len(), 32);
    for n in 200..220u16 {
        let packet = rtp(101, n, u32::from(n) * 800, &[1, 0x80, 1, 0]);
        bench.rtp(u64::from(n) * 100, Side::Caller, A, &packet);
    }
    assert_eq!(bench.outputs().len(), 20);
    assert_eq!(bench.relay.take_counters().presses_suppressed, 168);
}

#[test]
fn a_silent_party_is_reported_once_per_silence() {
    let mut bench = Bench::bridged();
    let silences = |seen: Vec<(u64, RelayOutput)>| -> Vec<(u64, Side)> {
        seen.into_iter()
            .filter_map(|(at, output)| match output {
                RelayOutput::Silent { side } => Some((at, side)),
                RelayOutput::SendRtp { .. }
                | RelayOutput::SendRtcp { .. }
                | RelayOutput::Dtmf { .. }
                | RelayOutput::NotInRtp { .. }
                | RelayOutput::Played { .. }
                | RelayOutput::OneWay { .. }
                | RelayOutput::Report(_) => None,
            })
            .collect()
    };
    bench.rtp(30_000, Side::Callee, B, &audio(1));
    assert_eq!(
        silences(bench.until(300_000)),
        [(60_000, Side::Caller), (90_000, Side::Callee)]
    );
    bench.rtp(300_000, Side::Caller, A, &audio(1));
    bench
        .relay
        .on_rtcp(ms(310_000), Side::Caller, addr(A_RTCP), &empty_report());
    assert_eq!(silences(bench.until(600_000)), [(370_000, Side::Caller)]);
}

#[test]
fn only_a_direction_that_should_flow_can_be_silent() {
    let inactive = |media: RemoteMedia| RemoteMedia {
        sends: false,
        receives: false,
        ..media
    };
    let mut bench = Bench::unprogrammed();
    bench.a(0, a_media());
    let silent = |seen: Vec<(u64, RelayOutput)>| {
        seen.iter()
            .any(|(_, output)| matches!(output, RelayOutput::Silent { .. }))
    };
    assert!(!silent(bench.until(200_000)), "there is no other side yet");
    bench.b(200_000, inactive(b_media()));
    assert!(!silent(bench.until(400_000)), "the other side is on hold");
    bench.b(400_000, b_media());
    assert!(!silent(bench.until(459_999)), "from the new programming on");
    assert!(silent(bench.until(460_000)));
}

fn empty_report() -> Vec<u8> {
    Report {
        ssrc: 9,
        cname: "alice@10.1.2.3",
        sender: None,
        block: None,
        goodbye: false,
    }
    .to_bytes()
}

#[test]
fn each_party_gets_reports_of_our_own_about_what_it_sent_and_a_bye() {
    let mut bench = Bench::bridged();
    for n in (1..=100).filter(|n| n % 10 != 5) {
        bench.rtp(u64::from(n) * 20, Side::Caller, A, &audio(n));
    }
    let ssrc_to_b = bench.sent().ssrc;
    let report_of_a = Report {
        ssrc: 0x5151_5151,
        cname: "alice@10.1.2.3",
        sender: Some(SenderInfo {
            ntp_timestamp: 0xaaaa_bbbb_cccc_dddd,
            rtp_timestamp: 1,
            packets: 100,
            octets: 16_000,
        }),
        block: None,
        goodbye: false,
    };
    bench.relay.on_rtcp(
        ms(2_000),
        Side::Caller,
        addr(A_RTCP),
        &report_of_a.to_bytes(),
    );
    let reports = bench.until(60_000);
    let sent_to = |wanted: Side| -> Vec<(u64, SocketAddr, Vec<u8>)> {
        reports
            .iter()
            .filter_map(|(at, output)| match output {
                RelayOutput::SendRtcp {
                    side, to, datagram, ..
                } if *side == wanted => Some((*at, *to, datagram.clone())),
                RelayOutput::SendRtcp { .. }
                | RelayOutput::SendRtp { .. }
                | RelayOutput::Dtmf { .. }
                | RelayOutput::NotInRtp { .. }
                | RelayOutput::Played { .. }
                | RelayOutput::OneWay { .. }
                | RelayOutput::Report(_)
                | RelayOutput::Silent { .. } => None,
            })
            .collect()
    };
    let (to_a, to_b) = (sent_to(Side::Caller), sent_to(Side::Callee));
    for (sent, destination) in [(&to_a, A_RTCP), (&to_b, B_RTCP)] {
        assert!((8..=24).contains(&sent.len()), "about every 5 s in 60 s");
        for pair in sent.windows(2) {
            assert!((2_499..=7_501).contains(&(pair[1].0 - pair[0].0)));
        }
        for (_, to, datagram) in sent {
            assert_eq!(*to, addr(destination));
            let text = String::from_utf8_lossy(datagram);
            assert!(!text.contains("alice"), "a name of the other side");
        }
    }

    let first = RtcpCompound::parse(&to_a[0].2).unwrap();
    let [
        RtcpPacket::ReceiverReport { blocks, .. },
        RtcpPacket::SourceDescription {
            cname: Some(name_to_a),
        },
    ] = first.packets().collect::<Vec<_>>()[..]
    else {
        panic!("A sent and received nothing else");
    };
    let block = blocks.iter().next().unwrap();
    assert_eq!((block.ssrc, block.cumulative_lost), (0x5151_5151, 10));
    if to_a[0].0 >= 2_000 {
        assert_eq!(block.last_report, 0xbbbb_cccc);
    }

    let latest = RtcpCompound::parse(&to_b.last().unwrap().2).unwrap();
    let [
        RtcpPacket::SenderReport { ssrc, info, blocks },
        RtcpPacket::SourceDescription {
            cname: Some(name_to_b),
        },
    ] = latest.packets().collect::<Vec<_>>()[..]
    else {
        panic!("B was sent audio");
    };
    assert_eq!((ssrc, info.packets, info.octets), (ssrc_to_b, 90, 14_400));
    assert_eq!(blocks.iter().count(), 0);
    assert_eq!((name_to_a.len(), name_to_b.len()), (20, 20));
    assert_ne!(name_to_a, name_to_b, "one name would link the two legs");

    let figures = bench.relay.close(ms(60_000));
    let caller = figures.caller.unwrap();
    assert_eq!(caller.packets, 90);
    assert!((0.09..0.11).contains(&caller.loss), "{}", caller.loss);
    assert!(figures.callee.is_none());
    let byes = bench.outputs();
    assert_eq!(byes.len(), 2);
    for bye in byes {
        let RelayOutput::SendRtcp { datagram, .. } = bye else {
            panic!("{bye:?}");
        };
        let compound = RtcpCompound::parse(&datagram).unwrap();
        assert!(matches!(
            compound.packets().last(),
            Some(RtcpPacket::Goodbye { ssrc: Some(_) })
        ));
    }
}

#[test]
fn a_party_that_wants_no_rtcp_gets_none_and_strangers_rtcp_is_counted() {
    let mut bench = Bench::unprogrammed();
    let without = RemoteMedia {
        rtcp: None,
        ..a_media()
    };
    bench.a(0, without);
    bench
        .relay
        .on_rtcp(ms(0), Side::Caller, addr(STRANGER), &empty_report());
    bench
        .relay
        .on_rtcp(ms(0), Side::Caller, addr(A_RTCP), b"nonsense");
    assert!(bench.until(600_000).is_empty());
    bench.relay.close(ms(600_000));
    assert!(bench.outputs().is_empty());
    let counted = bench.relay.take_counters();
    assert_eq!(counted.drops.of(DropReason::Stranger), 1);
    assert_eq!(counted.drops.of(DropReason::MalformedRtcp), 1);
}

#[test]
fn the_same_seed_makes_the_same_bytes_and_another_makes_others() {
    let bytes = |seed: u64| {
        let mut bench = Bench::bridged();
        bench.relay = Relay::new(Tick::ZERO, seed, Duration::from_secs(60));
        bench.a(0, a_media());
        bench.b(0, b_media());
        bench.rtp(0, Side::Caller, A, &audio(1));
        (bench.out.clone(), bench.until(30_000))
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        Just(addr(A)),
        Just(addr(A_BEHIND_NAT)),
        Just(addr(B)),
        Just(addr(STRANGER)),
        Just(addr("203.0.113.67:9")),
    ]
}

fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        (
            any::<u16>(),
            any::<u32>(),
            any::<[u8; 4]>(),
            prop_oneof![Just(0u8), Just(96), Just(101)]
        )
            .prop_map(|(sequence, timestamp, payload, payload_type)| {
                rtp(payload_type, sequence, timestamp, &payload)
            }),
        Just(empty_report()),
    ]
}

proptest! {
    #[test]
    fn whatever_arrives_only_the_parties_are_heard_and_nothing_panics(
        steps in proptest::collection::vec(
            (0u64..2_000, any::<bool>(), any::<bool>(), addresses(), datagrams(), 0u8..40), 0..120),
    ) {
        let mut bench = Bench::bridged();
        let mut now = 0;
        for (passed, caller, rtcp, from, datagram, reprogram) in steps {
            now += passed;
            let side = if caller { Side::Caller } else { Side::Callee };
            if reprogram == 0 {
                bench.a(now, a_media());
            }
            if rtcp {
                bench.relay.on_rtcp(ms(now), side, from, &datagram);
            } else {
                let verdict =
                    bench.relay.on_rtp(ms(now), side, from, &datagram, &mut bench.out);
                if let Verdict::Forward { to } = verdict {
                    let (party, other) = match side {
                        Side::Caller => (addr(A).ip(), addr(B).ip()),
                        Side::Callee => (addr(B).ip(), addr(A).ip()),
                    };
                    prop_assert_eq!(from.ip(), party);
                    prop_assert_eq!(to.ip(), other);
                    let incoming = RtpPacket::parse(&datagram).unwrap();
                    let sent = RtpPacket::parse(&bench.out).unwrap();
                    prop_assert_eq!(sent.payload, incoming.payload);
                    prop_assert_ne!(sent.ssrc, incoming.ssrc);
                }
            }
            bench.relay.on_deadline(ms(now));
            bench.outputs();
        }
        let figures = bench.relay.close(ms(now));
        for quality in [figures.caller, figures.callee].into_iter().flatten() {
            prop_assert!((1.0..=4.5).contains(&quality.mos));
            prop_assert!((0.0..=1.0).contains(&quality.loss));
        }
    }
}

const fn turned(here: u8, from: Voice, there: u8, to: Voice) -> PayloadMap {
    PayloadMap {
        carriage: Carriage::Transcoded { from, to },
        ..codec(here, there, false)
    }
}

/// A knows PCMA alone, B PCMU alone.
fn translated() -> Bench {
    let mut bench = Bench::unprogrammed();
    let a = RemoteMedia {
        payloads: vec![turned(8, Voice::Pcma, 0, Voice::Pcmu)],
        ..a_media()
    };
    let b = RemoteMedia {
        payloads: vec![turned(0, Voice::Pcmu, 8, Voice::Pcma)],
        ..b_media()
    };
    bench.a(0, a);
    bench.b(0, b);
    bench
}

#[test]
fn a_packet_is_transcoded_with_its_length_and_its_place_in_time() {
    let mut bench = translated();
    let samples: Vec<i16> = (0..160).map(|n| n * 150 - 12_000).collect();
    let alaw: Vec<u8> = samples.iter().map(|it| encode_alaw(*it)).collect();
    let ulaw: Vec<u8> = samples.iter().map(|it| encode_ulaw(*it)).collect();
    assert_eq!(bench.rtp(0, Side::Caller, A, &rtp(8, 1, 160, &alaw)), to(B));
    let first = bench.sent();
    assert_eq!((first.payload_type, first.payload.len()), (0, 160));
    let near = |(one, other): (&u8, &u8)| {
        let wide = |byte| i32::from(maskline_media::codec::g711::decode_ulaw(byte));
        (wide(*one) - wide(*other)).abs() <= 700
    };
    assert!(first.payload.iter().zip(&ulaw).all(near));
    let (sequence, timestamp) = (first.sequence, first.timestamp);
    // The second packet is lost.
    bench.rtp(40, Side::Caller, A, &rtp(8, 3, 480, &alaw));
    let third = bench.sent();
    assert_eq!(third.sequence, sequence.wrapping_add(2));
    assert_eq!(third.timestamp, timestamp.wrapping_add(320));
    assert_eq!(bench.rtp(0, Side::Callee, B, &rtp(0, 1, 160, &ulaw)), to(A));
    assert_eq!(bench.sent().payload_type, 8);
}

#[test]
fn what_cannot_be_transcoded_is_dropped_and_counted() {
    let mut bench = translated();
    let reason = DropReason::NotTranscodable;
    for octets in [0, 1, 161, 1_602] {
        let packet = rtp(8, 1, 160, &vec![0xd5; octets]);
        assert_eq!(
            bench.rtp(0, Side::Caller, A, &packet),
            Verdict::Drop(reason),
            "{octets}"
        );
    }
    let longest = rtp(8, 2, 160, &[0xd5; 1_600]);
    assert_eq!(bench.rtp(0, Side::Caller, A, &longest), to(B));
    assert_eq!(bench.relay.take_counters().drops.of(reason), 4);
}
