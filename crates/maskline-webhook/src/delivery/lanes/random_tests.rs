//! The lanes in a random world: failing receivers, a bounded memory, lost notices, crashes. What
//! has to hold at each step is checked at each step; a failure names its seed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use maskline_store::StoredEvent;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::super::Schedule;
use super::super::schedule::ms;
use super::*;

const SESSIONS: u128 = 12;
const ORDER_DEADLINE: Duration = Duration::from_secs(20);
/// A webhook whose owner lets its lanes wait for long.
const PATIENT: &str = "sub2";
const PATIENCE: Duration = Duration::from_secs(3_600);

struct World {
    seed: u64,
    random: ChaCha8Rng,
    config: DeliveryConfig,
    now: Timestamp,
    lanes: Lanes,
    /// The store.
    rows: BTreeMap<(Uuid, u64), (EventRow, Outcome)>,
    /// Per session the next ordinal and whether it is over.
    calls: BTreeMap<Uuid, (u64, bool)>,
    running: Vec<(EventKey, Arc<EventRow>)>,
    outcomes: Vec<(EventKey, Outcome)>,
    /// A page that was read, and a session that was, on their way.
    page: Option<Input>,
    loads: Vec<(Uuid, SessionBacklog)>,
    received: BTreeSet<(Uuid, u64)>,
    /// Parked as far as the lanes know, recorded or not.
    parked: BTreeSet<(Uuid, u64)>,
    /// Ended undelivered, likewise, with the type of each.
    lost: BTreeMap<(Uuid, u64), (WebhookType, DeliveryState)>,
    /// Of these, what is pending once more, and was not sent since.
    replayed: BTreeMap<(Uuid, u64), (WebhookType, DeliveryState)>,
    /// What happened later than the clock said when a process started, and what it said.
    ahead: BTreeMap<(Uuid, u64), Timestamp>,
    sent: usize,
    lost_ever: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let config = DeliveryConfig {
            schedule: Schedule {
                delays: vec![Duration::from_secs(3); 1_000],
                order_deadline: ORDER_DEADLINE,
                retry_after_max: Duration::from_secs(30),
            },
            per_endpoint: 6,
            in_all: 6,
            events_in_memory: 10,
            unrecorded: 8,
            page: 4,
            ..DeliveryConfig::default()
        };
        Self {
            seed,
            random: ChaCha8Rng::seed_from_u64(seed),
            now: Timestamp::from_unix_ms(1_767_694_639_000),
            lanes: Lanes::new(&config),
            config,
            rows: BTreeMap::new(),
            calls: BTreeMap::new(),
            running: Vec::new(),
            outcomes: Vec::new(),
            page: None,
            loads: Vec::new(),
            received: BTreeSet::new(),
            parked: BTreeSet::new(),
            lost: BTreeMap::new(),
            replayed: BTreeMap::new(),
            ahead: BTreeMap::new(),
            sent: 0,
            lost_ever: 0,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// A process starts.
    fn start(&mut self) {
        self.lanes = Lanes::new(&self.config);
        let mut policy = self.config.policy();
        policy.schedule.order_deadline = PATIENCE;
        for kind in WebhookType::ALL {
            let endpoint = (Arc::from(PATIENT), kind);
            self.handle(Input::Policy(endpoint, Some(policy.clone())));
        }
    }

    fn handle(&mut self, input: Input) {
        self.lanes.handle(self.now, input);
        while let Some(action) = self.lanes.poll() {
            match action {
                Action::Attempt { key, event, gap } => self.check_start(key, event, gap),
                Action::Record { event, outcome, .. } => {
                    let key = (event.session_id, event.ordinal);
                    if outcome.state == DeliveryState::Parked {
                        self.parked.insert(key);
                    } else if outcome.state.is_final() {
                        self.parked.remove(&key);
                    }
                    if is_lost(&outcome) {
                        self.lost_ever += 1;
                        let how = (event.webhook_type, outcome.state);
                        self.lost.insert(key, how);
                    }
                    let key = EventKey {
                        session: key.0,
                        ordinal: key.1,
                    };
                    self.outcomes.push((key, outcome));
                }
                Action::Owners => {
                    let pending = |(row, outcome): &(EventRow, Outcome)| {
                        (!outcome.state.is_final()).then(|| row.sub_account_id.clone())
                    };
                    let owners: BTreeSet<String> = self.rows.values().filter_map(pending).collect();
                    let owners = Input::Owners(owners.into_iter().collect());
                    assert!(self.page.replace(owners).is_none(), "one page at a time");
                }
                Action::Scan { owner, after } => {
                    let events: Vec<_> = self
                        .rows
                        .iter()
                        .filter(|(key, (row, outcome))| {
                            after.as_ref().is_none_or(|after| *key > after)
                                && *row.sub_account_id == *owner
                                && !outcome.state.is_final()
                        })
                        .take(self.config.page as usize)
                        .map(|(_, (row, outcome))| StoredEvent::Whole(row.clone(), outcome.clone()))
                        .collect();
                    let mut page = PendingPage::from(events);
                    for (session, ordinal) in page.events.iter().filter_map(StoredEvent::key) {
                        let lost = self.lost_of(session, ordinal);
                        page.lost.insert(session, lost);
                    }
                    let page = Input::Scanned(page);
                    assert!(self.page.replace(page).is_none(), "one page at a time");
                }
                Action::Load { session, after, .. } => {
                    let backlog = self.backlog(session, after);
                    self.loads.push((session, backlog));
                }
                Action::Breaker { .. } => {}
                Action::Broken { .. } => panic!("seed {}: nothing is broken", self.seed),
            }
        }
        let levels = self.lanes.levels();
        assert!(levels.events <= 10, "seed {}: {levels:?}", self.seed);
        let places = levels.places;
        assert!(
            places.fast + places.slow <= 12,
            "seed {}: {levels:?}",
            self.seed
        );
        // Each belongs to an event, which has two at most, or to the store's next turn.
        let of_events = self.lanes.timers.iter().filter(|(_, timer)| match timer {
            Timer::Retry(_) | Timer::Park(_) | Timer::Summary(_) => true,
            Timer::Load(_) | Timer::Rested => false,
        });
        assert!(
            of_events.count() <= 2 * levels.events,
            "seed {}: {:?}",
            self.seed,
            self.lanes.timers
        );
        // Beyond the bound only what was running when it was reached, and what was parked.
        assert!(levels.unrecorded <= 8 + 12 + 10, "seed {}", self.seed);
    }

    /// What the store knows to be lost of a session up to there.
    fn lost_of(&self, session: Uuid, up_to: u64) -> Lost {
        let mut lost = Lost::default();
        for (row, outcome) in self
            .rows
            .range((session, 0)..=(session, up_to))
            .map(|it| it.1)
        {
            lost.note(row.ordinal, row.webhook_type, outcome.state);
        }
        lost
    }

    fn backlog(&self, session: Uuid, after: u64) -> SessionBacklog {
        let behind = self
            .rows
            .range((session, after + 1)..=(session, u64::MAX))
            .map(|(_, found)| found);
        let last = behind.clone().next_back();
        let pending: Vec<_> = behind
            .filter(|(_, outcome)| !outcome.state.is_final())
            .take(self.config.page as usize)
            .map(|(row, outcome)| StoredEvent::Whole(row.clone(), outcome.clone()))
            .collect();
        let more = pending.len() == self.config.page as usize;
        let last_pending = pending.last().and_then(StoredEvent::key);
        let last_ordinal = last.map_or(0, |(row, _)| row.ordinal);
        let up_to = last_pending
            .filter(|_| more)
            .map_or(last_ordinal, |it| it.1);
        SessionBacklog {
            more,
            pending,
            last: last_ordinal,
            lost: self.lost_of(session, up_to),
            has_summary: last.is_some_and(|(row, _)| row.webhook_type == WebhookType::Vss),
        }
    }

    fn check_start(&mut self, key: EventKey, event: Arc<EventRow>, gap: bool) {
        let seed = self.seed;
        self.sent += 1;
        assert!(
            self.running.iter().all(|(other, _)| *other != key),
            "seed {seed}: {key:?} runs already"
        );
        let earlier = self
            .rows
            .range((key.session, 0)..(key.session, key.ordinal));
        self.lost.remove(&(key.session, key.ordinal));
        self.replayed.remove(&(key.session, key.ordinal));
        let lacks = |how: Option<&(WebhookType, DeliveryState)>| {
            how.is_some_and(|(kind, state)| {
                *state == DeliveryState::Dead || *kind == event.webhook_type
            })
        };
        let own_parked = self.parked.contains(&(key.session, key.ordinal));
        let (mut must, mut may) = (false, false);
        for (other, (row, _)) in earlier {
            let parked = self.parked.contains(other);
            let lost = self.lost.contains_key(other);
            must |= parked || lacks(self.lost.get(other));
            // Until its session is read anew, the header says of it what was so before.
            let replayed = lacks(self.replayed.get(other));
            may |= replayed;
            // What is replayed may be under way before what is parked, and is sent beside it.
            may |= own_parked && row.webhook_type == event.webhook_type;
            if row.webhook_type == event.webhook_type {
                assert!(
                    parked
                        || lost
                        || self.received.contains(other)
                        || replayed
                        || own_parked && gap,
                    "seed {seed}: {key:?} overtakes {other:?}"
                );
            }
            let waits =
                event.webhook_type == WebhookType::Vss && row.webhook_type == WebhookType::Vcs;
            if waits && !parked && !lost && !self.replayed.contains_key(other) {
                let deadline = if event.sub_account_id == PATIENT {
                    PATIENCE
                } else {
                    ORDER_DEADLINE
                };
                let at = self.ahead.get(&(key.session, key.ordinal));
                let since = at.unwrap_or(&event.at).unix_ms();
                let waited = self.now.unix_ms() - since >= ms(deadline);
                assert!(
                    waited || self.received.contains(other),
                    "seed {seed}: the summary {key:?} overtakes {other:?}"
                );
            }
        }
        assert!(gap || !must, "seed {seed}: {key:?} without a gap");
        assert!(!gap || must || may, "seed {seed}: {key:?} with a gap");
        let lane = |other: &EventKey, row: &EventRow| {
            other.session == key.session
                && row.webhook_type == event.webhook_type
                && !self.parked.contains(&(other.session, other.ordinal))
        };
        let beside = self.running.iter().filter(|(other, row)| lane(other, row));
        assert!(
            own_parked || beside.count() == 0,
            "seed {seed}: two of a lane at once"
        );
        self.running.push((key, event));
    }

    fn commit(&mut self) {
        let id = Uuid::from_u128(self.random.random_range(1..=SESSIONS));
        let (ordinal, over) = *self.calls.entry(id).or_insert((1, false));
        if over {
            return;
        }
        let mut rows = Vec::new();
        let count = self.random.random_range(1..=3);
        let ends = self.chance(10);
        for n in 0..count {
            let last = ends && n == count - 1;
            let row = EventRow {
                event_id: Uuid::from_u128(id.as_u128() << 32 | u128::from(ordinal + n)),
                session_id: id,
                sub_account_id: format!("sub{}", id.as_u128() % 3),
                ordinal: ordinal + n,
                webhook_type: if last {
                    WebhookType::Vss
                } else if self.chance(80) {
                    WebhookType::Vcs
                } else {
                    WebhookType::Vru
                },
                at: self.now,
                body: String::new(),
            };
            let outcome = Outcome {
                event_id: row.event_id,
                state: DeliveryState::Pending,
                attempts: 0,
                next_attempt_at: None,
                status: None,
                error: None,
                at: self.now,
            };
            self.rows.insert((id, row.ordinal), (row.clone(), outcome));
            rows.push(row);
        }
        self.calls.insert(id, (ordinal + count, ends));
        if self.chance(85) {
            self.handle(Input::Committed(rows));
        } else {
            self.handle(Input::Missed);
        }
    }

    fn finish_one(&mut self, well: bool) {
        if self.running.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.running.len());
        let (key, event) = self.running.swap_remove(index);
        let draw = if well {
            0
        } else {
            self.random.random_range(0..100)
        };
        let failed = || AttemptResult::Failed {
            status: None,
            error: String::new(),
            retry_after: None,
        };
        let result = match draw {
            0..50 => {
                self.received.insert((event.session_id, event.ordinal));
                AttemptResult::Delivered { status: 200 }
            }
            // The receiver has it, but we don't know.
            50..55 => {
                self.received.insert((event.session_id, event.ordinal));
                failed()
            }
            55..60 => AttemptResult::Postponed,
            60..62 => AttemptResult::Gone,
            62..64 => AttemptResult::NoEndpoint,
            _ => failed(),
        };
        let jitter_permille = self.random.random_range(-100..=100);
        self.handle(Input::Attempted {
            key,
            result,
            jitter_permille,
        });
    }

