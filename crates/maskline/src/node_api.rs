//! A running node's API, for the commands that ask it: plain HTTP on the node's own machine, with the
//! admin key.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// How long the API may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest answer that is read: 200 messages of 8 kB, as JSON.
const MOST_BYTES: u64 = 64 << 20;

/// Where it is, and the key.
pub(crate) struct NodeApi<'a> {
    authority: &'a str,
    address: SocketAddr,
    key: String,
}

impl<'a> NodeApi<'a> {
    /// `url`: `http://HOST:PORT`. The key comes from the environment.
    pub(crate) fn new(url: &'a str) -> anyhow::Result<Self> {
        let key = std::env::var("MASKLINE_ADMIN_KEY")
            .ok()
            .filter(|key| !key.is_empty())
            .context("environment MASKLINE_ADMIN_KEY: set the admin key")?;
        let Some(authority) = url.strip_prefix("http://") else {
            bail!(
                "--url: only http:// to the node itself; elsewhere, use an HTTPS client on the API"
            );
        };
        let authority = authority.trim_end_matches('/');
        let address = authority
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next())
            .with_context(|| format!("--url: {authority:?} is not HOST:PORT"))?;
        Ok(Self {
            authority,
            address,
            key,
        })
    }

    /// What a GET answers.
    pub(crate) fn get(&self, path: &str, accept: &str) -> anyhow::Result<Vec<u8>> {
        self.request("GET", path, accept, "")
    }

    /// What a POST of JSON answers.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.request("POST", path, "application/json", &body.to_string())?;
        serde_json::from_slice(&answer).context("the API's answer")
    }

    /// The body of an answer that is no failure.
    fn request(
        &self,
        method: &str,
        path: &str,
        accept: &str,
        body: &str,
    ) -> anyhow::Result<Vec<u8>> {
        let (authority, key) = (self.authority, &self.key);
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)
            .with_context(|| format!("{authority}: is the node up?"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: {accept}\r\n\
             Authorization: Bearer {key}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MOST_BYTES).read_to_end(&mut answer)?;
        let end = answer
            .windows(4)
            .position(|it| it == b"\r\n\r\n")
            .context("the answer is no HTTP")?;
        let body = answer.split_off(end + 4);
        let head = String::from_utf8_lossy(&answer).into_owned();
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !matches!(status, "200" | "202") {
            let fault: Value = serde_json::from_slice(&body).unwrap_or_default();
            let message = fault.get("statusMessage").and_then(Value::as_str);
            let message = message.unwrap_or("no reason given");
            bail!("{authority} answered {status}: {message}");
        }
        Ok(body)
    }
}
