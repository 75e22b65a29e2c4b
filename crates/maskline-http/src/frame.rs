//! What is around every request: fallbacks, the deadline, caught panics, rendered errors, response
//! headers, one metric and one debug line. No path is logged: it may hold a phone number.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Response, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::{self, ApiError};
use crate::extract;
use crate::state::ApiState;

/// The longest that a request may take, its body included.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// Puts the frame around routes.
pub(crate) fn layered(routes: Router<ApiState>, state: &ApiState) -> Router<ApiState> {
    routes
        .fallback(extract::unknown_path)
        .method_not_allowed_fallback(extract::unknown_method)
        .layer(CatchPanicLayer::custom(caught))
        .layer(from_fn(within_deadline))
        .layer(from_fn_with_state(state.clone(), framed))
}

/// The panic's message may hold anything, so it is not used; the panic hook has printed it.
fn caught(_message: Box<dyn Any + Send + 'static>) -> Response<Body> {
    ApiError::Panicked.into_response()
}

async fn within_deadline(request: Request, next: Next) -> Response<Body> {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::TimedOut.into_response(),
    }
}

async fn framed(State(state): State<ApiState>, request: Request, next: Next) -> Response<Body> {
    let began = Instant::now();
    let method = method_label(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let mut response = error::rendered(next.run(request).await, state.now());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let status = response.status().as_u16();
    metrics::counter!(
        "maskline_http_requests_total",
        "method" => method, "route" => route.clone(), "status" => status.to_string()
    )
    .increment(1);
    tracing::debug!(method, route, status, took = ?began.elapsed(), "API request");
    response
}

/// A bounded set of labels: a client may send any method.
fn method_label(method: &axum::http::Method) -> &'static str {
    ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"]
        .into_iter()
        .find(|known| method.as_str() == *known)
        .unwrap_or("other")
}
