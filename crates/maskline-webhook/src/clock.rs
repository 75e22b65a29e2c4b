//! The wall clock of requests, and one that never goes back for schedules.

use std::time::{SystemTime, UNIX_EPOCH};

use maskline_events::Timestamp;
use tokio::time::Instant;

/// Now, by the wall clock.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Wall time at its making, monotonic from there: a step of the system's clock neither holds
/// retries back nor fires them all at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            base: wall(),
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = self.started.elapsed().as_millis();
        self.base
            .plus_ms(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    /// The instant of a time, or now if that is past.
    pub(crate) fn instant_of(&self, time: Timestamp) -> Instant {
        let ms = time.unix_ms().saturating_sub(self.base.unix_ms());
        // Beyond a year a timer is as good as one of a year.
        let ms = u64::try_from(ms).unwrap_or(0).min(31_536_000_000);
        self.started + std::time::Duration::from_millis(ms)
    }
}
