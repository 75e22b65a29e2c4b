//! The commit path of the shell: what the shards decide is gathered, committed in groups, and only
//! then let out: to the shards as reports, to the delivery as events.
//!
//! One task commits. Everything submitted while a commit runs is the next group, so that groups
//! grow with the load. When the store fails, what was submitted is kept in order, new calls are to
//! be refused ([`JournalReport::Down`]) and the commit is tried again until it succeeds.
//!
//! What lives elsewhere: deciding (`maskline-switch`), the transaction (`sqlite`), sending
//! (`maskline-webhook`). Nothing here awaits a shard or the delivery.

mod counters;
mod reports;
mod tail;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::model::{EventRow, JournalBatch, JournalEntry};
use crate::store::{Store, StoreError};
use reports::Mailbox;
use tail::{Bounds, InHand, Tail};

pub use counters::{GROUP_BUCKETS, JournalCounters};

/// One decision of a shard, to be committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// Which shard: an index into the channels given to [`Journal::start`].
    pub shard: u16,
    /// The shard's own number for it; comes back in a report.
    pub commit_id: u64,
    /// What to write.
    pub entry: JournalEntry,
}

/// What a shard is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalReport {
    /// These are durable. In order of submission.
    Committed {
        /// The shard.
        shard: u16,
        /// Its submissions.
        commit_ids: Vec<u64>,
    },
    /// The store will never take these, for what they hold: their sessions have to end.
    Rejected {
        /// The shard.
        shard: u16,
        /// Its submissions.
        commit_ids: Vec<u64>,
    },
    /// The store fails or runs on its reserve: refuse new calls. What is submitted is kept.
    Down,
    /// The store is well again. A shard begins in this state.
    Up,
}

/// Where committed events go.
pub trait CommittedEvents: Send + Sync + 'static {
    /// Takes events that are durable now, in order within each session. Must not block; runs on the
    /// journal's task.
    fn committed(&self, events: Vec<EventRow>);
}

/// Why a submission was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too much is waiting for the store, or for the shard to take its reports.
    #[error("the journal's tail is full")]
    TailFull,
    /// The journal is shutting down.
    #[error("the journal is closed")]
    Closed,
    /// The shard has no channel.
    #[error("the journal does not know this shard")]
    NoSuchShard,
}

/// A submission that was not taken, given back.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// What was submitted.
    pub submission: Submission,
}

/// The journal's bounds and delays.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// The most entries in one commit, 1 or more. 512 by default.
    pub group: usize,
    /// The most entries that are kept while the store fails. 100,000 by default.
    pub tail_entries: usize,
    /// The most bytes of bodies and snapshots that are kept. 64 MiB by default.
    pub tail_bytes: usize,
    /// The pause after a first failed commit; doubles each time. 100 ms by default.
    pub first_retry: Duration,
    /// The longest pause. 2 s by default.
    pub longest_retry: Duration,
    /// A commit that takes longer than this counts as a failing store until it ends. 2 s by default.
    pub stall: Duration,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            group: 512,
            tail_entries: 100_000,
            tail_bytes: 64 << 20,
            first_retry: Duration::from_millis(100),
            longest_retry: Duration::from_secs(2),
            stall: Duration::from_secs(2),
        }
    }
}

/// The journal. Dropping it ends its task once what is queued is committed, or at the first failure;
/// call [`Journal::flush`] before.
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    tail: Mutex<Tail>,
    mailboxes: Vec<Arc<Mailbox>>,
    counters: JournalCounters,
    options: JournalOptions,
    /// There is something to do for the committer.
    submitted: Notify,
    /// Somebody waits for the tail: no pause.
    hurry: Notify,
    /// The tail has become empty.
    empty: Notify,
}

impl Journal {
    /// Starts the journal within the current runtime. Shard `n` is told by `shards[n]`.
    #[must_use]
    pub fn start(
        store: Arc<dyn Store>,
        shards: Vec<mpsc::Sender<JournalReport>>,
        sink: Arc<dyn CommittedEvents>,
        options: JournalOptions,
    ) -> Self {
        let mailboxes = (0..=u16::MAX)
            .zip(shards)
            .map(|(shard, channel)| Mailbox::open(shard, channel))
            .collect();
        let shared = Arc::new(Shared {
            tail: Mutex::new(Tail::new(Bounds {
                entries: options.tail_entries,
                bytes: options.tail_bytes,
            })),
            mailboxes,
            counters: JournalCounters::default(),
            options,
            submitted: Notify::new(),
            hurry: Notify::new(),
            empty: Notify::new(),
        });
        let committer = Committer {
            shared: Arc::clone(&shared),
            store,
            sink,
            hand: VecDeque::new(),
            suspects: 0,
            failing: false,
            stalled: false,
            told_down: false,
            pause: options.first_retry,
        };
        tokio::spawn(committer.run());
        Self { shared }
    }

