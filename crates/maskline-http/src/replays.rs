//! Sending events once more. An addition to the contract.

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use maskline_events::{Timestamp, WebhookType};
use maskline_store::{
    DeliveryState, EventHistory, Replay, ReplayOf, ReplayStep, Store, StoreError,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::SubAccountAccess;
use crate::changes::carried_through;
use crate::error::ApiError;
use crate::events::{cursor, position};
use crate::extract::JsonBody;
use crate::state::ApiState;

/// Steps of one replay: 10,000 events, or 400,000 that were looked at.
const STEPS: u32 = 20;

/// Hears of replays.
#[async_trait]
pub trait ReplayedEvents: Send + Sync + 'static {
    /// These sessions of a sub-account have events that are pending again, durably. May wait while too
    /// many are said at once.
    async fn replayed(&self, sub_account_id: &str, sessions: Vec<Uuid>);
}

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(replay))
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Ended {
    /// Acknowledged by a 2xx.
    Delivered,
    /// Every retry was used up, or the receiver answered 410.
    Dead,
    /// There was no enabled webhook of its type.
    NoEndpoint,
}

impl From<Ended> for DeliveryState {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Delivered => Self::Delivered,
            Ended::Dead => Self::Dead,
            Ended::NoEndpoint => Self::NoEndpoint,
        }
    }
}

/// Which events to send once more: `eventId`, or `sessionId`, or `type` with `from` and `to`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplayRequest {
    /// This event.
    #[schema(value_type = Option<String>, format = "uuid")]
    event_id: Option<Uuid>,
    /// Every event of this session.
    #[schema(value_type = Option<String>, format = "uuid")]
    session_id: Option<Uuid>,
    /// Events of this type that happened from `from` to `to`.
    #[schema(value_type = Option<String>, pattern = "^(VCA|VCS|VSS|VRU|VNU)$", example = "VCS")]
    r#type: Option<WebhookType>,
    /// The earliest.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// The latest.
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Only those whose delivery ended so. Without it: any by id, `DEAD` and `NO_ENDPOINT` by time.
    states: Option<Vec<Ended>>,
    /// The `next` of an answer, to go on.
    after: Option<String>,
}

/// Events that will be sent once more.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replayed {
    /// How many. Those whose delivery is not over are not among them: they are sent anyway.
    events: u64,
    /// There may be more: ask again with this as `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "e1fa0")]
    next: Option<String>,
    /// Types that have no enabled webhook now: events of these have nowhere to go and end as
    /// `NO_ENDPOINT` again. Absent: each that was asked for has one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>, nullable = false, example = json!(["VCS"]))]
    without_webhook: Vec<WebhookType>,
    /// 0.
    status_code: i32,
    /// `ok`.
    #[schema(example = "ok")]
    status_message: &'static str,
}

/// Sends events once more: the same `eventId` and body, in order, by the webhook as it is now.
#[utoipa::path(post, path = "/api/v1/subaccounts/{subAccountId}/replays", tag = "events",
    operation_id = "replayEvents",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    request_body = ReplayRequest,
    responses((status = 202, description = "They are durably on their way", body = Replayed),
        (status = 422, description = "Which events is not said, or wrongly", body = crate::error::ErrorBody),
        (status = 429, description = "Sixteen of the sub-account's replays wait for their answer, or too many failed authentications; see `Retry-After`", body = crate::error::ErrorBody)),
    security(("apiKey" = [])))]
async fn replay(
    access: SubAccountAccess,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<ReplayRequest>,
) -> Result<(StatusCode, Json<Replayed>), ApiError> {
    let after = position(body.after.as_deref())?.unwrap_or(0);
    let line = access.line().to_owned();
    let replay = checked(body, access.sub_account_id)?;
    let turn = state.replaying.turn(&line).await?;
    let without_webhook = without_webhook(state.store(), &replay).await?;
    let now = state.now();
    // What is pending again is told, whether the client waits for the answer or not.
    let (events, next) = carried_through(async move {
        let done = replayed(
            state.history(),
            &*state.config.replayed,
            &replay,
            after,
            now,
        )
        .await;
        drop(turn);
        Ok(done?)
    })
    .await?;
    let answer = Replayed {
        events,
        next: next.map(cursor),
        without_webhook,
        status_code: 0,
        status_message: "ok",
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// Of the types of events that are asked for, those that have no enabled webhook.
async fn without_webhook(
    store: &dyn Store,
    replay: &Replay,
) -> Result<Vec<WebhookType>, StoreError> {
    let mut without = match replay.of {
        ReplayOf::Time { webhook_type, .. } => vec![webhook_type],
        ReplayOf::Event(_) | ReplayOf::Session(_) => vec![WebhookType::Vcs, WebhookType::Vss],
    };
    for webhook in store.webhooks(&replay.sub_account_id).await? {
        without.retain(|kind| !webhook.enabled || *kind != webhook.webhook_type);
    }
    Ok(without)
}

async fn replayed(
    history: &dyn EventHistory,
    sink: &dyn ReplayedEvents,
    replay: &Replay,
    after: u64,
    now: Timestamp,
) -> Result<(u64, Option<u64>), StoreError> {
    let (mut events, mut next) = (0, Some(after));
    for _ in 0..STEPS {
        let Some(after) = next else {
            break;
        };
        let step: ReplayStep = history.replay(replay, after, now).await?;
        if !step.sessions.is_empty() {
            sink.replayed(&replay.sub_account_id, step.sessions).await;
        }
        events += step.events;
        next = step.next;
    }
    Ok((events, next))
}

fn checked(body: ReplayRequest, sub_account_id: String) -> Result<Replay, ApiError> {
    const WHICH: &str = "needs `eventId`, or `sessionId`, or `type`, `from` and `to`";
    let times = (body.r#type, body.from, body.to);
    let (of, default) = match (body.event_id, body.session_id, times) {
        (Some(id), None, (None, None, None)) => (ReplayOf::Event(id), ANY),
        (None, Some(id), (None, None, None)) => (ReplayOf::Session(id), ANY),
        (None, None, (Some(webhook_type), Some(from), Some(to))) => {
            if from > to {
                return Err(ApiError::field("to", "is before `from`"));
            }
            let time = ReplayOf::Time {
                webhook_type,
                from,
                to,
            };
            (time, FAILED)
        }
        _ => return Err(ApiError::field("body", WHICH)),
    };
    let states = match body.states {
        None => default.to_vec(),
        Some(states) if states.is_empty() => {
            return Err(ApiError::field("states", "is empty"));
        }
        Some(states) => states.into_iter().map(DeliveryState::from).collect(),
    };
    Ok(Replay {
        sub_account_id,
        of,
        states,
    })
}

const ANY: &[DeliveryState] = &[
    DeliveryState::Delivered,
    DeliveryState::Dead,
    DeliveryState::NoEndpoint,
];
const FAILED: &[DeliveryState] = &[DeliveryState::Dead, DeliveryState::NoEndpoint];
