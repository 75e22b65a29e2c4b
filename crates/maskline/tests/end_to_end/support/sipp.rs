//! SIPp as a process: a scenario of ours, one call, a trace of every message.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::eventually;

/// How SIP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// One connection.
    Tcp,
    /// One connection within TLS. Debian's SIPp speaks none: it talks TCP to a tunnel
    /// ([`super::tunnel`]), so that a row of a table needs nothing but this variant.
    Tls,
}

impl Transport {
    /// As configuration and URIs write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// How SIPp itself speaks.
    const fn of_sipp(self) -> Self {
        match self {
            Self::Udp => Self::Udp,
            Self::Tcp | Self::Tls => Self::Tcp,
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The scenario's file name without `.xml`.
    pub scenario: &'a str,
    /// Where messages go; `None`: wait for a call.
    pub towards: Option<String>,
    /// Own address.
    pub address: &'a str,
    /// Own SIP port.
    pub port: u16,
    /// The RTP port to announce.
    pub media: u16,
    /// UDP or TCP.
    pub transport: Transport,
    /// The user part of the request URI.
    pub number: &'a str,
    /// The From header's value without its tag.
    pub from: &'a str,
    /// How long `pause` without a time of its own lasts.
    pub pause: Duration,
    /// Percentage of messages lost in each direction.
    pub loss: u8,
    /// The form of the Call-ID: `%u` is the call, `%p` the process, `%s` the address.
    pub call_id: &'a str,
    /// Placeholders of the scenario, `@NAME@`, and their values.
    pub fill: &'a [(&'a str, &'a str)],
}

/// A running SIPp.
#[derive(Debug)]
pub struct Sipp {
    process: Child,
    folder: PathBuf,
    name: String,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Every message of the call, in order.
    pub messages: Vec<Message>,
    /// What SIPp complained of; empty if the call went as the scenario says.
    pub complaint: String,
}

/// A message of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whether SIPp received it.
    pub received: bool,
    /// Head and body.
    pub text: String,
}

impl Message {
    /// `INVITE sip:… SIP/2.0` or `SIP/2.0 200 OK`.
    pub fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The status, if it is a response.
    pub fn status(&self) -> Option<u16> {
        self.first_line()
            .strip_prefix("SIP/2.0 ")?
            .get(..3)?
            .parse()
            .ok()
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn is_final_answer_to_invite(&self) -> bool {
        self.received
            && self.status().is_some_and(|status| status >= 200)
            && self
                .header("CSeq")
                .is_some_and(|cseq| cseq.ends_with("INVITE"))
    }
}

impl Ended {
    /// The first final status that came in answer to the INVITE.
    pub fn heard(&self) -> Option<u16> {
        self.messages
            .iter()
            .find(|it| it.is_final_answer_to_invite())
            .and_then(Message::status)
    }

    /// The first received request of this method.
    pub fn request(&self, method: &str) -> Option<&Message> {
        self.messages
            .iter()
            .find(|it| it.received && it.first_line().starts_with(method))
    }
}

impl Sipp {
    /// Starts it; one that waits for a call has its port open on return.
    pub async fn start(folder: &Path, run: Run<'_>) -> Self {
        let name = run.scenario.to_owned();
        let scenario = folder.join(format!("{name}.xml"));
        fs::write(&scenario, fill_in(&run)).unwrap();
        let output = File::create(folder.join(format!("{name}.out"))).unwrap();
        let mut command = Command::new("sipp");
        command.args(run.towards.as_deref());
        command.arg("-sf").arg(&scenario);
        command.args([
            "-i",
            run.address,
            "-bind_local",
            "-p",
            &run.port.to_string(),
        ]);
        command.args([
            "-t",
            if run.transport == Transport::Udp {
                "u1"
            } else {
                "t1"
            },
        ]);
        command.args(["-m", "1", "-nostdin", "-timeout", "30s", "-timeout_error"]);
        command.args(["-d", &run.pause.as_millis().to_string()]);
        command.args(["-s", run.number, "-key", "from", run.from]);
        command.args(["-cid_str", run.call_id]);
        command.args(["-key", "media", &run.media.to_string()]);
        if run.loss > 0 {
            command.args(["-lost", &run.loss.to_string(), "-max_retrans", "12"]);
        }
        command
            .arg("-trace_msg")
            .arg("-message_file")
            .arg(folder.join(format!("{name}.messages")));
        command
            .arg("-trace_err")
            .arg("-error_file")
            .arg(folder.join(format!("{name}.errors")));
        let process = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("SIPp starts; scripts/setup installs it");
        let mut sipp = Self {
            process,
            folder: folder.to_owned(),
            name,
        };
        if run.towards.is_none() {
            sipp.wait_until_open(&run).await;
        }
        sipp
    }

