//! Status updates of calls that another switch handles (contract §7.6, an addition).
//!
//! What lives elsewhere: what an update makes of its session (`maskline-switch`), writing it
//! (`maskline-store`).

use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use maskline_events::{
    CallDirection, CallStatus, CallType, ErrorDetails, EventData, Happening, Party, ReportFault,
    ReportedEvent, Timestamp,
};
use maskline_store::{StoreError, TakenReport};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::SubAccountAccess;
use crate::error::ApiError;
use crate::extract::OneOrMany;
use crate::state::ApiState;

/// The most updates of one request.
const MOST_EVENTS: usize = 1_000;

/// Takes status updates.
#[async_trait]
pub trait CallEventSink: Send + Sync {
    /// Returns once all of them are durable, with one entry for each; or takes none. If the caller
    /// stops waiting, they may still be taken.
    async fn report(
        &self,
        sub_account_id: String,
        events: Vec<ReportedEvent>,
    ) -> Result<Vec<TakenReport>, NotReported>;
}

/// Why no update of a request was taken.
#[derive(Debug)]
pub enum NotReported {
    /// One does not fit its session.
    Refused {
        /// Which one, from 0.
        index: usize,
        /// Why, for the client.
        reason: String,
    },
    /// More waits to be written than may.
    Busy,
    /// The store failed.
    Failed(StoreError),
}

impl From<NotReported> for ApiError {
    fn from(fault: NotReported) -> Self {
        match fault {
            NotReported::Refused { index, reason } => Self::CallEvent { index, reason },
            NotReported::Busy => Self::Busy,
            NotReported::Failed(error) => Self::Store(error),
        }
    }
}

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(report))
}

/// One step of one leg of a call.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallEvent {
    /// Your name of the call, a UUID that you make.
    #[schema(value_type = String, format = "uuid")]
    session_id: Uuid,
    /// Your name of the leg, a UUID that you make.
    #[schema(value_type = String, format = "uuid")]
    call_id: Uuid,
    /// What happened. An inbound leg begins with `CALL_RECEIVED`, an outbound one with
    /// `CALL_INITIATED`.
    #[schema(value_type = String, pattern = "^(CALL_RECEIVED|CALL_INITIATED|CALL_UPDATED|CALL_CONNECTED|DTMF_RECEIVED|CALL_DISCONNECTED)$")]
    call_status: CallStatus,
    /// `INBOUND`: from a caller. `OUTBOUND`: to a callee. A session has one leg of each at most.
    #[schema(value_type = String, pattern = "^(INBOUND|OUTBOUND)$")]
    call_direction: CallDirection,
    /// `PSTN` if absent.
    #[schema(value_type = Option<String>, pattern = "^(PSTN|VOIP)$")]
    call_type: Option<CallType>,
    /// An MSISDN with or without `+`, or `anonymous`. What the leg's first event says counts.
    #[schema(value_type = String, example = "+6591234567")]
    source: Party,
    /// An MSISDN with or without `+`. What the leg's first event says counts.
    #[schema(value_type = String, example = "+6531001001")]
    destination: Party,
    /// With `CALL_DISCONNECTED`: the leg's final SIP status, 200 if absent. Elsewhere of no account.
    #[schema(minimum = 100, maximum = 699)]
    sip_code: Option<u16>,
    /// When it happened, RFC 3339; now if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    timestamp: Option<Timestamp>,
    /// `{"dtmf":"5"}` with `DTMF_RECEIVED`; `{"update":"RINGING"}` (or `HELD`, `RESUMED`, `MEDIA`)
    /// with `CALL_UPDATED`.
    #[schema(value_type = Option<Object>)]
    event_data: Option<EventData>,
    /// `{"errorCode":-2002,"errorMsg":"…"}` with `CALL_DISCONNECTED`, when your switch ended the leg
    /// for an error.
    #[schema(value_type = Option<Object>)]
    error_details: Option<ErrorDetails>,
    /// Names this update: a repetition gets the first answer. 1 to 128 visible ASCII characters.
    #[schema(min_length = 1, max_length = 128, example = "5f1c-a-received")]
    idempotency_key: String,
    /// From now on the session is closed when nothing is reported of it for so long.
    #[schema(minimum = 1, maximum = 86400)]
    session_idle_seconds: Option<u32>,
}

impl CallEvent {
    fn checked(self) -> Result<ReportedEvent, ReportFault> {
        let happening = Happening::read(
            self.call_status,
            self.call_direction,
            self.sip_code,
            self.event_data,
            self.error_details,
        )?;
        let event = ReportedEvent {
            session_id: self.session_id,
            call_id: self.call_id,
            direction: self.call_direction,
            call_type: self.call_type.unwrap_or(CallType::Pstn),
            source: self.source,
            destination: self.destination,
            timestamp: self.timestamp,
            happening,
            idempotency_key: self.idempotency_key,
            idle: self
                .session_idle_seconds
                .map(|seconds| Duration::from_secs(seconds.into())),
        };
        event.check()?;
        Ok(event)
    }
}

/// One status update, or an array of 1 to 1,000 in the order in which they happened.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "only described: `OneOrMany` reads it")]
#[serde(untagged)]
pub(crate) enum CallEvents {
    /// One.
    One(CallEvent),
    /// Several.
    Many(Vec<CallEvent>),
}

/// The event that an update made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TakenEvent {
    /// The `eventId` of its webhook.
    #[schema(value_type = String, format = "uuid")]
    event_id: Uuid,
    /// Its `sequence` in the session.
    sequence: u64,
}

/// The events that the updates made, in the updates' order.
#[derive(Serialize, ToSchema)]
pub(crate) struct TakenEvents {
    /// One for each update.
    events: Vec<TakenEvent>,
}

/// Takes status updates of calls that another switch handles, all or none of them. They are
/// delivered like those of Maskline's own calls.
#[utoipa::path(post, path = "/api/v1/subaccounts/{subAccountId}/call-events", tag = "call events",
    operation_id = "reportCallEvents",
    params(("subAccountId" = String, Path, description = "The sub-account")),
    request_body = CallEvents,
    responses((status = 202, description = "All of them are durable", body = TakenEvents),
        (status = 409, description = "The update at `index` does not fit its session; none was taken", body = crate::error::ErrorBody),
        (status = 413, description = "The body is above 1024 kB", body = crate::error::ErrorBody),
        (status = 429, description = "Too much waits to be written, or too many failed authentications; see `Retry-After`", body = crate::error::ErrorBody)),
    security(("apiKey" = [])))]
async fn report(
    access: SubAccountAccess,
    State(state): State<ApiState>,
    body: OneOrMany<CallEvent, MOST_EVENTS>,
) -> Result<(StatusCode, Json<TakenEvents>), ApiError> {
    let is_list = body.is_list;
    let events = body.items.into_iter().enumerate();
    let events = events
        .map(|(index, event)| event.checked().map_err(|fault| at(index, is_list, fault)))
        .collect::<Result<Vec<_>, _>>()?;
    let sink = &state.config.call_events;
    let taken = sink.report(access.sub_account_id, events).await?;
    let events = taken
        .into_iter()
        .map(|event| TakenEvent {
            event_id: event.event_id,
            sequence: event.sequence,
        })
        .collect();
    Ok((StatusCode::ACCEPTED, Json(TakenEvents { events })))
}

fn at(index: usize, is_list: bool, fault: ReportFault) -> ApiError {
    if is_list {
        return ApiError::field(&format!("[{index}].{}", fault.field), fault.reason);
    }
    ApiError::field(fault.field, fault.reason)
}
