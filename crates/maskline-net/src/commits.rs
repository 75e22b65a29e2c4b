//! One shard's side of the journal: submitting, holding back what the journal does not take, and
//! telling the shard whether new calls can be journalled.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use maskline_store::{EventRow, Journal, JournalEntry, JournalReport, Refused, Submission};
use maskline_switch::{CommitId, Input, JournalRecord, RecordedEvent};
use metrics::Counter;
use tokio::time::Instant;

/// How long after a refusal the journal is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Whether any shard can't journal, for the health check.
#[derive(Debug)]
pub(crate) struct JournalHealth {
    down: Mutex<BTreeSet<u16>>,
    any_down: Arc<AtomicBool>,
}

impl JournalHealth {
    pub(crate) fn new(any_down: Arc<AtomicBool>) -> Self {
        Self {
            down: Mutex::default(),
            any_down,
        }
    }

    fn tell(&self, shard: u16, down: bool) {
        let mut shards = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        if down {
            shards.insert(shard);
        } else {
            shards.remove(&shard);
        }
        self.any_down.store(!shards.is_empty(), Ordering::Relaxed);
    }
}

/// The commits of one shard.
pub(crate) struct Commits {
    journal: Arc<Journal>,
    health: Arc<JournalHealth>,
    shard: u16,
    /// Not taken yet, in order. While there are any, nothing overtakes them.
    held: VecDeque<Submission>,
    most_held: usize,
    retry_at: Option<Instant>,
    reported_down: bool,
    told_down: bool,
    losing: bool,
    lost: Counter,
}

impl Commits {
    pub(crate) fn new(
        journal: Arc<Journal>,
        health: Arc<JournalHealth>,
        shard: u16,
        most_held: usize,
    ) -> Self {
        Self {
            journal,
            health,
            shard,
            held: VecDeque::new(),
            most_held,
            retry_at: None,
            reported_down: false,
            told_down: false,
            losing: false,
            lost: metrics::counter!("maskline_journal_lost_commits_total"),
        }
    }

    /// Submits a commit, or holds it back. Returns what the shard has to be told when neither is
    /// possible: the session can't be journalled any more.
    pub(crate) fn submit(&mut self, id: CommitId, record: JournalRecord) -> Option<Input> {
        let submission = Submission {
            shard: self.shard,
            commit_id: id,
            entry: entry(record),
        };
        let refused = if self.held.is_empty() {
            match self.journal.submit(submission) {
                Ok(()) => return None,
                Err(Refused { submission, .. }) => submission,
            }
        } else {
            submission
        };
        if self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + RETRY);
        }
        if self.held.len() < self.most_held {
            self.held.push_back(refused);
            return None;
        }
        self.lost.increment(1);
        if !std::mem::replace(&mut self.losing, true) {
            tracing::error!(
                shard = self.shard,
                held = self.held.len(),
                "the journal takes nothing and no more can be held back: calls are ended"
            );
        }
        Some(Input::CommitsRejected(vec![id]))
    }

    /// What a report means to the shard.
    pub(crate) fn report(&mut self, report: JournalReport) -> Option<Input> {
        match report {
            JournalReport::Committed { commit_ids, .. } => Some(Input::Committed(commit_ids)),
            JournalReport::Rejected { commit_ids, .. } => Some(Input::CommitsRejected(commit_ids)),
            JournalReport::Down => {
                self.reported_down = true;
                None
            }
            JournalReport::Up => {
                self.reported_down = false;
                None
            }
        }
    }

    /// When [`Self::retry`] has something to do.
    pub(crate) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Submits what was held back, if it is time.
    pub(crate) fn retry(&mut self) {
        if self.retry_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.retry_at = None;
        while let Some(submission) = self.held.pop_front() {
            if let Err(Refused { submission, .. }) = self.journal.submit(submission) {
                self.held.push_front(submission);
                self.retry_at = Some(Instant::now() + RETRY);
                return;
            }
        }
        self.losing = false;
    }

    /// What the shard has to be told if the journal's health has changed for it.
    pub(crate) fn news(&mut self) -> Option<Input> {
        let down = self.reported_down || !self.held.is_empty();
        if down == self.told_down {
            return None;
        }
        self.told_down = down;
        self.health.tell(self.shard, down);
        Some(Input::JournalDown(down))
    }
}

fn entry(record: JournalRecord) -> JournalEntry {
    let session_id = record.session_id;
    let sub_account_id = record.sub_account_id;
    let row = |event: RecordedEvent| EventRow {
        event_id: event.event_id,
        session_id,
        sub_account_id: sub_account_id.clone(),
        ordinal: event.ordinal,
        webhook_type: event.webhook_type,
        at: event.at,
        body: event.body,
    };
    JournalEntry {
        session_id,
        snapshot: record.snapshot,
        events: record.events.into_iter().map(row).collect(),
        sub_account_id,
    }
}
