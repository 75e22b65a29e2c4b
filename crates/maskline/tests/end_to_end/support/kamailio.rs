//! Kamailio as a process: a carrier that registers users, asks for passwords and routes calls; or
//! what another file of the scenarios makes of it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::eventually;

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    process: Child,
    folder: PathBuf,
}

impl Kamailio {
    /// Starts it at an address; calls of the switch go on to `callee`. Its port is open on return.
    pub async fn start(folder: &Path, address: SocketAddr, callee: SocketAddr) -> Self {
        let fill = [
            ("ADDRESS", address.to_string()),
            ("CALLEE", callee.to_string()),
            ("SWITCH", "127.0.0.1".to_owned()),
        ];
        Self::start_with(folder, "kamailio.cfg", &fill, address).await
    }

    /// Starts it by a file of the scenarios, with values for its placeholders. Its UDP port at
    /// `address` is open on return.
    pub async fn start_with(
        folder: &Path,
        file: &str,
        fill: &[(&str, String)],
        address: SocketAddr,
    ) -> Self {
        let scenarios = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/scenarios");
        let mut text = fs::read_to_string(format!("{scenarios}/{file}")).unwrap();
        for (name, value) in fill {
            text = text.replace(&format!("@{name}@"), value);
        }
        let config = folder.join("kamailio.cfg");
        fs::write(&config, text).unwrap();
        let log = File::create(folder.join("kamailio.log")).unwrap();
        let mut process = Command::new("/usr/sbin/kamailio")
            .arg("-f")
            .arg(&config)
            .args(["-DD", "-E", "-m", "32", "-M", "8", "-Y"])
            .arg(folder)
            .arg("-w")
            .arg(folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("Kamailio starts; scripts/setup installs it");
        let octets = match address {
            SocketAddr::V4(address) => address.ip().octets(),
            SocketAddr::V6(_) => panic!("IPv4 here"),
        };
        let local = format!("{:08X}:{:04X} ", u32::from_le_bytes(octets), address.port());
        eventually("Kamailio opens its port", Duration::from_secs(10), || {
            if let Some(status) = process.try_wait().unwrap() {
                let log = fs::read_to_string(folder.join("kamailio.log"));
                panic!("Kamailio ended with {status}: {}", log.unwrap_or_default());
            }
            fs::read_to_string("/proc/net/udp")
                .unwrap()
                .contains(&local)
                .then_some(())
        })
        .await;
        Self {
            process,
            folder: folder.to_owned(),
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("kamailio.log")).unwrap_or_default()
    }
}

impl Drop for Kamailio {
    /// A failing test leaves no process behind. Its children end with it on SIGTERM only; one that
    /// comes while they begin costs its `exit_timeout`.
    fn drop(&mut self) {
        let id = self.process.id().to_string();
        let _told = Command::new("kill").args(["-TERM", &id]).status();
        for _ in 0..400 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}
