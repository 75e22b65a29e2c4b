//! The lanes: which event of which session may be sent when, and what an attempt's result means.
//!
//! Pure: `handle` takes facts, `poll` gives orders, `deadline` says when to call again. A lane is
//! an endpoint and a session; its events go in order, one at a time. An event that is too long in
//! the way is parked: it is tried on beside its lane. A session's summary waits for its status
//! events.
//!
//! What lives elsewhere: getting events in from the journal and the store (`intake`), the fair
//! share of endpoints (`turns`), everything that does IO (`dispatcher`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use maskline_events::{Timestamp, WebhookType};
use maskline_store::{DeliveryState, EventRow, Lost, Outcome, PendingPage, SessionBacklog};
use uuid::Uuid;

use super::breaker::Health;
use super::intake::{Intake, Loading};
use super::room::Place;
use super::turns::{Class, EndpointKey, EventKey, Places, Start, Turns};
use super::{AttemptResult, DeliveryConfig, EndpointPolicy};

/// A fact.
#[derive(Debug)]
pub(crate) enum Input {
    /// Events were committed, in order within each session.
    Committed(Vec<EventRow>),
    /// Committed events did not get here: the store has to be read.
    Missed,
    /// Sub-accounts that have pending events.
    Owners(Vec<String>),
    /// A page of a sub-account's pending events; a short one is the last.
    Scanned(PendingPage),
    /// The page, or who has pending events, could not be read.
    ScanFailed,
    /// A page of a session's pending events.
    Loaded(Uuid, SessionBacklog),
    /// It could not be read.
    LoadFailed(Uuid),
    /// Events of these sessions of a sub-account are pending once more.
    Replayed(Arc<str>, Vec<Uuid>),
    /// An attempt ended.
    Attempted {
        key: EventKey,
        result: AttemptResult,
        /// A draw between plus and minus [`super::schedule::JITTER_PERMILLE`].
        jitter_permille: i16,
    },
    /// One outcome of each of these sessions is in the store.
    Recorded(Vec<Uuid>),
    /// A webhook was set, deleted, or its secret rotated.
    EndpointChanged(EndpointKey),
    /// An endpoint has a policy of its own, or no longer has one.
    Policy(EndpointKey, Option<EndpointPolicy>),
    /// A deadline passed.
    Elapsed,
    /// Read nothing more from the store: the process ends.
    Drain,
    /// Start no more attempts.
    Stop,
}

/// An order.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send it; the result comes back as [`Input::Attempted`].
    Attempt {
        key: EventKey,
        event: Arc<EventRow>,
        gap: bool,
    },
    /// Write it; comes back as [`Input::Recorded`].
    Record {
        event: Arc<EventRow>,
        outcome: Outcome,
        /// Whether this is the result of an attempt, and whether that said `webhook-gap`.
        attempt_gap: Option<bool>,
    },
    /// Ask which sub-accounts have pending events.
    Owners,
    /// Read a page of a sub-account's pending events after this place.
    Scan {
        owner: Arc<str>,
        after: Option<Place>,
    },
    /// Read a page of a session's pending events after this one.
    Load {
        owner: Arc<str>,
        session: Uuid,
        after: u64,
    },
    /// Tell that an endpoint's breaker has opened, or closed.
    Breaker {
        endpoint: EndpointKey,
        is_open: bool,
    },
    /// Tell of a row that can't be read: the session's later events stay in the store.
    Broken {
        session: Option<Uuid>,
        ordinal: u64,
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Retry(EventKey),
    Park(EventKey),
    Summary(Uuid),
    Load(Uuid),
    Rested,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) owner: Arc<str>,
    /// The highest ordinal that was taken in.
    pub(super) last: u64,
    items: BTreeMap<u64, Item>,
    /// Of each lane, what is still in order: the first is in flight, due or waiting.
    order: BTreeMap<WebhookType, BTreeSet<u64>>,
    parked: BTreeSet<u64>,
    /// What ended undelivered, none of it behind `last`: so that it is read anew when it is pending
    /// once more.
    pub(super) lost: Lost,
    unrecorded: usize,
    pub(super) summary_taken: bool,
    /// A row of it can't be read: nothing behind that is taken in.
    pub(super) stopped: bool,
    /// It is to be read anew once nothing of it is under way.
    pub(super) replay: bool,
    /// The session is being read from the store.
    pub(super) loading: Option<Loading>,
}

