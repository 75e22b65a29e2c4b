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

use super::{Connections, Place};

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
    let peer = place.peer;
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
    if (unsent || end == End::Broken) && end != End::Stopped {
        connections.failed(peer);
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
    loop {
        let until = whole_by.map_or(idle_at, |whole_by| whole_by.min(idle_at));
        let bytes = match tokio::time::timeout_at(until, reader.read(&mut chunk)).await {
            Err(_) if whole_by == Some(until) => return End::Unfinished,
            Err(_) => return End::Idle,
            Ok(Ok(0)) => return End::ByPeer,
            // TLS without a goodbye: a message that was cut short shows by its length.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return End::ByPeer,
            Ok(Err(_)) => return End::Broken,
            Ok(Ok(bytes)) => bytes,
        };
        framer.push(chunk.get(..bytes).unwrap_or_default());
        let mut began_now = whole_by.is_none();
        loop {
            let answer = match framer.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Ping)) => Some(Bytes::from_static(b"\r\n")),
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
