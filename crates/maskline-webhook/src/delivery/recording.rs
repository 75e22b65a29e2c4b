//! Outcomes on their way into the store: in groups, one group at a time, until it takes them.
//!
//! What waits is bounded by the lanes: they start no attempt while too much is unrecorded.

use std::sync::Arc;
use std::time::Duration;

use maskline_store::{Outcome, Store};
use uuid::Uuid;

/// Most outcomes of one group.
const GROUP: usize = 512;
/// Before the next group, if this one was not full: fewer commits, and what a crash forgets in
/// that time is delivered once more.
const GATHER: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Outcomes that wait for their group, each with its session.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) sessions: Vec<Uuid>,
    outcomes: Vec<Outcome>,
    busy: bool,
}

impl Recording {
    pub(super) fn push(&mut self, session: Uuid, outcome: Outcome) {
        self.sessions.push(session);
        self.outcomes.push(outcome);
    }

    /// The next group, if none is being written.
    pub(super) fn group(&mut self) -> Option<(Vec<Uuid>, Vec<Outcome>)> {
        if self.busy || self.outcomes.is_empty() {
            return None;
        }
        self.busy = true;
        let count = self.outcomes.len().min(GROUP);
        let rest = (
            self.sessions.split_off(count),
            self.outcomes.split_off(count),
        );
        let group = (
            std::mem::replace(&mut self.sessions, rest.0),
            std::mem::replace(&mut self.outcomes, rest.1),
        );
        Some(group)
    }

    pub(super) fn written(&mut self) {
        self.busy = false;
    }
}

/// Writes a group, however often it takes. Gives up only on what the store will never take; those
/// events are delivered once more after a restart.
pub(super) async fn write(store: Arc<dyn Store>, outcomes: Vec<Outcome>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match store.record(outcomes.clone()).await {
            Ok(()) => break,
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, count = outcomes.len(), "outcomes of deliveries wait for the store");
            }
            Err(error) => {
                tracing::error!(%error, count = outcomes.len(), "outcomes of deliveries can't be recorded");
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    if outcomes.len() < GROUP {
        tokio::time::sleep(GATHER).await;
    }
}
