//! One node: store, journal, media, delivery, SIP and API wired together, started in order and
//! ended in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use async_trait::async_trait;
use maskline_events::{Msisdn, Timestamp};
use maskline_http::{ApiConfig, ReplayedEvents, TrunkRegistrationStatus, TrunkStatus, TrunkTarget};
use maskline_media::Engine;
use maskline_media::engine::{EngineConfig, MediaEngine};
use maskline_net::{
    CallflowSource, ListenSpec, NetError, NetLimits, NodeConfig, SipNode, TraceSink,
};
use maskline_rtpengine::{Installation, Rtpengine};
use maskline_store::{
    Beating, CommittedEvents, Deliveries, EventHistory, EventRow, Journal, JournalOptions,
    ParameterStore, SqliteLocation, SqliteOptions, SqliteStore, Store, WebhookSettings,
};
use maskline_switch::sip::SipTimers;
use maskline_switch::sip::compose::SentBy;
use maskline_switch::{CallflowAnswer, Listener, SwitchConfig};
use maskline_webhook::network::{Network, SystemNetwork};
use maskline_webhook::{
    ActionAnswer, ActionRequest, CallActionClient, DeliveryConfig, DeliveryObserver, Dispatcher,
    EgressClient, EgressPolicy, Retention, Schedule, check_tls, check_url,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::config::{Config, check_local};
use crate::left_open::{self, left_open};
use crate::metrics_text::Sources;
use crate::otlp::{Observers, Otlp};
use crate::provisioning::{self, Changes, Reloads};
use crate::reports::Reports;
use crate::traces::Traces;

/// How long a final delivery may take when the node ends; what is left is kept.
const LAST_DELIVERIES: Duration = Duration::from_secs(10);
/// How long calls that the drain ended may take to say goodbye.
const LAST_CALLS: Duration = Duration::from_secs(5);
/// How long reports that were taken may take to be written when the node ends.
const LAST_REPORTS: Duration = Duration::from_secs(2);
/// Media events, journal reports: how many wait for a shard.
const SHARD_QUEUE: usize = 4_096;

/// What comes from the environment alone.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) admin_key: Option<String>,
    pub(crate) master_key: Option<String>,
}

impl Secrets {
    /// `MASKLINE_ADMIN_KEY` and `MASKLINE_MASTER_KEY`; empty counts as not set.
    ///
    /// # Errors
    /// An admin key that is too short to be one.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let admin_key = read("MASKLINE_ADMIN_KEY");
        if admin_key.as_ref().is_some_and(|key| key.len() < 16) {
            anyhow::bail!("environment MASKLINE_ADMIN_KEY: needs 16 characters or more");
        }
        Ok(Self {
            admin_key,
            master_key: read("MASKLINE_MASTER_KEY"),
        })
    }
}

/// A running node.
pub(crate) struct Node {
    store: Arc<SqliteStore>,
    journal: Arc<Journal>,
    delivery: Arc<Dispatcher>,
    /// Stops when the node does.
    _retention: Option<Retention>,
    sip: SipNode,
    draining: Arc<AtomicBool>,
    http_address: SocketAddr,
    sip_addresses: Vec<SocketAddr>,
    reloads: Arc<Reloads>,
    stop_http: oneshot::Sender<()>,
    http: JoinHandle<()>,
    directory: JoinHandle<()>,
    reports: JoinHandle<()>,
    traces: Option<Arc<Traces>>,
    otlp: Option<Arc<Otlp>>,
    new_admin_key: Option<String>,
    /// Stops when the node does.
    _beating: Option<Beating>,
}

