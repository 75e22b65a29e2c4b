//! The attempts that run, in the order of their starts: which of them have become old.

use std::collections::VecDeque;

use maskline_events::Timestamp;

use super::turns::EndpointKey;

/// An attempt that has run for so long is slow.
pub(super) const FAST_MS: i64 = 1_000;

/// How long an attempt has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Young,
    Old,
}

/// A bounded list of young attempts. Each operation takes constant time on average, however many
/// run.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// The number of the first one of `young`.
    base: u64,
    /// `None`: it has ended. The first one never has.
    young: VecDeque<Option<(Timestamp, EndpointKey)>>,
}

impl Running {
    /// An attempt starts; gives it a number.
    pub(super) fn start(&mut self, now: Timestamp, endpoint: &EndpointKey) -> u64 {
        let number = self.base + self.young.len() as u64;
        self.young.push_back(Some((now, endpoint.clone())));
        number
    }

    /// An attempt ended.
    pub(super) fn end(&mut self, number: u64) -> Age {
        let slot = number
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.young.get_mut(index));
        let young = slot.and_then(Option::take).is_some();
        self.trim();
        if young { Age::Young } else { Age::Old }
    }

    /// The endpoint of the next one that has become old; it is from here on.
    pub(super) fn ages(&mut self, now: Timestamp) -> Option<EndpointKey> {
        if self.deadline()? > now {
            return None;
        }
        let (_, endpoint) = self.young.pop_front()??;
        self.base += 1;
        self.trim();
        Some(endpoint)
    }

    /// When the oldest of the young ones becomes old.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let (at, _) = self.young.front()?.as_ref()?;
        Some(at.plus_ms(FAST_MS))
    }

    fn trim(&mut self) {
        while let Some(None) = self.young.front() {
            self.young.pop_front();
            self.base += 1;
        }
    }
}
