//! rtpengine as a process, in user space.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::UdpSocket;

use super::ports::Ports;
use super::site::SWITCH_ADDRESS;

/// A running daemon.
#[derive(Debug)]
pub struct Rtpengine(Child);

impl Rtpengine {
    /// Starts the first or second of a test; it takes orders on return.
    pub async fn start(folder: &Path, ports: &Ports, number: u16) -> Self {
        let log = File::create(folder.join(format!("rtpengine-{number}.log"))).unwrap();
        let (first, last) = ports.rtpengine_media(number);
        let orders = format!("{SWITCH_ADDRESS}:{}", ports.rtpengine(number));
        let presses = format!("{SWITCH_ADDRESS}:{}", ports.rtpengine_presses());
        let process = Command::new("rtpengine")
            .args(["--config-file=none", "--table=-1", "--foreground"])
            .args(["--log-stderr", "--log-level=5", "--num-threads=1"])
            .arg(format!("--interface={SWITCH_ADDRESS}"))
            .arg(format!("--listen-ng={orders}"))
            .arg(format!("--dtmf-log-dest={presses}"))
            .arg(format!("--port-min={first}"))
            .arg(format!("--port-max={last}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("rtpengine starts; scripts/setup installs it");
        let started = Self(process);
        let asking = UdpSocket::bind((SWITCH_ADDRESS, 0)).await.unwrap();
        asking.connect(orders).await.unwrap();
        for _ in 0..200 {
            // Refused until it listens.
            let _ = asking.send(b"1 {\"command\":\"ping\"}").await;
            let mut answer = [0; 100];
            let answered = asking.recv(&mut answer);
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(50), answered).await {
                return started;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("rtpengine takes no orders");
    }
}

impl Drop for Rtpengine {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}
