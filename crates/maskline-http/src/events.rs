//! A sub-account's events, looked back at: what came (for receivers that were away), and the log of one
//! event's attempts. An addition to the contract.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use maskline_events::{Hiding, Timestamp, WebhookType};
use maskline_store::{DeliveryState, EventPage, LoggedAttempt, StoredEvent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::SubAccountAccess;
use crate::changes::carried_through;
use crate::error::ApiError;
use crate::extract::{self, QueryOf};
use crate::state::ApiState;
use crate::turns::{Place, Turn};

/// Events in one answer.
const MOST_EVENTS: u32 = 1_000;
const EVENTS: u32 = 100;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(attempts))
}

/// Which events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Those after this cursor: the `next` of an earlier answer, or an event's `cursor`. Without it,
    /// from the first that is kept.
    #[param(example = "e1fa0")]
    after: Option<String>,
    /// At most so many, 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>, example = 100)]
    limit: Option<String>,
    /// Only those of this type.
    #[param(example = "VCS")]
    r#type: Option<String>,
}

/// Where the delivery of an event stands.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Standing {
    /// Not yet tried, or to be tried again.
    Pending,
    /// Past the order deadline: still tried, no longer in the way of later events.
    Parked,
    /// Acknowledged by a 2xx.
    Delivered,
    /// Every retry was used up, or the receiver answered 410.
    Dead,
    /// There was no enabled webhook of its type.
    NoEndpoint,
}

impl From<DeliveryState> for Standing {
    fn from(state: DeliveryState) -> Self {
        match state {
            DeliveryState::Pending => Self::Pending,
            DeliveryState::Parked => Self::Parked,
            DeliveryState::Delivered => Self::Delivered,
            DeliveryState::Dead => Self::Dead,
            DeliveryState::NoEndpoint => Self::NoEndpoint,
        }
    }
}

/// An event.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventEntry {
    /// Its place; opaque.
    #[schema(example = "e1fa0")]
    cursor: String,
    /// Its `eventId`, the `webhook-id` of each request.
    #[schema(value_type = String, format = "uuid")]
    event_id: Uuid,
    /// Its session.
    #[schema(value_type = String, format = "uuid")]
    session_id: Uuid,
    /// The webhook it goes to.
    #[schema(value_type = String, pattern = "^(VCA|VCS|VSS|VRU|VNU)$", example = "VCS")]
    r#type: WebhookType,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Where its delivery stands.
    state: Standing,
    /// Attempts since it happened or was last replayed.
    attempts: u32,
    /// The text of the request's body, as it would be sent now: the envelope with its payload, numbers
    /// hidden as the webhook's settings say.
    body: String,
}

/// A part of a sub-account's events, in the order in which they were committed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventList {
    /// Whose.
    sub_account_id: String,
    /// How many.
    count: usize,
    /// Each with its cursor.
    events: Vec<EventEntry>,
    /// `after` of the next request. There always is one: ask again later for what comes then.
    #[schema(example = "e1fa0")]
    next: String,
    /// Whether there is more at once, also if `count` is 0.
    more: bool,
    /// Whether events after the cursor are no longer kept. Never without a cursor.
    gap: bool,
    /// Events here that can't be read; the log of the switch names the first. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unreadable: Option<usize>,
    /// 0.
    status_code: i32,
    /// `ok`.
    #[schema(example = "ok")]
    status_message: &'static str,
}

/// A line of an event's log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptEntry {
    /// From 1; goes on over replays.
    number: u64,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Where the delivery stood then.
    state: Standing,
    /// HTTP status; absent if there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 503)]
    status: Option<u16>,
    /// How long it took; absent if no request was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 12)]
    duration_ms: Option<u64>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    /// The first 16 kB of the answer's body, as UTF-8; absent if it was empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    answer: Option<String>,
    /// Whether the answer was longer.
    truncated: bool,
}

impl From<LoggedAttempt> for AttemptEntry {
    fn from(line: LoggedAttempt) -> Self {
        Self {
            number: line.number,
            timestamp: line.at,
            state: line.state.into(),
            status: line.status,
            duration_ms: line
                .duration
                .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            error: line.error,
            answer: (!line.answer.is_empty())
                .then(|| String::from_utf8_lossy(&line.answer).into_owned()),
            truncated: line.truncated,
        }
    }
}

