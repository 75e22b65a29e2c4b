//! SIP by hand, for what no proper phone would send: a socket, text out, text in.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A UDP socket at one of the trunk's addresses that says what it is told.
#[derive(Debug)]
pub struct Raw {
    socket: UdpSocket,
    switch: SocketAddr,
}

impl Raw {
    /// Opens it at any port of `address`.
    pub async fn open(address: &str, switch_port: u16) -> Self {
        let socket = UdpSocket::bind(format!("{address}:0")).await.unwrap();
        Self {
            socket,
            switch: format!("127.0.0.1:{switch_port}").parse().unwrap(),
        }
    }

    /// The address that requests name as their sender's.
    pub fn local(&self) -> String {
        self.socket.local_addr().unwrap().to_string()
    }

    /// Sends bytes as they are.
    pub async fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.switch).await.unwrap();
    }

    /// A proper request of this method, with these lines added and this body, outside of any
    /// dialog. `name` tells its Call-ID and branch from others.
    pub fn request(&self, method: &str, name: &str, lines: &str, body: &str) -> String {
        let local = self.local();
        let max_forwards = if lines.contains("Max-Forwards:") {
            ""
        } else {
            "Max-Forwards: 70\r\n"
        };
        format!(
            "{method} sip:+6531580001@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bK-{name};rport\r\n\
             {max_forwards}From: <sip:+6591110001@127.0.0.2>;tag={name}\r\n\
             To: <sip:+6531580001@127.0.0.1>\r\nCall-ID: {name}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:{local}>\r\n{lines}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// The next message that is no provisional response; `None` if nothing comes.
    pub async fn answer(&self, wait: Duration) -> Option<String> {
        let mut bytes = vec![0; 65_536];
        loop {
            let read = timeout(wait, self.socket.recv(&mut bytes))
                .await
                .ok()?
                .unwrap();
            let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
            if !text.starts_with("SIP/2.0 1") {
                return Some(text);
            }
        }
    }

    /// The status that comes in answer to a request, and the whole answer.
    pub async fn status_of(&self, request: &str) -> (Option<u16>, String) {
        self.send(request.as_bytes()).await;
        let answer = self
            .answer(Duration::from_secs(5))
            .await
            .unwrap_or_default();
        (
            answer.get(8..11).and_then(|status| status.parse().ok()),
            answer,
        )
    }
}
