//! A few read-only connections, used on blocking threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::fault::Fault;
use crate::store::StoreError;

/// The pool. A query waits while all connections are in use.
pub(crate) struct Readers {
    path: PathBuf,
    place: Arc<str>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    /// A pool of at most `size` connections, opened when they are first needed.
    pub(crate) fn new(path: PathBuf, place: Arc<str>, size: usize) -> Self {
        Self {
            path,
            place,
            permits: Arc::new(Semaphore::new(size.max(1))),
            idle: Arc::new(Mutex::new(Vec::new())),
        }
    }

    /// Runs a query on a blocking thread. It sees everything whose write has returned.
    pub(crate) async fn run<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let ended = |reason: &str| StoreError::Unavailable {
            place: self.place.to_string(),
            reason: reason.to_owned(),
        };
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| ended("it was closed"))?;
        let (path, place, idle) = (
            self.path.clone(),
            Arc::clone(&self.place),
            Arc::clone(&self.idle),
        );
        tokio::task::spawn_blocking(move || {
            // The permit lives as long as the query, also when its caller no longer waits.
            let _permit = permit;
            let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let result = waiting
                .map_or_else(|| open(&path).map_err(Fault::from), Ok)
                .and_then(|connection| {
                    let value = query(&connection);
                    idle.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(connection);
                    value
                });
            result.map_err(|fault| fault.into_store_error(&place))
        })
        .await
        .map_err(|_| ended("a query was cut off"))?
    }
}

fn open(path: &std::path::Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(super::BUSY_TIMEOUT)?;
    Ok(connection)
}
