//! A worker: the thread that carries out the orders of its mailbox and the packets of its sessions.
//!
//! One loop, whose every turn is bounded: a few orders, some sockets, some timers. Orders go first: a
//! party may send as soon as it is told where to, and by then its side was ordered to be programmed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::command::{MediaEvent, MediaKey, OpenFailure, Side};
use crate::engine::EngineConfig;
use crate::engine::counters::CounterCells;
use crate::engine::mailbox::{Mailbox, Opening, Taken, Work};
use crate::engine::outlet::Outlet;
use crate::engine::poller::Poller;
use crate::engine::ports::PortPool;
use crate::engine::reports::Reports;
use crate::engine::session::{Flow, Place, Session, Surroundings};
use crate::hold::HoldAudio;
use crate::relay::{Figures, Relay};
use crate::tick::Tick;

/// How long an ending worker waits for the shards to hear of it.
const FAREWELL: Duration = Duration::from_secs(2);
/// How soon a shard that had no room is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// An opening costs as much as a dozen packets: so many before packets have their turn.
const ORDERS_PER_TURN: usize = 4;
/// Reports that are due at once must not hold up packets either.
const TIMERS_PER_TURN: usize = 32;
/// The clock is read again after so many packets, which take some 50 µs.
const PACKETS_PER_READING: usize = 8;
/// The token of the mailbox's bell; other tokens are made of a slot and a place in it.
const ORDERS: u64 = u64::MAX;

/// A worker that does not run yet.
#[derive(Debug)]
pub(super) struct Worker {
    poller: Poller,
    mailbox: Arc<Mailbox>,
    counters: Arc<CounterCells>,
    reports: Arc<Reports>,
    ports: Arc<PortPool>,
    events: Vec<mpsc::Sender<MediaEvent>>,
    silence: Duration,
    hold: Option<Arc<HoldAudio>>,
    start: Instant,
}

/// The sessions of a running worker.
struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    free: Vec<usize>,
    by_key: HashMap<MediaKey, usize>,
    /// One entry counts per session, that of its `timer`; others are passed over when their time comes.
    timers: BinaryHeap<Reverse<(Tick, usize)>>,
    around: Surroundings,
    poller: Poller,
    mailbox: Arc<Mailbox>,
    counters: Arc<CounterCells>,
    ports: Arc<PortPool>,
    silence: Duration,
    hold: Option<Arc<HoldAudio>>,
    start: Instant,
}

/// A worker that ends, for whatever reason, leaves a mailbox that answers at once.
struct StopMailbox(Arc<Mailbox>);

impl Drop for StopMailbox {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Worker {
    pub(super) fn new(
        config: &EngineConfig,
        mailbox: Arc<Mailbox>,
        counters: Arc<CounterCells>,
        reports: Arc<Reports>,
        ports: Arc<PortPool>,
        events: Vec<mpsc::Sender<MediaEvent>>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(mailbox.bell(), ORDERS)?;
        Ok(Self {
            poller,
            mailbox,
            counters,
            reports,
            ports,
            events,
            silence: config.silence,
            hold: config.hold.clone(),
            start: config.start,
        })
    }

    /// Runs until the mailbox is stopped.
    pub(super) fn run(self) {
        let Self {
            poller,
            mailbox,
            counters,
            reports,
            ports,
            events,
            silence,
            hold,
            start,
        } = self;
        let _stop = StopMailbox(Arc::clone(&mailbox));
        let outlet = Outlet::new(events, Arc::clone(&mailbox), Arc::clone(&counters));
        let mut sessions = Sessions {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            timers: BinaryHeap::new(),
            around: Surroundings::new(outlet, reports),
            poller,
            mailbox,
            counters,
            ports,
            silence,
            hold,
            start,
        };
        if let Err(error) = sessions.run() {
            tracing::error!(%error, "a media worker ends: it can't wait for packets any more");
        }
        sessions.end();
    }
}

impl Sessions {
    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        let mut more_orders = true;
        let mut all_taken = true;
        loop {
            let wait = self.wait(more_orders, all_taken);
            self.poller.wait(wait, &mut ready)?;
            if ready.contains(&ORDERS) {
                self.mailbox.bell().silence();
                more_orders = true;
            }
            for _ in 0..ORDERS_PER_TURN {
                if !more_orders {
                    break;
                }
                match self.mailbox.take() {
                    Taken::Work(key, work) => self.work(key, *work),
                    Taken::Nothing => more_orders = false,
                    Taken::Stopped => return Ok(()),
                }
            }
            let mut now = self.now();
            let sockets = ready.iter().filter(|token| **token != ORDERS);
            for (n, token) in (1..).zip(sockets) {
                self.receive(now, *token);
                if n % PACKETS_PER_READING == 0 {
                    now = self.now();
                }
            }
            self.fire();
            self.count();
            all_taken = self.around.outlet.deliver();
        }
    }

