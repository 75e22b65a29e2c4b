//! Key presses of a party towards one that does not know them in that form.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::Duration;

use maskline_media::codec::g711::decode_ulaw;
use maskline_media::dtmf::{TelephoneEvent, code};
use maskline_media::rtp::RtpPacket;
use maskline_media::tone::tone_share;
use maskline_media::tones::{KeyTones, frequencies};
use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, DropReason, PayloadMap, Relay, RelayOutput, RemoteMedia,
    Side, Tick, Verdict, Voice, VoiceCodec,
};

const A: &str = "192.0.2.10:4000";
const B: &str = "192.0.2.20:5000";
/// The payload types of A's and B's telephone-events.
const OF_A: u8 = 101;
const OF_B: u8 = 97;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ms(ms: u64) -> Tick {
    Tick::from_start(Duration::from_millis(ms))
}

const PCMU: PayloadMap = PayloadMap {
    here: 0,
    there: 0,
    clock_rate: 8_000,
    telephone_event: false,
    codec: Some(VoiceCodec::Pcmu),
    carriage: Carriage::AsIs,
};

const fn events(here: u8, there: u8, clock_rate: u32, carriage: Carriage) -> PayloadMap {
    PayloadMap {
        here,
        there,
        clock_rate,
        telephone_event: true,
        codec: None,
        carriage,
    }
}

fn media(at: &str, payloads: &[PayloadMap]) -> RemoteMedia {
    RemoteMedia {
        rtp: addr(at),
        rtcp: None,
        rtcp_mux: false,
        srtp: None,
        sources: vec![addr(at).ip()],
        payloads: payloads.to_vec(),
        sends: true,
        receives: true,
        listens: false,
        holds: false,
    }
}

/// A telephone-event that reached B, with its time in ms.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told {
    at: u64,
    marker: bool,
    timestamp: u32,
    event: TelephoneEvent,
}

/// Both know PCMU; what of telephone-events each knows is the test's.
struct Bench {
    relay: Relay,
    /// What reached B, with its time in ms.
    at_b: Vec<(u64, Vec<u8>)>,
    pressed: String,
    /// Keys that signalling is to pass on.
    not_in_rtp: String,
    now: u64,
    sequence: u16,
}

impl Bench {
    fn new(a: RemoteMedia, b: RemoteMedia) -> Self {
        let mut relay = Relay::new(Tick::ZERO, 7, Duration::from_secs(60));
        relay.program_caller(Tick::ZERO, CallerMedia(a));
        relay.program_callee(Tick::ZERO, CalleeMedia(b));
        Self {
            relay,
            at_b: Vec::new(),
            pressed: String::new(),
            not_in_rtp: String::new(),
            now: 0,
            sequence: 0,
        }
    }

    /// A knows telephone-event, B does not.
    fn to_tones() -> Self {
        let a = [PCMU, events(OF_A, 0, 8_000, Carriage::Anew)];
        Self::new(media(A, &a), media(B, &[PCMU]))
    }

    /// B knows telephone-event, A does not; A's audio is listened to or not.
    fn to_events(listens: bool) -> Self {
        let b = [PCMU, events(OF_B, 0, 8_000, Carriage::Anew)];
        let a = RemoteMedia {
            listens,
            ..media(A, &[PCMU])
        };
        Self::new(a, media(B, &b))
    }

    /// Both know telephone-event at 8 kHz.
    fn as_is() -> Self {
        let a = [PCMU, events(OF_A, OF_B, 8_000, Carriage::AsIs)];
        let b = [PCMU, events(OF_B, OF_A, 8_000, Carriage::AsIs)];
        Self::new(media(A, &a), media(B, &b))
    }

