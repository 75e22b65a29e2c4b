//! When a failed delivery is tried again (contract §2, Delivery).

use std::time::{Duration, SystemTime};

use maskline_events::Timestamp;

/// The retry schedule. [`Default`] is the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long after the first, second … failure the next attempt is made. When they are used
    /// up, the event is dead.
    pub delays: Vec<Duration>,
    /// The most that a receiver can put the next attempt off with `Retry-After`.
    pub retry_after_max: Duration,
    /// How old an event can become before its lane goes on without it.
    pub order_deadline: Duration,
}

/// The most that a delay is stretched or shortened, in thousandths.
pub const JITTER_PERMILLE: i16 = 100;

impl Default for Schedule {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        Self {
            delays: vec![
                Duration::from_secs(1),
                Duration::from_secs(10),
                Duration::from_secs(30),
                Duration::from_secs(90),
                minutes(5),
                minutes(30),
                hours(2),
                hours(5),
                hours(10),
                hours(10),
            ],
            retry_after_max: hours(1),
            order_deadline: minutes(10),
        }
    }
}

impl Schedule {
    /// When the attempt after `attempts` failed ones is due; `None`: there is none.
    ///
    /// `jitter_permille` is a draw between plus and minus [`JITTER_PERMILLE`]. A receiver's
    /// `Retry-After` can put an attempt off, never bring it forward: one that always says 1 would
    /// use its retries up within seconds.
    pub(crate) fn next(
        &self,
        now: Timestamp,
        attempts: u32,
        jitter_permille: i16,
        retry_after: Option<Duration>,
    ) -> Option<Timestamp> {
        let index = usize::try_from(attempts.checked_sub(1)?).ok()?;
        let delay = jittered(ms(*self.delays.get(index)?), jitter_permille);
        let asked = retry_after.map_or(0, |asked| ms(asked.min(self.retry_after_max)));
        Some(now.plus_ms(delay.max(asked)))
    }

    /// The longest that [`Schedule::next`] ever puts an attempt off, in milliseconds.
    pub(crate) fn longest_ms(&self) -> i64 {
        let delay = self.delays.iter().max().copied().unwrap_or_default();
        jittered(ms(delay), JITTER_PERMILLE).max(ms(self.retry_after_max))
    }

    /// When an event that came up at `since` stops holding its lane back.
    pub(crate) fn parks(&self, since: Timestamp) -> Timestamp {
        since.plus_ms(ms(self.order_deadline))
    }
}

/// A number of milliseconds, stretched or shortened by at most [`JITTER_PERMILLE`].
pub(super) fn jittered(ms: i64, jitter_permille: i16) -> i64 {
    let jitter = i64::from(jitter_permille.clamp(-JITTER_PERMILLE, JITTER_PERMILLE));
    ms.saturating_add(ms.saturating_mul(jitter) / 1_000)
}

pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Reads `Retry-After`: seconds, or an HTTP date (RFC 9110 §10.2.3).
pub(crate) fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a long time, too.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let now = u64::try_from(now.unix_ms()).unwrap_or(0);
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now);
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_767_694_639_000);

    #[test]
    fn the_contract_s_delays_come_in_turn_and_then_none() {
        let schedule = Schedule::default();
        let seconds: Vec<i64> = (1..=10)
            .map(|n| (schedule.next(NOW, n, 0, None).unwrap().unix_ms() - NOW.unix_ms()) / 1_000)
            .collect();
        assert_eq!(
            seconds,
            [1, 10, 30, 90, 300, 1_800, 7_200, 18_000, 36_000, 36_000]
        );
        assert_eq!(schedule.next(NOW, 11, 0, None), None);
        assert_eq!(schedule.next(NOW, 0, 0, None), None);
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let schedule = Schedule::default();
        for (jitter, ms) in [(100, 11_000), (-100, 9_000), (1_000, 11_000), (0, 10_000)] {
            let next = schedule.next(NOW, 2, jitter, None);
            assert_eq!(next, Some(NOW.plus_ms(ms)));
        }
    }

    #[test]
    fn retry_after_puts_an_attempt_off_by_at_most_an_hour_and_never_forward() {
        let schedule = Schedule::default();
        for (asked, ms) in [(0, 10_000), (5, 10_000), (60, 60_000), (86_400, 3_600_000)] {
            let next = schedule.next(NOW, 2, 0, Some(Duration::from_secs(asked)));
            assert_eq!(next, Some(NOW.plus_ms(ms)), "{asked}");
        }
    }

    #[test]
    fn no_attempt_is_put_off_for_longer_than_the_longest() {
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        for (delays, retry_after_max, longest) in [
            (Schedule::default().delays, hours(1), 11 * 3_600_000),
            (vec![Duration::from_secs(5)], hours(1), 3_600_000),
            (Vec::new(), hours(0), 0),
        ] {
            let schedule = Schedule {
                delays,
                retry_after_max,
                ..Schedule::default()
            };
            assert_eq!(schedule.longest_ms(), longest);
            for attempts in 1..20 {
                let next = schedule.next(NOW, attempts, JITTER_PERMILLE, Some(hours(9)));
                assert!(next.is_none_or(|next| next <= NOW.plus_ms(longest)));
            }
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Tue, 06 Jan 2026 10:18:19 GMT", Some(60)),
            ("Tue, 06 Jan 2026 10:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            let read = retry_after(text, NOW);
            assert_eq!(read, seconds.map(Duration::from_secs), "{text}");
        }
    }
}
