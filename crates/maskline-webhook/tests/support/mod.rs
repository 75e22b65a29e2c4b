//! A webhook receiver that misbehaves on request, over raw TCP, and a real store.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing
)]

pub mod certificates;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maskline_events::{Timestamp, WebhookType};
use maskline_store::{
    Deliveries, EndpointSettings, EventRow, JournalBatch, JournalEntry, MasterKey, NewSubAccount,
    NewWebhook, Outcome, SqliteLocation, SqliteOptions, SqliteStore, Store, StoredEvent,
    WebhookSettings,
};
use maskline_webhook::{EgressClient, EgressPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Every event of a session, each of which can be read.
pub async fn events_of(store: &SqliteStore, session: Uuid) -> Vec<(EventRow, Outcome)> {
    whole(store.session(session).await.unwrap())
}

/// Everything that is pending, by sub-account, session and ordinal.
pub async fn pending_events(store: &SqliteStore) -> Vec<(EventRow, Outcome)> {
    let mut events = Vec::new();
    for owner in store.pending_owners().await.unwrap() {
        events.extend(whole(
            store.pending(&owner, None, 10_000).await.unwrap().events,
        ));
    }
    events
}

fn whole(events: Vec<StoredEvent>) -> Vec<(EventRow, Outcome)> {
    let whole = |event| match event {
        StoredEvent::Whole(event, outcome) => (event, outcome),
        StoredEvent::Broken { reason, .. } => panic!("{reason}"),
    };
    events.into_iter().map(whole).collect()
}

/// How the receiver answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This status, an empty body.
    Status(u16),
    /// This status with one more header.
    Header(u16, &'static str, String),
    /// 200 with this body.
    Body(String),
    /// After a while.
    Late(Duration, u16),
    /// When this has a permit, which it takes.
    Held(Arc<Semaphore>, u16),
    /// Nothing, ever.
    Stall,
    /// A 200 that promises a body and stops.
    StallInBody,
    /// A 200 whose body comes byte by byte without an end.
    Drip,
    /// A 200 with a body of so many bytes, as fast as they go.
    Flood(u64),
    /// A 200 that promises more than it sends, then closes.
    CutOff,
    /// A reset before any answer.
    Reset,
    /// A head that never ends.
    EndlessHead,
    /// No HTTP.
    Garbage,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub path: String,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn id(&self) -> Uuid {
        self.header("webhook-id").parse().expect("a webhook-id")
    }

    /// Session and ordinal of an event that [`event`] made.
    pub fn key(&self) -> (Uuid, u64) {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let session = body["session"].as_str().unwrap().parse().unwrap();
        (session, body["ordinal"].as_u64().unwrap())
    }

    pub fn is_summary(&self) -> bool {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["kind"] == "VSS"
    }
}

type Script = dyn Fn(&Received, usize) -> Reply + Send + Sync;

/// A receiver on loopback; ends with its test.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    pub connections: Arc<AtomicUsize>,
    /// Bytes of bodies that were written into sockets.
    pub written: Arc<AtomicU64>,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// `script` is asked with each request and its number, from 0.
    pub async fn start(script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}/hook", listener.local_addr().unwrap()),
            connections: Arc::default(),
            written: Arc::default(),
            requests: Arc::default(),
        };
        let (ours, script): (_, Arc<Script>) = (receiver.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                ours.connections.fetch_add(1, Ordering::SeqCst);
                let (ours, script) = (ours.clone(), Arc::clone(&script));
                tokio::spawn(async move { ours.serve(stream, &script).await });
            }
        });
        receiver
    }

    pub fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }

    async fn serve(&self, mut stream: TcpStream, script: &Arc<Script>) {
        stream.set_nodelay(true).unwrap();
        while let Some(request) = read_request(&mut stream).await {
            let number = {
                let mut requests = self.requests.lock().unwrap();
                requests.push(request.clone());
                requests.len() - 1
            };
            let reply = script(&request, number);
            if self.answer(&mut stream, reply).await.is_none() {
                return;
            }
        }
    }

    /// `None`: the connection is of no more use.
    async fn answer(&self, stream: &mut TcpStream, reply: Reply) -> Option<()> {
        match reply {
            Reply::Status(status) => plain(stream, status, "", "").await,
            Reply::Header(status, name, value) => {
                plain(stream, status, &format!("{name}: {value}\r\n"), "").await
            }
            Reply::Body(body) => plain(stream, 200, "", &body).await,
            Reply::Late(delay, status) => {
                sleep(delay).await;
                plain(stream, status, "", "").await
            }
            Reply::Held(go_on, status) => {
                go_on.acquire().await.unwrap().forget();
                plain(stream, status, "", "").await
            }
            Reply::Stall => std::future::pending().await,
            Reply::StallInBody => {
                say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await?;
                std::future::pending().await
            }
            Reply::Drip => {
                say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
                loop {
                    say(stream, " ").await?;
                    sleep(Duration::from_millis(20)).await;
                }
            }
            Reply::Flood(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
                say(stream, &head).await?;
                let block = vec![b' '; 64 * 1024];
                let mut left = bytes;
                while left > 0 {
                    let count = left.min(block.len() as u64);
                    stream.write_all(&block[..count as usize]).await.ok()?;
                    self.written.fetch_add(count, Ordering::SeqCst);
                    left -= count;
                }
                Some(())
            }
            Reply::CutOff => {
                say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await?;
                None
            }
            Reply::Reset => {
                // Closing with a linger of zero sends RST instead of FIN.
                stream.set_zero_linger().unwrap();
                None
            }
            Reply::EndlessHead => {
                say(stream, "HTTP/1.1 200 OK\r\n").await?;
                loop {
                    say(stream, "x-more: and more and more and more\r\n").await?;
                }
            }
            Reply::Garbage => {
                say(stream, "SSH-2.0-nothing to see here\r\n\r\n").await?;
                None
            }
        }
    }
}