    /// How long there is nothing to do unless something arrives.
    fn wait(&self, more_orders: bool, all_taken: bool) -> Option<Duration> {
        if more_orders {
            return Some(Duration::ZERO);
        }
        let timer = self
            .timers
            .peek()
            .map(|Reverse((at, _))| at.since(self.now()));
        let again = (!all_taken).then_some(ASK_AGAIN);
        timer.into_iter().chain(again).min()
    }

    fn receive(&mut self, now: Tick, token: u64) {
        let (index, place) = place_of(token);
        // One that was closed in this turn may have been reported before.
        let Some(session) = self.slots.get_mut(index).and_then(Option::as_deref_mut) else {
            return;
        };
        let around = &mut self.around;
        let received = catch_unwind(AssertUnwindSafe(|| {
            session.receive(now, place, around);
        }));
        match received {
            Ok(()) => self.arrange(index),
            Err(_) => self.died(index),
        }
    }

    /// Does what is due.
    fn fire(&mut self) {
        let now = self.now();
        for _ in 0..TIMERS_PER_TURN {
            let index = match self.timers.peek() {
                Some(Reverse((at, index))) if *at <= now => *index,
                Some(_) | None => break,
            };
            let at = self.timers.pop().map(|Reverse((at, _))| at);
            let Some(session) = self.slots.get_mut(index).and_then(Option::as_deref_mut) else {
                continue;
            };
            if session.timer != at {
                continue;
            }
            session.timer = None;
            let around = &mut self.around;
            let fired = catch_unwind(AssertUnwindSafe(|| {
                if session.deadline().is_some_and(|at| at <= now) {
                    session.on_deadline(now, around);
                }
            }));
            match fired {
                Ok(()) => self.arrange(index),
                Err(_) => self.died(index),
            }
        }
    }

    /// Packets move a silence's deadline all the time; a timer is only set anew when a deadline comes
    /// nearer, and otherwise when it fires.
    fn arrange(&mut self, index: usize) {
        let Some(session) = self.slots.get_mut(index).and_then(Option::as_deref_mut) else {
            return;
        };
        if let Some(due) = session.deadline()
            && session.timer.is_none_or(|set_to| due < set_to)
        {
            session.timer = Some(due);
            self.timers.push(Reverse((due, index)));
        }
    }

    fn work(&mut self, key: MediaKey, work: Work) {
        let Work {
            open,
            caller,
            callee,
            presses,
            prompts,
            close,
        } = work;
        if let Some(opening) = open {
            if let Err(reason) = self.open(key, opening) {
                self.around.outlet.push(MediaEvent::Refused { key, reason });
            }
        } else if !close && !self.by_key.contains_key(&key) {
            // Programmed after its opening was refused: nothing else will free its place.
            self.mailbox.release(key);
        }
        let is_told = caller.is_some() || callee.is_some();
        if (is_told || !presses.is_empty() || !prompts.is_empty())
            && let Some(index) = self.by_key.get(&key).copied()
            && let Some(session) = self.slots.get_mut(index).and_then(Option::as_deref_mut)
        {
            let now = Tick::from_start(self.start.elapsed());
            session.program(now, caller, callee, &mut self.around);
            session.press(now, presses, &mut self.around);
            session.prompt(now, prompts, &mut self.around);
            self.arrange(index);
        }
        if close {
            self.close(key);
        }
    }

