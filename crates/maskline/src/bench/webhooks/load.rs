//! The load of a measurement of deliveries: status updates of many calls by HTTP, each connection a
//! thread that waits for its answers.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::receiver::{Book, MOST_STEPS};
use super::session_id;

/// What is reported of each call, in this order: leg, status, what else the update says.
const STEPS: [(char, &str, &str); 7] = [
    ('a', "CALL_RECEIVED", ""),
    ('b', "CALL_INITIATED", ""),
    ('b', "CALL_UPDATED", r#","eventData":{"update":"RINGING"}"#),
    ('b', "CALL_CONNECTED", ""),
    ('a', "CALL_CONNECTED", ""),
    ('a', "CALL_DISCONNECTED", ""),
    ('b', "CALL_DISCONNECTED", ""),
];
/// Updates of each call.
pub(super) const UPDATES: u32 = 7;
const _: () = assert!(STEPS.len() == 7 && UPDATES < MOST_STEPS);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How often a request is made anew whose connection was closed.
const TRIES: u32 = 3;

/// Where updates go, and what they look like there.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) address: SocketAddr,
    /// The paths that the sessions take in turn, each with its headers, each line of them ended.
    pub(super) doors: Vec<(String, String)>,
    /// The body of one update, for another sender; `None`: the contract's.
    pub(super) template: Option<String>,
}

impl Api {
    fn update(&self, text: &mut String, run: u32, session: u32, step: u32) {
        let Some((leg, status, more)) = usize::try_from(step).ok().and_then(|it| STEPS.get(it))
        else {
            return;
        };
        let id = session_id(run, session);
        let sequence = step + 1;
        if let Some(template) = &self.template {
            text.push_str(
                &template
                    .replace("{{sessionId}}", &id)
                    .replace("{{sequence}}", &sequence.to_string())
                    .replace("{{status}}", status),
            );
            return;
        }
        let (direction, source, destination) = match leg {
            'a' => ("INBOUND", "+6591234567", "+6531580001"),
            _ => ("OUTBOUND", "+6531580001", "+6598765432"),
        };
        // Writing to a String can't fail.
        let _ = write!(
            text,
            r#"{{"sessionId":"{id}","callId":"{leg}{}","callStatus":"{status}","callDirection":"{direction}","source":"{source}","destination":"{destination}","idempotencyKey":"{run}-{session}-{step}"{more}}}"#,
            id.get(1..).unwrap_or_default(),
        );
    }
}

/// How much is posted, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) connections: u32,
    pub(super) sessions: u32,
    /// Updates of one request, each of another call.
    pub(super) per_post: u32,
    /// Posted and not yet delivered: no more than about so many.
    pub(super) most_outstanding: u64,
    /// Updates per second; `None`: as fast as they are taken.
    pub(super) rate: Option<u32>,
}

/// What the load did.
#[derive(Debug, Default)]
pub(super) struct Posted {
    /// Updates that were accepted.
    pub(super) accepted: AtomicU64,
    /// Requests that were put off with 429.
    pub(super) put_off: AtomicU64,
    /// When each update was due, in microseconds of the book, by session and step.
    due: Vec<AtomicU32>,
}

impl Posted {
    pub(super) fn new(sessions: u32) -> Self {
        let updates = usize::try_from(sessions * UPDATES).unwrap_or(0);
        Self {
            due: (0..updates).map(|_| AtomicU32::new(0)).collect(),
            ..Self::default()
        }
    }

    /// From when an update's request was due until its webhook was there, in microseconds, sorted; what
    /// never came is left out.
    pub(super) fn latencies(&self, book: &Book) -> Vec<u32> {
        let mut all: Vec<u32> = (0..)
            .zip(&self.due)
            .filter_map(|(update, due)| {
                let came = book.came(update / UPDATES, update % UPDATES + 1)?;
                Some(came.saturating_sub(due.load(Ordering::Relaxed)))
            })
            .collect();
        all.sort_unstable();
        all
    }
}

/// Posts all of it, and returns when the last update is accepted.
pub(super) fn run(api: &Api, plan: &Plan, book: &Book, posted: &Posted) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.connections)
            .map(|number| scope.spawn(move || Worker::new(api, plan, book, posted, number)?.run()))
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread of the load ended badly"),
            }
        }
        Ok(())
    })
}

/// One connection, with the sessions that are its.
struct Worker<'a> {
    api: &'a Api,
    plan: &'a Plan,
    book: &'a Book,
    posted: &'a Posted,
    number: u32,
    stream: TcpStream,
    /// Requests so far.
    requests: u32,
}

