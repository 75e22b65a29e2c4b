//! What carries the calls: a process on one core that opens sessions as it is told.
//!
//! Our own two are this program again, told by lines: `open N` is answered by N lines with the ports
//! towards caller and callee, `end` by one line of what it counted. A pipe that closes ends it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, EngineConfig, MediaAddresses, MediaCommand, MediaEngine,
    MediaEvent, MediaKey, PayloadMap, RemoteMedia, VoiceCodec,
};
use rustix::event::epoll;
use tokio::sync::mpsc;

use super::load::{Bridge, Load};
use super::rtpengine;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How many sessions are opened before the answers are taken.
const BATCH: usize = 256;

/// What this program carries packets with when it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Carrier {
    /// The media engine, with one worker.
    Engine,
    /// `epoll`, `recv` and `send`, and nothing else.
    Forwarder,
}

/// A carrying process. Dropping it ends it.
pub(super) struct Peer {
    name: &'static str,
    process: Child,
    told: Told,
}

enum Told {
    Own {
        orders: ChildStdin,
        answers: BufReader<ChildStdout>,
    },
    Rtpengine(rtpengine::Control),
}

impl Peer {
    /// This program, on one core.
    ///
    /// With `both_families`, the engine has an address of each.
    pub(super) fn own(
        core: usize,
        carrier: Carrier,
        load: &Load,
        both_families: bool,
    ) -> anyhow::Result<Self> {
        let (name, word) = match carrier {
            Carrier::Engine => ("maskline", "engine"),
            Carrier::Forwarder => ("bare epoll", "forwarder"),
        };
        let mut process = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .arg(std::env::current_exe()?)
            .args(["bench", "media-subject", word])
            .arg(load.caller()?.to_string())
            .arg(load.callee()?.to_string())
            .arg(load.rtcp()?.to_string())
            .args(both_families.then_some("--both-families"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting what carries (taskset is of util-linux)")?;
        let orders = process.stdin.take().context("no pipe")?;
        let answers = BufReader::new(process.stdout.take().context("no pipe")?);
        let mut peer = Self {
            name,
            process,
            told: Told::Own { orders, answers },
        };
        // Its first answer says that it runs, and its memory is that of before any call.
        peer.open(0)?;
        Ok(peer)
    }

    /// `rtpengine`, on one core; `None`: it is not installed.
    pub(super) fn rtpengine(core: usize, load: &Load) -> anyhow::Result<Option<Self>> {
        let started = rtpengine::start(core, load.caller()?, load.callee()?)?;
        Ok(started.map(|(process, control)| Self {
            name: "rtpengine",
            process,
            told: Told::Rtpengine(control),
        }))
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn process(&self) -> u32 {
        self.process.id()
    }

    /// Opens so many more calls.
    pub(super) fn open(&mut self, calls: usize) -> anyhow::Result<Vec<Bridge>> {
        match &mut self.told {
            Told::Rtpengine(control) => (0..calls).map(|_| control.open()).collect(),
            Told::Own { orders, answers } => {
                writeln!(orders, "open {calls}")?;
                let mut bridges = Vec::with_capacity(calls);
                loop {
                    let line = line(answers)?;
                    if line == "opened" {
                        return Ok(bridges);
                    }
                    let ports = line
                        .split_once(' ')
                        .and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
                    let (caller, callee) = ports.with_context(|| line.clone())?;
                    bridges.push(Bridge {
                        caller: SocketAddr::new(LOOPBACK, caller),
                        callee: SocketAddr::new(LOOPBACK, callee),
                    });
                }
            }
        }
    }

    /// What it counted itself.
    pub(super) fn end(&mut self) -> anyhow::Result<String> {
        match &mut self.told {
            Told::Rtpengine(_) => Ok("user space, one thread".to_owned()),
            Told::Own { orders, answers } => {
                writeln!(orders, "end")?;
                line(answers)
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; what is left is only to be cleaned up.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> anyhow::Result<String> {
    let mut line = String::new();
    ensure!(
        answers.read_line(&mut line)? > 0,
        "what carries ended: see above"
    );
    Ok(line.trim_end().to_owned())
}

/// The parties' addresses, as the carrying process is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Parties {
    /// What carries.
    #[arg(value_enum)]
    carrier: Carrier,
    /// Where callers receive.
    caller: SocketAddr,
    /// Where callees receive.
    callee: SocketAddr,
    /// Where both are sent reports.
    rtcp: SocketAddr,
    /// Whether ports are taken in both families.
    #[arg(long)]
    both_families: bool,
}

/// Carries what is sent to it, as told by standard input.
///
/// # Errors
/// What kept it from carrying.
pub(crate) fn carry(parties: &Parties) -> anyhow::Result<()> {
    match parties.carrier {
        Carrier::Engine => carry_by_engine(parties),
        Carrier::Forwarder => forward(parties),
    }
}

fn carry_by_engine(parties: &Parties) -> anyhow::Result<()> {
    let (sender, mut events) = mpsc::channel(4 * BATCH);
    let both = MediaAddresses::both(LOOPBACK, Ipv6Addr::LOCALHOST.into());
    let config = EngineConfig {
        addresses: both
            .filter(|_| parties.both_families)
            .unwrap_or_else(|| LOOPBACK.into()),
        workers: NonZeroUsize::MIN,
        silence: Duration::from_secs(3_600),
        ..EngineConfig::new(LOOPBACK, 30_000..=59_999, Instant::now())
    };
    let engine = MediaEngine::start(config, vec![sender])?;
    let mut opened = 0;
    for line in std::io::stdin().lines() {
        let line = line?;
        let Some(calls) = line.strip_prefix("open ") else {
            let counters = engine.counters();
            println!(
                "{} of {} RTP packets forwarded, {} dropped, {} not taken by the system",
                counters.relay.rtp_forwarded,
                counters.relay.rtp_received,
                counters.relay.drops.total(),
                counters.send_failures
            );
            continue;
        };
        let mut left: usize = calls.parse()?;
        while left > 0 {
            let batch = left.min(BATCH);
            open_batch(&engine, &mut events, opened, batch, parties)?;
            opened += batch as u64;
            left -= batch;
        }
        println!("opened");
    }
    Ok(())
}

fn open_batch(
    engine: &MediaEngine,
    events: &mut mpsc::Receiver<MediaEvent>,
    first: u64,
    calls: usize,
    parties: &Parties,
) -> anyhow::Result<()> {
    for id in (first..).take(calls) {
        let key = MediaKey { shard: 0, id };
        let answer = engine.command(MediaCommand::Open { key, seed: id });
        ensure!(answer.is_none(), "{answer:?}");
    }
    for _ in 0..calls {
        let event = events.blocking_recv().context("the engine ended")?;
        let MediaEvent::Opened {
            key,
            caller_port,
            callee_port,
            ..
        } = event
        else {
            bail!("{event:?}");
        };
        let media = |rtp: SocketAddr| RemoteMedia {
            rtp,
            rtcp: Some(parties.rtcp),
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
        };
        for command in [
            MediaCommand::ProgramCaller {
                key,
                media: CallerMedia(media(parties.caller)),
            },
            MediaCommand::ProgramCallee {
                key,
                media: CalleeMedia(media(parties.callee)),
            },
        ] {
            let answer = engine.command(command);
            ensure!(answer.is_none(), "{answer:?}");
        }
        println!("{caller_port} {callee_port}");
    }
    Ok(())
}

/// What any relay on these system calls must cost.
fn forward(parties: &Parties) -> anyhow::Result<()> {
    const ORDERS: u64 = u64::MAX;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &poll,
        std::io::stdin(),
        epoll::EventData::new_u64(ORDERS),
        epoll::EventFlags::IN,
    )?;
    let mut sockets: Vec<UdpSocket> = Vec::new();
    let mut events = Vec::with_capacity(64);
    let mut datagram = [0; 2_048];
    let mut failed = HashMap::<std::io::ErrorKind, u64>::new();
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let token = event.data.u64();
            if token == ORDERS {
                let mut order = String::new();
                if std::io::stdin().lock().read_line(&mut order)? == 0 {
                    return Ok(());
                }
                match order.trim_end().strip_prefix("open ") {
                    Some(calls) => open_pairs(&poll, &mut sockets, calls.parse()?, parties)?,
                    None => println!("failed: {failed:?}"),
                }
                continue;
            }
            let token = usize::try_from(token)?;
            let (Some(from), Some(to)) = (sockets.get(token), sockets.get(token ^ 1)) else {
                continue;
            };
            let passed = from
                .recv(&mut datagram)
                .and_then(|length| to.send(datagram.get(..length).unwrap_or_default()));
            if let Err(error) = passed {
                *failed.entry(error.kind()).or_default() += 1;
            }
        }
    }
}

/// Pairs of connected sockets, each other's neighbours.
fn open_pairs(
    poll: &impl std::os::fd::AsFd,
    sockets: &mut Vec<UdpSocket>,
    calls: usize,
    parties: &Parties,
) -> anyhow::Result<()> {
    for _ in 0..calls {
        let mut ports = [0; 2];
        for (port, party) in ports.iter_mut().zip([parties.caller, parties.callee]) {
            let socket = UdpSocket::bind((LOOPBACK, 0))?;
            socket.connect(party)?;
            socket.set_nonblocking(true)?;
            *port = socket.local_addr()?.port();
            epoll::add(
                poll,
                &socket,
                epoll::EventData::new_u64(sockets.len() as u64),
                epoll::EventFlags::IN,
            )?;
            sockets.push(socket);
        }
        let [caller, callee] = ports;
        println!("{caller} {callee}");
    }
    println!("opened");
    Ok(())
}
