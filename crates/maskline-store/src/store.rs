//! The one trait between Maskline and its database.

use async_trait::async_trait;
use maskline_events::{Msisdn, Timestamp, WebhookType};
use uuid::Uuid;

use crate::model::{
    ApiKeyScope, Endpoint, JournalBatch, NewNumber, NewSubAccount, NewWebhook, NodeEpoch,
    NumberChange, OpenSession, SubAccount, SwitchedOff, VirtualNumber, Webhook,
};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left for the database.
    #[error(
        "the store at {place} is full: free disk space; live calls go on, new ones are refused"
    )]
    Full {
        /// File or server.
        place: String,
    },
    /// The database did not answer, or is gone.
    #[error("the store at {place} is unavailable: {reason}")]
    Unavailable {
        /// File or server.
        place: String,
        /// What the database said.
        reason: String,
    },
    /// The database was made by a newer version.
    #[error(
        "the store at {place} has schema {found}, this version knows up to {known}: start the newer version"
    )]
    TooNew {
        /// File or server.
        place: String,
        /// Its schema version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A row of that key exists.
    #[error("{what} exists already")]
    Conflict {
        /// What.
        what: &'static str,
    },
    /// No such row.
    #[error("{what} does not exist")]
    NotFound {
        /// What.
        what: &'static str,
    },
    /// A secret could not be decrypted: another master key, or a damaged row.
    #[error("a secret in the store can't be decrypted: was the master key changed?")]
    Secret,
    /// A row that cannot be read.
    #[error("broken row in {table}: {reason}")]
    BrokenRow {
        /// Where.
        table: &'static str,
        /// Why.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same may succeed later without being changed: the store is at fault, not what it was
    /// given.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Unavailable { .. } => true,
            Self::TooNew { .. }
            | Self::Conflict { .. }
            | Self::NotFound { .. }
            | Self::Secret
            | Self::BrokenRow { .. } => false,
        }
    }
}

/// The store. Every method is safe to call from many tasks at once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes a batch, durable when this returns `Ok`, nothing of it otherwise.
    ///
    /// Writing an event id that is already there is not an error and changes nothing: a batch can
    /// be tried again when its outcome is unknown.
    async fn commit(&self, batch: JournalBatch) -> Result<(), StoreError>;

    /// Whether the store runs on its reserved space: what live calls have to say is still written,
    /// new calls should be refused.
    fn low_on_space(&self) -> bool {
        false
    }

    /// Starts this process's epoch: the node's id and how often it has started.
    async fn begin_epoch(&self) -> Result<NodeEpoch, StoreError>;

    /// Sessions that have a snapshot, ordered by id, at most `limit`, after `after`.
    async fn open_sessions(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<OpenSession>, StoreError>;

    /// The enabled webhook of this type, with its secrets; `now` decides which of two secrets are valid.
    async fn endpoint(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, StoreError>;

    /// A sub-account's webhooks, ordered by type.
    async fn webhooks(&self, sub_account_id: &str) -> Result<Vec<Webhook>, StoreError>;

    /// Sets a webhook and makes its signing secret, which is returned this once: `whsec_` + base64.
    /// Replacing a webhook keeps its secret: then `None`.
    async fn set_webhook(
        &self,
        webhook: NewWebhook,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError>;

    /// Deletes a webhook and returns what it was.
    async fn delete_webhook(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
    ) -> Result<Webhook, StoreError>;

    /// Switches a webhook off (a receiver answered 410) as it was at this
    /// [`revision`](crate::Endpoint::revision).
    async fn disable_webhook(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        revision: i64,
    ) -> Result<SwitchedOff, StoreError>;

    /// Makes a new signing secret and returns it; the old one signs too for 24 h.
    async fn rotate_secret(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        now: Timestamp,
    ) -> Result<String, StoreError>;

    /// Makes a sub-account.
    async fn create_sub_account(
        &self,
        sub_account: NewSubAccount,
        now: Timestamp,
    ) -> Result<SubAccount, StoreError>;

    /// All sub-accounts, ordered by id.
    async fn sub_accounts(&self) -> Result<Vec<SubAccount>, StoreError>;

    /// Makes an API key for a sub-account and returns it this once; only its hash is kept.
    async fn create_api_key(
        &self,
        sub_account_id: &str,
        now: Timestamp,
    ) -> Result<String, StoreError>;

    /// Makes the admin key if there is none yet, and returns it then.
    async fn ensure_admin_key(&self, now: Timestamp) -> Result<Option<String>, StoreError>;

    /// What a key may do; `None`: unknown. The comparison does not leak the key by its duration.
    async fn authenticate(&self, key: &str) -> Result<Option<ApiKeyScope>, StoreError>;

    /// Assigns a number.
    async fn assign_number(
        &self,
        number: NewNumber,
        now: Timestamp,
    ) -> Result<VirtualNumber, StoreError>;

    /// Changes a number of this sub-account and returns what it is now.
    async fn change_number(
        &self,
        sub_account_id: &str,
        msisdn: &Msisdn,
        change: NumberChange,
        now: Timestamp,
    ) -> Result<VirtualNumber, StoreError>;

    /// Numbers, all or a sub-account's, ordered by number.
    async fn numbers(&self, sub_account_id: Option<&str>)
    -> Result<Vec<VirtualNumber>, StoreError>;

    /// One number of a sub-account.
    async fn number(
        &self,
        sub_account_id: &str,
        msisdn: &Msisdn,
    ) -> Result<Option<VirtualNumber>, StoreError>;

    /// Whether the database answers (a cheap query).
    async fn ping(&self) -> Result<(), StoreError>;
}
