//! Orders in, answers out: a task per session, and which of the daemons carries it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use maskline_media::{
    CalleeMedia, CallerMedia, Engine, EngineCounters, MediaCommand, MediaEvent, MediaKey,
    MediaReport, OpenFailure, RelayCounters, Side,
};
use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::instance::Instance;
use crate::leftovers;
use crate::naming::Naming;
use crate::presses;
use crate::session::{self, Opening};

/// A key that comes by RTP and by signalling comes both ways within this time.
const ONE_PRESS: Duration = Duration::from_secs(2);
/// Of a session's keys that came by signalling, or by RTP.
const MAX_PRESSES: usize = 64;

/// How it is set up.
#[derive(Clone, Debug)]
pub struct RtpengineConfig {
    /// Where the daemons listen for `ng` by UDP (their option `--listen-ng`); at least one.
    pub instances: Vec<SocketAddr>,
    /// Where they log key presses to (their option `--dtmf-log-dest`); `None`: presses in RTP are
    /// passed on and not reported.
    pub dtmf_listen: Option<SocketAddr>,
    /// What a party on hold hears: a file on the daemon's machine, of any kind that it reads; `None`: nothing.
    pub hold_file: Option<String>,
    /// How long a party that should send may be silent before that is reported.
    pub silence: Duration,
    /// Sessions at once; further ones are refused.
    pub max_sessions: usize,
}

/// Whose calls these are, where daemons may carry others' too.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The same over restarts, and of no other installation: what of its calls nobody has any more is deleted.
    pub id: u64,
    /// The sessions that earlier runs left open.
    pub found: Vec<u64>,
}

/// Why it did not start.
#[derive(Debug, Error)]
pub enum RtpengineError {
    /// None was configured.
    #[error("at least one rtpengine must be named")]
    NoInstance,
    /// No socket towards an instance.
    #[error("rtpengine at {instance} can't be reached: {source}")]
    Instance {
        /// Its address.
        instance: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The socket for key presses can't be had.
    #[error("{listen} can't be listened on for key presses: {source}")]
    Presses {
        /// The configured address.
        listen: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// How one daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// Where it listens for `ng`.
    pub address: SocketAddr,
    /// Whether it answered when it was last asked.
    pub up: bool,
    /// Sessions that it carries.
    pub sessions: u64,
    /// Requests so far, pings included.
    pub requests: u64,
    /// Those that it refused or did not answer.
    pub failures: u64,
    /// Calls that were deleted there because nobody had them any more.
    pub leftovers: u64,
    /// How often it was looked through for those.
    pub looks: u64,
}

/// The daemons, as a media engine. Dropping it ends its tasks and leaves the calls with the daemons, for the
/// next run to take up; what nobody takes up, they end by themselves.
#[derive(Debug)]
pub struct Rtpengine {
    shared: Arc<Shared>,
    runtime: Handle,
    stop: CancellationToken,
}

/// What tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) instances: Vec<Arc<Instance>>,
    pub(crate) naming: Naming,
    /// Cancelled once no session of an earlier run can be resumed any more.
    pub(crate) adopted: CancellationToken,
    pub(crate) silence: Duration,
    pub(crate) hold_file: Option<String>,
    max_sessions: usize,
    events: Vec<mpsc::Sender<MediaEvent>>,
    sessions: Mutex<HashMap<u64, Entry>>,
    presses: AtomicU64,
    presses_discarded: AtomicU64,
}

/// A session that has a task.
#[derive(Debug)]
struct Entry {
    key: MediaKey,
    todo: Todo,
    wake: Arc<Notify>,
    /// Keys that RTP brought, the last ones.
    heard: VecDeque<(Side, char, Instant)>,
    /// As of its task's last look.
    report: Option<MediaReport>,
}

/// A key that came by signalling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) side: Side,
    pub(crate) digit: char,
    /// Whether it is to be played; else signalling passes it on.
    pub(crate) play: bool,
    pub(crate) came: Instant,
}

/// What is still to be done for a session; of several programmings of one side, the last counts.
#[derive(Debug, Default)]
pub(crate) struct Todo {
    pub(crate) caller: Option<CallerMedia>,
    pub(crate) callee: Option<CalleeMedia>,
    /// Keys that came by signalling.
    pub(crate) presses: Vec<Told>,
    pub(crate) close: bool,
}

