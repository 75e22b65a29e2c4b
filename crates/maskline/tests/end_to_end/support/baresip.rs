//! baresip as a process: a phone that plays a file, records what it hears, and is told what to do
//! over a control connection.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::eventually;
use super::site::{CALLEE, CALLEE_ADDRESS, CALLER, CALLER_ADDRESS, SWITCH_ADDRESS, Site, VIRTUAL};
use super::sound;

/// A codec as baresip's accounts name it, and the rate and channels at which it plays and records.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    pub name: &'static str,
    pub rate: u32,
    pub channels: u16,
}

pub const PCMU: Codec = Codec {
    name: "pcmu/8000/1",
    rate: 8_000,
    channels: 1,
};
pub const PCMA: Codec = Codec {
    name: "pcma/8000/1",
    ..PCMU
};
pub const G722: Codec = Codec {
    name: "g722/16000/1",
    rate: 16_000,
    channels: 1,
};
pub const OPUS: Codec = Codec {
    name: "opus/48000/2",
    rate: 48_000,
    channels: 2,
};

/// What a phone knows and says.
#[derive(Debug)]
pub struct Talker<'a> {
    /// The only codec that it knows.
    pub codec: Codec,
    /// What it says, at 8 kHz.
    pub says: &'a [i16],
    /// Whether it speaks TLS, on the port above, with `both.pem` of the test's folder, and encrypts its
    /// media or takes no call.
    pub encrypts: bool,
}

/// Where a phone is.
#[derive(Debug)]
struct Place {
    /// Its folder within the test's.
    name: &'static str,
    /// The number that it has.
    number: &'static str,
    /// Where it takes SIP.
    sip: SocketAddr,
    /// Its port for control, and the first of its ports for RTP.
    control: u16,
    media: u16,
}

/// A and B, which A has called through the switch.
pub async fn in_call(site: &Site, a: Talker<'_>, b: Talker<'_>) -> (Baresip, Baresip) {
    let ports = &site.ports;
    let at = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    let callee = Place {
        name: "callee",
        number: CALLEE,
        sip: at(CALLEE_ADDRESS, ports.callee_sip()),
        control: ports.callee_control(),
        media: ports.callee_media(),
    };
    let b = Baresip::start(&site.folder, callee, b).await;
    let caller = Place {
        name: "caller",
        number: CALLER,
        sip: at(CALLER_ADDRESS, ports.caller_sip()),
        control: ports.caller_control(),
        media: ports.caller_media(),
    };
    // It adds its account's transport.
    let port = if a.encrypts { ports.tls() } else { ports.sip() };
    let mut a = Baresip::start(&site.folder, caller, a).await;
    let number = format!("sip:{VIRTUAL}@{SWITCH_ADDRESS}:{port}");
    a.tell("dial", &number).await;
    a.logs("Call established").await;
    (a, b)
}

/// A running phone.
#[derive(Debug)]
pub struct Baresip {
    process: Child,
    folder: PathBuf,
    control: TcpStream,
    codec: Codec,
}

