//! Maskline's store: configuration, sessions, the journal and delivery outcomes.
//!
//! One trait, [`Store`]: [`Store::commit`] is the hot path, the rest are plain queries. SQLite is
//! the implementation of today; SQL stays portable (TEXT, BIGINT, SMALLINT, BLOB), so that
//! PostgreSQL can stand behind the same trait.
//!
//! What lives elsewhere: what an event says (`maskline-switch`), sending it (`maskline-webhook`).

pub mod heartbeat;
pub mod journal;
pub mod model;
pub mod secrets;
pub mod sqlite;
pub mod store;

pub use heartbeat::{Beating, Heartbeat, UnknownAbsence};
pub use journal::{
    CommittedEvents, Journal, JournalCounters, JournalOptions, JournalReport, Refusal, Refused,
    Submission,
};
pub use model::{
    ApiKeyScope, DeliveryState, Endpoint, EventPlace, EventRow, JournalBatch, JournalEntry,
    NewNumber, NewSubAccount, NewWebhook, NodeEpoch, NumberChange, OpenSession, Outcome,
    SubAccount, VirtualNumber, Webhook,
};
pub use secrets::{ApiKeyHash, KeyError, MasterKey};
pub use sqlite::{
    SqliteLocation, SqliteOptions, SqliteStore, TraceBatch, TraceFile, TraceFilter, TraceHead,
    TraceRetention, TracedSession,
};
pub use store::{Store, StoreError};
