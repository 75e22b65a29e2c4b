//! What the shards tell of their calls, written down beside the calls' way: a bounded queue and one
//! thread with a file of its own. Nothing waits for it; what does not fit is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maskline_events::{Party, Timestamp};
use maskline_net::TraceSink;
use maskline_store::{
    SqliteLocation, StoreError, TraceBatch, TraceFile, TraceHead, TraceRetention,
};
use maskline_switch::TraceEntry;
use maskline_switch::trace::{Step, TraceEvent, TracedSide};
use maskline_trace::Shown;
use uuid::Uuid;

use crate::config::TraceConfig;
use crate::node::wall;
use crate::otlp::Otlp;

/// Most entries that wait to be written.
const QUEUE: usize = 8_192;
/// How long entries are gathered. Nobody wakes the thread for one: a call tells dozens.
const GATHER: Duration = Duration::from_millis(500);
/// With so many waiting the thread is woken.
const MANY: usize = 2_048;
/// How long after its end a call is exported: its last messages are told then.
const EXPORT_AFTER: Duration = Duration::from_secs(1);
/// Most calls that wait for that.
const EXPORTS: usize = 10_000;
/// Between two looks at what is too old or too much.
const CLEAN: Duration = Duration::from_secs(5);

/// What waits for the thread.
#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<TraceEntry>,
    stop: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There are many, or it is time to stop.
    urgent: Condvar,
}

impl Queue {
    /// Adds an entry; `false`: there is no room.
    fn put(&self, entry: TraceEntry) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.entries.len() >= QUEUE || waiting.stop {
            return false;
        }
        waiting.entries.push(entry);
        if waiting.entries.len() == MANY {
            self.urgent.notify_one();
        }
        true
    }

    fn stop(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.stop = true;
        self.urgent.notify_one();
    }

    /// What came within [`GATHER`], or [`MANY`] before, and whether to stop after it.
    fn gather(&self) -> (Vec<TraceEntry>, bool) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut waiting, _timeout) = self
            .urgent
            .wait_timeout_while(waiting, GATHER, |it| it.entries.len() < MANY && !it.stop)
            .unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut waiting.entries), waiting.stop)
    }
}

/// The writer.
#[derive(Debug)]
pub(crate) struct Traces {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    file: Arc<TraceFile>,
}

impl Traces {
    /// Opens the file and starts the thread. `None`: it can't be used, which is logged; calls go on
    /// without.
    pub(crate) fn start(
        location: &SqliteLocation,
        run: u64,
        keep: TraceConfig,
        otlp: Option<Arc<Otlp>>,
    ) -> Option<Self> {
        let started = TraceFile::open(location, run)
            .map_err(|error| error.to_string())
            .and_then(|file| {
                let file = Arc::new(file);
                let queue = Arc::new(Queue::default());
                let gathered = Arc::clone(&queue);
                let writer = Writer {
                    file: Arc::clone(&file),
                    keep,
                    failing: AtomicBool::new(false),
                    otlp,
                };
                let thread = std::thread::Builder::new()
                    .name("traces".to_owned())
                    .spawn(move || writer.run(&gathered))
                    .map_err(|error| error.to_string())?;
                Ok(Self {
                    queue,
                    thread: Mutex::new(Some(thread)),
                    file,
                })
            });
        match started {
            Ok(traces) => Some(traces),
            Err(error) => {
                failed();
                tracing::error!(error, "calls are not traced: the trace file can't be used");
                None
            }
        }
    }

    /// The file, to read.
    pub(crate) fn file(&self) -> Arc<TraceFile> {
        Arc::clone(&self.file)
    }

    /// Writes what is queued and ends. Blocks.
    pub(crate) fn stop(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            self.queue.stop();
            // Fails only when the thread panicked.
            let _ = thread.join();
        }
    }
}

impl TraceSink for Traces {
    fn take(&self, entry: Box<TraceEntry>) {
        if !self.queue.put(*entry) {
            metrics::counter!("maskline_trace_entries_dropped_total").increment(1);
        }
    }
}

fn failed() {
    metrics::counter!("maskline_trace_failures_total").increment(1);
}

