//! What the journal counts, for metrics and for tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Group sizes are counted in this many buckets: 1, up to 2, up to 4, … up to 256, more.
pub const GROUP_BUCKETS: usize = 10;

/// Counts since the start, and levels as they are now.
#[derive(Debug, Default)]
pub struct JournalCounters {
    /// Groups that were committed.
    pub commits: AtomicU64,
    /// Entries in them.
    pub entries: AtomicU64,
    /// Events in them.
    pub events: AtomicU64,
    /// Microseconds that the successful commits took in all.
    pub commit_us: AtomicU64,
    /// Groups by size: bucket `n` counts those of at most 2^n entries and more than bucket `n - 1`;
    /// the last has no upper bound.
    pub group_sizes: [AtomicU64; GROUP_BUCKETS],
    /// Commits that failed because the store did.
    pub failures: AtomicU64,
    /// Entries that were dropped because the store will never take them.
    pub rejected: AtomicU64,
    /// Submissions that were refused because the tail was full.
    pub refused: AtomicU64,
    /// Level: entries submitted and not yet committed.
    pub tail_entries: AtomicU64,
    /// Level: their bytes.
    pub tail_bytes: AtomicU64,
    /// Level: 1 while new calls should be refused.
    pub down: AtomicU64,
}

impl JournalCounters {
    pub(super) fn committed(&self, entries: usize, events: usize, took: Duration) {
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.events
            .fetch_add(u64::try_from(events).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.commit_us.fetch_add(
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        let bucket = entries.max(1).next_power_of_two().trailing_zeros() as usize;
        if let Some(count) = self.group_sizes.get(bucket.min(GROUP_BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
