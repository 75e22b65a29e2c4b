//! The customers' server: answers, fails, resets, hangs and is slow as it is told, and has the ledger
//! write down what came.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use crate::call::{STEPS, mixed, number_of};
use crate::client::{field, find};
use crate::ledger::{Fault, Ledger, Request, Slot};
use crate::report::Report;

const ACKNOWLEDGED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops";
/// Of a webhook request.
const LONGEST: usize = 64 * 1024;

/// How endpoints behave, in permille of requests. What is left is acknowledged at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moods {
    pub(crate) fails: u64,
    pub(crate) resets: u64,
    pub(crate) hangs: u64,
    pub(crate) slow: u64,
    /// How long a slow answer takes, at most.
    pub(crate) slowest: Duration,
    /// From this attempt of an event on, it is acknowledged.
    pub(crate) last_attempt: u16,
    /// Accounts below this number never answer.
    pub(crate) hung: u16,
}

enum Mood {
    Acknowledges,
    Fails,
    Resets,
    Hangs,
    Slow(Duration),
}

/// A summary's or status event's arrival at an account that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) slot: Slot,
    pub(crate) at: Instant,
}

/// A running receiver.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    ledger: Arc<Ledger>,
    moods: Moods,
    seed: u64,
    healed: AtomicBool,
    open: AtomicUsize,
    /// Requests that were failed, reset, left without an answer and answered late, as accounts do that are not hung.
    drawn: [AtomicU64; 4],
    /// Requests that get no answer, by account and the number of its URL.
    hanging: Mutex<BTreeMap<(u16, u32), usize>>,
    watched: Option<(u16, mpsc::Sender<Seen>)>,
}

