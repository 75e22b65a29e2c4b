//! How long no process ran: a small file beside the database that the running one writes twice a
//! second, so that the next one knows how long ago the last one was alive, however it ended.
//!
//! It is never synced: what a power failure takes with it only makes the absence longer.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time between two beats.
const INTERVAL: Duration = Duration::from_millis(500);
/// A start after which the process lived for so long is no part of a row of crashes: what a call that
/// went on still has to do (its repeated 200, its questions, its refresh) is over by then.
const SETTLED: Duration = Duration::from_secs(60);
/// After so many starts in a row that did not live that long, the calls that are up are taken for the
/// cause, and no absence is told.
const MOST_STARTS: u32 = 3;
/// Bytes of the file: milliseconds since 1970, starts in a row, a line break.
const LENGTH: usize = 32;

/// What the last process left, and the file for this one. Beats from [`Heartbeat::start`] until it is
/// dropped.
#[derive(Debug)]
pub struct Heartbeat {
    file: File,
    last: Result<Beat, UnknownAbsence>,
}

/// Why it is not told how long no process ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownAbsence {
    /// There is something that can't be used as the file.
    #[error("the heartbeat file can't be used")]
    Unusable,
    /// There is no file.
    #[error("the heartbeat file is missing")]
    Missing,
    /// What is in the file is no heartbeat.
    #[error("the heartbeat file is empty, cut off or garbled")]
    Garbled,
    /// The last beat is later than now.
    #[error("the last heartbeat lies in the future: the clock was set back")]
    InTheFuture,
    /// Too many starts in a row whose process did not live for a minute.
    #[error("{0} starts in a row did not live for a minute")]
    RowOfStarts(u32),
}

/// The thread that beats; dropping it stops it.
#[derive(Debug)]
pub struct Beating {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beat {
    unix_ms: u64,
    /// Starts in a row without a settled life, that process's own included; 0: it was settled.
    starts: u32,
}

impl Heartbeat {
    /// The name of the file beside a database.
    #[must_use]
    pub fn file_beside(database: &Path) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push(".alive");
        PathBuf::from(name)
    }

    /// Reads the file beside a database, and makes it if it is missing.
    ///
    /// # Errors
    /// It can't be opened, is no regular file (a directory, a pipe), or a link to nothing.
    pub fn beside(database: &Path) -> io::Result<Self> {
        let path = Self::file_beside(database);
        let missing = match path.symlink_metadata() {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        // Before it is opened: opening a pipe or a device may wait, or do something.
        if !missing && !path.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        let mut bytes = [0; LENGTH];
        let read = file.read_exact_at(&mut bytes, 0).ok();
        let last = match read.and_then(|()| Beat::read(&bytes)) {
            Some(beat) => Ok(beat),
            None if missing => Err(UnknownAbsence::Missing),
            None => Err(UnknownAbsence::Garbled),
        };
        Ok(Self { file, last })
    }

    /// How long ago the last process was alive, by now.
    ///
    /// # Errors
    /// That is not known, or lies in the future, or this is one of a row of crashes.
    pub fn away(&self) -> Result<Duration, UnknownAbsence> {
        away(self.last, unix_ms())
    }

    /// Begins to beat.
    ///
    /// # Errors
    /// The first beat can't be written, or the thread not be started.
    pub fn start(self) -> io::Result<Beating> {
        let Self { file, last } = self;
        let starts = last.map_or(0, |beat| beat.starts).saturating_add(1);
        let (stop, stopped) = sync_channel::<()>(1);
        let began = std::time::Instant::now();
        let beat = move || {
            let settled = began.elapsed() >= SETTLED;
            let beat = Beat {
                unix_ms: unix_ms(),
                starts: if settled { 0 } else { starts },
            };
            file.write_all_at(&beat.bytes(), 0)
        };
        beat()?;
        let thread = std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || {
                let mut failed = false;
                while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    let result = beat();
                    if let (Err(error), false) = (&result, failed) {
                        tracing::warn!(%error, "the heartbeat beside the database can't be written: calls do not survive a restart");
                    }
                    failed = result.is_err();
                }
            })?;
        Ok(Beating {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only beats; there is nothing to be learned from how it ended.
            let _ = thread.join();
        }
    }
}

impl Beat {
    fn bytes(self) -> [u8; LENGTH] {
        let text = format!("{:020} {:010}\n", self.unix_ms, self.starts);
        let mut bytes = [b' '; LENGTH];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split_whitespace();
        let beat = Self {
            unix_ms: words.next()?.parse().ok()?,
            starts: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(beat)
    }
}

fn away(last: Result<Beat, UnknownAbsence>, now_ms: u64) -> Result<Duration, UnknownAbsence> {
    let last = last?;
    if last.starts >= MOST_STARTS {
        return Err(UnknownAbsence::RowOfStarts(last.starts));
    }
    let away = now_ms.checked_sub(last.unix_ms);
    away.map(Duration::from_millis)
        .ok_or(UnknownAbsence::InTheFuture)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_told_unless_it_is_unknown_in_the_future_or_one_of_a_row_of_crashes() {
        use UnknownAbsence::{Garbled, InTheFuture, Missing, RowOfStarts};
        let beat = |unix_ms, starts| Ok(Beat { unix_ms, starts });
        let second = Ok(Duration::from_secs(1));
        for (last, expected) in [
            (Err(Missing), Err(Missing)),
            (Err(Garbled), Err(Garbled)),
            (beat(9_000, 0), second),
            (beat(9_000, 2), second),
            (beat(9_000, 3), Err(RowOfStarts(3))),
            (beat(10_001, 0), Err(InTheFuture)),
        ] {
            assert_eq!(away(last, 10_000), expected, "{last:?}");
        }
    }

    #[test]
    fn a_beat_reads_back_and_anything_else_is_none() {
        let beat = Beat {
            unix_ms: u64::MAX,
            starts: u32::MAX,
        };
        assert_eq!(Beat::read(&beat.bytes()), Some(beat));
        for strange in [&b""[..], b"12", b"x 1", b"1 2 3", b"\xff\xff 1"] {
            assert_eq!(Beat::read(strange), None);
        }
    }

    #[test]
    fn what_one_process_wrote_is_what_the_next_one_reads() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let first = Heartbeat::beside(&database).unwrap();
        assert_eq!(first.away(), Err(UnknownAbsence::Missing));
        drop(first.start().unwrap());
        let second = Heartbeat::beside(&database).unwrap();
        assert!(second.away().unwrap() < Duration::from_secs(60));
        assert_eq!(second.last.unwrap().starts, 1);
        drop(second.start().unwrap());
        drop(Heartbeat::beside(&database).unwrap().start().unwrap());
        let fourth = Heartbeat::beside(&database).unwrap();
        assert_eq!(fourth.away(), Err(UnknownAbsence::RowOfStarts(3)));
        for garbled in ["", "12", "x", "00000000000000000001 y        "] {
            std::fs::write(Heartbeat::file_beside(&database), garbled).unwrap();
            let next = Heartbeat::beside(&database).unwrap();
            assert_eq!(next.away(), Err(UnknownAbsence::Garbled), "{garbled}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let database = |name: &str| folder.path().join(name);
        let path = |name: &str| Heartbeat::file_beside(&database(name));
        std::fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("nothing"), path("link")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), fifo, mode, 0).unwrap();
        for name in ["folder", "link", "pipe"] {
            assert!(Heartbeat::beside(&database(name)).is_err(), "{name}");
        }
        assert!(!folder.path().join("nothing").exists());
    }
}
