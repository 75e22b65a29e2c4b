//! Every event of a run: whether it was taken, what arrived of it when, and what should not have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::call::{EVENTS, STEPS};

/// Examples that are kept of each fault.
const EXAMPLES: usize = 3;
/// Arrivals out of order that may yet turn out to be none.
const MOST_DOUBTS: usize = 100_000;

/// An event's place: its session, and its place there from 0; the last is the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) session: u32,
    pub(crate) event: usize,
}

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It can't be read, is of no session of ours, or came to another endpoint than its own.
    Stray,
    /// One event with two ids, or two events with one.
    TwoIds,
    /// An id with two bodies.
    TwoBodies,
    /// It came again after it was acknowledged, and nobody was killed in between.
    Doubled,
    /// The API refused an event that fits, or answered a repetition with another id.
    Refused,
}

/// A webhook request as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) slot: Slot,
    /// The number in its path.
    pub(crate) account: u16,
    /// And what follows it there; 0: nothing.
    pub(crate) number: u32,
    pub(crate) id: Uuid,
    pub(crate) body: u64,
    pub(crate) gap: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Event {
    id: Uuid,
    body: u64,
    /// Milliseconds since the ledger began.
    acknowledged: Option<u32>,
    /// The same of its last request, if that was acknowledged.
    settled: Option<u32>,
    /// The switch's life in which it last arrived, and in which it was first heard of.
    arrived: Option<u16>,
    known: Option<u16>,
    tries: u16,
    /// As `acknowledged`.
    accepted: Option<u32>,
}

#[derive(Clone, Debug)]
struct Session {
    account: u16,
    events: [Event; EVENTS],
}

/// Of the switch's present life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Life {
    /// From its start to the first webhook.
    pub(crate) first: Option<Duration>,
    /// And to the first of an event that was known before.
    pub(crate) first_old: Option<Duration>,
    /// Requests of events that an earlier life had delivered.
    pub(crate) duplicates: u32,
}

#[derive(Debug)]
struct Inner {
    sessions: Vec<Session>,
    life: u16,
    started: Instant,
    now: Life,
    /// Of acknowledged events, how long before the kill they were, at most.
    oldest_duplicate: Duration,
    /// When each life ended, the first one's first.
    kills: Vec<u32>,
    faults: BTreeMap<Fault, (u64, Vec<String>)>,
    /// First arrivals with earlier events of their session that were not acknowledged.
    doubts: Vec<Slot>,
    gaps: BTreeSet<u32>,
    late_summaries: u64,
}

/// The ledger. Shared by the load and the receiver.
#[derive(Debug)]
pub(crate) struct Ledger {
    began: Instant,
    /// Accounts below this number acknowledge nothing.
    silent: u16,
    /// A summary may come so long after the last status event, whatever became of that.
    order_deadline: Duration,
    inner: Mutex<Inner>,
    owed: AtomicI64,
    /// Status events that the API took.
    pub(crate) accepted: AtomicU64,
    /// Events that were acknowledged, summaries included.
    pub(crate) acknowledged: AtomicU64,
    /// Requests of the switch.
    pub(crate) arrivals: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    /// Requests of the load that had no answer, and were repeated.
    pub(crate) unanswered: AtomicU64,
    /// Requests that were put off (429, 5xx), and repeated.
    pub(crate) put_off: AtomicU64,
}

impl Ledger {
    pub(crate) fn new(silent: u16, order_deadline: Duration) -> Self {
        let now = Instant::now();
        Self {
            began: now,
            silent,
            order_deadline,
            owed: AtomicI64::new(0),
            inner: Mutex::new(Inner {
                sessions: Vec::new(),
                life: 0,
                started: now,
                now: Life::default(),
                oldest_duplicate: Duration::ZERO,
                kills: Vec::new(),
                faults: BTreeMap::new(),
                doubts: Vec::new(),
                gaps: BTreeSet::new(),
                late_summaries: 0,
            }),
            accepted: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            arrivals: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            put_off: AtomicU64::new(0),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_millis()).unwrap_or(u32::MAX)
    }

