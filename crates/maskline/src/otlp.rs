//! Traces for an OpenTelemetry collector (OTLP over HTTP, JSON): a bounded queue and a thread of its
//! own. Nothing waits for it; what does not fit, or what the collector does not take, is counted.

mod spans;

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
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
/// How long the collector may take for an exchange, and for all that waits at the end.
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
    end: Arc<End>,
}

/// Until when the thread may go on.
#[derive(Debug, Default)]
struct End {
    at: Mutex<Option<Instant>>,
    said: Condvar,
}

impl End {
    fn say(&self, at: Instant) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        self.said.notify_all();
    }

    fn get(&self) -> Option<Instant> {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until an end is said.
    fn pause(&self, time: Duration) {
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.said.wait_timeout_while(at, time, |at| at.is_none());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Otlp {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is none to be had.
    pub(crate) fn start(config: OtlpConfig) -> io::Result<Self> {
        let (queue, spans) = sync_channel(QUEUE);
        let end = Arc::new(End::default());
        let exporter = Exporter {
            config,
            failing: false,
            end: Arc::clone(&end),
        };
        let thread = std::thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || exporter.run(&spans))?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            end,
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

    /// Exports what waits, and ends. Blocks for [`PATIENCE`] at most, and counts what is left then.
    pub(crate) fn stop(&self) {
        self.end.say(Instant::now() + PATIENCE);
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
    end: Arc<End>,
}

impl Exporter {
    fn run(mut self, queue: &Receiver<Vec<Span>>) {
        while let Ok(mut spans) = queue.recv() {
            let until = Instant::now() + GATHER;
            while spans.len() < EXPORT {
                let left = until.saturating_duration_since(Instant::now());
                match queue.recv_timeout(left) {
                    Ok(more) => spans.extend(more),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            if self.end.get().is_some_and(|at| at <= Instant::now()) {
                dropped(spans.len());
            } else {
                self.export(&spans);
            }
        }
    }

    fn export(&mut self, spans: &[Span]) {
        let body = spans::export(&self.config.service_name, spans).to_string();
        let mut pauses = PAUSES.iter();
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
                    let ends = self.end.get().is_some();
                    match pauses.next().filter(|_| passing && !ends) {
                        Some(pause) => self.end.pause(*pause),
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
        let passing = |error: io::Error| Fault {
            reason: error.kind().to_string(),
            passing: true,
        };
        let until = Instant::now() + PATIENCE;
        let until = self.end.get().map_or(until, |end| end.min(until));
        let mut stream = Deadlined::connect(authority, until).map_err(passing)?;
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

/// A connection with one deadline for all that is done over it.
struct Deadlined {
    stream: TcpStream,
    until: Instant,
}

impl Deadlined {
    /// To the first address of the name that answers.
    fn connect(authority: &str, until: Instant) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(until)?) {
                Ok(stream) => return Ok(Self { stream, until }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The time to a deadline, or that it has passed.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

impl Read for Deadlined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(buffer)
    }
}

impl Write for Deadlined {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.until)?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

struct Fault {
    reason: String,
    passing: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_collector_that_trickles_costs_an_exchange_its_deadline_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let trickling = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // A byte comes before any time between two of them is up, until nobody reads.
            while stream.write_all(b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let until = Instant::now() + Duration::from_millis(300);
        let mut stream = Deadlined::connect(&at.to_string(), until).unwrap();
        let read = stream.read_to_end(&mut Vec::new());
        assert!(Instant::now() >= until);
        let kind = read.unwrap_err().kind();
        assert!(matches!(
            kind,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ));
        drop(stream);
        trickling.join().unwrap();
    }

    #[test]
    fn an_end_ends_a_pause() {
        let end = Arc::new(End::default());
        let said = Arc::clone(&end);
        let saying = std::thread::spawn(move || said.say(Instant::now()));
        // Far longer than the test may take.
        end.pause(Duration::from_secs(3_600));
        saying.join().unwrap();
        assert!(end.get().is_some());
    }
}