struct Writer {
    file: Arc<TraceFile>,
    keep: TraceConfig,
    failing: AtomicBool,
    /// Takes calls that have ended.
    otlp: Option<Arc<Otlp>>,
}

impl Writer {
    fn run(&self, queue: &Queue) {
        let mut cleaned = Instant::now();
        let mut ended = VecDeque::new();
        loop {
            let (entries, stop) = queue.gather();
            if !entries.is_empty() {
                let written = u64::try_from(entries.len()).unwrap_or(0);
                let batches = batches(entries);
                if self.tried(self.file.append(&batches)).is_some() {
                    metrics::counter!("maskline_trace_entries_total").increment(written);
                }
                if self.otlp.is_some() {
                    let over = batches.iter().filter(|it| it.known.ended.is_some());
                    ended.extend(over.map(|it| (Instant::now(), it.session_id)));
                }
            }
            self.export(&mut ended, stop);
            if stop {
                return;
            }
            if cleaned.elapsed() >= CLEAN {
                let keep = TraceRetention {
                    before: wall().plus_ms(self.keep.keep_ms.saturating_neg()),
                    max_bytes: self.keep.max_bytes,
                };
                let more = self.tried(self.file.clean(keep)).unwrap_or(false);
                // While there is more to forget, the next turn does the next step.
                if !more {
                    cleaned = Instant::now();
                }
            }
        }
    }

    /// Exports calls whose last entries are written by now, or all of them.
    fn export(&self, ended: &mut VecDeque<(Instant, Uuid)>, all: bool) {
        let Some(otlp) = &self.otlp else {
            return;
        };
        while let Some((at, session)) = ended.front().copied()
            && (all || ended.len() > EXPORTS || at.elapsed() >= EXPORT_AFTER)
        {
            ended.pop_front();
            let Some(parts) = self.tried(self.file.entries(session)) else {
                continue;
            };
            let parts = parts.iter();
            let entries: Vec<_> = parts
                .flat_map(|(run, blob)| maskline_trace::decode(*run, blob))
                .collect();
            if let Some(story) = maskline_trace::tell(session, &entries, Shown::Redacted) {
                otlp.call(&story);
            }
        }
    }

    /// Counts a failure and logs the first of a row.
    fn tried<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(done) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("calls are traced again");
                }
                Some(done)
            }
            Err(error) => {
                failed();
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "calls are not traced for now; they go on unhurt");
                }
                None
            }
        }
    }
}

fn batches(entries: Vec<TraceEntry>) -> Vec<TraceBatch> {
    let mut sessions: BTreeMap<Uuid, Vec<TraceEntry>> = BTreeMap::new();
    for entry in entries {
        sessions.entry(entry.session_id).or_default().push(entry);
    }
    let batch = |(session_id, entries): (Uuid, Vec<TraceEntry>)| TraceBatch {
        session_id,
        at: entries
            .first()
            .map_or(Timestamp::default(), |entry| entry.at.wall),
        known: known(&entries),
        entries: maskline_trace::encode(&entries),
    };
    sessions.into_iter().map(batch).collect()
}

/// What some entries tell of their session.
fn known(entries: &[TraceEntry]) -> TraceHead {
    let mut head = TraceHead::default();
    let number = |party: &Party| party.number().map(|it| it.as_str().to_owned());
    for entry in entries {
        let TraceEvent::Step(step) = &entry.what else {
            continue;
        };
        if let Step::Leg {
            side,
            source,
            destination,
            sub_account_id,
            ..
        } = step
        {
            head.sub_account_id = Some(sub_account_id.clone());
            match side {
                TracedSide::A => {
                    head.caller = number(source);
                    head.called = number(destination);
                }
                TracedSide::B => head.callee = number(destination),
            }
        }
        if let Step::Ended { status, error } = step {
            let word = serde_json::to_value(status).ok();
            head.ended = Some(entry.at.wall);
            head.status = word.and_then(|word| word.as_str().map(str::to_owned));
            head.error_code = error.as_ref().map(|error| error.error_code.code());
        }
    }
    head
}
