//! One process per database.
//!
//! The lock is on a file of its own beside the database: closing any handle of the database file
//! itself would drop SQLite's own locks on it.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// Held as long as this lives; the system gives it back when the process dies.
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock of a database.
    pub(crate) fn take(database: &Path, place: &str) -> Result<Self, StoreError> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let unavailable = |reason: String| StoreError::Unavailable {
            place: place.to_owned(),
            reason,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| unavailable(format!("{}: {error}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(unavailable(
                "another process has it open: stop that one, or give this one a database of its own"
                    .to_owned(),
            )),
            Err(TryLockError::Error(error)) => {
                Err(unavailable(format!("{}: {error}", path.display())))
            }
        }
    }
}
