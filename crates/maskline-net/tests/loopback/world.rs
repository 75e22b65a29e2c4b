//! A node with everything that it needs, and what it wrote.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use maskline_events::{Callflow, EarlyMedia, Msisdn};
use maskline_media::{EngineConfig, MediaEngine};
use maskline_net::{CallflowSource, ListenSpec, NetLimits, NodeConfig, SipNode, TlsConfig};
use maskline_store::{
    CommittedEvents, EventRow, Journal, JournalOptions, SqliteLocation, SqliteOptions, SqliteStore,
    Store, StoredEvent,
};
use maskline_switch::sip::Transport;
use maskline_switch::sip::compose::SentBy;
use maskline_switch::{
    CallflowAnswer, Directory, IdentityRules, Keepalive, Listener, NumberEntry, SwitchConfig,
    Trunk, TrunkTls,
};
use tokio::sync::mpsc;
use uuid::Uuid;

pub const VIRTUAL: &str = "+6531580000";
pub const CALLER: &str = "+6591230001";
pub const CALLEE: &str = "+6591230002";
/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A's carrier.
pub const A: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// B's carrier.
pub const B: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
/// Nobody that we know.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// What the customer's server does.
#[derive(Clone, Copy)]
pub enum Customer {
    Connects,
    Panics,
}

#[async_trait]
impl CallflowSource for Customer {
    async fn ask(&self, sub_account_id: String, _event_id: Uuid, body: String) -> CallflowAnswer {
        assert_eq!(sub_account_id, "acme");
        assert!(body.contains("CALL_RECEIVED"), "{body}");
        match self {
            Self::Connects => {
                let text = serde_json::json!({"callflow": [
                    {"action": "makeCall", "params": {"source": VIRTUAL, "destination": CALLEE}}
                ]});
                CallflowAnswer::Callflow(Callflow::parse(text.to_string().as_bytes()).unwrap())
            }
            Self::Panics => panic!("on purpose"),
        }
    }
}

#[derive(Default)]
struct Written(Mutex<Vec<EventRow>>);

impl CommittedEvents for Written {
    fn committed(&self, events: Vec<EventRow>) {
        self.0.lock().unwrap().extend(events);
    }
}

/// How a node is set up.
pub struct Plan {
    pub outbound: (Transport, SocketAddr),
    pub customer: Customer,
    pub limits: NetLimits,
    pub journal: JournalOptions,
    pub store: Option<Arc<SqliteStore>>,
    pub found: Vec<Vec<u8>>,
    pub max_transactions: usize,
    /// With a server's certificate, there is a TLS listener.
    pub tls: TlsConfig,
    /// Of the one trunk.
    pub trunk_tls: TrunkTls,
    pub identity: IdentityRules,
    pub keepalive: Keepalive,
}

impl Plan {
    /// Calls go out by UDP to this address.
    pub fn to(callee: SocketAddr) -> Self {
        Self {
            outbound: (Transport::Udp, callee),
            customer: Customer::Connects,
            limits: NetLimits::default(),
            journal: JournalOptions::default(),
            store: None,
            found: Vec::new(),
            max_transactions: 10_000,
            tls: TlsConfig::default(),
            trunk_tls: TrunkTls::default(),
            identity: IdentityRules::default(),
            keepalive: Keepalive::default(),
        }
    }

    /// No call goes out.
    pub fn quiet() -> Self {
        Self::to(SocketAddr::new(B, 9))
    }
}

/// A running node.
pub struct World {
    pub node: SipNode,
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    pub tls: Option<SocketAddr>,
    pub store: Arc<SqliteStore>,
    pub journal_down: Arc<AtomicBool>,
    journal: Arc<Journal>,
    written: Arc<Written>,
}

pub fn open_store() -> Arc<SqliteStore> {
    let location = SqliteLocation::Ephemeral;
    let key = location.master_key(None).unwrap();
    let options = SqliteOptions {
        reserve_bytes: 0,
        ..SqliteOptions::default()
    };
    Arc::new(SqliteStore::open(&location, &key, options).unwrap())
}

