//! The customer's server of a measurement: connects every call, and checks that what it is told
//! comes once and in order.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;
use tokio::net::TcpListener;

/// What the receiver counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// Questions what to do with a call.
    pub(super) questions: u64,
    /// Status events.
    pub(super) events: u64,
    /// Summaries.
    pub(super) summaries: u64,
    /// Events that came before an earlier one of their session, or again.
    pub(super) disordered: u64,
}

#[derive(Default)]
struct Book {
    heard: Heard,
    /// The last sequence number of each session that has no summary.
    last: HashMap<String, u64>,
}

/// A running receiver.
#[derive(Clone)]
pub(super) struct Receiver {
    book: Arc<Mutex<Book>>,
    address: SocketAddr,
}

impl Receiver {
    /// Starts on a free port of the loopback interface.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let receiver = Self {
            book: Arc::default(),
            address: listener.local_addr()?,
        };
        let router = axum::Router::new()
            .route("/{kind}", post(receive))
            .with_state(receiver.clone());
        tokio::spawn(async move {
            // It serves as long as the measurement runs.
            let _ = axum::serve(listener, router).await;
        });
        Ok(receiver)
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn heard(&self) -> Heard {
        self.book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .heard
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    session_id: &'a str,
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    source: &'a str,
}

async fn receive(
    State(receiver): State<Receiver>,
    Path(kind): Path<String>,
    body: Bytes,
) -> impl IntoResponse {
    let Ok(Body { payload }) = serde_json::from_slice(&body) else {
        return ([(CONTENT_TYPE, "application/json")], String::new());
    };
    let mut book = receiver.book.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = match kind.as_str() {
        "vca" => {
            book.heard.questions += 1;
            let callee = super::callee_number(payload.source);
            format!(
                r#"{{"callflow":[{{"action":"makeCall","params":{{"source":"{}","destination":"{callee}"}}}}]}}"#,
                super::VIRTUAL
            )
        }
        "vcs" => {
            book.heard.events += 1;
            let last = book.last.entry(payload.session_id.to_owned()).or_default();
            let in_order = payload.sequence == *last + 1;
            *last = payload.sequence;
            if !in_order {
                book.heard.disordered += 1;
            }
            "{}".to_owned()
        }
        _ => {
            book.heard.summaries += 1;
            book.last.remove(payload.session_id);
            "{}".to_owned()
        }
    };
    ([(CONTENT_TYPE, "application/json")], answer)
}