    /// Hands a decision to the journal; never waits. Submissions of a shard are committed in the order
    /// in which they came.
    ///
    /// # Errors
    /// [`Refused`] with the submission in it. [`Refusal::TailFull`] means what
    /// [`JournalReport::Down`] means: refuse new calls, and submit again later.
    // The error holds the submission, so that nothing is lost; it is rare, and moved once.
    #[allow(clippy::result_large_err)]
    pub fn submit(&self, submission: Submission) -> Result<(), Refused> {
        let shared = &self.shared;
        let Some(mailbox) = shared.mailboxes.get(usize::from(submission.shard)) else {
            return Err(Refused {
                why: Refusal::NoSuchShard,
                submission,
            });
        };
        let result = if mailbox.submitted(shared.options.tail_entries) {
            let pushed = {
                let mut tail = shared.tail();
                let pushed = tail.push(submission);
                shared.level(&tail);
                pushed
            };
            pushed.inspect_err(|_| mailbox.refused())
        } else {
            Err(Refused {
                why: Refusal::TailFull,
                submission,
            })
        };
        match result {
            Ok(()) => shared.submitted.notify_one(),
            Err(_) => {
                shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }

    /// Waits until nothing is left to commit, at most so long; cuts short the pause before the next try
    /// at a failing store. Returns how many entries are left.
    pub async fn flush(&self, at_most: Duration) -> usize {
        let deadline = Instant::now() + at_most;
        loop {
            let empty = self.shared.empty.notified();
            tokio::pin!(empty);
            empty.as_mut().enable();
            let left = self.shared.tail().entries();
            if left == 0 {
                return 0;
            }
            self.shared.hurry.notify_one();
            if tokio::time::timeout_at(deadline, empty).await.is_err() {
                return self.shared.tail().entries();
            }
        }
    }

    /// What the journal has counted.
    #[must_use]
    pub fn counters(&self) -> &JournalCounters {
        &self.shared.counters
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.tail().close();
        self.shared.submitted.notify_one();
        self.shared.hurry.notify_one();
    }
}

impl Shared {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn level(&self, tail: &Tail) {
        let level = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        self.counters
            .tail_entries
            .store(level(tail.entries()), Ordering::Relaxed);
        self.counters
            .tail_bytes
            .store(level(tail.bytes()), Ordering::Relaxed);
    }
}

/// The task that commits.
struct Committer {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    sink: Arc<dyn CommittedEvents>,
    /// Taken from the tail, in order, not yet committed.
    hand: VecDeque<InHand>,
    /// So many at the front of the hand were refused for their data and not yet told apart; 0: none.
    suspects: usize,
    failing: bool,
    stalled: bool,
    told_down: bool,
    pause: Duration,
}

impl Committer {
    async fn run(mut self) {
        self.tell_health();
        loop {
            let closed = self.take();
            if self.hand.is_empty() {
                if closed {
                    break;
                }
                self.wait().await;
                continue;
            }
            let size = self.group_size();
            let started = Instant::now();
            match self.commit(size).await {
                Ok(()) => self.committed(size, started.elapsed()),
                Err(error) if error.is_passing() => {
                    self.failed(&error);
                    if self.shared.tail().is_closed() {
                        break;
                    }
                    self.pause().await;
                }
                Err(error) => self.refused(size, &error),
            }
        }
        let left = self.shared.tail().entries();
        if left > 0 {
            tracing::error!(
                left,
                "the journal ended with entries that are not committed"
            );
        }
        for mailbox in &self.shared.mailboxes {
            mailbox.close();
        }
    }

    fn take(&mut self) -> bool {
        let mut tail = self.shared.tail();
        tail.take(&mut self.hand, self.shared.options.group.max(1));
        tail.is_closed()
    }

    /// Waits for work. A store that is low on space is asked from time to time whether it still is: it
    /// looks when it commits.
    async fn wait(&mut self) {
        let submitted = self.shared.submitted.notified();
        if !self.told_down {
            return submitted.await;
        }
        if tokio::time::timeout(self.shared.options.longest_retry, submitted)
            .await
            .is_err()
        {
            let probe = self.store.commit(JournalBatch::default()).await;
            self.failing = probe.is_err();
            self.tell_health();
        }
    }

    /// All that is in hand; while an entry is searched that spoils its group, half of the suspects.
    fn group_size(&self) -> usize {
        match self.suspects {
            0 => self.hand.len(),
            suspects => suspects.div_ceil(2).min(self.hand.len()),
        }
    }

    async fn commit(&mut self, size: usize) -> Result<(), StoreError> {
        let entries = self.hand.iter().take(size);
        let batch = JournalBatch {
            entries: entries.map(|it| Arc::clone(&it.entry)).collect(),
        };
        let store = Arc::clone(&self.store);
        let mut commit = store.commit(batch);
        if let Ok(result) = tokio::time::timeout(self.shared.options.stall, &mut commit).await {
            return result;
        }
        tracing::error!("a commit takes very long: new calls are refused until it ends");
        self.stalled = true;
        self.tell_health();
        let result = commit.await;
        self.stalled = false;
        result
    }

    fn committed(&mut self, size: usize, took: Duration) {
        self.suspects = self.suspects.saturating_sub(size);
        self.pause = self.shared.options.first_retry;
        self.failing = false;
        let mut ids: Vec<Vec<u64>> = vec![Vec::new(); self.shared.mailboxes.len()];
        let mut events = Vec::with_capacity(size);
        let mut bytes = 0;
        for submission in self.hand.drain(..size) {
            bytes += submission.bytes;
            if let Some(ids) = ids.get_mut(usize::from(submission.shard)) {
                ids.push(submission.commit_id);
            }
            // The store has let go of it.
            events.extend(Arc::unwrap_or_clone(submission.entry).events);
        }
        let counters = &self.shared.counters;
        counters.committed(size, events.len(), took);
        for (mailbox, ids) in self.shared.mailboxes.iter().zip(ids) {
            if !ids.is_empty() {
                mailbox.committed(ids);
            }
        }
        if !events.is_empty() {
            self.sink.committed(events);
        }
        self.done(size, bytes);
        self.tell_health();
    }

    /// The data of a group was refused: its halves are tried, down to the entry that is at fault. That
    /// one is dropped, so that all others go on.
    fn refused(&mut self, size: usize, error: &StoreError) {
        if size > 1 {
            self.suspects = size;
            return;
        }
        self.suspects = 0;
        let Some(submission) = self.hand.pop_front() else {
            return;
        };
        tracing::error!(
            session_id = %submission.entry.session_id, %error,
            "a journal entry was dropped: the store will never take it"
        );
        self.shared
            .counters
            .rejected
            .fetch_add(1, Ordering::Relaxed);
        if let Some(mailbox) = self.shared.mailboxes.get(usize::from(submission.shard)) {
            mailbox.rejected(submission.commit_id);
        }
        self.done(1, submission.bytes);
    }

    fn failed(&mut self, error: &StoreError) {
        self.shared
            .counters
            .failures
            .fetch_add(1, Ordering::Relaxed);
        if !self.failing {
            tracing::error!(%error, "the journal can't commit: it tries again, new calls are refused");
        }
        self.failing = true;
        self.tell_health();
    }

    async fn pause(&mut self) {
        tokio::select! {
            () = tokio::time::sleep(self.pause) => {}
            () = self.shared.hurry.notified() => {}
        }
        self.pause = (self.pause * 2).min(self.shared.options.longest_retry);
    }

    fn done(&self, entries: usize, bytes: usize) {
        let mut tail = self.shared.tail();
        tail.done(entries, bytes);
        self.shared.level(&tail);
        if tail.entries() == 0 {
            self.shared.empty.notify_waiters();
        }
    }

    fn tell_health(&mut self) {
        let down = self.failing || self.stalled || self.store.low_on_space();
        if down == self.told_down {
            return;
        }
        self.told_down = down;
        self.shared
            .counters
            .down
            .store(u64::from(down), Ordering::Relaxed);
        if !down {
            tracing::info!("the journal commits again: new calls are taken");
        }
        for mailbox in &self.shared.mailboxes {
            mailbox.health(down);
        }
    }
}
