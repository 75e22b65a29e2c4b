//! Hundreds of calls that end in every way leave nothing behind: no port, socket, thread or memory.
//!
//! A file of its own, so that no other test opens files in the same process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use maskline_media::rtp::RtpPacket;
use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, EngineConfig, MediaCommand, MediaEngine, MediaEvent,
    MediaKey, PayloadMap, RemoteMedia, VoiceCodec,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(60);
/// Calls at once.
const WAVE: u64 = 50;

/// What a process holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    files: usize,
    threads: usize,
}

fn held() -> Held {
    Held {
        files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        threads: std::fs::read_dir("/proc/self/task").unwrap().count(),
    }
}

/// Memory of the process's own, in KiB.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let digits = |line: &str| {
        line.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
    };
    digits(line.unwrap()).parse().unwrap()
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Closed in the same breath as it was opened.
    AtBirth,
    /// Only A was ever told of.
    Ringing,
    /// Packets flow, and the parties send on after the end.
    Talking,
    /// Packets flow, A describes another address, and the end is ordered twice.
    Moved,
}

struct Churn {
    engine: MediaEngine,
    events: mpsc::Receiver<MediaEvent>,
    parties: [UdpSocket; 3],
    /// Ports of the calls that were opened, and how many each was answered with an end.
    opened: BTreeMap<u64, (u16, u16)>,
    closed: BTreeMap<u64, u32>,
}

