//! What deliveries count, for metrics and tests.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use maskline_events::{Timestamp, WebhookType};
use maskline_store::{DeliveryState, EventRow, Outcome};

use super::lanes::Levels;

/// Upper bounds of the lags that are told apart, in milliseconds; what is above the last has a
/// place of its own.
pub const LAG_BOUNDS_MS: [u32; 14] = [
    2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000, 300_000, 3_600_000, 86_400_000,
];

/// Of one type of webhook: counts since the start, and a level.
#[derive(Debug)]
pub struct TypeCounters {
    /// Attempts that ended in a 2xx.
    pub delivered: AtomicU64,
    /// Attempts that were answered with another status.
    pub refused: AtomicU64,
    /// Attempts without a whole answer: no connection, deadline, cut off, target not allowed.
    pub unanswered: AtomicU64,
    /// Attempts that were not the first of their event.
    pub retries: AtomicU64,
    /// Events that found no enabled webhook.
    pub no_endpoint: AtomicU64,
    /// Events that are dead: retries used up, or 410.
    pub dead: AtomicU64,
    /// Events that were delivered, by how long after they happened: at most the bound of the same
    /// place in [`LAG_BOUNDS_MS`] and more than the one before; the last are above all of them.
    pub lags: [AtomicU64; LAG_BOUNDS_MS.len() + 1],
    /// The sum of these lags, in milliseconds.
    pub lag_ms: AtomicU64,
    /// When the oldest unsettled event in memory happened, as Unix time in milliseconds; [`NEVER`]
    /// if there is none.
    oldest_pending_at: AtomicI64,
}

/// No event happened then.
const NEVER: i64 = i64::MAX;

impl Default for TypeCounters {
    fn default() -> Self {
        Self {
            delivered: AtomicU64::default(),
            refused: AtomicU64::default(),
            unanswered: AtomicU64::default(),
            retries: AtomicU64::default(),
            no_endpoint: AtomicU64::default(),
            dead: AtomicU64::default(),
            lags: Default::default(),
            lag_ms: AtomicU64::default(),
            oldest_pending_at: AtomicI64::new(NEVER),
        }
    }
}

impl TypeCounters {
    /// Milliseconds from when the oldest unsettled event in memory happened until `now`; 0 if there
    /// is none, and while the clock is behind it.
    #[must_use]
    pub fn oldest_pending_ms(&self, now: Timestamp) -> u64 {
        match self.oldest_pending_at.load(Ordering::Relaxed) {
            NEVER => 0,
            at => u64::try_from(now.unix_ms().saturating_sub(at)).unwrap_or(0),
        }
    }

    fn delivered_after(&self, lag_ms: i64) {
        let lag_ms = u64::try_from(lag_ms).unwrap_or(0);
        let place = LAG_BOUNDS_MS.partition_point(|bound| u64::from(*bound) < lag_ms);
        if let Some(count) = self.lags.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.lag_ms.fetch_add(lag_ms, Ordering::Relaxed);
    }
}

/// Counts since the start, and levels as they are now.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    by_type: [TypeCounters; WebhookType::ALL.len()],
    /// Events that were parked.
    pub parked: AtomicU64,
    /// Webhooks that were disabled: after nothing but failures, or by a 410.
    pub disabled: AtomicU64,
    /// Attempts that were put off because too many connections or name lookups were under way.
    pub postponed: AtomicU64,
    /// Rows of undelivered events that can't be read. Behind each its session stands still.
    pub broken_rows: AtomicU64,
    /// Batches of committed events that were left to the store because too much was waiting.
    pub missed: AtomicU64,
    /// Level: events in memory that are not settled.
    pub events: AtomicU64,
    /// Level: lanes with something in order to send.
    pub lanes: AtomicU64,
    /// Level: parked events.
    pub parked_now: AtomicU64,
    /// Level: attempts that are running.
    pub in_flight: AtomicU64,
    /// Level: how many of them have run for a second and more.
    pub slow: AtomicU64,
    /// Level: endpoints that are left alone after failures in a row.
    pub breakers_open: AtomicU64,
    /// Level: endpoints that get one attempt at a time after that.
    pub breakers_half_open: AtomicU64,
    /// Level: outcomes that wait for the store.
    pub unrecorded: AtomicU64,
    /// Level: 1 while the store holds events that are not in memory.
    pub behind: AtomicU64,
}

impl DeliveryCounters {
    /// Those of one type.
    #[must_use]
    pub fn of(&self, webhook_type: WebhookType) -> &TypeCounters {
        let [vca, vcs, vss, vru, vnu] = &self.by_type;
        match webhook_type {
            WebhookType::Vca => vca,
            WebhookType::Vcs => vcs,
            WebhookType::Vss => vss,
            WebhookType::Vru => vru,
            WebhookType::Vnu => vnu,
        }
    }