/// An event's log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptList {
    /// The event.
    #[schema(value_type = String, format = "uuid")]
    event_id: Uuid,
    /// How many lines.
    count: usize,
    /// The last hundred, in order.
    attempts: Vec<AttemptEntry>,
    /// 0.
    status_code: i32,
    /// `ok`.
    #[schema(example = "ok")]
    status_message: &'static str,
}

/// The `{eventId}` of a path. One that is no UUID names nothing.
pub(crate) struct EventInPath(Uuid);

impl FromRequestParts<ApiState> for EventInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, ApiError> {
        let text = extract::path_parameter(parts, "eventId").await?;
        text.parse()
            .map(Self)
            .map_err(|_| ApiError::NotFound("The event"))
    }
}

pub(crate) fn cursor(position: u64) -> String {
    format!("e{position:x}")
}

/// The position of a cursor.
pub(crate) fn position(cursor: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = cursor else {
        return Ok(None);
    };
    let is_hex = |digits: &&str| digits.bytes().all(|it| it.is_ascii_hexdigit());
    let position = text
        .strip_prefix('e')
        .filter(is_hex)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .filter(|position| i64::try_from(*position).is_ok());
    match position {
        Some(position) => Ok(Some(position)),
        None => Err(ApiError::field("after", "is no cursor of ours")),
    }
}

/// Events of a sub-account, delivered or not, in the order in which they were committed: for receivers
/// that were away, and to compare with.
#[utoipa::path(get, path = "/api/v1/subaccounts/{subAccountId}/events", tag = "events",
    operation_id = "listEvents",
    params(("subAccountId" = String, Path, description = "The sub-account"), ListQuery),
    responses((status = 200, description = "The events", body = EventList),
        (status = 422, description = "A parameter is wrong", body = crate::error::ErrorBody),
        (status = 429, description = "Sixteen of the sub-account's readers wait for their answer or still get it, or too many failed authentications; see `Retry-After`", body = crate::error::ErrorBody)),
    security(("apiKey" = [])))]
async fn list(
    access: SubAccountAccess,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Response, ApiError> {
    let limit = match query.limit.as_deref() {
        None => EVENTS,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MOST_EVENTS).contains(limit))
            .ok_or_else(|| ApiError::field("limit", "is no number from 1 to 1000"))?,
    };
    let webhook_type = match query.r#type.as_deref() {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_unknown| ApiError::field("type", "is no type of webhook"))?,
        ),
    };
    let after = position(query.after.as_deref())?;
    // Before anything is read: a page is megabytes, and who waits has none.
    let turn = state.reading.turn(access.line()).await?;
    let owner = access.sub_account_id;
    let read = async move {
        let history = state.history();
        let page = history.page(&owner, after, webhook_type, limit).await?;
        let hidings = state.settings().hidings(&owner).await?;
        // Up to 1,000 bodies are read, hidden and written again.
        written(turn, move || listed(owner, page, &hidings)).await
    };
    // Else whoever hangs up at once has any number of pages read at once.
    carried_through(read).await
}

/// A list as it is sent, made and written during a turn.
async fn written<T: Serialize>(
    turn: Turn,
    list: impl FnOnce() -> T + Send + 'static,
) -> Result<Response, ApiError> {
    let (list, place) = turn.work(move || serde_json::to_vec(&list())).await?;
    // Texts and numbers: that can't fail.
    let list = list.map_err(|_never| ApiError::Panicked)?;
    Ok(sent(Kept {
        list,
        _place: place,
    }))
}

/// A list until it has been sent: its reader, however slow, has a place less meanwhile.
struct Kept {
    list: Vec<u8>,
    _place: Place,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.list
    }
}

fn sent(list: Kept) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, Bytes::from_owner(list)).into_response()
}

fn listed(owner: String, page: EventPage, hidings: &BTreeMap<WebhookType, Hiding>) -> EventList {
    let mut events = Vec::with_capacity(page.events.len());
    let (mut unreadable, mut first) = (0_usize, None);
    for (position, stored) in page.events {
        match entry(position, stored, hidings) {
            Ok(entry) => events.push(entry),
            Err(fault) => {
                unreadable += 1;
                first.get_or_insert(fault);
            }
        }
    }
    if let Some(Unreadable {
        position,
        session_id,
        reason,
    }) = first
    {
        // One line for all: whoever asks for these asks again.
        tracing::warn!(
            sub_account = owner,
            unreadable,
            position,
            ?session_id,
            reason,
            "events can't be shown; the first of them is named"
        );
    }
    EventList {
        sub_account_id: owner,
        count: events.len(),
        unreadable: Some(unreadable).filter(|count| *count > 0),
        events,
        next: cursor(page.next),
        more: page.more,
        gap: page.gap,
        status_code: 0,
        status_message: "ok",
    }
}

