//! How often something may happen: at once a few times, then at a pace.

use std::time::Duration;

use crate::tick::Tick;

/// A burst, and the pace at which it refills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    burst: u32,
    interval: Duration,
    left: u32,
    refilled_at: Tick,
}

impl Allowance {
    /// `burst` times at once, and once more each `interval` (at least a nanosecond).
    pub(crate) const fn new(opened: Tick, burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            left: burst,
            refilled_at: opened,
        }
    }

    /// Whether it may happen once more now; if so, it has.
    pub(crate) fn take(&mut self, now: Tick) -> bool {
        let earned = now.since(self.refilled_at).as_nanos() / self.interval.as_nanos().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if self.left.saturating_add(earned) >= self.burst {
            self.left = self.burst;
            self.refilled_at = now;
        } else {
            self.left += earned;
            self.refilled_at = self.refilled_at + self.interval * earned;
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_burst_is_granted_and_then_the_pace() {
        let mut allowance = Allowance::new(Tick::ZERO, 3, Duration::from_millis(10));
        let granted: Vec<_> = (0..40).map(|ms| allowance.take(at(ms))).collect();
        let count = granted.iter().filter(|it| **it).count();
        assert_eq!(count, 6, "{granted:?}");
        assert!(granted.iter().take(3).all(|it| *it));
        let rested: Vec<_> = (0..5).map(|_| allowance.take(at(10_000))).collect();
        assert_eq!(rested, [true, true, true, false, false]);
    }

    #[test]
    fn time_that_stands_still_or_goes_back_earns_nothing() {
        let mut allowance = Allowance::new(at(50), 1, Duration::from_millis(10));
        assert!(allowance.take(at(50)));
        for ms in [50, 49, 0, 59] {
            assert!(!allowance.take(at(ms)), "{ms}");
        }
        assert!(allowance.take(at(60)));
    }
}