    fn record(&mut self) {
        let count = self.random.random_range(0..=self.outcomes.len());
        let mut sessions = Vec::new();
        for (key, outcome) in self.outcomes.drain(..count) {
            let found = self.rows.get_mut(&(key.session, key.ordinal)).unwrap();
            found.1 = outcome;
            sessions.push(key.session);
        }
        self.handle(Input::Recorded(sessions));
    }

    fn read(&mut self) {
        if let Some(page) = self.page.take() {
            if self.chance(90) {
                self.handle(page);
            } else {
                self.handle(Input::ScanFailed);
            }
        }
        if !self.loads.is_empty() {
            let (id, rows) = self.loads.swap_remove(0);
            if self.chance(90) {
                self.handle(Input::Loaded(id, rows));
            } else {
                self.handle(Input::LoadFailed(id));
            }
        }
    }

    fn crash(&mut self) {
        if self.chance(30) {
            // The clock was ahead, and the next process has the right time.
            let hours = self.random.random_range(1..24);
            self.now = self.now.plus_ms(-hours * 3_600_000);
            for (key, (row, _)) in &self.rows {
                if row.at > self.now {
                    self.ahead.insert(*key, self.now);
                }
            }
        }
        self.running.clear();
        self.outcomes.clear();
        self.page = None;
        self.loads.clear();
        self.replayed.clear();
        let ended = self
            .rows
            .iter()
            .filter(|(_, (_, outcome))| is_lost(outcome));
        self.lost = ended
            .map(|(key, (row, outcome))| (*key, (row.webhook_type, outcome.state)))
            .collect();
        let parked = |(_, outcome): &(EventRow, Outcome)| outcome.state == DeliveryState::Parked;
        self.parked = self
            .rows
            .iter()
            .filter(|(_, found)| parked(found))
            .map(|(key, _)| *key)
            .collect();
        self.start();
    }

