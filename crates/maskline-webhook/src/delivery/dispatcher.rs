//! The shell of deliveries: one task that feeds the lanes and carries out their orders.
//!
//! What decides is in `lanes`, `intake` and `turns`; what one attempt does is in `attempt`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maskline_events::WebhookType;
use maskline_store::{
    AttemptRecord, CommittedEvents, Deliveries, EndpointSettings, EventRow, Outcome, PendingPage,
    SessionBacklog, SettingsDifference, Settlement, Store, StoreError,
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::attempt::Sender;
use super::failing::Failing;
use super::lanes::{Action, Input, Lanes};
use super::own::OwnSettings;
use super::recording::{self, Recording};
use super::told::Told;
use super::turns::EventKey;
use super::{
    AttemptReport, AttemptResult, DeliveryConfig, DeliveryCounters, DeliveryObserver, schedule,
};
use crate::client::EgressClient;
use crate::clock::Clock;
use crate::endpoints::Endpoints;

/// Batches of committed events between the journal and the lanes; what is beyond is read from the
/// store.
const INTAKE: usize = 4_096;
/// How many batches are taken at once.
const GULP: usize = 64;
/// How long running attempts, and then outcomes, are waited for after a drain's deadline.
const GRACE: Duration = Duration::from_secs(2);

/// Delivers events until it is dropped. Made once, shared by reference.
///
/// Dropping it is as good as a crash: what is under way is cut off, and a new dispatcher on the
/// same store goes on.
pub struct Dispatcher {
    intake: mpsc::Sender<Vec<EventRow>>,
    control: mpsc::Sender<Control>,
    replays: mpsc::Sender<Replay>,
    told: Arc<Told>,
    failing: Arc<Failing>,
    counters: Arc<DeliveryCounters>,
    endpoints: Arc<Endpoints>,
    task: AbortHandle,
}

/// What a drain left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Events in memory that are not settled. They, and all that never got into memory, are in
    /// the store.
    pub unsettled: usize,
    /// Outcomes that the store did not take: those events are sent once more after a restart.
    pub unrecorded: usize,
}

struct Control {
    ends: Instant,
    done: oneshot::Sender<Drained>,
}

impl Dispatcher {
    /// Starts delivering: first what the store holds from earlier, and whatever is committed from
    /// now on. `store` and `deliveries` are two sides of the same. Call within a runtime, before the
    /// first event is committed.
    #[must_use]
    pub fn start(
        store: Arc<dyn Store>,
        deliveries: Arc<dyn Deliveries>,
        client: EgressClient,
        config: DeliveryConfig,
        observer: Option<Arc<dyn DeliveryObserver>>,
    ) -> Self {
        let (intake, intake_end) = mpsc::channel(INTAKE);
        let (control, control_end) = mpsc::channel(1);
        let (replays, replays_end) = mpsc::channel(1);
        let told = Arc::new(Told::default());
        let counters = Arc::new(DeliveryCounters::default());
        let own = Arc::new(OwnSettings::new(config.policy(), Arc::clone(&told)));
        let endpoints = Endpoints::new(Arc::clone(&store), *client.policy(), config.endpoint_ttl);
        let endpoints = Arc::new(endpoints.watched(Arc::clone(&own) as _));
        let failing = Arc::new(Failing::new(Arc::clone(&deliveries)));
        let shell = Shell {
            lanes: Lanes::new(&config),
            sender: Arc::new(Sender {
                client,
                endpoints: Arc::clone(&endpoints),
                store,
                deadline: config.attempt_deadline,
                disable_after: config.disable_after,
                failing: Arc::clone(&failing),
                told: Arc::clone(&told),
                counters: Arc::clone(&counters),
            }),
            deliveries,
            page: config.page.max(1),
            clock: Clock::start(),
            random: ChaCha8Rng::try_from_os_rng().unwrap_or_else(|_| ChaCha8Rng::seed_from_u64(0)),
            jobs: JoinSet::new(),
            running: HashMap::new(),
            recording: Recording::default(),
            records: HashMap::new(),
            counters: Arc::clone(&counters),
            observer,
            told: Arc::clone(&told),
            own,
        };
        let task = tokio::spawn(shell.run(intake_end, control_end, replays_end)).abort_handle();
        Self {
            intake,
            control,
            replays,
            told,
            failing,
            counters,
            endpoints,
            task,
        }
    }

    /// Says that a webhook was set, deleted, or its secret rotated, so that the next attempt uses
    /// the new one, and is made soon.
    pub fn endpoint_changed(&self, sub_account_id: &str, webhook_type: WebhookType) {
        self.endpoints.changed(sub_account_id, webhook_type);
        self.failing.changed(sub_account_id, webhook_type);
        self.told.changed((Arc::from(sub_account_id), webhook_type));
    }

