//! Who is asked what to do with a call.

use async_trait::async_trait;
use maskline_switch::CallflowAnswer;
use uuid::Uuid;

/// Asks a customer's server (VCA, contract §4). The shards only know this trait.
#[async_trait]
pub trait CallflowSource: Send + Sync + 'static {
    /// Asks the sub-account's endpoint and waits for its answer; has a deadline of its own. The
    /// body is the whole request, `event_id` its id. The future may be dropped.
    async fn ask(&self, sub_account_id: String, event_id: Uuid, body: String) -> CallflowAnswer;
}