    fn open(&mut self, key: MediaKey, opening: Opening) -> Result<(), OpenFailure> {
        let (seed, caller, callee) = match opening {
            Opening::Anew { seed } => (seed, self.ports.take()?, self.ports.take()?),
            Opening::Again {
                seed,
                caller,
                callee,
            } => (seed, PortPool::bind(caller)?, PortPool::bind(callee)?),
        };
        let relay = Relay::new(self.now(), seed, self.silence).with_hold(self.hold.clone());
        let session = Box::new(Session::new(key, relay, caller, callee));
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len().saturating_sub(1)
        });
        for (place, socket) in session.all() {
            if let Err(error) = self.poller.add(socket, token_of(index, place)) {
                tracing::warn!(%error, "a media socket can't be waited for");
                self.free.push(index);
                return Err(OpenFailure::Unavailable);
            }
        }
        self.around.outlet.push(session.opened());
        self.counters.session_opened();
        self.by_key.insert(key, index);
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(session);
        }
        Ok(())
    }

    /// There is no session if its opening was refused, or if it died.
    fn close(&mut self, key: MediaKey) {
        let figures = match self.by_key.get(&key).copied() {
            Some(index) => self.leave(index),
            None => Figures::default(),
        };
        self.around.outlet.push(MediaEvent::Closed {
            key,
            caller: figures.caller,
            callee: figures.callee,
        });
    }

    fn leave(&mut self, index: usize) -> Figures {
        let now = self.now();
        let around = &mut self.around;
        let closed = self
            .slots
            .get_mut(index)
            .and_then(Option::as_deref_mut)
            .map(|session| catch_unwind(AssertUnwindSafe(|| session.close(now, around))));
        self.remove(index);
        match closed {
            Some(Ok(figures)) => figures,
            Some(Err(_)) => {
                tracing::error!("a media session died when it was closed");
                Figures::default()
            }
            None => Figures::default(),
        }
    }

    /// A fault of ours costs one call its audio and no other.
    fn died(&mut self, index: usize) {
        tracing::error!("a media session died");
        self.remove(index);
    }

    /// Its sockets close, and with them what was to be reported of them.
    fn remove(&mut self, index: usize) {
        if let Some(session) = self.slots.get_mut(index).and_then(Option::take) {
            self.by_key.remove(&session.key);
            self.free.push(index);
            self.counters.session_closed();
            self.around.reports.remove(session.key);
        }
    }

    fn count(&mut self) {
        self.counters
            .add_relay(&std::mem::take(&mut self.around.counted));
        self.counters
            .sends_failed(std::mem::take(&mut self.around.send_failures));
    }

    fn now(&self) -> Tick {
        Tick::from_start(self.start.elapsed())
    }

    fn end(&mut self) {
        let open: Vec<_> = self.by_key.keys().copied().collect();
        for key in open {
            self.close(key);
        }
        self.count();
        let deadline = Instant::now() + FAREWELL;
        while !self.around.outlet.deliver() {
            if Instant::now() >= deadline {
                tracing::warn!("media ended before every shard had taken its last events");
                return;
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }
}

/// Eight tokens to a slot.
const fn token_of(index: usize, place: Place) -> u64 {
    let flow = match (place.side, place.flow) {
        (Side::Caller, Flow::Rtp) => 0,
        (Side::Callee, Flow::Rtp) => 1,
        (Side::Caller, Flow::Rtcp) => 2,
        (Side::Callee, Flow::Rtcp) => 3,
    };
    index as u64 * 8 + flow * 2 + place.second as u64
}

const fn place_of(token: u64) -> (usize, Place) {
    let (side, flow) = match token % 8 / 2 {
        0 => (Side::Caller, Flow::Rtp),
        1 => (Side::Callee, Flow::Rtp),
        2 => (Side::Caller, Flow::Rtcp),
        _ => (Side::Callee, Flow::Rtcp),
    };
    let second = token % 2 == 1;
    let place = Place { side, flow, second };
    ((token / 8) as usize, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_socket() {
        for token in 0..32 {
            let (index, place) = place_of(token);
            assert_eq!(token_of(index, place), token);
            assert_eq!(index as u64, token / 8);
        }
        let (_, place) = place_of(5);
        assert_eq!((place.side, place.flow), (Side::Caller, Flow::Rtcp));
        assert!(place.second);
    }
}
