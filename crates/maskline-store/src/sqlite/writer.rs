//! The one thread that writes: it takes whatever is queued into one transaction, so that many
//! callers share one fsync.
//!
//! A group in which one piece of work fails for its own data is undone and tried again with a
//! savepoint for each: that one is undone alone. What fails for the database's sake fails for all,
//! and nothing of the group is kept.
//!
//! Work that nobody waits for rides with the next group, or makes one of its own a little later: it
//! costs no fsync while others pay for one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::fault::{self, Fault};
use super::lock::FileLock;
use super::reserve::{self, Reserve};
use crate::store::StoreError;

/// Pieces of work that can wait; more wait at their senders.
const QUEUE: usize = 1024;
/// The most pieces of work in one transaction.
const GROUP: usize = 512;
/// How long work that nobody waits for is kept back for other work to ride with.
const LAZY: Duration = Duration::from_millis(50);
/// An IO error on a disk with less room than this means that it is full.
const FULL_BELOW_BYTES: u64 = 1 << 20;

/// What the writer has done since the store was opened.
#[derive(Debug, Default)]
pub struct WriterCounters {
    /// Transactions that were committed.
    pub transactions: AtomicU64,
    /// Pieces of work (calls of the store's writing methods) that they held.
    pub writes: AtomicU64,
    /// Transactions that failed as a whole.
    pub failures: AtomicU64,
}

/// A piece of work. It may run several times: what a failed transaction did is undone.
trait Job: Send {
    /// Whether it can wait for others.
    fn is_lazy(&self) -> bool;
    fn run(&mut self, connection: &Connection) -> Result<(), Fault>;
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Work<T, F> {
    work: F,
    lazy: bool,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Work<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, Fault> + Send,
{
    fn is_lazy(&self) -> bool {
        self.lazy
    }

    fn run(&mut self, connection: &Connection) -> Result<(), Fault> {
        self.value = Some((self.work)(connection)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self {
            work, value, reply, ..
        } = *self;
        // What it was given is the caller's alone again when he hears of it.
        drop(work);
        let result = match (outcome, value) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(gone(String::new())),
            (Err(error), _) => Err(error),
        };
        // A caller that no longer waits does not need the answer.
        let _ = reply.send(result);
    }
}

fn gone(place: String) -> StoreError {
    StoreError::Unavailable {
        place,
        reason: "its writer has ended".to_owned(),
    }
}

/// The senders' end of the writer thread. Dropping it lets the thread finish what is queued, and
/// waits for that.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    place: Arc<str>,
    counters: Arc<WriterCounters>,
}

impl Writer {
    /// Starts the thread. It owns the connection, the lock and the reserve.
    pub(crate) fn start(
        connection: Connection,
        lock: FileLock,
        reserve: Reserve,
        directory: PathBuf,
        place: Arc<str>,
    ) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let counters = Arc::new(WriterCounters::default());
        let no_thread = |error: std::io::Error| StoreError::Unavailable {
            place: place.to_string(),
            reason: format!("no thread for its writer: {error}"),
        };
        let timer = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(no_thread)?;
        let writing = Writing {
            connection,
            reserve,
            directory,
            place: Arc::clone(&place),
            counters: Arc::clone(&counters),
            _lock: lock,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writing.run(&timer, jobs))
            .map_err(no_thread)?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            place,
            counters,
        })
    }

    /// What it writes, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn counters(&self) -> &WriterCounters {
        &self.counters
    }

    /// Runs `work` in a transaction and returns its value once that is durable. Waits while the
    /// queue is full. If the caller stops waiting, the work may still be done.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.queued(work, false).await
    }

    /// As [`Self::run`], but in the transaction of the next other work if some comes within
    /// [`LAZY`].
    pub(crate) async fn run_lazily<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.queued(work, true).await
    }

    /// Whether nothing waits for the thread.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue
            .as_ref()
            .is_none_or(|queue| queue.capacity() == queue.max_capacity())
    }

    async fn queued<T, F>(&self, work: F, lazy: bool) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Work {
            work,
            lazy,
            value: None,
            reply,
        });
        let queue = self
            .queue
            .as_ref()
            .ok_or_else(|| gone(self.place.to_string()))?;
        queue
            .send(job)
            .await
            .map_err(|_| gone(self.place.to_string()))?;
        answer.await.map_err(|_| gone(self.place.to_string()))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(place = &*self.place, "the store's writer thread panicked");
        }
    }
}

/// The thread's own state.
struct Writing {
    connection: Connection,
    reserve: Reserve,
    directory: PathBuf,
    place: Arc<str>,
    counters: Arc<WriterCounters>,
    /// Dropped last: the database is closed before another process may have it.
    _lock: FileLock,
}

