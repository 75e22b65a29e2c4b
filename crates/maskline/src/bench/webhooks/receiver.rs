//! The receiver of a measurement of deliveries: as little work as an HTTP receiver can do, on one
//! thread, so that what is left of the machine is the sender's. It checks that each event comes
//! once and in its session's order, and every hundredth signature.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::Context;
use maskline_events::signing::{self, SignedHeaders};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::session_of;

/// Of how many webhooks the signature of one is checked.
const CHECKED: u64 = 100;
/// Most bytes of a request; a sender that sends more is cut off.
const REQUEST_BYTES: usize = 64 << 10;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What came of one run's events.
pub(super) struct Book {
    /// The run: it is part of the sessions' ids.
    run: u32,
    /// Of each session the last sequence number.
    last: Vec<AtomicU8>,
    /// When each event came, in microseconds since `began`, by session and sequence; 0: it did not.
    at: Vec<AtomicU32>,
    began: Instant,
    pub(super) events: AtomicU64,
    pub(super) summaries: AtomicU64,
    /// Events that came before an earlier one of their session, or again.
    pub(super) disordered: AtomicU64,
}

/// Events of a session that the book has room for.
pub(super) const MOST_STEPS: u32 = 8;

impl Book {
    pub(super) fn new(run: u32, sessions: u32) -> Self {
        let sessions = usize::try_from(sessions).unwrap_or(0);
        let steps = usize::try_from(MOST_STEPS).unwrap_or(0);
        Self {
            run,
            last: (0..sessions).map(|_| AtomicU8::new(0)).collect(),
            at: (0..sessions * steps).map(|_| AtomicU32::new(0)).collect(),
            began: Instant::now(),
            events: AtomicU64::new(0),
            summaries: AtomicU64::new(0),
            disordered: AtomicU64::new(0),
        }
    }

    pub(super) const fn run(&self) -> u32 {
        self.run
    }

    /// The time by which the book goes, in microseconds.
    pub(super) fn now(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_micros()).unwrap_or(u32::MAX)
    }

    /// When an event came, in microseconds; `None`: it has not.
    pub(super) fn came(&self, session: u32, sequence: u32) -> Option<u32> {
        let at = self.at.get(place(session, sequence)?)?;
        Some(at.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    fn event(&self, session: u32, sequence: u32) {
        let last = usize::try_from(session)
            .ok()
            .and_then(|it| self.last.get(it));
        let (Some(last), Ok(number)) = (last, u8::try_from(sequence)) else {
            return;
        };
        if last.swap(number, Ordering::Relaxed).wrapping_add(1) != number {
            self.disordered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(at) = place(session, sequence).and_then(|it| self.at.get(it)) {
            at.store(self.now().max(1), Ordering::Relaxed);
        }
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

fn place(session: u32, sequence: u32) -> Option<usize> {
    let step = sequence.checked_sub(1).filter(|step| *step < MOST_STEPS)?;
    usize::try_from(session.checked_mul(MOST_STEPS)? + step).ok()
}

/// A running receiver.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    plain: SocketAddr,
    tls: Option<SocketAddr>,
}

struct Shared {
    book: Mutex<Arc<Book>>,
    secrets: Mutex<Vec<Vec<u8>>>,
    requests: AtomicU64,
    /// Signatures that were checked, and those that did not fit.
    checked: AtomicU64,
    forged: AtomicU64,
}

impl Receiver {
    /// Starts on a thread of its own, at `listen` or any port of the loopback interface, and with
    /// TLS on a port beside it.
    pub(super) fn start(
        listen: Option<SocketAddr>,
        tls: Option<TlsAcceptor>,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            book: Mutex::new(Arc::new(Book::new(0, 0))),
            secrets: Mutex::default(),
            requests: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            forged: AtomicU64::new(0),
        });
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bind = |at: SocketAddr| {
            let listener =
                std::net::TcpListener::bind(at).with_context(|| format!("binding {at}"))?;
            listener.set_nonblocking(true)?;
            Ok::<_, anyhow::Error>((listener.local_addr()?, listener))
        };
        let (plain, plain_listener) = bind(listen.unwrap_or(any))?;
        let secure = tls
            .map(|acceptor| bind(any).map(|(address, listener)| (address, listener, acceptor)))
            .transpose()?;
        let tls = secure.as_ref().map(|(address, ..)| *address);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let served = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let secure = secure.map(|(_, listener, acceptor)| (listener, acceptor));
                    // It serves as long as the measurement runs.
                    let _ = serve(plain_listener, secure, served).await;
                });
            })?;
        Ok(Self { shared, plain, tls })
    }

    pub(super) const fn plain(&self) -> SocketAddr {
        self.plain
    }

    pub(super) const fn tls(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// Takes the webhooks of a new run, which are signed with one of these secrets.
    pub(super) fn begin(&self, book: Arc<Book>, secrets: Vec<Vec<u8>>) {
        *self
            .shared
            .book
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = book;
        *self
            .shared
            .secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = secrets;
    }

    /// Signatures that were checked, and those that did not fit.
    pub(super) fn signatures(&self) -> (u64, u64) {
        (
            self.shared.checked.load(Ordering::Relaxed),
            self.shared.forged.load(Ordering::Relaxed),
        )
    }
}

