//! The engine on loopback: real sockets, two parties, a stranger, and a shard that may not listen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use maskline_media::codec::g711::{decode_ulaw, encode_ulaw};
use maskline_media::dtmf::{TelephoneEvent, code};
use maskline_media::rtcp::{Report, RtcpCompound, RtcpPacket};
use maskline_media::rtp::RtpPacket;
use maskline_media::tone::{Tone, tone_share};
use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, DropReason, EngineConfig, EngineError, MediaAddresses,
    MediaCommand, MediaEngine, MediaEvent, MediaKey, OpenFailure, PayloadMap, RemoteMedia, Side,
    VoiceCodec,
};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    engine: MediaEngine,
    events: mpsc::Receiver<MediaEvent>,
}

fn config(ports: RangeInclusive<u16>) -> EngineConfig {
    EngineConfig {
        workers: NonZeroUsize::new(2).unwrap(),
        quarantine: Duration::from_millis(1),
        ..EngineConfig::new(LOOPBACK, ports, Instant::now())
    }
}

const fn key(id: u64) -> MediaKey {
    MediaKey { shard: 0, id }
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

impl Bench {
    fn start(config: EngineConfig) -> Self {
        Self::with_channel(config, 256)
    }

    fn with_channel(config: EngineConfig, size: usize) -> Self {
        let (sender, events) = mpsc::channel(size);
        let engine = MediaEngine::start(config, vec![sender]).unwrap();
        Self { engine, events }
    }

    async fn event(&mut self) -> MediaEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("an engine")
    }

    /// An order, whose answer may come back at once.
    fn order(&self, command: MediaCommand) {
        assert_eq!(self.engine.command(command), None);
    }

    async fn open(&mut self, id: u64) -> (u16, u16) {
        self.order(MediaCommand::Open {
            key: key(id),
            seed: 77 + id,
        });
        match self.event().await {
            MediaEvent::Opened {
                caller_port,
                callee_port,
                ..
            } => (caller_port, callee_port),
            other => panic!("{other:?}"),
        }
    }

    /// A session between two phones, its packets flowing.
    async fn bridge(&mut self, id: u64) -> (Phone, Phone) {
        self.bridge_on(id, LOOPBACK, LOOPBACK).await
    }

    async fn bridge_on(&mut self, id: u64, caller: IpAddr, callee: IpAddr) -> (Phone, Phone) {
        let (caller_port, callee_port) = self.open(id).await;
        let caller = Phone::at(caller, caller_port).await;
        let callee = Phone::at(callee, callee_port).await;
        self.program(id, &caller, &callee);
        // Programmed once packets pass.
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 2_048];
        loop {
            caller.send(&rtp(0, 0, 0, &[0xff; 160])).await;
            let heard = timeout(Duration::from_millis(50), callee.rtp.recv(&mut buffer)).await;
            if heard.is_ok() {
                return (caller, callee);
            }
            assert!(Instant::now() < deadline, "no packet passes");
        }
    }

    fn program(&self, id: u64, caller: &Phone, callee: &Phone) {
        self.order(MediaCommand::ProgramCaller {
            key: key(id),
            media: CallerMedia(caller.media([codec(0, 8, false), codec(101, 96, true)])),
        });
        self.order(MediaCommand::ProgramCallee {
            key: key(id),
            media: CalleeMedia(callee.media([codec(8, 0, false), codec(96, 101, true)])),
        });
    }

    async fn close(&mut self, id: u64) -> MediaEvent {
        self.order(MediaCommand::Close { key: key(id) });
        loop {
            let event = self.event().await;
            if matches!(event, MediaEvent::Closed { .. }) {
                return event;
            }
        }
    }

    /// Waits until something counted holds.
    async fn until(&self, holds: impl Fn(&MediaEngine) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.engine) {
            assert!(Instant::now() < deadline, "{:?}", self.engine.counters());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

struct Phone {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    switch: SocketAddr,
}

impl Phone {
    async fn at(address: IpAddr, switch_port: u16) -> Self {
        let bind = async || UdpSocket::bind(SocketAddr::new(address, 0)).await.unwrap();
        Self {
            rtp: bind().await,
            rtcp: bind().await,
            switch: SocketAddr::new(address, switch_port),
        }
    }

    fn media(&self, payloads: [PayloadMap; 2]) -> RemoteMedia {
        let rtp = self.rtp.local_addr().unwrap();
        RemoteMedia {
            rtp,
            rtcp: Some(self.rtcp.local_addr().unwrap()),
            rtcp_mux: false,
            srtp: None,
            sources: vec![rtp.ip()],
            payloads: payloads.to_vec(),
            sends: true,
            receives: true,
            listens: false,
            holds: false,
        }
    }

    async fn send(&self, datagram: &[u8]) {
        self.rtp.send_to(datagram, self.switch).await.unwrap();
    }

    async fn hear(&self) -> Heard {
        let mut buffer = [0; 2_048];
        let (length, from) = timeout(PATIENCE, self.rtp.recv_from(&mut buffer))
            .await
            .expect("a packet in time")
            .unwrap();
        assert_eq!(from, self.switch);
        let packet = RtpPacket::parse(&buffer[..length]).unwrap();
        Heard {
            payload_type: packet.payload_type,
            ssrc: packet.ssrc,
            payload: packet.payload.to_vec(),
        }
    }

    async fn hear_rtcp(&self) -> Vec<u8> {
        let mut buffer = vec![0; 2_048];
        let (length, from) = timeout(PATIENCE, self.rtcp.recv_from(&mut buffer))
            .await
            .expect("a report in time")
            .unwrap();
        assert_eq!(from.port(), self.switch.port() + 1);
        buffer.truncate(length);
        buffer
    }

    /// Nothing but what opened the call, until these words, and nothing after them.
    async fn hears_only(&self, opening: &[u8], words: &[u8]) {
        loop {
            let heard = self.hear().await.payload;
            if heard == words {
                break;
            }
            assert_eq!(heard, opening);
        }
        assert!(self.has_heard_nothing_more());
    }

    fn has_heard_nothing_more(&self) -> bool {
        self.rtp.try_recv(&mut [0; 2_048]).is_err()
    }
}

struct Heard {
    payload_type: u8,
    ssrc: u32,
    payload: Vec<u8>,
}

fn rtp(payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    RtpPacket {
        marker: false,
        payload_type,
        sequence,
        timestamp,
        ssrc: 0x0a0a_0a0a,
        payload,
    }
    .write(&mut out);
    out
}

#[tokio::test]
async fn a_tone_each_way_is_heard_at_the_other_end_in_the_other_ends_codec_numbers() {
    let mut bench = Bench::start(config(30_000..=30_019));
    let (caller, callee) = bench.bridge(1).await;
    assert_eq!(bench.engine.ports_in_use(), 4);
    let mut tones = (
        Tone::new(440.0, 8_000, 9_000),
        Tone::new(700.0, 8_000, 9_000),
    );
    let (mut at_callee, mut at_caller) = (Vec::new(), Vec::new());
    for n in 1..=50u16 {
        let frame = |tone: &mut Tone| -> Vec<u8> { tone.take(160).map(encode_ulaw).collect() };
        let timestamp = u32::from(n) * 160;
        caller
            .send(&rtp(0, n, timestamp, &frame(&mut tones.0)))
            .await;
        callee
            .send(&rtp(8, n, timestamp, &frame(&mut tones.1)))
            .await;
        let heard = callee.hear().await;
        assert_eq!(heard.payload_type, 8);
        assert_ne!(heard.ssrc, 0x0a0a_0a0a);
        at_callee.extend(heard.payload.into_iter().map(decode_ulaw));
        let heard = caller.hear().await;
        assert_eq!(heard.payload_type, 0);
        at_caller.extend(heard.payload.into_iter().map(decode_ulaw));
    }
    assert!(tone_share(&at_callee, 440.0, 8_000) > 0.9);
    assert!(tone_share(&at_caller, 700.0, 8_000) > 0.9);
    let MediaEvent::Closed { caller, callee, .. } = bench.close(1).await else {
        panic!("closed");
    };
    assert!(caller.unwrap().mos > 4.0);
    assert_eq!(callee.unwrap().packets, 50);
    assert_eq!(bench.engine.ports_in_use(), 0);
    assert_eq!(bench.engine.counters().sessions, 0);
}

#[tokio::test]
async fn audio_passes_over_ipv6_where_the_machine_has_it() {
    if std::net::UdpSocket::bind((LOOPBACK6, 0)).is_err() {
        return;
    }
    let mut bench = Bench::start(EngineConfig {
        addresses: LOOPBACK6.into(),
        ..config(30_020..=30_039)
    });
    let (caller, callee) = bench.bridge_on(1, LOOPBACK6, LOOPBACK6).await;
    callee.send(&rtp(8, 1, 160, b"hello")).await;
    assert_eq!(caller.hear().await.payload, b"hello");
}

#[tokio::test]
async fn parties_of_either_family_hear_each_other_and_no_stranger_of_the_other_is_heard() {
    if std::net::UdpSocket::bind((LOOPBACK6, 0)).is_err() {
        return;
    }
    let mut bench = Bench::start(EngineConfig {
        addresses: MediaAddresses::both(LOOPBACK, LOOPBACK6).unwrap(),
        ..config(30_900..=30_919)
    });
    for (id, from, to) in [(1, LOOPBACK, LOOPBACK6), (2, LOOPBACK6, LOOPBACK)] {
        let (caller, callee) = bench.bridge_on(id, from, to).await;
        // Each port takes packets in the other family as well, and nobody is heard there.
        let stranger = Phone::at(to, caller.switch.port()).await;
        stranger.send(&rtp(0, 1, 0, b"strange")).await;
        caller.send(&rtp(0, 2, 320, b"hello")).await;
        callee.hears_only(&[0xff; 160], b"hello").await;
        callee.send(&rtp(8, 1, 160, b"hello")).await;
        assert_eq!(caller.hear().await.payload, b"hello");
        // And after they change places: the ports are the same, the sockets others.
        let (caller, callee) = (
            Phone::at(to, caller.switch.port()).await,
            Phone::at(from, callee.switch.port()).await,
        );
        bench.program(id, &caller, &callee);
        let patience = Instant::now() + PATIENCE;
        loop {
            callee.send(&rtp(8, 1, 160, b"moved")).await;
            let mut heard = [0; 2_048];
            if timeout(Duration::from_millis(50), caller.rtp.recv(&mut heard))
                .await
                .is_ok()
            {
                break;
            }
            assert!(
                Instant::now() < patience,
                "nothing is heard at another address"
            );
        }
        bench.close(id).await;
    }
    assert_eq!(bench.engine.ports_in_use(), 0);
}

#[tokio::test]
async fn a_press_is_reported_once_through_loss_and_repetition() {
    let mut bench = Bench::start(config(30_040..=30_059));
    let (caller, callee) = bench.bridge(1).await;
    let mut sequence = 1;
    for (n, digit) in (1u32..).zip("5#0".chars()) {
        for (end, duration, copies) in [(false, 160, 0), (false, 320, 2), (true, 480, 3)] {
            let event = TelephoneEvent {
                code: code(digit).unwrap(),
                end,
                volume: 10,
                duration,
            };
            for _ in 0..copies {
                let payload = event.to_bytes();
                caller.send(&rtp(101, sequence, n * 8_000, &payload)).await;
                let heard = callee.hear().await;
                assert_eq!((heard.payload_type, &heard.payload[..]), (96, &payload[..]));
                sequence += 1;
            }
        }
    }
    callee.send(&rtp(96, 1, 160, &[1, 10, 0, 160])).await;
    caller.hear().await;
    for (side, digit) in [
        (Side::Caller, '5'),
        (Side::Caller, '#'),
        (Side::Caller, '0'),
        (Side::Callee, '1'),
    ] {
        let expected = MediaEvent::Dtmf {
            key: key(1),
            side,
            digit,
        };
        assert_eq!(bench.event().await, expected);
    }
    bench.order(MediaCommand::Close { key: key(1) });
    assert!(matches!(bench.event().await, MediaEvent::Closed { .. }));
}

#[tokio::test]
async fn a_stranger_is_never_heard_by_a_party_behind_a_nat() {
    let mut bench = Bench::start(config(30_060..=30_079));
    let (caller_port, callee_port) = bench.open(1).await;
    let caller = Phone::at(LOOPBACK, caller_port).await;
    let callee = Phone::at(LOOPBACK, callee_port).await;
    // They describe ports that nobody sends from.
    let (at_a, at_b) = (
        Phone::at(LOOPBACK, caller_port).await,
        Phone::at(LOOPBACK, callee_port).await,
    );
    bench.program(1, &at_a, &at_b);
    let deadline = Instant::now() + PATIENCE;
    for (from, to, payload_type) in [(&callee, &caller, 8), (&caller, &callee, 0)] {
        // What latches one side leaves for where the other says that it is, until that is latched too.
        while to.has_heard_nothing_more() {
            to.send(&rtp(8 - payload_type, 0, 0, b"opening")).await;
            from.send(&rtp(payload_type, 0, 0, b"opening")).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(Instant::now() < deadline, "no packet passes");
        }
    }
    let drops = bench.engine.counters().relay.drops;
    strangers_send(&caller, &callee, b"stranger").await;
    bench
        .until(|engine| {
            let now = engine.counters().relay.drops;
            now.of(DropReason::NotLatched) == drops.of(DropReason::NotLatched) + 200
                && now.of(DropReason::Stranger) == 200
        })
        .await;
    caller.send(&rtp(0, 9, 1_440, b"to B")).await;
    callee.send(&rtp(8, 9, 1_440, b"to A")).await;
    callee.hears_only(b"opening", b"to B").await;
    caller.hears_only(b"opening", b"to A").await;
}

#[tokio::test]
async fn a_stranger_is_never_heard_by_a_party_that_is_where_it_said() {
    let mut bench = Bench::start(config(30_500..=30_519));
    let (caller, callee) = bench.bridge(1).await;
    callee.send(&rtp(8, 0, 0, &[0xff; 160])).await;
    caller.hear().await;
    strangers_send(&caller, &callee, b"stranger").await;
    caller.send(&rtp(0, 9, 1_440, b"to B")).await;
    callee.send(&rtp(8, 9, 1_440, b"to A")).await;
    callee.hears_only(&[0xff; 160], b"to B").await;
    caller.hears_only(&[0xff; 160], b"to A").await;
    // The system drops them before they are ours to count.
    let MediaEvent::Closed { callee, .. } = bench.close(1).await else {
        panic!("closed");
    };
    assert_eq!(callee.unwrap().packets, 2);
    let counted = bench.engine.counters().relay;
    assert_eq!(
        counted.rtp_forwarded,
        counted.rtp_received - counted.drops.total()
    );
}

#[tokio::test]
async fn a_party_that_describes_another_address_is_heard_there_and_sent_to_there() {
    let mut bench = Bench::start(config(30_520..=30_539));
    let (caller, callee) = bench.bridge(1).await;
    callee.send(&rtp(8, 0, 0, &[0xff; 160])).await;
    caller.hear().await;
    let moved = Phone::at(LOOPBACK, caller.switch.port()).await;
    bench.program(1, &moved, &callee);
    let deadline = Instant::now() + PATIENCE;
    while moved.has_heard_nothing_more() {
        callee.send(&rtp(8, 1, 160, b"where are you")).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(Instant::now() < deadline, "nothing at the new address");
    }
    moved.send(&rtp(0, 9, 1_440, b"here")).await;
    callee.hears_only(&[0xff; 160], b"here").await;
}

#[tokio::test]
async fn a_party_that_is_gone_for_a_while_is_sent_to_again() {
    let mut bench = Bench::start(config(30_540..=30_559));
    let (caller, mut callee) = bench.bridge(1).await;
    callee.send(&rtp(8, 0, 0, &[0xff; 160])).await;
    caller.hear().await;
    let address = callee.rtp.local_addr().unwrap();
    drop(std::mem::replace(
        &mut callee.rtp,
        UdpSocket::bind((LOOPBACK, 0)).await.unwrap(),
    ));
    for n in 0..20u16 {
        caller.send(&rtp(0, n, 0, b"refused by its system")).await;
    }
    bench
        .until(|engine| engine.counters().relay.rtp_forwarded >= 22)
        .await;
    callee.rtp = UdpSocket::bind(address).await.unwrap();
    caller.send(&rtp(0, 20, 160, b"back")).await;
    assert_eq!(callee.hear().await.payload, b"back");
    callee.send(&rtp(8, 1, 160, b"yes")).await;
    assert_eq!(caller.hear().await.payload, b"yes");
}

/// One has the parties' address and another port, the other not even that: 400 packets.
async fn strangers_send(caller: &Phone, callee: &Phone, words: &[u8]) {
    let neighbour = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    for n in 0..100u16 {
        for socket in [&neighbour, &elsewhere] {
            let audio = rtp(0, n, u32::from(n) * 160, words);
            // Whose system refuses it hears so at its next one.
            let _ = socket.send_to(&audio, caller.switch).await;
            let audio = rtp(8, n, u32::from(n) * 160, words);
            let _ = socket.send_to(&audio, callee.switch).await;
        }
    }
}

#[tokio::test]
async fn each_party_gets_our_name_and_never_the_others() {
    let mut bench = Bench::start(config(30_080..=30_099));
    let (caller, callee) = bench.bridge(1).await;
    callee.send(&rtp(8, 1, 160, b"hello")).await;
    caller.hear().await;
    let named = Report {
        ssrc: 0x0a0a_0a0a,
        cname: "SENTINEL-A",
        sender: None,
        block: None,
        goodbye: true,
    };
    let rtcp_port = SocketAddr::new(LOOPBACK, caller.switch.port() + 1);
    caller
        .rtcp
        .send_to(&named.to_bytes(), rtcp_port)
        .await
        .unwrap();
    bench
        .until(|engine| engine.counters().relay.rtcp_received == 1)
        .await;
    bench.order(MediaCommand::Close { key: key(1) });
    let mut names = Vec::new();
    for phone in [&caller, &callee] {
        loop {
            let datagram = phone.hear_rtcp().await;
            assert!(!datagram.windows(8).any(|bytes| bytes == b"SENTINEL"));
            let compound = RtcpCompound::parse(&datagram).unwrap();
            let [
                RtcpPacket::SenderReport { ssrc, .. },
                RtcpPacket::SourceDescription { cname: Some(name) },
                ref rest @ ..,
            ] = compound.packets().collect::<Vec<_>>()[..]
            else {
                panic!("{datagram:?}");
            };
            assert_ne!(ssrc, 0x0a0a_0a0a);
            if *rest == [RtcpPacket::Goodbye { ssrc: Some(ssrc) }] {
                names.push(name.to_vec());
                break;
            }
        }
    }
    assert_ne!(names[0], names[1]);
}

#[tokio::test]
async fn one_packet_in_ten_lost_shows_in_the_figures() {
    let mut bench = Bench::start(config(30_100..=30_119));
    let (caller, callee) = bench.bridge(1).await;
    for n in (1..=600u16).filter(|n| n % 10 != 3) {
        caller
            .send(&rtp(0, n, u32::from(n) * 160, &[0xff; 160]))
            .await;
        callee.hear().await;
    }
    let MediaEvent::Closed { caller, callee, .. } = bench.close(1).await else {
        panic!("closed");
    };
    let quality = caller.unwrap();
    assert!((0.08..=0.12).contains(&quality.loss), "{quality:?}");
    assert!((1.0..=2.0).contains(&quality.mos), "{quality:?}");
    assert!(callee.is_none());
}

#[tokio::test]
async fn two_hundred_calls_in_turn_leave_no_port_behind() {
    // Twenty pairs can be used up within a millisecond's rest.
    let mut bench = Bench::start(EngineConfig {
        quarantine: Duration::ZERO,
        ..config(30_120..=30_159)
    });
    let mut used = Vec::new();
    for id in 0..200 {
        let (caller_port, callee_port) = bench.open(id).await;
        assert!(caller_port.is_multiple_of(2) && callee_port.is_multiple_of(2));
        assert_ne!(caller_port, callee_port);
        used.extend([caller_port, callee_port]);
        let closed = bench.close(id).await;
        assert_eq!(closed.key(), key(id));
    }
    assert!(used.windows(2).all(|pair| pair[0] != pair[1]), "in turn");
    assert_eq!(bench.engine.ports_in_use(), 0);
    assert_eq!(bench.engine.counters().sessions, 0);
    for port in 30_120..=30_159 {
        std::net::UdpSocket::bind((LOOPBACK, port)).unwrap();
    }
}

#[tokio::test]
async fn ports_of_another_process_are_passed_over_and_the_last_call_is_refused() {
    let _taken = std::net::UdpSocket::bind((LOOPBACK, 30_163)).unwrap();
    let mut bench = Bench::start(config(30_160..=30_165));
    assert_eq!(bench.open(1).await, (30_160, 30_164));
    assert_eq!(bench.engine.counters().ports_passed_over, 1);
    bench.order(MediaCommand::Open {
        key: key(2),
        seed: 1,
    });
    let refused = MediaEvent::Refused {
        key: key(2),
        reason: OpenFailure::PortsExhausted,
    };
    assert_eq!(bench.event().await, refused);
    assert_eq!(bench.engine.ports_in_use(), 4);
    bench.close(1).await;
    assert_eq!(bench.engine.ports_in_use(), 0);
}

#[tokio::test]
async fn a_call_of_an_earlier_run_gets_its_ports_again_or_none() {
    let again = |id, caller_port, callee_port| MediaCommand::Resume {
        key: key(id),
        seed: 1,
        caller_port,
        callee_port,
        address: None,
    };
    let refused = |id| MediaEvent::Refused {
        key: key(id),
        reason: OpenFailure::PortsLost,
    };
    let mut bench = Bench::start(config(30_560..=30_571));
    bench.order(again(1, 30_566, 30_562));
    let opened = MediaEvent::Opened {
        key: key(1),
        caller_port: 30_566,
        callee_port: 30_562,
        address: None,
    };
    assert_eq!(bench.event().await, opened);
    for (caller_port, callee_port) in [(30_560, 30_566), (30_562, 30_564), (30_560, 40_000)] {
        let answer = bench.engine.command(again(2, caller_port, callee_port));
        assert_eq!(answer, Some(refused(2)), "{caller_port}, {callee_port}");
    }
    assert_eq!(bench.engine.ports_in_use(), 4, "what was refused is free");

    let taken = std::net::UdpSocket::bind((LOOPBACK, 30_565)).unwrap();
    bench.order(again(3, 30_560, 30_564));
    assert_eq!(bench.event().await, refused(3));
    assert_eq!(bench.engine.ports_in_use(), 4);
    drop(taken);

    // Rested or not.
    bench.close(1).await;
    bench.order(again(4, 30_566, 30_562));
    assert!(matches!(bench.event().await, MediaEvent::Opened { .. }));
}

#[tokio::test]
async fn a_freed_port_rests_before_it_is_taken_again() {
    let mut bench = Bench::start(EngineConfig {
        quarantine: Duration::from_secs(3_600),
        ..config(30_166..=30_169)
    });
    bench.open(1).await;
    bench.close(1).await;
    assert_eq!(bench.engine.ports_in_use(), 0);
    bench.order(MediaCommand::Open {
        key: key(2),
        seed: 1,
    });
    let event = bench.event().await;
    assert!(matches!(event, MediaEvent::Refused { .. }), "{event:?}");
}

#[tokio::test]
async fn a_shard_that_does_not_listen_loses_no_answer_and_holds_no_port() {
    let mut bench = Bench::with_channel(config(30_170..=30_409), 1);
    for id in 0..50 {
        bench.order(MediaCommand::Open {
            key: key(id),
            seed: id,
        });
    }
    bench.until(|engine| engine.counters().sessions == 50).await;
    for id in 0..50 {
        bench.order(MediaCommand::Close { key: key(id) });
    }
    bench.until(|engine| engine.ports_in_use() == 0).await;
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    while closed.len() < 50 {
        match bench.event().await {
            MediaEvent::Opened { key, .. } => opened.push(key),
            MediaEvent::Closed { key, .. } => {
                assert!(opened.contains(&key), "closed before opened");
                closed.push(key);
            }
            other => panic!("{other:?}"),
        }
    }
    opened.sort();
    closed.sort();
    assert_eq!(opened, (0..50).map(key).collect::<Vec<_>>());
    assert_eq!(closed, opened);
}

#[tokio::test]
async fn the_close_of_an_unknown_session_and_of_a_refused_one_is_answered() {
    let mut bench = Bench::start(config(30_410..=30_413));
    let closed = |id| MediaEvent::Closed {
        key: key(id),
        caller: None,
        callee: None,
    };
    let answer = bench.engine.command(MediaCommand::Close { key: key(9) });
    assert_eq!(answer, Some(closed(9)));
    bench.open(1).await;
    bench.order(MediaCommand::Open {
        key: key(2),
        seed: 1,
    });
    let refused = bench.event().await;
    assert!(matches!(refused, MediaEvent::Refused { .. }));
    // Its place may be free already, or not yet.
    let answer = bench.engine.command(MediaCommand::Close { key: key(2) });
    let answer = match answer {
        Some(answer) => answer,
        None => bench.event().await,
    };
    assert_eq!(answer, closed(2));
}

#[tokio::test]
async fn a_party_that_stops_sending_is_reported_silent() {
    let mut bench = Bench::start(EngineConfig {
        silence: Duration::from_millis(150),
        ..config(30_414..=30_429)
    });
    let (_caller, _callee) = bench.bridge(1).await;
    let mut silent = [bench.event().await, bench.event().await];
    silent.sort_by_key(|event| match event {
        MediaEvent::Silent { side, .. } => *side,
        other => panic!("{other:?}"),
    });
    for (event, side) in silent.iter().zip([Side::Caller, Side::Callee]) {
        assert_eq!(*event, MediaEvent::Silent { key: key(1), side });
    }
}

#[tokio::test]
async fn an_engine_that_ends_says_goodbye_and_frees_its_ports() {
    let mut bench = Bench::start(config(30_430..=30_449));
    let (_caller, callee) = bench.bridge(1).await;
    let Bench { engine, mut events } = bench;
    tokio::task::spawn_blocking(|| drop(engine)).await.unwrap();
    assert!(matches!(
        events.recv().await,
        Some(MediaEvent::Closed { .. })
    ));
    assert!(events.recv().await.is_none());
    loop {
        let datagram = callee.hear_rtcp().await;
        let compound = RtcpCompound::parse(&datagram).unwrap();
        if let Some(RtcpPacket::Goodbye { .. }) = compound.packets().last() {
            break;
        }
    }
    for port in 30_430..=30_449 {
        std::net::UdpSocket::bind((LOOPBACK, port)).unwrap();
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_reason() {
    let start = |config: EngineConfig| MediaEngine::start(config, Vec::new()).unwrap_err();
    let few = start(config(30_450..=30_452));
    assert!(matches!(
        few,
        EngineError::TooFewPorts { first: 30_450, .. }
    ));
    let elsewhere = EngineConfig {
        addresses: IpAddr::from([192, 0, 2, 77]).into(),
        ..config(30_450..=30_499)
    };
    let error = start(elsewhere).to_string();
    assert!(error.contains("192.0.2.77"), "{error}");
}

#[test]
fn orders_may_come_from_any_thread() {
    const fn shared<T: Send + Sync>() {}
    shared::<MediaEngine>();
}
