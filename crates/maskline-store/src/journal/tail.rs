//! What was submitted and is not yet committed: in order, and bounded in entries and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Refusal, Refused, Submission};
use crate::model::JournalEntry;

/// What an entry costs beside its texts: its own fields and its place in the queue.
const ENTRY_BYTES: usize = 256;

/// The bounds of a tail.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// A submission that the committer has in hand. It shares the entry with the store.
pub(super) struct InHand {
    pub(super) shard: u16,
    pub(super) commit_id: u64,
    pub(super) bytes: usize,
    pub(super) entry: Arc<JournalEntry>,
}

impl From<Submission> for InHand {
    fn from(submission: Submission) -> Self {
        Self {
            shard: submission.shard,
            commit_id: submission.commit_id,
            bytes: size(&submission),
            entry: Arc::new(submission.entry),
        }
    }
}

/// The queue in front of the committer. Its levels hold also what the committer has in hand.
pub(super) struct Tail {
    waiting: VecDeque<Submission>,
    entries: usize,
    bytes: usize,
    bounds: Bounds,
    closed: bool,
    /// Whether the present overflow was logged.
    overflowing: bool,
}

impl Tail {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            waiting: VecDeque::new(),
            entries: 0,
            bytes: 0,
            bounds,
            closed: false,
            overflowing: false,
        }
    }

    pub(super) fn push(&mut self, submission: Submission) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused {
                why: Refusal::Closed,
                submission,
            });
        }
        let bytes = size(&submission);
        let fits = self.entries < self.bounds.entries
            && self.bytes.saturating_add(bytes) <= self.bounds.bytes;
        if !fits {
            if !std::mem::replace(&mut self.overflowing, true) {
                tracing::error!(
                    entries = self.entries,
                    bytes = self.bytes,
                    "the journal's tail is full: what is submitted now is refused"
                );
            }
            return Err(Refused {
                why: Refusal::TailFull,
                submission,
            });
        }
        self.entries += 1;
        self.bytes += bytes;
        self.waiting.push_back(submission);
        Ok(())
    }

    /// Moves entries from the front into `hand` until that holds `most`.
    pub(super) fn take(&mut self, hand: &mut VecDeque<InHand>, most: usize) {
        let count = most.saturating_sub(hand.len()).min(self.waiting.len());
        hand.extend(self.waiting.drain(..count).map(InHand::from));
    }

    /// Entries of that many bytes are done with.
    pub(super) fn done(&mut self, entries: usize, bytes: usize) {
        self.entries = self.entries.saturating_sub(entries);
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.entries < self.bounds.entries / 2 && self.bytes < self.bounds.bytes / 2 {
            self.overflowing = false;
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Entries that are not yet done, waiting or in hand.
    pub(super) const fn entries(&self) -> usize {
        self.entries
    }

    /// Their bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a submission counts for, in bytes.
pub(super) fn size(submission: &Submission) -> usize {
    let entry = &submission.entry;
    let snapshot = entry.snapshot.as_ref().map_or(0, Vec::len);
    let events: usize = entry
        .events
        .iter()
        .map(|event| event.body.len() + ENTRY_BYTES)
        .sum();
    ENTRY_BYTES + snapshot + events
}