    /// A new session's number.
    pub(crate) fn open(&self, account: u16) -> u32 {
        let mut inner = self.inner();
        let number = u32::try_from(inner.sessions.len()).unwrap_or(u32::MAX);
        inner.sessions.push(Session {
            account,
            events: [Event::default(); EVENTS],
        });
        number
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> u64 {
        self.inner().sessions.len() as u64
    }

    /// The switch is about to be started.
    pub(crate) fn starts(&self) {
        let mut inner = self.inner();
        inner.life += 1;
        inner.started = Instant::now();
        inner.now = Life::default();
    }

    /// The switch is about to be killed.
    pub(crate) fn is_killed(&self) {
        let now = self.clock();
        self.inner().kills.push(now);
    }

    /// Of the present life.
    pub(crate) fn life(&self) -> Life {
        self.inner().now
    }

    /// The longest time between the acknowledgement of an event that came again, and the kill.
    pub(crate) fn oldest_duplicate(&self) -> Duration {
        self.inner().oldest_duplicate
    }

    /// The API says that it took an event.
    pub(crate) fn accepted(&self, slot: Slot, id: Uuid, sequence: u64) {
        let now = self.clock();
        let mut inner = self.inner();
        let life = inner.life;
        let answers = inner.account(slot.session) >= Some(self.silent);
        let Some(event) = inner.event(slot) else {
            return;
        };
        event.known.get_or_insert(life);
        let fits = (event.id.is_nil() || event.id == id) && sequence == slot.event as u64 + 1;
        event.id = id;
        let first = event.accepted.is_none();
        event.accepted.get_or_insert(now);
        if !fits {
            inner.fault(Fault::Refused, || {
                format!("{slot:?}: another id or sequence: {id}, {sequence}")
            });
        }
        drop(inner);
        if first {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            if answers {
                // Behind the last one comes a summary.
                let more = 1 + i64::from(slot.event + 1 == STEPS);
                self.owed.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// A fault that was seen elsewhere.
    pub(crate) fn fault(&self, fault: Fault, example: impl FnOnce() -> String) {
        self.inner().fault(fault, example);
    }

    /// A webhook request is here. Which attempt it is, from 1.
    pub(crate) fn arrived(&self, request: &Request) -> u16 {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        let (slot, now) = (request.slot, self.clock());
        let mut inner = self.inner();
        let (life, since) = (inner.life, inner.started.elapsed());
        inner.now.first.get_or_insert(since);
        let open_before = inner.open_before(slot);
        if inner.account(slot.session) != Some(request.account) {
            inner.fault(Fault::Stray, || format!("{request:?}"));
            return 1;
        }
        let Some(event) = inner.event(slot) else {
            return 1;
        };
        event.tries = event.tries.saturating_add(1);
        let before = *event;
        event.arrived = Some(life);
        // Who fails a repetition is asked again.
        event.settled = None;
        event.known.get_or_insert(life);
        event.id = request.id;
        event.body = request.body;
        if !before.id.is_nil() && before.id != request.id {
            inner.fault(Fault::TwoIds, || format!("{} and {request:?}", before.id));
        }
        if before.arrived.is_some() && before.body != request.body {
            inner.fault(Fault::TwoBodies, || format!("{request:?}"));
        }
        if before.known.is_some_and(|known| known < life) {
            inner.now.first_old.get_or_insert(since);
        }
        if let Some(acknowledged) = before.settled {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
            inner.now.duplicates += 1;
            // The kill that made it forget: the lives between may have been too short to send it again.
            let ended = before.arrived.and_then(|it| usize::from(it).checked_sub(1));
            match ended.and_then(|at| inner.kills.get(at)).copied() {
                Some(killed) if before.arrived.is_some_and(|arrived| arrived < life) => {
                    let age = Duration::from_millis(u64::from(killed.saturating_sub(acknowledged)));
                    inner.oldest_duplicate = inner.oldest_duplicate.max(age);
                }
                _ => inner.fault(Fault::Doubled, || format!("{request:?}")),
            }
        }
        if before.arrived.is_none() && request.gap {
            inner.gaps.insert(slot.session);
        } else if before.arrived.is_none() && open_before {
            // The answer to its last status event may have come some time after that was durable.
            let waited = inner.since_last_step(slot, now);
            if waited.is_some_and(|waited| waited >= self.order_deadline / 2) {
                inner.late_summaries += 1;
            } else if inner.doubts.len() < MOST_DOUBTS {
                inner.doubts.push(slot);
            }
        }
        before.tries
    }

    /// It is about to be answered by 2xx.
    pub(crate) fn acknowledges(&self, slot: Slot) {
        let now = self.clock();
        let mut inner = self.inner();
        let answers = inner.account(slot.session) >= Some(self.silent);
        let Some(event) = inner.event(slot) else {
            return;
        };
        event.settled = Some(now);
        let first = event.acknowledged.replace(now).is_none();
        drop(inner);
        if first {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.owed.fetch_sub(i64::from(answers), Ordering::Relaxed);
        }
    }

    /// Events on their way to endpoints that answer.
    pub(crate) fn owed(&self) -> i64 {
        self.owed.load(Ordering::Relaxed)
    }

    /// Summaries that came ahead of a status event because the order deadline had passed.
    pub(crate) fn late_summaries(&self) -> u64 {
        self.inner().late_summaries
    }

    /// Events that were not acknowledged, summaries of closed sessions included; those that the API did not take
    /// are none.
    pub(crate) fn open_events(&self) -> Vec<(Slot, Uuid)> {
        let inner = self.inner();
        let mut open = Vec::new();
        for (session, number) in inner.sessions.iter().zip(0..) {
            let closed = session
                .events
                .get(STEPS - 1)
                .is_some_and(|it| it.accepted.is_some());
            for (index, event) in session.events.iter().enumerate() {
                let owed = event.accepted.is_some() || closed && index == STEPS;
                if owed && event.acknowledged.is_none() {
                    let slot = Slot {
                        session: number,
                        event: index,
                    };
                    open.push((slot, event.id));
                }
            }
        }
        open
    }

    /// First arrivals ahead of an earlier event of their session, without `webhook-gap`: with
    /// the events that were before them and are not among `dead`, those that were given up.
    pub(crate) fn inversions(&self, dead: &BTreeSet<Slot>) -> Vec<Slot> {
        let inner = self.inner();
        let excused = |slot: &Slot| {
            let earlier = (0..slot.event).map(|event| Slot {
                session: slot.session,
                event,
            });
            earlier.clone().any(|it| dead.contains(&it))
        };
        let doubts = inner.doubts.iter().filter(|slot| !excused(slot));
        doubts.copied().collect()
    }

    /// Sessions with requests that said `webhook-gap`.
    pub(crate) fn gaps(&self) -> BTreeSet<u32> {
        self.inner().gaps.clone()
    }

    /// How often, and some examples.
    pub(crate) fn faults(&self, fault: Fault) -> (u64, Vec<String>) {
        self.inner().faults.get(&fault).cloned().unwrap_or_default()
    }
}

impl Inner {
    fn account(&self, session: u32) -> Option<u16> {
        Some(self.sessions.get(session as usize)?.account)
    }

    fn event(&mut self, slot: Slot) -> Option<&mut Event> {
        let session = self.sessions.get_mut(slot.session as usize)?;
        session.events.get_mut(slot.event)
    }

    /// Whether an earlier event of its session was not acknowledged.
    fn open_before(&self, slot: Slot) -> bool {
        let session = self.sessions.get(slot.session as usize);
        let earlier = session.and_then(|session| session.events.get(..slot.event));
        earlier.is_some_and(|earlier| earlier.iter().any(|it| it.acknowledged.is_none()))
    }

    /// Of a summary: since the session's last status event was taken.
    fn since_last_step(&self, slot: Slot, now: u32) -> Option<Duration> {
        let session = self.sessions.get(slot.session as usize)?;
        let last = session.events.get(slot.event.checked_sub(1)?)?;
        let is_summary = slot.event == STEPS;
        let taken = last.accepted.filter(|_| is_summary)?;
        Some(Duration::from_millis(u64::from(now.saturating_sub(taken))))
    }

    fn fault(&mut self, fault: Fault, example: impl FnOnce() -> String) {
        let (count, examples) = self.faults.entry(fault).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        ledger: Ledger,
        session: u32,
    }

    impl World {
        fn new() -> Self {
            let ledger = Ledger::new(0, Duration::MAX);
            ledger.starts();
            let session = ledger.open(1);
            Self { ledger, session }
        }

        fn request(&self, event: usize) -> Request {
            Request {
                slot: Slot {
                    session: self.session,
                    event,
                },
                account: 1,
                number: 0,
                id: Uuid::from_u128(event as u128 + 1),
                body: 7,
                gap: false,
            }
        }

        fn delivered(&self, event: usize) {
            let request = self.request(event);
            self.ledger.arrived(&request);
            self.ledger.acknowledges(request.slot);
        }

        fn count(&self, fault: Fault) -> u64 {
            self.ledger.faults(fault).0
        }
    }

    #[test]
    fn a_repetition_after_a_kill_that_is_not_acknowledged_may_come_again() {
        let world = World::new();
        let request = world.request(0);
        world.ledger.arrived(&request);
        world.ledger.acknowledges(request.slot);
        world.ledger.is_killed();
        world.ledger.starts();
        world.ledger.arrived(&request);
        world.ledger.arrived(&request);
        assert_eq!(world.ledger.duplicates.load(Ordering::Relaxed), 1);
        assert_eq!(world.ledger.faults(Fault::Doubled).0, 0);
        world.ledger.acknowledges(request.slot);
        world.ledger.arrived(&request);
        assert_eq!(world.ledger.faults(Fault::Doubled).0, 1);
    }

    #[test]
    fn attempts_are_counted_from_one() {
        let world = World::new();
        let attempts = [(); 3].map(|()| world.ledger.arrived(&world.request(0)));
        assert_eq!(attempts, [1, 2, 3]);
    }

    #[test]
    fn an_event_ahead_of_an_earlier_one_is_an_inversion_unless_that_was_given_up() {
        let world = World::new();
        world.delivered(0);
        world.ledger.arrived(&world.request(1));
        world.delivered(2);
        let (first, third) = (world.request(1).slot, world.request(2).slot);
        assert_eq!(world.ledger.inversions(&BTreeSet::new()), [third]);
        assert_eq!(world.ledger.inversions(&BTreeSet::from([first])), []);
    }

    #[test]
    fn the_summary_ahead_of_a_status_event_is_an_inversion() {
        let world = World::new();
        for event in 0..STEPS - 1 {
            world.delivered(event);
        }
        world.delivered(STEPS);
        assert_eq!(world.ledger.inversions(&BTreeSet::new()).len(), 1);
    }

    #[test]
    fn an_event_that_comes_again_is_one_too_many_unless_the_switch_was_killed() {
        let world = World::new();
        world.delivered(0);
        world.ledger.is_killed();
        world.ledger.starts();
        world.delivered(0);
        assert_eq!(world.count(Fault::Doubled), 0);
        world.delivered(0);
        assert_eq!(world.count(Fault::Doubled), 1);
        assert_eq!(world.ledger.life().duplicates, 2);
    }

    #[test]
    fn another_body_another_id_and_another_endpoint_are_noticed() {
        let world = World::new();
        world.delivered(0);
        let mut request = world.request(0);
        request.body = 8;
        world.ledger.arrived(&request);
        assert_eq!(world.count(Fault::TwoBodies), 1);
        request.id = Uuid::from_u128(99);
        world.ledger.arrived(&request);
        assert_eq!(world.count(Fault::TwoIds), 1);
        request.account = 2;
        world.ledger.arrived(&request);
        assert_eq!(world.count(Fault::Stray), 1);
    }

    #[test]
    fn what_was_taken_and_never_acknowledged_is_open() {
        let world = World::new();
        let slot = |event| world.request(event).slot;
        world.ledger.accepted(slot(0), Uuid::from_u128(1), 1);
        world.ledger.accepted(slot(1), Uuid::from_u128(2), 2);
        world.delivered(0);
        assert_eq!(world.ledger.open_events(), [(slot(1), Uuid::from_u128(2))]);
        world.ledger.accepted(slot(1), Uuid::from_u128(3), 2);
        assert_eq!(world.count(Fault::Refused), 1);
    }
}
