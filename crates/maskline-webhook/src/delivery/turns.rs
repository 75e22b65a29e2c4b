//! Whose turn it is: a fair share of the attempts for each endpoint, first tries and retries
//! alternating, and nobody behind those that hang.
//!
//! Endpoints take turns, one attempt each, those with the fewest under way first; for whom there is a
//! place, `rings` says. What an endpoint starts is in turn a first try and a retry, when both wait.
//! An attempt that has run for [`FAST_MS`] is slow: an endpoint with such an attempt goes behind the
//! others, and after that until it has answered within that time. One that was put off by us says
//! nothing of its endpoint, however long that took.
//!
//! | an endpoint | attempts at once | goes |
//! | --- | --- | --- |
//! | is unproven: gave no 2xx yet, or no answer since | [`FEW`] | behind |
//! | is proven, and quick | its cap, half of it for retries | ahead |
//! | is proven, and slow | its cap | behind |
//! | has an open breaker | 0 | |
//! | has a half-open one | 1 | behind |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use maskline_events::{Timestamp, WebhookType};
use uuid::Uuid;

use super::breaker::{Breaker, BreakerConfig, Health};
use super::policy::{Bucket, EndpointPolicy};
use super::rings::{FEW, Rank, Rings, Turn};
#[cfg(doc)]
use super::running::FAST_MS;
use super::running::{Age, Running};

/// An event, by its place in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EventKey {
    pub(crate) session: Uuid,
    pub(crate) ordinal: u64,
}

/// A sub-account's webhook.
pub(crate) type EndpointKey = (Arc<str>, WebhookType);

/// What is known about an endpoint is kept for so long after its last attempt, or twice that.
const REMEMBERED_MS: i64 = 10 * 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    First,
    Retry,
}

/// An attempt that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) event: EventKey,
    pub(crate) class: Class,
    /// What [`Turns::finished`] is to be told.
    pub(crate) number: u64,
}

/// Levels, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Attempts that have not yet run for [`FAST_MS`], and those that have.
    pub(crate) fast: usize,
    pub(crate) slow: usize,
    /// Endpoints whose breaker is open, and half open.
    pub(crate) open: usize,
    pub(crate) half_open: usize,
}

#[derive(Debug)]
pub(crate) struct Turns {
    in_all: usize,
    breaker: BreakerConfig,
    /// For endpoints that have none of their own.
    policy: Arc<EndpointPolicy>,
    policies: BTreeMap<EndpointKey, Arc<EndpointPolicy>>,
    now: Timestamp,
    lines: BTreeMap<EndpointKey, Line>,
    /// Endpoints that may start something, in turn.
    rings: Rings,
    running: Running,
    places: Places,
    waiting: usize,
    /// How many of those wait for a breaker.
    held: usize,
    /// When an endpoint may go on, by its breaker or its rate.
    wakes: BTreeSet<(Timestamp, EndpointKey)>,
    /// Endpoints that are remembered, once each, and when to look whether they are still in use.
    remembered: BTreeSet<(Timestamp, EndpointKey)>,
    /// Whose breaker has opened or closed, until somebody asks.
    notes: VecDeque<(EndpointKey, bool)>,
}

/// What is known of an endpoint's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It gave no 2xx yet, or no answer since.
    Unproven,
    /// It answers, but an attempt of it that ended since it last did so in less than [`FAST_MS`]
    /// had run for that.
    Slow,
    /// It answers in less than that.
    Quick,
}

#[derive(Debug)]
struct Line {
    policy: Arc<EndpointPolicy>,
    first: VecDeque<EventKey>,
    retry: VecDeque<EventKey>,
    /// So many of them as retries, and so many that have run for [`FAST_MS`].
    in_flight: usize,
    retries: usize,
    old: usize,
    known: Known,
    breaker: Breaker,
    bucket: Option<Bucket>,
    /// A retry goes before the next first try, so that none waits while those go on.
    retry_is_next: bool,
    turn: Option<Turn>,
    wake: Option<Timestamp>,
    used: Timestamp,
    /// When to look whether it is still in use.
    look: Option<Timestamp>,
}

