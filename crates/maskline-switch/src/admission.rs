//! Limits that span shards: calls at once and calls per second of each trunk. One owner decides for
//! all shards, in the order in which they ask.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use maskline_media::{Side, Tick};

use crate::config::{Trunk, TrunkId};

/// Why a trunk takes no further leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// As many legs as it may have are up.
    Calls,
    /// As many calls per second as it may have were made.
    Rate,
    /// As many calls per second as one address of it may bring were brought.
    SourceRate,
}

#[derive(Debug)]
struct Usage {
    calls: u32,
    max_calls: u32,
    per_second: u32,
    bucket: Bucket,
    /// What each address may bring, and the addresses that brought something lately.
    per_source: Option<u32>,
    sources: BTreeMap<IpAddr, Bucket>,
    swept: Tick,
}

/// A token bucket of one second's worth.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a call that may be made at once.
    tokens_milli: u64,
    refilled: Tick,
}

impl Bucket {
    fn full(per_second: u32, now: Tick) -> Self {
        Self {
            tokens_milli: u64::from(per_second) * 1000,
            refilled: now,
        }
    }

    fn refill(&mut self, per_second: u32, now: Tick) {
        let elapsed_ms = u64::try_from(now.since(self.refilled).as_millis()).unwrap_or(u64::MAX);
        if elapsed_ms > 0 {
            let earned = elapsed_ms.saturating_mul(u64::from(per_second));
            let full = u64::from(per_second) * 1000;
            self.tokens_milli = self.tokens_milli.saturating_add(earned).min(full);
            self.refilled = now;
        }
    }
}

/// Most addresses of a trunk that are told apart; calls of further ones are refused meanwhile.
const MAX_SOURCES: usize = 4_096;

impl Usage {
    /// The bucket of an address; `None` when too many others bring calls.
    fn source(&mut self, source: IpAddr, per_second: u32, now: Tick) -> Option<&mut Bucket> {
        let source = source.to_canonical();
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            // A bucket that rested for a second is full: as if it had never been.
            let second = Duration::from_secs(1);
            if now.since(self.swept) >= second {
                self.swept = now;
                self.sources
                    .retain(|_, bucket| now.since(bucket.refilled) < second);
            }
            if self.sources.len() >= MAX_SOURCES {
                return None;
            }
        }
        let bucket = self
            .sources
            .entry(source)
            .or_insert_with(|| Bucket::full(per_second, now));
        bucket.refill(per_second, now);
        Some(bucket)
    }
}

/// The owner of all trunks' limits.
#[derive(Debug)]
pub struct Admission {
    trunks: Vec<Usage>,
}

impl Admission {
    /// Nothing in use.
    #[must_use]
    pub fn new(trunks: &[Trunk]) -> Self {
        Self {
            trunks: trunks
                .iter()
                .map(|trunk| Usage {
                    calls: 0,
                    max_calls: trunk.max_calls,
                    per_second: trunk.max_calls_per_second,
                    bucket: Bucket::full(trunk.max_calls_per_second, Tick::ZERO),
                    per_source: trunk.max_calls_per_source_per_second,
                    sources: BTreeMap::new(),
                    swept: Tick::ZERO,
                })
                .collect(),
        }
    }

