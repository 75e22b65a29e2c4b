//! The running node: sockets, connections and shards, and the handle to them.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use maskline_media::{Engine, MediaEvent, MediaKey};
use maskline_store::{Journal, JournalReport};
use maskline_switch::sip::Transport;
use maskline_switch::snapshot::Snapshot;
use maskline_switch::{
    Admission, Directory, Dispatcher, Shard, SwitchConfig, Target, TargetKey, TraceLimits, Trunk,
    TrunkId, TrunkTargets,
};
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::sync::{Barrier, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bind::{Listening, Sockets};
use crate::callflow::CallflowSource;
use crate::commits::{Commits, JournalHealth};
use crate::dns;
use crate::error::NetError;
use crate::intake::Intake;
use crate::keepalive;
use crate::limits::NetLimits;
use crate::media_keys::MediaKeys;
use crate::queue::queue;
use crate::shard::{Drain, Found, Inbox, Level, Orders, Outside, Questions, ShardTask};
use crate::supervise;
use crate::tcp::{self, Connections};
use crate::tls::{Tls, TlsConfig};
use crate::traces::TraceSink;
use crate::trunks::{TrunkStatus, Trunks};
use crate::udp::{self, Outlet};

/// Failed peers that a shard may have to hear of.
const FAILURE_QUEUE: usize = 256;

/// What a node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// What each shard is told; `shard` is set for each. Its listeners are the bound sockets, in
    /// their order.
    pub switch: SwitchConfig,
    /// How many shards; at least one.
    pub shards: u16,
    /// The origin of the process's ticks; the media engine has the same.
    pub start: Instant,
    /// Numbers and permissions that the first call is judged by.
    pub directory: Arc<Directory>,
    /// Snapshots of sessions that an earlier run left open. Each is adopted by its shard before any
    /// message is taken: a BYE of such a call finds its dialog, and no session of this run is taken
    /// for one of the earlier.
    pub found: Vec<Vec<u8>>,
    /// How long no process ran; `None`: that is not known, and every call of the earlier run is ended.
    pub away: Option<Duration>,
    /// Set while any shard can't journal, and so refuses new calls.
    pub journal_down: Arc<AtomicBool>,
    /// Certificates, of our own and of whom to trust.
    pub tls: TlsConfig,
    /// Name servers for the names of trunks; empty: those of `/etc/resolv.conf`.
    pub dns_servers: Vec<SocketAddr>,
    /// Bounds.
    pub limits: NetLimits,
    /// Who wants to hear how calls go; `None`: nobody, and nothing is told.
    pub traces: Option<Arc<dyn TraceSink>>,
}

/// An address of a trunk, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// The trunk's name.
    pub trunk: String,
    /// The address.
    pub addr: SocketAddr,
    /// How messages travel to it.
    pub transport: Transport,
    /// Whether it answers OPTIONS, or is not asked.
    pub up: bool,
}

