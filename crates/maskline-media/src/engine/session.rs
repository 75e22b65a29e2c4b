//! One session's sockets: a task that carries datagrams between them and its relay.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Sleep;

use crate::command::{CalleeMedia, CallerMedia, MediaEvent, MediaKey, Side};
use crate::engine::counters::CounterCells;
use crate::engine::outlet::Outlet;
use crate::engine::ports::PortPair;
use crate::relay::{Relay, RelayOutput, Verdict};
use crate::rtp::MAX_PACKET_BYTES;
use crate::tick::Tick;

/// How many datagrams are taken from one socket before the others, and other sessions, get their
/// turn: a flood on one port shall not silence another.
const DATAGRAMS_PER_TURN: usize = 16;

/// How far ahead a timer without a deadline is set.
const NO_DEADLINE: Duration = Duration::from_secs(3_600);

/// What the sessions of a worker share.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) outlet: Outlet,
    pub(super) counters: Arc<CounterCells>,
    pub(super) buffers: RefCell<Buffers>,
    /// The origin of ticks.
    pub(super) start: Instant,
}

/// Room for one datagram each way.
#[derive(Debug)]
pub(super) struct Buffers {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

/// The handle by which orders reach a session.
#[derive(Debug)]
pub(super) struct Session {
    key: MediaKey,
    relay: RefCell<Relay>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The sockets of both sides.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) caller: PortPair,
    pub(super) callee: PortPair,
}

#[derive(Clone, Copy)]
enum Flow {
    Rtp,
    Rtcp,
}

impl Surroundings {
    pub(super) fn now(&self) -> Tick {
        Tick::from_start(self.start.elapsed())
    }
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            // One byte more than is accepted, so that a longer datagram can be told.
            incoming: vec![0; MAX_PACKET_BYTES + 1],
            outgoing: Vec::with_capacity(MAX_PACKET_BYTES),
        }
    }
}