    /// Makes some events pending that were settled, as a replay in the store does.
    fn replay(&mut self) {
        let mut sessions: BTreeMap<String, BTreeSet<Uuid>> = BTreeMap::new();
        for (key, (row, outcome)) in &mut self.rows {
            if outcome.state.is_final() && self.random.random_range(0..100) < 5 {
                outcome.state = DeliveryState::Pending;
                outcome.attempts = 0;
                let of = sessions.entry(row.sub_account_id.clone()).or_default();
                of.insert(key.0);
                if let Some(how) = self.lost.remove(key) {
                    self.replayed.insert(*key, how);
                }
            }
        }
        for (owner, sessions) in sessions {
            let sessions = sessions.into_iter().collect();
            self.handle(Input::Replayed(Arc::from(owner), sessions));
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..1_000) {
            0..200 => self.commit(),
            200..600 => self.finish_one(false),
            600..750 => self.record(),
            750..850 => self.read(),
            850..852 => self.replay(),
            852..995 => {
                self.now = self.now.plus_ms(self.random.random_range(0..2_000));
                self.handle(Input::Elapsed);
            }
            _ => self.crash(),
        }
    }

    fn settle(&mut self) {
        for _ in 0..20_000 {
            if self.rows.values().all(|(_, o)| o.state.is_final()) {
                return;
            }
            self.finish_one(true);
            self.record();
            self.read();
            self.now = self.now.plus_ms(500);
            self.handle(Input::Elapsed);
        }
        panic!("seed {}: something is never delivered", self.seed);
    }

