//! Status updates from other switches on their way into the store: one task gathers what waits
//! into groups, has each committed, tells the delivery in the order of the commits, and answers.
//! It also closes sessions of which nothing is heard any more.
//!
//! What lives elsewhere: the rules (`maskline-switch`), the transaction (`maskline-store`), reading
//! requests (`maskline-http`).

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use maskline_events::{ReportedEvent, Timestamp};
use maskline_http::{CallEventSink, NotReported};
use maskline_store::{
    CallEvents, CommittedEvents, EventRow, ReportRequest, Reported, ReportedGroup, ReportedRules,
    StoreError, TakenReport,
};
use maskline_switch::reported::{Refusal, ReportedSession, SessionName};
use maskline_switch::{Directory, RecordedEvent};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Updates that may wait or be written at once; more are refused. At 1 kB each some 20 MB.
const MOST_WAITING: usize = 20_000;
/// Updates of one commit, unless a single request has more.
const GROUP: usize = 2_000;
/// Sessions that are closed in one commit.
const CLOSED_AT_ONCE: u32 = 100;
/// The longest time between two looks for idle sessions: the clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Until the next look, when the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Reads the clock.
pub(crate) type Clock = fn() -> Timestamp;

/// The way in for requests. The task ends when the last one is dropped and all is answered.
pub(crate) struct Reports {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    counters: Arc<ReportCounters>,
}

/// What the intake has done since the start.
#[derive(Debug, Default)]
pub(crate) struct ReportCounters {
    /// Updates that made an event.
    pub(crate) accepted: AtomicU64,
    /// Updates whose key was known.
    pub(crate) repeated: AtomicU64,
    /// Requests that were refused because there was no room.
    pub(crate) busy: AtomicU64,
    /// Requests that the store failed.
    pub(crate) failed: AtomicU64,
    /// Commits.
    pub(crate) groups: AtomicU64,
    /// Sessions that were closed because nothing was heard of them.
    pub(crate) closed: AtomicU64,
    /// Updates that wait or are being written.
    pub(crate) waiting: AtomicU64,
}

struct Waiting {
    request: ReportRequest,
    answer: oneshot::Sender<Result<Vec<TakenReport>, NotReported>>,
    _room: OwnedSemaphorePermit,
}

impl Reports {
    /// Starts the task on `runtime`. The directory says what sub-accounts add to their events.
    pub(crate) fn start<S: CallEvents>(
        store: Arc<S>,
        delivery: Arc<dyn CommittedEvents>,
        idle: Duration,
        directory: watch::Receiver<Arc<Directory>>,
        clock: Clock,
        runtime: &Handle,
    ) -> (Arc<Self>, JoinHandle<()>) {
        let counters = Arc::new(ReportCounters::default());
        // Each request has an update at least: there is room here for all that have a permit.
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let intake = Intake {
            store,
            rules: Arc::new(Rules { idle, directory }),
            delivery,
            clock,
            counters: Arc::clone(&counters),
            next_look: Some(clock()),
        };
        let task = runtime.spawn(intake.run(waiting));
        let reports = Self {
            queue,
            room: Arc::new(Semaphore::new(MOST_WAITING)),
            counters,
        };
        (Arc::new(reports), task)
    }

    pub(crate) fn counters(&self) -> Arc<ReportCounters> {
        Arc::clone(&self.counters)
    }
}

#[async_trait]
impl CallEventSink for Reports {
    async fn report(
        &self,
        sub_account_id: String,
        events: Vec<ReportedEvent>,
    ) -> Result<Vec<TakenReport>, NotReported> {
        let busy = || {
            self.counters.busy.fetch_add(1, Ordering::Relaxed);
            NotReported::Busy
        };
        let size = u32::try_from(events.len()).map_err(|_| busy())?;
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(size)
            .map_err(|_| busy())?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            request: ReportRequest {
                sub_account_id,
                events,
            },
            answer,
            _room: room,
        };
        let level = &self.counters.waiting;
        level.fetch_add(u64::from(size), Ordering::Relaxed);
        if self.queue.try_send(waiting).is_err() {
            level.fetch_sub(u64::from(size), Ordering::Relaxed);
            return Err(busy());
        }
        // The task dies by a panic only.
        answered.await.unwrap_or_else(|_| {
            Err(NotReported::Failed(StoreError::Unavailable {
                place: "the intake of reports".to_owned(),
                reason: "its task has ended".to_owned(),
            }))
        })
    }
}

