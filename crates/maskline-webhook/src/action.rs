//! Asking the customer's server what to do with a call (VCA, contract §4).
//!
//! What lives elsewhere: the request's content and what happens with the answer
//! (`maskline-switch`), reading a callflow (`maskline-events`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maskline_events::{Callflow, CallflowFault, WebhookType};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{Answer, EgressClient, Post, SendError};
use crate::clock;
use crate::endpoints::Endpoints;

/// A VCA request.
#[derive(Clone, Debug)]
pub struct ActionRequest {
    /// Whose endpoint is asked.
    pub sub_account_id: String,
    /// The request's `eventId` and `webhook-id`, the same on the second try.
    pub event_id: Uuid,
    /// The envelope, JSON.
    pub body: String,
}

/// What became of a VCA request.
#[derive(Debug)]
pub enum ActionAnswer {
    /// A callflow, checked whole.
    Callflow(Callflow),
    /// The sub-account has no enabled VCA webhook.
    NoEndpoint,
    /// Error -2002: the endpoint can't be reached, is late, or refuses.
    Connectivity(ActionFault),
    /// Error -2003: the answer is no callflow.
    Invalid(CallflowFault),
}

/// Why a VCA endpoint gave no callflow. Its text holds no secret, number or body.
#[derive(Debug, thiserror::Error)]
pub enum ActionFault {
    /// No answer.
    #[error("the VCA endpoint gave no answer: {0}")]
    Send(Arc<SendError>),
    /// An answer that is not 2xx.
    #[error("the VCA endpoint answered {0}")]
    Status(u16),
    /// The store could not say where to ask.
    #[error("the VCA endpoint is unknown: {0}")]
    Store(#[from] maskline_store::StoreError),
}

/// Asks VCA endpoints. Give it an [`EgressClient`] of its own, so that a live call never waits
/// behind deliveries.
#[derive(Clone)]
pub struct CallActionClient {
    client: EgressClient,
    endpoints: Arc<Endpoints>,
    deadline: Duration,
}

impl CallActionClient {
    /// The contract's deadline.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

    /// A client with one `deadline` per request, its second try included.
    #[must_use]
    pub fn new(client: EgressClient, endpoints: Arc<Endpoints>, deadline: Duration) -> Self {
        Self {
            client,
            endpoints,
            deadline,
        }
    }

    /// Asks, a second time only if the connection failed. Answers within the deadline whatever
    /// the endpoint does. An answer of 410 is a failure like any other and disables nothing: a
    /// webhook that decides about live calls is switched off by people.
    pub async fn ask(&self, request: ActionRequest) -> ActionAnswer {
        let ends = Instant::now() + self.deadline;
        match tokio::time::timeout_at(ends, Box::pin(self.ask_until(request, ends))).await {
            Ok(answer) => answer,
            Err(_) => ActionAnswer::Connectivity(ActionFault::Send(Arc::new(SendError::Timeout(
                self.deadline,
            )))),
        }
    }

    async fn ask_until(&self, request: ActionRequest, ends: Instant) -> ActionAnswer {
        let known = self
            .endpoints
            .lookup(&request.sub_account_id, WebhookType::Vca, clock::wall())
            .await;
        let target = match known {
            Ok(Some(Ok(target))) => target,
            Ok(Some(Err(error))) => {
                return ActionAnswer::Connectivity(ActionFault::Send(error));
            }
            Ok(None) => return ActionAnswer::NoEndpoint,
            Err(error) => return ActionAnswer::Connectivity(error.into()),
        };
        let body = Bytes::from(request.body);
        let mut second = false;
        loop {
            let post = Post {
                event_id: request.event_id,
                body: body.clone(),
                gap: false,
                unix_seconds: clock::wall().unix_ms().div_euclid(1_000),
            };
            let left = ends.saturating_duration_since(Instant::now());
            match self
                .client
                .post(&target, post, Callflow::MAX_BYTES, left)
                .await
            {
                Ok(answer) => return understand(&answer),
                Err(error) if error.is_connection_failure() && !second => second = true,
                Err(SendError::Timeout(_)) => {
                    let error = SendError::Timeout(self.deadline);
                    return ActionAnswer::Connectivity(ActionFault::Send(Arc::new(error)));
                }
                Err(error) => {
                    return ActionAnswer::Connectivity(ActionFault::Send(Arc::new(error)));
                }
            }
        }
    }
}

fn understand(answer: &Answer) -> ActionAnswer {
    if !(200..300).contains(&answer.status) {
        return ActionAnswer::Connectivity(ActionFault::Status(answer.status));
    }
    if answer.truncated {
        return ActionAnswer::Invalid(CallflowFault {
            path: "$".to_owned(),
            reason: format!("is above {} bytes", Callflow::MAX_BYTES),
        });
    }
    match Callflow::parse(&answer.body) {
        Ok(callflow) => ActionAnswer::Callflow(callflow),
        Err(fault) => ActionAnswer::Invalid(fault),
    }
}
