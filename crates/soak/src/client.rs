//! A client of the switch's API: one kept connection, HTTP/1.1 as far as that API speaks it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The admin key of every switch that is soaked.
pub(crate) const ADMIN_KEY: &str = "an-admin-key-for-the-soak-0123456789abcdef";

/// One request, from connecting to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// Of an answer: 1,000 events with their bodies.
const LONGEST: usize = 16 * 1024 * 1024;

/// One connection, made when it is needed.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer; its body is in the client.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: Vec::new(),
        }
    }

    /// One request. After a failure it is not known whether it was heeded; the next one connects anew.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<Answer<'_>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => timeout(DEADLINE, TcpStream::connect(self.address)).await??,
        };
        stream.set_nodelay(true)?;
        let exchange = exchange(&mut stream, &mut self.buffer, method, path, body);
        let (status, head, closes) = timeout(DEADLINE, exchange).await??;
        if !closes {
            self.stream = Some(stream);
        }
        let body = self.buffer.get(head..).unwrap_or_default();
        Ok(Answer { status, body })
    }
}

/// The status, where the body begins, and whether the connection ends with it.
async fn exchange(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<(u16, usize, bool)> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: soak\r\nauthorization: Bearer {ADMIN_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    buffer.clear();
    let head = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let length = field(&text, "content-length").and_then(|length| length.parse::<usize>().ok());
    let (Some(status), Some(length)) = (status, length) else {
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    };
    if length > LONGEST {
        return Err(ErrorKind::FileTooLarge.into());
    }
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((status, head, field(&text, "connection") == Some("close")))
}

/// A header of a head in small letters.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found == name).then(|| value.trim())
    })
}

/// Where a text begins in another.
pub(crate) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|it| it == wanted)
}