/// A running node. Clones are handles of the same; when the last one is dropped, the node stops.
///
/// A panic in one of its tasks ends the process with status 70: see `supervise`.
#[derive(Clone, Debug)]
pub struct SipNode {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    orders: watch::Sender<Orders>,
    trunks: Trunks,
    levels: Vec<Arc<Level>>,
    configured: Arc<[Trunk]>,
    tls: Arc<Tls>,
    media_keys: Arc<MediaKeys>,
    stop: CancellationToken,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl SipNode {
    /// Starts the shards, then takes messages. Call within a runtime, with the metrics recorder
    /// installed. `media_events` and `reports` hold one channel per shard, by its number. Keep the
    /// media engine until [`Self::stop`] is done: dropping it blocks.
    ///
    /// # Errors
    /// [`NetError::Listeners`] and [`NetError::Shards`] when the parts don't fit together,
    /// [`NetError::Tls`], [`NetError::NoCertificate`], [`NetError::Randomness`].
    pub fn start(
        config: NodeConfig,
        sockets: Sockets,
        media: Arc<dyn Engine>,
        media_events: Vec<mpsc::Receiver<MediaEvent>>,
        journal: Arc<Journal>,
        reports: Vec<mpsc::Receiver<JournalReport>>,
        callflows: Arc<dyn CallflowSource>,
    ) -> Result<Self, NetError> {
        let shards = config.shards.max(1);
        check(&config, &sockets, media_events.len(), reports.len())?;
        let stop = CancellationToken::new();
        let (orders, _) = watch::channel(Orders {
            directory: Arc::clone(&config.directory),
            drain: Drain::Open,
            targets: Arc::new(TrunkTargets::configured(&config.switch.trunks)),
            down: Arc::default(),
        });
        let dispatcher = Dispatcher::new(Arc::clone(&config.switch.trunks), shards);
        let trunks = config.switch.trunks.len();
        let (queues, arrivals): (Vec<_>, Vec<_>) = (0..shards)
            .map(|_| queue(config.limits.shard_queue, trunks))
            .unzip();
        let (failures, failed) = channels(shards, FAILURE_QUEUE);
        let intake = Arc::new(Intake::new(dispatcher.clone(), queues));
        let tls = Arc::new(
            Tls::load(config.tls, Arc::clone(&config.switch.trunks))
                .map_err(|fault| NetError::Tls { fault })?,
        );
        if tls.server().is_none() && sockets.speak_tls() {
            return Err(NetError::NoCertificate);
        }
        let connections = Arc::new(Connections::new(
            config.limits,
            sockets.addresses(),
            &config.switch,
            Arc::clone(&tls),
            Arc::clone(&intake),
            failures,
            stop.clone(),
        ));
        let admission = Arc::new(Mutex::new(Admission::new(&config.switch.trunks)));
        let trunks = Trunks::new(&config.switch.trunks, Arc::clone(&admission));
        let health = Arc::new(JournalHealth::new(Arc::clone(&config.journal_down)));
        let mut found = by_shard(config.found, &dispatcher, shards).into_iter();
        let levels: Vec<_> = (0..shards).map(|_| Arc::default()).collect();
        let media_keys = Arc::new(MediaKeys::default());
        let all_adopted = Arc::new(Barrier::new(usize::from(shards)));

        let mut tasks = JoinSet::new();
        let channels = arrivals.into_iter().zip(failed);
        let channels = channels.zip(media_events).zip(reports).zip(&levels);
        for (number, ((((arrivals, failures), media_events), journal_reports), level)) in
            (0..shards).zip(channels)
        {
            let shard = Shard::new(
                SwitchConfig {
                    shard: number,
                    trace: TraceLimits {
                        enabled: config.traces.is_some(),
                        ..config.switch.trace
                    },
                    ..config.switch.clone()
                },
                seed()?,
            );
            let inbox = Inbox {
                arrivals,
                failures,
                media: media_events,
                journal: journal_reports,
                orders: orders.subscribe(),
                stop: stop.clone(),
            };
            let outside = Outside {
                udp: outlet(&sockets, number),
                tcp: Arc::clone(&connections),
                media: Arc::clone(&media),
                media_keys: Arc::clone(&media_keys),
                commits: Commits::new(
                    Arc::clone(&journal),
                    Arc::clone(&health),
                    number,
                    config.limits.held_commits,
                ),
                admission: Arc::clone(&admission),
                questions: Questions::new(Arc::clone(&callflows), config.limits.callflow_requests),
                trunks: trunks.clone(),
                traces: config.traces.clone(),
                orders: orders.clone(),
            };
            let task = ShardTask::new(
                number,
                shard,
                inbox,
                outside,
                config.start,
                Arc::clone(level),
            );
            tasks.spawn(task.run(Found {
                snapshots: found.next().unwrap_or_default(),
                away: config.away,
                all_adopted: Arc::clone(&all_adopted),
            }));
        }
        keep_alive(&mut tasks, &sockets, &config.switch, &intake, &stop);
        receive(&mut tasks, sockets, &intake, &connections, &stop);
        tasks.spawn(Arc::clone(&tls).follow(stop.clone()));
        let tell: dns::Tell = {
            let (orders, intake) = (orders.clone(), Arc::clone(&intake));
            let tls = Arc::clone(&tls);
            Arc::new(move |targets| {
                intake.set_targets(Arc::clone(&targets));
                tls.set_targets(Arc::clone(&targets));
                orders.send_modify(|orders| orders.targets = targets);
            })
        };
        tokio::spawn(dns::follow(
            config.switch.clone(),
            dns::Client::new(config.dns_servers),
            dns::Limits::default(),
            tell,
            stop.clone(),
        ));
        let supervisor = tokio::spawn(async move {
            supervise::watch(tasks).await;
            connections.ended().await;
        });
        Ok(Self {
            running: Arc::new(Running {
                orders,
                trunks,
                levels,
                configured: Arc::clone(&config.switch.trunks),
                tls,
                media_keys,
                stop,
                supervisor: Mutex::new(Some(supervisor)),
            }),
        })
    }

    /// Numbers or permissions changed; calls in progress keep what they started with.
    pub fn directory_changed(&self, directory: Arc<Directory>) {
        self.running
            .orders
            .send_modify(|orders| orders.directory = directory);
    }

    /// Reads certificates and keys again, and logs what came of it: new TLS handshakes use what is
    /// new, live connections stay. It happens by itself a few seconds after a file has changed.
    pub fn reload_tls(&self) {
        self.running.tls.reload_and_tell();
    }

    /// Refuses new calls from now on.
    pub fn start_drain(&self) {
        self.drain(Drain::Started);
    }

    /// Ends the calls that are left.
    pub fn end_drain(&self) {
        self.drain(Drain::Ended);
    }

    fn drain(&self, drain: Drain) {
        self.running
            .orders
            .send_modify(|orders| orders.drain = orders.drain.max(drain));
    }

    /// The trunks as they are now, in the configuration's order.
    #[must_use]
    pub fn trunks(&self) -> Vec<TrunkStatus> {
        self.running.trunks.status()
    }

    /// Sessions that are not over, and registrations that are being removed; a shard that has not
    /// heard of the last order to drain counts as one. At 0, the last commits may still be on their way: flush the
    /// journal before stopping.
    #[must_use]
    pub fn sessions(&self) -> usize {
        let drain = self.running.orders.borrow().drain;
        let levels = self.running.levels.iter();
        levels.map(|level| level.sessions_after(drain)).sum()
    }

    /// The media of a live session.
    #[must_use]
    pub fn media_key(&self, session_id: Uuid) -> Option<MediaKey> {
        self.running.media_keys.of(session_id)
    }

    /// The addresses of every trunk, in the configuration's order.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetState> {
        let orders = self.running.orders.borrow();
        let state = |(key, target): (TargetKey, &Target)| {
            let trunk = self.running.configured.get(usize::from(key.trunk.0))?;
            Some(TargetState {
                trunk: trunk.name.clone(),
                addr: target.addr,
                transport: target.transport,
                up: !orders.down.contains(&key),
            })
        };
        orders.targets.all().filter_map(state).collect()
    }

