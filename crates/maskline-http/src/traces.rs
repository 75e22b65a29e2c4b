//! How calls went: the list of sessions, one session's ladder, its packet capture. Needs the admin
//! key. Phone numbers are hidden unless everything is asked for, and that is logged.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use maskline_events::{Msisdn, Timestamp};
use maskline_store::{StoreError, TraceFile, TraceFilter, TracedSession};
use maskline_trace::story::number_shown;
use maskline_trace::{Entry, Shown, Story};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::AdminAccess;
use crate::error::ApiError;
use crate::extract::{self, QueryOf};
use crate::serve::Peer;
use crate::state::ApiState;

/// Sessions in one answer.
const MOST_SESSIONS: u32 = 500;

/// What the API reads traces from.
#[derive(Clone, Debug)]
pub struct Traces {
    /// The file.
    pub file: Arc<TraceFile>,
    /// Our SIP sockets by their index, for packet captures.
    pub listeners: Vec<SocketAddr>,
}

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions))
        .routes(routes!(trace))
        .routes(routes!(capture))
}

/// Which sessions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// At most so many, 1 to 500; 50 without it.
    #[param(value_type = Option<u32>, example = 10)]
    limit: Option<String>,
    /// Only sessions with this number on either side; E.164, its `+` written `%2B` or left out.
    #[param(example = "+6591234567")]
    number: Option<String>,
    /// `true`: phone numbers in full. Logged.
    #[param(value_type = Option<bool>)]
    full: Option<String>,
}

/// How much of a session.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TraceQuery {
    /// `true`: phone numbers in full and whole messages, credentials excepted. Logged.
    #[param(value_type = Option<bool>)]
    full: Option<String>,
}

/// A session in the list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionEntry {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    session_id: Uuid,
    /// Whose number was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sub_account_id: Option<String>,
    /// As in its summary; absent while the call goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "COMPLETED")]
    session_status: Option<String>,
    /// The platform's error code, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error_code: Option<i32>,
    /// When A's INVITE came.
    #[schema(value_type = String, format = DateTime)]
    start_time: Timestamp,
    /// Until the summary; absent while the call goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    duration_ms: Option<i64>,
    /// A's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "+65••••4567")]
    caller: Option<String>,
    /// The virtual number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    called: Option<String>,
    /// B's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    callee: Option<String>,
}

/// Sessions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionList {
    /// How many.
    count: usize,
    /// The newest first.
    sessions: Vec<SessionEntry>,
}

/// The list as the API shows it.
#[must_use]
pub fn session_list(sessions: Vec<TracedSession>, shown: Shown) -> SessionList {
    let number = |it: Option<String>| it.map(|it| number_shown(&it, shown));
    let entry = |session: TracedSession| SessionEntry {
        session_id: session.session_id,
        sub_account_id: session.head.sub_account_id,
        session_status: session.head.status,
        error_code: session.head.error_code,
        start_time: session.started,
        duration_ms: session
            .head
            .ended
            .map(|it| it.unix_ms().saturating_sub(session.started.unix_ms())),
        caller: number(session.head.caller),
        called: number(session.head.called),
        callee: number(session.head.callee),
    };
    let sessions: Vec<_> = sessions.into_iter().map(entry).collect();
    SessionList {
        count: sessions.len(),
        sessions,
    }
}

/// The session in a path. One that is no UUID names nothing.
pub(crate) struct SessionInPath(pub(crate) Uuid);

impl FromRequestParts<ApiState> for SessionInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, ApiError> {
        let text = extract::path_parameter(parts, "sessionId").await?;
        let id = text
            .parse()
            .map_err(|_| ApiError::NotFound("The session"))?;
        Ok(Self(id))
    }
}

/// Who asks, for the audit line.
pub(crate) struct Asker(String);

impl FromRequestParts<ApiState> for Asker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>();
        Ok(Self(peer.map_or_else(
            || "-".to_owned(),
            |it| it.0.ip().to_string(),
        )))
    }
}

impl Asker {
    fn audit(&self, what: &str, session: Option<Uuid>) {
        metrics::counter!("maskline_http_full_traces_total").increment(1);
        let session = session.map(|it| it.to_string());
        tracing::warn!(
            target: "maskline::audit",
            from = self.0,
            session_id = session,
            "phone numbers were shown in full to the admin key: {what}"
        );
    }
}