struct Intake<S> {
    store: Arc<S>,
    rules: Arc<Rules>,
    delivery: Arc<dyn CommittedEvents>,
    clock: Clock,
    counters: Arc<ReportCounters>,
    /// When to look for idle sessions, by the wall clock.
    next_look: Option<Timestamp>,
}

impl<S: CallEvents> Intake<S> {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        loop {
            tokio::select! {
                first = queue.recv() => match first {
                    Some(first) => self.take(first, &mut queue).await,
                    None => return,
                },
                () = tokio::time::sleep(self.until_look()) => self.close_idle().await,
            }
        }
    }

    fn until_look(&self) -> Duration {
        let Some(next) = self.next_look else {
            return LOOK_EVERY;
        };
        let ms = next.unix_ms().saturating_sub((self.clock)().unix_ms());
        Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(LOOK_EVERY)
    }

    /// Has what waits now committed as one group.
    async fn take(&mut self, first: Waiting, queue: &mut mpsc::Receiver<Waiting>) {
        let mut size = first.request.events.len();
        let mut requests = Vec::new();
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(Waiting {
            request,
            answer,
            _room: room,
        }) = next
        {
            requests.push(request);
            answers.push((answer, room));
            next = (size < GROUP).then(|| queue.try_recv().ok()).flatten();
            size += next.as_ref().map_or(0, |it| it.request.events.len());
        }
        let rules = Arc::clone(&self.rules);
        let reported = self.store.report(requests, rules, (self.clock)()).await;
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        let size = u64::try_from(size).unwrap_or(0);
        self.counters.waiting.fetch_sub(size, Ordering::Relaxed);
        let results = self.results(reported, answers.len());
        for ((answer, _room), result) in answers.into_iter().zip(results) {
            // Who no longer waits does not need it.
            let _ = answer.send(result);
        }
    }

    /// Tells the delivery what is durable, and makes each request's answer.
    fn results(
        &mut self,
        reported: Result<ReportedGroup<Refusal>, StoreError>,
        requests: usize,
    ) -> Vec<Result<Vec<TakenReport>, NotReported>> {
        let group = match reported {
            Ok(group) => group,
            Err(error) => {
                let failed = u64::try_from(requests).unwrap_or(0);
                self.counters.failed.fetch_add(failed, Ordering::Relaxed);
                return (0..requests)
                    .map(|_| Err(NotReported::Failed(of_all(&error))))
                    .collect();
            }
        };
        self.delivery.committed(group.events);
        self.next_look = match (self.next_look, group.idle_at) {
            (Some(next), Some(idle_at)) => Some(next.min(idle_at)),
            (next, idle_at) => next.or(idle_at),
        };
        group
            .answers
            .into_iter()
            .map(|it| self.result(it))
            .collect()
    }

    fn result(&self, reported: Reported<Refusal>) -> Result<Vec<TakenReport>, NotReported> {
        match reported {
            Reported::Taken(taken) => {
                let repeated = taken.iter().filter(|it| it.repeated).count();
                let count = |counter: &AtomicU64, number: usize| {
                    counter.fetch_add(u64::try_from(number).unwrap_or(0), Ordering::Relaxed);
                };
                count(&self.counters.repeated, repeated);
                count(&self.counters.accepted, taken.len() - repeated);
                Ok(taken)
            }
            Reported::Refused { index, refusal } => {
                metrics::counter!("maskline_reports_refused_total", "reason" => refusal.label())
                    .increment(1);
                Err(NotReported::Refused {
                    index,
                    reason: refusal.to_string(),
                })
            }
            Reported::Failed(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                Err(NotReported::Failed(error))
            }
        }
    }

    async fn close_idle(&mut self) {
        let now = (self.clock)();
        let rules = Arc::clone(&self.rules);
        match self.store.close_idle(rules, now, CLOSED_AT_ONCE).await {
            Ok(closed) => {
                self.delivery.committed(closed.events);
                let sessions = u64::try_from(closed.sessions).unwrap_or(0);
                self.counters.closed.fetch_add(sessions, Ordering::Relaxed);
                for session in closed.unreadable {
                    tracing::error!(%session, "a reported session can't be read: it stays as it is and gets no summary");
                }
                self.next_look = closed.next;
            }
            Err(error) => {
                tracing::warn!(%error, "idle reported sessions can't be closed now");
                let later = i64::try_from(AFTER_FAILURE.as_millis()).unwrap_or(i64::MAX);
                self.next_look = Some(now.plus_ms(later));
            }
        }
    }
}

