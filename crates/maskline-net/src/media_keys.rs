//! Which media belong to a session, for whoever asks how its audio goes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use maskline_media::MediaKey;
use uuid::Uuid;

/// The media of all live sessions.
#[derive(Debug, Default)]
pub(crate) struct MediaKeys(Mutex<HashMap<Uuid, MediaKey>>);

impl MediaKeys {
    pub(crate) fn put(&self, session_id: Uuid, key: MediaKey) {
        self.table().insert(session_id, key);
    }

    pub(crate) fn remove(&self, session_id: Uuid) {
        self.table().remove(&session_id);
    }

    pub(crate) fn of(&self, session_id: Uuid) -> Option<MediaKey> {
        self.table().get(&session_id).copied()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Uuid, MediaKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
