//! Numbers are hidden, and signatures made, as a webhook's owner has set it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use maskline_events::signing::{
    HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, SignedHeaders, Verifier,
};
use maskline_events::{Redaction, WebhookType};
use maskline_store::{
    CommittedEvents, Deliveries, EventRow, Signatures, SqliteStore, Store, WebhookSettings,
};
use maskline_webhook::{DeliveryConfig, Dispatcher, Schedule};
use support::{
    Database, OWNER, Receiver, Reply, call, commit, events_of, open_client, set, store_for, until,
};

const VCS: WebhookType = WebhookType::Vcs;

fn start(store: &Arc<SqliteStore>) -> Dispatcher {
    let schedule = Schedule {
        delays: vec![std::time::Duration::from_millis(20)],
        ..Schedule::default()
    };
    let config = DeliveryConfig {
        schedule,
        ..DeliveryConfig::default()
    };
    Dispatcher::start(
        Arc::clone(store) as Arc<dyn Store>,
        Arc::clone(store) as Arc<dyn Deliveries>,
        open_client(),
        config,
        None,
    )
}

/// One event of session 1 with this body.
fn event(body: &str) -> Vec<EventRow> {
    let mut events = call(OWNER, 1, 1, false);
    body.clone_into(&mut events[0].body);
    events
}

#[tokio::test]
async fn a_retry_is_the_same_byte_for_byte_and_each_signature_is_over_what_is_sent() {
    let receiver =
        Receiver::start(|_, earlier| Reply::Status(if earlier == 0 { 500 } else { 200 })).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    set(&store, OWNER, VCS, |settings| {
        settings.redaction = Some(Redaction::Token);
        settings.signatures = Some(Signatures::V1a);
    })
    .await;
    let key = store.settings(OWNER, VCS).await.unwrap().public_key;
    let dispatcher = start(&store);
    let events = event("{\"payload\":{\"source\":\"+6591234567\",\"sequence\":1}}");
    commit(&store, &events).await;
    dispatcher.committed(events);
    until("it came twice", || receiver.requests().len() == 2).await;
    let sent = receiver.requests();
    assert_eq!(sent[0].body, sent[1].body);
    let text = String::from_utf8(sent[0].body.to_vec()).unwrap();
    assert!(
        text.starts_with("{\"payload\":{\"source\":\"tok_"),
        "{text}"
    );
    assert!(text.ends_with("\",\"sequence\":1}}"), "{text}");
    let verifier = Verifier::new().with_key(&key.to_string()).unwrap();
    for request in sent {
        let headers = SignedHeaders {
            id: request.header(HEADER_ID),
            timestamp: request.header(HEADER_TIMESTAMP),
            signature: request.header(HEADER_SIGNATURE),
        };
        assert!(headers.signature.starts_with("v1a,"), "no v1 was asked for");
        let at = headers.timestamp.parse().unwrap();
        assert_eq!(verifier.verify(headers, &request.body, at), Ok(()));
    }
}

#[tokio::test]
async fn a_body_in_which_nothing_can_be_hidden_is_not_sent() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let database = Database::new();
    let store = store_for(&database, &receiver.url).await;
    set(&store, OWNER, VCS, |settings| {
        settings.redaction = Some(Redaction::Masked);
        settings.retry_delays_seconds = Some(Vec::new());
    })
    .await;
    let dispatcher = start(&store);
    let events = event("{\"source\":\"+6591234567\"");
    let session = events[0].session_id;
    commit(&store, &events).await;
    dispatcher.committed(events);
    support::until_async("it is given up", || async {
        let events = events_of(&store, session).await;
        let error = events[0].1.error.clone().unwrap_or_default();
        error.contains("can't be hidden") && !error.contains("91234567")
    })
    .await;
    assert!(receiver.requests().is_empty());
}