/// The newest sessions, or those of one number.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "operations",
    operation_id = "listSessions",
    params(ListQuery),
    responses((status = 200, description = "The sessions", body = SessionList),
        (status = 422, description = "A parameter is wrong", body = crate::error::ErrorBody)),
    security(("adminKey" = [])))]
async fn list_sessions(
    _admin: AdminAccess,
    asker: Asker,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<SessionList>, ApiError> {
    let limit = match &query.limit {
        None => 50,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MOST_SESSIONS).contains(limit))
            .ok_or_else(|| ApiError::field("limit", "must be 1 to 500"))?,
    };
    let number = match &query.number {
        None => None,
        // A `+` that was not encoded reads as a space.
        Some(text) => Some(
            Msisdn::parse(text.trim())
                .map_err(|error| ApiError::field("number", error.to_string()))?
                .as_str()
                .to_owned(),
        ),
    };
    let shown = how_much(query.full.as_deref())?;
    if shown == Shown::Full {
        asker.audit("the list of sessions", None);
    }
    let filter = TraceFilter { limit, number };
    let sessions = read(&state, move |file| file.sessions(&filter)).await?;
    Ok(Json(session_list(sessions, shown)))
}

/// How a call went: its legs, stages, messages and end. With `Accept: text/plain`, drawn.
#[utoipa::path(get, path = "/api/v1/sessions/{sessionId}/trace", tag = "operations",
    operation_id = "traceSession",
    params(("sessionId" = String, Path, description = "The session"), TraceQuery),
    responses((status = 200, description = "How it went",
            content((Story = "application/json"), (String = "text/plain"))),
        (status = 422, description = "A parameter is wrong", body = crate::error::ErrorBody)),
    security(("adminKey" = [])))]
async fn trace(
    _admin: AdminAccess,
    asker: Asker,
    SessionInPath(session): SessionInPath,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<TraceQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let shown = how_much(query.full.as_deref())?;
    let entries = entries(&state, session).await?;
    if shown == Shown::Full {
        asker.audit("a trace", Some(session));
    }
    let story = maskline_trace::tell(session, &entries, shown)
        .ok_or(ApiError::NotFound("A trace of the session"))?;
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    if accept.is_some_and(|accept| accept.trim_start().starts_with("text/plain")) {
        return Ok(maskline_trace::draw(&story).into_response());
    }
    Ok(Json(story).into_response())
}

/// A call's messages as a packet capture for Wireshark. It shows everything but credentials. Logged.
#[utoipa::path(get, path = "/api/v1/sessions/{sessionId}/trace.pcap", tag = "operations",
    operation_id = "captureSession",
    params(("sessionId" = String, Path, description = "The session")),
    responses((status = 200, description = "The capture", content_type = "application/vnd.tcpdump.pcap",
        body = String)),
    security(("adminKey" = [])))]
async fn capture(
    _admin: AdminAccess,
    asker: Asker,
    SessionInPath(session): SessionInPath,
    State(state): State<ApiState>,
) -> Result<Response, ApiError> {
    let entries = entries(&state, session).await?;
    asker.audit("a packet capture", Some(session));
    let listeners = state.config.traces.as_ref().map(|it| &it.listeners[..]);
    let bytes = maskline_trace::pcap(&entries, listeners.unwrap_or_default());
    let kind = [(header::CONTENT_TYPE, "application/vnd.tcpdump.pcap")];
    Ok((kind, bytes).into_response())
}

fn how_much(full: Option<&str>) -> Result<Shown, ApiError> {
    match full {
        None | Some("" | "false") => Ok(Shown::Redacted),
        Some("true") => Ok(Shown::Full),
        Some(_) => Err(ApiError::field("full", "must be true or false")),
    }
}

async fn entries(state: &ApiState, session: Uuid) -> Result<Vec<Entry>, ApiError> {
    let parts = read(state, move |file| file.entries(session)).await?;
    if parts.is_empty() {
        return Err(ApiError::NotFound("A trace of the session"));
    }
    let decoded = parts
        .iter()
        .flat_map(|(run, blob)| maskline_trace::decode(*run, blob));
    Ok(decoded.collect())
}

async fn read<T: Send + 'static>(
    state: &ApiState,
    query: impl FnOnce(&TraceFile) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let Some(traces) = &state.config.traces else {
        return Err(ApiError::NotFound("Tracing on this node"));
    };
    let file = Arc::clone(&traces.file);
    let read = tokio::task::spawn_blocking(move || query(&file)).await;
    read.map_err(|_| ApiError::Panicked)?
        .map_err(ApiError::from)
}