async fn serve(
    plain: std::net::TcpListener,
    secure: Option<(std::net::TcpListener, TlsAcceptor)>,
    shared: Arc<Shared>,
) -> std::io::Result<()> {
    let plain = TcpListener::from_std(plain)?;
    if let Some((listener, acceptor)) = secure {
        let listener = TcpListener::from_std(listener)?;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(stream, &shared).await;
                    }
                });
            }
        });
    }
    loop {
        let (stream, _) = plain.accept().await?;
        stream.set_nodelay(true)?;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { connection(stream, &shared).await });
    }
}

async fn connection(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) {
    let mut buffer = Vec::with_capacity(8 << 10);
    loop {
        while let Some((head, whole)) = request(&buffer) {
            shared.take(
                buffer.get(..head).unwrap_or_default(),
                buffer.get(head..whole).unwrap_or_default(),
            );
            buffer.drain(..whole);
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
        if buffer.len() > REQUEST_BYTES {
            return;
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// The length of a request's head and of all of it, once it is whole.
fn request(buffer: &[u8]) -> Option<(usize, usize)> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let body: usize = header(buffer.get(..head)?, "content-length")
        .parse()
        .unwrap_or(0);
    let whole = head.checked_add(body)?;
    (buffer.len() >= whole).then_some((head, whole))
}

/// A header's value; empty: there is none.
fn header<'a>(head: &'a [u8], name: &str) -> &'a str {
    head.split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (key, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            key.eq_ignore_ascii_case(name.as_bytes())
                .then(|| std::str::from_utf8(value).unwrap_or_default().trim())
        })
        .unwrap_or_default()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|it| it == what)
}

impl Shared {
    fn take(&self, head: &[u8], body: &[u8]) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(CHECKED) {
            self.check(head, body);
        }
        let book = Arc::clone(&self.book.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(session) =
            value(body, b"\"sessionId\":\"").and_then(|it| session_of(it, book.run))
        else {
            // Of an earlier run, or none of ours.
            return;
        };
        match value(body, b"\"sequence\":").map(leading_number) {
            Some(sequence) => book.event(session, sequence),
            None => {
                book.summaries.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn check(&self, head: &[u8], body: &[u8]) {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if secrets.is_empty() {
            return;
        }
        self.checked.fetch_add(1, Ordering::Relaxed);
        let headers = SignedHeaders::read(|name| header(head, name));
        let now = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        let tolerance = signing::DEFAULT_TOLERANCE_SECONDS;
        if signing::verify(&secrets, headers, body, now, tolerance).is_err() {
            self.forged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What follows a name in a body.
fn value<'a>(body: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    body.get(find(body, name)? + name.len()..)
}

fn leading_number(text: &[u8]) -> u32 {
    text.iter()
        .map_while(|byte| char::from(*byte).to_digit(10))
        .fold(0, |number, digit| number.saturating_mul(10) + digit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::bench::webhooks::session_id;

    #[test]
    fn a_request_is_taken_when_it_is_whole_and_its_event_is_found() {
        let body = format!(
            r#"{{"payload":{{"sessionId":"{}","sequence":12,"a":1}}}}"#,
            session_id(3, 5)
        );
        let text = format!(
            "POST /vcs HTTP/1.1\r\nhost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let bytes = text.as_bytes();
        assert_eq!(request(bytes.get(..bytes.len() - 1).unwrap()), None);
        let (head, whole) = request(bytes).unwrap();
        assert_eq!(
            (bytes.get(head..whole).unwrap(), whole),
            (body.as_bytes(), bytes.len())
        );
        let id = value(body.as_bytes(), b"\"sessionId\":\"").unwrap();
        assert_eq!((session_of(id, 3), session_of(id, 4)), (Some(5), None));
        assert_eq!(
            leading_number(value(body.as_bytes(), b"\"sequence\":").unwrap()),
            12
        );
    }

    #[test]
    fn the_book_tells_what_came_out_of_order_or_twice() {
        let book = Book::new(1, 2);
        for (session, sequence) in [(0, 1), (1, 1), (0, 2), (0, 2), (1, 3)] {
            book.event(session, sequence);
        }
        assert_eq!(book.events.load(Ordering::Relaxed), 5);
        assert_eq!(book.disordered.load(Ordering::Relaxed), 2);
        assert!(book.came(1, 3).is_some() && book.came(1, 2).is_none());
    }
}