    fn drain(&mut self, at: u64) {
        while let Some(output) = self.relay.poll() {
            match output {
                RelayOutput::SendRtp { side, to, datagram } => {
                    assert_eq!((side, to), (Side::Callee, addr(B)));
                    self.at_b.push((at, datagram));
                }
                RelayOutput::Dtmf { side, digit } => {
                    assert_eq!(side, Side::Caller);
                    self.pressed.push(digit);
                }
                RelayOutput::NotInRtp { side, digit } => {
                    assert_eq!(side, Side::Caller);
                    self.not_in_rtp.push(digit);
                }
                RelayOutput::SendRtcp { .. }
                | RelayOutput::Played { .. }
                | RelayOutput::OneWay { .. }
                | RelayOutput::Report(_)
                | RelayOutput::Silent { .. } => {}
            }
        }
    }

    fn until(&mut self, at: u64) {
        while let Some((due, _)) = self.relay.deadline().filter(|(due, _)| *due <= ms(at)) {
            self.relay.on_deadline(due);
            self.drain(u64::try_from(due.since_start().as_millis()).unwrap());
        }
        self.now = at;
    }

    fn a_sends(&mut self, payload_type: u8, timestamp: u64, payload: &[u8]) -> Verdict {
        self.sequence += 1;
        let (mut datagram, mut out) = (Vec::new(), Vec::new());
        RtpPacket {
            marker: false,
            payload_type,
            sequence: self.sequence,
            timestamp: u32::try_from(timestamp).unwrap(),
            ssrc: 5,
            payload,
        }
        .write(&mut datagram);
        let verdict = self
            .relay
            .on_rtp(ms(self.now), Side::Caller, addr(A), &datagram, &mut out);
        if let Verdict::Forward { .. } = verdict {
            self.at_b.push((self.now, out));
        }
        self.drain(self.now);
        verdict
    }

    fn voice(&mut self, at: u64) -> Verdict {
        self.until(at);
        self.a_sends(0, at * 8, &[0xff; 160])
    }

    fn told_by_info(&mut self, key: char, at: u64) {
        self.until(at);
        self.relay.press(ms(at), Side::Caller, key, true);
        self.drain(at);
    }

    /// As [`Self::told_by_info`], where B takes INFO.
    fn passed_by_info(&mut self, key: char, at: u64) {
        self.until(at);
        self.relay.press(ms(at), Side::Caller, key, false);
        self.drain(at);
    }

    /// What of a press is sent: so many updates, one each 20 ms, and three ends; those of `lost` are
    /// not.
    fn press_with_loss(&mut self, key: char, at: u64, updates: u64, clock: u64, lost: &[u64]) {
        for n in (0..updates + 3).filter(|n| !lost.contains(n)) {
            self.until(at + n * 20);
            let event = TelephoneEvent {
                code: code(key).unwrap(),
                end: n >= updates,
                volume: 10,
                duration: u16::try_from((n + 1).min(updates) * 20 * clock).unwrap(),
            };
            self.a_sends(OF_A, at * clock, &event.to_bytes());
        }
    }

    /// A press of 100 ms.
    fn press(&mut self, key: char, at: u64) {
        self.press_with_loss(key, at, 5, 8, &[]);
    }

    /// The telephone-events that reached B.
    fn told(&self) -> Vec<Told> {
        let packets = self.at_b.iter().map(|(at, datagram)| {
            let packet = RtpPacket::parse(datagram).unwrap();
            (*at, packet)
        });
        packets
            .filter(|(_, packet)| packet.payload_type == OF_B)
            .map(|(at, packet)| Told {
                at,
                marker: packet.marker,
                timestamp: packet.timestamp,
                event: TelephoneEvent::from_bytes(packet.payload.try_into().unwrap()),
            })
            .collect()
    }

    /// Checks that what reached B is one stream without a gap, as B hears it.
    fn assert_one_stream(&self) {
        let packets: Vec<RtpPacket<'_>> = self
            .at_b
            .iter()
            .map(|(_, datagram)| RtpPacket::parse(datagram).unwrap())
            .collect();
        for pair in packets.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
            assert_eq!(pair[1].ssrc, pair[0].ssrc);
            let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
            assert!(step < 0x8000_0000, "time goes on: {step}");
        }
    }

    /// Checks that the events that reached B are one press of a key for so many ms.
    fn assert_told(&self, key: char, lasts: u64) {
        let told = self.told();
        let code = code(key).unwrap();
        assert!(told[0].marker && told[1..].iter().all(|it| !it.marker));
        assert!(told.iter().all(|it| it.event.code == code), "{told:?}");
        let start = told[0].timestamp;
        assert!(told.iter().all(|it| it.timestamp == start), "{told:?}");
        let durations = told.windows(2);
        for pair in durations {
            assert!(pair[0].event.duration <= pair[1].event.duration, "{told:?}");
        }
        let ends = told.iter().filter(|it| it.event.end).count();
        assert_eq!(ends, 3, "{told:?}");
        let duration = told.last().unwrap().event.duration;
        assert_eq!(u64::from(duration), lasts * 8, "{told:?}");
    }
}

