//! The fields that sub-accounts add to their events, as the store keeps them.
//!
//! What lives elsewhere: what they mean (`maskline-events`), the SQL (`sqlite::parameters`).

use async_trait::async_trait;
use maskline_events::ParameterEntry;

use crate::store::StoreError;

/// What a sub-account has configured; `None`: it can't be read.
pub type KnownParameters = Option<Vec<ParameterEntry>>;

/// The store of sub-accounts' event parameters.
#[async_trait]
pub trait ParameterStore: Send + Sync + 'static {
    /// A sub-account's, in the order in which they were given.
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such sub-account.
    async fn event_parameters(
        &self,
        sub_account_id: &str,
    ) -> Result<Vec<ParameterEntry>, StoreError>;

    /// Replaces a sub-account's, checked by the caller.
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such sub-account.
    async fn set_event_parameters(
        &self,
        sub_account_id: &str,
        entries: Vec<ParameterEntry>,
    ) -> Result<(), StoreError>;

    /// Those of all sub-accounts that have any.
    async fn all_event_parameters(&self) -> Result<Vec<(String, KnownParameters)>, StoreError>;
}
