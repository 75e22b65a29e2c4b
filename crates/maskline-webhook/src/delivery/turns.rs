//! Whose turn it is: a fair share of the attempts for each endpoint, first tries before retries.
//!
//! Endpoints take turns, one attempt each. First tries may use every place, retries half of the
//! places of an endpoint and of all; so a first try never waits behind retries. What goes to an
//! endpoint that gives no answers counts as a retry until it answers again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use maskline_events::WebhookType;
use uuid::Uuid;

/// An event, by its place in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EventKey {
    pub(crate) session: Uuid,
    pub(crate) ordinal: u64,
}

/// A sub-account's webhook.
pub(crate) type EndpointKey = (Arc<str>, WebhookType);

/// Attempts without an answer in a row that make an endpoint count as failing.
const FAILING: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    First,
    Retry,
}

/// What an attempt says about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Answered,
    Silent,
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Turns {
    per_endpoint: usize,
    in_all: usize,
    lines: BTreeMap<EndpointKey, Line>,
    /// Endpoints that may start something, in turn.
    first: VecDeque<EndpointKey>,
    retry: VecDeque<EndpointKey>,
    in_flight: usize,
    retries_in_flight: usize,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Line {
    first: VecDeque<EventKey>,
    retry: VecDeque<EventKey>,
    in_flight: usize,
    retries_in_flight: usize,
    silent: u32,
    in_first: bool,
    in_retry: bool,
}

impl Turns {
    pub(crate) fn new(per_endpoint: usize, in_all: usize) -> Self {
        Self {
            per_endpoint: per_endpoint.max(1),
            in_all: in_all.max(1),
            lines: BTreeMap::new(),
            first: VecDeque::new(),
            retry: VecDeque::new(),
            in_flight: 0,
            retries_in_flight: 0,
            waiting: 0,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Events that are due and wait for a place.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn enqueue(&mut self, endpoint: &EndpointKey, event: EventKey, class: Class) {
        let line = self.lines.entry(endpoint.clone()).or_default();
        if class == Class::First && line.silent < FAILING {
            line.first.push_back(event);
        } else {
            line.retry.push_back(event);
        }
        self.waiting += 1;
        self.rejoin(endpoint);
    }

    /// The next event to attempt, if a place is free. The attempt counts as running from here to
    /// [`Turns::finished`].
    pub(crate) fn next(&mut self) -> Option<(EventKey, Class)> {
        if self.in_flight >= self.in_all {
            return None;
        }
        if let Some(event) = self.start(Class::First) {
            return Some((event, Class::First));
        }
        if self.retries_in_flight >= half(self.in_all) {
            return None;
        }
        self.start(Class::Retry).map(|event| (event, Class::Retry))
    }

    fn start(&mut self, class: Class) -> Option<EventKey> {
        loop {
            let endpoint = match class {
                Class::First => self.first.pop_front()?,
                Class::Retry => self.retry.pop_front()?,
            };
            let Some(line) = self.lines.get_mut(&endpoint) else {
                continue;
            };
            let free = line.in_flight < self.per_endpoint;
            let event = match class {
                Class::First => {
                    line.in_first = false;
                    free.then(|| line.first.pop_front()).flatten()
                }
                Class::Retry => {
                    line.in_retry = false;
                    let free = free && line.retries_in_flight < half(self.per_endpoint);
                    free.then(|| line.retry.pop_front()).flatten()
                }
            };
            if event.is_some() {
                line.in_flight += 1;
                self.in_flight += 1;
                self.waiting -= 1;
                if class == Class::Retry {
                    line.retries_in_flight += 1;
                    self.retries_in_flight += 1;
                }
            }
            // One that has no free place left comes back when an attempt of it ends.
            self.rejoin(&endpoint);
            if event.is_some() {
                return event;
            }
        }
    }

    /// An attempt ended; its place is free.
    pub(crate) fn finished(&mut self, endpoint: &EndpointKey, class: Class, health: Health) {
        let Some(line) = self.lines.get_mut(endpoint) else {
            return;
        };
        line.in_flight -= 1;
        self.in_flight -= 1;
        if class == Class::Retry {
            line.retries_in_flight -= 1;
            self.retries_in_flight -= 1;
        }
        match health {
            Health::Answered => line.silent = 0,
            Health::Silent => {
                line.silent = line.silent.saturating_add(1);
                if line.silent == FAILING {
                    line.retry.append(&mut line.first);
                }
            }
            Health::Unknown => {}
        }
        self.rejoin(endpoint);
    }

    /// Puts an endpoint at the end of the rings in which it could start something; forgets one of
    /// which there is nothing to know.
    fn rejoin(&mut self, endpoint: &EndpointKey) {
        let Some(line) = self.lines.get_mut(endpoint) else {
            return;
        };
        let free = line.in_flight < self.per_endpoint;
        if free && !line.first.is_empty() && !line.in_first {
            line.in_first = true;
            self.first.push_back(endpoint.clone());
        }
        let retry_free = free && line.retries_in_flight < half(self.per_endpoint);
        if retry_free && !line.retry.is_empty() && !line.in_retry {
            line.in_retry = true;
            self.retry.push_back(endpoint.clone());
        }
        let empty = line.first.is_empty() && line.retry.is_empty() && line.in_flight == 0;
        if empty && line.silent == 0 && !line.in_first && !line.in_retry {
            self.lines.remove(endpoint);
        }
    }
}

fn half(places: usize) -> usize {
    (places / 2).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> EndpointKey {
        (Arc::from(name), WebhookType::Vcs)
    }

    fn event(ordinal: u64) -> EventKey {
        EventKey {
            session: Uuid::nil(),
            ordinal,
        }
    }

    fn started(turns: &mut Turns) -> Vec<u64> {
        std::iter::from_fn(|| turns.next())
            .map(|(event, _)| event.ordinal)
            .collect()
    }

    #[test]
    fn endpoints_take_turns_however_much_one_has_waiting() {
        let mut turns = Turns::new(10, 100);
        let (a, b) = (endpoint("a"), endpoint("b"));
        for ordinal in 0..4 {
            turns.enqueue(&a, event(ordinal), Class::First);
        }
        turns.enqueue(&b, event(100), Class::First);
        turns.enqueue(&b, event(101), Class::First);
        assert_eq!(started(&mut turns), [0, 100, 1, 101, 2, 3]);
        assert_eq!((turns.in_flight(), turns.waiting()), (6, 0));
    }

    #[test]
    fn an_endpoint_and_all_together_keep_to_their_places() {
        let mut turns = Turns::new(2, 3);
        let (a, b) = (endpoint("a"), endpoint("b"));
        for ordinal in 0..5 {
            turns.enqueue(&a, event(ordinal), Class::First);
            turns.enqueue(&b, event(100 + ordinal), Class::First);
        }
        assert_eq!(started(&mut turns), [0, 100, 1]);
        turns.finished(&a, Class::First, Health::Answered);
        assert_eq!(started(&mut turns), [101]);
        turns.finished(&b, Class::First, Health::Answered);
        turns.finished(&b, Class::First, Health::Answered);
        assert_eq!(started(&mut turns), [2, 102]);
    }

    #[test]
    fn a_first_try_never_waits_behind_retries() {
        let mut turns = Turns::new(4, 8);
        let (a, b) = (endpoint("a"), endpoint("b"));
        for ordinal in 0..20 {
            turns.enqueue(&a, event(ordinal), Class::Retry);
            turns.enqueue(&b, event(100 + ordinal), Class::Retry);
        }
        assert_eq!(started(&mut turns), [0, 100, 1, 101]);
        for ordinal in 50..53 {
            turns.enqueue(&a, event(ordinal), Class::First);
        }
        assert_eq!(started(&mut turns), [50, 51]);
        turns.finished(&a, Class::Retry, Health::Answered);
        assert_eq!(started(&mut turns), [52, 102].get(..1).unwrap());
    }

    #[test]
    fn what_goes_to_a_silent_endpoint_counts_as_a_retry_until_it_answers() {
        let mut turns = Turns::new(100, 8);
        let (dead, well) = (endpoint("dead"), endpoint("well"));
        for ordinal in 0..30 {
            turns.enqueue(&dead, event(ordinal), Class::First);
        }
        assert_eq!(started(&mut turns).len(), 8);
        for _ in 0..8 {
            turns.finished(&dead, Class::First, Health::Silent);
        }
        assert_eq!(started(&mut turns).len(), 4, "half of the places");
        turns.enqueue(&well, event(100), Class::First);
        assert_eq!(started(&mut turns), [100]);
        turns.finished(&dead, Class::Retry, Health::Answered);
        turns.enqueue(&dead, event(200), Class::First);
        assert_eq!(started(&mut turns).first(), Some(&200));
    }

    #[test]
    fn an_endpoint_with_nothing_to_do_is_forgotten() {
        let mut turns = Turns::new(1, 1);
        let a = endpoint("a");
        turns.enqueue(&a, event(1), Class::First);
        assert!(turns.next().is_some());
        turns.finished(&a, Class::First, Health::Answered);
        assert!(turns.lines.is_empty() && turns.first.is_empty() && turns.retry.is_empty());
    }
}
