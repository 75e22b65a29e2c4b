//! Every way in which a request fails, and the one place that turns it into an answer.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maskline_events::Timestamp;
use maskline_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Why a request was not served.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// The key is missing, malformed or unknown.
    Unauthenticated,
    /// The key has no right to this.
    Forbidden,
    /// There is no such thing.
    NotFound(&'static str),
    /// A number is not the sub-account's; answered with the frame of the number lookup.
    NumberNotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// It exists already.
    Conflict(&'static str),
    /// What the request was checked against is no longer so.
    Outdated(&'static str),
    /// A status update does not fit its session.
    CallEvent {
        /// Which one of the request, from 0.
        index: usize,
        /// Why.
        reason: String,
    },
    /// More waits to be written than may.
    Busy,
    /// The body is above the limit, in kB.
    BodyTooLarge(usize),
    /// The body ended early.
    BodyIncomplete,
    /// The body is no JSON object.
    InvalidJson,
    /// A field is missing or wrong.
    Field {
        /// Its name or path in the body.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Too many failed authentications.
    TooManyFailures {
        /// When to come back.
        retry_after_s: u64,
    },
    /// Too many changes by a sub-account.
    TooManyChanges {
        /// When to come back.
        retry_after_s: u64,
    },
    /// Too many requests of a sub-account, or of the operator, for what takes long have no answer yet.
    TooManyAtOnce,
    /// The request took too long.
    TimedOut,
    /// The store failed.
    Store(StoreError),
    /// A handler panicked.
    Panicked,
}

impl ApiError {
    pub(crate) fn field(field: &str, reason: impl Into<String>) -> Self {
        Self::Field {
            field: field.to_owned(),
            reason: reason.into(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::NumberNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) | Self::Outdated(_) | Self::CallEvent { .. } => StatusCode::CONFLICT,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyIncomplete => StatusCode::BAD_REQUEST,
            Self::InvalidJson | Self::Field { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyFailures { .. }
            | Self::TooManyChanges { .. }
            | Self::TooManyAtOnce
            | Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::Store(_) | Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// `statusCode` of the frame: the contract's code for a bad body, else the HTTP status.
    fn code(&self) -> String {
        match self {
            Self::InvalidJson | Self::Field { .. } => "1001".to_owned(),
            Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound(_)
            | Self::NumberNotFound
            | Self::MethodNotAllowed
            | Self::Conflict(_)
            | Self::Outdated(_)
            | Self::CallEvent { .. }
            | Self::Busy
            | Self::BodyTooLarge(_)
            | Self::BodyIncomplete
            | Self::TooManyFailures { .. }
            | Self::TooManyChanges { .. }
            | Self::TooManyAtOnce
            | Self::TimedOut
            | Self::Store(_)
            | Self::Panicked => self.status().as_u16().to_string(),
        }
    }

    const fn index(&self) -> Option<usize> {
        if let Self::CallEvent { index, .. } = self {
            return Some(*index);
        }
        None
    }

    fn message(&self) -> String {
        match self {
            Self::Unauthenticated => "The API key is missing or unknown".to_owned(),
            Self::Forbidden => "The API key has no right to this".to_owned(),
            Self::NotFound(what) => format!("{what} does not exist"),
            Self::NumberNotFound => "The number is not one of this sub-account's".to_owned(),
            Self::MethodNotAllowed => "The path does not support this method".to_owned(),
            Self::Conflict(what) => format!("{what} exists already"),
            Self::Outdated(what) => format!("{what} changed meanwhile; try again"),
            Self::CallEvent { index, reason } => format!("[{index}]: {reason}"),
            Self::Busy => "Too much waits to be written; try again".to_owned(),
            Self::BodyTooLarge(limit) => format!("The request body is above {limit} kB"),
            Self::BodyIncomplete => "The request body ended early".to_owned(),
            Self::InvalidJson => "Invalid JSON request body".to_owned(),
            Self::Field { field, reason } => format!("{field}: {reason}"),
            Self::TooManyFailures { .. } => {
                "Too many failed authentications from this address".to_owned()
            }
            Self::TooManyChanges { .. } => {
                "The sub-account changes too much; more than 60 times in a minute".to_owned()
            }
            Self::TooManyAtOnce => {
                "16 such requests are not yet answered; try again when they are".to_owned()
            }
            Self::TimedOut => "The request took too long".to_owned(),
            Self::Store(_) | Self::Panicked => "Internal error".to_owned(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { what } => Self::Conflict(what),
            StoreError::NotFound { what } => Self::NotFound(what),
            StoreError::Full { .. }
            | StoreError::Unavailable { .. }
            | StoreError::TooNew { .. }
            | StoreError::Secret
            | StoreError::BrokenRow { .. } => Self::Store(error),
        }
    }
}

/// An error on its way out: it has no body yet, because that needs the clock. [`rendered`] gives
/// it one.
#[derive(Clone)]
struct Unrendered(Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Unrendered(Arc::new(self)));
        response
    }
}

/// What every failed request answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    /// Unique to this failure; the log line of an internal error carries it too.
    #[schema(value_type = String, format = "uuid")]
    error_id: Uuid,
    /// `1001` for a bad body, else the HTTP status.
    #[schema(example = "1001")]
    status_code: String,
    /// What is wrong; for a bad field its name and the reason.
    #[schema(example = "Invalid JSON request body")]
    status_message: String,
    /// Which status update of the request does not fit its session, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    index: Option<usize>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
}

/// What the lookup of a number answers when it is not there.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NumberNotFoundBody {
    /// The HTTP status.
    #[schema(example = 404)]
    status_code: u16,
    /// What is wrong.
    status_message: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
}

/// The body of any failed request: the lookup of a number has a frame of its own.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum FaultBody {
    /// Every other one.
    Frame(ErrorBody),
    /// The number is not there.
    NumberNotFound(NumberNotFoundBody),
}

/// Gives an [`ApiError`]'s answer its body and headers; logs what a client must not see.
pub(crate) fn rendered(mut response: Response, now: Timestamp) -> Response {
    let Some(Unrendered(error)) = response.extensions_mut().remove::<Unrendered>() else {
        return response;
    };
    let error_id = Uuid::now_v7();
    let body = if let ApiError::NumberNotFound = *error {
        FaultBody::NumberNotFound(NumberNotFoundBody {
            status_code: error.status().as_u16(),
            status_message: error.message(),
            timestamp: now,
        })
    } else {
        FaultBody::Frame(ErrorBody {
            error_id,
            status_code: error.code(),
            status_message: error.message(),
            index: error.index(),
            timestamp: now,
        })
    };
    let mut answer = axum::Json(body).into_response();
    *answer.status_mut() = error.status();
    // The routing layer has put `Allow` on a 405.
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    match &*error {
        ApiError::Unauthenticated => {
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ApiError::TooManyFailures { retry_after_s }
        | ApiError::TooManyChanges { retry_after_s } => {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
        }
        ApiError::Busy | ApiError::TooManyAtOnce => {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        ApiError::TimedOut | ApiError::BodyTooLarge(_) | ApiError::BodyIncomplete => {
            // The rest of the body is not worth waiting for.
            answer
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        ApiError::Store(reason) => {
            tracing::error!(%error_id, error = %reason, "an API request failed in the store");
        }
        ApiError::Panicked => {
            tracing::error!(%error_id, "an API request's handler panicked; its message is on standard error");
        }
        ApiError::Forbidden
        | ApiError::NotFound(_)
        | ApiError::NumberNotFound
        | ApiError::MethodNotAllowed
        | ApiError::Conflict(_)
        | ApiError::Outdated(_)
        | ApiError::CallEvent { .. }
        | ApiError::InvalidJson
        | ApiError::Field { .. } => {}
    }
    answer
}