    /// What is on its way from the store arrives, and the pause after a failure of it ends.
    fn rest(&mut self) {
        while !self.lanes.timers.is_empty() || self.page.is_some() || !self.loads.is_empty() {
            if let Some(page) = self.page.take() {
                self.handle(page);
            }
            for (id, rows) in std::mem::take(&mut self.loads) {
                self.handle(Input::Loaded(id, rows));
            }
            let Some((at, timer)) = self.lanes.timers.first().copied() else {
                continue;
            };
            let of_the_store = matches!(timer, Timer::Load(_) | Timer::Rested);
            assert!(of_the_store, "seed {}: {timer:?} is left", self.seed);
            self.now = self.now.max(at);
            self.handle(Input::Elapsed);
        }
    }
}

fn is_lost(outcome: &Outcome) -> bool {
    matches!(
        outcome.state,
        DeliveryState::Dead | DeliveryState::NoEndpoint
    )
}

#[test]
fn nothing_is_lost_or_overtaken_in_a_random_world() {
    let (mut sent, mut lost) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.start();
        for _ in 0..1_500 {
            world.step();
        }
        world.settle();
        for key in world.rows.keys() {
            let known = world.received.contains(key) || world.lost.contains_key(key);
            assert!(known, "seed {seed}: {key:?} is lost");
        }
        let levels = world.lanes.levels();
        assert_eq!((levels.events, levels.lanes), (0, 0), "seed {seed}");
        world.rest();
        sent += world.sent;
        lost += world.lost_ever;
    }
    assert!(sent > 20_000, "the world was too quiet: {sent}");
    assert!(lost > 1_000, "too few were lost: {lost}");
}