impl Node {
    /// Starts everything, in the order in which it depends on each other; calls are taken last.
    /// Webhooks and the API run on `web`, all else on the current runtime.
    ///
    /// # Errors
    /// The first thing that can't be had, by file and key where the configuration asked for it.
    pub(crate) async fn start(
        config: Config,
        secrets: Secrets,
        observer: Option<Arc<dyn DeliveryObserver>>,
        web: Handle,
    ) -> anyhow::Result<Self> {
        let start = Instant::now();
        check_local(&config)?;
        let recorder = recorder()?;
        let http_listener = TcpListener::bind(config.http_listen)
            .await
            .map_err(|error| in_use(&config, "[http] listen", config.http_listen, &error))?;
        let http_address = http_listener.local_addr()?;
        let specs: Vec<_> = config
            .sip_listen
            .iter()
            .map(|spec| ListenSpec {
                transport: spec.transport,
                addr: spec.address,
            })
            .collect();
        let sockets = maskline_net::bind(&specs, config.shards)
            .map_err(|error| config.fault("[sip] listen", error))?;
        let sip_addresses = sockets.addresses();

        let store = open_store(&config, secrets.master_key.as_deref()).await?;
        let as_store: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let epoch = store.begin_epoch().await?;
        tracing::info!(node = %epoch.node_id, boot_epoch = epoch.boot_epoch, "store is open");
        let new_admin_key = match secrets.admin_key {
            Some(_) => None,
            None => store.ensure_admin_key(wall()).await?,
        };

        let (media_senders, media_receivers) = channels(config.shards);
        let (report_senders, report_receivers) = channels(config.shards);
        let found = left_open(&store).await?;
        let installation = Installation {
            // Random but for six bits.
            id: epoch.node_id.as_u64_pair().0,
            found: found.media.clone(),
        };
        let (media, rtpengine) = start_media(&config, start, installation, media_senders).await?;
        let policy = EgressPolicy {
            allow_private_targets: config.allow_private_targets,
        };
        let otlp = match config.otlp.clone() {
            Some(collector) => Some(Arc::new(Otlp::start(collector)?)),
            None => None,
        };
        let observer = observers(observer, otlp.as_ref());
        let network = Arc::new(SystemNetwork::from_sources(config.egress_sources));
        let as_network = Arc::clone(&network) as Arc<dyn Network>;
        let to_endpoints = EgressClient::over(as_network, policy, &[])?;
        // With name lookups of its own.
        let to_ask = to_endpoints.apart(network);
        let egress = to_endpoints.clone();
        let delivery = {
            let _on_web = web.enter();
            Arc::new(Dispatcher::start(
                Arc::clone(&as_store),
                Arc::clone(&store) as Arc<dyn Deliveries>,
                to_endpoints,
                delivery_config(&config),
                observer,
            ))
        };
        let retention = config.delivery.keep.map(|keep| {
            let _on_web = web.enter();
            Retention::start(Arc::clone(&store) as Arc<dyn EventHistory>, keep)
        });
        let action = CallActionClient::new(to_ask, delivery.endpoints(), config.vca_timeout);
        let journal = Arc::new(Journal::start(
            Arc::clone(&as_store),
            report_senders,
            Arc::new(ToDelivery(Arc::clone(&delivery))),
            JournalOptions::default(),
        ));

        // Before any call is taken over, so that a call which ends the process is not for ever.
        let (beating, absence) = left_open::heartbeat(&config);
        let away = found.away(absence, config.adopt_within);
        let traces = start_traces(&config, epoch.boot_epoch, otlp.clone()).await;
        let sink = traces.clone().map(|it| it as Arc<dyn TraceSink>);
        let journal_down = Arc::new(AtomicBool::new(false));
        let directory = provisioning::directory(&store).await?;
        let sip = SipNode::start(
            NodeConfig {
                switch: switch_config(&config, &sip_addresses),
                shards: config.shards,
                start,
                directory: Arc::clone(&directory),
                found: found.snapshots,
                away,
                journal_down: Arc::clone(&journal_down),
                tls: config.tls.clone(),
                dns_servers: config.dns_servers.clone(),
                limits: NetLimits::default(),
                traces: sink,
            },
            sockets,
            Arc::clone(&media),
            media_receivers,
            Arc::clone(&journal),
            report_receivers,
            Arc::new(ToAction {
                client: Arc::new(action),
                web: web.clone(),
            }),
        )
        .map_err(|error| {
            if let NetError::Tls { fault } = &error {
                config.fault(&fault.key, fault).into()
            } else {
                anyhow::Error::from(error)
            }
        })?;

        let (directories, known) = watch::channel(directory);
        let (reports, reporting) = Reports::start(
            Arc::clone(&store),
            Arc::new(ToDelivery(Arc::clone(&delivery))),
            config.reports_idle,
            known,
            wall,
            &web,
        );
        let draining = Arc::new(AtomicBool::new(false));
        let reloads = Reloads::new();
        let (of_media, by_sip) = (Arc::clone(&media), sip.clone());
        let sources = Sources {
            recorder,
            media,
            rtpengine,
            journal: Arc::clone(&journal),
            store: Arc::clone(&store),
            delivery: Arc::clone(delivery.counters()),
            egress,
            reports: reports.counters(),
            forgotten: retention.as_ref().map(Retention::forgotten),
            sip: sip.clone(),
        };
        let of_sip = sip.clone();
        let router = maskline_http::router(ApiConfig {
            store: as_store,
            parameters: Arc::clone(&store) as Arc<dyn ParameterStore>,
            history: Arc::clone(&store) as Arc<dyn EventHistory>,
            settings: Arc::clone(&store) as Arc<dyn WebhookSettings>,
            replayed: Arc::new(ToDelivery(Arc::clone(&delivery))),
            admin_key: secrets.admin_key,
            trunks: config
                .trunks
                .iter()
                .map(|trunk| trunk.name.clone())
                .collect(),
            trunk_status: Arc::new(move || trunk_status(&of_sip)),
            media_report: Arc::new(move |session| of_media.report(by_sip.media_key(session)?)),
            call_events: reports,
            egress_addresses: config.egress_addresses.clone(),
            check_webhook_url: Arc::new(move |url| {
                check_url(url, &policy)
                    .map(drop)
                    .map_err(|fault| fault.to_string())
            }),
            check_webhook_tls: Arc::new(check_tls),
            on_change: Arc::new(Changes {
                reloads: Arc::clone(&reloads),
                delivery: Arc::clone(&delivery),
            }),
            country_of: Arc::new(|number: &Msisdn| {
                maskline_switch::country::country_of(number).map(str::to_owned)
            }),
            clock: Arc::new(wall),
            metrics_text: Arc::new(move || sources.render()),
            traces: traces.as_ref().map(|traces| maskline_http::Traces {
                file: traces.file(),
                listeners: sip_addresses.clone(),
            }),
            draining: Arc::clone(&draining),
            journal_down,
            failed_authentications_per_minute:
                maskline_http::DEFAULT_FAILED_AUTHENTICATIONS_PER_MINUTE,
        });
        let (stop_http, stopped) = oneshot::channel();
        let http = web.spawn(maskline_http::serve(http_listener, router, async move {
            // A dropped sender stops it as well.
            let _ = stopped.await;
        }));
        let told = sip.clone();
        let tell = move |directory| told.directory_changed(directory);
        let following = Arc::clone(&reloads).follow(Arc::clone(&store), directories, tell);
        let directory = tokio::spawn(following);
        Ok(Self {
            store,
            journal,
            delivery,
            _retention: retention,
            sip,
            draining,
            http_address,
            sip_addresses,
            reloads,
            stop_http,
            http,
            directory,
            reports: reporting,
            traces,
            otlp,
            new_admin_key,
            _beating: beating,
        })
    }

