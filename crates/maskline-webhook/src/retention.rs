//! Forgetting events that were settled long ago: in small steps, and not while others wait to write.
//!
//! What lives elsewhere: which events may go (`maskline_store::history`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use maskline_events::Timestamp;
use maskline_store::EventHistory;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::clock;

/// Events of one step.
const STEP: u32 = 200;
/// Between two steps.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two passes, and after a failure.
const REST: Duration = Duration::from_secs(600);

/// Forgets old events until it is dropped.
pub struct Retention {
    forgotten: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Retention {
    /// Starts forgetting events so long after their delivery was final. Call within a runtime.
    #[must_use]
    pub fn start(store: Arc<dyn EventHistory>, keep: Duration) -> Self {
        let forgotten = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&forgotten);
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let task = tokio::spawn(async move {
            loop {
                let before = clock::wall().unix_ms().saturating_sub(keep_ms);
                pass(&*store, Timestamp::from_unix_ms(before), &counter).await;
                sleep(REST).await;
            }
        });
        Self {
            forgotten,
            task: task.abort_handle(),
        }
    }

    /// How many events were forgotten since the start.
    #[must_use]
    pub fn forgotten(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.forgotten)
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(store: &dyn EventHistory, before: Timestamp, forgotten: &AtomicU64) {
    let mut after = 0;
    loop {
        match store.forget(before, after, STEP).await {
            Ok(step) => {
                forgotten.fetch_add(step.forgotten, Ordering::Relaxed);
                let Some(next) = step.next else {
                    return;
                };
                after = next;
            }
            Err(error) => {
                tracing::warn!(%error, "old events can't be deleted, trying again later");
                return;
            }
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use async_trait::async_trait;
    use maskline_events::WebhookType;
    use maskline_store::{EventPage, ForgetStep, LoggedAttempt, Replay, ReplayStep, StoreError};
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;

    /// Notes when it was asked to go on after which position, and has three steps in all.
    struct Steps {
        asked: Mutex<Vec<(u128, u64)>>,
        began: Instant,
    }

    #[async_trait]
    impl EventHistory for Steps {
        async fn page(
            &self,
            _sub_account_id: &str,
            _after: Option<u64>,
            _webhook_type: Option<WebhookType>,
            _limit: u32,
        ) -> Result<EventPage, StoreError> {
            Ok(EventPage::default())
        }

        async fn attempts(
            &self,
            _sub_account_id: &str,
            _event_id: Uuid,
        ) -> Result<Option<Vec<LoggedAttempt>>, StoreError> {
            Ok(None)
        }

        async fn replay(
            &self,
            _replay: &Replay,
            _after: u64,
            _now: Timestamp,
        ) -> Result<ReplayStep, StoreError> {
            Ok(ReplayStep::default())
        }

        async fn forget(
            &self,
            settled_before: Timestamp,
            after: u64,
            limit: u32,
        ) -> Result<ForgetStep, StoreError> {
            let day_ms = 86_400_000;
            let age = clock::wall().unix_ms() - settled_before.unix_ms();
            assert!((day_ms..day_ms + 60_000).contains(&age), "{age}");
            assert!(limit <= 200);
            let mut asked = self.asked.lock().unwrap();
            asked.push((self.began.elapsed().as_millis(), after));
            match asked.len() {
                2 => Err(StoreError::Unavailable {
                    place: "here".to_owned(),
                    reason: "planted".to_owned(),
                }),
                count => Ok(ForgetStep {
                    forgotten: 7,
                    next: (count < 4).then_some(after + 10),
                }),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_step_by_step_rests_after_a_pass_and_survives_a_failure() {
        let store = Arc::new(Steps {
            asked: Mutex::default(),
            began: Instant::now(),
        });
        let shared = Arc::clone(&store) as Arc<dyn EventHistory>;
        let retention = Retention::start(shared, Duration::from_secs(86_400));
        let forgotten = retention.forgotten();
        sleep(Duration::from_secs(601)).await;
        let asked = store.asked.lock().unwrap().clone();
        let (first, again) = (50, 600_050);
        assert_eq!(asked, [(0, 0), (first, 10), (again, 0), (again + 50, 10)]);
        assert_eq!(forgotten.load(Ordering::Relaxed), 21);
        drop(retention);
        sleep(Duration::from_secs(3_600)).await;
        assert_eq!(store.asked.lock().unwrap().len(), 4);
    }
}