    /// Takes a place for one leg on a trunk; every `Ok` is given back by one [`Self::release`].
    ///
    /// Callers may use the upper half of a second's calls only: a trunk that brings more than it may
    /// is to be refused at its first leg, not at the second, when a customer was asked already. For
    /// them `source` is who brings the call: what one address may bring is a limit of its own.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(
        &mut self,
        now: Tick,
        trunk: TrunkId,
        side: Side,
        source: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let usage = self
            .trunks
            .get_mut(usize::from(trunk.0))
            .ok_or(Refusal::Calls)?;
        let full = u64::from(usage.per_second) * 1000;
        usage.bucket.refill(usage.per_second, now);
        if let (Some(per_second), Some(source)) = (usage.per_source, source) {
            // Taken whatever comes of the call: a source that is refused does not go on for free.
            let bucket = usage
                .source(source, per_second, now)
                .filter(|bucket| bucket.tokens_milli >= 1000)
                .ok_or(Refusal::SourceRate)?;
            bucket.tokens_milli -= 1000;
        }
        if usage.calls >= usage.max_calls {
            return Err(Refusal::Calls);
        }
        let kept_milli = match side {
            Side::Caller => (full / 2).min(full.saturating_sub(1000)),
            Side::Callee => 0,
        };
        if usage.bucket.tokens_milli < 1000 + kept_milli {
            return Err(Refusal::Rate);
        }
        usage.bucket.tokens_milli -= 1000;
        usage.calls += 1;
        Ok(())
    }

    /// Takes a place for a leg that is up already, also above the limit; given back as any other.
    pub fn occupy(&mut self, trunk: TrunkId) {
        if let Some(usage) = self.trunks.get_mut(usize::from(trunk.0)) {
            usage.calls = usage.calls.saturating_add(1);
        }
    }

    /// Gives a place back.
    pub fn release(&mut self, trunk: TrunkId) {
        if let Some(usage) = self.trunks.get_mut(usize::from(trunk.0)) {
            usage.calls = usage.calls.saturating_sub(1);
        }
    }

    /// Legs up on a trunk.
    #[must_use]
    pub fn calls(&self, trunk: TrunkId) -> u32 {
        self.trunks
            .get(usize::from(trunk.0))
            .map_or(0, |usage| usage.calls)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn admission(max_calls: u32, per_second: u32) -> Admission {
        Admission::new(&[Trunk {
            max_calls,
            max_calls_per_second: per_second,
            ..Trunk::new("t", "192.0.2.1:5060".parse().unwrap())
        }])
    }

    #[test]
    fn a_trunk_takes_as_many_calls_as_it_may_and_again_after_one_ended() {
        let mut limits = admission(2, 100);
        assert_eq!(
            limits.admit(Tick::ZERO, TrunkId(0), Side::Callee, None),
            Ok(())
        );
        assert_eq!(
            limits.admit(Tick::ZERO, TrunkId(0), Side::Callee, None),
            Ok(())
        );
        assert_eq!(
            limits.admit(Tick::ZERO, TrunkId(0), Side::Callee, None),
            Err(Refusal::Calls)
        );
        limits.release(TrunkId(0));
        assert_eq!(
            limits.admit(Tick::ZERO, TrunkId(0), Side::Callee, None),
            Ok(())
        );
    }

    #[test]
    fn a_leg_that_is_up_already_takes_a_place_above_the_limit() {
        let mut limits = admission(1, 100);
        limits.occupy(TrunkId(0));
        limits.occupy(TrunkId(0));
        let mut admit = || limits.admit(Tick::ZERO, TrunkId(0), Side::Callee, None);
        assert_eq!(admit(), Err(Refusal::Calls));
        limits.release(TrunkId(0));
        let mut admit = || limits.admit(Tick::ZERO, TrunkId(0), Side::Callee, None);
        assert_eq!(admit(), Err(Refusal::Calls));
        limits.release(TrunkId(0));
        assert_eq!(
            limits.admit(Tick::ZERO, TrunkId(0), Side::Callee, None),
            Ok(())
        );
    }

    #[test]
    fn a_trunks_rate_refills_with_time() {
        let mut limits = admission(100, 2);
        let at = |ms| Tick::from_start(Duration::from_millis(ms));
        assert_eq!(limits.admit(at(0), TrunkId(0), Side::Callee, None), Ok(()));
        assert_eq!(limits.admit(at(0), TrunkId(0), Side::Callee, None), Ok(()));
        assert_eq!(
            limits.admit(at(100), TrunkId(0), Side::Callee, None),
            Err(Refusal::Rate)
        );
        assert_eq!(
            limits.admit(at(500), TrunkId(0), Side::Callee, None),
            Ok(())
        );
        assert_eq!(
            limits.admit(at(501), TrunkId(0), Side::Callee, None),
            Err(Refusal::Rate)
        );
    }

    #[test]
    fn one_address_above_its_rate_leaves_the_trunks_other_addresses_alone() {
        let mut limits = Admission::new(&[Trunk {
            max_calls_per_source_per_second: Some(2),
            ..Trunk::new("t", "192.0.2.1:5060".parse().unwrap())
        }]);
        let mut call = |ms, source: &str| {
            let now = Tick::from_start(Duration::from_millis(ms));
            let source = Some(source.parse().unwrap());
            limits.admit(now, TrunkId(0), Side::Caller, source)
        };
        assert_eq!(call(0, "192.0.2.1"), Ok(()));
        assert_eq!(call(1, "::ffff:192.0.2.1"), Ok(()));
        assert_eq!(call(2, "192.0.2.1"), Err(Refusal::SourceRate));
        assert_eq!(call(2, "192.0.2.2"), Ok(()));
        assert_eq!(call(600, "192.0.2.1"), Ok(()));
        assert_eq!(call(601, "192.0.2.1"), Err(Refusal::SourceRate));
    }

    #[test]
    fn a_flood_of_addresses_keeps_a_bounded_table_that_empties_again() {
        let mut limits = Admission::new(&[Trunk {
            max_calls_per_source_per_second: Some(2),
            ..Trunk::new("t", "192.0.2.1:5060".parse().unwrap())
        }]);
        let mut call = |ms, source: u32| {
            let now = Tick::from_start(Duration::from_millis(ms));
            let source = std::net::Ipv4Addr::from_bits(source);
            limits.admit(now, TrunkId(0), Side::Caller, Some(source.into()))
        };
        for source in 0..100_000 {
            let _ = call(0, source);
        }
        assert_eq!(call(0, 200_000), Err(Refusal::SourceRate));
        assert_eq!(call(1_500, 200_000), Ok(()));
        assert!(limits.trunks[0].sources.len() <= MAX_SOURCES);
    }

    #[test]
    fn a_trunk_above_its_rate_is_refused_at_the_first_leg_and_not_at_the_second() {
        let mut limits = admission(1_000, 100);
        let (mut admitted, mut lost) = (0, 0);
        for ms in 0..10_000 {
            let now = Tick::from_start(Duration::from_millis(ms));
            if limits.admit(now, TrunkId(0), Side::Caller, None).is_err() {
                continue;
            }
            admitted += 1;
            match limits.admit(now, TrunkId(0), Side::Callee, None) {
                Ok(()) => limits.release(TrunkId(0)),
                Err(_) => lost += 1,
            }
            limits.release(TrunkId(0));
        }
        assert_eq!(lost, 0);
        assert!((490..=560).contains(&admitted), "{admitted} calls in 10 s");
    }
}
