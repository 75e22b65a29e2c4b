//! The attempts that run, in the order of their starts: which of them have become old.

use std::collections::{BTreeMap, VecDeque};

use maskline_events::Timestamp;

use super::turns::{Class, EndpointKey};

/// An attempt that is older leaves the fast places.
pub(super) const FAST_MS: i64 = 1_000;

/// Where an attempt runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Fast,
    /// In a fast place, too old for it.
    Overdue,
    Slow,
}

/// A bounded list of young attempts, and of old ones that found no slow place. Each operation
/// takes constant time on average, however many run.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// The number of the first one of `young`.
    base: u64,
    /// `None`: it has ended. The first one never has.
    young: VecDeque<Option<(Timestamp, EndpointKey, Class)>>,
    /// Too old for a fast place, which they still have because no slow one is free.
    overdue: BTreeMap<u64, (EndpointKey, Class)>,
}

impl Running {
    /// An attempt starts; gives it a number.
    pub(super) fn start(&mut self, now: Timestamp, endpoint: &EndpointKey, class: Class) -> u64 {
        let number = self.base + self.young.len() as u64;
        self.young.push_back(Some((now, endpoint.clone(), class)));
        number
    }

    /// An attempt ended: where it ran.
    pub(super) fn end(&mut self, number: u64) -> Pool {
        let slot = number
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.young.get_mut(index));
        let young = slot.and_then(Option::take).is_some();
        self.trim();
        if young {
            Pool::Fast
        } else if self.overdue.remove(&number).is_some() {
            Pool::Overdue
        } else {
            Pool::Slow
        }
    }

    /// The next one that has become too old for its fast place; it is overdue from here on.
    pub(super) fn ages(&mut self, now: Timestamp) -> Option<EndpointKey> {
        let (at, ..) = self.young.front()?.as_ref()?;
        if at.plus_ms(FAST_MS) > now {
            return None;
        }
        let (_, endpoint, class) = self.young.pop_front()??;
        let number = self.base;
        self.base += 1;
        self.trim();
        self.overdue.insert(number, (endpoint.clone(), class));
        Some(endpoint)
    }

    /// The first overdue one leaves for a slow place.
    pub(super) fn leaves(&mut self) -> Option<(EndpointKey, Class)> {
        self.overdue.pop_first().map(|(_, left)| left)
    }

    /// When the oldest of the young ones is too old.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let (at, ..) = self.young.front()?.as_ref()?;
        Some(at.plus_ms(FAST_MS))
    }

    fn trim(&mut self) {
        while let Some(None) = self.young.front() {
            self.young.pop_front();
            self.base += 1;
        }
    }
}