    /// The admin key, when this start made it.
    pub(crate) fn new_admin_key(&self) -> Option<&str> {
        self.new_admin_key.as_deref()
    }

    /// Where the API is served.
    pub(crate) const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where SIP is spoken.
    pub(crate) fn sip_addresses(&self) -> &[SocketAddr] {
        &self.sip_addresses
    }

    /// Sessions that are not over.
    pub(crate) fn sessions(&self) -> usize {
        self.sip.sessions()
    }

    /// The store, for the demo's provisioning.
    pub(crate) fn store(&self) -> &SqliteStore {
        &self.store
    }

    /// Says that numbers were provisioned past the API, and waits until the switch knows them.
    pub(crate) async fn reload_directory(&self) {
        self.reloads.reload().await;
    }

    /// Reads certificates again; live calls go on.
    pub(crate) fn reload_certificates(&self) {
        self.sip.reload_tls();
    }

    /// Refuses new calls from now on.
    pub(crate) fn start_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.sip.start_drain();
    }

    /// Resolves when no call is left.
    pub(crate) async fn calls_over(&self) {
        while self.sip.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends what is left of the calls, writes and delivers what can be delivered now, and stops.
    pub(crate) async fn end(self) {
        self.start_drain();
        self.sip.end_drain();
        if tokio::time::timeout(LAST_CALLS, self.calls_over())
            .await
            .is_err()
        {
            tracing::warn!(
                calls = self.sip.sessions(),
                "calls are left to the next start"
            );
        }
        let unwritten = self.journal.flush(LAST_DELIVERIES).await;
        if unwritten > 0 {
            tracing::error!(entries = unwritten, "the store did not take everything");
        }
        let drained = self.delivery.drain(LAST_DELIVERIES).await;
        if drained.unsettled > 0 {
            tracing::info!(
                events = drained.unsettled,
                "events are kept for the next start"
            );
        }
        self.directory.abort();
        self.sip.stop().await;
        if let Some(traces) = self.traces {
            // What was told last is written. Only a panic of the writer fails this.
            let _ = tokio::task::spawn_blocking(move || traces.stop()).await;
        }
        if let Some(otlp) = self.otlp {
            let _ = tokio::task::spawn_blocking(move || otlp.stop()).await;
        }
        // The receiver is gone only if the server ended by itself.
        let _ = self.stop_http.send(());
        if let Err(error) = self.http.await {
            tracing::error!(%error, "the API ended badly");
        }
        // The API had the only way in: what it left there is written, and delivered by the next run.
        if tokio::time::timeout(LAST_REPORTS, self.reports)
            .await
            .is_err()
        {
            tracing::warn!("reports of other switches are left unanswered");
        }
        tracing::info!("ended");
    }
}

