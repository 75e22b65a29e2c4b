//! What deliveries count, for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

use maskline_events::Timestamp;
use maskline_store::{DeliveryState, Outcome};

use super::lanes::Levels;

/// Counts since the start, and levels as they are now.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
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
    /// Events that were parked.
    pub parked: AtomicU64,
    /// Events that are dead: retries used up, or 410.
    pub dead: AtomicU64,
    /// Webhooks that were disabled after nothing but failures.
    pub disabled: AtomicU64,
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
    /// Level: milliseconds since the oldest unsettled event in memory happened.
    pub oldest_pending_ms: AtomicU64,
}

impl DeliveryCounters {
    pub(super) fn attempted(&self, outcome: &Outcome) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match (outcome.state, outcome.status) {
            (DeliveryState::NoEndpoint, _) => return count(&self.no_endpoint),
            (DeliveryState::Delivered, _) => count(&self.delivered),
            (DeliveryState::Pending | DeliveryState::Parked | DeliveryState::Dead, Some(_)) => {
                count(&self.refused);
            }
            (DeliveryState::Pending | DeliveryState::Parked | DeliveryState::Dead, None) => {
                count(&self.unanswered);
            }
        }
        if outcome.attempts > 1 {
            count(&self.retries);
        }
        if outcome.state == DeliveryState::Dead {
            count(&self.dead);
        }
    }

    pub(super) fn level(&self, levels: &Levels, now: Timestamp) {
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
        let age = levels
            .oldest
            .map_or(0, |oldest| now.unix_ms() - oldest.unix_ms());
        self.oldest_pending_ms
            .store(u64::try_from(age).unwrap_or(0), Ordering::Relaxed);
        self.parked.store(levels.parked_ever, Ordering::Relaxed);
    }
}
