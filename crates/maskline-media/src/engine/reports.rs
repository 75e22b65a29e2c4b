//! How the sessions go: written by the workers a few times a minute, read when somebody asks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::command::MediaKey;
use crate::report::MediaReport;

/// How many tables the sessions are spread over, so that workers do not meet.
const TABLES: usize = 16;

/// The last report of each session. Whoever holds a lock looks up or puts in one entry.
#[derive(Debug, Default)]
pub(super) struct Reports([Mutex<HashMap<MediaKey, MediaReport>>; TABLES]);

impl Reports {
    pub(super) fn put(&self, key: MediaKey, report: MediaReport) {
        if let Some(mut table) = self.table(key) {
            table.insert(key, report);
        }
    }

    pub(super) fn remove(&self, key: MediaKey) {
        if let Some(mut table) = self.table(key) {
            table.remove(&key);
        }
    }

    pub(super) fn of(&self, key: MediaKey) -> Option<MediaReport> {
        self.table(key)?.get(&key).cloned()
    }

    fn table(&self, key: MediaKey) -> Option<MutexGuard<'_, HashMap<MediaKey, MediaReport>>> {
        let at = (key.id % TABLES as u64) as usize;
        let table = self.0.get(at)?;
        Some(table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
