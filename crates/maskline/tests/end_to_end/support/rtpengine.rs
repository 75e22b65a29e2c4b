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
pub struct Rtpengine {
    process: Child,
    orders: String,
}

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
        let started = Self {
            process,
            orders: orders.clone(),
        };
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

    /// The names of its calls.
    pub async fn calls(&self) -> Vec<String> {
        let asking = UdpSocket::bind((SWITCH_ADDRESS, 0)).await.unwrap();
        asking.connect(&self.orders).await.unwrap();
        for attempt in 0..50 {
            // To the same cookie, it says the same again.
            let port = asking.local_addr().unwrap().port();
            let order = format!("{port}-{attempt} {{\"command\":\"list\",\"limit\":100}}");
            let _ = asking.send(order.as_bytes()).await;
            let mut answer = vec![0; 65_535];
            let answered = asking.recv(&mut answer);
            let answered = tokio::time::timeout(Duration::from_millis(200), answered).await;
            if let Ok(Ok(length)) = answered {
                let text = std::str::from_utf8(&answer[..length]).unwrap();
                let (_, body) = text.split_once(' ').unwrap();
                let body: serde_json::Value = serde_json::from_str(body).unwrap();
                let names = body["calls"].as_array().unwrap().iter();
                return names.map(|it| it.as_str().unwrap().to_owned()).collect();
            }
        }
        panic!("rtpengine lists no calls");
    }
}

impl Drop for Rtpengine {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}