#[test]
fn a_press_reaches_a_party_without_telephone_event_as_one_tone_without_a_gap() {
    let mut bench = Bench::to_tones();
    for n in 0..5 {
        assert_eq!(bench.voice(n * 20), Verdict::Forward { to: addr(B) });
    }
    bench.press('5', 100);
    for n in 13..20 {
        bench.voice(n * 20);
    }
    assert_eq!(bench.pressed, "5");
    bench.assert_one_stream();
    let packets: Vec<RtpPacket<'_>> = bench
        .at_b
        .iter()
        .map(|(_, datagram)| RtpPacket::parse(datagram).unwrap())
        .collect();
    assert!(packets.iter().all(|it| it.payload_type == 0));
    let loud = |it: &&RtpPacket<'_>| it.payload.iter().any(|octet| *octet != 0xff);
    let tone: Vec<&RtpPacket<'_>> = packets.iter().filter(loud).collect();
    assert!((5..=7).contains(&tone.len()), "{}", tone.len());
    assert!(tone[0].marker && tone[1..].iter().all(|it| !it.marker));
    let samples: Vec<i16> = tone
        .iter()
        .flat_map(|it| it.payload.iter().map(|octet| decode_ulaw(*octet)))
        .collect();
    let (low, high) = frequencies('5').unwrap();
    for frequency in [low, high] {
        assert!(tone_share(&samples, frequency, 8_000) > 0.4);
    }
}

#[test]
fn voice_beside_a_press_waits_for_it_and_is_counted() {
    let mut bench = Bench::to_tones();
    bench.voice(0);
    bench.press('1', 20);
    let during = TelephoneEvent {
        code: 2,
        end: false,
        volume: 10,
        duration: 160,
    };
    bench.until(400);
    bench.a_sends(OF_A, 3_200, &during.to_bytes());
    assert_eq!(bench.voice(420), Verdict::Drop(DropReason::PlayedAnew));
    assert_eq!(bench.voice(2_000), Verdict::Forward { to: addr(B) });
    assert_eq!(bench.pressed, "12");
    let counters = bench.relay.take_counters();
    assert!(counters.drops.of(DropReason::PlayedAnew) >= 9);
    assert!(counters.rtp_made >= 7);
}

#[test]
fn a_flood_of_presses_makes_no_more_than_a_packet_each_20_ms() {
    let mut bench = Bench::to_tones();
    for n in 0..500u64 {
        let event = TelephoneEvent {
            code: u8::try_from(n % 10).unwrap(),
            end: true,
            volume: 0,
            duration: u16::MAX,
        };
        bench.a_sends(OF_A, n * 100, &event.to_bytes());
    }
    bench.until(4_000);
    assert!(bench.at_b.len() <= 202, "{}", bench.at_b.len());
}

#[test]
fn a_change_of_the_call_that_leaves_no_way_for_it_ends_a_press() {
    let mut bench = Bench::to_tones();
    bench.told_by_info('1', 0);
    bench.until(60);
    let held = RemoteMedia {
        receives: false,
        ..media(B, &[PCMU])
    };
    bench.relay.program_callee(ms(60), CalleeMedia(held));
    bench.until(3_000);
    assert!(bench.at_b.last().unwrap().0 <= 60);
    bench
        .relay
        .program_callee(ms(3_000), CalleeMedia(media(B, &[PCMU])));
    assert_eq!(bench.voice(3_020), Verdict::Forward { to: addr(B) });
}