impl Line {
    fn new(policy: Arc<EndpointPolicy>, now: Timestamp) -> Self {
        Self {
            bucket: policy.rate.map(|rate| Bucket::new(rate, now)),
            policy,
            first: VecDeque::new(),
            retry: VecDeque::new(),
            in_flight: 0,
            retries: 0,
            old: 0,
            known: Known::Unproven,
            breaker: Breaker::NEW,
            retry_is_next: false,
            turn: None,
            wake: None,
            used: now,
            look: None,
        }
    }

    fn waiting(&self) -> usize {
        self.first.len() + self.retry.len()
    }

    /// How many attempts at once it may have.
    fn cap(&self) -> usize {
        let cap = self.policy.cap.max(1);
        match self.breaker {
            Breaker::Open { .. } => 0,
            Breaker::HalfOpen { .. } => 1,
            Breaker::Closed { .. } => match self.known {
                Known::Slow | Known::Quick => cap,
                Known::Unproven => cap.min(FEW),
            },
        }
    }

    /// Whether it answers quickly.
    fn rank(&self) -> Rank {
        if self.known == Known::Quick && self.old == 0 {
            Rank::Ahead
        } else {
            Rank::Behind
        }
    }

    /// Whether a retry is to be started but for the rate and the places of all.
    fn may_retry(&self) -> bool {
        !self.retry.is_empty()
            && match self.rank() {
                Rank::Ahead => self.retries < half(self.cap()),
                Rank::Behind => true,
            }
    }

    /// Whether something is to be started but for the rate and the places of all.
    fn wants(&self) -> bool {
        self.in_flight < self.cap() && (!self.first.is_empty() || self.may_retry())
    }

    fn take(&mut self) -> Option<(EventKey, Class)> {
        let class = if self.may_retry() && (self.retry_is_next || self.first.is_empty()) {
            Class::Retry
        } else {
            Class::First
        };
        let event = match class {
            Class::First => self.first.pop_front(),
            Class::Retry => self.retry.pop_front(),
        }?;
        self.retry_is_next = class == Class::First;
        Some((event, class))
    }
}

impl Turns {
    /// `policy` is that of endpoints which have none of their own.
    pub(crate) fn new(policy: EndpointPolicy, in_all: usize, breaker: BreakerConfig) -> Self {
        Self {
            in_all: in_all.max(1),
            breaker,
            policy: Arc::new(policy),
            policies: BTreeMap::new(),
            now: Timestamp::from_unix_ms(0),
            lines: BTreeMap::new(),
            rings: Rings::default(),
            running: Running::default(),
            places: Places::default(),
            waiting: 0,
            held: 0,
            wakes: BTreeSet::new(),
            remembered: BTreeSet::new(),
            notes: VecDeque::new(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.places.fast + self.places.slow
    }

    /// Events that are due and wait for a place; not those that wait for a breaker.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting - self.held
    }

    pub(crate) fn places(&self) -> Places {
        self.places
    }

    pub(crate) fn policy(&self, endpoint: &EndpointKey) -> &EndpointPolicy {
        match self.policies.get(endpoint) {
            Some(policy) => policy,
            None => &self.policy,
        }
    }

    /// Gives an endpoint a policy of its own; `None` takes it away.
    pub(crate) fn set_policy(&mut self, endpoint: &EndpointKey, policy: Option<EndpointPolicy>) {
        let policy = match policy {
            Some(policy) => {
                let policy = Arc::new(policy);
                self.policies.insert(endpoint.clone(), Arc::clone(&policy));
                policy
            }
            None => {
                self.policies.remove(endpoint);
                Arc::clone(&self.policy)
            }
        };
        if let Some(line) = self.lines.get_mut(endpoint) {
            // Full only if there was none: else each change would give a second's attempts.
            line.bucket = policy.rate.map(|rate| match line.bucket {
                Some(bucket) => bucket.at_rate(rate, self.now),
                None => Bucket::new(rate, self.now),
            });
            line.policy = policy;
            // What it waits for may come earlier now, unless that is its breaker.
            if !matches!(line.breaker, Breaker::Open { .. })
                && let Some(at) = line.wake.take()
            {
                self.wakes.remove(&(at, endpoint.clone()));
            }
            self.rejoin(endpoint);
        }
    }

    /// The endpoint was set anew: what is known of its failures counts no more.
    pub(crate) fn changed(&mut self, endpoint: &EndpointKey) {
        if let Some(line) = self.lines.get_mut(endpoint) {
            line.known = Known::Unproven;
        }
        self.set_breaker(endpoint, Breaker::NEW);
        self.rejoin(endpoint);
    }

    /// An endpoint of which the breaker has opened (true) or closed since this was last asked.
    pub(crate) fn note(&mut self) -> Option<(EndpointKey, bool)> {
        self.notes.pop_front()
    }

    /// When to call [`Turns::elapsed`].
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let wake = self.wakes.first().map(|(at, _)| *at);
        let aged = self.running.deadline();
        wake.into_iter().chain(aged).min()
    }

