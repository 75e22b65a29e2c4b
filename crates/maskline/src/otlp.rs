//! Traces for an OpenTelemetry collector (OTLP over HTTP, JSON): a bounded queue and a thread of its
//! own. Nothing waits for it; what does not fit, or what the collector does not take, is counted.

mod spans;

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maskline_store::EventRow;
use maskline_trace::Story;
use maskline_webhook::{AttemptReport, DeliveryObserver};

use self::spans::Span;
use crate::config::OtlpConfig;

/// Most batches of spans that wait: a call's, or an attempt's.
const QUEUE: usize = 8_192;
/// Most spans of one export.
const EXPORT: usize = 1_000;
/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take for each step of an exchange.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before a second and a third try.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Most bytes of an answer that are read.
const ANSWER_BYTES: u64 = 16 << 10;

/// The way in. What is given in after the end is dropped.
#[derive(Debug)]
pub(crate) struct Otlp {
    queue: Mutex<Option<SyncSender<Vec<Span>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Otlp {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is none to be had.
    pub(crate) fn start(config: OtlpConfig) -> std::io::Result<Self> {
        let (queue, spans) = sync_channel(QUEUE);
        let exporter = Exporter {
            config,
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || exporter.run(&spans))?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Exports a call that has ended.
    pub(crate) fn call(&self, story: &Story) {
        self.put(spans::call(story));
    }

    fn put(&self, spans: Vec<Span>) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else {
            return;
        };
        match queue.try_send(spans) {
            Ok(()) => {}
            Err(TrySendError::Full(spans) | TrySendError::Disconnected(spans)) => {
                dropped(spans.len());
            }
        }
    }

    /// Exports what waits, and ends. Blocks, at most for one export's tries.
    pub(crate) fn stop(&self) {
        drop(
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // Fails only when the thread panicked.
            let _ = thread.join();
        }
    }
}

impl DeliveryObserver for Otlp {
    fn attempted(&self, event: &EventRow, attempt: &AttemptReport) {
        self.put(spans::delivery(event, attempt));
    }
}

/// Several observers as one.
pub(crate) struct Observers(pub(crate) Vec<Arc<dyn DeliveryObserver>>);

impl DeliveryObserver for Observers {
    fn attempted(&self, event: &EventRow, attempt: &AttemptReport) {
        for observer in &self.0 {
            observer.attempted(event, attempt);
        }
    }
}

fn dropped(spans: usize) {
    let spans = u64::try_from(spans).unwrap_or(0);
    metrics::counter!("maskline_otlp_spans_dropped_total").increment(spans);
}

struct Exporter {
    config: OtlpConfig,
    failing: bool,
}

impl Exporter {
    fn run(mut self, queue: &Receiver<Vec<Span>>) {
        let mut open = true;
        while open {
            let Ok(mut spans) = queue.recv() else {
                return;
            };
            let until = Instant::now() + GATHER;
            while spans.len() < EXPORT {
                let left = until.saturating_duration_since(Instant::now());
                match queue.recv_timeout(left) {
                    Ok(more) => spans.extend(more),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => {
                        open = false;
                        break;
                    }
                }
            }
            self.export(&spans, open);
        }
    }

    fn export(&mut self, spans: &[Span], patient: bool) {
        let body = spans::export(&self.config.service_name, spans).to_string();
        let mut pauses = PAUSES.iter().filter(|_| patient);
        loop {
            match self.post(&body) {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("the collector of traces takes them again");
                    }
                    let count = u64::try_from(spans.len()).unwrap_or(0);
                    metrics::counter!("maskline_otlp_spans_total").increment(count);
                    return;
                }
                Err(Fault { reason, passing }) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        let place = &self.config.authority;
                        tracing::warn!(%place, reason, "the collector of traces does not take them");
                    }
                    match pauses.next().filter(|_| passing) {
                        Some(pause) => std::thread::sleep(*pause),
                        None => return dropped(spans.len()),
                    }
                }
            }
        }
    }

    /// One POST over a connection of its own; HTTP/1.0, so that the answer ends with it.
    fn post(&self, body: &str) -> Result<(), Fault> {
        let OtlpConfig {
            authority, path, ..
        } = &self.config;
        let passing = |error: std::io::Error| Fault {
            reason: error.kind().to_string(),
            passing: true,
        };
        let address = authority
            .to_socket_addrs()
            .map_err(passing)?
            .next()
            .ok_or_else(|| Fault {
                reason: "the name has no address".to_owned(),
                passing: true,
            })?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(passing)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(passing)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(passing)?;
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(passing)?;
        let mut answer = Vec::new();
        let read = stream.take(ANSWER_BYTES).read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok());
        match status {
            Some(200..=299) => Ok(()),
            // OTLP/HTTP: those that a client may try again.
            Some(status @ (429 | 502 | 503 | 504)) => Err(Fault {
                reason: format!("it answered {status}"),
                passing: true,
            }),
            Some(status) => Err(Fault {
                reason: format!("it answered {status}"),
                passing: false,
            }),
            None => Err(Fault {
                reason: read.map_or_else(
                    |error| error.kind().to_string(),
                    |_| "its answer is not HTTP".to_owned(),
                ),
                passing: true,
            }),
        }
    }
}

struct Fault {
    reason: String,
    passing: bool,
}