    /// Says that a webhook's settings have changed to these. They go for attempts and failures from
    /// now on; what is known of the receiver counts on if its requests stay as they were.
    pub fn settings_changed(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        settings: &EndpointSettings,
        difference: SettingsDifference,
    ) {
        self.endpoints
            .settings_changed(sub_account_id, webhook_type, settings);
        match difference {
            SettingsDifference::Handling => {}
            SettingsDifference::Requests => {
                self.told.changed((Arc::from(sub_account_id), webhook_type));
            }
        }
    }

    /// Says that the store has events of these sessions of a sub-account pending that were settled
    /// before. They go in the order of their lanes, once what is under way of them has ended.
    /// Waits while many are said; a process that ends before it was said goes on with them, too.
    pub async fn replayed(&self, sub_account_id: &str, sessions: Vec<Uuid>) {
        // A dispatcher that has drained sends nothing more; the next process does.
        let _ = self
            .replays
            .send((Arc::from(sub_account_id), sessions))
            .await;
    }

    /// The cache of endpoints, to be shared with a
    /// [`CallActionClient`](crate::action::CallActionClient).
    #[must_use]
    pub fn endpoints(&self) -> Arc<Endpoints> {
        Arc::clone(&self.endpoints)
    }

    /// Counts and levels.
    #[must_use]
    pub fn counters(&self) -> &Arc<DeliveryCounters> {
        &self.counters
    }

    /// Delivers what can be delivered now, and ends. Ends early when all that is left waits for a
    /// retry. From `deadline` on no attempt is started; those that run, and the outcomes on their
    /// way to the store, get two more seconds. Everything else stays in the store.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        let (done, drained) = oneshot::channel();
        let ends = Instant::now() + deadline;
        if self.control.send(Control { ends, done }).await.is_err() {
            return Drained::default();
        }
        drained.await.unwrap_or_default()
    }
}

