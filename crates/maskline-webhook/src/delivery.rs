//! Delivering events from the journal to webhooks: at least once, in order per lane (an endpoint
//! and a session), with retries, over restarts.
//!
//! What decides is pure (`lanes`, `turns`, `rings`, `breaker`, `policy`, `schedule`): it reads no clock, draws nothing and
//! does no IO. `dispatcher` is its shell. What lives elsewhere: what an event says
//! (`maskline-switch`), keeping it (`maskline-store`).

mod attempt;
pub mod breaker;
pub mod counters;
pub mod dispatcher;
mod failing;
mod intake;
mod lanes;
mod own;
pub mod policy;
mod recording;
mod rings;
mod room;
mod running;
pub mod schedule;
mod told;
mod turns;

use std::time::Duration;

use maskline_store::{EventRow, Outcome};

pub use breaker::BreakerConfig;
pub use counters::{DeliveryCounters, LAG_BOUNDS_MS, TypeCounters};
pub use dispatcher::{Dispatcher, Drained};
pub use policy::{EndpointPolicy, Rate};
pub use schedule::Schedule;

/// How deliveries are made. [`Default`] is the contract's.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryConfig {
    /// One attempt, from DNS to the last byte of the answer.
    pub attempt_deadline: Duration,
    /// When to try again, and for how long an event holds its lane back, unless an endpoint's
    /// policy says otherwise.
    pub schedule: Schedule,
    /// Most attempts at once to one endpoint; half of them may be retries.
    pub per_endpoint: usize,
    /// Most attempts per second to one endpoint; `None`: no limit.
    pub rate: Option<Rate>,
    /// Most attempts at once while endpoints have more than four each; as many again are for
    /// endpoints with fewer, half of these for those with one.
    pub in_all: usize,
    /// When an endpoint that fails is left alone.
    pub breaker: BreakerConfig,
    /// Most events in memory; what is beyond stays in the store until there is room.
    pub events_in_memory: usize,
    /// Most outcomes that wait for the store; beyond that no attempt is started.
    pub unrecorded: usize,
    /// After how long with nothing but failures a webhook is disabled; `None`: never.
    pub disable_after: Option<Duration>,
    /// How long an endpoint's configuration may be used without asking the store again.
    pub endpoint_ttl: Duration,
    /// Events per page when the store is read.
    pub page: u32,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            attempt_deadline: Duration::from_secs(10),
            schedule: Schedule::default(),
            per_endpoint: 32,
            rate: None,
            in_all: 512,
            breaker: BreakerConfig::default(),
            events_in_memory: 100_000,
            unrecorded: 20_000,
            disable_after: Some(Duration::from_secs(5 * 86_400)),
            endpoint_ttl: Duration::from_secs(5),
            page: 500,
        }
    }
}

impl DeliveryConfig {
    /// What is done for an endpoint that has set nothing for itself.
    #[must_use]
    pub fn policy(&self) -> EndpointPolicy {
        EndpointPolicy {
            cap: self.per_endpoint.max(1),
            rate: self.rate,
            schedule: self.schedule.clone(),
        }
    }
}

/// Most bytes of an answer that are read; the rest is dropped with its connection.
pub const ANSWER_BYTES: usize = 16 * 1024;

/// Hears of each attempt, in order within a lane. Called on the dispatcher's task: it must not
/// block, and it is told before the outcome is in the store.
pub trait DeliveryObserver: Send + Sync + 'static {
    /// An attempt ended, or there was no endpoint to try.
    fn attempted(&self, event: &EventRow, attempt: &AttemptReport);
}

/// What an observer is told.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptReport {
    /// Where the delivery stands now.
    pub outcome: Outcome,
    /// Whether the request said `webhook-gap: true`.
    pub gap: bool,
    /// From connecting to the answer's last byte; zero if no request was made.
    pub took: Duration,
}

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AttemptResult {
    /// A whole 2xx answer.
    Delivered { status: u16 },
    /// 410: the receiver wants no more.
    Gone,
    /// Another status, or no whole answer.
    Failed {
        status: Option<u16>,
        error: String,
        retry_after: Option<Duration>,
    },
    /// There is no enabled webhook.
    NoEndpoint,
    /// The store could not say where to: this was no attempt.
    Postponed,
}