impl Churn {
    fn start(ports: std::ops::RangeInclusive<u16>) -> Self {
        let (sender, events) = mpsc::channel(16);
        let config = EngineConfig {
            workers: NonZeroUsize::new(2).unwrap(),
            quarantine: Duration::from_millis(50),
            silence: Duration::from_millis(20),
            ..EngineConfig::new(LOOPBACK, ports, Instant::now())
        };
        let socket = || {
            let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self {
            engine: MediaEngine::start(config, vec![sender]).unwrap(),
            events,
            parties: [socket(), socket(), socket()],
            opened: BTreeMap::new(),
            closed: BTreeMap::new(),
        }
    }

    fn order(&mut self, command: MediaCommand) {
        if let Some(event) = self.engine.command(command) {
            self.take(&event);
        }
    }

    fn take(&mut self, event: &MediaEvent) {
        match event {
            MediaEvent::Opened {
                key,
                caller_port,
                callee_port,
                ..
            } => {
                self.opened.insert(key.id, (*caller_port, *callee_port));
            }
            MediaEvent::Closed { key, .. } => *self.closed.entry(key.id).or_default() += 1,
            MediaEvent::Refused { .. } => panic!("{event:?}"),
            MediaEvent::Dtmf { .. }
            | MediaEvent::NotInRtp { .. }
            | MediaEvent::Played { .. }
            | MediaEvent::Silent { .. }
            | MediaEvent::OneWay { .. } => {}
        }
    }

    /// Takes events until this holds.
    fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            match self.events.try_recv() {
                Ok(event) => self.take(&event),
                Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
                Err(TryRecvError::Disconnected) => panic!("the engine ended"),
            }
            assert!(Instant::now() < deadline, "{:?}", self.engine.counters());
        }
    }

    fn media(&self, party: usize) -> RemoteMedia {
        let rtp = self.parties[party].local_addr().unwrap();
        RemoteMedia {
            rtp,
            rtcp: Some(rtp),
            rtcp_mux: false,
            srtp: None,
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

    fn talk(&self, ids: impl Iterator<Item = u64>, sequence: u16) {
        let mut datagram = Vec::new();
        RtpPacket {
            marker: false,
            payload_type: 0,
            sequence,
            timestamp: u32::from(sequence) * 160,
            ssrc: 7,
            payload: &[0xff; 160],
        }
        .write(&mut datagram);
        for id in ids {
            let Some((caller, callee)) = self.opened.get(&id) else {
                continue;
            };
            for (party, port) in [(0, *caller), (1, *callee), (2, *caller)] {
                let to = SocketAddr::new(LOOPBACK, port);
                // Nobody may be there any more.
                let _ = self.parties[party].send_to(&datagram, to);
            }
        }
    }

    /// One wave of calls, each ended in its way.
    fn wave(&mut self, first: u64, deaths: &[Death]) {
        let key = |id| MediaKey { shard: 0, id };
        let ids = || first..first + deaths.len() as u64;
        let of = |death: Death| {
            ids()
                .zip(deaths)
                .filter(move |(_, own)| **own == death)
                .map(|(id, _)| id)
        };
        for (id, death) in ids().zip(deaths) {
            self.order(MediaCommand::Open {
                key: key(id),
                seed: id,
            });
            if *death == Death::AtBirth {
                self.order(MediaCommand::Close { key: key(id) });
            }
        }
        self.until(|churn| ids().all(|id| churn.opened.contains_key(&id)));
        let (caller, callee, moved) = (self.media(0), self.media(1), self.media(2));
        for (id, death) in ids().zip(deaths) {
            self.order(MediaCommand::ProgramCaller {
                key: key(id),
                media: CallerMedia(caller.clone()),
            });
            if *death != Death::Ringing {
                self.order(MediaCommand::ProgramCallee {
                    key: key(id),
                    media: CalleeMedia(callee.clone()),
                });
            }
        }
        let before = self.engine.counters().relay.rtp_forwarded;
        let mut sequence = 0;
        while self.engine.counters().relay.rtp_forwarded < before + deaths.len() as u64 {
            if of(Death::Talking).chain(of(Death::Moved)).next().is_none() {
                break;
            }
            self.talk(ids(), sequence);
            sequence += 1;
            let until = Instant::now() + Duration::from_millis(5);
            self.until(|_| Instant::now() >= until);
            assert!(
                sequence < 2_000,
                "no packets pass: {:?}",
                self.engine.counters()
            );
        }
        for id in of(Death::Moved) {
            self.order(MediaCommand::ProgramCaller {
                key: key(id),
                media: CallerMedia(moved.clone()),
            });
        }
        self.talk(ids(), sequence);
        for id in ids() {
            self.order(MediaCommand::Close { key: key(id) });
        }
        for id in of(Death::Moved) {
            self.order(MediaCommand::Close { key: key(id) });
        }
        self.talk(ids(), sequence + 1);
        self.until(|churn| ids().all(|id| churn.closed.contains_key(&id)));
        self.talk(ids(), sequence + 2);
        for party in &self.parties {
            while party.recv(&mut [0; 2_048]).is_ok() {}
        }
    }

    fn run(&mut self, first: u64, calls: u64) {
        // Any sequence that mixes the four will do, the same each time.
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15 ^ first;
        for start in (first..first + calls).step_by(WAVE as usize) {
            let deaths: Vec<_> = (0..WAVE.min(first + calls - start))
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    match state >> 62 {
                        0 => Death::AtBirth,
                        1 => Death::Ringing,
                        2 => Death::Talking,
                        _ => Death::Moved,
                    }
                })
                .collect();
            self.wave(start, &deaths);
        }
        self.until(|churn| churn.engine.ports_in_use() == 0);
        assert_eq!(self.engine.counters().sessions, 0);
    }
}

fn leaves_nothing(calls: u64, ports: std::ops::RangeInclusive<u16>) {
    let without = held();
    let mut churn = Churn::start(ports);
    churn.run(0, WAVE);
    let (before, kib_before) = (held(), memory_kib());
    churn.run(WAVE, calls);
    assert_eq!(held(), before);
    let kib = memory_kib().saturating_sub(kib_before);
    println!(
        "{calls} calls: {} KiB more, {:?}, {:?}",
        kib,
        held(),
        churn.engine.counters()
    );
    // What allocators and tables keep, whatever the number of calls: far less than a call holds.
    assert!(kib < 2 * calls.max(1_000), "{kib} KiB after {calls} calls");
    drop(churn);
    assert_eq!(held(), without);
}

#[test]
fn calls_that_end_in_every_way_leave_no_port_socket_or_thread() {
    // More of them take longer and are run by hand.
    let calls = std::env::var("MASKLINE_LEAK_CALLS").map_or(300, |calls| calls.parse().unwrap());
    leaves_nothing(calls, 31_300..=31_899);
}
