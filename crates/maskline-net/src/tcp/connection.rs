//! One TCP or TLS connection: cutting what arrives into messages, writing what is queued.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use maskline_switch::sip::framing::{Frame, FramingError, StreamFramer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Connections, Opened, Place};
use crate::keepalive::PING;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// How many queued messages are written at once.
const WRITE_BATCH: usize = 32;
/// How long the last queued messages may take when a connection ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A peer that vanished is found after about this time, and nine probes a tenth of it apart.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer closed it.
    ByPeer,
    /// The peer reset it, or vanished.
    Broken,
    /// The peer took no bytes, or fewer than were to be sent.
    Unwritable,
    /// It brought nothing for long.
    Idle,
    /// It began a message and did not bring the rest.
    Unfinished,
    /// It did not answer a ping.
    Silent,
    /// What it brought can't be cut into messages.
    Unframable(FramingError),
    /// The node stops.
    Stopped,
}

impl End {
    const fn reason(self) -> &'static str {
        match self {
            Self::ByPeer => "peer",
            Self::Broken => "broken",
            Self::Unwritable => "unwritable",
            Self::Idle => "idle",
            Self::Unfinished => "unfinished",
            Self::Silent => "silent",
            Self::Unframable(_) => "unframable",
            Self::Stopped => "stopped",
        }
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    place: Place,
    queue: mpsc::Receiver<Bytes>,
) {
    let connections = Arc::clone(&place.connections);
    let (peer, serves) = (place.peer, place.serves);
    let finish = CancellationToken::new();
    let writing = write(writer, queue, finish.clone(), connections.limits.write);
    tokio::pin!(writing);
    let (end, unsent) = tokio::select! {
        end = read(reader, &place, &connections) => (end, false),
        written = &mut writing => (End::Unwritable, written.is_err()),
        () = place.entry.cut.cancelled() => (End::Unwritable, true),
        () = connections.stop.cancelled() => (End::Stopped, false),
    };
    finish.cancel();
    let unsent = unsent
        || (end != End::Unwritable
            && !matches!(tokio::time::timeout(LAST_WORDS, writing).await, Ok(Ok(()))));
    metrics::counter!("maskline_sip_tcp_closed_total", "reason" => end.reason()).increment(1);
    if let End::Unframable(error) = end {
        tracing::warn!(peer = %peer.addr, %error, "a SIP connection is closed");
    } else {
        tracing::debug!(peer = %peer.addr, reason = end.reason(), "a SIP connection ended");
    }
    drop(place);
    if (unsent || matches!(end, End::Broken | End::Silent)) && end != End::Stopped {
        connections.failed(peer);
        if let Some(serves) = serves {
            connections.failed(serves);
        }
    }
}

/// Sets a new socket up.
pub(super) fn prepare(stream: &TcpStream) {
    // Neither is needed for the connection to work.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 10);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

async fn read(mut reader: impl AsyncRead + Unpin, place: &Place, connections: &Connections) -> End {
    let mut framer = StreamFramer::default();
    let mut chunk = vec![0_u8; READ_BYTES];
    let mut idle_at = Instant::now() + connections.limits.idle;
    let mut whole_by: Option<Instant> = None;
    let mut pulse = Pulse::new(place, connections);
    loop {
        let until = [whole_by, pulse.as_ref().map(|pulse| pulse.at)];
        let until = until.into_iter().flatten().fold(idle_at, Instant::min);
        let bytes = match tokio::time::timeout_at(until, reader.read(&mut chunk)).await {
            Err(_) if whole_by == Some(until) => return End::Unfinished,
            Err(_) if pulse.as_ref().is_some_and(|pulse| pulse.at == until) => {
                match pulse.as_mut().map(|pulse| pulse.beat(place)) {
                    Some(Beat::Pinged) => framer.expect_pong(),
                    Some(Beat::Missed) => return End::Silent,
                    None => {}
                }
                continue;
            }
            Err(_) => return End::Idle,
            Ok(Ok(0)) => return End::ByPeer,
            // TLS without a goodbye: a message that was cut short shows by its length.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return End::ByPeer,
            Ok(Err(_)) => return End::Broken,
            Ok(Ok(bytes)) => bytes,
        };
        framer.push(chunk.get(..bytes).unwrap_or_default());
        if let Some(pulse) = &mut pulse {
            pulse.heard();
        }
        let mut began_now = whole_by.is_none();
        loop {
            let answer = match framer.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Ping)) => Some(Bytes::from_static(b"\r\n")),
                Ok(Some(Frame::Pong)) => None,
                Ok(Some(Frame::Message(message))) => {
                    let intake = &connections.intake;
                    intake.frame(place.peer, place.trunk, message).await
                }
                Err(error) => return End::Unframable(error),
            };
            idle_at = Instant::now() + connections.limits.idle;
            began_now = true;
            // A peer that does not read its answers is read no further.
            if let Some(answer) = answer
                && place.entry.queue.send(answer).await.is_err()
            {
                return End::Unwritable;
            }
        }
        // Taken after the frames, so that waiting for a shard does not count against the peer.
        if !framer.is_within_message() {
            whole_by = None;
        } else if began_now {
            whole_by = Some(Instant::now() + connections.limits.message);
        }
    }
}

/// Pings on a connection that we opened (RFC 5626 §3.5.1). Any bytes prove that the peer lives.
struct Pulse {
    every: Duration,
    patience: Duration,
    /// When the next ping is due, or its answer at the latest.
    at: Instant,
    awaited: bool,
}

enum Beat {
    Pinged,
    Missed,
}

impl Pulse {
    fn new(place: &Place, connections: &Connections) -> Option<Self> {
        if place.opened == Opened::ByPeer {
            return None;
        }
        let every = connections.pinged(place.peer)?;
        Some(Self {
            every,
            patience: connections.limits.pong,
            at: Instant::now() + every,
            awaited: false,
        })
    }

    fn beat(&mut self, place: &Place) -> Beat {
        if self.awaited {
            return Beat::Missed;
        }
        // A full queue has something to say anyway.
        if place.entry.queue.try_send(Bytes::from_static(PING)).is_ok() {
            metrics::counter!("maskline_sip_keepalives_total", "transport" => "stream")
                .increment(1);
        }
        self.awaited = true;
        self.at = Instant::now() + self.patience;
        Beat::Pinged
    }

    fn heard(&mut self) {
        if std::mem::take(&mut self.awaited) {
            self.at = Instant::now() + self.every;
        }
    }
}

/// Writes what is queued; after `finish`, what is queued by then.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Bytes>,
    finish: CancellationToken,
    patience: Duration,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    loop {
        tokio::select! {
            biased;
            () = finish.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
            count = queue.recv_many(&mut batch, WRITE_BATCH) => if count == 0 {
                return writer.shutdown().await;
            },
        }
        let mut joined = BytesMut::new();
        for message in batch.drain(..) {
            joined.extend_from_slice(&message);
        }
        let writing = async {
            writer.write_all(&joined).await?;
            writer.flush().await
        };
        tokio::time::timeout(patience, writing).await??;
    }
}
