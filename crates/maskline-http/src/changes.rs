//! Changes by sub-accounts: how many they may make, and that each is carried through.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::auth::SubAccountAccess;
use crate::error::ApiError;
use crate::throttle::Counts;

/// How many changes a sub-account's own keys may make in a minute, all together.
const PER_MINUTE: u32 = 60;

/// Changes that sub-accounts have made in the last minute. The operator's are not counted.
pub(crate) struct ChangeLimit(Mutex<Counts<String>>);

impl Default for ChangeLimit {
    fn default() -> Self {
        Self(Mutex::new(Counts::new(PER_MINUTE)))
    }
}

impl ChangeLimit {
    /// Counts a change that is about to be made, unless there were too many.
    pub(crate) fn admit(&self, access: &SubAccountAccess) -> Result<(), ApiError> {
        if access.is_admin {
            return Ok(());
        }
        let now = Instant::now();
        // Nothing panics while it is held.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = counts.wait(&access.sub_account_id, now) {
            return Err(ApiError::TooManyChanges {
                retry_after_s: wait.as_secs().saturating_add(1),
            });
        }
        counts.count(access.sub_account_id.clone(), now);
        Ok(())
    }
}

/// Carries a change through, with telling whoever has to know of it, although the client may be gone:
/// what is durable and not told would go for nobody until the next change.
pub(crate) async fn carried_through<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change)
        .await
        .unwrap_or(Err(ApiError::Panicked))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_change_runs_to_its_end_although_nobody_waits_for_it() {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
        let change = carried_through(async move {
            may_go_on.await.unwrap();
            done.send(()).unwrap();
            Ok(())
        });
        let waiting = tokio::time::timeout(Duration::from_millis(1), change);
        assert!(waiting.await.is_err());
        go_on.send(()).unwrap();
        is_done.await.unwrap();
    }
}
