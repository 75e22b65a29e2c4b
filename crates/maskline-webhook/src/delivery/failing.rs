//! Webhooks that have nothing but failures: since when, and for how long before they are disabled.
//!
//! The store is written at the first failure after a success and at the first success after a
//! failure, and at no other attempt.
//!
//! A failure that this process noted is as old as its own monotonic clock says: the wall clock may
//! have been set meanwhile. What an earlier process noted is as old as the wall clock says, and to
//! be on the safe side the webhook has to fail for [`AT_LEAST`] here, too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maskline_events::{Timestamp, WebhookType};
use maskline_store::Deliveries;
use tokio::time::Instant;

use super::AttemptResult;
use super::schedule::ms;

type Key = (String, WebhookType);

/// For how long a process sees a webhook fail before it is disabled for what an earlier one noted,
/// unless it may not fail for as long.
const AT_LEAST: Duration = Duration::from_secs(3_600);

/// What is known of the webhooks that may be failing. One that is not among them is not.
pub(super) struct Failing {
    store: Arc<dyn Deliveries>,
    known: Mutex<BTreeMap<Key, Known>>,
    loaded: AtomicBool,
}

#[derive(Clone, Copy)]
enum Known {
    Failing(Run),
    /// It was set anew: the store says whether what was known goes on.
    Ask(Option<Run>),
}

/// Failures that no success interrupted.
#[derive(Clone, Copy)]
struct Run {
    /// What the store has noted.
    since: Timestamp,
    /// The first of them that this process saw.
    first: Option<Instant>,
    /// Whether that is the one that was noted.
    noted_here: bool,
}

impl Run {
    fn is_longer(&self, after: Duration, wall: Timestamp, now: Instant) -> bool {
        let here = self
            .first
            .map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        let by_the_wall = wall.unix_ms().saturating_sub(self.since.unix_ms());
        here >= after || !self.noted_here && by_the_wall >= ms(after) && here >= AT_LEAST
    }
}

impl Known {
    fn run(self) -> Option<Run> {
        match self {
            Self::Failing(run) => Some(run),
            Self::Ask(run) => run,
        }
    }
}

impl Failing {
    pub(super) fn new(store: Arc<dyn Deliveries>) -> Self {
        Self {
            store,
            known: Mutex::default(),
            loaded: AtomicBool::new(false),
        }
    }

    /// The webhook was set, deleted, or its secret rotated.
    pub(super) fn changed(&self, owner: &str, kind: WebhookType) {
        let mut known = self.lock();
        let known = known
            .entry((owner.to_owned(), kind))
            .or_insert(Known::Ask(None));
        *known = Known::Ask(known.run());
    }

    /// Hears of an attempt's result; gives since when the webhook had failed if it is disabled now.
    /// `after`: how long it may fail; `None`: for ever. `wall` and `now` are the same moment.
    /// While the store fails nothing is disabled and nothing is noted: the next attempt says it again.
    pub(super) async fn ended(
        &self,
        owner: &str,
        kind: WebhookType,
        after: Option<Duration>,
        result: &AttemptResult,
        (wall, now): (Timestamp, Instant),
    ) -> Option<Timestamp> {
        self.load().await?;
        match result {
            AttemptResult::Delivered { .. } => {
                self.well(owner, kind).await;
                None
            }
            AttemptResult::Failed { .. } => {
                let key = (owner.to_owned(), kind);
                let run = self.failed(&key, wall, now).await?;
                if !run.is_longer(after?, wall, now) {
                    return None;
                }
                let since = run.since;
                let disabled = self.store.disable_failing(owner, kind, since).await.ok()?;
                self.lock().insert(key, Known::Ask(None));
                disabled.then_some(since)
            }
            AttemptResult::Gone | AttemptResult::NoEndpoint | AttemptResult::Postponed => None,
        }
    }

    /// Notes a failure; gives those that it is one of.
    async fn failed(&self, key: &Key, wall: Timestamp, now: Instant) -> Option<Run> {
        if let Some(Known::Failing(run)) = self.lock().get_mut(key) {
            run.first.get_or_insert(now);
            return Some(*run);
        }
        let noted = self.store.note_failing(&key.0, key.1, Some(wall)).await;
        let since = noted.ok().flatten()?;
        let mut known = self.lock();
        // What was known goes on, or another attempt came here meanwhile.
        let same = known.get(key).and_then(|known| known.run());
        let mut run = same.filter(|run| run.since == since).unwrap_or(Run {
            since,
            first: None,
            noted_here: false,
        });
        run.noted_here |= since == wall;
        run.first.get_or_insert(now);
        known.insert(key.clone(), Known::Failing(run));
        Some(run)
    }

