//! One shard's task: what happened outside goes in, what the shard orders is done.
//!
//! The task waits only for its inputs and, for milliseconds, for room in a socket's buffer. The
//! time is read once per batch of inputs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use maskline_events::{ErrorDetails, SessionStatus, Timestamp};
use maskline_media::{Engine, MediaCommand, MediaEvent, Tick};
use maskline_store::JournalReport;
use maskline_switch::sip::{Peer, Transport};
use maskline_switch::{
    Action, Admission, CallflowAnswer, Directory, Input, Now, SessionKey, Shard, TargetKey,
    TrunkTargets,
};
use metrics::Gauge;
use tokio::sync::{Barrier, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::callflow::CallflowSource;
use crate::commits::Commits;
use crate::media_keys::MediaKeys;
use crate::queue::Arrivals;
use crate::tcp::Connections;
use crate::traces::TraceSink;
use crate::trunks::Trunks;
use crate::udp::{Outlet, Sent};

/// Inputs that are handled between two looks at the clock and at the other queues.
const BATCH: usize = 64;

/// Where the drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Drain {
    /// Calls are taken.
    Open,
    /// No new calls.
    Started,
    /// Live calls are ended.
    Ended,
}

/// What the node's owner wants; the last word counts.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) directory: Arc<Directory>,
    pub(crate) drain: Drain,
    /// Where trunks can be reached.
    pub(crate) targets: Arc<TrunkTargets>,
    /// Which of those addresses do not answer.
    pub(crate) down: Arc<BTreeSet<TargetKey>>,
}

/// What a shard hears.
pub(crate) struct Inbox {
    pub(crate) arrivals: Arrivals,
    pub(crate) failures: mpsc::Receiver<Peer>,
    pub(crate) media: mpsc::Receiver<MediaEvent>,
    pub(crate) journal: mpsc::Receiver<JournalReport>,
    pub(crate) orders: watch::Receiver<Orders>,
    pub(crate) stop: CancellationToken,
}

/// What carries out a shard's orders.
pub(crate) struct Outside {
    pub(crate) udp: Outlet,
    pub(crate) tcp: Arc<Connections>,
    pub(crate) media: Arc<dyn Engine>,
    pub(crate) media_keys: Arc<MediaKeys>,
    pub(crate) commits: Commits,
    pub(crate) admission: Arc<Mutex<Admission>>,
    pub(crate) questions: Questions,
    pub(crate) trunks: Trunks,
    pub(crate) traces: Option<Arc<dyn TraceSink>>,
    /// By which all shards are told.
    pub(crate) orders: watch::Sender<Orders>,
}

/// What an earlier run left to a shard.
pub(crate) struct Found {
    pub(crate) snapshots: Vec<Vec<u8>>,
    /// How long no process ran.
    pub(crate) away: Option<Duration>,
    /// Passed when every shard has adopted what it found.
    pub(crate) all_adopted: Arc<Barrier>,
}

/// One shard and all that it is connected to.
pub(crate) struct ShardTask {
    shard: Shard,
    inbox: Inbox,
    outside: Outside,
    /// The origin of the ticks.
    start: Instant,
    drain: Drain,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    /// Answers to orders that could be given at once.
    answers: VecDeque<Input>,
    level: Arc<Level>,
    gauge: Gauge,
    waiting: Gauge,
}

/// What a shard tells of itself.
#[derive(Debug, Default)]
pub(crate) struct Level {
    sessions: AtomicUsize,
    /// The drain that the sessions are counted after.
    drain: AtomicU8,
}

impl Level {
    /// Sessions that are not over, once the shard has heard of this drain; until then at least one.
    pub(crate) fn sessions_after(&self, drain: Drain) -> usize {
        let heard = self.drain.load(Ordering::Acquire) >= drain as u8;
        let sessions = self.sessions.load(Ordering::Relaxed);
        sessions.max(usize::from(!heard))
    }
}

/// Something that has happened.
enum Fact {
    Input(Input),
    Journal(JournalReport),
    Answered(Result<(Id, CallflowAnswer), JoinError>),
    /// The owner has new orders: they are looked at before any fact.
    Orders,
    Stop,
}

impl ShardTask {
    pub(crate) fn new(
        number: u16,
        shard: Shard,
        inbox: Inbox,
        outside: Outside,
        start: Instant,
        level: Arc<Level>,
    ) -> Self {
        Self {
            shard,
            inbox,
            outside,
            start,
            drain: Drain::Open,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: false,
            answers: VecDeque::new(),
            level,
            gauge: metrics::gauge!("maskline_sessions", "shard" => number.to_string()),
            waiting: metrics::gauge!("maskline_sip_queue_messages", "shard" => number.to_string()),
        }
    }