#[test]
fn a_press_at_another_clock_rate_is_told_at_the_others() {
    let a = [PCMU, events(OF_A, OF_B, 48_000, Carriage::Anew)];
    let b = [PCMU, events(OF_B, OF_A, 8_000, Carriage::Anew)];
    let mut bench = Bench::new(media(A, &a), media(B, &b));
    bench.voice(0);
    bench.press_with_loss('9', 20, 5, 48, &[]);
    assert_eq!(bench.voice(1_000), Verdict::Forward { to: addr(B) });
    assert_eq!(bench.pressed, "9");
    bench.assert_one_stream();
    // What is played is not behind what arrives, and learns of the end a packet late.
    bench.assert_told('9', 120);
}

#[test]
fn lost_packets_of_a_press_change_nothing_but_its_length() {
    for (lost, lasts) in [
        (&[0, 2, 4][..], 100..=100),
        // The end is heard 40 ms late, and what was told is not taken back.
        (&[1, 5, 6], 100..=160),
        // Of the press only its ends arrive, or only its beginning.
        (&[0, 1, 2, 3, 4], 100..=100),
        (&[3, 4, 5, 6, 7], 260..=320),
    ] {
        let a = [PCMU, events(OF_A, OF_B, 16_000, Carriage::Anew)];
        let b = [PCMU, events(OF_B, OF_A, 8_000, Carriage::Anew)];
        let mut bench = Bench::new(media(A, &a), media(B, &b));
        bench.voice(0);
        bench.press_with_loss('3', 20, 5, 16, lost);
        bench.until(2_000);
        assert_eq!(bench.pressed, "3", "{lost:?}");
        let ticks = bench.told().last().unwrap().event.duration;
        let told_ms = u64::from(ticks) / 8;
        assert!(lasts.contains(&told_ms), "{lost:?}: {told_ms}");
        bench.assert_told('3', told_ms);
    }
}

#[test]
fn a_long_press_in_segments_is_one_long_tone() {
    let mut bench = Bench::to_tones();
    let code = code('0').unwrap();
    // 12 s at 8 kHz; a segment is 8.19 s (RFC 4733 §2.5.1.3).
    for n in 1..=603_u32 {
        bench.until(u64::from(n) * 20);
        let lasts = n.min(600) * 160;
        let segment = if lasts > 0xffff { 0xffff } else { 0 };
        let event = TelephoneEvent {
            code,
            end: n > 600,
            volume: 10,
            duration: u16::try_from(lasts - segment).unwrap(),
        };
        bench.a_sends(OF_A, u64::from(1_000 + segment), &event.to_bytes());
    }
    bench.until(14_000);
    assert_eq!(bench.pressed, "0");
    bench.assert_one_stream();
    assert!(
        (600..=603).contains(&bench.at_b.len()),
        "{}",
        bench.at_b.len()
    );
}

#[test]
fn a_press_by_info_is_told_as_an_event_to_a_party_that_knows_them() {
    let mut bench = Bench::to_events(false);
    for n in 0..5 {
        bench.voice(n * 20);
    }
    bench.told_by_info('7', 95);
    for n in 5..30 {
        bench.voice(n * 20);
    }
    bench.assert_one_stream();
    bench.assert_told('7', 160);
    assert_eq!(bench.pressed, "", "who ordered it knows of it");
    let last = bench.at_b.last().unwrap();
    assert_eq!(RtpPacket::parse(&last.1).unwrap().payload_type, 0);
    // Voice goes on in the time that it took.
    let first = RtpPacket::parse(&bench.at_b[0].1).unwrap();
    let last_packet = RtpPacket::parse(&last.1).unwrap();
    let ticks = u64::from(last_packet.timestamp.wrapping_sub(first.timestamp));
    assert!(ticks.abs_diff(last.0 * 8) <= 160, "{ticks} at {}", last.0);
}

