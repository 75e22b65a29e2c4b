//! One `rtpengine`: asked by UDP, asked again until it answers, and known to be up or down.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::protocol::{MAX_DATAGRAM_BYTES, Request, Response};

/// A request is sent again after each but the last of these: the daemon does the same thing once.
const WAITS: [Duration; 3] = [
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(600),
];
/// How often it is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Requests that are under way at once: more would be lost in the buffers of sockets.
const AT_ONCE: usize = 256;
/// So many requests in turn without an answer, and it is down: one may get lost.
const MISSES: u64 = 2;
/// Of what a daemon says of an error.
const MAX_REASON_CHARS: usize = 200;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    #[error("it does not answer")]
    Silent,
    #[error("nobody listens there")]
    Gone,
    #[error("its answer can't be read: {0}")]
    Unreadable(String),
    #[error("it answers: {0}")]
    Refused(String),
}

/// One daemon.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    socket: UdpSocket,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>,
    up: AtomicBool,
    misses: AtomicU64,
    turns: Semaphore,
    /// Sessions that are carried there.
    pub(crate) sessions: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Calls that were deleted because nobody had them.
    pub(crate) leftovers: AtomicU64,
    /// How often it was looked through for those.
    pub(crate) looks: AtomicU64,
}

/// Takes a request off the list however the asking ends.
struct Waiting<'a> {
    instance: &'a Instance,
    cookie: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.instance.waiting().remove(&self.cookie);
    }
}

impl Instance {
    /// It counts as up until it was asked in vain.
    pub(crate) async fn new(address: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        Ok(Self {
            address,
            socket,
            waiting: Mutex::default(),
            up: AtomicBool::new(true),
            misses: AtomicU64::new(0),
            turns: Semaphore::new(AT_ONCE),
            sessions: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            leftovers: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Asks, for a second at most, once it has its turn.
    ///
    /// # Errors
    /// [`Fault`]. One that does not answer, again and again, is down from then on.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Response, Fault> {
        let _turn = self.turns.acquire().await;
        self.ask_at_once(request, &WAITS).await
    }

    /// As [`Self::ask`], for half a second.
    pub(crate) async fn ask_briefly(&self, request: &Request) -> Result<Response, Fault> {
        let _turn = self.turns.acquire().await;
        let [first, second, _] = WAITS;
        self.ask_at_once(request, &[first, second]).await
    }

    async fn ask_at_once(&self, request: &Request, waits: &[Duration]) -> Result<Response, Fault> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.exchange(request, waits).await;
        if answer.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        match &answer {
            Ok(_) | Err(Fault::Refused(_)) => {
                self.misses.store(0, Ordering::Relaxed);
                self.now_is(true);
            }
            Err(Fault::Gone) => self.now_is(false),
            Err(Fault::Silent | Fault::Unreadable(_)) => {
                if self.misses.fetch_add(1, Ordering::Relaxed) + 1 >= MISSES {
                    self.now_is(false);
                }
            }
        }
        answer
    }

    async fn exchange(&self, request: &Request, waits: &[Duration]) -> Result<Response, Fault> {
        let (answered, mut answer) = oneshot::channel();
        let cookie: u64 = rand::random();
        self.waiting().insert(cookie, answered);
        let _waiting = Waiting {
            instance: self,
            cookie,
        };
        let datagram = request
            .write(&format!("{cookie:016x}"))
            .map_err(|error| Fault::Unreadable(error.to_string()))?;
        for wait in waits {
            // One that can't be sent is as good as one that gets lost.
            let _ = self.socket.send(&datagram).await;
            match tokio::time::timeout(*wait, &mut answer).await {
                Ok(Ok(body)) => return read(&body),
                Ok(Err(_)) => return Err(Fault::Gone),
                Err(_) => {}
            }
        }
        Err(Fault::Silent)
    }

    /// Hands out what the daemon answers.
    pub(crate) async fn receive(self: Arc<Self>, stop: CancellationToken) {
        let mut room = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let received = tokio::select! {
                received = self.socket.recv(&mut room) => received,
                () = stop.cancelled() => return,
            };
            match received {
                Ok(length) => self.answered(room.get(..length).unwrap_or_default()),
                // Nobody listens there; there is one such error for each request that was sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.waiting().clear();
                }
                Err(error) => {
                    tracing::warn!(instance = %self.address, %error, "rtpengine can't be heard");
                    tokio::time::sleep(PING_EVERY).await;
                }
            }
        }
    }

    /// An answer that nobody waits for came twice, or late, or from nobody that was asked.
    fn answered(&self, datagram: &[u8]) {
        let Some((cookie, body)) = Response::split(datagram) else {
            return;
        };
        let Ok(cookie) = u64::from_str_radix(cookie, 16) else {
            return;
        };
        if let Some(waiting) = self.waiting().remove(&cookie) {
            let _ = waiting.send(body.to_vec());
        }
    }

    /// Asks it again and again whether it is there.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut every = tokio::time::interval(PING_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = stop.cancelled() => return,
            }
            // It waits for nobody's turn, and says by itself what came of it.
            let _ = self.ask_at_once(&Request::Ping {}, &WAITS).await;
        }
    }

    fn now_is(&self, up: bool) {
        match (self.up.swap(up, Ordering::Relaxed), up) {
            (false, true) => tracing::info!(instance = %self.address, "rtpengine answers again"),
            (true, false) => {
                tracing::warn!(instance = %self.address, "rtpengine does not answer: new calls go to the others");
            }
            (true, true) | (false, false) => {}
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Vec<u8>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(body: &[u8]) -> Result<Response, Fault> {
    let response = Response::read(body).map_err(|error| Fault::Unreadable(error.to_string()))?;
    if response.is_ok() {
        return Ok(response);
    }
    let reason = response.reason.unwrap_or(response.result);
    let reason = reason.chars().filter(|it| !it.is_control());
    Err(Fault::Refused(reason.take(MAX_REASON_CHARS).collect()))
}
