//! Call actions against VCA endpoints that are well, late, wrong or gone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use maskline_events::{Action, WebhookType};
use maskline_store::{SqliteStore, Store};
use maskline_webhook::{
    ActionAnswer, ActionFault, ActionRequest, CallActionClient, Endpoints, SendError,
};
use support::{Database, OWNER, Receiver, Reply, hook, open_client, own};
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

const FLOW: &str = r#"{"callflow":[{"action":"makeCall","params":{"source":"6568330330","destination":"+6591234567"}}]}"#;

struct Vca {
    client: CallActionClient,
    store: Arc<SqliteStore>,
    _database: Database,
}

impl Vca {
    async fn at(url: Option<&str>, deadline: Duration) -> Self {
        let database = Database::new();
        let store = database.open();
        own(&store, OWNER).await;
        if let Some(url) = url {
            hook(&store, OWNER, WebhookType::Vca, url).await;
        }
        let client = open_client();
        let endpoints = Arc::new(Endpoints::new(
            Arc::clone(&store) as Arc<dyn Store>,
            *client.policy(),
            Duration::from_secs(5),
        ));
        Self {
            client: CallActionClient::new(client, endpoints, deadline),
            store,
            _database: database,
        }
    }

    async fn ask(&self) -> ActionAnswer {
        let request = ActionRequest {
            sub_account_id: OWNER.to_owned(),
            event_id: Uuid::from_u128(9),
            body: "{}".to_owned(),
        };
        self.client.ask(request).await
    }
}

#[tokio::test]
async fn a_callflow_is_asked_for_signed_and_read() {
    let receiver = Receiver::start(|_, _| Reply::Body(FLOW.to_owned())).await;
    let vca = Vca::at(Some(&receiver.url), CallActionClient::DEFAULT_DEADLINE).await;
    let ActionAnswer::Callflow(flow) = vca.ask().await else {
        panic!("no callflow");
    };
    assert!(matches!(flow.actions[..], [Action::MakeCall { .. }]));
    let request = receiver.requests().remove(0);
    assert_eq!(request.id(), Uuid::from_u128(9));
    assert!(request.header("webhook-signature").starts_with("v1,"));
}

#[tokio::test]
async fn without_a_webhook_there_is_nobody_to_ask() {
    let vca = Vca::at(None, CallActionClient::DEFAULT_DEADLINE).await;
    assert!(matches!(vca.ask().await, ActionAnswer::NoEndpoint));
}

#[tokio::test]
async fn an_answer_that_is_no_callflow_is_invalid_with_its_path() {
    for (reply, path) in [
        (Reply::Status(204), "$"),
        (Reply::Body("OK".to_owned()), "$"),
        (Reply::Flood(500_000_000), "$"),
        (
            Reply::Body(r#"{"callflow":[{"action":"say"}]}"#.to_owned()),
            "$.callflow[0].params.text",
        ),
    ] {
        let script = reply.clone();
        let receiver = Receiver::start(move |_, _| script.clone()).await;
        let vca = Vca::at(Some(&receiver.url), CallActionClient::DEFAULT_DEADLINE).await;
        let answer = vca.ask().await;
        let ActionAnswer::Invalid(fault) = answer else {
            panic!("{reply:?}: {answer:?}");
        };
        assert_eq!(fault.path, path, "{reply:?}");
        assert_eq!(receiver.requests().len(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn a_status_that_is_not_2xx_is_a_failure_that_disables_nothing() {
    for status in [302, 400, 410, 429, 500, 503] {
        let receiver = Receiver::start(move |_, _| Reply::Status(status)).await;
        let vca = Vca::at(Some(&receiver.url), CallActionClient::DEFAULT_DEADLINE).await;
        let answer = vca.ask().await;
        assert!(
            matches!(answer, ActionAnswer::Connectivity(ActionFault::Status(s)) if s == status),
            "{answer:?}"
        );
        assert_eq!(receiver.requests().len(), 1, "{status}");
        assert!(vca.store.webhooks(OWNER).await.unwrap()[0].enabled);
    }
}

#[tokio::test]
async fn a_failed_connection_is_tried_once_more_and_nothing_else_is() {
    for (first, requests) in [(Reply::Reset, 2), (Reply::CutOff, 1), (Reply::Garbage, 1)] {
        let script = first.clone();
        let receiver = Receiver::start(move |_, number| match number {
            0 => script.clone(),
            _ => Reply::Body(FLOW.to_owned()),
        })
        .await;
        let vca = Vca::at(Some(&receiver.url), CallActionClient::DEFAULT_DEADLINE).await;
        let answer = vca.ask().await;
        assert_eq!(receiver.requests().len(), requests, "{first:?}");
        assert_eq!(
            matches!(answer, ActionAnswer::Callflow(_)),
            requests == 2,
            "{first:?}: {answer:?}"
        );
    }
    let always = Receiver::start(|_, _| Reply::Reset).await;
    let vca = Vca::at(Some(&always.url), CallActionClient::DEFAULT_DEADLINE).await;
    assert!(matches!(vca.ask().await, ActionAnswer::Connectivity(_)));
    assert_eq!(always.requests().len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_is_late_or_down_is_given_up_within_the_deadline() {
    let deadline = Duration::from_millis(400);
    for reply in [Reply::Stall, Reply::StallInBody, Reply::Drip] {
        let script = reply.clone();
        let receiver = Receiver::start(move |_, _| script.clone()).await;
        let vca = Vca::at(Some(&receiver.url), deadline).await;
        let started = Instant::now();
        let answer = vca.ask().await;
        assert!(
            matches!(&answer, ActionAnswer::Connectivity(ActionFault::Send(error))
                if matches!(**error, SendError::Timeout(_))),
            "{reply:?}: {answer:?}"
        );
        assert!(started.elapsed() < deadline * 10, "{reply:?}");
        assert_eq!(receiver.requests().len(), 1, "{reply:?}");
    }
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let vca = Vca::at(Some(&closed), CallActionClient::DEFAULT_DEADLINE).await;
    assert!(matches!(vca.ask().await, ActionAnswer::Connectivity(_)));
}