    /// Stops everything and waits for it; what is queued to TCP peers still leaves. Calls that are
    /// live stay in the journal, for the next run to adopt.
    pub async fn stop(&self) {
        self.running.stop.cancel();
        let supervisor = self
            .running
            .supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(supervisor) = supervisor
            && let Err(error) = supervisor.await
        {
            tracing::error!(%error, "the SIP node ended badly");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn check(
    config: &NodeConfig,
    sockets: &Sockets,
    media: usize,
    journal: usize,
) -> Result<(), NetError> {
    let configured = config.switch.listeners.len();
    let bound = sockets.listeners.len();
    if configured != bound {
        return Err(NetError::Listeners { configured, bound });
    }
    let shards = config.shards.max(1);
    if media != usize::from(shards) || journal != usize::from(shards) {
        return Err(NetError::Shards {
            shards,
            media,
            journal,
        });
    }
    Ok(())
}

fn channels<T>(count: u16, capacity: usize) -> (Vec<mpsc::Sender<T>>, Vec<mpsc::Receiver<T>>) {
    (0..count).map(|_| mpsc::channel(capacity)).unzip()
}

fn seed() -> Result<[u8; 32], NetError> {
    let mut seed = [0; 32];
    OsRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| NetError::Randomness(error.to_string()))?;
    Ok(seed)
}

/// Which shard adopts what. What can't be read goes to the first, which counts it; whose session it
/// was is known, and logged, by who read the store.
fn by_shard(found: Vec<Vec<u8>>, dispatcher: &Dispatcher, shards: u16) -> Vec<Vec<Vec<u8>>> {
    let mut sorted = vec![Vec::new(); usize::from(shards)];
    for snapshot in found {
        let shard = match Snapshot::from_bytes(&snapshot) {
            Ok(read) => dispatcher.shard(read.shard),
            Err(_) => 0,
        };
        if let Some(of_shard) = sorted.get_mut(usize::from(shard)) {
            of_shard.push(snapshot);
        }
    }
    sorted
}

/// The sockets that a shard sends through: each shard another one of a listener's.
fn outlet(sockets: &Sockets, shard: u16) -> Outlet {
    let of_listener = |listening: &Listening| match listening {
        Listening::Stream { .. } => None,
        Listening::Udp { sockets, .. } => sockets
            .get(usize::from(shard) % sockets.len().max(1))
            .cloned(),
    };
    Outlet::new(sockets.listeners.iter().map(of_listener).collect())
}

/// Starts what keeps the ways to UDP trunks open.
fn keep_alive(
    tasks: &mut JoinSet<()>,
    sockets: &Sockets,
    config: &SwitchConfig,
    intake: &Arc<Intake>,
    stop: &CancellationToken,
) {
    let first = |listening: &Listening| match listening {
        Listening::Stream { .. } => None,
        Listening::Udp { sockets, .. } => sockets.first().cloned(),
    };
    for (trunk, of) in (0..=u16::MAX).map(TrunkId).zip(config.trunks.iter()) {
        if let Some(every) = of.keepalive.crlf {
            let ways = keepalive::Ways {
                sockets: sockets.listeners.iter().map(first).collect(),
                config: config.clone(),
                trunk,
                intake: Arc::clone(intake),
            };
            tasks.spawn(keepalive::keep_alive(ways, every, stop.clone()));
        }
    }
}

/// Starts the tasks that receive.
fn receive(
    tasks: &mut JoinSet<()>,
    sockets: Sockets,
    intake: &Arc<Intake>,
    connections: &Arc<Connections>,
    stop: &CancellationToken,
) {
    for (listener, listening) in (0..=u16::MAX).zip(sockets.listeners) {
        match listening {
            Listening::Udp { sockets, .. } => {
                for socket in sockets {
                    let intake = Arc::clone(intake);
                    tasks.spawn(udp::receive(socket, listener, intake, stop.clone()));
                }
            }
            Listening::Stream {
                listener: socket,
                transport,
                ..
            } => {
                let connections = Arc::clone(connections);
                let accepting = tcp::accept(socket, listener, transport, connections, stop.clone());
                tasks.spawn(accepting);
            }
        }
    }
}