#[test]
fn a_press_by_info_is_a_tone_to_a_party_that_knows_no_event_and_nothing_to_one_of_neither() {
    let mut bench = Bench::new(media(A, &[PCMU]), media(B, &[PCMU]));
    bench.told_by_info('7', 0);
    bench.until(1_000);
    assert_eq!(bench.at_b.len(), 8, "160 ms");
    let opus = PayloadMap {
        codec: Some(VoiceCodec::Opus),
        clock_rate: 48_000,
        ..PCMU
    };
    let mut bench = Bench::new(media(A, &[opus]), media(B, &[opus]));
    bench.told_by_info('7', 0);
    bench.until(1_000);
    assert!(bench.at_b.is_empty());
}

#[test]
fn a_press_that_comes_by_info_and_as_events_reaches_the_other_party_once() {
    for info_at in [0, 60, 300] {
        let mut bench = Bench::as_is();
        bench.voice(0);
        if info_at == 0 {
            bench.told_by_info('4', 10);
        }
        bench.press_with_loss('4', 20, 5, 8, &[]);
        if info_at > 0 {
            bench.told_by_info('4', 180 + info_at);
        }
        bench.until(2_000);
        bench.voice(2_000);
        bench.assert_one_stream();
        let lasts = if info_at == 0 { 160 } else { 100 };
        let told = bench.told();
        let starts: Vec<u32> = told.iter().map(|it| it.timestamp).collect();
        assert!(
            starts.iter().all(|it| *it == starts[0]),
            "{info_at} {told:?}"
        );
        let duration = told.last().unwrap().event.duration;
        assert_eq!(u64::from(duration), lasts * 8, "{info_at}");
        assert_eq!(bench.pressed, "4", "the switch pairs it with the INFO");
    }
}

/// The keys of the events that reached B, each press once.
fn keys_told(bench: &Bench) -> Vec<u8> {
    let told = bench.told();
    let presses = told.chunk_by(|one, other| one.timestamp == other.timestamp);
    presses.map(|press| press[0].event.code).collect()
}

#[test]
fn a_press_that_signalling_passes_on_is_not_brought_by_events_as_well() {
    let mut bench = Bench::as_is();
    bench.voice(0);
    bench.passed_by_info('4', 10);
    bench.press('4', 20);
    bench.until(1_000);
    assert_eq!(bench.told(), [], "nothing is played, and nothing passed");
    assert_eq!(bench.pressed, "4", "the switch pairs it with the INFO");
    assert_eq!(bench.not_in_rtp, "4");
    bench.press('4', 3_000);
    assert!(!bench.told().is_empty(), "another one passes");
}

#[test]
fn no_segment_of_a_long_press_that_signalling_passes_on_is_brought_by_events() {
    let mut bench = Bench::as_is();
    bench.voice(0);
    bench.passed_by_info('4', 10);
    // RFC 4733 §2.5.1.3: a duration holds 65,535 ticks, 8.19 s; the press goes on from there.
    let event = |duration, end| TelephoneEvent {
        code: 4,
        end,
        volume: 10,
        duration,
    };
    for (at, timestamp, duration, end) in [
        (20, 160, 160, false),
        (8_200, 160, 65_535, false),
        (8_220, 65_695, 160, false),
        (8_240, 65_695, 320, true),
    ] {
        bench.until(at);
        bench.a_sends(OF_A, timestamp, &event(duration, end).to_bytes());
    }
    assert_eq!((bench.pressed.as_str(), bench.told()), ("4", Vec::new()));
}

#[test]
fn a_late_end_of_a_press_that_signalling_passes_on_is_not_brought_behind_the_next() {
    let mut bench = Bench::as_is();
    bench.voice(0);
    bench.passed_by_info('4', 10);
    bench.passed_by_info('5', 15);
    bench.press_with_loss('4', 20, 5, 8, &[7]);
    bench.press_with_loss('5', 300, 1, 8, &[]);
    let end = TelephoneEvent {
        code: 4,
        end: true,
        volume: 10,
        duration: 800,
    };
    bench.a_sends(OF_A, 160, &end.to_bytes());
    assert_eq!((bench.pressed.as_str(), bench.told()), ("45", Vec::new()));
}

