//! What delivering events asks of a store: what is still to be sent, and what became of it.
//!
//! What lives elsewhere: committing events (`store`), deciding what is sent when
//! (`maskline-webhook`), the SQL (`sqlite::deliveries`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::{Timestamp, WebhookType};
use uuid::Uuid;

use crate::model::{DeliveryState, EventRow, Outcome};
use crate::settings::EndpointSettings;
use crate::store::StoreError;

/// Most bytes of an answer that the log of attempts keeps.
pub const LOGGED_ANSWER_BYTES: usize = 16 * 1024;

/// An event as it was found in the store.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredEvent {
    /// The event, and where its delivery stands.
    Whole(EventRow, Outcome),
    /// A row that can't be read. Others of its session stand after it, so their order is not known
    /// to be whole.
    Broken {
        /// Its session; `None`: not even that can be read.
        session_id: Option<Uuid>,
        /// Its order within the session; 0 without a session.
        ordinal: u64,
        /// What is wrong with it. Carries no value of the row.
        reason: String,
    },
}

impl StoredEvent {
    /// Session and ordinal: where the next page begins. `None`: not even these can be read.
    #[must_use]
    pub const fn key(&self) -> Option<(Uuid, u64)> {
        match self {
            Self::Whole(event, _) => Some((event.session_id, event.ordinal)),
            Self::Broken {
                session_id: Some(session_id),
                ordinal,
                ..
            } => Some((*session_id, *ordinal)),
            Self::Broken {
                session_id: None, ..
            } => None,
        }
    }
}

/// Which events of a session ended without having been delivered: of each kind the first, so that
/// it takes no more memory for a long session. One that is pending once more does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    dead: Option<u64>,
    no_endpoint: BTreeMap<WebhookType, u64>,
}

impl Lost {
    /// Takes note of how an event ended. Only what was not delivered counts.
    pub fn note(&mut self, ordinal: u64, webhook_type: WebhookType, state: DeliveryState) {
        let first = match state {
            DeliveryState::Dead => self.dead.get_or_insert(ordinal),
            DeliveryState::NoEndpoint => self.no_endpoint.entry(webhook_type).or_insert(ordinal),
            DeliveryState::Pending | DeliveryState::Parked | DeliveryState::Delivered => return,
        };
        *first = ordinal.min(*first);
    }

    /// Takes over what another has noted up to and with that ordinal.
    pub fn merge(&mut self, other: &Self, up_to: u64) {
        if let Some(first) = other.dead.filter(|first| *first <= up_to) {
            self.dead = Some(self.dead.map_or(first, |known| known.min(first)));
        }
        for (kind, first) in &other.no_endpoint {
            if *first <= up_to {
                self.note(*first, *kind, DeliveryState::NoEndpoint);
            }
        }
    }

    /// Whether the receiver of this event lacks an earlier one: a dead one of any type, or one of
    /// its own type that found no endpoint. What other types found is not for it to know: its
    /// owner may have no webhook of those.
    #[must_use]
    pub fn is_before(&self, ordinal: u64, webhook_type: WebhookType) -> bool {
        let own = self.no_endpoint.get(&webhook_type).copied();
        self.dead
            .into_iter()
            .chain(own)
            .any(|first| first < ordinal)
    }

    /// Whether nothing is noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A page of a sub-account's pending events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PendingPage {
    /// By session and ordinal.
    pub events: Vec<StoredEvent>,
    /// What was lost of their sessions, up to the last event that the page has of each: among the
    /// 1,000 events before it that are not in the page, at least. Sessions of which nothing was
    /// are not in it.
    pub lost: BTreeMap<Uuid, Lost>,
}

impl From<Vec<StoredEvent>> for PendingPage {
    /// A page of sessions of which nothing was lost.
    fn from(events: Vec<StoredEvent>) -> Self {
        Self {
            events,
            lost: BTreeMap::new(),
        }
    }
}

/// What is still to be delivered of a session, from some place on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionBacklog {
    /// Events whose delivery is not final, in order.
    pub pending: Vec<StoredEvent>,
    /// Whether there may be more behind these.
    pub more: bool,
    /// The ordinal of the session's last event, whatever became of it; 0: none behind the place. The
    /// events up to it that are not in `pending` are settled, unless there is more.
    pub last: u64,
    /// Whether that one is the session's summary.
    pub has_summary: bool,
    /// What was lost of it up to `last`, or up to the end of the page if there is more: among the
    /// 1,000 events before that which are not in the page, at least.
    pub lost: Lost,
}

/// An attempt, for its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptRecord {
    /// From the beginning of the request to the last byte of the answer, or to the failure.
    pub duration: Duration,
    /// The answer's body; at most [`LOGGED_ANSWER_BYTES`] of it are kept.
    pub answer: Vec<u8>,
    /// Whether the answer was longer.
    pub truncated: bool,
}

/// What became of an event, with the key of its row, so that none has to be looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Its sub-account.
    pub sub_account_id: String,
    /// Its session.
    pub session_id: Uuid,
    /// Its order within the session.
    pub ordinal: u64,
    /// Where its delivery stands now.
    pub outcome: Outcome,
    /// The attempt that this is the result of, if it is one.
    pub attempt: Option<AttemptRecord>,
}

/// The store, as the delivery of events sees it. Every method is safe to call from many tasks at
/// once.
#[async_trait]
pub trait Deliveries: Send + Sync + 'static {
    /// Sub-accounts that have events whose delivery is not final, in order.
    async fn pending_owners(&self) -> Result<Vec<String>, StoreError>;

    /// Events of a sub-account whose delivery is not final, by session and ordinal, after that
    /// [key](StoredEvent::key). A page in which fewer than `limit` have a key is the last; at most
    /// one in it has none, and stands for all such.
    async fn pending(
        &self,
        sub_account_id: &str,
        after: Option<(Uuid, u64)>,
        limit: u32,
    ) -> Result<PendingPage, StoreError>;

    /// What is still to be delivered of a session of this sub-account after that ordinal, at most
    /// `limit` events of it. Costs no more for a session that is long.
    async fn backlog(
        &self,
        sub_account_id: &str,
        session_id: Uuid,
        after: u64,
        limit: u32,
    ) -> Result<SessionBacklog, StoreError>;

    /// Writes what became of events, each with a line of its log, all of it or nothing. One of an
    /// event whose delivery is final (or that is not there) changes nothing, nor does one that is
    /// written again. Shares a transaction with what else is written, and may wait 50 ms for that.
    async fn settle(&self, results: Arc<[Settlement]>) -> Result<(), StoreError>;

    /// The settings of all webhooks that have any. One that can't be read is left out.
    async fn all_settings(
        &self,
    ) -> Result<Vec<(String, WebhookType, EndpointSettings)>, StoreError> {
        Ok(Vec::new())
    }

    /// Webhooks that are noted to fail, and since when.
    async fn failing(&self) -> Result<Vec<(String, WebhookType, Timestamp)>, StoreError> {
        Ok(Vec::new())
    }

    /// Notes that a webhook has failed since then, unless it is noted already, or that it no longer
    /// fails. Gives since when it is noted to; `None`: it is not, or not kept, or there is none.
    async fn note_failing(
        &self,
        _sub_account_id: &str,
        _webhook_type: WebhookType,
        _since: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    /// Disables a webhook if it is noted to fail since exactly then: not if it was set anew
    /// meanwhile. Whether it did.
    async fn disable_failing(
        &self,
        _sub_account_id: &str,
        _webhook_type: WebhookType,
        _since: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
}