impl Rtpengine {
    /// Call within a runtime. `events` holds one channel per shard, by shard number. Daemons that do not
    /// answer are no error: they may come.
    ///
    /// # Errors
    /// [`RtpengineError`]: the configuration can't work here.
    pub async fn start(
        config: RtpengineConfig,
        installation: Installation,
        events: Vec<mpsc::Sender<MediaEvent>>,
    ) -> Result<Self, RtpengineError> {
        if config.instances.is_empty() {
            return Err(RtpengineError::NoInstance);
        }
        let mut instances = Vec::new();
        for address in config.instances {
            let instance = Instance::new(address).await;
            instances.push(Arc::new(instance.map_err(|source| {
                RtpengineError::Instance {
                    instance: address,
                    source,
                }
            })?));
        }
        let shared = Arc::new(Shared {
            instances,
            naming: Naming {
                installation: installation.id,
            },
            adopted: CancellationToken::new(),
            silence: config.silence,
            hold_file: config.hold_file,
            max_sessions: config.max_sessions,
            events,
            sessions: Mutex::default(),
            presses: AtomicU64::new(0),
            presses_discarded: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        if let Some(listen) = config.dtmf_listen {
            let socket = UdpSocket::bind(listen)
                .await
                .map_err(|source| RtpengineError::Presses { listen, source })?;
            tokio::spawn(presses::listen(socket, Arc::clone(&shared), stop.clone()));
        }
        for instance in &shared.instances {
            tokio::spawn(Arc::clone(instance).receive(stop.clone()));
            tokio::spawn(Arc::clone(instance).watch(stop.clone()));
            tokio::spawn(leftovers::delete(
                Arc::clone(&shared),
                Arc::clone(instance),
                installation.found.clone(),
                stop.clone(),
            ));
        }
        Ok(Self {
            shared,
            runtime: Handle::current(),
            stop,
        })
    }

    /// How the daemons do, in the order of the configuration.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceStatus> {
        let of = |instance: &Arc<Instance>| InstanceStatus {
            address: instance.address,
            up: instance.is_up(),
            sessions: instance.sessions.load(Ordering::Relaxed),
            requests: instance.requests.load(Ordering::Relaxed),
            failures: instance.failures.load(Ordering::Relaxed),
            leftovers: instance.leftovers.load(Ordering::Relaxed),
            looks: instance.looks.load(Ordering::Relaxed),
        };
        self.shared.instances.iter().map(of).collect()
    }

    fn open(&self, key: MediaKey, opening: Opening) -> Option<MediaEvent> {
        let refused = Some(MediaEvent::Refused {
            key,
            reason: OpenFailure::Unavailable,
        });
        if usize::from(key.shard) >= self.shared.events.len() {
            return refused;
        }
        let wake = Arc::new(Notify::new());
        {
            let mut sessions = self.shared.sessions();
            if sessions.len() >= self.shared.max_sessions || sessions.contains_key(&key.id) {
                return refused;
            }
            let entry = Entry {
                key,
                todo: Todo::default(),
                wake: Arc::clone(&wake),
                heard: VecDeque::new(),
                report: None,
            };
            sessions.insert(key.id, entry);
        }
        let session = session::run(
            Arc::clone(&self.shared),
            key,
            opening,
            wake,
            self.stop.clone(),
        );
        self.runtime.spawn(session);
        None
    }

    fn order(&self, key: MediaKey, change: impl FnOnce(&mut Todo)) -> bool {
        let mut sessions = self.shared.sessions();
        let Some(entry) = sessions.get_mut(&key.id).filter(|entry| entry.key == key) else {
            return false;
        };
        change(&mut entry.todo);
        entry.wake.notify_one();
        true
    }
}

impl Engine for Rtpengine {
    fn command(&self, command: MediaCommand) -> Option<MediaEvent> {
        let done = match &command {
            MediaCommand::Open { key, .. } => return self.open(*key, Opening::Anew),
            MediaCommand::Resume {
                key,
                caller_port,
                callee_port,
                address,
                ..
            } => {
                let again = Opening::Again {
                    caller_port: *caller_port,
                    callee_port: *callee_port,
                    address: *address,
                };
                return self.open(*key, again);
            }
            MediaCommand::ProgramCaller { key, media } => {
                self.order(*key, |todo| todo.caller = Some(media.clone()))
            }
            MediaCommand::ProgramCallee { key, media } => {
                self.order(*key, |todo| todo.callee = Some(media.clone()))
            }
            // What RTP brings of a key later on passes: a daemon can't be told to keep it.
            MediaCommand::Press {
                key,
                side,
                digit,
                play,
            } => {
                let told = Told {
                    side: *side,
                    digit: *digit,
                    play: *play,
                    came: Instant::now(),
                };
                let mut is_taken = true;
                let is_known = self.order(*key, |todo| {
                    is_taken = todo.presses.len() < MAX_PRESSES;
                    if is_taken {
                        todo.presses.push(told);
                    }
                });
                if !is_taken {
                    // Faster than they can be played they are lost, as they would be in RTP.
                    self.shared
                        .presses_discarded
                        .fetch_add(1, Ordering::Relaxed);
                }
                is_known
            }
            // It has files of its own, and none of ours.
            MediaCommand::Play { .. } => false,
            MediaCommand::StopPlaying { .. } => true,
            MediaCommand::Close { key } => self.order(*key, |todo| todo.close = true),
        };
        if done {
            return None;
        }
        command.answer_without_session(OpenFailure::Unavailable)
    }