impl Receiver {
    /// Listens on a free port of the loopback. `watched`: an account whose arrivals are told.
    pub(crate) async fn start(
        ledger: Arc<Ledger>,
        moods: Moods,
        seed: u64,
        watched: Option<(u16, mpsc::Sender<Seen>)>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            ledger,
            moods,
            seed,
            healed: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            drawn: Default::default(),
            hanging: Mutex::default(),
            watched,
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// The URL of an account's webhook.
    pub(crate) fn url(&self, account: u16) -> String {
        format!("http://{}/{account}", self.address)
    }

    /// Another that leads to the same, for each number.
    pub(crate) fn url_again(&self, account: u16, number: u32) -> String {
        format!("{}/{number}", self.url(account))
    }

    /// From now on all is acknowledged, but at those that never answer.
    pub(crate) fn heal(&self) {
        self.shared.healed.store(true, Ordering::Relaxed);
    }

    /// Connections.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Says how it was unkind, and promises that it was in each way.
    pub(crate) fn tell(&self, report: &mut Report) {
        let drawn = self.shared.drawn.each_ref();
        let drawn = drawn.map(|it| it.load(Ordering::Relaxed));
        let [failed, reset, unanswered, late] = drawn;
        report.promise(
            "failed, reset, without answer, late",
            format!("{failed}, {reset}, {unanswered}, {late}"),
            "some of each",
            drawn.iter().all(|count| *count > 0),
        );
    }

    /// Accounts with requests that get no answer, at their URLs of this number; 0: at the first ones.
    pub(crate) fn hanging(&self, number: u32) -> usize {
        let hanging = self.shared.hanging();
        let of_number = hanging.iter().filter(|((_, of), _)| *of == number);
        of_number.filter(|(_, count)| **count > 0).count()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        shared.open.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(async move {
            // However it ends: the sender hears of it.
            let _ = serve(stream, &shared).await;
            shared.open.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// Takes requests until the connection ends.
async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4_096);
    loop {
        let Some((head, end)) = read(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        let at = Instant::now();
        let head_text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default());
        let body = buffer.get(head..end).unwrap_or_default();
        let request = match understood(&head_text, body) {
            Ok(request) => request,
            Err(error) => {
                shared
                    .ledger
                    .fault(Fault::Stray, || format!("{error:#}: {head_text}"));
                return Ok(());
            }
        };
        buffer.drain(..end);
        let attempt = shared.ledger.arrived(&request);
        if let Some((account, seen)) = &shared.watched
            && *account == request.account
        {
            let slot = request.slot;
            // Nobody listens between two measurements; what has no room counts as missing.
            let _ = seen.try_send(Seen { slot, at });
        }
        match shared.mood(&request, attempt) {
            Mood::Acknowledges => {}
            Mood::Fails => {
                stream.write_all(FAILED).await?;
                continue;
            }
            Mood::Resets => return SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
            Mood::Hangs => {
                let at = (request.account, request.number);
                *shared.hanging().entry(at).or_default() += 1;
                let ended = stream.read_buf(&mut buffer).await;
                *shared.hanging().entry(at).or_default() -= 1;
                return ended.map(drop);
            }
            Mood::Slow(time) => sleep(time).await,
        }
        // Before it is written: the next event of the session may come at once.
        shared.ledger.acknowledges(request.slot);
        stream.write_all(ACKNOWLEDGED).await?;
    }
}

/// Where the body begins and ends; `None`: the connection ended.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<(usize, usize)>> {
    loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            let head = at + 4;
            let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default());
            let length = field(&text, "content-length").and_then(|text| text.parse::<usize>().ok());
            let end = head + length.unwrap_or_default().min(LONGEST);
            while buffer.len() < end {
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            }
            return Ok(Some((head, end)));
        }
        if buffer.len() > LONGEST || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn understood(head: &str, body: &[u8]) -> anyhow::Result<Request> {
    let path = head.split(' ').nth(1).context("no path")?;
    let mut places = path.split('/').skip(1);
    let account = places.next().context("no account")?.parse()?;
    let number = places.next().map_or(Ok(0), str::parse)?;
    let id = field(head, "webhook-id").context("no webhook-id")?;
    let id = Uuid::parse_str(id)?;
    let body_text = std::str::from_utf8(body)?;
    let session = value(body_text, "\"sessionId\":\"").context("no sessionId")?;
    let session = number_of(Uuid::parse_str(session)?).context("a session of nobody")?;
    let sequence = value(body_text, "\"sequence\":").map(str::parse::<usize>);
    let event = match sequence.transpose()? {
        Some(sequence) => sequence.checked_sub(1).filter(|it| *it < STEPS),
        None => Some(STEPS),
    };
    let event = event.context("a sequence beyond the session")?;
    if event < STEPS {
        let named = value(body_text, "\"eventId\":\"").context("no eventId")?;
        anyhow::ensure!(Uuid::parse_str(named)? == id, "eventId is not webhook-id");
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    Ok(Request {
        slot: Slot { session, event },
        account,
        number,
        id,
        body: hasher.finish(),
        gap: field(head, "webhook-gap") == Some("true"),
    })
}

/// What follows a name, up to a quote, comma or brace.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let from = text.find(name)? + name.len();
    let rest = text.get(from..)?;
    rest.get(..rest.find(['"', ',', '}'])?)
}

impl Shared {
    fn hanging(&self) -> MutexGuard<'_, BTreeMap<(u16, u32), usize>> {
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mood(&self, request: &Request, attempt: u16) -> Mood {
        let moods = &self.moods;
        if request.account < moods.hung {
            return Mood::Hangs;
        }
        if self.healed.load(Ordering::Relaxed) || attempt >= moods.last_attempt {
            return Mood::Acknowledges;
        }
        let Slot { session, event } = request.slot;
        let place = u64::from(session) << 20 | (event as u64) << 16 | u64::from(attempt);
        let drawn = mixed(self.seed ^ mixed(place));
        let mut permille = drawn % 1_000;
        let late = (drawn >> 40) as f64 / (1 << 24) as f64;
        let drawable = [
            (moods.fails, Mood::Fails),
            (moods.resets, Mood::Resets),
            (moods.hangs, Mood::Hangs),
            (moods.slow, Mood::Slow(moods.slowest.mul_f64(late))),
        ];
        for ((share, mood), count) in drawable.into_iter().zip(&self.drawn) {
            if permille < share {
                count.fetch_add(1, Ordering::Relaxed);
                return mood;
            }
            permille -= share;
        }
        Mood::Acknowledges
    }
}