impl Session {
    /// Whether this event of it is in memory.
    pub(super) fn has(&self, ordinal: u64) -> bool {
        self.items.contains_key(&ordinal)
    }
}

#[derive(Debug)]
struct Item {
    event: Arc<EventRow>,
    attempts: u32,
    /// From when its age counts: when it happened, or for what was never tried, when it was taken
    /// in. A node that was down for an hour must not send everything out of order.
    since: Timestamp,
    /// When it stops holding its lane back.
    parks: Timestamp,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Behind others of its lane; not to be tried before this time.
    Queued(Timestamp),
    /// Its next attempt is at this time.
    Waiting(Timestamp),
    /// Waits for a free place.
    Due,
    InFlight {
        start: Start,
        gap: bool,
    },
}

/// Levels, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) events: usize,
    pub(crate) lanes: usize,
    pub(crate) parked: usize,
    pub(crate) parked_ever: u64,
    pub(crate) places: Places,
    pub(crate) unrecorded: usize,
    pub(crate) behind: bool,
    /// When the oldest event happened, by type in the contract's order.
    pub(crate) oldest: [Option<Timestamp>; WebhookType::ALL.len()],
}

#[derive(Debug)]
pub(crate) struct Lanes {
    max_unrecorded: usize,
    max_sessions: usize,
    pub(super) intake: Intake,
    pub(super) sessions: BTreeMap<Uuid, Session>,
    /// Sessions that have nothing to do and may be forgotten when there are too many.
    idle: BTreeSet<Uuid>,
    turns: Turns,
    pub(super) timers: BTreeSet<(Timestamp, Timer)>,
    orders: VecDeque<Action>,
    oldest: BTreeMap<WebhookType, BTreeSet<(Timestamp, EventKey)>>,
    lanes: usize,
    parked: usize,
    parked_ever: u64,
    unrecorded: usize,
    stopped: bool,
}

impl Lanes {
    /// Empty lanes that begin by reading the store.
    pub(crate) fn new(config: &DeliveryConfig) -> Self {
        Self {
            max_unrecorded: config.unrecorded.max(1),
            max_sessions: config.events_in_memory.max(1),
            intake: Intake::new(config.events_in_memory, config.page),
            sessions: BTreeMap::new(),
            idle: BTreeSet::new(),
            turns: Turns::new(config.policy(), config.in_all, config.breaker),
            timers: BTreeSet::new(),
            orders: VecDeque::new(),
            oldest: BTreeMap::new(),
            lanes: 0,
            parked: 0,
            parked_ever: 0,
            unrecorded: 0,
            stopped: false,
        }
    }

    /// Takes a fact. Drain [`Lanes::poll`] after each.
    pub(crate) fn handle(&mut self, now: Timestamp, input: Input) {
        self.turns.elapsed(now);
        match input {
            Input::Committed(rows) => {
                for row in rows {
                    self.committed(now, row);
                }
            }
            Input::Missed => self.intake.room.missed(),
            Input::Owners(owners) => self.owners(&owners),
            Input::Scanned(page) => self.scanned(now, page),
            Input::ScanFailed => self.scan_failed(now),
            Input::Loaded(session, backlog) => self.loaded(now, session, backlog),
            Input::LoadFailed(session) => self.load_failed(now, session),
            Input::Replayed(owner, sessions) => self.replayed(&owner, &sessions),
            Input::Attempted {
                key,
                result,
                jitter_permille,
            } => self.attempted(now, key, result, jitter_permille),
            Input::Recorded(sessions) => {
                for session in sessions {
                    self.unrecorded = self.unrecorded.saturating_sub(1);
                    if let Some(found) = self.sessions.get_mut(&session) {
                        found.unrecorded = found.unrecorded.saturating_sub(1);
                        self.rest(session);
                    }
                }
            }
            Input::EndpointChanged(endpoint) => self.turns.changed(&endpoint),
            Input::Policy(endpoint, policy) => self.turns.set_policy(&endpoint, policy),
            Input::Elapsed => {}
            Input::Drain => self.intake.close(),
            Input::Stop => self.stopped = true,
        }
        self.fire(now);
    }