    fn counters(&self) -> EngineCounters {
        let carried = |instance: &Arc<Instance>| instance.sessions.load(Ordering::Relaxed);
        let sessions: u64 = self.shared.instances.iter().map(carried).sum();
        EngineCounters {
            sessions,
            // What was asked for: two of RTP and two of RTCP.
            ports_in_use: sessions * 4,
            relay: RelayCounters {
                presses: self.shared.presses.load(Ordering::Relaxed),
                ..RelayCounters::default()
            },
            presses_discarded: self.shared.presses_discarded.load(Ordering::Relaxed),
            ..EngineCounters::default()
        }
    }

    fn adopted(&self) {
        self.shared.adopted.cancel();
    }

    fn report(&self, key: MediaKey) -> Option<MediaReport> {
        self.shared.sessions().get(&key.id)?.report.clone()
    }
}

impl Drop for Rtpengine {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    /// What is to be done for a session.
    pub(crate) fn todo(&self, key: MediaKey) -> Todo {
        let mut sessions = self.sessions();
        let entry = sessions.get_mut(&key.id);
        entry
            .map(|entry| std::mem::take(&mut entry.todo))
            .unwrap_or_default()
    }

    pub(crate) fn has_session(&self, id: u64) -> bool {
        self.sessions().contains_key(&id)
    }

    /// `None`: it is not known any more how the audio goes.
    pub(crate) fn seen(&self, key: MediaKey, report: Option<MediaReport>) {
        if let Some(entry) = self.sessions().get_mut(&key.id) {
            entry.report = report;
        }
    }

    /// The session's last answer; a closing that was ordered beside a refusal has its own.
    pub(crate) async fn ended(&self, last: MediaEvent) {
        let key = last.key();
        let refused = matches!(last, MediaEvent::Refused { .. });
        self.tell(last).await;
        let left = self.sessions().remove(&key.id);
        if refused && left.is_some_and(|entry| entry.todo.close) {
            self.tell(MediaEvent::Closed {
                key,
                caller: None,
                callee: None,
            })
            .await;
        }
    }

    /// Waits for the shard to have room. A shard that is gone needs to know nothing.
    pub(crate) async fn tell(&self, event: MediaEvent) {
        if let Some(shard) = self.events.get(usize::from(event.key().shard)) {
            let _ = shard.send(event).await;
        }
    }

    pub(crate) fn pressed(&self, id: u64, side: Side, digit: char) {
        let key = {
            let mut sessions = self.sessions();
            let Some(entry) = sessions.get_mut(&id) else {
                return;
            };
            entry.heard.truncate(MAX_PRESSES - 1);
            entry.heard.push_front((side, digit, Instant::now()));
            entry.key
        };
        let shard = self.events.get(usize::from(key.shard));
        let event = MediaEvent::Dtmf { key, side, digit };
        let counter = match shard.map(|shard| shard.try_send(event)) {
            Some(Ok(())) => &self.presses,
            Some(Err(_)) | None => &self.presses_discarded,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether RTP brought this key, which is then taken for one that came by signalling too.
    pub(crate) fn was_heard(&self, key: MediaKey, told: Told) -> bool {
        let mut sessions = self.sessions();
        let Some(entry) = sessions.get_mut(&key.id) else {
            return false;
        };
        let mut heard = entry.heard.iter();
        let same = heard.position(|(of, digit, at)| {
            (*of, *digit) == (told.side, told.digit)
                && told.came.saturating_duration_since(*at) < ONE_PRESS
        });
        same.and_then(|at| entry.heard.remove(at)).is_some()
    }

    pub(crate) fn has_instance_at(&self, address: IpAddr) -> bool {
        let mut instances = self.instances.iter();
        instances.any(|instance| instance.address.ip().to_canonical() == address)
    }

    /// All of them, the least busy of those that answer first.
    pub(crate) fn in_turn(&self) -> Vec<Arc<Instance>> {
        let mut all = self.instances.clone();
        all.sort_by_key(|instance| {
            let sessions = instance.sessions.load(Ordering::Relaxed);
            (!instance.is_up(), sessions)
        });
        all
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
