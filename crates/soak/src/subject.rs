//! The switch under test: a process that is started, killed, asked and looked at.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::time::sleep;

use crate::client::{ADMIN_KEY, Client};

/// How long it may take to answer.
const READY: Duration = Duration::from_secs(20);
/// How long it may take to end when it is asked to.
const ENDS: Duration = Duration::from_secs(60);

/// Which program, where its files go, and its ports.
#[derive(Clone, Debug)]
pub struct Place {
    /// `maskline`.
    pub binary: PathBuf,
    /// Its configuration, database and log.
    pub folder: PathBuf,
    /// A free port for its API.
    pub http: u16,
    /// A free port for SIP, which nobody uses.
    pub sip: u16,
}

/// Two free ports below the range that the kernel takes ports from: one that a killed switch leaves
/// stays free.
///
/// # Errors
///
/// When none is free.
pub fn free_ports() -> anyhow::Result<(u16, u16)> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let start = u16::try_from(std::process::id() % 4_000)?;
    let mut ports = (0..4_000)
        .map(|step| 15_000 + (start + step) % 4_000)
        .filter(free);
    let pair = ports.next().zip(ports.next());
    pair.context("no port from 15000 to 18999 is free")
}

/// The switch.
#[derive(Debug)]
pub(crate) struct Subject {
    place: Place,
    process: Option<Child>,
}

impl Subject {
    /// Writes its configuration. `delivery`: lines of that section.
    pub(crate) fn new(place: Place, delivery: &str) -> anyhow::Result<Self> {
        let Place { http, sip, .. } = place;
        let text = format!(
            r#"[http]
listen = "127.0.0.1:{http}"
[sip]
listen = ["udp:127.0.0.1:{sip}"]
[store]
url = "sqlite:soak.db"
[egress]
allow_private_targets = true
[delivery]
{delivery}
[trace]
enabled = false
[drain]
deadline_seconds = 1
[log]
filter = "warn"
"#
        );
        let database = place.folder.join("soak.db");
        anyhow::ensure!(
            !database.exists(),
            "{} is of an earlier run",
            database.display()
        );
        fs::create_dir_all(&place.folder)?;
        fs::write(place.folder.join("maskline.toml"), text)?;
        Ok(Self {
            place,
            process: None,
        })
    }

    /// Where its API is.
    pub(crate) fn api(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.place.http).into()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.place.folder.join("soak.db")
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.place.folder.join("maskline.log"))?;
        // A folder that is given may be relative to where this runs.
        let binary = fs::canonicalize(&self.place.binary)
            .with_context(|| format!("{}", self.place.binary.display()))?;
        let process = Command::new(binary)
            .args(["serve", "--config", "maskline.toml"])
            .current_dir(&self.place.folder)
            .env("MASKLINE_ADMIN_KEY", ADMIN_KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until its API answers.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        let mut client = Client::new(self.api());
        while Instant::now() < deadline {
            if let Some(process) = &mut self.process
                && let Some(status) = process.try_wait()?
            {
                bail!("the switch ended with {status}\n{}", self.log());
            }
            let answer = client.request("GET", "/healthz", "").await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("the switch is not ready after {READY:?}\n{}", self.log())
    }

    /// A sub-account with webhooks for status events and summaries at one URL. `settings` of both: JSON.
    pub(crate) async fn provision(
        &self,
        account: u16,
        url: &str,
        settings: &str,
    ) -> anyhow::Result<()> {
        let mut client = Client::new(self.api());
        let name = account_name(account);
        let account = format!(r#"{{"subAccountId":"{name}","countries":["SG"]}}"#);
        let path = "/api/v1/admin/subaccounts";
        done(&mut client, "POST", path, &account).await?;
        for kind in ["VCS", "VSS"] {
            let webhook = format!(r#"{{"type":"{kind}","url":"{url}"}}"#);
            let path = format!("/api/v1/subaccounts/{name}/webhooks");
            done(&mut client, "POST", &path, &webhook).await?;
            let path = format!("{path}/{kind}/settings");
            done(&mut client, "PUT", &path, settings).await?;
        }
        Ok(())
    }

    /// Gives the account's webhook for status events another URL: what was known of it is forgotten.
    pub(crate) async fn move_webhook(&self, account: u16, url: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/subaccounts/{}/webhooks", account_name(account));
        let webhook = format!(r#"{{"type":"VCS","url":"{url}"}}"#);
        done(&mut Client::new(self.api()), "POST", &path, &webhook).await
    }

    /// Ends it as a power failure would end a process.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, and waits.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let asked = Command::new("kill")
            .args(["-TERM", &process.id().to_string()])
            .status()?;
        anyhow::ensure!(asked.success(), "kill -TERM failed");
        let deadline = Instant::now() + ENDS;
        while Instant::now() < deadline {
            if let Some(status) = process.try_wait()? {
                anyhow::ensure!(status.success(), "it ended with {status}\n{}", self.log());
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        process.kill()?;
        process.wait()?;
        bail!("it did not end within {ENDS:?} of SIGTERM\n{}", self.log())
    }

    /// Memory of its own that is resident, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let id = self.process.as_ref().map_or(0, Child::id);
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|rest| {
            rest.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        });
        kib.unwrap_or_default() * 1024
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        end_of(&self.place.folder.join("maskline.log"))
    }
}

impl Drop for Subject {
    /// Whatever goes wrong, no process stays behind.
    fn drop(&mut self) {
        // There is nobody to tell that it is gone already.
        let _ = self.kill();
    }
}

/// A request that must be taken.
async fn done(client: &mut Client, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
    let answer = client.request(method, path, body).await?;
    if answer.status >= 300 {
        let text = String::from_utf8_lossy(answer.body);
        bail!("{path}: {} {text}", answer.status);
    }
    Ok(())
}

/// A sub-account's name.
pub(crate) fn account_name(account: u16) -> String {
    format!("soak-{account}")
}

fn end_of(file: &Path) -> String {
    let log = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(20);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// The machine, in one line.
pub(crate) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} × {model}, load average {load}")
}
