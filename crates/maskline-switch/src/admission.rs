//! Limits that span shards: calls at once and calls per second of each trunk. One owner decides for
//! all shards, in the order in which they ask.

use maskline_media::{Side, Tick};

use crate::config::{Trunk, TrunkId};

/// Why a trunk takes no further leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// As many legs as it may have are up.
    Calls,
    /// As many calls per second as it may have were made.
    Rate,
}

#[derive(Debug)]
struct Usage {
    calls: u32,
    max_calls: u32,
    per_second: u32,
    /// Thousandths of a call that may be made at once (a token bucket of one second's worth).
    tokens_milli: u64,
    refilled: Tick,
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
                    tokens_milli: u64::from(trunk.max_calls_per_second) * 1000,
                    refilled: Tick::ZERO,
                })
                .collect(),
        }
    }

    /// Takes a place for one leg on a trunk; every `Ok` is given back by one [`Self::release`].
    ///
    /// Callers may use the upper half of a second's calls only: a trunk that brings more than it may
    /// is to be refused at its first leg, not at the second, when a customer was asked already.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(&mut self, now: Tick, trunk: TrunkId, side: Side) -> Result<(), Refusal> {
        let usage = self
            .trunks
            .get_mut(usize::from(trunk.0))
            .ok_or(Refusal::Calls)?;
        let full = u64::from(usage.per_second) * 1000;
        let elapsed_ms = u64::try_from(now.since(usage.refilled).as_millis()).unwrap_or(u64::MAX);
        if elapsed_ms > 0 {
            let earned = elapsed_ms.saturating_mul(u64::from(usage.per_second));
            usage.tokens_milli = usage.tokens_milli.saturating_add(earned).min(full);
            usage.refilled = now;
        }
        if usage.calls >= usage.max_calls {
            return Err(Refusal::Calls);
        }
        let kept_milli = match side {
            Side::Caller => (full / 2).min(full.saturating_sub(1000)),
            Side::Callee => 0,
        };
        if usage.tokens_milli < 1000 + kept_milli {
            return Err(Refusal::Rate);
        }
        usage.tokens_milli -= 1000;
        usage.calls += 1;
        Ok(())
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
    use std::time::Duration;

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
        assert_eq!(limits.admit(Tick::ZERO, TrunkId(0), Side::Callee), Ok(()));
        assert_eq!(limits.admit(Tick::ZERO, TrunkId(0), Side::Callee), Ok(()));
        assert_eq!(
            limits.admit(Tick::ZERO, TrunkId(0), Side::Callee),
            Err(Refusal::Calls)
        );
        limits.release(TrunkId(0));
        assert_eq!(limits.admit(Tick::ZERO, TrunkId(0), Side::Callee), Ok(()));
    }

    #[test]
    fn a_trunks_rate_refills_with_time() {
        let mut limits = admission(100, 2);
        let at = |ms| Tick::from_start(Duration::from_millis(ms));
        assert_eq!(limits.admit(at(0), TrunkId(0), Side::Callee), Ok(()));
        assert_eq!(limits.admit(at(0), TrunkId(0), Side::Callee), Ok(()));
        assert_eq!(
            limits.admit(at(100), TrunkId(0), Side::Callee),
            Err(Refusal::Rate)
        );
        assert_eq!(limits.admit(at(500), TrunkId(0), Side::Callee), Ok(()));
        assert_eq!(
            limits.admit(at(501), TrunkId(0), Side::Callee),
            Err(Refusal::Rate)
        );
    }

    #[test]
    fn a_trunk_above_its_rate_is_refused_at_the_first_leg_and_not_at_the_second() {
        let mut limits = admission(1_000, 100);
        let (mut admitted, mut lost) = (0, 0);
        for ms in 0..10_000 {
            let now = Tick::from_start(Duration::from_millis(ms));
            if limits.admit(now, TrunkId(0), Side::Caller).is_err() {
                continue;
            }
            admitted += 1;
            match limits.admit(now, TrunkId(0), Side::Callee) {
                Ok(()) => limits.release(TrunkId(0)),
                Err(_) => lost += 1,
            }
            limits.release(TrunkId(0));
        }
        assert_eq!(lost, 0);
        assert!((490..=560).contains(&admitted), "{admitted} calls in 10 s");
    }
}
