//! `maskline serve` as a process: its configuration, its start, its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::client;
use super::eventually;

/// The admin key of every switch under test.
pub const ADMIN_KEY: &str = "an-admin-key-for-the-tests-0123456789abcdef";

/// A running switch.
#[derive(Debug)]
pub struct Switch {
    process: Child,
    folder: PathBuf,
    http: u16,
}

impl Switch {
    /// Starts it in its folder with the configuration `maskline.toml` there, and waits until it
    /// takes requests.
    pub async fn start(folder: &Path, http: u16) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("switch.log"))
            .unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_maskline"))
            .args(["serve", "--config", "maskline.toml"])
            .current_dir(folder)
            .env("MASKLINE_ADMIN_KEY", ADMIN_KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut switch = Self {
            process,
            folder: folder.to_owned(),
            http,
        };
        switch.wait_until_healthy().await;
        switch
    }

    async fn wait_until_healthy(&mut self) {
        let mut last = None;
        for _ in 0..1_000 {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the switch ended with {status}\n{}", self.log());
            }
            let answer = client::request(self.http, "GET", "/healthz", "", None).await;
            if answer.as_ref().is_some_and(|answer| answer.status == 200) {
                return;
            }
            last = answer;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "the switch is not healthy after 20 s: {last:?}\n{}",
            self.log()
        );
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The end of what it logged.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("switch.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    }

    /// Ends it as a power failure would.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to end, and waits until it has: calls are over or a deadline passed, and events are
    /// delivered or kept.
    pub async fn drain(mut self) -> ExitStatus {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        eventually(
            "the switch ends on SIGTERM",
            Duration::from_secs(20),
            || self.process.try_wait().unwrap(),
        )
        .await
    }
}

impl Drop for Switch {
    /// A failing test leaves no process behind.
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            let _killed = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}