    /// Adopts the sessions that were `found`, then runs until the node stops.
    pub(crate) async fn run(mut self, found: Found) {
        let now = self.now();
        self.take_orders(now).await;
        for snapshot in found.snapshots {
            let away = found.away;
            self.take(now, Input::SessionFound { snapshot, away }).await;
        }
        // A call of another shard shall not take the ports of one that goes on.
        if found.all_adopted.wait().await.is_leader() {
            self.outside.media.adopted();
        }
        let mut facts = Vec::with_capacity(BATCH);
        loop {
            self.settle();
            self.hear(&mut facts).await;
            let now = self.now();
            // Before what came after them: an INVITE that follows the start of a drain is refused.
            if self.inbox.orders.has_changed().unwrap_or(false) {
                self.take_orders(now).await;
            }
            for fact in facts.drain(..) {
                match fact {
                    Fact::Input(input) => self.take(now, input).await,
                    Fact::Journal(report) => {
                        if let Some(input) = self.outside.commits.report(report) {
                            self.take(now, input).await;
                        }
                    }
                    Fact::Answered(answer) => {
                        if let Some(input) = self.outside.questions.answered(answer) {
                            self.take(now, input).await;
                        }
                    }
                    Fact::Orders => {}
                    Fact::Stop => return,
                }
            }
            self.outside.commits.retry();
            if let Some(input) = self.outside.commits.news() {
                self.take(now, input).await;
            }
        }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            tick: Tick::from_start(self.start.elapsed()),
            wall: Timestamp::from_unix_ms(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    /// Sets the timer and publishes the level.
    fn settle(&mut self) {
        let deadline = self.shard.deadline().map(|at| {
            let at = self.start.checked_add(at.since_start());
            tokio::time::Instant::from_std(at.unwrap_or(self.start))
        });
        let retry = self.outside.commits.retry_at();
        let next = match (deadline, retry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        self.armed = next.is_some();
        if let Some(next) = next
            && self.timer.deadline() != next
        {
            self.timer.as_mut().reset(next);
        }
        let sessions = self.shard.sessions();
        if self.level.sessions.swap(sessions, Ordering::Relaxed) != sessions {
            self.gauge.set(sessions as f64);
        }
        self.waiting.set(self.inbox.arrivals.waiting() as f64);
        self.level.drain.store(self.drain as u8, Ordering::Release);
    }

    /// Waits until something has happened.
    async fn hear(&mut self, facts: &mut Vec<Fact>) {
        let inbox = &mut self.inbox;
        tokio::select! {
            () = inbox.stop.cancelled() => facts.push(Fact::Stop),
            () = &mut self.timer, if self.armed => {
                facts.push(Fact::Input(Input::DeadlineReached));
            }
            Some(report) = inbox.journal.recv() => {
                facts.push(Fact::Journal(report));
                gather(facts, &mut inbox.journal, Fact::Journal);
            }
            Some(event) = inbox.media.recv() => {
                facts.push(Fact::Input(Input::Media(event)));
                gather(facts, &mut inbox.media, |event| Fact::Input(Input::Media(event)));
            }
            Some(arrival) = inbox.arrivals.recv() => {
                facts.push(Fact::Input(Input::MessageArrived(arrival)));
                while facts.len() < BATCH
                    && let Some(next) = inbox.arrivals.try_recv()
                {
                    facts.push(Fact::Input(Input::MessageArrived(next)));
                }
            }
            Some(peer) = inbox.failures.recv() => {
                facts.push(Fact::Input(Input::TransportFailed(peer)));
            }
            Some(answer) = self.outside.questions.next() => facts.push(Fact::Answered(answer)),
            Ok(()) = inbox.orders.changed() => {
                inbox.orders.mark_changed();
                facts.push(Fact::Orders);
            }
        }
    }

    async fn take_orders(&mut self, now: Now) {
        let orders = self.inbox.orders.borrow_and_update().clone();
        self.take(now, Input::DirectoryChanged(orders.directory))
            .await;
        self.take(now, Input::TrunkTargets(orders.targets)).await;
        self.take(now, Input::TargetsDown(orders.down)).await;
        if orders.drain >= Drain::Started && self.drain < Drain::Started {
            self.take(now, Input::DrainStarted).await;
        }
        if orders.drain >= Drain::Ended && self.drain < Drain::Ended {
            self.take(now, Input::DrainEnded).await;
        }
        self.drain = self.drain.max(orders.drain);
    }

    /// Lets the shard handle an input and does what it orders, and so with each answer that comes
    /// at once.
    async fn take(&mut self, now: Now, input: Input) {
        self.answers.push_back(input);
        while let Some(input) = self.answers.pop_front() {
            self.shard.handle(now, input);
            while let Some(action) = self.shard.poll() {
                if let Action::Media(
                    MediaCommand::Open { key, .. } | MediaCommand::Resume { key, .. },
                ) = &action
                    && let Some(session_id) = self.shard.session_id(key.id)
                {
                    self.outside.media_keys.put(session_id, *key);
                }
                let answer = self.outside.perform(now, action).await;
                self.answers.extend(answer);
            }
        }
    }
}

/// Takes what else is waiting, up to a batch.
fn gather<T>(facts: &mut Vec<Fact>, queue: &mut mpsc::Receiver<T>, fact: impl Fn(T) -> Fact) {
    while facts.len() < BATCH
        && let Ok(next) = queue.try_recv()
    {
        facts.push(fact(next));
    }
}

impl Outside {
    /// Does what a shard orders; returns the answer if there is one at once.
    async fn perform(&mut self, now: Now, action: Action) -> Option<Input> {
        match action {
            Action::Send { peer, bytes } => match peer.transport {
                Transport::Tcp | Transport::Tls => {
                    self.tcp.send(peer, bytes);
                    None
                }
                Transport::Udp => match self.udp.send(peer, &bytes).await {
                    Sent::Away => None,
                    Sent::Unreachable => Some(Input::TransportFailed(peer)),
                },
            },
            Action::Commit { id, record } => self.commits.submit(id, record),
            Action::AskCallflow {
                session,
                sub_account_id,
                event_id,
                body,
            } => self.questions.ask(session, sub_account_id, event_id, body),
            Action::Admit {
                session,
                side,
                trunk,
                source,
            } => {
                let result = self.limits().admit(now.tick, trunk, side, source);
                Some(Input::Admission {
                    session,
                    side,
                    trunk,
                    result,
                })
            }
            Action::Occupy { trunk } => {
                self.limits().occupy(trunk);
                None
            }
            Action::Release { trunk } => {
                self.limits().release(trunk);
                None
            }
            Action::TrunkRegistered { trunk, state } => {
                self.trunks.registered(trunk, state);
                None
            }
            Action::TargetsDown(down) => {
                self.orders.send_modify(|orders| orders.down = down);
                None
            }
            Action::Media(command) => self.media.command(command).map(Input::Media),
            Action::Count(reason) => {
                metrics::counter!("maskline_switch_events_total", "reason" => reason).increment(1);
                None
            }
            Action::Warn { session_id, text } => {
                tracing::warn!(%session_id, "{text}");
                None
            }
            Action::Trace(entry) => {
                if let Some(traces) = &self.traces {
                    traces.take(entry);
                }
                None
            }
            Action::Ended {
                session_id,
                sub_account_id,
                status,
                error,
            } => {
                self.media_keys.remove(session_id);
                log_end(session_id, &sub_account_id, status, error.as_ref());
                None
            }
        }
    }

    fn limits(&self) -> std::sync::MutexGuard<'_, Admission> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_end(
    session_id: Uuid,
    sub_account_id: &str,
    status: SessionStatus,
    error: Option<&ErrorDetails>,
) {
    let status = match status {
        SessionStatus::Completed => "completed",
        SessionStatus::NoAnswer => "no_answer",
        SessionStatus::Busy => "busy",
        SessionStatus::Failed => "failed",
        SessionStatus::Canceled => "canceled",
        SessionStatus::Error => "error",
    };
    metrics::counter!("maskline_sessions_ended_total", "status" => status).increment(1);
    let error_code = error.map(|error| error.error_code.code());
    tracing::info!(%session_id, sub_account_id, status, error_code, "session ended");
}

/// The VCA requests of one shard that are not answered.
pub(crate) struct Questions {
    source: Arc<dyn CallflowSource>,
    most: usize,
    asking: JoinSet<CallflowAnswer>,
    sessions: HashMap<Id, SessionKey>,
}

impl Questions {
    pub(crate) fn new(source: Arc<dyn CallflowSource>, most: usize) -> Self {
        Self {
            source,
            most,
            asking: JoinSet::new(),
            sessions: HashMap::new(),
        }
    }

    /// Asks; the answer comes by [`Self::next`], or is returned when too many are asked already.
    fn ask(
        &mut self,
        session: SessionKey,
        sub_account_id: String,
        event_id: Uuid,
        body: String,
    ) -> Option<Input> {
        if self.asking.len() >= self.most {
            metrics::counter!("maskline_callflow_requests_refused_total").increment(1);
            return Some(Input::CallflowAnswered {
                session,
                answer: CallflowAnswer::Unreachable("too many requests are waiting".to_owned()),
            });
        }
        let source = Arc::clone(&self.source);
        let task = self
            .asking
            .spawn(async move { source.ask(sub_account_id, event_id, body).await });
        self.sessions.insert(task.id(), session);
        None
    }

    async fn next(&mut self) -> Option<Result<(Id, CallflowAnswer), JoinError>> {
        self.asking.join_next_with_id().await
    }

    /// Whose answer it is. A request that panicked touched nothing of the shard: its call ends as if
    /// the endpoint had not answered.
    fn answered(&mut self, answer: Result<(Id, CallflowAnswer), JoinError>) -> Option<Input> {
        let (id, answer) = match answer {
            Ok(answered) => answered,
            Err(error) => {
                tracing::error!(%error, "asking a VCA endpoint failed, which is a bug");
                let answer = CallflowAnswer::Unreachable("the request was given up".to_owned());
                (error.id(), answer)
            }
        };
        let session = self.sessions.remove(&id)?;
        Some(Input::CallflowAnswered { session, answer })
    }
}