impl CommittedEvents for Dispatcher {
    fn committed(&self, events: Vec<EventRow>) {
        if !events.is_empty() && self.intake.try_send(events).is_err() {
            self.told.missed();
            self.counters.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a task of the shell is for, should it die without an answer.
enum Job {
    Attempt(EventKey),
    Owners,
    Scan,
    Load(Uuid),
    Record(Vec<Uuid>),
}

type Replay = (Arc<str>, Vec<Uuid>);

enum Done {
    Attempt(EventKey, AttemptResult, Option<AttemptRecord>),
    Owners(Result<Vec<String>, StoreError>),
    Scan(Result<PendingPage, StoreError>),
    Load(Uuid, Result<SessionBacklog, StoreError>),
    Record,
}

struct Shell {
    lanes: Lanes,
    sender: Arc<Sender>,
    deliveries: Arc<dyn Deliveries>,
    page: u32,
    clock: Clock,
    random: ChaCha8Rng,
    jobs: JoinSet<Done>,
    running: HashMap<Id, Job>,
    recording: Recording,
    /// Of attempts that ended and whose outcome the lanes have not yet said.
    records: HashMap<EventKey, AttemptRecord>,
    counters: Arc<DeliveryCounters>,
    observer: Option<Arc<dyn DeliveryObserver>>,
    told: Arc<Told>,
    own: Arc<OwnSettings>,
}

/// What a failing receiver is to the log: two lines for each time, however long it lasts.
fn tell(owner: &str, kind: WebhookType, is_open: bool) {
    let webhook = kind.as_str();
    if is_open {
        tracing::warn!(
            sub_account = owner,
            webhook,
            "webhook fails: it is left alone for a while, and then asked with one request at a time; \
             the attempts of its events say why"
        );
    } else {
        tracing::info!(
            sub_account = owner,
            webhook,
            "webhook is asked as usual again"
        );
    }
}

impl Shell {
    async fn run(
        mut self,
        mut intake: mpsc::Receiver<Vec<EventRow>>,
        mut control: mpsc::Receiver<Control>,
        mut replays: mpsc::Receiver<Replay>,
    ) {
        let mut draining: Option<Control> = None;
        let mut stopped = false;
        let mut batches = Vec::with_capacity(GULP);
        let told = Arc::clone(&self.told);
        self.own.begin(&*self.deliveries).await;
        loop {
            // Ahead of the attempts that follow from what came after it.
            self.hear();
            self.carry_out();
            if draining.is_some() && intake.is_empty() && self.lanes.is_quiet() {
                break;
            }
            let next = self.lanes.deadline().map(|at| self.clock.instant_of(at));
            let ends = draining.as_ref().map(|control| control.ends);
            tokio::select! {
                count = intake.recv_many(&mut batches, GULP) => {
                    if count == 0 {
                        return;
                    }
                    for batch in batches.drain(..) {
                        self.handle(Input::Committed(batch));
                    }
                }
                Some(ended) = self.jobs.join_next_with_id() => {
                    // An attempt's result goes by the settings that it found.
                    self.hear();
                    self.ended(ended);
                }
                Some(command) = control.recv(), if draining.is_none() => {
                    self.handle(Input::Drain);
                    draining = Some(command);
                }
                Some((owner, sessions)) = replays.recv() => {
                    self.handle(Input::Replayed(owner, sessions));
                }
                () = told.said() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.handle(Input::Elapsed);
                }
                () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => {
                    if stopped {
                        break;
                    }
                    stopped = true;
                    self.handle(Input::Stop);
                    if let Some(control) = &mut draining {
                        control.ends += GRACE;
                    }
                }
            }
        }
        let levels = self.lanes.levels();
        if let Some(control) = draining {
            // Nobody waits for the answer if the caller has given up.
            let _ = control.done.send(Drained {
                unsettled: levels.events,
                unrecorded: levels.unrecorded,
            });
        }
    }

    fn hear(&mut self) {
        for input in self.told.take() {
            self.handle(input);
        }
    }

    fn handle(&mut self, input: Input) {
        self.lanes.handle(self.clock.now(), input);
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.lanes.poll() {
            match action {
                Action::Attempt { key, event, gap } => {
                    let sender = Arc::clone(&self.sender);
                    self.spawn(Job::Attempt(key), async move {
                        let (result, record) = sender.attempt(event, gap).await;
                        Done::Attempt(key, result, record)
                    });
                }
                Action::Record {
                    event,
                    outcome,
                    attempt_gap,
                } => self.record(&event, outcome, attempt_gap),
                Action::Owners => {
                    let store = Arc::clone(&self.deliveries);
                    self.spawn(Job::Owners, async move {
                        Done::Owners(store.pending_owners().await)
                    });
                }
                Action::Scan { owner, after } => {
                    let (store, page) = (Arc::clone(&self.deliveries), self.page);
                    self.spawn(Job::Scan, async move {
                        Done::Scan(store.pending(&owner, after, page).await)
                    });
                }
                Action::Load {
                    owner,
                    session,
                    after,
                } => {
                    let (store, page) = (Arc::clone(&self.deliveries), self.page);
                    self.spawn(Job::Load(session), async move {
                        let read = store.backlog(&owner, session, after, page).await;
                        Done::Load(session, read)
                    });
                }
                Action::Breaker {
                    endpoint: (owner, kind),
                    is_open,
                } => tell(&owner, kind, is_open),
                Action::Broken {
                    session,
                    ordinal,
                    reason,
                } => self.broken(session, ordinal, &reason),
            }
        }
        if let Some((sessions, group)) = self.recording.group() {
            let store = Arc::clone(&self.deliveries);
            self.spawn(Job::Record(sessions), async move {
                recording::write(store, group).await;
                Done::Record
            });
        }
        self.counters.level(&self.lanes.levels());
    }

    fn broken(&self, session: Option<Uuid>, ordinal: u64, reason: &str) {
        self.counters.broken_rows.fetch_add(1, Ordering::Relaxed);
        match session {
            Some(session) => tracing::error!(
                %session, ordinal, reason,
                "an undelivered event can't be read: the later ones of its session are not sent \
                 until it is repaired or deleted and this process starts anew"
            ),
            None => tracing::error!(reason, "undelivered events can't be read"),
        }
    }

    fn record(&mut self, event: &EventRow, outcome: Outcome, attempt_gap: Option<bool>) {
        let key = EventKey {
            session: event.session_id,
            ordinal: event.ordinal,
        };
        let mut attempt = None;
        if let Some(gap) = attempt_gap {
            attempt = self.records.remove(&key);
            self.counters.attempted(event, &outcome);
            if let Some(observer) = &self.observer {
                let outcome = outcome.clone();
                let took = attempt.as_ref().map_or(Duration::ZERO, |it| it.duration);
                observer.attempted(event, &AttemptReport { outcome, gap, took });
            }
        }
        self.recording.push(Settlement {
            sub_account_id: event.sub_account_id.clone(),
            session_id: event.session_id,
            ordinal: event.ordinal,
            outcome,
            attempt,
        });
    }

    fn spawn(&mut self, job: Job, task: impl Future<Output = Done> + Send + 'static) {
        let id = self.jobs.spawn(task).id();
        self.running.insert(id, job);
    }

    fn ended(&mut self, ended: Result<(Id, Done), JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        let Some(job) = self.running.remove(&id) else {
            return;
        };
        let input = match (job, done) {
            (_, Some(Done::Attempt(key, result, record))) => {
                if let Some(record) = record {
                    self.records.insert(key, record);
                }
                self.attempted(key, result)
            }
            (Job::Attempt(key), _) => self.attempted(
                key,
                AttemptResult::Failed {
                    status: None,
                    error: "the attempt ended without a result".to_owned(),
                    retry_after: None,
                },
            ),
            (_, Some(Done::Owners(Ok(owners)))) => Input::Owners(owners),
            (_, Some(Done::Scan(Ok(page)))) => Input::Scanned(page),
            (_, Some(Done::Owners(Err(error)) | Done::Scan(Err(error)))) => {
                tracing::warn!(%error, "undelivered events can't be read, trying again");
                Input::ScanFailed
            }
            (Job::Owners | Job::Scan, _) => Input::ScanFailed,
            (_, Some(Done::Load(session, Ok(backlog)))) => Input::Loaded(session, backlog),
            (_, Some(Done::Load(session, Err(error)))) => {
                tracing::warn!(%error, %session, "a session's events can't be read, trying again");
                Input::LoadFailed(session)
            }
            (Job::Load(session), _) => Input::LoadFailed(session),
            (Job::Record(sessions), _) => {
                self.recording.written();
                Input::Recorded(sessions)
            }
        };
        self.handle(input);
    }

    fn attempted(&mut self, key: EventKey, result: AttemptResult) -> Input {
        let bound = schedule::JITTER_PERMILLE;
        Input::Attempted {
            key,
            result,
            jitter_permille: self.random.random_range(-bound..=bound),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_trait::async_trait;
    use maskline_events::Timestamp;
    use maskline_store::{MasterKey, SqliteLocation, SqliteOptions, SqliteStore};
    use tokio::time::timeout;

    use super::*;
    use crate::egress::EgressPolicy;

    /// An empty store that says when it is asked who is behind.
    struct Asked(mpsc::Sender<()>);

    #[async_trait]
    impl Deliveries for Asked {
        async fn pending_owners(&self) -> Result<Vec<String>, StoreError> {
            let _ = self.0.send(()).await;
            Ok(Vec::new())
        }

        async fn pending(
            &self,
            _sub_account_id: &str,
            _after: Option<(Uuid, u64)>,
            _limit: u32,
        ) -> Result<PendingPage, StoreError> {
            Ok(PendingPage::default())
        }

        async fn backlog(
            &self,
            _sub_account_id: &str,
            _session_id: Uuid,
            _after: u64,
            _limit: u32,
        ) -> Result<SessionBacklog, StoreError> {
            Ok(SessionBacklog::default())
        }

        async fn settle(&self, _results: Arc<[Settlement]>) -> Result<(), StoreError> {
            Ok(())
        }

        async fn failing(&self) -> Result<Vec<(String, WebhookType, Timestamp)>, StoreError> {
            Ok(Vec::new())
        }

        async fn note_failing(
            &self,
            _sub_account_id: &str,
            _webhook_type: WebhookType,
            since: Option<Timestamp>,
        ) -> Result<Option<Timestamp>, StoreError> {
            Ok(since)
        }

        async fn disable_failing(
            &self,
            _sub_account_id: &str,
            _webhook_type: WebhookType,
            _since: Timestamp,
        ) -> Result<bool, StoreError> {
            Ok(false)
        }
    }

    #[tokio::test]
    async fn what_was_missed_is_read_although_no_further_event_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let location = SqliteLocation::File(folder.path().join("store.db"));
        let key = MasterKey::from_base64(&format!("{}=", "A".repeat(43))).unwrap();
        let options = SqliteOptions {
            reserve_bytes: 0,
            ..SqliteOptions::default()
        };
        let store = Arc::new(SqliteStore::open(&location, &key, options).unwrap());
        let policy = EgressPolicy {
            allow_private_targets: true,
        };
        let (asks, mut asked) = mpsc::channel(8);
        let dispatcher = Dispatcher::start(
            store,
            Arc::new(Asked(asks)),
            EgressClient::at_most(1, policy).unwrap(),
            DeliveryConfig::default(),
            None,
        );
        let limit = Duration::from_secs(10);
        timeout(limit, asked.recv()).await.unwrap().unwrap();
        // The committer found no place, and says so after what was before it is taken, when the
        // dispatcher waits: on one thread, this many turns are enough for that.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        dispatcher.told.missed();
        timeout(limit, asked.recv()).await.unwrap().unwrap();
    }
}