/// What one try of a group came to: each job's own outcome, or what ended all of it.
type Attempt = Result<Vec<Result<(), Fault>>, rusqlite::Error>;

impl Writing {
    fn run(mut self, timer: &Runtime, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
        let mut group: Vec<Box<dyn Job>> = Vec::with_capacity(GROUP);
        while let Some(first) = jobs.blocking_recv() {
            let mut urgent = !first.is_lazy();
            group.push(first);
            let until = Instant::now() + LAZY;
            while group.len() < GROUP {
                let next = match jobs.try_recv() {
                    Ok(job) => Some(job),
                    Err(_) if urgent => None,
                    // `None`: it is time, or there will be no more.
                    Err(_) => timer
                        .block_on(async { timeout_at(until, jobs.recv()).await })
                        .unwrap_or(None),
                };
                let Some(job) = next else {
                    break;
                };
                urgent |= !job.is_lazy();
                group.push(job);
            }
            self.write(&mut group);
            self.reserve.restore();
        }
    }

    fn write(&mut self, group: &mut Vec<Box<dyn Job>>) {
        let mut attempt = self.attempt(group);
        if let Err(error) = &attempt
            && self.is_full(error)
            && self.reserve.release()
        {
            attempt = self.attempt(group);
        }
        match attempt {
            Ok(outcomes) => {
                // Counted before anyone is told: who was told sees himself counted.
                let writes = u64::try_from(outcomes.len()).unwrap_or(u64::MAX);
                self.counters.transactions.fetch_add(1, Ordering::Relaxed);
                self.counters.writes.fetch_add(writes, Ordering::Relaxed);
                for (job, outcome) in group.drain(..).zip(outcomes) {
                    job.finish(outcome.map_err(|fault| fault.into_store_error(&self.place)));
                }
            }
            Err(error) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                for job in group.drain(..) {
                    job.finish(Err(self.whole(&error)));
                }
            }
        }
    }

    fn attempt(&self, group: &mut [Box<dyn Job>]) -> Attempt {
        // Savepoints copy each page that is changed: not before they are needed.
        match self.undoing(|| self.as_one(group))? {
            true => Ok(group.iter().map(|_| Ok(())).collect()),
            false => self.undoing(|| self.each_by_itself(group)),
        }
    }

    /// Runs a transaction. SQLite has rolled back by itself after some errors, and not after others.
    fn undoing<T>(
        &self,
        transaction: impl FnOnce() -> Result<T, rusqlite::Error>,
    ) -> Result<T, rusqlite::Error> {
        let result = transaction();
        if result.is_err()
            && !self.connection.is_autocommit()
            && let Err(error) = self.statement("ROLLBACK")
        {
            tracing::error!(place = &*self.place, %error, "a failed transaction was not undone");
        }
        result
    }

    /// `false`: a job fails for its data, and nothing was done.
    fn as_one(&self, group: &mut [Box<dyn Job>]) -> Result<bool, rusqlite::Error> {
        self.statement("BEGIN IMMEDIATE")?;
        for job in group {
            match job.run(&self.connection) {
                Ok(()) => {}
                Err(Fault::Sql(error)) if !fault::is_data(&error) => return Err(error),
                Err(_) => {
                    if !self.connection.is_autocommit() {
                        self.statement("ROLLBACK")?;
                    }
                    return Ok(false);
                }
            }
        }
        self.statement("COMMIT")?;
        Ok(true)
    }

    fn each_by_itself(
        &self,
        group: &mut [Box<dyn Job>],
    ) -> Result<Vec<Result<(), Fault>>, rusqlite::Error> {
        let mut outcomes = Vec::with_capacity(group.len());
        self.statement("BEGIN IMMEDIATE")?;
        for job in group {
            self.statement("SAVEPOINT job")?;
            let outcome = job.run(&self.connection);
            match outcome {
                Ok(()) => {}
                Err(Fault::Sql(error)) if !fault::is_data(&error) => return Err(error),
                Err(_) => self.statement("ROLLBACK TO job")?,
            }
            self.statement("RELEASE job")?;
            outcomes.push(outcome);
        }
        self.statement("COMMIT")?;
        Ok(outcomes)
    }

    fn statement(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// A disk that is full shows as an IO error where the file is mapped or has to be extended.
    fn is_full(&self, error: &rusqlite::Error) -> bool {
        fault::is_full(error)
            || (error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
                && reserve::free_bytes(&self.directory).is_some_and(|free| free < FULL_BELOW_BYTES))
    }

    fn whole(&self, error: &rusqlite::Error) -> StoreError {
        if self.is_full(error) {
            return StoreError::Full {
                place: self.place.to_string(),
            };
        }
        StoreError::Unavailable {
            place: self.place.to_string(),
            reason: error.to_string(),
        }
    }
}
