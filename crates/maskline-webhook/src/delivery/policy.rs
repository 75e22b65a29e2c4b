//! How one endpoint is treated: its places, its rate, its schedule.

use maskline_events::Timestamp;

use super::Schedule;

/// What is done for one endpoint. Those without a policy of their own have the one of
/// [`DeliveryConfig`](super::DeliveryConfig).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Most attempts at once, at least 1; half of them may be retries.
    pub cap: usize,
    /// Most attempts per second, and as many at once after a rest; `None`: no limit.
    pub rate: Option<Rate>,
    /// When to try again, and for how long an event holds its lane back.
    pub schedule: Schedule,
}

/// Attempts per 1,000 seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

impl Rate {
    /// So many attempts per 1,000 seconds; `None` for zero.
    #[must_use]
    pub const fn per_1000_seconds(attempts: u32) -> Option<Self> {
        match attempts {
            0 => None,
            attempts => Some(Self(attempts)),
        }
    }
}

/// What one attempt takes out of a bucket. A millisecond brings as many as the rate has attempts
/// per 1,000 seconds.
const ATTEMPT: i64 = 1_000_000;

/// Counts attempts off against a rate. It begins full, with a second's attempts or one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    credit: i64,
    at: Timestamp,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Timestamp) -> Self {
        Self {
            rate,
            credit: Self::most(rate),
            at: now,
        }
    }

    /// The same at another rate from now on: what it holds stays, up to a second's attempts.
    pub(super) fn at_rate(&self, rate: Rate, now: Timestamp) -> Self {
        Self {
            rate,
            credit: self.credit(now).min(Self::most(rate)),
            at: self.at.max(now),
        }
    }

    fn most(rate: Rate) -> i64 {
        (i64::from(rate.0) * 1_000).max(ATTEMPT)
    }

    fn credit(&self, now: Timestamp) -> i64 {
        let since = now.unix_ms().saturating_sub(self.at.unix_ms()).max(0);
        let earned = since.saturating_mul(i64::from(self.rate.0));
        self.credit
            .saturating_add(earned)
            .min(Self::most(self.rate))
    }

    /// Whether an attempt may start now.
    pub(super) fn has_one(&self, now: Timestamp) -> bool {
        self.credit(now) >= ATTEMPT
    }

    /// Takes an attempt out.
    pub(super) fn take(&mut self, now: Timestamp) {
        self.credit = self.credit(now) - ATTEMPT;
        self.at = self.at.max(now);
    }

    /// From when on an attempt may start.
    pub(super) fn next(&self, now: Timestamp) -> Timestamp {
        let missing = (ATTEMPT - self.credit(now)).max(0);
        let rate = i64::from(self.rate.0);
        now.plus_ms((missing + rate - 1) / rate)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_767_694_639_000);

    /// How many attempts a bucket lets through within so many seconds.
    fn through(rate: u32, seconds: i64) -> i64 {
        let mut bucket = Bucket::new(Rate::per_1000_seconds(rate).unwrap(), NOW);
        let (mut now, mut count) = (NOW, 0);
        loop {
            now = bucket.next(now);
            if now >= NOW.plus_ms(seconds * 1_000) {
                return count;
            }
            assert!(bucket.has_one(now));
            bucket.take(now);
            count += 1;
        }
    }

    #[test]
    fn a_bucket_keeps_to_its_rate_after_a_second_s_worth_at_once() {
        assert_eq!(through(10_000, 10), 10 + 100 - 1);
        assert_eq!(through(100, 100), 1 + 10 - 1);
        assert_eq!(through(1, 10_000), 1 + 10 - 1);
        // A clock in milliseconds lets 1,000 through at most after the first ones.
        assert!(through(1_000_000, 10) >= 10_000);
    }

    #[test]
    fn a_rest_earns_no_more_than_a_second_s_worth() {
        let mut bucket = Bucket::new(Rate::per_1000_seconds(2_000).unwrap(), NOW);
        let later = NOW.plus_ms(3_600_000);
        for _ in 0..2 {
            assert!(bucket.has_one(later));
            bucket.take(later);
        }
        assert!(!bucket.has_one(later));
        assert_eq!(bucket.next(later), later.plus_ms(500));
    }
}