    /// So late it is. To be told ahead of everything else.
    pub(crate) fn elapsed(&mut self, now: Timestamp) {
        self.now = now;
        self.age();
        while let Some((at, _)) = self.wakes.first()
            && *at <= now
            && let Some((at, endpoint)) = self.wakes.pop_first()
        {
            if let Some(line) = self.lines.get_mut(&endpoint)
                && line.wake == Some(at)
            {
                line.wake = None;
                let breaker = line.breaker.elapsed(now);
                self.set_breaker(&endpoint, breaker);
                self.rejoin(&endpoint);
            }
        }
        while let Some((at, _)) = self.remembered.first()
            && *at <= now
            && let Some((_, endpoint)) = self.remembered.pop_first()
        {
            let Some(line) = self.lines.get_mut(&endpoint) else {
                continue;
            };
            line.look = None;
            let unused = line.waiting() == 0 && line.in_flight == 0;
            if unused && line.used.plus_ms(REMEMBERED_MS) <= now {
                self.forget(&endpoint);
            } else {
                self.remember(&endpoint);
            }
        }
    }

    /// Notes which attempts have become old.
    fn age(&mut self) {
        while let Some(endpoint) = self.running.ages(self.now) {
            self.places.fast -= 1;
            self.places.slow += 1;
            if let Some(line) = self.lines.get_mut(&endpoint) {
                line.old += 1;
            }
            self.rejoin(&endpoint);
        }
    }

    pub(crate) fn enqueue(&mut self, endpoint: &EndpointKey, event: EventKey, class: Class) {
        if !self.lines.contains_key(endpoint) {
            let policy = self.policies.get(endpoint).unwrap_or(&self.policy);
            let line = Line::new(Arc::clone(policy), self.now);
            self.lines.insert(endpoint.clone(), line);
        }
        let Some(line) = self.lines.get_mut(endpoint) else {
            return;
        };
        match class {
            Class::First => line.first.push_back(event),
            Class::Retry => line.retry.push_back(event),
        }
        self.waiting += 1;
        self.held += usize::from(matches!(line.breaker, Breaker::Open { .. }));
        self.rejoin(endpoint);
    }

    /// The next event to attempt, if a place is free. The attempt counts as running from here to
    /// [`Turns::finished`].
    pub(crate) fn next(&mut self) -> Option<Start> {
        let endpoint = self.rings.pop(self.in_all, self.in_flight())?;
        let line = self.lines.get_mut(&endpoint)?;
        line.turn = None;
        let (event, class) = line.take()?;
        line.in_flight += 1;
        line.retries += usize::from(class == Class::Retry);
        if let Some(bucket) = &mut line.bucket {
            bucket.take(self.now);
        }
        self.places.fast += 1;
        self.waiting -= 1;
        // One that may start nothing more comes back when an attempt of it ends, or its time has
        // come.
        self.rejoin(&endpoint);
        let number = self.running.start(self.now, &endpoint);
        Some(Start {
            event,
            class,
            number,
        })
    }

