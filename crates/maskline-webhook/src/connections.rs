//! How many connections there are to customers' servers over all hosts, sub-accounts and TLS
//! settings: being made, in use and kept for the next request.
//!
//! Each is counted from before its socket is made until that is closed. One that is kept only saves
//! time, so it counts for nobody and gives way when a new one is wanted: one that its webhook
//! made first, else the one that was used longest ago. Of those that are being made or in use, the
//! more a webhook has, the more must be free for one more. So whoever moves from host to host,
//! or has many that hang, makes its own requests wait and nobody else's, and status events that
//! hang keep no call of the same sub-account from its question.
//!
//! None outlasts its request for long because of a server that reads nothing: what is written has to be
//! taken within a bound, also what is still to be written when nobody waits for the answer any more.
//!
//! What lives elsewhere: making them (`connector`), requests over them (`client`).

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Sleep, sleep, timeout_at};

/// Most connections to customers' servers, each a descriptor. Twice what deliveries have at once
/// by default.
pub const MAX_CONNECTIONS: usize = 2_048;
/// A webhook may have so many in use as long as any is free.
const FEW: usize = 4;
/// How long a request waits for a name lookup and a connection before it fails, at most; never longer
/// than half of its deadline, so that it fails for this and not for being late.
const WAIT: Duration = Duration::from_secs(2);
/// Who waits looks again after this. One is woken for each that is freed, and it may be one that
/// must leave it free.
const LOOKS: Duration = Duration::from_millis(100);
/// How long a connection that was made may wait for its first request before it counts as kept.
const UNUSED: Duration = Duration::from_secs(1);
/// How long TCP may take to accept what is written, from when it first has no room for all of it.
/// What a request holds goes in one piece or a few, so this bounds a connection whose request was
/// given up; it would otherwise be flushed for as long as the other side answers TCP's probes.
const STALLED: Duration = Duration::from_secs(30);

tokio::task_local! {
    /// The webhook whose request is being made. The HTTP client tells a connector of nothing but
    /// the URI.
    static OWNER: Owner;
}

/// Whose request it is.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// The webhook.
    pub(crate) webhook: Arc<str>,
    /// Until when it waits for a place for its lookup or connection: one end for all of the
    /// request, so that want of a place never makes it late.
    pub(crate) ends: Instant,
}

impl Owner {
    /// Of a request that begins now and has this deadline.
    pub(crate) fn new(webhook: Arc<str>, deadline: Duration) -> Self {
        Self {
            webhook,
            ends: Instant::now() + WAIT.min(deadline / 2),
        }
    }
}

/// Makes `request` one of this webhook's.
pub(crate) fn owned<F: Future>(owner: Owner, request: F) -> impl Future<Output = F::Output> {
    OWNER.scope(owner, request)
}

/// Whose request this is.
pub(crate) fn owner() -> Owner {
    let known = OWNER.try_with(Owner::clone);
    known.unwrap_or_else(|_| Owner::new(Arc::from(""), WAIT * 2))
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLevels {
    /// Being made or in use.
    pub used: usize,
    /// Kept for the next request.
    pub kept: usize,
}

/// There are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// All of them. Clones share the count.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    most: usize,
    table: Mutex<Table>,
    /// Told when one is closed or no longer in use.
    freed: Notify,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Open>,
    /// How many of them are being made or in use, of those who have any.
    owners: BTreeMap<Arc<str>, usize>,
    /// Those that are kept, by when they were used last, and the same by who made them.
    kept: BTreeMap<u64, u64>,
    kept_of: BTreeMap<(Arc<str>, u64), u64>,
}

struct Open {
    owner: Arc<str>,
    /// Since when it is kept.
    kept: Option<u64>,
    /// Its stream ends when this is dropped.
    _end: oneshot::Sender<()>,
}

impl Connections {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            most,
            table: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// A place for one more connection, waited for if there is none.
    ///
    /// # Errors
    /// There was none for as long as it waits.
    pub(crate) async fn take(&self, owner: &Owner) -> Result<Place, Full> {
        loop {
            let mut freed = pin!(self.0.freed.notified());
            // Whatever is freed from here on is heard.
            freed.as_mut().enable();
            if let Some(place) = self.try_take(&owner.webhook) {
                return Ok(place);
            }
            let now = Instant::now();
            if now >= owner.ends {
                return Err(Full);
            }
            // Either way it looks again.
            let _ = timeout_at(owner.ends.min(now + LOOKS), freed).await;
        }
    }

    /// A place for one more connection, if there is any for this webhook.
    pub(crate) fn try_take(&self, owner: &Arc<str>) -> Option<Place> {
        let most = self.0.most;
        self.take_of(owner, |has| places(has, most))
    }

    /// A place for a connection beside one that is being made for the same request. It may save
    /// time, and must cost nobody one: half of all must be free.
    pub(crate) fn try_take_another(&self, owner: &Arc<str>) -> Option<Place> {
        let half = self.0.most - self.0.most / 2;
        self.take_of(owner, |_| half)
    }

    /// A place if fewer are in use than there may be by how many the webhook has.
    fn take_of(&self, owner: &Arc<str>, limit: impl Fn(usize) -> usize) -> Option<Place> {
        let most = self.0.most;
        let mut table = self.lock();
        let has = table.owners.get(owner).copied().unwrap_or(0);
        let used = table.open.len() - table.kept.len();
        if used >= limit(has) {
            return None;
        }
        if table.open.len() >= most {
            table.give_one_up(owner);
        }
        let id = table.number();
        let (end, ended) = oneshot::channel();
        let open = Open {
            owner: Arc::clone(owner),
            kept: None,
            _end: end,
        };
        table.open.insert(id, open);
        table.uses(owner);
        Some(Place {
            seat: Seat(Arc::new(Use {
                connections: self.clone(),
                id,
                writes: AtomicU64::new(0),
                kept: AtomicBool::new(false),
            })),
            ended,
        })
    }

