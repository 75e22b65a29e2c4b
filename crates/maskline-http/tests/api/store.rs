//! The real store, in a directory of its own.

use std::path::PathBuf;
use std::sync::Arc;

use maskline_events::Timestamp;
use maskline_store::{
    Deliveries, EventHistory, ParameterStore, SqliteLocation, SqliteOptions, SqliteStore, Store,
    WebhookSettings,
};

use crate::support::START_MS;

pub struct TestStore {
    store: Arc<SqliteStore>,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl TestStore {
    pub fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("maskline.db");
        let location = SqliteLocation::File(file.clone());
        let key = location.master_key(None).unwrap();
        let options = SqliteOptions {
            reserve_bytes: 0,
            ..SqliteOptions::default()
        };
        let store = SqliteStore::open(&location, &key, options).unwrap();
        Self {
            store: Arc::new(store),
            file,
            _directory: directory,
        }
    }

    pub fn shared(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    pub fn parameters(&self) -> Arc<dyn ParameterStore> {
        self.store.clone()
    }

    pub fn history(&self) -> Arc<dyn EventHistory> {
        self.store.clone()
    }

    pub fn settings(&self) -> Arc<dyn WebhookSettings> {
        self.store.clone()
    }

    pub fn deliveries(&self) -> &dyn Deliveries {
        &*self.store
    }

    /// Makes the store's own admin key.
    pub async fn admin_key(&self) -> String {
        let now = Timestamp::from_unix_ms(START_MS);
        self.store.ensure_admin_key(now).await.unwrap().unwrap()
    }

    /// Takes a table away, so that queries of it fail.
    pub fn break_table(&self, name: &str) {
        rusqlite::Connection::open(&self.file)
            .unwrap()
            .execute_batch(&format!("ALTER TABLE {name} RENAME TO gone"))
            .unwrap();
    }
}
