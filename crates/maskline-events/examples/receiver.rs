//! A whole receiver: checks signatures, connects every caller to `CALLEE`, prints each call's steps once, in order.
//! `LISTEN=127.0.0.1:9000 CALLEE=+6591110002 SECRETS="whsec_… whsec_… whsec_…" cargo run --example receiver`

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::env::var;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router, routing::post};
use maskline_events::sequence::InOrder;
use maskline_events::signing::{DEFAULT_TOLERANCE_SECONDS, SignedHeaders, parse_secret, verify};
use maskline_events::{CallActionPayload, CallStatusPayload, Envelope, EventType};
use serde_json::{Value, from_slice, from_value, json};

static CALLS: Mutex<BTreeMap<String, InOrder<String>>> = Mutex::new(BTreeMap::new());

async fn take(headers: HeaderMap, body: Bytes) -> Result<Json<Value>, StatusCode> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let signed = SignedHeaders::read(|name| header(name).unwrap_or_default());
    let secrets = var("SECRETS").unwrap_or_default();
    let secrets: Vec<_> = secrets.split(' ').flat_map(parse_secret).collect();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now = now.as_secs().cast_signed();
    verify(&secrets, signed, &body, now, DEFAULT_TOLERANCE_SECONDS)
        .map_err(|_| StatusCode::UNAUTHORIZED)?;
    let webhook: Envelope<Value> = from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    if webhook.event_type == EventType::CallAction {
        let asked: CallActionPayload = read(webhook.payload)?;
        let callee = var("CALLEE").unwrap_or_default();
        let params = json!({ "source": asked.call.destination, "destination": callee });
        let flow = json!([{ "action": "makeCall", "params": params }]);
        return Ok(Json(json!({ "callflow": flow })));
    }
    if webhook.event_type == EventType::CallStatus {
        let step: CallStatusPayload = read(webhook.payload)?;
        let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
        let call = calls.entry(step.session_id.to_string());
        let said = format!("{} {:?}", step.sequence, step.call_status);
        for said in call.or_insert(InOrder::new(100)).push(step.sequence, said) {
            println!("{said}");
        }
    }
    Ok(Json(json!({})))
}

fn read<T: serde::de::DeserializeOwned>(payload: Value) -> Result<T, StatusCode> {
    from_value(payload).map_err(|_| StatusCode::BAD_REQUEST)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind(var("LISTEN")?).await?;
    Ok(axum::serve(listener, Router::new().route("/{webhook}", post(take))).await?)
}