#[test]
fn a_press_that_events_brought_is_not_passed_on_by_signalling_as_well() {
    let mut bench = Bench::as_is();
    bench.voice(0);
    bench.press('4', 20);
    bench.passed_by_info('4', 200);
    assert_eq!(
        (bench.not_in_rtp.as_str(), keys_told(&bench)),
        ("", vec![4])
    );
    bench.passed_by_info('4', 400);
    assert_eq!(bench.not_in_rtp, "4", "another press");
    bench.passed_by_info('5', 500);
    assert_eq!(bench.not_in_rtp, "45", "another key");
    bench.press('6', 600);
    bench.passed_by_info('6', 2_601);
    assert_eq!(bench.not_in_rtp, "456", "too late to be the same");
}

#[test]
fn several_presses_that_come_both_ways_are_paired_one_to_one_in_either_order() {
    for info_first in [false, true] {
        let mut bench = Bench::as_is();
        let keys = "1211";
        let by_info = |bench: &mut Bench, from: u64| {
            for (n, key) in (0..).zip(keys.chars()) {
                bench.passed_by_info(key, from + n * 10);
            }
        };
        if info_first {
            by_info(&mut bench, 10);
        }
        for (n, key) in (0..).zip(keys.chars()) {
            bench.press(key, 100 + n * 200);
        }
        if !info_first {
            by_info(&mut bench, 1_000);
        }
        bench.until(1_500);
        assert_eq!(bench.pressed, keys);
        let (by_info, by_events) = (bench.not_in_rtp.as_str(), keys_told(&bench));
        if info_first {
            assert_eq!((by_info, by_events), (keys, Vec::new()));
        } else {
            assert_eq!((by_info, by_events), ("", vec![1, 2, 1, 1]));
        }
    }
}

#[test]
fn signalling_passes_on_each_press_to_a_party_that_hears_no_audio() {
    let mut bench = Bench::as_is();
    let held = RemoteMedia {
        receives: false,
        ..media(B, &[PCMU, events(OF_B, OF_A, 8_000, Carriage::AsIs)])
    };
    bench.relay.program_callee(Tick::ZERO, CalleeMedia(held));
    bench.press('4', 20);
    bench.passed_by_info('4', 200);
    assert_eq!((bench.not_in_rtp.as_str(), bench.told()), ("4", Vec::new()));
}

#[test]
fn an_event_beside_a_press_of_ours_is_not_lost() {
    let mut bench = Bench::as_is();
    bench.told_by_info('1', 0);
    bench.press('2', 40);
    bench.until(2_000);
    let mut keys: Vec<u8> = bench.told().iter().map(|it| it.event.code).collect();
    keys.dedup();
    assert_eq!(keys, [1, 2]);
    bench.assert_one_stream();
}

/// A's voice: silence, and tones of some keys of 80 ms each, 80 ms apart.
fn tones_of(bench: &mut Bench, keys: &str) {
    let mut payload = Vec::new();
    let mut at = 0;
    for key in keys.chars() {
        let mut tones = KeyTones::new(key, 10).unwrap();
        for _ in 0..4 {
            bench.until(at);
            tones.frame(Voice::Pcmu, &mut payload);
            bench.a_sends(0, at * 8, &payload);
            at += 20;
        }
        for _ in 0..4 {
            bench.voice(at);
            at += 20;
        }
    }
    for _ in 0..10 {
        bench.voice(at);
        at += 20;
    }
}

#[test]
fn tones_in_the_audio_are_told_and_passed_on_as_events_where_that_is_asked_for() {
    let mut bench = Bench::to_events(true);
    tones_of(&mut bench, "159#");
    assert_eq!(bench.pressed, "159#");
    bench.assert_one_stream();
    let told = bench.told();
    let begun: Vec<u8> = told
        .iter()
        .filter(|it| it.marker)
        .map(|it| it.event.code)
        .collect();
    assert_eq!(begun, [1, 5, 9, 11]);
    for press in told.chunk_by(|one, other| one.timestamp == other.timestamp) {
        assert_eq!(
            press.iter().filter(|it| it.event.end).count(),
            3,
            "{press:?}"
        );
        let lasts = press.last().unwrap().event.duration / 8;
        assert!((60..=100).contains(&lasts), "{press:?}");
    }

    let mut deaf = Bench::to_events(false);
    tones_of(&mut deaf, "159#");
    assert_eq!((deaf.pressed.as_str(), deaf.told().len()), ("", 0));
}