impl Session {
    pub(super) fn new(key: MediaKey, relay: Relay) -> Self {
        Self {
            key,
            relay: RefCell::new(relay),
            closing: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    pub(super) fn program_caller(&self, now: Tick, media: CallerMedia) {
        self.relay.borrow_mut().program_caller(now, media);
        self.wake();
    }

    pub(super) fn program_callee(&self, now: Tick, media: CalleeMedia) {
        self.relay.borrow_mut().program_callee(now, media);
        self.wake();
    }

    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Sides {
    const fn pair(&self, side: Side) -> &PortPair {
        match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        }
    }

    const fn socket(&self, side: Side, flow: Flow) -> &UdpSocket {
        match flow {
            Flow::Rtp => &self.pair(side).rtp,
            Flow::Rtcp => &self.pair(side).rtcp,
        }
    }

    const ALL: [(Side, Flow); 4] = [
        (Side::Caller, Flow::Rtp),
        (Side::Callee, Flow::Rtp),
        (Side::Caller, Flow::Rtcp),
        (Side::Callee, Flow::Rtcp),
    ];
}

/// Carries a session until it is closed; answers its opening and its closing.
pub(super) async fn run(session: Rc<Session>, sides: Sides, around: Rc<Surroundings>) {
    // A socket sends once the runtime has seen it writable; without this a first packet is lost.
    for (side, flow) in Sides::ALL {
        if let Err(error) = sides.socket(side, flow).writable().await {
            tracing::warn!(%error, "a media socket does not get ready");
        }
    }
    around.counters.session_opened();
    around.outlet.push(MediaEvent::Opened {
        key: session.key,
        caller_port: sides.caller.port(),
        callee_port: sides.callee.port(),
    });
    let mut timer = Timer::new(&around);
    poll_fn(|cx| turn(cx, &session, &sides, &around, &mut timer)).await;

    let figures = session.relay.borrow_mut().close(around.now());
    drain(&session, &sides, &around);
    drop(sides);
    around.counters.session_closed();
    around.outlet.push(MediaEvent::Closed {
        key: session.key,
        caller: figures.caller,
        callee: figures.callee,
    });
}

/// Takes what is there, within bounds, and arranges to be woken for more.
fn turn(
    cx: &mut Context<'_>,
    session: &Session,
    sides: &Sides,
    around: &Surroundings,
    timer: &mut Timer,
) -> Poll<()> {
    {
        let mut waker = session.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
    if session.closing.get() {
        return Poll::Ready(());
    }
    for (side, flow) in Sides::ALL {
        if receive(cx, session, sides, around, side, flow) {
            cx.waker().wake_by_ref();
        }
    }
    while timer.poll(cx, session, around) {
        session.relay.borrow_mut().on_deadline(around.now());
    }
    drain(session, sides, around);
    Poll::Pending
}

/// Takes datagrams from one socket; true if there may be more.
fn receive(
    cx: &mut Context<'_>,
    session: &Session,
    sides: &Sides,
    around: &Surroundings,
    side: Side,
    flow: Flow,
) -> bool {
    let mut buffers = around.buffers.borrow_mut();
    let Buffers { incoming, outgoing } = &mut *buffers;
    let mut relay = session.relay.borrow_mut();
    for _ in 0..DATAGRAMS_PER_TURN {
        let mut datagram = ReadBuf::new(incoming);
        let from = match sides.socket(side, flow).poll_recv_from(cx, &mut datagram) {
            Poll::Ready(Ok(from)) => from,
            // An error that belongs to a datagram sent earlier; the socket goes on.
            Poll::Ready(Err(_)) => continue,
            Poll::Pending => return false,
        };
        match flow {
            Flow::Rtp => {
                let verdict = relay.on_rtp(around.now(), side, from, datagram.filled(), outgoing);
                if let Verdict::Forward { to } = verdict {
                    let socket = sides.socket(side.other(), Flow::Rtp);
                    send(socket, outgoing, to, &around.counters);
                }
            }
            Flow::Rtcp => relay.on_rtcp(around.now(), side, from, datagram.filled()),
        }
    }
    true
}

/// Does what the relay wants done, and adds up what it counted.
fn drain(session: &Session, sides: &Sides, around: &Surroundings) {
    let mut relay = session.relay.borrow_mut();
    let key = session.key;
    while let Some(output) = relay.poll() {
        match output {
            RelayOutput::SendRtcp {
                side,
                muxed,
                to,
                datagram,
            } => {
                let flow = if muxed { Flow::Rtp } else { Flow::Rtcp };
                send(sides.socket(side, flow), &datagram, to, &around.counters);
            }
            RelayOutput::Dtmf { side, digit } => {
                around.outlet.push(MediaEvent::Dtmf { key, side, digit });
            }
            RelayOutput::Silent { side } => around.outlet.push(MediaEvent::Silent { key, side }),
        }
    }
    around.counters.add_relay(&relay.take_counters());
}

/// Late audio is worthless: what the operating system does not take now is dropped and counted.
fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr, counters: &CounterCells) {
    let sent: io::Result<usize> = socket.try_send_to(datagram, to);
    if sent.is_err() {
        counters.send_failed();
    }
}

/// The session's timer. Packets move a silence's deadline all the time; the timer is only moved
/// when a deadline comes nearer, and otherwise looks again when it fires.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    set_to: Tick,
}

impl Timer {
    fn new(around: &Surroundings) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(NO_DEADLINE)),
            set_to: around.now() + NO_DEADLINE,
        }
    }

    /// True if the relay's deadline has passed; otherwise the task will be woken for it.
    fn poll(&mut self, cx: &mut Context<'_>, session: &Session, around: &Surroundings) -> bool {
        loop {
            let deadline = session.relay.borrow().deadline().map(|(at, _)| at);
            let fired = self.sleep.as_mut().poll(cx).is_ready();
            let nearer = deadline.is_some_and(|at| at < self.set_to);
            if !fired && !nearer {
                return false;
            }
            let now = around.now();
            if deadline.is_some_and(|at| at <= now) {
                return true;
            }
            let wait = deadline.map_or(NO_DEADLINE, |at| at.since(now));
            self.set_to = now + wait;
            self.sleep
                .as_mut()
                .reset(tokio::time::Instant::now() + wait);
        }
    }
}
