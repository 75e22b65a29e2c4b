//! Events that were committed, as their owners look back at them: what came, what became of each, once
//! more; and forgetting what is old.
//!
//! What lives elsewhere: delivering (`deliveries`), the SQL (`sqlite::history`).

use std::time::Duration;

use async_trait::async_trait;
use maskline_events::{Timestamp, WebhookType};
use uuid::Uuid;

use crate::deliveries::StoredEvent;
use crate::model::DeliveryState;
use crate::store::StoreError;

/// A page of a sub-account's events, in the order in which they were committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventPage {
    /// Each with its position.
    pub events: Vec<(u64, StoredEvent)>,
    /// The position after which the next page begins.
    pub next: u64,
    /// Whether there is more at once. A page may be short or empty and yet not the last.
    pub more: bool,
    /// Whether events after the given position are no longer kept, or the position is none of this
    /// store's.
    pub gap: bool,
}

/// A line of an event's log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedAttempt {
    /// Its number, from 1; goes on over replays.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Where the delivery stood then.
    pub state: DeliveryState,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// How long the attempt took; `None`: this was no attempt.
    pub duration: Option<Duration>,
    /// What went wrong.
    pub error: Option<String>,
    /// The beginning of the answer's body.
    pub answer: Vec<u8>,
    /// Whether the answer was longer.
    pub truncated: bool,
}

/// Which events to send once more.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplayOf {
    /// This one.
    Event(Uuid),
    /// All of this session.
    Session(Uuid),
    /// Those of this type that happened in this time, both ends included.
    Time {
        /// Their type.
        webhook_type: WebhookType,
        /// From when.
        from: Timestamp,
        /// Until when.
        to: Timestamp,
    },
}

/// A wish to send events once more.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// Whose.
    pub sub_account_id: String,
    /// Which.
    pub of: ReplayOf,
    /// Only those whose delivery ended so.
    pub states: Vec<DeliveryState>,
}

/// A part of a replay that is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplayStep {
    /// Events that are pending again, durably.
    pub events: u64,
    /// Their sessions, each once.
    pub sessions: Vec<Uuid>,
    /// The position after which to go on; `None`: that was all.
    pub next: Option<u64>,
}

/// A part of forgetting that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForgetStep {
    /// Events that are gone.
    pub forgotten: u64,
    /// The position after which to go on; `None`: what is behind it happened too late to be old.
    pub next: Option<u64>,
}

/// The store, as those who look back see it. Every method is safe to call from many tasks at once.
#[async_trait]
pub trait EventHistory: Send + Sync + 'static {
    /// Events of a sub-account after a position, at most `limit`; `None`: from the first that is kept.
    async fn page(
        &self,
        sub_account_id: &str,
        after: Option<u64>,
        webhook_type: Option<WebhookType>,
        limit: u32,
    ) -> Result<EventPage, StoreError>;

    /// The log of an event, the last hundred lines of it; `None`: it is not one of this sub-account's.
    async fn attempts(
        &self,
        sub_account_id: &str,
        event_id: Uuid,
    ) -> Result<Option<Vec<LoggedAttempt>>, StoreError>;

    /// Makes events pending again, those after that position and at most a few hundred. Events whose
    /// delivery is not final are left alone.
    ///
    /// Fails with [`StoreError::NotFound`] if the one event or session is not this sub-account's.
    async fn replay(
        &self,
        replay: &Replay,
        after: u64,
        now: Timestamp,
    ) -> Result<ReplayStep, StoreError>;

    /// Deletes events with their logs whose delivery was final before that time, those after that
    /// position and at most `limit`. Does nothing while others wait to write.
    async fn forget(
        &self,
        settled_before: Timestamp,
        after: u64,
        limit: u32,
    ) -> Result<ForgetStep, StoreError>;
}