/// An event that can't be shown.
struct Unreadable {
    position: u64,
    session_id: Option<Uuid>,
    reason: String,
}

/// An event as its webhook would be sent it now.
fn entry(
    position: u64,
    stored: StoredEvent,
    hidings: &BTreeMap<WebhookType, Hiding>,
) -> Result<EventEntry, Unreadable> {
    match stored {
        StoredEvent::Whole(event, outcome) => Ok(EventEntry {
            cursor: cursor(position),
            event_id: event.event_id,
            session_id: event.session_id,
            r#type: event.webhook_type,
            timestamp: event.at,
            state: outcome.state.into(),
            attempts: outcome.attempts,
            body: match hidings.get(&event.webhook_type) {
                None => event.body,
                Some(hiding) => hiding.body(&event.body).map_err(|reason| Unreadable {
                    position,
                    session_id: Some(event.session_id),
                    reason: reason.to_string(),
                })?,
            },
        }),
        StoredEvent::Broken {
            session_id, reason, ..
        } => Err(Unreadable {
            position,
            session_id,
            reason,
        }),
    }
}

/// What became of each attempt to deliver an event.
#[utoipa::path(get, path = "/api/v1/subaccounts/{subAccountId}/events/{eventId}/attempts",
    tag = "events", operation_id = "listAttempts",
    params(("subAccountId" = String, Path, description = "The sub-account"),
        ("eventId" = String, Path, description = "The event")),
    responses((status = 200, description = "The log", body = AttemptList),
        (status = 429, description = "Sixteen of the sub-account's readers wait for their answer or still get it, or too many failed authentications; see `Retry-After`", body = crate::error::ErrorBody)),
    security(("apiKey" = [])))]
async fn attempts(
    access: SubAccountAccess,
    EventInPath(event_id): EventInPath,
    State(state): State<ApiState>,
) -> Result<Response, ApiError> {
    // A hundred answers of 16 kB are as much as a page.
    let turn = state.reading.turn(access.line()).await?;
    let read = async move {
        let lines = state
            .history()
            .attempts(&access.sub_account_id, event_id)
            .await?
            .ok_or(ApiError::NotFound("The event"))?;
        written(turn, move || logged(event_id, lines)).await
    };
    carried_through(read).await
}

fn logged(event_id: Uuid, lines: Vec<LoggedAttempt>) -> AttemptList {
    AttemptList {
        event_id,
        count: lines.len(),
        attempts: lines.into_iter().map(AttemptEntry::from).collect(),
        status_code: 0,
        status_message: "ok",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fmt;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;
    use crate::turns::Lines;

    /// The log, line by line.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0 += &format!("{field}={value:?} ");
        }
    }

    impl Subscriber for Log {
        fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _attributes: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

        fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn enter(&self, _span: &span::Id) {}

        fn exit(&self, _span: &span::Id) {}
    }

    #[test]
    fn however_many_events_can_t_be_read_the_log_gets_one_line_with_the_count_and_the_first() {
        let broken = |position| {
            let event = StoredEvent::Broken {
                session_id: Some(Uuid::nil()),
                ordinal: 1,
                reason: format!("damage {position}"),
            };
            (position, event)
        };
        for (count, lines) in [(0, 0), (1_000, 1)] {
            let page = EventPage {
                events: (7..7 + count).map(broken).collect(),
                next: 1_007,
                more: false,
                gap: false,
            };
            let log = Log::default();
            let list = tracing::subscriber::with_default(log.clone(), || {
                listed("market".to_owned(), page, &BTreeMap::new())
            });
            assert!(list.events.is_empty());
            assert_eq!(list.unreadable, (count > 0).then_some(1_000));
            let log = log.0.lock().unwrap();
            assert_eq!(log.len(), lines, "{log:?}");
            for line in log.iter() {
                for part in ["unreadable=1000 ", "position=7 ", "damage 7", "market"] {
                    assert!(line.contains(part), "{line}");
                }
            }
        }
    }

    #[test]
    fn a_list_keeps_its_place_until_it_has_been_sent() {
        let lines = Lines::default();
        let response = sent(Kept {
            list: b"{}".to_vec(),
            _place: lines.place("market", 1).unwrap(),
        });
        assert!(lines.place("market", 1).is_none());
        drop(response);
        assert!(lines.place("market", 1).is_some());
    }
}