/// What the journal has committed goes to the delivery.
struct ToDelivery(Arc<Dispatcher>);

impl CommittedEvents for ToDelivery {
    fn committed(&self, events: Vec<EventRow>) {
        self.0.committed(events);
    }
}

/// So do events that are sent once more.
#[async_trait]
impl ReplayedEvents for ToDelivery {
    async fn replayed(&self, sub_account_id: &str, sessions: Vec<Uuid>) {
        self.0.replayed(sub_account_id, sessions).await;
    }
}

/// What a shard asks goes to the VCA client.
struct ToAction {
    client: Arc<CallActionClient>,
    web: Handle,
}

#[async_trait]
impl CallflowSource for ToAction {
    async fn ask(&self, sub_account_id: String, event_id: Uuid, body: String) -> CallflowAnswer {
        let client = Arc::clone(&self.client);
        let request = ActionRequest {
            sub_account_id,
            event_id,
            body,
        };
        let asked = self.web.spawn(async move { client.ask(request).await });
        // The shard may stop waiting; the request then ends with its own deadline.
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "asking a VCA endpoint failed, which is a bug");
                return CallflowAnswer::Unreachable("the request was given up".to_owned());
            }
        };
        match answer {
            ActionAnswer::Callflow(callflow) => CallflowAnswer::Callflow(callflow),
            ActionAnswer::NoEndpoint => {
                CallflowAnswer::Unreachable("no VCA webhook is set".to_owned())
            }
            ActionAnswer::Connectivity(fault) => CallflowAnswer::Unreachable(fault.to_string()),
            ActionAnswer::Invalid(fault) => CallflowAnswer::Invalid(fault.to_string()),
        }
    }
}

/// The trunks, for the API.
fn trunk_status(sip: &SipNode) -> Vec<TrunkStatus> {
    let targets = sip.targets();
    let of = |name: &str| {
        let own = targets.iter().filter(|target| target.trunk == name);
        own.map(|target| TrunkTarget {
            address: target.addr.to_string(),
            transport: target.transport.as_str().to_ascii_lowercase(),
            up: target.up,
        })
        .collect()
    };
    let statuses = sip.trunks().into_iter();
    statuses
        .map(|trunk| TrunkStatus {
            targets: of(&trunk.name),
            name: trunk.name,
            calls: trunk.calls,
            registration: trunk.registration.map(|state| TrunkRegistrationStatus {
                registered: state.registered,
                failure: state.failure.map(|failure| failure.to_string()),
            }),
        })
        .collect()
}

