//! Disk space kept for the moment at which the disk is full.
//!
//! A file of real blocks lies beside the database. When a write finds no space, the file is deleted
//! and the write tried again: what live calls still have to say fits. As long as it is missing the
//! store is low on space and takes no new calls; it is made again when there is room for it twice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::TryRngCore;
use rand::rngs::OsRng;

use crate::secrets::directory_of;

/// How long after a failure, or after it was given up, the file is not tried again.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });
/// Written at once. Random, so that no file system compresses it away.
const BLOCK_BYTES: usize = 64 * 1024;

/// The reserve of one database; owned by its writer.
pub(crate) struct Reserve {
    path: PathBuf,
    /// 0: there is no reserve.
    bytes: u64,
    tried: Option<Instant>,
    /// Whether it was said that there is no room for it.
    told: bool,
    /// Whether the reserve is used up; shared with the store.
    low: Arc<AtomicBool>,
}

impl Reserve {
    /// The reserve beside a database; makes the file if there is space.
    pub(crate) fn beside(database: &Path, bytes: u64, low: Arc<AtomicBool>) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push(".reserve");
        let mut reserve = Self {
            path: PathBuf::from(name),
            bytes,
            tried: None,
            told: false,
            low,
        };
        if bytes == 0 {
            // One that an earlier configuration asked for is given back.
            let _ = fs::remove_file(&reserve.path);
        } else if !reserve.is_whole() {
            reserve.low.store(true, Ordering::Release);
            reserve.restore();
        }
        reserve
    }

    fn is_whole(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.len() >= self.bytes)
    }

    /// Gives the space to the database; `false` if there was none left to give.
    pub(crate) fn release(&mut self) -> bool {
        if self.bytes == 0 {
            return false;
        }
        self.tried = Some(Instant::now());
        let released = fs::remove_file(&self.path).is_ok();
        if !self.low.swap(true, Ordering::AcqRel) {
            tracing::error!(
                reserve = %self.path.display(),
                "the disk is full: the reserved space is used now, new calls are refused; free disk space"
            );
        }
        released
    }

    /// Makes the file again if it is missing, there is room for it twice, and the last try is a
    /// while ago.
    pub(crate) fn restore(&mut self) {
        if !self.low.load(Ordering::Acquire)
            || self.tried.is_some_and(|tried| tried.elapsed() < PAUSE)
        {
            return;
        }
        self.tried = Some(Instant::now());
        let wanted = self.bytes.saturating_mul(2);
        if let Some(free) = free_bytes(directory_of(&self.path))
            && free < wanted
        {
            if !std::mem::replace(&mut self.told, true) {
                tracing::error!(
                    reserve = %self.path.display(), free, wanted,
                    "too little disk space: new calls are refused until so many bytes are free"
                );
            }
            return;
        }
        match self.write() {
            Ok(()) => {
                self.low.store(false, Ordering::Release);
                self.told = false;
                tracing::info!(reserve = %self.path.display(), "disk space is reserved");
            }
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                tracing::warn!(
                    reserve = %self.path.display(), %error,
                    "no disk space could be reserved"
                );
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut block = vec![0_u8; BLOCK_BYTES];
        OsRng.try_fill_bytes(&mut block).map_err(io::Error::other)?;
        let mut file = File::create(&self.path)?;
        let mut left = self.bytes;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            file.write_all(block.get(..part).unwrap_or_default())?;
            left -= part as u64;
        }
        file.sync_all()
    }
}

/// Bytes that this process may still write in a directory; `None` if the system does not say.
pub(crate) fn free_bytes(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
