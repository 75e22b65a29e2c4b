//! What stands at the other end of the wire: texts, a datagram phone, a stream phone.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use maskline_switch::sip::framing::{Frame, StreamFramer};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::world::{CALLER, PATIENCE, VIRTUAL};

/// The first value of a header.
pub fn header(message: &str, name: &str) -> String {
    message
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")))
        .unwrap_or_else(|| panic!("no {name} in {message}"))
        .to_owned()
}

pub fn start_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

pub fn options(via: &str, call_id: &str) -> String {
    format!(
        "OPTIONS sip:{VIRTUAL}@switch.example SIP/2.0\r\nVia: SIP/2.0/{via};branch=z9hG4bK{call_id};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:probe@a.example>;tag=1\r\nTo: <sip:{VIRTUAL}@switch.example>\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

fn sdp(at: SocketAddr) -> String {
    let ip = at.ip();
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 30000 RTP/AVP 0 101\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n"
    )
}

/// A's INVITE; `via` is transport and sent-by.
pub fn invite(via: &str, at: SocketAddr, call_id: &str) -> String {
    let sdp = sdp(at);
    format!(
        "INVITE sip:{VIRTUAL}@switch.example SIP/2.0\r\nVia: SIP/2.0/{via};branch=z9hG4bKi{call_id};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{CALLER}@a.example>;tag=atag\r\nTo: <sip:{VIRTUAL}@switch.example>\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{at}>\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

/// A request of A within the dialog that `answer` (a 200) made.
pub fn in_dialog(method: &str, cseq: u32, via: &str, answer: &str) -> String {
    let contact = header(answer, "Contact");
    let target = contact.trim_start_matches('<').split('>').next().unwrap();
    format!(
        "{method} {target} SIP/2.0\r\nVia: SIP/2.0/{via};branch=z9hG4bK{method}{cseq};rport\r\nMax-Forwards: 70\r\n\
         From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
        header(answer, "From"),
        header(answer, "To"),
        header(answer, "Call-ID")
    )
}

/// The other party's answer to a request of ours; a 200 to an INVITE has SDP.
pub fn answer(request: &str, status: &str, at: SocketAddr) -> String {
    let to = header(request, "To");
    let to = if to.contains("tag=") {
        to
    } else {
        format!("{to};tag=btag")
    };
    let body = if status.starts_with("200") && request.starts_with("INVITE") {
        sdp(at)
    } else {
        String::new()
    };
    let typed = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/sdp\r\n"
    };
    format!(
        "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <sip:b@{at}>\r\n\
         {typed}Content-Length: {}\r\n\r\n{body}",
        header(request, "Via"),
        header(request, "From"),
        header(request, "Call-ID"),
        header(request, "CSeq"),
        body.len()
    )
}

/// One end of a conversation.
#[allow(async_fn_in_trait)]
pub trait Phone {
    fn local(&self) -> SocketAddr;
    async fn say(&mut self, text: &str);
    async fn hear(&mut self) -> String;

    /// The next message with this start, retransmissions of others passed over.
    async fn expect(&mut self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        while Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.hear()).await {
                Ok(message) if message.starts_with(start) => return message,
                Ok(message) => others.push(start_line(&message).to_owned()),
                Err(_) => break,
            }
        }
        panic!("no {start}, only {others:?}");
    }
}

/// A phone on UDP.
pub struct Datagrams {
    socket: UdpSocket,
    switch: SocketAddr,
}

impl Datagrams {
    /// At a free port of this address; `switch` may be set later by [`Self::towards`].
    pub async fn at(address: IpAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).await.unwrap();
        let switch = socket.local_addr().unwrap();
        Self { socket, switch }
    }

    pub const fn towards(mut self, switch: SocketAddr) -> Self {
        self.switch = switch;
        self
    }

    pub fn via(&self) -> String {
        format!("UDP {}", self.local())
    }

    pub async fn say_bytes(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.switch).await.unwrap();
    }
}

impl Phone for Datagrams {
    fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    async fn say(&mut self, text: &str) {
        self.say_bytes(text.as_bytes()).await;
    }

    async fn hear(&mut self) -> String {
        let mut buffer = vec![0; 65_535];
        let (bytes, _) = self.socket.recv_from(&mut buffer).await.unwrap();
        String::from_utf8(buffer[..bytes].to_vec()).unwrap()
    }
}

/// A phone on TCP.
pub struct Stream {
    stream: TcpStream,
    framer: StreamFramer,
}

impl Stream {
    /// Connects from this address.
    pub async fn open(from: IpAddr, switch: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        Self::over(socket.connect(switch).await.unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            framer: StreamFramer::default(),
        }
    }

    pub fn via(&self) -> String {
        format!("TCP {}", self.local())
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads exactly so many bytes.
    pub async fn hear_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        bytes
    }

    /// The next message, ping or pong.
    pub async fn frame(&mut self) -> Frame {
        let mut chunk = [0; 4_096];
        loop {
            if let Some(frame) = self.framer.next_frame().unwrap() {
                return frame;
            }
            let bytes = self.stream.read(&mut chunk).await.unwrap();
            assert!(bytes > 0, "the switch closed the connection");
            self.framer.push(&chunk[..bytes]);
        }
    }

    /// Ends the connection without a goodbye.
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Waits for the other side to close; what it said before is passed over.
    pub async fn is_closed(&mut self) {
        let mut buffer = [0; 4_096];
        let closing = async {
            // A reset is an end as well.
            while matches!(self.stream.read(&mut buffer).await, Ok(1..)) {}
        };
        tokio::time::timeout(PATIENCE, closing).await.unwrap();
    }
}

impl Phone for Stream {
    fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> String {
        loop {
            if let Frame::Message(message) = self.frame().await {
                return String::from_utf8(message.to_vec()).unwrap();
            }
        }
    }
}