/// Two tones of one key, of 80 ms each. What the sender does of the 200 ms between them is the test's, who
/// also says how far its clock goes on in them.
fn two_tones(bench: &mut Bench, between: impl Fn(&mut Bench), ticks: u64) {
    let mut payload = Vec::new();
    let mut tones = KeyTones::new('7', 10).unwrap();
    for (at, from) in [(0, 0), (280, 640 + ticks)] {
        if at > 0 {
            between(bench);
        }
        for n in 0..4 {
            bench.until(at + n * 20);
            tones.frame(Voice::Pcmu, &mut payload);
            bench.a_sends(0, (from + n * 160) & 0xffff_ffff, &payload);
        }
    }
    bench.voice(1_000);
    bench.voice(1_020);
    bench.until(2_000);
}

#[test]
fn two_tones_with_nothing_sent_between_them_are_two_presses() {
    for ticks in [1_600, 400_000, 0x7000_0000] {
        let mut bench = Bench::to_events(true);
        two_tones(&mut bench, |_| {}, ticks);
        assert_eq!(bench.pressed, "77", "{ticks}");
        let begun = bench.told().iter().filter(|it| it.marker).count();
        assert_eq!(begun, 2, "{:?}", bench.told());
        bench.assert_one_stream();
    }
}

#[test]
fn comfort_noise_between_two_tones_is_a_pause_unless_packets_are_missing() {
    let noise = PayloadMap {
        here: 13,
        there: 13,
        codec: None,
        ..PCMU
    };
    for (lost, pressed) in [(0, "77"), (1, "7")] {
        let a = RemoteMedia {
            listens: true,
            ..media(A, &[PCMU, noise])
        };
        let b = [PCMU, noise, events(OF_B, 0, 8_000, Carriage::Anew)];
        let mut bench = Bench::new(a, media(B, &b));
        let quiet = |bench: &mut Bench, lost| {
            bench.until(80);
            bench.sequence += lost;
            bench.a_sends(13, 640, &[60]);
            bench.a_sends(13, 640 + 800, &[60]);
        };
        two_tones(&mut bench, |bench| quiet(bench, lost), 1_600);
        assert_eq!(bench.pressed, pressed, "{lost} lost");
    }
}

#[test]
fn lost_packets_and_a_clock_that_goes_back_split_no_tone() {
    let lost = |bench: &mut Bench| bench.sequence += 1;
    let mut bench = Bench::to_events(true);
    two_tones(&mut bench, lost, 160);
    assert_eq!(bench.pressed, "7", "a packet lost");
    let mut bench = Bench::to_events(true);
    two_tones(&mut bench, |bench| bench.sequence += 9, 9 * 160);
    assert_eq!(bench.pressed, "7", "nine packets lost");
    let mut bench = Bench::to_events(true);
    two_tones(&mut bench, |_| {}, 0xffff_fe00);
    assert_eq!(bench.pressed, "7", "a clock that goes back");
}

#[test]
fn tones_are_not_listened_for_where_events_are_known_and_pass_to_a_party_without_events() {
    let mut bench = Bench::as_is();
    let a = RemoteMedia {
        listens: true,
        ..media(A, &[PCMU, events(OF_A, OF_B, 8_000, Carriage::AsIs)])
    };
    bench.relay.program_caller(Tick::ZERO, CallerMedia(a));
    tones_of(&mut bench, "5");
    assert_eq!(bench.pressed, "");

    let a = RemoteMedia {
        listens: true,
        ..media(A, &[PCMU])
    };
    let mut bench = Bench::new(a, media(B, &[PCMU]));
    tones_of(&mut bench, "5");
    assert_eq!(bench.pressed, "5");
    assert_eq!(
        bench.at_b.len(),
        usize::from(bench.sequence),
        "all is passed on"
    );
}
