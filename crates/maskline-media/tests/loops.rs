//! Parties that name our own ports as theirs: nothing goes in circles for longer than a moment.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use maskline_media::rtp::RtpPacket;
use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, DropReason, EngineConfig, EngineCounters, MediaCommand,
    MediaEngine, MediaEvent, MediaKey, PayloadMap, RemoteMedia, VoiceCodec,
};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    engine: MediaEngine,
    events: mpsc::Receiver<MediaEvent>,
}

const fn key(id: u64) -> MediaKey {
    MediaKey { shard: 0, id }
}

/// A party that says it is at a port of ours.
fn party_at(port: u16) -> RemoteMedia {
    RemoteMedia {
        rtp: SocketAddr::new(LOOPBACK, port),
        rtcp: None,
        rtcp_mux: false,
        srtp: None,
        sources: vec![LOOPBACK],
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

fn packet(sequence: u16) -> Vec<u8> {
    let mut datagram = Vec::new();
    RtpPacket {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp: u32::from(sequence).wrapping_mul(160),
        ssrc: 1,
        payload: &[0xff; 160],
    }
    .write(&mut datagram);
    datagram
}

impl Bench {
    fn start(ports: std::ops::RangeInclusive<u16>) -> Self {
        Self::bound_to(LOOPBACK, ports)
    }

    /// Parties are told of loopback.
    fn bound_to(address: IpAddr, ports: std::ops::RangeInclusive<u16>) -> Self {
        let (sender, events) = mpsc::channel(64);
        let config = EngineConfig {
            announced: LOOPBACK.into(),
            ..EngineConfig::new(address, ports, Instant::now())
        };
        let engine = MediaEngine::start(config, vec![sender]).unwrap();
        Self { engine, events }
    }

    /// The ports towards A and towards B.
    async fn open(&mut self, id: u64) -> (u16, u16) {
        let open = MediaCommand::Open {
            key: key(id),
            seed: id,
        };
        assert_eq!(self.engine.command(open), None);
        let event = timeout(PATIENCE, self.events.recv()).await.unwrap();
        match event {
            Some(MediaEvent::Opened {
                caller_port,
                callee_port,
                ..
            }) => (caller_port, callee_port),
            other => panic!("{other:?}"),
        }
    }

    fn program(&self, id: u64, caller: RemoteMedia, callee: RemoteMedia) {
        let key = key(id);
        let commands = [
            MediaCommand::ProgramCaller {
                key,
                media: CallerMedia(caller),
            },
            MediaCommand::ProgramCallee {
                key,
                media: CalleeMedia(callee),
            },
        ];
        for command in commands {
            assert_eq!(self.engine.command(command), None);
        }
    }

    /// Sends packets from elsewhere on an allowed host until that many went further.
    async fn inject(&self, port: u16, forwarded: u64) {
        let socket = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut sequence = 0;
        while self.engine.counters().relay.rtp_forwarded < forwarded {
            assert!(Instant::now() < deadline, "no packet passes");
            socket
                .send_to(&packet(sequence), (LOOPBACK, port))
                .await
                .unwrap();
            sequence += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What is counted once nothing has come for a while.
    async fn at_rest(&self) -> EngineCounters {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.engine.counters();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.engine.counters();
            if now.relay == before.relay {
                return now;
            }
            assert!(Instant::now() < deadline, "{now:?}");
        }
    }
}

#[tokio::test]
async fn two_parties_that_each_name_the_others_port_of_ours_hear_nothing_go_round() {
    hear_nothing_go_round(Bench::start(30_600..=30_609)).await;
}

#[tokio::test]
async fn nothing_goes_round_where_the_ports_are_bound_to_every_address() {
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    hear_nothing_go_round(Bench::bound_to(everywhere, 30_630..=30_639)).await;
}

async fn hear_nothing_go_round(mut bench: Bench) {
    let (caller, callee) = bench.open(1).await;
    bench.program(1, party_at(callee), party_at(caller));
    bench.inject(caller, 1).await;
    let relay = bench.at_rest().await.relay;
    assert!(relay.drops.of(DropReason::Looped) >= 1, "{relay:?}");
    // Each packet from outside went once through, and its own end was refused.
    assert_eq!(
        relay.drops.of(DropReason::Looped),
        relay.rtp_forwarded,
        "{relay:?}"
    );
    assert_eq!(relay.drops.of(DropReason::TooMany), 0, "{relay:?}");
}

#[tokio::test]
async fn a_circle_through_two_calls_ends_by_itself() {
    let mut bench = Bench::start(30_610..=30_619);
    let (caller_of_1, callee_of_1) = bench.open(1).await;
    let (caller_of_2, callee_of_2) = bench.open(2).await;
    bench.program(1, party_at(callee_of_2), party_at(caller_of_2));
    bench.program(2, party_at(callee_of_1), party_at(caller_of_1));
    bench.inject(caller_of_1, 100).await;
    let relay = bench.at_rest().await.relay;
    assert_eq!(relay.drops.of(DropReason::Looped), 0, "{relay:?}");
    assert!(relay.drops.of(DropReason::TooMany) >= 1, "{relay:?}");
}

#[tokio::test]
async fn a_party_that_sends_faster_than_any_codec_is_held_to_a_pace() {
    let began = Instant::now();
    let mut bench = Bench::start(30_620..=30_629);
    let (caller, _) = bench.open(1).await;
    let far = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    let flood = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    let at = |socket: &UdpSocket| party_at(socket.local_addr().unwrap().port());
    bench.program(1, at(&flood), at(&far));
    let mut sequence = 0;
    while bench.engine.counters().relay.drops.of(DropReason::TooMany) < 100 {
        assert!(began.elapsed() < PATIENCE, "{:?}", bench.engine.counters());
        for _ in 0..100 {
            let datagram = packet(sequence);
            sequence = sequence.wrapping_add(1);
            flood.send_to(&datagram, (LOOPBACK, caller)).await.unwrap();
        }
    }
    let relay = bench.at_rest().await.relay;
    let at_most = 1_000 + u64::try_from(began.elapsed().as_millis()).unwrap() + 1;
    assert!(relay.rtp_forwarded <= at_most, "{at_most}: {relay:?}");
}
