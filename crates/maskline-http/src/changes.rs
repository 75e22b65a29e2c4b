//! Changes by sub-accounts: how many they may make, and that each is carried through; and work that is
//! too long for the threads that serve requests.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::auth::SubAccountAccess;
use crate::error::ApiError;
use crate::throttle::Counts;

/// How many changes a sub-account's own keys may make in a minute, all together.
const PER_MINUTE: u32 = 60;

/// How much long work is done at once, whoever asks for it.
const AT_ONCE: usize = 2;

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

/// Where long work is done.
pub(crate) struct LongWork(Arc<Semaphore>);

impl Default for LongWork {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl LongWork {
    /// Does it on a thread of its own, in turn.
    pub(crate) async fn done<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        // Closed by nobody.
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|_| ApiError::Panicked)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn long_work_is_done_elsewhere_and_two_at_a_time() {
        let work = Arc::new(LongWork::default());
        let here = thread::current().id();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all: Vec<_> = (0..16)
            .map(|_| {
                let (work, now, most) = (Arc::clone(&work), Arc::clone(&now), Arc::clone(&most));
                tokio::spawn(async move {
                    let job = move || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(5));
                        now.fetch_sub(1, Ordering::SeqCst);
                        thread::current().id()
                    };
                    work.done(job).await.unwrap()
                })
            })
            .collect();
        for done in all {
            assert_ne!(done.await.unwrap(), here);
        }
        assert!(most.load(Ordering::SeqCst) <= AT_ONCE);
        let panics = work.done(|| unreachable!("planted")).await;
        assert!(matches!(panics, Err(ApiError::Panicked)));
        // The turn of who panicked is not lost.
        for _ in 0..=AT_ONCE {
            assert_eq!(work.done(|| 1).await.unwrap(), 1);
        }
    }

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
