//! Telling the shards what became of their submissions, without ever waiting for one of them.
//!
//! A shard has a mailbox in which news is merged until its channel has room. What a mailbox can hold
//! is bounded by what its shard has submitted and not yet been told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::JournalReport;

/// News of one shard.
pub(super) struct Mailbox {
    shard: u16,
    pending: Mutex<Pending>,
    news: Notify,
    /// Submissions that the shard has not been told about.
    outstanding: AtomicUsize,
}

#[derive(Default)]
struct Pending {
    committed: Vec<u64>,
    rejected: Vec<u64>,
    down: bool,
    told_down: bool,
    /// The journal has ended: what is left is told, then no more.
    closed: bool,
    /// The shard has ended: nobody wants to know.
    gone: bool,
}

impl Mailbox {
    /// A mailbox with the task that empties it into the shard's channel. Call within a runtime.
    pub(super) fn open(shard: u16, channel: mpsc::Sender<JournalReport>) -> Arc<Self> {
        let mailbox = Arc::new(Self {
            shard,
            pending: Mutex::default(),
            news: Notify::new(),
            outstanding: AtomicUsize::new(0),
        });
        tokio::spawn(Arc::clone(&mailbox).forward(channel));
        mailbox
    }

    /// Counts a submission; `false` if the shard has been told of too few of the earlier ones.
    pub(super) fn submitted(&self, most: usize) -> bool {
        self.outstanding
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now < most).then_some(now + 1)
            })
            .is_ok()
    }

    /// Takes back a submission that was counted and then refused.
    pub(super) fn refused(&self) {
        self.told(1);
    }

    pub(super) fn committed(&self, ids: Vec<u64>) {
        self.post(|pending| pending.committed.extend(ids));
    }

    pub(super) fn rejected(&self, id: u64) {
        self.post(|pending| pending.rejected.push(id));
    }

    pub(super) fn health(&self, down: bool) {
        self.post(|pending| pending.down = down);
    }

    pub(super) fn close(&self) {
        self.post(|pending| pending.closed = true);
    }

    fn post(&self, write: impl FnOnce(&mut Pending)) {
        {
            let mut pending = self.lock();
            if pending.gone {
                return;
            }
            write(&mut pending);
        }
        self.news.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, submissions: usize) {
        self.outstanding.fetch_sub(submissions, Ordering::AcqRel);
    }

    async fn forward(self: Arc<Self>, channel: mpsc::Sender<JournalReport>) {
        loop {
            let (waiting, closed) = {
                let pending = self.lock();
                (pending.has_news(), pending.closed)
            };
            if !waiting {
                if closed {
                    return;
                }
                self.news.notified().await;
                continue;
            }
            // News goes on being merged while the shard's channel is full.
            let Ok(permit) = channel.reserve().await else {
                let mut pending = self.lock();
                *pending = Pending {
                    gone: true,
                    ..Pending::default()
                };
                return;
            };
            if let Some(report) = self.next() {
                permit.send(report);
            }
        }
    }

    /// The next report: the journal's health first, since new calls depend on it.
    fn next(&self) -> Option<JournalReport> {
        let shard = self.shard;
        let mut pending = self.lock();
        if pending.down != pending.told_down {
            pending.told_down = pending.down;
            return Some(if pending.down {
                JournalReport::Down
            } else {
                JournalReport::Up
            });
        }
        let report = if !pending.committed.is_empty() {
            let commit_ids = std::mem::take(&mut pending.committed);
            self.told(commit_ids.len());
            JournalReport::Committed { shard, commit_ids }
        } else if !pending.rejected.is_empty() {
            let commit_ids = std::mem::take(&mut pending.rejected);
            self.told(commit_ids.len());
            JournalReport::Rejected { shard, commit_ids }
        } else {
            return None;
        };
        Some(report)
    }
}

impl Pending {
    fn has_news(&self) -> bool {
        !self.committed.is_empty() || !self.rejected.is_empty() || self.down != self.told_down
    }
}