/// The error of a group, for one of its requests.
fn of_all(error: &StoreError) -> StoreError {
    StoreError::Unavailable {
        place: "the intake of reports".to_owned(),
        reason: error.to_string(),
    }
}

/// The pure rules, as the store applies them.
struct Rules {
    /// After how long without a report a session is closed, unless a report says otherwise.
    idle: Duration,
    directory: watch::Receiver<Arc<Directory>>,
}

impl Rules {
    fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.borrow())
    }

    fn row(sub_account_id: &str, session_id: Uuid, event: RecordedEvent) -> EventRow {
        EventRow {
            event_id: event.event_id,
            session_id,
            sub_account_id: sub_account_id.to_owned(),
            ordinal: event.ordinal,
            webhook_type: event.webhook_type,
            at: event.at,
            body: event.body,
        }
    }
}

impl ReportedRules for Rules {
    type Session = ReportedSession;
    type Refusal = Refusal;

    fn begin(&self) -> ReportedSession {
        ReportedSession::new(self.idle)
    }

    fn read(&self, bytes: &[u8]) -> Result<ReportedSession, String> {
        ReportedSession::from_bytes(bytes).map_err(|error| error.to_string())
    }

    fn write(&self, session: &ReportedSession) -> Vec<u8> {
        session.to_bytes()
    }

    fn idle_at(&self, session: &ReportedSession, now: Timestamp) -> Option<Timestamp> {
        let idle = session.idle()?;
        Some(now.plus_ms(i64::try_from(idle.as_millis()).unwrap_or(i64::MAX)))
    }

    fn report(
        &self,
        session: &mut ReportedSession,
        sub_account_id: &str,
        event: &ReportedEvent,
        now: Timestamp,
    ) -> Result<Vec<EventRow>, Refusal> {
        let directory = self.directory();
        let name = SessionName {
            id: event.session_id,
            sub_account_id,
            parameters: directory.parameters(sub_account_id),
        };
        let made = session.report(name, event, now, &mut Uuid::now_v7)?;
        let rows = made.into_iter();
        Ok(rows
            .map(|it| Self::row(sub_account_id, event.session_id, it))
            .collect())
    }

    fn close_idle(
        &self,
        session: &mut ReportedSession,
        sub_account_id: &str,
        session_id: Uuid,
        now: Timestamp,
    ) -> Vec<EventRow> {
        let directory = self.directory();
        let name = SessionName {
            id: session_id,
            sub_account_id,
            parameters: directory.parameters(sub_account_id),
        };
        let made = session.close_idle(name, now, &mut Uuid::now_v7);
        made.into_iter()
            .map(|it| Self::row(sub_account_id, session_id, it))
            .collect()
    }

    fn foreign(&self) -> Refusal {
        Refusal::ForeignSession
    }
}
