//! Outcomes on their way into the store: in groups, one group at a time, until it takes them.
//!
//! What waits is bounded by the lanes: they start no attempt while too much is unrecorded.

use std::sync::Arc;
use std::time::Duration;

use maskline_store::{Deliveries, Settlement};
use uuid::Uuid;

/// Most outcomes of one group.
const GROUP: usize = 512;
/// Before the next group, if this one was not full: a commit that outcomes ride with writes more pages.
/// What a crash forgets in that time is delivered once more.
const GATHER: Duration = Duration::from_millis(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Outcomes that wait for their group.
#[derive(Debug, Default)]
pub(super) struct Recording {
    waiting: Vec<Settlement>,
    busy: bool,
}

impl Recording {
    pub(super) fn push(&mut self, settlement: Settlement) {
        self.waiting.push(settlement);
    }

    /// The next group with the session of each, if none is being written.
    pub(super) fn group(&mut self) -> Option<(Vec<Uuid>, Arc<[Settlement]>)> {
        if self.busy || self.waiting.is_empty() {
            return None;
        }
        self.busy = true;
        let group: Arc<[Settlement]> = if self.waiting.len() > GROUP {
            self.waiting.drain(..GROUP).collect()
        } else {
            std::mem::take(&mut self.waiting).into()
        };
        Some((group.iter().map(|it| it.session_id).collect(), group))
    }

    pub(super) fn written(&mut self) {
        self.busy = false;
    }
}

/// Writes a group, however often it takes. What the store will never take is searched for by
/// halves, and given up alone: that event is delivered once more after a restart.
pub(super) async fn write(store: Arc<dyn Deliveries>, group: Arc<[Settlement]>) {
    let full = group.len() >= GROUP;
    let mut pause = FIRST_PAUSE;
    let mut parts = vec![group];
    while let Some(part) = parts.pop() {
        match store.settle(Arc::clone(&part)).await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) if error.is_passing() => {
                let count = part.len();
                tracing::warn!(%error, count, "outcomes of deliveries wait for the store");
                parts.push(part);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => match part.as_ref() {
                [] => {}
                [bad] => {
                    let event_id = bad.outcome.event_id;
                    tracing::error!(%error, %event_id, "an outcome of a delivery can't be recorded");
                }
                several => {
                    // In order: two of them may be of one event.
                    let (first, second) = several.split_at(several.len() / 2);
                    parts.push(second.into());
                    parts.push(first.into());
                }
            },
        }
    }
    if !full {
        tokio::time::sleep(GATHER).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use async_trait::async_trait;
    use maskline_events::Timestamp;
    use maskline_store::{DeliveryState, Outcome, PendingPage, SessionBacklog, StoreError};

    use super::*;

    /// Takes no group in which one of these ordinals is.
    struct Picky {
        never: Vec<u64>,
        taken: Mutex<Vec<u64>>,
    }

    #[async_trait]
    impl Deliveries for Picky {
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

        async fn settle(&self, results: Arc<[Settlement]>) -> Result<(), StoreError> {
            if results.iter().any(|it| self.never.contains(&it.ordinal)) {
                return Err(StoreError::Conflict { what: "it" });
            }
            let mut taken = self.taken.lock().unwrap();
            taken.extend(results.iter().map(|it| it.ordinal));
            Ok(())
        }
    }

    fn settlement(ordinal: u64) -> Settlement {
        Settlement {
            sub_account_id: "shop".to_owned(),
            session_id: Uuid::from_u128(1),
            ordinal,
            outcome: Outcome {
                event_id: Uuid::from_u128(u128::from(ordinal)),
                state: DeliveryState::Delivered,
                attempts: 1,
                next_attempt_at: None,
                status: Some(200),
                error: None,
                at: Timestamp::from_unix_ms(1_767_694_639_375),
            },
            attempt: None,
        }
    }

    #[tokio::test]
    async fn an_outcome_that_can_never_be_written_costs_no_other_its_place() {
        let store = Arc::new(Picky {
            never: vec![3, 300],
            taken: Mutex::default(),
        });
        let group = (1..=512).map(settlement).collect();
        write(Arc::clone(&store) as Arc<dyn Deliveries>, group).await;
        let wanted: Vec<u64> = (1..=512).filter(|it| *it != 3 && *it != 300).collect();
        assert_eq!(*store.taken.lock().unwrap(), wanted);
    }
}
