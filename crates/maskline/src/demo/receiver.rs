//! The sample receiver: what a customer writes to use Maskline.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use maskline_events::WebhookType;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::phones::Heard;
use super::{DRIVER, RIDER, VIRTUAL};

/// One webhook as it arrived, and how it was answered.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    pub(super) kind: WebhookType,
    /// The body as it arrived: one line of JSON.
    pub(super) text: String,
    pub(super) body: Value,
    pub(super) status: u16,
}

/// A running receiver.
pub(super) struct Receiver {
    address: SocketAddr,
}

impl Receiver {
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Starts it on a free port of the loopback interface.
pub(super) async fn start(heard: mpsc::Sender<Heard>) -> anyhow::Result<Receiver> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = axum::Router::new()
        .route("/{kind}", post(receive))
        .with_state(heard);
    tokio::spawn(async move {
        // It serves as long as the demo runs.
        let _ = axum::serve(listener, router).await;
    });
    Ok(Receiver { address })
}

// ---- What a customer writes: twenty lines and a table. ------------------------------------------

/// Who is to be connected with whom: caller and virtual number → the other party.
fn bookings() -> BTreeMap<(&'static str, &'static str), &'static str> {
    BTreeMap::from([((RIDER, VIRTUAL), DRIVER), ((DRIVER, VIRTUAL), RIDER)])
}

/// What is to be done with a call: connect the parties of a booking, turn everyone else away.
fn callflow(call: &Value) -> Value {
    let text = |field: &str| call.get(field).and_then(Value::as_str).unwrap_or_default();
    match bookings().get(&(text("source"), text("destination"))) {
        Some(other) => json!({ "callflow": [{
            "action": "makeCall",
            "params": { "source": text("destination"), "destination": other },
        }] }),
        None => json!({ "callflow": [{ "action": "hangup" }] }),
    }
}

// -------------------------------------------------------------------------------------------------

async fn receive(
    State(heard): State<mpsc::Sender<Heard>>,
    Path(kind): Path<String>,
    text: String,
) -> (StatusCode, Json<Value>) {
    let Ok(kind) = kind.to_uppercase().parse::<WebhookType>() else {
        return (StatusCode::NOT_FOUND, Json(Value::Null));
    };
    let Ok(body) = serde_json::from_str::<Value>(&text) else {
        return (StatusCode::BAD_REQUEST, Json(Value::Null));
    };
    let answer = match kind {
        WebhookType::Vca => callflow(body.get("payload").unwrap_or(&Value::Null)),
        WebhookType::Vcs | WebhookType::Vss | WebhookType::Vru | WebhookType::Vnu => json!({}),
    };
    let receipt = Receipt {
        kind,
        text,
        body,
        status: StatusCode::OK.as_u16(),
    };
    // The demo is over when nobody listens.
    let _ = heard.send(Heard::Webhook(receipt)).await;
    (StatusCode::OK, Json(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_booked_caller_is_connected_and_a_stranger_is_turned_away() {
        let booked = callflow(&json!({ "source": RIDER, "destination": VIRTUAL }));
        assert_eq!(booked["callflow"][0]["params"]["destination"], DRIVER);
        let stranger = callflow(&json!({ "source": "+6590000000", "destination": VIRTUAL }));
        assert_eq!(stranger["callflow"][0]["action"], "hangup");
    }
}