/// The time as people read it.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn recorder() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("metrics were set up twice")?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        // Histograms grow if nobody scrapes.
        let mut every = tokio::time::interval(Duration::from_secs(5));
        loop {
            every.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

fn in_use(
    config: &Config,
    key: &str,
    address: SocketAddr,
    error: &std::io::Error,
) -> anyhow::Error {
    config.fault(key, format!("{address}: {error}")).into()
}

async fn open_store(config: &Config, master_key: Option<&str>) -> anyhow::Result<Arc<SqliteStore>> {
    let location = SqliteLocation::parse(&config.store_url)
        .map_err(|error| config.fault("[store] url", error))?;
    let key = location
        .master_key(master_key)
        .context("the master key (environment MASKLINE_MASTER_KEY, or the key file)")?;
    let options = SqliteOptions {
        reserve_bytes: config.store_reserve_bytes,
        ..SqliteOptions::default()
    };
    let opened =
        tokio::task::spawn_blocking(move || SqliteStore::open(&location, &key, options)).await?;
    Ok(Arc::new(
        opened.map_err(|error| config.fault("[store] url", error))?,
    ))
}

/// Whom the delivery tells of attempts.
fn observers(
    given: Option<Arc<dyn DeliveryObserver>>,
    otlp: Option<&Arc<Otlp>>,
) -> Option<Arc<dyn DeliveryObserver>> {
    let otlp = otlp.map(|it| Arc::clone(it) as Arc<dyn DeliveryObserver>);
    match (given, otlp) {
        (Some(given), Some(otlp)) => Some(Arc::new(Observers(vec![given, otlp]))),
        (given, otlp) => given.or(otlp),
    }
}

/// What keeps how calls go. That it can't be had is logged, and keeps no call from being made.
async fn start_traces(config: &Config, run: u64, otlp: Option<Arc<Otlp>>) -> Option<Arc<Traces>> {
    let location = SqliteLocation::parse(&config.store_url).ok()?;
    let keep = config.trace;
    if !keep.enabled {
        return None;
    }
    let started =
        tokio::task::spawn_blocking(move || Traces::start(&location, run, keep, otlp)).await;
    started.ok().flatten().map(Arc::new)
}

fn channels<T>(shards: u16) -> (Vec<mpsc::Sender<T>>, Vec<mpsc::Receiver<T>>) {
    (0..shards).map(|_| mpsc::channel(SHARD_QUEUE)).unzip()
}

/// The engine that carries the audio, and the same once more if it is `rtpengine`.
async fn start_media(
    config: &Config,
    start: Instant,
    installation: Installation,
    events: Vec<mpsc::Sender<maskline_media::MediaEvent>>,
) -> anyhow::Result<(Arc<dyn Engine>, Option<Arc<Rtpengine>>)> {
    if let Some(daemons) = &config.rtpengine {
        let started = Rtpengine::start(daemons.clone(), installation, events).await;
        let started = Arc::new(started.map_err(|error| config.fault("[media.rtpengine]", error))?);
        return Ok((Arc::clone(&started) as Arc<dyn Engine>, Some(started)));
    }
    let engine = EngineConfig {
        silence: config.media_silence,
        hold: config.hold_audio()?.map(Arc::new),
        addresses: config.media_addresses,
        announced: config.media_public_addresses,
        ..EngineConfig::new(
            config.media_addresses.first(),
            config.media_ports.clone(),
            start,
        )
    };
    let engine = MediaEngine::start(engine, events)
        .map_err(|error| config.fault("[media] address, second_address, ports", error))?;
    Ok((Arc::new(engine), None))
}

fn delivery_config(config: &Config) -> DeliveryConfig {
    DeliveryConfig {
        attempt_deadline: config.delivery.attempt_timeout,
        schedule: Schedule {
            order_deadline: config.delivery.order_deadline,
            ..Schedule::default()
        },
        per_endpoint: config.delivery.max_in_flight_per_endpoint,
        rate: config.delivery.max_per_second_per_endpoint,
        disable_after: config.delivery.disable_after,
        in_all: config.delivery.max_in_flight,
        ..DeliveryConfig::default()
    }
}

fn switch_config(config: &Config, bound: &[SocketAddr]) -> SwitchConfig {
    let listeners = config
        .sip_listen
        .iter()
        .zip(bound)
        .map(|(spec, bound)| Listener {
            sent_by: SentBy {
                host_port: match spec.public.as_ref().or(config.sip_public_address.as_ref()) {
                    Some(public) => public.host_port(bound.port()),
                    None => bound.to_string(),
                },
                transport: spec.transport,
            },
            bound: *bound,
        })
        .collect();
    let shards = usize::from(config.shards.max(1));
    SwitchConfig {
        listeners,
        trunks: config.trunks.clone().into(),
        routes: config.routes.clone().into(),
        failover: config.failover,
        media_addresses: config.media_public_addresses,
        transcoding: config.transcoding,
        plays_on_hold: config.hold.is_heard(),
        keeps_payload_types: config.rtpengine.is_some(),
        timers: SipTimers::from_t1(config.t1),
        no_answer: config.no_answer,
        max_duration: config.max_duration,
        session_expires: config.session_expires,
        adopt_within: config.adopt_within,
        callflow_guard: config.vca_timeout + Duration::from_secs(5),
        max_sessions: config.max_sessions.div_ceil(shards),
        // An unanswered call has two or three, an ended one keeps some for 32 s.
        max_transactions: config.max_sessions.div_ceil(shards).saturating_mul(10),
        ..SwitchConfig::default()
    }
}