impl<'a> Worker<'a> {
    fn new(
        api: &'a Api,
        plan: &'a Plan,
        book: &'a Book,
        posted: &'a Posted,
        number: u32,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            api,
            plan,
            book,
            posted,
            number,
            stream: connect(api.address)?,
            requests: 0,
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let waves = self.plan.sessions / self.plan.per_post;
        let own = (self.number..waves).step_by(usize::try_from(self.plan.connections)?);
        let mut body = String::new();
        for wave in own {
            let sessions = wave * self.plan.per_post..(wave + 1) * self.plan.per_post;
            for step in 0..UPDATES {
                self.wait_for_room();
                let due = self.wait_until_due();
                body.clear();
                if self.plan.per_post > 1 {
                    body.push('[');
                }
                for session in sessions.clone() {
                    if session > sessions.start {
                        body.push(',');
                    }
                    self.api.update(&mut body, self.book.run(), session, step);
                    let update = usize::try_from(session * UPDATES + step)?;
                    if let Some(at) = self.posted.due.get(update) {
                        at.store(due, Ordering::Relaxed);
                    }
                }
                if self.plan.per_post > 1 {
                    body.push(']');
                }
                self.post(wave, &body)?;
                let accepted = u64::from(self.plan.per_post);
                self.posted.accepted.fetch_add(accepted, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn wait_for_room(&self) {
        let outstanding = || {
            let delivered = self.book.events.load(Ordering::Relaxed);
            let accepted = self.posted.accepted.load(Ordering::Relaxed);
            accepted.saturating_sub(delivered)
        };
        let began = Instant::now();
        while outstanding() > self.plan.most_outstanding && began.elapsed() < ANSWER {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the next request is due, and says when that was: a request that is late because
    /// the one before it took long counts from when it should have been made.
    fn wait_until_due(&mut self) -> u32 {
        let Some(rate) = self.plan.rate else {
            return self.book.now();
        };
        let turn = u64::from(self.requests * self.plan.connections + self.number);
        self.requests += 1;
        let due = turn * 1_000_000 * u64::from(self.plan.per_post) / u64::from(rate.max(1));
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        let wait = due.saturating_sub(self.book.now());
        std::thread::sleep(Duration::from_micros(u64::from(wait)));
        due
    }

    fn post(&mut self, wave: u32, body: &str) -> anyhow::Result<()> {
        let doors = u32::try_from(self.api.doors.len())?.max(1);
        let door = usize::try_from(wave % doors)?;
        let Some((path, headers)) = self.api.doors.get(door) else {
            bail!("there is nowhere to post to");
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            self.api.address,
            body.len()
        );
        let mut tries = 0;
        loop {
            let (status, answer) = match exchange(&mut self.stream, request.as_bytes()) {
                Ok(answer) => answer,
                // A server closes a connection when it has had it for long; keys make a repetition safe.
                Err(error) if tries < TRIES => {
                    tries += 1;
                    self.stream = connect(self.api.address).context(error)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if status == 429 {
                self.posted.put_off.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            ensure!(
                (200..300).contains(&status),
                "{path} answered {status}: {}",
                answer.chars().take(300).collect::<String>()
            );
            return Ok(());
        }
    }
}

pub(super) fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Sends a request and reads the answer: its status and body.
pub(super) fn exchange(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<(u16, String)> {
    stream.write_all(request)?;
    let mut buffer = Vec::with_capacity(4 << 10);
    let mut chunk = [0; 16 << 10];
    loop {
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the connection was closed before an answer");
        buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        ensure!(buffer.len() < 1 << 20, "the answer is above 1 MB");
        let text = String::from_utf8_lossy(&buffer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|it| it.parse().ok())
            .context("the answer is not HTTP")?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        let whole = match length {
            Some(length) => body.len() >= length,
            // Chunks: the last one is empty. (204: nothing follows.)
            None => status == 204 || body.ends_with("0\r\n\r\n"),
        };
        if whole {
            return Ok((status, body.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_update_is_the_contract_s_or_what_the_template_says() {
        let mut api = Api {
            address: "127.0.0.1:1".parse().unwrap(),
            doors: Vec::new(),
            template: None,
        };
        let mut text = String::new();
        api.update(&mut text, 2, 9, 2);
        let update: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(update["callStatus"], "CALL_UPDATED");
        assert_eq!(update["eventData"]["update"], "RINGING");
        let call: uuid::Uuid = update["callId"].as_str().unwrap().parse().unwrap();
        assert_ne!(call.to_string(), update["sessionId"].as_str().unwrap());
        api.template =
            Some(r#"{"n":{{sequence}},"s":"{{sessionId}}","t":"{{status}}"}"#.to_owned());
        text.clear();
        api.update(&mut text, 2, 9, 0);
        let id = session_id(2, 9);
        assert_eq!(text, format!(r#"{{"n":1,"s":"{id}","t":"CALL_RECEIVED"}}"#));
    }
}