    async fn wait_until_open(&mut self, run: &Run<'_>) {
        // The kernel writes addresses as words of this machine.
        let (family, octets) = match run.address.parse().unwrap() {
            IpAddr::V4(address) => ("", address.octets().to_vec()),
            IpAddr::V6(address) => ("6", address.octets().to_vec()),
        };
        let words = octets.chunks_exact(4).map(|word| {
            let word = u32::from_ne_bytes(word.try_into().unwrap());
            format!("{word:08X}")
        });
        let local = format!("{}:{:04X} ", words.collect::<String>(), run.port);
        let table = format!("/proc/net/{}{family}", run.transport.of_sipp().name());
        eventually("SIPp opens its port", Duration::from_secs(10), || {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("SIPp ended with {status}: {}", self.complaint());
            }
            fs::read_to_string(&table)
                .unwrap()
                .contains(&local)
                .then_some(())
        })
        .await;
    }

    fn complaint(&self) -> String {
        ["errors", "out"]
            .into_iter()
            .map(|kind| fs::read(self.folder.join(format!("{}.{kind}", self.name))))
            .map(|text| String::from_utf8_lossy(&text.unwrap_or_default()).into_owned())
            .find(|text| !text.is_empty())
            .unwrap_or_default()
    }

    /// Every message so far.
    pub fn messages(&self) -> Vec<Message> {
        let trace = fs::read(self.folder.join(format!("{}.messages", self.name)));
        parse_trace(&String::from_utf8_lossy(&trace.unwrap_or_default()))
    }

    /// Waits until a caller has acknowledged its answer. Its event is durable, and may be told,
    /// before the 200 leaves.
    pub async fn acknowledges(&self) {
        let ack = |it: &Message| !it.received && it.first_line().starts_with("ACK");
        eventually("the caller acknowledges", Duration::from_secs(10), || {
            self.messages().iter().any(ack).then_some(())
        })
        .await;
    }

    /// Waits until the call is over.
    pub async fn finish(mut self) -> Ended {
        let what = format!("SIPp ends {}", self.name);
        let status = eventually(&what, Duration::from_secs(35), || {
            self.process.try_wait().unwrap()
        })
        .await;
        let complaint = if status.success() {
            String::new()
        } else {
            self.complaint()
        };
        let complaint = if status.success() || !complaint.is_empty() {
            complaint
        } else {
            format!("SIPp ended with {status}")
        };
        Ended {
            messages: self.messages(),
            complaint,
        }
    }
}

impl Drop for Sipp {
    /// A failing test leaves no process behind.
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            let _killed = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}

/// By which a scenario says that its party stays for a while after its last message.
const LINGER: &str = r#"<timewait milliseconds="@LINGER@"/>"#;

fn fill_in(run: &Run<'_>) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/scenarios");
    let path = format!("{folder}/{}.xml", run.scenario);
    let mut text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for (name, value) in run.fill {
        text = text.replace(&format!("@{name}@"), value);
    }
    let (retrans, linger) = if run.loss > 0 {
        // Behind loss, whoever ended last must still be there to answer a repetition.
        ("50", LINGER.replace("@LINGER@", "2000"))
    } else {
        // Even 0 ms would keep the call until SIPp's next turn, and fail it if its connection
        // is closed before that.
        ("500", String::new())
    };
    text = text.replace("@RETRANS@", retrans).replace(LINGER, &linger);
    assert!(
        !text.contains("=\"@"),
        "a placeholder of {path} has no value"
    );
    text
}

fn parse_trace(trace: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    for part in trace
        .split("----------------------------------------------- ")
        .skip(1)
    {
        let Some((_, rest)) = part.split_once('\n') else {
            continue;
        };
        let Some((what, text)) = rest.split_once("\n\n") else {
            continue;
        };
        if what.contains("message") {
            let received = what.contains("message received");
            messages.push(Message {
                received,
                text: text.to_owned(),
            });
        }
    }
    messages
}
