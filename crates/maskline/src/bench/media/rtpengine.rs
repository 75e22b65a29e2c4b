//! `rtpengine` in user space beside our engine, told what to do by its `ng` protocol.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::load::Bridge;

/// How long it may take to be ready.
const READY: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_millis(500);

/// A running one's control.
pub(super) struct Control {
    socket: UdpSocket,
    caller: SocketAddr,
    callee: SocketAddr,
    calls: u32,
}

/// Starts it on one core; `None`: it is not installed.
pub(super) fn start(
    core: usize,
    caller: SocketAddr,
    callee: SocketAddr,
) -> anyhow::Result<Option<(Child, Control)>> {
    let installed = Command::new("rtpengine")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if installed.is_err() {
        return Ok(None);
    }
    let control = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut child = Command::new("taskset")
        .args(["-c", &core.to_string(), "rtpengine"])
        .args(["--table=-1", "--interface=127.0.0.1", "--foreground"])
        .args(["--log-stderr", "--log-level=1", "--num-threads=1"])
        .args(["--port-min=30000", "--port-max=59999"])
        .args(["--config-file=none", &format!("--listen-ng={control}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("rtpengine")?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(control)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let control = Control {
        socket,
        caller,
        callee,
        calls: 0,
    };
    let deadline = Instant::now() + READY;
    while control.ask("7:command4:ping").is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("rtpengine ended at once with {status}");
        }
        ensure!(Instant::now() < deadline, "rtpengine was not ready in time");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Some((child, control)))
}

impl Control {
    /// Opens one more call.
    pub(super) fn open(&mut self) -> anyhow::Result<Bridge> {
        self.calls += 1;
        let call = text(&format!("bench-{}", self.calls));
        let offer = self.ask(&format!(
            "7:call-id{call}7:command5:offer8:from-tag1:a3:sdp{}",
            description(self.caller)
        ))?;
        let answer = self.ask(&format!(
            "7:call-id{call}7:command6:answer8:from-tag1:a3:sdp{}6:to-tag1:b",
            description(self.callee)
        ))?;
        Ok(Bridge {
            caller: port_in(&answer)?,
            callee: port_in(&offer)?,
        })
    }

    /// A request, of which a dictionary's inside is given, and the whole of its answer.
    fn ask(&self, inside: &str) -> anyhow::Result<String> {
        let cookie = format!("m{:08x}", rand::random::<u32>());
        self.socket
            .send(format!("{cookie} d{inside}e").as_bytes())?;
        let mut datagram = [0; 8_192];
        loop {
            let length = self.socket.recv(&mut datagram)?;
            let answer = String::from_utf8_lossy(datagram.get(..length).unwrap_or_default());
            if let Some(answer) = answer.strip_prefix(&cookie) {
                ensure!(
                    answer.contains("6:result2:ok") || answer.contains("6:result4:pong"),
                    "rtpengine answers {answer}"
                );
                return Ok(answer.to_owned());
            }
        }
    }
}

/// A string as it is written in `bencode`.
fn text(text: &str) -> String {
    format!("{}:{text}", text.len())
}

fn description(party: SocketAddr) -> String {
    text(&format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n",
        ip = party.ip(),
        port = party.port()
    ))
}

fn port_in(answer: &str) -> anyhow::Result<SocketAddr> {
    let port = answer
        .split_once("m=audio ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .with_context(|| format!("no port in rtpengine's answer {answer}"))?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}
