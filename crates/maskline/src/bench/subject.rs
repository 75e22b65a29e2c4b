//! What is measured: a process between the load's two ends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use maskline_store::{SqliteLocation, SqliteOptions, SqliteStore};

use tempfile::TempDir;

use super::{VIRTUAL, kamailio, usage};
use crate::sample_site::SampleSite;

const SUB_ACCOUNT: &str = "bench";
/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(20);

/// A running process under load. Dropping it ends it.
pub(super) struct Subject {
    process: Child,
    sip: SocketAddr,
    callee: SocketAddr,
    http: Option<SocketAddr>,
    tells: bool,
    log: PathBuf,
    /// Goes with it.
    _folder: TempDir,
}

impl Subject {
    /// This program's own `serve`, provisioned, with its store in a new folder.
    pub(super) async fn maskline(receiver: SocketAddr) -> anyhow::Result<Self> {
        let site = SampleSite {
            sub_account_id: SUB_ACCOUNT,
            number: VIRTUAL,
            reference_id: "bench",
            receiver,
        };
        Self::serve(None, async |store| site.provision(store).await).await
    }

    /// The same, provisioned by `provision`, and trusting one more authority.
    pub(super) async fn serve(
        authority: Option<&Path>,
        provision: impl AsyncFnOnce(&SqliteStore) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path();
        let (sip, callee, http) = (free_udp()?, free_udp()?, free_tcp()?);
        let database = folder.join("bench.db");
        let location = SqliteLocation::File(database.clone());
        let key = location.master_key(None)?;
        let store = SqliteStore::open(&location, &key, SqliteOptions::default())?;
        provision(&store).await?;
        // One process at a time has it.
        drop(store);
        let file = folder.join("maskline.toml");
        std::fs::write(&file, configuration(&database, http, sip, callee))?;
        let log = folder.join("maskline.log");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--config").arg(&file);
        if let Some(authority) = authority {
            command.env("SSL_CERT_FILE", authority);
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("starting maskline serve")?;
        let mut subject = Self {
            process,
            sip,
            callee,
            http: Some(http),
            tells: true,
            log,
            _folder: temporary,
        };
        subject.await_ready(|| TcpStream::connect(http).is_ok())?;
        Ok(subject)
    }

    /// Kamailio in the same place; `None`: it is not installed.
    pub(super) fn kamailio() -> anyhow::Result<Option<Self>> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path();
        let (sip, callee) = (free_udp()?, free_udp()?);
        let Some(process) = kamailio::start(folder, sip, callee)? else {
            return Ok(None);
        };
        let mut subject = Self {
            process,
            sip,
            callee,
            http: None,
            tells: false,
            log: folder.join("kamailio.log"),
            _folder: temporary,
        };
        // The port is taken once it is ready.
        subject.await_ready(|| UdpSocket::bind(sip).is_err())?;
        Ok(Some(subject))
    }

    fn await_ready(&mut self, ready: impl Fn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("it ended at once with {status}: {log}");
            }
            if ready() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("it was not ready in {} s", READY.as_secs())
    }

    /// Where it takes calls.
    pub(super) const fn sip(&self) -> SocketAddr {
        self.sip
    }

    /// Where it sends them.
    pub(super) const fn callee(&self) -> SocketAddr {
        self.callee
    }

    /// Where its API is, if it has one.
    pub(super) const fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Whether it sends webhooks.
    pub(super) const fn tells(&self) -> bool {
        self.tells
    }

    /// Its log.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Its process.
    pub(super) fn process(&self) -> u32 {
        self.process.id()
    }

    /// Its process and those that it started.
    pub(super) fn processes(&self) -> Vec<u32> {
        usage::family(self.process.id())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended by itself; what is left is only to be cleaned up.
        let _ = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(database: &Path, http: SocketAddr, sip: SocketAddr, callee: SocketAddr) -> String {
    format!(
        r#"[http]
listen = "{http}"
[sip]
listen = ["udp:{sip}"]
max_sessions = 50000
[media]
address = "127.0.0.1"
ports = "10000-59999"
silence_seconds = 3600
[store]
url = "sqlite:{database}"
[egress]
allow_private_targets = true
[drain]
deadline_seconds = 1
[log]
filter = "warn"
[[trunk]]
name = "bench"
address = "{callee}"
allow = ["127.0.0.1"]
max_calls = 100000
max_calls_per_second = 100000
"#,
        database = database.display()
    )
}

fn free_udp() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn free_tcp() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
