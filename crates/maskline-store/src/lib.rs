//! Maskline's store: configuration, sessions, the journal and delivery outcomes.
//!
//! One trait, [`Store`]: [`Store::commit`] is the hot path, the rest are plain queries. SQLite is
//! the implementation of today; SQL stays portable (TEXT, BIGINT, SMALLINT, BLOB), so that
//! PostgreSQL can stand behind the same trait.
//!
//! What lives elsewhere: what an event says (`maskline-switch`), sending it (`maskline-webhook`).

pub mod model;
pub mod store;

pub use model::{
    ApiKeyScope, DeliveryState, Endpoint, EventRow, JournalBatch, JournalEntry, NewNumber,
    NewSubAccount, NewWebhook, NodeEpoch, OpenSession, Outcome, SubAccount, VirtualNumber, Webhook,
};
pub use store::{Store, StoreError};
