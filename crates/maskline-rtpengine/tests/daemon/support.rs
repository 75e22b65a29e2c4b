//! A daemon, an engine that is told of it, and phones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, Engine, MediaCommand, MediaEvent, MediaKey, PayloadMap,
    RemoteMedia, VoiceCodec,
};
use maskline_rtpengine::{Installation, Rtpengine, RtpengineConfig};
use tokio::sync::mpsc;

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const INSTALLATION: u64 = 0x5e;
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon of this test's own.
pub struct Daemon {
    pub process: Child,
    pub ng: SocketAddr,
}

impl Daemon {
    /// In a block of twenty ports: sixteen for media, one for its orders.
    pub fn start(ports: u16, presses: SocketAddr) -> Self {
        Self::start_at(at(ports + 18), (ports, ports + 17), presses)
    }

    pub fn start_at(ng: SocketAddr, (first, last): (u16, u16), presses: SocketAddr) -> Self {
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
            .arg(format!("--port-min={first}"))
            .arg(format!("--port-max={last}"))
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

    pub fn kill(&mut self) {
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

pub struct Bench {
    pub engine: Rtpengine,
    pub events: mpsc::Receiver<MediaEvent>,
}

/// A second of the loudest wave that is easily told: 16-bit samples of 8,000 and -8,000 in turn, in runs of eight.
pub fn hold_file() -> String {
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

pub const fn key(id: u64) -> MediaKey {
    MediaKey { shard: 0, id }
}

pub fn at(port: u16) -> SocketAddr {
    SocketAddr::new(LOOPBACK, port)
}

impl Bench {
    pub async fn start(daemons: &[&Daemon], presses: SocketAddr, silence: Duration) -> Self {
        let instances = daemons.iter().map(|daemon| daemon.ng).collect();
        Self::at(instances, presses, silence).await
    }

    pub async fn at(instances: Vec<SocketAddr>, presses: SocketAddr, silence: Duration) -> Self {
        let installation = Installation {
            id: INSTALLATION,
            found: Vec::new(),
        };
        Self::of(installation, instances, presses, silence).await
    }

    pub async fn of(
        installation: Installation,
        instances: Vec<SocketAddr>,
        presses: SocketAddr,
        silence: Duration,
    ) -> Self {
        let (sender, events) = mpsc::channel(64);
        let config = RtpengineConfig {
            instances,
            dtmf_listen: Some(presses),
            hold_file: Some(hold_file()),
            silence,
            max_sessions: 4,
        };
        let engine = Rtpengine::start(config, installation, vec![sender])
            .await
            .unwrap();
        Self { engine, events }
    }

    pub async fn event(&mut self) -> MediaEvent {
        let next = tokio::time::timeout(PATIENCE, self.events.recv());
        next.await.expect("an event in time").unwrap()
    }

    pub fn order(&self, command: MediaCommand) {
        assert_eq!(self.engine.command(command), None);
    }

    /// The ports towards the caller and towards the callee.
    pub async fn open(&mut self, id: u64) -> (u16, u16) {
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

    pub fn program(&self, id: u64, caller: RemoteMedia, callee: RemoteMedia) {
        self.order(MediaCommand::ProgramCaller {
            key: key(id),
            media: CallerMedia(caller),
        });
        self.order(MediaCommand::ProgramCallee {
            key: key(id),
            media: CalleeMedia(callee),
        });
    }

    pub async fn close(&mut self, id: u64) -> MediaEvent {
        self.order(MediaCommand::Close { key: key(id) });
        loop {
            let event = self.event().await;
            if matches!(event, MediaEvent::Closed { .. }) {
                return event;
            }
        }
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Rtpengine) -> bool) {
        let started = Instant::now();
        while !holds(&self.engine) {
            assert!(started.elapsed() < PATIENCE, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A party's socket.
pub struct Phone {
    pub socket: UdpSocket,
    pub sequence: u16,
    pub ssrc: [u8; 4],
}

impl Phone {
    pub fn new() -> Self {
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

    pub fn media(&self, payloads: Vec<PayloadMap>) -> RemoteMedia {
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

    pub fn say(&mut self, to: u16, payload_type: u8, payload: &[u8]) {
        self.sequence += 1;
        let mut packet = vec![0x80, payload_type];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend(self.ssrc);
        packet.extend(payload);
        self.socket.send_to(&packet, (LOOPBACK, to)).unwrap();
    }

    /// The payload types and first payload bytes of all that has come.
    pub fn heard(&self) -> Vec<(u8, u8)> {
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
    pub async fn until_heard(&self, from: &mut Self, to: u16, payload_type: u8) -> (u8, u8) {
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

pub fn voice(here: u8, codec: VoiceCodec, carriage: Carriage) -> PayloadMap {
    PayloadMap {
        here,
        there: here,
        clock_rate: 8_000,
        telephone_event: false,
        codec: Some(codec),
        carriage,
    }
}

pub fn pcma() -> Vec<PayloadMap> {
    let event = PayloadMap {
        telephone_event: true,
        codec: None,
        ..voice(101, VoiceCodec::Pcma, Carriage::AsIs)
    };
    vec![voice(8, VoiceCodec::Pcma, Carriage::AsIs), event]
}