    /// The next order, until `None`.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        if let Some(order) = self.orders.pop_front() {
            return Some(order);
        }
        if let Some((endpoint, is_open)) = self.turns.note() {
            return Some(Action::Breaker { endpoint, is_open });
        }
        if let Some(order) = self.intake.poll(&self.sessions) {
            return Some(order);
        }
        // What was delivered and not recorded is delivered again after a crash: so there is a
        // bound to it.
        while !self.stopped && self.unrecorded < self.max_unrecorded {
            let start = self.turns.next()?;
            if let Some(order) = self.start(start) {
                return Some(order);
            }
        }
        None
    }

    /// When to hand in [`Input::Elapsed`].
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.turns.deadline()).min()
    }

    /// Whether nothing is under way: what is left waits for a later time.
    pub(crate) fn is_quiet(&self) -> bool {
        self.turns.in_flight() == 0
            && (self.stopped || self.turns.waiting() == 0)
            && self.unrecorded == 0
            && self.orders.is_empty()
    }

    pub(crate) fn levels(&self) -> Levels {
        Levels {
            events: self.intake.room.events(),
            lanes: self.lanes,
            parked: self.parked,
            parked_ever: self.parked_ever,
            places: self.turns.places(),
            unrecorded: self.unrecorded,
            behind: self.intake.room.is_behind(),
            oldest: WebhookType::ALL.map(|kind| Some(self.oldest.get(&kind)?.first()?.0)),
        }
    }

    /// The session's record, made if there is none.
    pub(super) fn session(&mut self, id: Uuid, owner: &str) -> &mut Session {
        if !self.sessions.contains_key(&id)
            && self.sessions.len() >= self.max_sessions
            && !self.intake.is_reading()
            && let Some(forgotten) = self.idle.pop_first()
        {
            // Should it go on, its next event is out of sequence and it is read from the store.
            self.sessions.remove(&forgotten);
        }
        self.idle.remove(&id);
        self.sessions.entry(id).or_insert_with(|| Session {
            owner: Arc::from(owner),
            last: 0,
            items: BTreeMap::new(),
            order: BTreeMap::new(),
            parked: BTreeSet::new(),
            lost: Lost::default(),
            unrecorded: 0,
            summary_taken: false,
            stopped: false,
            replay: false,
            loading: None,
        })
    }

    /// Takes an event in, behind those of its lane. The caller has made sure that there is room
    /// and that no earlier event of the session is still to come.
    pub(super) fn admit(&mut self, now: Timestamp, row: EventRow, stands: Option<&Outcome>) {
        let (id, kind) = (row.session_id, row.webhook_type);
        let key = EventKey {
            session: id,
            ordinal: row.ordinal,
        };
        let attempts = stands.map_or(0, |outcome| outcome.attempts);
        let parked = stands.is_some_and(|outcome| outcome.state == DeliveryState::Parked);
        let at = row.at;
        let owner = Arc::clone(&self.session(id, &row.sub_account_id).owner);
        let endpoint: EndpointKey = (owner, kind);
        let schedule = &self.turns.policy(&endpoint).schedule;
        // A clock that was ahead when this was written down holds no lane for as long.
        let due = stands
            .and_then(|outcome| outcome.next_attempt_at)
            .map_or(now, |due| due.min(now.plus_ms(schedule.longest_ms())));
        let since = if attempts == 0 { now } else { at.min(now) };
        let parks = schedule.parks(since);
        self.intake.room.enter(&endpoint.0);
        let session = self.session(id, &row.sub_account_id);
        session.last = session.last.max(key.ordinal);
        session.summary_taken |= kind == WebhookType::Vss;
        let item = Item {
            event: Arc::new(row),
            attempts,
            since,
            parks,
            phase: Phase::Queued(due),
        };
        session.items.insert(key.ordinal, item);
        if parked {
            session.parked.insert(key.ordinal);
            self.parked += 1;
        } else {
            let order = session.order.entry(kind).or_default();
            let began = order.is_empty();
            order.insert(key.ordinal);
            self.lanes += usize::from(began);
        }
        self.oldest.entry(kind).or_default().insert((at, key));
        if parked {
            self.wait_until(now, key, due);
        } else {
            self.advance(now, id, kind);
        }
    }

    /// Lets the first event of a lane go, if nothing keeps it.
    fn advance(&mut self, now: Timestamp, id: Uuid, kind: WebhookType) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Some(ordinal) = session.order.get(&kind).and_then(|order| order.first()) else {
            return;
        };
        let key = EventKey {
            session: id,
            ordinal: *ordinal,
        };
        let Some(item) = session.items.get(ordinal) else {
            return;
        };
        let Phase::Queued(due) = item.phase else {
            return;
        };
        let status_open = session
            .order
            .get(&WebhookType::Vcs)
            .is_some_and(|order| !order.is_empty());
        let opens = item.parks;
        if kind == WebhookType::Vss && status_open && now < opens {
            self.timers.insert((opens, Timer::Summary(id)));
            return;
        }
        if kind == WebhookType::Vss {
            // How far away it is is for the webhook's owner to say.
            self.timers.remove(&(opens, Timer::Summary(id)));
        }
        if item.attempts > 0 {
            self.timers.insert((opens, Timer::Park(key)));
        }
        self.wait_until(now, key, due);
    }

    fn wait_until(&mut self, now: Timestamp, key: EventKey, due: Timestamp) {
        let Some(session) = self.sessions.get_mut(&key.session) else {
            return;
        };
        let Some(item) = session.items.get_mut(&key.ordinal) else {
            return;
        };
        if due > now {
            item.phase = Phase::Waiting(due);
            self.timers.insert((due, Timer::Retry(key)));
            return;
        }
        item.phase = Phase::Due;
        let class = if item.attempts == 0 {
            Class::First
        } else {
            Class::Retry
        };
        let endpoint: EndpointKey = (Arc::clone(&session.owner), item.event.webhook_type);
        self.turns.enqueue(&endpoint, key, class);
    }

    fn start(&mut self, start: Start) -> Option<Action> {
        let key = start.event;
        let session = self.sessions.get_mut(&key.session)?;
        let item = session.items.get_mut(&key.ordinal)?;
        let kind = item.event.webhook_type;
        // In its lane something is before it only if it is parked, and the other was replayed.
        let before = [
            session.parked.first(),
            session.order.get(&kind).and_then(BTreeSet::first),
        ];
        let gap = before
            .into_iter()
            .flatten()
            .any(|first| *first < key.ordinal)
            || session.lost.is_before(key.ordinal, kind);
        item.phase = Phase::InFlight { start, gap };
        Some(Action::Attempt {
            key,
            event: Arc::clone(&item.event),
            gap,
        })
    }

    fn attempted(
        &mut self,
        now: Timestamp,
        key: EventKey,
        result: AttemptResult,
        jitter_permille: i16,
    ) {
        let Some(session) = self.sessions.get_mut(&key.session) else {
            return;
        };
        let Some(item) = session.items.get_mut(&key.ordinal) else {
            return;
        };
        let Phase::InFlight { start, gap } = item.phase else {
            return;
        };
        let endpoint: EndpointKey = (Arc::clone(&session.owner), item.event.webhook_type);
        self.turns
            .finished(&endpoint, start, health(&result), jitter_permille);
        let schedule = &self.turns.policy(&endpoint).schedule;
        let parks_then = std::mem::replace(&mut item.parks, schedule.parks(item.since));
        if parks_then != item.parks {
            self.timers.remove(&(parks_then, Timer::Park(key)));
        }
        let event = Arc::clone(&item.event);
        let parked = session.parked.contains(&key.ordinal);
        let mut outcome = Outcome {
            event_id: event.event_id,
            state: DeliveryState::Delivered,
            attempts: item.attempts,
            next_attempt_at: None,
            status: None,
            error: None,
            at: now,
        };
        let mut next = None;
        match result {
            AttemptResult::Postponed => {
                if item.attempts > 0 && !parked {
                    self.timers.insert((item.parks, Timer::Park(key)));
                }
                self.wait_until(now, key, now.plus_ms(POSTPONE_MS));
                return;
            }
            AttemptResult::NoEndpoint => {
                outcome.state = DeliveryState::NoEndpoint;
                outcome.error = Some("no enabled webhook of this type".to_owned());
            }
            AttemptResult::Delivered { status } => {
                item.attempts += 1;
                outcome.status = Some(status);
            }
            AttemptResult::Gone => {
                item.attempts += 1;
                outcome.state = DeliveryState::Dead;
                outcome.status = Some(410);
                outcome.error = Some("the receiver wants no more: webhook disabled".to_owned());
            }
            AttemptResult::Failed {
                status,
                error,
                retry_after,
            } => {
                item.attempts += 1;
                next = schedule.next(now, item.attempts, jitter_permille, retry_after);
                outcome.status = status;
                outcome.error = Some(error);
                outcome.next_attempt_at = next;
                outcome.state = match next {
                    None => DeliveryState::Dead,
                    Some(_) if parked || now >= item.parks => DeliveryState::Parked,
                    Some(_) => DeliveryState::Pending,
                };
            }
        }
        outcome.attempts = item.attempts;
        let (state, parks) = (outcome.state, item.parks);
        session.lost.note(key.ordinal, event.webhook_type, state);
        self.record(key.session, event, outcome, Some(gap));
        match next {
            None => self.settle(now, key),
            Some(due) => {
                self.wait_until(now, key, due);
                if state == DeliveryState::Parked {
                    self.park(now, key);
                } else {
                    self.timers.insert((parks, Timer::Park(key)));
                }
            }
        }
    }

    pub(super) fn order(&mut self, action: Action) {
        self.orders.push_back(action);
    }

    fn record(
        &mut self,
        session: Uuid,
        event: Arc<EventRow>,
        outcome: Outcome,
        attempt_gap: Option<bool>,
    ) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.unrecorded += 1;
        }
        self.unrecorded += 1;
        self.orders.push_back(Action::Record {
            event,
            outcome,
            attempt_gap,
        });
    }

    /// Takes an event out for good.
    fn settle(&mut self, now: Timestamp, key: EventKey) {
        let Some(session) = self.sessions.get_mut(&key.session) else {
            return;
        };
        let Some(item) = session.items.remove(&key.ordinal) else {
            return;
        };
        self.intake.room.leave(&session.owner, 1);
        if let Some(oldest) = self.oldest.get_mut(&item.event.webhook_type) {
            oldest.remove(&(item.event.at, key));
        }
        self.timers.remove(&(item.parks, Timer::Park(key)));
        if session.parked.remove(&key.ordinal) {
            self.parked -= 1;
        }
        self.leave_order(now, key, item.event.webhook_type);
        self.rest(key.session);
    }

    /// Takes an event out of its lane's way.
    fn park(&mut self, now: Timestamp, key: EventKey) {
        let Some(session) = self.sessions.get_mut(&key.session) else {
            return;
        };
        let Some(item) = session.items.get(&key.ordinal) else {
            return;
        };
        let kind = item.event.webhook_type;
        if session.parked.insert(key.ordinal) {
            self.parked += 1;
            self.parked_ever += 1;
        }
        self.leave_order(now, key, kind);
    }

    fn leave_order(&mut self, now: Timestamp, key: EventKey, kind: WebhookType) {
        let Some(session) = self.sessions.get_mut(&key.session) else {
            return;
        };
        let Some(order) = session.order.get_mut(&kind) else {
            return;
        };
        if !order.remove(&key.ordinal) {
            return;
        }
        if order.is_empty() {
            session.order.remove(&kind);
            self.lanes -= 1;
        }
        self.advance(now, key.session, kind);
        if kind == WebhookType::Vcs {
            self.advance(now, key.session, WebhookType::Vss);
        }
    }

    /// Forgets a session of which nothing more is to come, remembers one that may go on.
    pub(super) fn rest(&mut self, id: Uuid) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let busy = !session.items.is_empty() || session.unrecorded > 0 || session.loading.is_some();
        if busy || session.stopped && !session.replay {
            // One that stands still must not be forgotten: its later events would go on.
            self.idle.remove(&id);
        } else if session.replay {
            // A page that is being read may tell how things stood before.
            if !self.intake.forget_later(id) {
                self.idle.remove(&id);
                self.reload(id);
            }
        } else if !session.summary_taken {
            self.idle.insert(id);
        } else if !self.intake.forget_later(id) {
            self.idle.remove(&id);
            self.sessions.remove(&id);
        }
    }

    fn fire(&mut self, now: Timestamp) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Retry(key) => {
                    if self.phase(key) == Some(Phase::Waiting(at)) {
                        self.wait_until(now, key, now);
                    }
                }
                Timer::Park(key) => self.order_deadline(now, key),
                Timer::Summary(id) => self.advance(now, id, WebhookType::Vss),
                Timer::Load(id) => self.intake.want(id),
                Timer::Rested => self.intake.rested(),
            }
        }
    }

    fn phase(&self, key: EventKey) -> Option<Phase> {
        let item = self.sessions.get(&key.session)?.items.get(&key.ordinal)?;
        Some(item.phase)
    }

    /// The first event of a lane is too old to be waited for. One in flight is parked when its
    /// attempt fails.
    fn order_deadline(&mut self, now: Timestamp, key: EventKey) {
        let Some(session) = self.sessions.get(&key.session) else {
            return;
        };
        let Some(item) = session.items.get(&key.ordinal) else {
            return;
        };
        let next_attempt_at = match item.phase {
            Phase::Waiting(due) => Some(due),
            Phase::Due => Some(now),
            Phase::Queued(_) | Phase::InFlight { .. } => return,
        };
        if session.parked.contains(&key.ordinal) {
            return;
        }
        let event = Arc::clone(&item.event);
        let outcome = Outcome {
            event_id: event.event_id,
            state: DeliveryState::Parked,
            attempts: item.attempts,
            next_attempt_at,
            status: None,
            error: Some("past the order deadline".to_owned()),
            at: now,
        };
        self.record(key.session, event, outcome, None);
        self.park(now, key);
    }
}

/// What a result says about the endpoint.
fn health(result: &AttemptResult) -> Health {
    match result {
        AttemptResult::Delivered { .. } => Health::Well,
        AttemptResult::Failed {
            status: Some(429 | 500..=599),
            ..
        } => Health::Failing,
        AttemptResult::Gone
        | AttemptResult::Failed {
            status: Some(_), ..
        } => Health::Answered,
        AttemptResult::Failed { status: None, .. } => Health::Silent,
        AttemptResult::NoEndpoint => Health::Absent,
        AttemptResult::Postponed => Health::Unknown,
    }
}

/// How long an event waits when the store could not say where to send it.
const POSTPONE_MS: i64 = 1_000;

#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
