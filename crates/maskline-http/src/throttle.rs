//! Counts what somebody does within a minute, in a bounded table: failed authentications by source
//! address, changes by sub-account. Pure: the time comes in.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// How long what was counted counts.
const WINDOW: Duration = Duration::from_secs(60);

/// How many of whom are remembered; beyond it the one whose window began first is forgotten.
const REMEMBERED: usize = 4096;

/// What one host can't cheaply change about its address: IPv4 whole, of IPv6 the /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        })
    }
}

/// Counts per whom and minute.
pub(crate) struct Counts<K> {
    limit: u32,
    windows: BTreeMap<K, Window>,
    /// By the begin of their window, oldest first; one entry for each in `windows`.
    order: VecDeque<K>,
}

struct Window {
    began: Instant,
    count: u32,
}

impl<K: Ord + Clone> Counts<K> {
    /// A table that allows each `limit` in a minute.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            windows: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// How long this one has to wait, if it has used up what it may.
    pub(crate) fn wait(&self, whose: &K, now: Instant) -> Option<Duration> {
        let window = self.windows.get(whose)?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(window.began))?;
        (window.count >= self.limit && !left.is_zero()).then_some(left)
    }

    /// Counts one. True when it was the last that is allowed.
    pub(crate) fn count(&mut self, whose: K, now: Instant) -> bool {
        self.forget_old(now);
        if let Some(window) = self.windows.get_mut(&whose) {
            window.count = window.count.saturating_add(1);
            return window.count == self.limit;
        }
        if self.windows.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.windows.remove(&oldest);
        }
        self.order.push_back(whose.clone());
        let window = Window {
            began: now,
            count: 1,
        };
        self.windows.insert(whose, window);
        self.limit == 1
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front() {
            let is_over = self
                .windows
                .get(oldest)
                .is_none_or(|window| now.saturating_duration_since(window.began) >= WINDOW);
            if !is_over {
                return;
            }
            self.windows.remove(oldest);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn v4(bits: u32) -> Source {
        Source::from(IpAddr::V4(bits.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_waits_for_the_end_of_its_minute_after_its_last_failure() {
        let mut table = Counts::new(2);
        let start = Instant::now();
        assert!(!table.count(v4(1), start));
        assert_eq!(table.wait(&v4(1), start), None);
        assert!(table.count(v4(1), start + Duration::from_secs(10)));
        assert_eq!(
            table.wait(&v4(1), start + Duration::from_secs(20)),
            Some(Duration::from_secs(40))
        );
        assert_eq!(table.wait(&v4(2), start), None, "another address is free");
        assert_eq!(table.wait(&v4(1), start + WINDOW), None);
        assert!(!table.count(v4(1), start + WINDOW), "a new minute began");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_stays_bounded_and_forgets_the_oldest() {
        let mut table = Counts::new(1);
        let now = Instant::now();
        for bits in 0..10_000 {
            table.count(v4(bits), now);
        }
        assert_eq!(table.windows.len(), REMEMBERED);
        assert_eq!(table.order.len(), REMEMBERED);
        assert_eq!(table.wait(&v4(0), now), None);
        assert!(table.wait(&v4(9_999), now).is_some());
        table.count(v4(1), now + WINDOW);
        assert_eq!(table.windows.len(), 1, "old windows are dropped");
    }

    #[test]
    fn hosts_of_one_v6_network_are_one_source_and_mapped_v4_is_v4() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