impl World {
    /// Starts a node of two shards on free ports.
    pub async fn start(plan: Plan) -> Self {
        let start = Instant::now();
        let shards = 2;
        let mut specs = vec![Transport::Udp, Transport::Tcp];
        if plan.tls.server.is_some() {
            specs.push(Transport::Tls);
        }
        let specs: Vec<_> = specs
            .into_iter()
            .map(|transport| ListenSpec {
                transport,
                addr: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            })
            .collect();
        let sockets = maskline_net::bind(&specs, shards).unwrap();
        let bound = sockets.addresses();
        let (media_senders, media_events) = (0..shards).map(|_| mpsc::channel(256)).unzip();
        let (report_senders, reports) = (0..shards).map(|_| mpsc::channel(256)).unzip();
        let media = EngineConfig::new(Ipv4Addr::LOCALHOST.into(), 42_000..=45_999, start);
        let media = Arc::new(MediaEngine::start(media, media_senders).unwrap());
        let store = plan.store.unwrap_or_else(open_store);
        let written = Arc::new(Written::default());
        let journal = Arc::new(Journal::start(
            Arc::clone(&store) as Arc<dyn Store>,
            report_senders,
            Arc::clone(&written) as Arc<dyn CommittedEvents>,
            plan.journal,
        ));
        let listener = |spec: &ListenSpec, bound: &SocketAddr| Listener {
            sent_by: SentBy {
                host_port: bound.to_string(),
                transport: spec.transport,
            },
            bound: *bound,
        };
        let switch = SwitchConfig {
            listeners: specs
                .iter()
                .zip(&bound)
                .map(|(s, b)| listener(s, b))
                .collect(),
            trunks: [Trunk {
                transport: plan.outbound.0,
                allow: vec![format!("{A}/32").parse().unwrap()],
                tls: plan.trunk_tls,
                identity: plan.identity,
                keepalive: plan.keepalive,
                ..Trunk::new("carrier", plan.outbound.1)
            }]
            .into(),
            callflow_guard: Duration::from_secs(30),
            max_transactions: plan.max_transactions,
            ..SwitchConfig::default()
        };
        let number = NumberEntry {
            msisdn: VIRTUAL.parse::<Msisdn>().unwrap(),
            sub_account_id: "acme".to_owned(),
            reference_id: "one".to_owned(),
            trunk: None,
            early_media: EarlyMedia::default(),
        };
        let journal_down = Arc::new(AtomicBool::new(false));
        let config = NodeConfig {
            traces: None,
            switch,
            shards,
            start,
            directory: Arc::new(Directory::new([number], [])),
            found: plan.found,
            away: None,
            journal_down: Arc::clone(&journal_down),
            tls: plan.tls,
            dns_servers: Vec::new(),
            limits: plan.limits,
        };
        let customer = Arc::new(plan.customer);
        let node = SipNode::start(
            config,
            sockets,
            media,
            media_events,
            Arc::clone(&journal),
            reports,
            customer,
        );
        Self {
            node: node.unwrap(),
            udp: bound[0],
            tcp: bound[1],
            tls: bound.get(2).copied(),
            store,
            journal_down,
            journal,
            written,
        }
    }

    /// Waits until no session is left, and what was decided of them is durable.
    pub async fn calls_over(&self) {
        until("no session is left", || self.node.sessions() == 0).await;
        assert_eq!(self.journal.flush(PATIENCE).await, 0);
    }

    /// Waits for a health of the journal.
    pub async fn journal_is_down(&self) {
        until("the journal is down", || {
            self.journal_down.load(Ordering::Relaxed)
        })
        .await;
    }

    /// Waits until the one session's summary is durable; what its events say, in order: the status
    /// (or that it is the summary), and the whole body.
    pub async fn story(&self) -> Vec<(String, serde_json::Value)> {
        let is_summary = |event: &EventRow| event.body.contains("SESSION_SUMMARY");
        until("the summary is written", || {
            self.written.0.lock().unwrap().iter().any(is_summary)
        })
        .await;
        let told = self.written.0.lock().unwrap().clone();
        let session = told.last().unwrap().session_id;
        let kept = self.store.session(session).await.unwrap();
        let mut story = Vec::new();
        for (at, stored) in kept.into_iter().enumerate() {
            let StoredEvent::Whole(event, _) = stored else {
                panic!("{stored:?}");
            };
            assert_eq!(event.ordinal, at as u64 + 1, "without a gap");
            let body: serde_json::Value = serde_json::from_str(&event.body).unwrap();
            let status = &body["payload"]["callStatus"];
            let what = status.as_str().unwrap_or("SUMMARY").to_owned();
            story.push((what, body));
        }
        story
    }
}

/// Waits for a condition, with a deadline.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The statuses alone.
pub fn statuses(story: &[(String, serde_json::Value)]) -> Vec<&str> {
    story.iter().map(|(status, _)| status.as_str()).collect()
}
