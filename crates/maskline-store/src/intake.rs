//! Status updates of calls that another switch handles: what the store is given and answers.
//!
//! The rules come in from outside, as a session's state is opaque here; they run on the writer's
//! thread, between reading what is known and writing what is new. What lives elsewhere: the rules
//! (`maskline-switch`), gathering requests into groups (`maskline`), the SQL (`sqlite::intake`).

use std::future::Future;
use std::sync::Arc;

use maskline_events::{ReportedEvent, Timestamp};
use uuid::Uuid;

use crate::model::EventRow;
use crate::store::StoreError;

/// What an update makes of a session.
pub trait ReportedRules: Send + Sync + 'static {
    /// A session as the rules know it.
    type Session: Clone + Send;
    /// Why an update does not fit.
    type Refusal: Send + 'static;

    /// A session of which nothing was heard yet.
    fn begin(&self) -> Self::Session;
    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// Why it can't be read.
    fn read(&self, bytes: &[u8]) -> Result<Self::Session, String>;
    /// The session as bytes.
    fn write(&self, session: &Self::Session) -> Vec<u8>;
    /// When it counts as ended if nothing more is heard of it from now on; `None`: it is over.
    fn idle_at(&self, session: &Self::Session, now: Timestamp) -> Option<Timestamp>;
    /// Takes an update: its event, and the summary behind it if there is one.
    ///
    /// # Errors
    /// The refusal; nothing has changed then.
    fn report(
        &self,
        session: &mut Self::Session,
        sub_account_id: &str,
        event: &ReportedEvent,
        now: Timestamp,
    ) -> Result<Vec<EventRow>, Self::Refusal>;
    /// Ends a session of which nothing was heard for too long.
    fn close_idle(
        &self,
        session: &mut Self::Session,
        sub_account_id: &str,
        session_id: Uuid,
        now: Timestamp,
    ) -> Vec<EventRow>;
    /// The refusal of a session id that is in use elsewhere.
    fn foreign(&self) -> Self::Refusal;
}

/// One request: all of it is taken, or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRequest {
    /// Whose calls.
    pub sub_account_id: String,
    /// In the order in which they happened.
    pub events: Vec<ReportedEvent>,
}

/// The event that an update made, now or when its key was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenReport {
    /// The event.
    pub event_id: Uuid,
    /// Its sequence in its session.
    pub sequence: u64,
    /// Whether the key was known: nothing was made now.
    pub repeated: bool,
}

/// What became of a request.
#[derive(Debug)]
pub enum Reported<R> {
    /// Durable, one for each update.
    Taken(Vec<TakenReport>),
    /// An update does not fit its session; nothing of the request was taken.
    Refused {
        /// Which one, from 0.
        index: usize,
        /// Why.
        refusal: R,
    },
    /// This request can't be served now; others can.
    Failed(StoreError),
}

/// What became of a group of requests.
#[derive(Debug)]
pub struct ReportedGroup<R> {
    /// One for each request.
    pub answers: Vec<Reported<R>>,
    /// The events that were written, in order.
    pub events: Vec<EventRow>,
    /// When the first of the sessions that were written counts as ended.
    pub idle_at: Option<Timestamp>,
}

/// Sessions that were closed because nothing was heard of them.
#[derive(Debug, Default)]
pub struct ClosedSessions {
    /// How many.
    pub sessions: usize,
    /// Those whose state can't be read: no longer looked at, kept for a version that reads it.
    pub unreadable: Vec<Uuid>,
    /// The events that were written, in order.
    pub events: Vec<EventRow>,
    /// When the next session counts as ended; in the past if there were more than could be closed.
    pub next: Option<Timestamp>,
}

/// The store of other switches' calls.
pub trait CallEvents: Send + Sync + 'static {
    /// Takes a group of requests in one transaction: durable when this returns `Ok`, nothing of it
    /// otherwise. An idempotency key that is known gets its first answer, before any rule.
    fn report<R: ReportedRules>(
        &self,
        group: Vec<ReportRequest>,
        rules: Arc<R>,
        now: Timestamp,
    ) -> impl Future<Output = Result<ReportedGroup<R::Refusal>, StoreError>> + Send;

    /// Ends at most `limit` of the sessions that are idle.
    fn close_idle<R: ReportedRules>(
        &self,
        rules: Arc<R>,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<ClosedSessions, StoreError>> + Send;
}