async fn say(stream: &mut TcpStream, text: &str) -> Option<()> {
    stream.write_all(text.as_bytes()).await.ok()
}

async fn plain(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> Option<()> {
    let length = body.len();
    let text =
        format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    say(stream, &text).await
}

async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(end);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received {
        headers,
        path,
        body,
        at: Instant::now(),
    })
}

/// A client that may talk to loopback.
pub fn open_client() -> EgressClient {
    let policy = EgressPolicy {
        allow_private_targets: true,
    };
    EgressClient::new(policy, &[]).unwrap()
}

pub fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap())
}

/// A database that can be opened again after its store was dropped.
pub struct Database {
    directory: tempfile::TempDir,
}

impl Database {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn open(&self) -> Arc<SqliteStore> {
        let location = SqliteLocation::File(self.directory.path().join("maskline.db"));
        let key = MasterKey::from_base64(&format!("{}=", "A".repeat(43))).unwrap();
        let options = SqliteOptions {
            reserve_bytes: 0,
            ..SqliteOptions::default()
        };
        Arc::new(SqliteStore::open(&location, &key, options).unwrap())
    }

    /// The store again once the last user of the old one has let go of it.
    pub async fn reopen(&self, old: Arc<SqliteStore>) -> Arc<SqliteStore> {
        let mut old = Some(old);
        until("the old store is let go", || {
            let held = old.take().unwrap();
            match Arc::try_unwrap(held) {
                Ok(store) => {
                    drop(store);
                    true
                }
                Err(held) => {
                    old = Some(held);
                    false
                }
            }
        })
        .await;
        self.open()
    }
}

pub const OWNER: &str = "shop";

pub async fn own(store: &SqliteStore, owner: &str) {
    let sub_account = NewSubAccount {
        sub_account_id: owner.to_owned(),
        countries: Vec::new(),
    };
    store.create_sub_account(sub_account, now()).await.unwrap();
}

/// Sets a webhook and gives its secret, if it is new.
pub async fn hook(
    store: &SqliteStore,
    owner: &str,
    kind: WebhookType,
    url: &str,
) -> Option<String> {
    let webhook = NewWebhook {
        sub_account_id: owner.to_owned(),
        webhook_type: kind,
        url: url.to_owned(),
        http_auth_header: Some("Bearer opensesame".to_owned()),
        enabled: true,
    };
    store.set_webhook(webhook, now()).await.unwrap()
}

/// Changes a webhook's settings in the store, and gives them.
pub async fn set(
    store: &SqliteStore,
    owner: &str,
    kind: WebhookType,
    change: impl Fn(&mut EndpointSettings),
) -> EndpointSettings {
    let read = store.settings(owner, kind).await.unwrap();
    let mut config = read.config.clone();
    change(&mut config.settings);
    let changed = store.replace_settings(owner, kind, read, config, now());
    changed.await.unwrap().unwrap().config.settings
}

/// A store with one sub-account whose status events and summaries go to this URL.
pub async fn store_for(database: &Database, url: &str) -> Arc<SqliteStore> {
    let store = database.open();
    own(&store, OWNER).await;
    hook(&store, OWNER, WebhookType::Vcs, url).await;
    hook(&store, OWNER, WebhookType::Vss, url).await;
    store
}

pub fn event(owner: &str, session: Uuid, ordinal: u64, kind: WebhookType) -> EventRow {
    let body = serde_json::json!({"session": session, "ordinal": ordinal, "kind": kind});
    EventRow {
        event_id: Uuid::from_u128(session.as_u128() << 16 | u128::from(ordinal)),
        session_id: session,
        sub_account_id: owner.to_owned(),
        ordinal,
        webhook_type: kind,
        at: now(),
        body: body.to_string(),
    }
}

/// A session's status events 1 to `count`, and its summary if it is over.
pub fn call(owner: &str, session: u128, count: u64, over: bool) -> Vec<EventRow> {
    let session = Uuid::from_u128(session);
    let mut events: Vec<EventRow> = (1..=count)
        .map(|ordinal| event(owner, session, ordinal, WebhookType::Vcs))
        .collect();
    if over {
        events.push(event(owner, session, count + 1, WebhookType::Vss));
    }
    events
}

pub async fn commit(store: &SqliteStore, events: &[EventRow]) {
    let entries = events
        .chunk_by(|a, b| a.session_id == b.session_id)
        .filter_map(|chunk| {
            let first = chunk.first()?;
            Some(Arc::new(JournalEntry {
                session_id: first.session_id,
                sub_account_id: first.sub_account_id.clone(),
                snapshot: None,
                events: chunk.to_vec(),
            }))
        })
        .collect();
    store.commit(JournalBatch { entries }).await.unwrap();
}

/// Waits for a condition, at most 20 s.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_async(what, || std::future::ready(condition())).await;
}

/// Waits for a condition, at most 20 s.
pub async fn until_async<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