impl Baresip {
    /// Starts a phone that answers calls at once. It is ready on return.
    async fn start(folder: &Path, place: Place, talker: Talker<'_>) -> Self {
        let Place {
            name,
            number,
            sip,
            control,
            media,
        } = place;
        let Talker {
            codec,
            says,
            encrypts,
        } = talker;
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        let (home, host) = (folder.display(), sip.ip());
        let (rate, channels) = (codec.rate, codec.channels);
        sound::write(&folder.join("says.wav"), says, rate, channels);
        let config = format!(
            "poll_method epoll\nsip_listen {sip}\nnet_interface {host}\ncall_local_timeout 60\n\
             audio_source aufile,{home}/says.wav\nausrc_srate {rate}\nauplay_srate {rate}\n\
             ausrc_channels {channels}\nauplay_channels {channels}\nsnd_path {home}\n\
             rtp_ports {media}-{}\nmodule_path /usr/lib/baresip/modules\n\
             module g711.so\nmodule g722.so\nmodule opus.so\nmodule aufile.so\n\
             module sndfile.so\nmodule_tmp account.so\nmodule_app menu.so\n\
             module_app ctrl_tcp.so\nctrl_tcp_listen {host}:{control}\n",
            media + 1
        );
        let account = format!(
            "<sip:{number}@{sip}{}>;regint=0;answermode=auto;audio_codecs={}{}\n",
            if encrypts { ";transport=tls" } else { "" },
            codec.name,
            if encrypts { ";mediaenc=srtp-mand" } else { "" }
        );
        let config = if encrypts {
            config + &format!("sip_certificate {home}/../both.pem\nmodule srtp.so\n")
        } else {
            config
        };
        for (file, text) in [
            ("config", config),
            ("accounts", account),
            ("contacts", String::new()),
        ] {
            fs::write(folder.join(file), text).unwrap();
        }
        let log = File::create(folder.join("log")).unwrap();
        let mut process = Command::new("baresip")
            .arg("-f")
            .arg(&folder)
            // What it says of its keys is looked for elsewhere.
            .args(encrypts.then_some("-s"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("baresip starts; scripts/setup installs it");
        let ready = folder.join("log");
        eventually("baresip is ready", Duration::from_secs(20), || {
            let log = fs::read_to_string(&ready).unwrap();
            if let Some(status) = process.try_wait().unwrap() {
                panic!("baresip ended with {status}: {log}");
            }
            log.contains("baresip is ready").then_some(())
        })
        .await;
        let control = TcpStream::connect((host, control)).await.unwrap();
        Self {
            process,
            folder,
            control,
            codec,
        }
    }

    /// Gives a command with one parameter.
    pub async fn tell(&mut self, command: &str, parameter: &str) {
        let text = format!("{{\"command\":\"{command}\",\"params\":\"{parameter}\"}}");
        let netstring = format!("{}:{text},", text.len());
        self.control.write_all(netstring.as_bytes()).await.unwrap();
    }

    /// What it logged.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap();
        String::from_utf8_lossy(&log).replace('\r', "\n")
    }

    /// Waits until it logged this.
    pub async fn logs(&self, what: &str) {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while !self.log().contains(what) {
            let late = tokio::time::Instant::now() > end;
            assert!(!late, "{what:?} is not in:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until what it last said of the bits that it sends and receives in a second is so.
    pub async fn carries(&self, what: &str, is_so: fn(u32, u32) -> bool) {
        let rates = |log: &str| -> Option<(u32, u32)> {
            let (sent, rest) = log.rsplit_once("audio=")?.1.split_once('/')?;
            let (received, _) = rest.split_once(' ')?;
            Some((sent.parse().ok()?, received.parse().ok()?))
        };
        let name = format!("{} carries {what}", self.folder.display());
        eventually(&name, Duration::from_secs(20), || {
            rates(&self.log())
                .filter(|(sent, received)| is_so(*sent, *received))
                .map(|_| ())
        })
        .await;
    }

    /// What it has heard so far, at 8 kHz.
    pub fn heard(&self) -> Vec<i16> {
        let recorded = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.to_string_lossy().ends_with("-dec.wav")
        };
        let file = fs::read_dir(&self.folder)
            .unwrap()
            .map(Result::unwrap)
            .find(recorded);
        file.map_or_else(Vec::new, |file| {
            sound::read(&file.path(), self.codec.rate, self.codec.channels)
        })
    }

    /// Waits until it has heard so many seconds.
    pub async fn hears(&self, seconds: usize) -> Vec<i16> {
        let name = format!("{} hears {seconds} s", self.folder.display());
        eventually(&name, Duration::from_secs(30), || {
            Some(self.heard()).filter(|heard| heard.len() >= seconds * 8_000)
        })
        .await
    }
}

impl Drop for Baresip {
    /// A failing test leaves no process behind.
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}
