//! Against the real daemon: sessions are opened, described, heard, moved and closed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, Engine, MediaCommand, MediaEvent, MediaKey, OpenFailure,
    PayloadMap, RemoteMedia, Side, Voice, VoiceCodec,
};
use maskline_rtpengine::{Rtpengine, RtpengineConfig};
use tokio::sync::mpsc;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon of this test's own.
struct Daemon {
    process: Child,
    ng: SocketAddr,
}

impl Daemon {
    fn start(ports: u16, presses: SocketAddr) -> Self {
        let ng = UdpSocket::bind((LOOPBACK, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        Self::start_at(ng, ports, presses)
    }

    fn start_at(ng: SocketAddr, ports: u16, presses: SocketAddr) -> Self {
        let process = Command::new("rtpengine")
            .args([
                "--config-file=none",
                "--table=-1",
                "--foreground",
                "--log-stderr",
            ])
            .args(["--log-level=1", "--num-threads=1", "--interface=127.0.0.1"])
            .arg(format!("--listen-ng={ng}"))
            .arg(format!("--dtmf-log-dest={presses}"))
            .arg(format!("--port-min={ports}"))
            .arg(format!("--port-max={}", ports + 19))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rtpengine starts; scripts/setup installs it");
        let started = Self { process, ng };
        let asking = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        asking.connect(ng).unwrap();
        asking
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let since = Instant::now();
        loop {
            let _ = asking.send(br#"1 {"command":"ping"}"#);
            if asking.recv(&mut [0; 100]).is_ok() {
                return started;
            }
            assert!(since.elapsed() < PATIENCE, "rtpengine is not ready");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Bench {
    engine: Rtpengine,
    events: mpsc::Receiver<MediaEvent>,
}

/// A second of the loudest wave that is easily told: 16-bit samples of 8,000 and -8,000 in turn, in runs of eight.
fn hold_file() -> String {
    let path = format!(
        "{}/hold-{}.wav",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    let mut wav = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00".to_vec();
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(b"\x02\x00\x10\x00data");
    wav.extend(16_000_u32.to_le_bytes());
    for sample in 0..8_000_i16 {
        let high = (sample / 8) % 2 == 0;
        wav.extend(if high { 8_000_i16 } else { -8_000 }.to_le_bytes());
    }
    std::fs::write(&path, wav).unwrap();
    path
}

const fn key(id: u64) -> MediaKey {
    MediaKey { shard: 0, id }
}

fn free_port() -> SocketAddr {
    UdpSocket::bind((LOOPBACK, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

impl Bench {
    async fn start(daemons: &[&Daemon], presses: SocketAddr, silence: Duration) -> Self {
        let instances = daemons.iter().map(|daemon| daemon.ng).collect();
        Self::at(instances, presses, silence).await
    }

    async fn at(instances: Vec<SocketAddr>, presses: SocketAddr, silence: Duration) -> Self {
        let (sender, events) = mpsc::channel(64);
        let config = RtpengineConfig {
            instances,
            dtmf_listen: Some(presses),
            hold_file: Some(hold_file()),
            silence,
            max_sessions: 4,
        };
        let engine = Rtpengine::start(config, vec![sender]).await.unwrap();
        Self { engine, events }
    }

    async fn event(&mut self) -> MediaEvent {
        let next = tokio::time::timeout(PATIENCE, self.events.recv());
        next.await.expect("an event in time").unwrap()
    }

    fn order(&self, command: MediaCommand) {
        assert_eq!(self.engine.command(command), None);
    }

    /// The ports towards the caller and towards the callee.
    async fn open(&mut self, id: u64) -> (u16, u16) {
        self.order(MediaCommand::Open {
            key: key(id),
            seed: 1,
        });
        match self.event().await {
            MediaEvent::Opened {
                key: opened,
                caller_port,
                callee_port,
                address,
            } => {
                assert_eq!((opened, address), (key(id), Some(LOOPBACK)));
                (caller_port, callee_port)
            }
            other => panic!("{other:?}"),
        }
    }

    fn program(&self, id: u64, caller: RemoteMedia, callee: RemoteMedia) {
        self.order(MediaCommand::ProgramCaller {
            key: key(id),
            media: CallerMedia(caller),
        });
        self.order(MediaCommand::ProgramCallee {
            key: key(id),
            media: CalleeMedia(callee),
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

    async fn until(&self, what: &str, holds: impl Fn(&Rtpengine) -> bool) {
        let started = Instant::now();
        while !holds(&self.engine) {
            assert!(started.elapsed() < PATIENCE, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A party's socket.
struct Phone {
    socket: UdpSocket,
    sequence: u16,
    ssrc: [u8; 4],
}

impl Phone {
    fn new() -> Self {
        let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        // Its own, and told from the daemon's by how it begins.
        let [high, low] = socket.local_addr().unwrap().port().to_be_bytes();
        Self {
            socket,
            sequence: 0,
            ssrc: [b'S', b'R', high, low],
        }
    }

    fn media(&self, payloads: Vec<PayloadMap>) -> RemoteMedia {
        RemoteMedia {
            rtp: self.socket.local_addr().unwrap(),
            rtcp: None,
            rtcp_mux: false,
            srtp: None,
            sources: vec![LOOPBACK],
            payloads,
            sends: true,
            receives: true,
            listens: false,
            holds: false,
        }
    }

    fn say(&mut self, to: u16, payload_type: u8, payload: &[u8]) {
        self.sequence += 1;
        let mut packet = vec![0x80, payload_type];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend(self.ssrc);
        packet.extend(payload);
        self.socket.send_to(&packet, (LOOPBACK, to)).unwrap();
    }

    /// The payload types and first payload bytes of all that has come.
    fn heard(&self) -> Vec<(u8, u8)> {
        let mut room = [0; 2_048];
        let mut heard = Vec::new();
        while let Ok(length) = self.socket.recv(&mut room) {
            assert!(length > 12);
            assert_ne!(&room[8..10], b"SR", "the sender's SSRC is not passed on");
            heard.push((room[1] & 0x7f, room[12]));
        }
        heard
    }

    /// Until this one hears what the other says, which the daemon may only just have been told.
    async fn until_heard(&self, from: &mut Self, to: u16, payload_type: u8) -> (u8, u8) {
        let started = Instant::now();
        loop {
            from.say(to, payload_type, &[0x55; 160]);
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Some(heard) = self.heard().pop() {
                return heard;
            }
            assert!(started.elapsed() < PATIENCE, "never heard");
        }
    }
}

fn voice(here: u8, codec: VoiceCodec, carriage: Carriage) -> PayloadMap {
    PayloadMap {
        here,
        there: here,
        clock_rate: 8_000,
        telephone_event: false,
        codec: Some(codec),
        carriage,
    }
}

fn pcma() -> Vec<PayloadMap> {
    let event = PayloadMap {
        telephone_event: true,
        codec: None,
        ..voice(101, VoiceCodec::Pcma, Carriage::AsIs)
    };
    vec![voice(8, VoiceCodec::Pcma, Carriage::AsIs), event]
}

#[tokio::test]
async fn parties_hear_each_other_strangers_are_not_heard_and_a_party_may_move() {
    let presses = free_port();
    let daemon = Daemon::start(31_000, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(7).await;
    let (mut a, mut b, mut stranger) = (Phone::new(), Phone::new(), Phone::new());

    stranger.say(towards_a, 8, &[1; 160]);
    bench.program(7, a.media(pcma()), b.media(pcma()));
    stranger.say(towards_a, 8, &[1; 160]);
    assert_eq!(b.until_heard(&mut a, towards_a, 8).await, (8, 0x55));
    assert_eq!(a.until_heard(&mut b, towards_b, 8).await, (8, 0x55));
    for _ in 0..5 {
        stranger.say(towards_a, 8, &[1; 160]);
        stranger.say(towards_b, 8, &[1; 160]);
    }
    b.until_heard(&mut a, towards_a, 8).await;
    a.until_heard(&mut b, towards_b, 8).await;
    let all = [a.heard(), b.heard()].concat();
    assert!(all.iter().all(|heard| heard.1 == 0x55), "{all:?}");
    assert!(stranger.heard().is_empty());

    let mut moved = Phone::new();
    bench.order(MediaCommand::ProgramCaller {
        key: key(7),
        media: CallerMedia(moved.media(pcma())),
    });
    moved.until_heard(&mut b, towards_b, 8).await;
    b.until_heard(&mut moved, towards_a, 8).await;

    let closed = bench.close(7).await;
    let MediaEvent::Closed { caller: None, .. } = closed else {
        panic!("nobody reported anything: {closed:?}");
    };
    assert_eq!(bench.engine.counters().sessions, 0);
    // The ports are free soon, not after the daemon's own half minute.
    let started = Instant::now();
    while UdpSocket::bind((LOOPBACK, towards_a)).is_err() {
        assert!(started.elapsed() < PATIENCE, "not freed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_press_is_told_once_and_only_by_the_daemon() {
    let presses = free_port();
    let daemon = Daemon::start(31_020, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, _) = bench.open(8).await;
    let (mut a, b) = (Phone::new(), Phone::new());
    bench.program(8, a.media(pcma()), b.media(pcma()));
    b.until_heard(&mut a, towards_a, 8).await;
    // From another machine, as far as addresses tell.
    let forger = UdpSocket::bind("127.0.0.9:0").unwrap();
    let forged =
        r#"{"callid":"maskline-0000000000000008","source_tag":"caller","type":"DTMF","event":1}"#;
    forger.send_to(forged.as_bytes(), presses).unwrap();
    let nearby = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    for nonsense in [
        &b"{"[..],
        b"[]",
        &[b'['; 2_048],
        br#"{"callid":"maskline-0000000000000008","source_tag":"caller","type":"DTMF","event":99}"#,
    ] {
        nearby.send_to(nonsense, presses).unwrap();
    }
    for (end, duration) in [
        (0, 160_u16),
        (0, 320),
        (0x80, 480),
        (0x80, 480),
        (0x80, 480),
    ] {
        let [high, low] = duration.to_be_bytes();
        // One press has one timestamp.
        a.sequence += 1;
        let mut packet = vec![0x80, 101];
        packet.extend(a.sequence.to_be_bytes());
        packet.extend(90_000_u32.to_be_bytes());
        packet.extend(a.ssrc);
        packet.extend([5, end | 10, high, low]);
        a.socket.send_to(&packet, (LOOPBACK, towards_a)).unwrap();
    }
    let pressed = MediaEvent::Dtmf {
        key: key(8),
        side: Side::Caller,
        digit: '5',
    };
    assert_eq!(bench.event().await, pressed);
    let started = Instant::now();
    while !b.heard().contains(&(101, 5)) {
        assert!(started.elapsed() < PATIENCE, "never passed on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let MediaEvent::Closed { .. } = bench.close(8).await else {
        panic!("closed");
    };
    assert!(bench.events.try_recv().is_err(), "told once");
}

#[tokio::test]
async fn a_key_by_signalling_is_played_once_to_who_knows_events_and_as_a_tone_to_who_does_not() {
    let presses = free_port();
    let daemon = Daemon::start(31_180, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(4).await;
    let (mut a, mut b) = (Phone::new(), Phone::new());
    let silence = [0xd5; 160];
    let mut of_a = pcma();
    of_a.truncate(1);
    let mut of_b = pcma();
    of_b[1].carriage = Carriage::Anew;
    bench.program(4, a.media(of_a), b.media(of_b));
    b.until_heard(&mut a, towards_a, 8).await;
    a.until_heard(&mut b, towards_b, 8).await;
    for (side, digit) in [(Side::Caller, '7'), (Side::Callee, '8')] {
        bench.order(MediaCommand::Press {
            key: key(4),
            side,
            digit,
        });
    }
    let started = Instant::now();
    let (mut events, mut tone) = (0, 0);
    while events == 0 || tone < 5 {
        assert!(
            started.elapsed() < PATIENCE,
            "{events} events, {tone} of a tone"
        );
        a.say(towards_a, 8, &silence);
        b.say(towards_b, 8, &silence);
        tokio::time::sleep(Duration::from_millis(20)).await;
        events += b.heard().iter().filter(|heard| **heard == (101, 7)).count();
        let at_a = a.heard();
        assert!(
            at_a.iter().all(|heard| heard.0 == 8),
            "A knows no events: {at_a:?}"
        );
        tone += at_a
            .iter()
            .filter(|heard| heard.1 != 0xd5 && heard.1 != 0x55)
            .count();
    }
    bench.close(4).await;
}

#[tokio::test]
async fn who_is_on_hold_hears_the_file_until_the_hold_ends() {
    let presses = free_port();
    let daemon = Daemon::start(31_200, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(6).await;
    let (mut a, mut b) = (Phone::new(), Phone::new());
    bench.program(6, a.media(pcma()), b.media(pcma()));
    b.until_heard(&mut a, towards_a, 8).await;
    a.until_heard(&mut b, towards_b, 8).await;
    let (mut of_a, mut of_b) = (a.media(pcma()), b.media(pcma()));
    (of_a.holds, of_a.receives, of_b.sends) = (true, false, false);
    bench.program(6, of_a, of_b);
    let started = Instant::now();
    let mut music = 0;
    // Longer than the file.
    while music < 100 {
        assert!(started.elapsed() < PATIENCE, "{music} packets");
        tokio::time::sleep(Duration::from_millis(20)).await;
        music += b
            .heard()
            .iter()
            .filter(|heard| **heard != (8, 0x55))
            .count();
    }
    bench.program(6, a.media(pcma()), b.media(pcma()));
    let started = Instant::now();
    let mut voice = 0;
    while voice < 10 {
        assert!(started.elapsed() < PATIENCE, "music goes on");
        a.say(towards_a, 8, &[0x55; 160]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        for heard in b.heard() {
            voice = if heard == (8, 0x55) { voice + 1 } else { 0 };
        }
    }
    bench.close(6).await;
}

#[tokio::test]
async fn parties_without_a_common_codec_hear_each_other() {
    let presses = free_port();
    let daemon = Daemon::start(31_040, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(9).await;
    let (mut a, mut b) = (Phone::new(), Phone::new());
    let between = |from, to| Carriage::Transcoded { from, to };
    let of_a = voice(8, VoiceCodec::Pcma, between(Voice::Pcma, Voice::Pcmu));
    let of_b = voice(0, VoiceCodec::Pcmu, between(Voice::Pcmu, Voice::Pcma));
    for _ in 0..2 {
        bench.program(9, a.media(vec![of_a]), b.media(vec![of_b]));
        // The least level of one law is the least of the other.
        let started = Instant::now();
        loop {
            a.say(towards_a, 8, &[0xd5; 160]);
            b.say(towards_b, 0, &[0xfe; 160]);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (at_a, at_b) = (a.heard(), b.heard());
            if at_a.contains(&(8, 0xd5)) && at_b.contains(&(0, 0xfe)) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{at_a:?} {at_b:?}");
        }
    }
    bench.close(9).await;
}

#[tokio::test]
async fn who_should_send_and_does_not_is_told_of_once() {
    let presses = free_port();
    let mut daemon = Daemon::start(31_060, presses);
    let silence = Duration::from_millis(900);
    let mut bench = Bench::start(&[&daemon], presses, silence).await;
    let (towards_a, _) = bench.open(10).await;
    let (mut a, b) = (Phone::new(), Phone::new());
    let silent = |side| MediaEvent::Silent { key: key(10), side };
    let mut of_b = b.media(pcma());
    of_b.sends = false;
    bench.program(10, a.media(pcma()), of_b);
    b.until_heard(&mut a, towards_a, 8).await;
    let started = Instant::now();
    assert_eq!(bench.event().await, silent(Side::Caller));
    assert!(started.elapsed() >= silence / 2);
    for _ in 0..50 {
        // Long enough for a look between.
        b.until_heard(&mut a, towards_a, 8).await;
    }
    // A daemon that is gone hears nobody.
    daemon.kill();
    assert_eq!(bench.event().await, silent(Side::Caller));
    let closed = MediaEvent::Closed {
        key: key(10),
        caller: None,
        callee: None,
    };
    assert_eq!(bench.close(10).await, closed);
}

#[tokio::test]
async fn new_sessions_go_to_the_least_busy_daemon_that_answers() {
    let presses = free_port();
    let (mut first, second) = (
        Daemon::start(31_080, presses),
        Daemon::start(31_100, presses),
    );
    let mut bench = Bench::start(&[&first, &second], presses, PATIENCE).await;
    let is_first = |ports: (u16, u16)| (31_080..31_100).contains(&ports.0);
    let (one, two) = (bench.open(1).await, bench.open(2).await);
    assert_ne!(is_first(one), is_first(two), "shared");
    first.kill();
    assert!(!is_first(bench.open(3).await));
    bench
        .until("it is known to be down", |engine| !engine.instances()[0].up)
        .await;
    assert!(!is_first(bench.open(4).await));
    let full = MediaEvent::Refused {
        key: key(5),
        reason: OpenFailure::Unavailable,
    };
    let open = MediaCommand::Open {
        key: key(5),
        seed: 1,
    };
    assert_eq!(bench.engine.command(open), Some(full), "four at once");
    let again = Daemon::start_at(first.ng, 31_080, presses);
    bench
        .until("it is known to be up", |engine| engine.instances()[0].up)
        .await;
    for id in 1..=4 {
        bench.close(id).await;
    }
    assert_eq!(bench.engine.counters().sessions, 0);
    drop((second, again));
}

#[tokio::test]
async fn without_any_daemon_a_session_is_refused_and_closed_once() {
    let nobody = free_port();
    let mut bench = Bench::at(vec![nobody], free_port(), PATIENCE).await;
    bench.order(MediaCommand::Open {
        key: key(1),
        seed: 1,
    });
    bench.order(MediaCommand::Close { key: key(1) });
    let (refused, closed) = (bench.event().await, bench.event().await);
    assert!(matches!(refused, MediaEvent::Refused { .. }), "{refused:?}");
    assert!(matches!(closed, MediaEvent::Closed { .. }), "{closed:?}");
    assert!(bench.events.try_recv().is_err());
    let unknown = bench.engine.command(MediaCommand::Close { key: key(1) });
    assert!(matches!(unknown, Some(MediaEvent::Closed { .. })));
}

#[tokio::test]
async fn a_session_of_an_earlier_run_is_found_where_it_is_and_flows_on() {
    let presses = free_port();
    let (first, second) = (
        Daemon::start(31_120, presses),
        Daemon::start(31_140, presses),
    );
    let mut bench = Bench::start(&[&first, &second], presses, PATIENCE).await;
    bench.open(1).await;
    let (caller_port, callee_port) = bench.open(2).await;
    let (mut a, b) = (Phone::new(), Phone::new());
    bench.program(2, a.media(pcma()), b.media(pcma()));
    b.until_heard(&mut a, caller_port, 8).await;
    drop(bench);
    // Nobody gives orders, and they hear each other.
    b.until_heard(&mut a, caller_port, 8).await;

    let mut bench = Bench::start(&[&first, &second], free_port(), PATIENCE).await;
    let resume = |id, caller_port| MediaCommand::Resume {
        key: key(id),
        seed: 2,
        caller_port,
        callee_port,
        address: Some(LOOPBACK),
    };
    bench.order(resume(2, caller_port));
    let opened = MediaEvent::Opened {
        key: key(2),
        caller_port,
        callee_port,
        address: Some(LOOPBACK),
    };
    assert_eq!(bench.event().await, opened);
    bench.program(2, a.media(pcma()), b.media(pcma()));
    b.until_heard(&mut a, caller_port, 8).await;
    for (id, port) in [(1, caller_port), (3, caller_port)] {
        bench.order(resume(id, port));
        let lost = MediaEvent::Refused {
            key: key(id),
            reason: OpenFailure::PortsLost,
        };
        assert_eq!(bench.event().await, lost, "another's ports, or nobody's");
    }
    bench.close(2).await;
}

/// The middle of an NTP timestamp, as it stands in an SR (RFC 3550 §6.4.1).
fn last_sr(report: &[u8]) -> Option<[u8; 4]> {
    (report.get(1) == Some(&200)).then(|| report[10..14].try_into().unwrap())
}

/// An SR of a party with one block: a tenth of what came was lost, and the jitter is 10 ms.
fn report_of(by: [u8; 4], about: [u8; 4], last_sr: ([u8; 4], Instant)) -> Vec<u8> {
    let mut report = vec![0x81, 200, 0, 12];
    report.extend(by);
    report.extend([0; 20]);
    report.extend(about);
    report.extend([26, 0, 0, 10]);
    report.extend(100_u32.to_be_bytes());
    report.extend(80_u32.to_be_bytes());
    report.extend(last_sr.0);
    // In units of 1/65536 s.
    let since = last_sr.1.elapsed().as_micros() * 65_536 / 1_000_000;
    report.extend(u32::try_from(since).unwrap().to_be_bytes());
    report
}

/// A party that reports what it hears once the daemon has reported. More than one a second is not read.
struct Reporter {
    phone: Phone,
    control: UdpSocket,
    about: [u8; 4],
    last_sr: Option<([u8; 4], Instant)>,
    /// The other party's SSRC, which is never to be seen.
    other: [u8; 4],
    turns: u32,
    reported: u32,
}

impl Reporter {
    fn new() -> Self {
        let control = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        control.set_nonblocking(true).unwrap();
        Self {
            phone: Phone::new(),
            control,
            about: [0; 4],
            last_sr: None,
            other: [0; 4],
            turns: 0,
            reported: 0,
        }
    }

    fn media(&self) -> RemoteMedia {
        RemoteMedia {
            rtcp: Some(self.control.local_addr().unwrap()),
            ..self.phone.media(pcma())
        }
    }

    /// Once every 20 ms.
    fn turn(&mut self, to: u16) {
        let mut room = [0; 2_048];
        self.turns += 1;
        self.phone.say(to, 8, &[0x55; 160]);
        while self.phone.socket.recv(&mut room).is_ok() {
            self.about = room[8..12].try_into().unwrap();
        }
        while let Ok(length) = self.control.recv(&mut room) {
            assert!(!room[..length].windows(4).any(|bytes| bytes == self.other));
            let last_sr = last_sr(&room[..length]).map(|it| (it, Instant::now()));
            self.last_sr = last_sr.or(self.last_sr);
        }
        if let Some(last_sr) = self.last_sr
            && self.turns.is_multiple_of(55)
        {
            let report = report_of(self.phone.ssrc, self.about, last_sr);
            self.control.send_to(&report, (LOOPBACK, to + 1)).unwrap();
            self.reported += 1;
        }
    }
}

#[tokio::test]
async fn a_leg_s_figures_are_those_that_its_party_reports() {
    let presses = free_port();
    let daemon = Daemon::start(31_160, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(3).await;
    let (mut a, mut b) = (Reporter::new(), Reporter::new());
    (a.other, b.other) = (b.phone.ssrc, a.phone.ssrc);
    bench.program(3, a.media(), b.media());
    let started = Instant::now();
    while a.reported.min(b.reported) < 4 {
        assert!(started.elapsed() < PATIENCE, "too few reports");
        a.turn(towards_a);
        b.turn(towards_b);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The last reports are on their way.
    b.phone.until_heard(&mut a.phone, towards_a, 8).await;
    let MediaEvent::Closed { caller, callee, .. } = bench.close(3).await else {
        panic!("closed");
    };
    for quality in [caller.unwrap(), callee.unwrap()] {
        assert!(quality.packets > 100, "{quality:?}");
        assert!((0.05..=0.15).contains(&quality.loss), "{quality:?}");
        assert!((5.0..=15.0).contains(&quality.jitter_ms), "{quality:?}");
        assert!((1.0..=4.5).contains(&quality.mos), "{quality:?}");
    }
}