    async fn well(&self, owner: &str, kind: WebhookType) {
        let key = {
            let known = self.lock();
            if known.is_empty() {
                return;
            }
            let key = (owner.to_owned(), kind);
            if !known.contains_key(&key) {
                return;
            }
            key
        };
        if self.store.note_failing(owner, kind, None).await.is_ok() {
            self.lock().remove(&key);
        }
    }

    /// Reads what an earlier process noted, once.
    async fn load(&self) -> Option<()> {
        if self.loaded.load(Ordering::Acquire) {
            return Some(());
        }
        let failing = self.store.failing().await.ok()?;
        let mut known = self.lock();
        // Two attempts may come here; what is known meanwhile is newer.
        if !self.loaded.swap(true, Ordering::AcqRel) {
            for (owner, kind, since) in failing {
                let run = Run {
                    since,
                    first: None,
                    noted_here: false,
                };
                known.entry((owner, kind)).or_insert(Known::Failing(run));
            }
        }
        Some(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Known>> {
        // Nothing panics while it is held, and a map is whole between two calls.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::LazyLock;

    use async_trait::async_trait;
    use maskline_store::{PendingPage, SessionBacklog, Settlement, StoreError};
    use uuid::Uuid;

    use super::*;

    const SHOP: (&str, WebhookType) = ("shop", WebhookType::Vcs);

    /// Notes of one webhook.
    #[derive(Default)]
    struct Notes {
        since: Mutex<Option<Timestamp>>,
        writes: Mutex<u32>,
    }

    #[async_trait]
    impl Deliveries for Notes {
        async fn pending_owners(&self) -> Result<Vec<String>, StoreError> {
            Ok(Vec::new())
        }

        async fn pending(
            &self,
            _sub_account_id: &str,
            _after: Option<(Uuid, u64)>,
            _limit: u32,
        ) -> Result<PendingPage, StoreError> {
            Ok(PendingPage::default())
        }

        async fn backlog(
            &self,
            _sub_account_id: &str,
            _session_id: Uuid,
            _after: u64,
            _limit: u32,
        ) -> Result<SessionBacklog, StoreError> {
            Ok(SessionBacklog::default())
        }

        async fn settle(&self, _results: Arc<[Settlement]>) -> Result<(), StoreError> {
            Ok(())
        }

        async fn failing(&self) -> Result<Vec<(String, WebhookType, Timestamp)>, StoreError> {
            let since = *self.since.lock().unwrap();
            let noted = since.map(|since| (SHOP.0.to_owned(), SHOP.1, since));
            Ok(noted.into_iter().collect())
        }

        async fn note_failing(
            &self,
            _sub_account_id: &str,
            _webhook_type: WebhookType,
            since: Option<Timestamp>,
        ) -> Result<Option<Timestamp>, StoreError> {
            *self.writes.lock().unwrap() += 1;
            let mut noted = self.since.lock().unwrap();
            *noted = since.map(|since| noted.unwrap_or(since));
            Ok(*noted)
        }

        async fn disable_failing(
            &self,
            _sub_account_id: &str,
            _webhook_type: WebhookType,
            since: Timestamp,
        ) -> Result<bool, StoreError> {
            let mut noted = self.since.lock().unwrap();
            Ok(noted.take_if(|noted| *noted == since).is_some())
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_767_694_639_000 + seconds * 1_000)
    }

    static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);

    /// And for how long a webhook may fail.
    struct Watch(Failing, Option<Duration>);

    async fn says(watch: &Watch, well: bool, seconds: i64) -> Option<Timestamp> {
        says_at(watch, well, seconds, u64::try_from(seconds).unwrap()).await
    }

    /// With a wall clock that may be wrong and a monotonic one.
    async fn says_at(watch: &Watch, well: bool, wall: i64, now: u64) -> Option<Timestamp> {
        let result = if well {
            AttemptResult::Delivered { status: 200 }
        } else {
            AttemptResult::Failed {
                status: None,
                error: String::new(),
                retry_after: None,
            }
        };
        let Watch(failing, after) = watch;
        let now = (at(wall), *BASE + Duration::from_secs(now));
        failing.ended(SHOP.0, SHOP.1, *after, &result, now).await
    }

    fn with(notes: &Arc<Notes>, after: Option<Duration>) -> Watch {
        Watch(
            Failing::new(Arc::clone(notes) as Arc<dyn Deliveries>),
            after,
        )
    }

    #[tokio::test]
    async fn only_failures_that_no_success_interrupts_disable() {
        let notes = Arc::new(Notes::default());
        let failing = with(&notes, Some(Duration::from_secs(100)));
        for seconds in 0..1_000 {
            let well = seconds % 100 == 50;
            assert_eq!(says(&failing, well, seconds).await, None);
        }
        assert_eq!(*notes.writes.lock().unwrap(), 1 + 10 + 10);
        // The last success was at 950.
        for seconds in 1_000..1_051 {
            assert_eq!(says(&failing, false, seconds).await, None);
        }
        assert_eq!(says(&failing, false, 1_051).await, Some(at(951)));
        assert_eq!(says(&failing, false, 1_052).await, None);
    }

    #[tokio::test]
    async fn what_was_noted_goes_on_after_a_restart_and_ends_when_the_webhook_is_set() {
        let notes = Arc::new(Notes::default());
        let after = Some(Duration::from_secs(100));
        says(&with(&notes, after), false, 0).await;
        let failing = with(&notes, after);
        assert_eq!(says(&failing, false, 99).await, None);
        // Setting it clears the note in the store.
        *notes.since.lock().unwrap() = None;
        failing.0.changed(SHOP.0, SHOP.1);
        assert_eq!(says(&failing, false, 100).await, None);
        assert_eq!(says(&failing, false, 199).await, None);
        assert_eq!(says(&failing, false, 200).await, Some(at(100)));
        // A new secret clears nothing.
        says(&failing, false, 300).await;
        failing.0.changed(SHOP.0, SHOP.1);
        assert_eq!(says(&failing, false, 400).await, Some(at(300)));
        // Noted elsewhere since then: what is known here is old.
        says(&failing, false, 500).await;
        *notes.since.lock().unwrap() = Some(at(590));
        assert_eq!(says(&failing, false, 600).await, None);
        assert_eq!(says(&failing, false, 690).await, None);
        assert_eq!(says(&failing, false, 790).await, Some(at(590)));
    }

    #[tokio::test]
    async fn a_clock_that_is_set_disables_nothing_and_spares_nothing() {
        const YEARS: i64 = 10 * 365 * 86_400;
        // The clock was behind, or ahead, when the first failure was noted.
        for wrong in [-YEARS, YEARS] {
            let notes = Arc::new(Notes::default());
            let failing = with(&notes, Some(Duration::from_secs(100)));
            assert_eq!(says_at(&failing, false, wrong, 0).await, None);
            for seconds in 1..100_u32 {
                let (wall, now) = (i64::from(seconds), u64::from(seconds));
                assert_eq!(says_at(&failing, false, wall, now).await, None);
            }
            assert_eq!(says_at(&failing, false, 100, 100).await, Some(at(wrong)));
        }
    }

    #[tokio::test]
    async fn what_an_earlier_process_noted_disables_after_an_hour_of_failures_here() {
        const DAY: i64 = 86_400;
        let five_days = Some(Duration::from_secs(5 * 86_400));
        // What is noted, and how long this process then sees failures that disable nothing.
        for (since, seconds) in [
            (-30 * DAY, 3_599),
            (-5 * DAY, 3_599),
            (-DAY, 4 * DAY - 1),
            (30 * DAY, 5 * DAY - 1),
        ] {
            let notes = Arc::new(Notes::default());
            *notes.since.lock().unwrap() = Some(at(since));
            let failing = with(&notes, five_days);
            for later in [0, 1, seconds / 2, seconds] {
                assert_eq!(says(&failing, false, later).await, None, "{since} {later}");
            }
            let disabled = says(&failing, false, seconds + 1).await;
            assert_eq!(disabled, Some(at(since)), "{since}");
        }
    }

    #[tokio::test]
    async fn without_a_limit_failures_are_noted_once_and_never_disable() {
        let notes = Arc::new(Notes::default());
        let failing = with(&notes, None);
        assert_eq!(says(&failing, false, 0).await, None);
        assert_eq!(says(&failing, false, 1_000_000_000).await, None);
        assert_eq!(*notes.since.lock().unwrap(), Some(at(0)));
        assert_eq!(*notes.writes.lock().unwrap(), 1);
        assert_eq!(says(&failing, true, 1_000_000_001).await, None);
        assert_eq!(*notes.since.lock().unwrap(), None);
        // The limit is given with each attempt; what failed before it counts.
        says(&failing, false, 1_000_000_002).await;
        let limited = Watch(failing.0, Some(Duration::from_secs(100)));
        assert_eq!(says(&limited, false, 1_000_000_101).await, None);
        assert_eq!(
            says(&limited, false, 1_000_000_102).await,
            Some(at(1_000_000_002))
        );
    }
}