    /// An attempt ended; its place is free. `jitter_permille` spreads a breaker's pause.
    pub(crate) fn finished(
        &mut self,
        endpoint: &EndpointKey,
        start: Start,
        health: Health,
        jitter_permille: i16,
    ) {
        let Some(line) = self.lines.get_mut(endpoint) else {
            return;
        };
        line.in_flight -= 1;
        line.retries -= usize::from(start.class == Class::Retry);
        line.used = self.now;
        let answers = match self.running.end(start.number) {
            Age::Young => {
                self.places.fast -= 1;
                Known::Quick
            }
            Age::Old => {
                line.old -= 1;
                self.places.slow -= 1;
                Known::Slow
            }
        };
        let was = line.breaker;
        let breaker = was.ended(self.now, health, jitter_permille, &self.breaker);
        match (health, was) {
            _ if matches!(breaker, Breaker::Open { .. }) => line.known = Known::Unproven,
            // One that comes back from a pause begins with few places.
            (Health::Well, Breaker::Closed { .. }) => line.known = answers,
            (Health::Silent, _) | (_, Breaker::Open { .. } | Breaker::HalfOpen { .. }) => {
                line.known = Known::Unproven;
            }
            (Health::Failing | Health::Answered, Breaker::Closed { .. }) => {
                if (line.known, answers) == (Known::Quick, Known::Slow) {
                    line.known = Known::Slow;
                }
            }
            // What it took says nothing of the endpoint.
            (Health::Unknown | Health::Absent, Breaker::Closed { .. }) => {}
        }
        self.set_breaker(endpoint, breaker);
        self.rejoin(endpoint);
    }

    fn set_breaker(&mut self, endpoint: &EndpointKey, breaker: Breaker) {
        let Some(line) = self.lines.get_mut(endpoint) else {
            return;
        };
        let was = std::mem::replace(&mut line.breaker, breaker);
        if was == breaker {
            return;
        }
        if was.is_closed() != breaker.is_closed() {
            let note = (endpoint.clone(), !breaker.is_closed());
            self.notes.push_back(note);
        }
        let waiting = line.waiting();
        match was {
            Breaker::Open { .. } => {
                self.places.open -= 1;
                self.held -= waiting;
                if let Some(at) = line.wake.take() {
                    self.wakes.remove(&(at, endpoint.clone()));
                }
            }
            Breaker::HalfOpen { .. } => self.places.half_open -= 1,
            Breaker::Closed { .. } => {}
        }
        match breaker {
            Breaker::Open { until, .. } => {
                self.places.open += 1;
                self.held += waiting;
                if let Some(at) = line.wake.replace(until) {
                    self.wakes.remove(&(at, endpoint.clone()));
                }
                self.wakes.insert((until, endpoint.clone()));
            }
            Breaker::HalfOpen { .. } => self.places.half_open += 1,
            Breaker::Closed { .. } => {}
        }
    }

    /// Puts an endpoint where it stands if it could start something, and out of the rings if not;
    /// forgets one of which there is nothing to know.
    fn rejoin(&mut self, endpoint: &EndpointKey) {
        let Some(line) = self.lines.get_mut(endpoint) else {
            return;
        };
        let mut wants = line.wants();
        if wants
            && let Some(bucket) = &line.bucket
            && !bucket.has_one(self.now)
        {
            wants = false;
            if line.wake.is_none() {
                let at = bucket.next(self.now);
                line.wake = Some(at);
                self.wakes.insert((at, endpoint.clone()));
            }
        }
        let (rank, held) = (line.rank(), line.in_flight);
        if !(wants && line.turn.is_some_and(|turn| turn.is(rank, held))) {
            if let Some(turn) = line.turn.take() {
                self.rings.leave(turn);
            }
            if wants {
                line.turn = Some(self.rings.join(endpoint, rank, held));
            }
        }
        if line.waiting() > 0 || line.in_flight > 0 {
            return;
        }
        // A rate has to be remembered until it would be full again, so as not to start anew.
        if line.known == Known::Unproven && line.breaker == Breaker::NEW && line.bucket.is_none() {
            self.forget(endpoint);
        } else {
            self.remember(endpoint);
        }
    }

    fn remember(&mut self, endpoint: &EndpointKey) {
        if let Some(line) = self.lines.get_mut(endpoint)
            && line.look.is_none()
        {
            let at = self.now.plus_ms(REMEMBERED_MS);
            line.look = Some(at);
            self.remembered.insert((at, endpoint.clone()));
        }
    }

    fn forget(&mut self, endpoint: &EndpointKey) {
        self.set_breaker(endpoint, Breaker::NEW);
        if let Some(line) = self.lines.remove(endpoint) {
            if let Some(at) = line.wake {
                self.wakes.remove(&(at, endpoint.clone()));
            }
            if let Some(at) = line.look {
                self.remembered.remove(&(at, endpoint.clone()));
            }
        }
    }
}

fn half(places: usize) -> usize {
    (places / 2).max(1)
}

#[cfg(test)]
mod tests;