    pub(super) fn attempted(&self, event: &EventRow, outcome: &Outcome) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let of_type = self.of(event.webhook_type);
        match (outcome.state, outcome.status) {
            (DeliveryState::NoEndpoint, _) => return count(&of_type.no_endpoint),
            (DeliveryState::Delivered, _) => {
                count(&of_type.delivered);
                of_type.delivered_after(outcome.at.unix_ms() - event.at.unix_ms());
            }
            (DeliveryState::Pending | DeliveryState::Parked | DeliveryState::Dead, Some(_)) => {
                count(&of_type.refused);
            }
            (DeliveryState::Pending | DeliveryState::Parked | DeliveryState::Dead, None) => {
                count(&of_type.unanswered);
            }
        }
        if outcome.attempts > 1 {
            count(&of_type.retries);
        }
        if outcome.state == DeliveryState::Dead {
            count(&of_type.dead);
        }
    }

    pub(super) fn level(&self, levels: &Levels) {
        let set = |counter: &AtomicU64, value: usize| {
            counter.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        set(&self.events, levels.events);
        set(&self.lanes, levels.lanes);
        set(&self.parked_now, levels.parked);
        set(&self.in_flight, levels.places.fast + levels.places.slow);
        set(&self.slow, levels.places.slow);
        set(&self.breakers_open, levels.places.open);
        set(&self.breakers_half_open, levels.places.half_open);
        set(&self.unrecorded, levels.unrecorded);
        set(&self.behind, usize::from(levels.behind));
        for (webhook_type, oldest) in WebhookType::ALL.into_iter().zip(levels.oldest) {
            let at = oldest.map_or(NEVER, |oldest| oldest.unix_ms());
            let of_type = self.of(webhook_type);
            of_type.oldest_pending_at.store(at, Ordering::Relaxed);
        }
        self.parked.store(levels.parked_ever, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_oldest_event_grows_older_while_nothing_happens() {
        let counters = DeliveryCounters::default();
        let at = Timestamp::from_unix_ms(1_767_694_639_375);
        let age = |kind, after_ms| counters.of(kind).oldest_pending_ms(at.plus_ms(after_ms));
        assert_eq!(age(WebhookType::Vcs, 5), 0);
        let mut levels = Levels::default();
        levels.oldest[1] = Some(at);
        counters.level(&levels);
        assert_eq!(age(WebhookType::Vcs, 5), 5);
        assert_eq!(age(WebhookType::Vcs, 60_000), 60_000);
        assert_eq!(age(WebhookType::Vcs, -1), 0);
        assert_eq!(age(WebhookType::Vss, 60_000), 0);
        counters.level(&Levels::default());
        assert_eq!(age(WebhookType::Vcs, 60_000), 0);
    }

    #[test]
    fn a_lag_counts_for_its_type_in_the_first_place_that_has_room_for_it() {
        let counters = DeliveryCounters::default();
        let at = Timestamp::from_unix_ms(1_767_694_639_375);
        let event = |webhook_type| EventRow {
            event_id: Uuid::from_u128(1),
            session_id: Uuid::from_u128(2),
            sub_account_id: "shop".to_owned(),
            ordinal: 1,
            webhook_type,
            at,
            body: String::new(),
        };
        let delivered = |lag_ms| Outcome {
            event_id: Uuid::from_u128(1),
            state: DeliveryState::Delivered,
            attempts: 1,
            next_attempt_at: None,
            status: Some(200),
            error: None,
            at: at.plus_ms(lag_ms),
        };
        for (kind, lag_ms) in [
            (WebhookType::Vcs, 2),
            (WebhookType::Vcs, 3),
            (WebhookType::Vss, 90_000_000),
            // The clock was set back meanwhile.
            (WebhookType::Vss, -5),
        ] {
            counters.attempted(&event(kind), &delivered(lag_ms));
        }
        let lags = |kind| {
            let lags = counters.of(kind).lags.iter();
            lags.map(|it| it.load(Ordering::Relaxed))
                .collect::<Vec<_>>()
        };
        let placed = |places: &[usize]| {
            let all = 0..=LAG_BOUNDS_MS.len();
            all.map(|it| u64::from(places.contains(&it)))
                .collect::<Vec<_>>()
        };
        assert_eq!(lags(WebhookType::Vcs), placed(&[0, 1]));
        assert_eq!(lags(WebhookType::Vss), placed(&[0, LAG_BOUNDS_MS.len()]));
        assert_eq!(
            counters.of(WebhookType::Vcs).lag_ms.load(Ordering::Relaxed),
            5
        );
    }
}
