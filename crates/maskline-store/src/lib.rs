//! Maskline's store: configuration, sessions, the journal and delivery outcomes.
//!
//! The trait [`Store`]: [`Store::commit`] is the hot path, the rest are plain queries. The trait
//! [`Deliveries`]: what the delivery of events asks; [`EventHistory`]: looking back at them; [`WebhookSettings`]: how an endpoint is sent to. SQLite is the implementation of today; SQL stays portable (TEXT, BIGINT, SMALLINT, BLOB), so that
//! PostgreSQL can stand behind the same trait.
//!
//! What lives elsewhere: what an event says (`maskline-switch`), sending it (`maskline-webhook`).

pub mod deliveries;
pub mod heartbeat;
pub mod history;
pub mod intake;
pub mod journal;
pub mod model;
mod origin;
pub mod parameters;
pub mod secrets;
pub mod settings;
pub mod sqlite;
pub mod store;

pub use deliveries::{
    AttemptRecord, Deliveries, LOGGED_ANSWER_BYTES, Lost, PendingPage, SessionBacklog, Settlement,
    StoredEvent,
};
pub use heartbeat::{Beating, Heartbeat, UnknownAbsence};
pub use history::{
    EventHistory, EventPage, ForgetStep, LoggedAttempt, Replay, ReplayOf, ReplayStep,
};
pub use intake::{
    CallEvents, ClosedSessions, ReportRequest, Reported, ReportedGroup, ReportedRules, TakenReport,
};
pub use journal::{
    CommittedEvents, Journal, JournalCounters, JournalOptions, JournalReport, Refusal, Refused,
    Submission,
};
pub use model::{
    ApiKeyScope, DeliveryState, Endpoint, EventRow, JournalBatch, JournalEntry, NewNumber,
    NewSubAccount, NewWebhook, NodeEpoch, NumberChange, OpenSession, Outcome, SubAccount,
    SwitchedOff, VirtualNumber, Webhook,
};
pub use origin::is_https;
pub use parameters::{KnownParameters, ParameterStore};
pub use secrets::{ApiKeyHash, KeyError, MasterKey};
pub use settings::{
    EndpointConfig, EndpointSecrets, EndpointSettings, SettingsDifference, SettingsFault,
    ShownSettings, Signatures, TlsSettings, WebhookSettings,
};
pub use sqlite::{
    SqliteLocation, SqliteOptions, SqliteStore, TraceBatch, TraceFile, TraceFilter, TraceHead,
    TraceRetention, TracedSession,
};
pub use store::{Store, StoreError};