    pub(crate) fn levels(&self) -> ConnectionLevels {
        let table = self.lock();
        let kept = table.kept.len();
        ConnectionLevels {
            used: table.open.len() - kept,
            kept,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many may be in use when one more is wanted by who has so many.
fn places(has: usize, most: usize) -> usize {
    if has < FEW {
        most
    } else if has < most / 16 {
        most - most / 4
    } else {
        most - most / 2
    }
}

impl Table {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn uses(&mut self, owner: &Arc<str>) {
        *self.owners.entry(Arc::clone(owner)).or_default() += 1;
    }

    fn uses_no_more(&mut self, owner: &Arc<str>) {
        if let Some(has) = self.owners.get_mut(owner) {
            *has -= 1;
            if *has == 0 {
                self.owners.remove(owner);
            }
        }
    }

    /// Ends the connection that is best given up of those that are kept.
    fn give_one_up(&mut self, owner: &Arc<str>) {
        let own = (Arc::clone(owner), 0)..=(Arc::clone(owner), u64::MAX);
        let own = self.kept_of.range(own).next().map(|(_, id)| *id);
        let given_up = own.or_else(|| self.kept.first_key_value().map(|(_, id)| *id));
        if let Some(id) = given_up {
            self.close(id);
        }
    }

    fn close(&mut self, id: u64) {
        let Some(open) = self.open.remove(&id) else {
            return;
        };
        match open.kept {
            Some(since) => self.keep_no_more(&open.owner, since),
            None => self.uses_no_more(&open.owner),
        }
    }

    fn keep_no_more(&mut self, owner: &Arc<str>, since: u64) {
        self.kept.remove(&since);
        self.kept_of.remove(&(Arc::clone(owner), since));
    }
}

/// The right to one connection, until it is dropped.
pub(crate) struct Place {
    seat: Seat,
    ended: oneshot::Receiver<()>,
}

impl Place {
    /// The connection that it was taken for.
    pub(crate) fn filled(self, tcp: TcpStream) -> Stream {
        Stream {
            tcp,
            place: self,
            has_ended: false,
            stalled: None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connections = &self.seat.0.connections;
        connections.lock().close(self.seat.0.id);
        connections.0.freed.notify_one();
    }
}

/// A connection as those know it who send over it. It comes with each answer.
#[derive(Clone)]
pub(crate) struct Seat(Arc<Use>);

struct Use {
    connections: Connections,
    id: u64,
    /// Counts what is written, to tell one request from the next.
    writes: AtomicU64,
    kept: AtomicBool,
}

impl Seat {
    /// What [`Seat::rest`] is to be told, once a request has been written.
    pub(crate) fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// The answer is whole: the connection is kept from here on, unless the next request went out
    /// over it already.
    pub(crate) fn rest(&self, writes: u64) {
        let mut table = self.0.connections.lock();
        let since = table.number();
        let Some(open) = table.open.get_mut(&self.0.id) else {
            return;
        };
        // Ahead of the look at the writes: whoever writes looks the other way round.
        let was_kept = self.0.kept.swap(true, Ordering::SeqCst);
        if was_kept || self.writes() != writes {
            self.0.kept.store(was_kept, Ordering::SeqCst);
            return;
        }
        open.kept = Some(since);
        let owner = Arc::clone(&open.owner);
        table.kept.insert(since, self.0.id);
        table.kept_of.insert((Arc::clone(&owner), since), self.0.id);
        table.uses_no_more(&owner);
        drop(table);
        self.0.connections.0.freed.notify_one();
    }

    /// Keeps it if nothing is written over it for a while.
    pub(crate) async fn rest_unless_used(self) {
        let writes = self.writes();
        sleep(UNUSED).await;
        self.rest(writes);
    }

    /// Something is to be written; false: the connection was given up.
    fn begin(&self) -> bool {
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        if !self.0.kept.load(Ordering::SeqCst) {
            return true;
        }
        let mut table = self.0.connections.lock();
        let Some(open) = table.open.get_mut(&self.0.id) else {
            return false;
        };
        self.0.kept.store(false, Ordering::SeqCst);
        let since = open.kept.take();
        let owner = Arc::clone(&open.owner);
        if let Some(since) = since {
            table.keep_no_more(&owner, since);
            table.uses(&owner);
        }
        true
    }
}

/// A connection in its place.
pub(crate) struct Stream {
    tcp: TcpStream,
    place: Place,
    has_ended: bool,
    /// Until when TCP may take to accept what is being written, while it has not.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    #[cfg(test)]
    pub(crate) fn peer_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.tcp.peer_addr()
    }

    /// Writes `len` bytes, or fewer.
    fn write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        len: usize,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.place.seat.begin() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = write(Pin::new(&mut this.tcp), cx);
        match &written {
            // Less than all is no end of a stall: else whoever reads a byte now and then would
            // have a connection for days.
            Poll::Ready(Ok(taken)) if *taken < len => return written,
            Poll::Ready(_) => {
                this.stalled = None;
                return written;
            }
            Poll::Pending => {}
        }
        let stalled = this.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Given up: as if the other side had closed it, which the pool knows how to take.
        if this.has_ended || Pin::new(&mut this.place.ended).poll(cx).is_ready() {
            this.has_ended = true;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, buf.len(), |tcp, cx| tcp.poll_write(cx, buf))
    }

    // Of a bare TCP connection this and the shutdown wait for nothing: those above it write first.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        self.write(cx, len, |tcp, cx| tcp.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.place.seat.clone())
    }
}

#[cfg(test)]
mod tests;
