//! TLS and headers that an endpoint has set for itself, at both clients, against receivers that
//! demand a client certificate or come from an authority that nobody else knows.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use maskline_events::WebhookType;
use maskline_store::{
    CommittedEvents, Deliveries, Endpoint, EndpointConfig, EndpointSecrets, EndpointSettings,
    SqliteStore, Store, TlsSettings, WebhookSettings,
};
use maskline_webhook::client::{Answer, EgressClient, Post, Target};
use maskline_webhook::network::{Later, Network};
use maskline_webhook::{
    ActionAnswer, ActionRequest, CallActionClient, DeliveryConfig, Dispatcher, EgressPolicy,
    Endpoints, SendError, check_tls,
};
use support::certificates::{Authority, Signed, TlsReceiver, pem};
use support::{Database, OWNER, call, commit, hook, now, open_client, own, until};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const OPEN: EgressPolicy = EgressPolicy {
    allow_private_targets: true,
};

/// TLS as it is set: an authority, a certificate with its key.
fn tls(ca: Option<&Authority>, shows: Option<&Signed>) -> EndpointConfig {
    EndpointConfig {
        settings: EndpointSettings {
            tls: Some(TlsSettings {
                ca: ca.map(Authority::pem),
                client_certificate: shows.map(Signed::pem),
            }),
            ..EndpointSettings::default()
        },
        secrets: EndpointSecrets {
            client_key: shows.map(Signed::key_pem),
            ..EndpointSecrets::default()
        },
    }
}

async fn send(
    client: &EgressClient,
    url: &str,
    config: EndpointConfig,
) -> Result<Answer, SendError> {
    let endpoint = Endpoint {
        url: url.to_owned(),
        signing_secrets: vec![vec![1; 32]],
        config,
        ..Endpoint::default()
    };
    let post = Post {
        event_id: Uuid::from_u128(7),
        body: Bytes::from_static(b"{}"),
        gap: false,
        unix_seconds: 1_767_694_639,
    };
    let target = Target::new(endpoint, client.policy())?;
    client
        .post(&target, post, 100, Duration::from_secs(10))
        .await
}

/// Settings as the API would keep them.
async fn keep(store: &SqliteStore, kind: WebhookType, config: EndpointConfig) {
    let read = store.settings(OWNER, kind).await.unwrap();
    let kept = store.replace_settings(OWNER, kind, read, config, now());
    assert!(kept.await.unwrap().is_some());
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_the_endpoint_that_names_it_and_there_alone() {
    let (private, public) = (Authority::new(), Authority::new());
    let (ours, others) = (
        TlsReceiver::start(&private, None, "").await,
        TlsReceiver::start(&public, None, "").await,
    );
    let client = EgressClient::new(OPEN, std::slice::from_ref(&public.der)).unwrap();
    let named = || tls(Some(&private), None);
    assert_eq!(send(&client, &ours.url, named()).await.unwrap().status, 200);
    let unset = send(&client, &ours.url, EndpointConfig::default()).await;
    assert!(matches!(unset, Err(SendError::Tls(_))), "{unset:?}");
    // It takes the place of the system's.
    let other = send(&client, &others.url, EndpointConfig::default()).await;
    assert_eq!(other.unwrap().status, 200);
    let replaced = send(&client, &others.url, named()).await;
    assert!(matches!(replaced, Err(SendError::Tls(_))), "{replaced:?}");
    // The name is still verified.
    let named_otherwise = ours.url.replace("127.0.0.1", "localhost");
    let wrong = send(&client, &named_otherwise, named()).await;
    assert!(matches!(wrong, Err(SendError::Tls(_))), "{wrong:?}");
    assert_eq!((ours.told().len(), others.told().len()), (1, 1));
}

#[tokio::test]
async fn a_receiver_that_demands_a_client_certificate_gets_the_endpoint_s_own_and_only_that() {
    let (of_receivers, of_clients) = (Authority::new(), Authority::new());
    let receiver = TlsReceiver::start(&of_receivers, Some(&of_clients), "").await;
    let client = EgressClient::new(OPEN, std::slice::from_ref(&of_receivers.der)).unwrap();
    let (one, two) = (of_clients.sign("one"), of_clients.sign("two"));
    let foreign = of_receivers.sign("one");
    for refused in [
        EndpointConfig::default(),
        tls(Some(&of_receivers), None),
        tls(None, Some(&foreign)),
    ] {
        let refused = send(&client, &receiver.url, refused).await;
        assert!(matches!(refused, Err(SendError::Tls(_))), "{refused:?}");
    }
    let before = receiver.connections.load(Ordering::SeqCst);
    // With the system's roots or one of its own; to the same host, each by a connection of its own.
    for _ in 0..3 {
        for shown in [
            tls(None, Some(&one)),
            tls(None, Some(&two)),
            tls(Some(&of_receivers), Some(&one)),
        ] {
            assert_eq!(
                send(&client, &receiver.url, shown).await.unwrap().status,
                200
            );
        }
    }
    let told = receiver.told();
    let shown: Vec<_> = told
        .iter()
        .map(|it| it.certificate.as_ref().unwrap())
        .collect();
    assert_eq!(shown, [&one.der, &two.der, &one.der].repeat(3));
    let connections = receiver.connections.load(Ordering::SeqCst) - before;
    assert_eq!(connections, 3, "kept, and not shared");
    // Each is kept and counted, and what was refused no longer is.
    until("three are kept", || {
        let levels = client.connections();
        (levels.used, levels.kept) == (0, 3)
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_with_tls_settings_is_never_asked_in_clear() {
    let receiver = support::Receiver::start(|_, _| support::Reply::Status(200)).await;
    let authority = Authority::new();
    let refused = send(&open_client(), &receiver.url, tls(Some(&authority), None)).await;
    assert!(matches!(refused, Err(SendError::NotTls)), "{refused:?}");
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
}

/// A name that leads inside.
#[derive(Debug, Default)]
struct Inside(AtomicUsize);

impl Network for Inside {
    fn resolve(&self, _name: String) -> Later<Vec<IpAddr>> {
        Box::pin(std::future::ready(Ok(vec![Ipv4Addr::LOCALHOST.into()])))
    }

    fn connect(&self, to: SocketAddr) -> Later<TcpStream> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(TcpStream::connect(to))
    }
}

#[tokio::test]
async fn the_egress_guard_stands_before_a_client_with_tls_settings_too() {
    let authority = Authority::new();
    let receiver = TlsReceiver::start(&authority, None, "").await;
    let network = Arc::new(Inside::default());
    let client =
        EgressClient::over(Arc::clone(&network) as _, EgressPolicy::default(), &[]).unwrap();
    let url = receiver.url.replace("127.0.0.1", "hooks.example.com");
    let refused = send(&client, &url, tls(Some(&authority), None)).await;
    assert!(matches!(refused, Err(SendError::Refused(_))), "{refused:?}");
    let literal = send(&client, &receiver.url, tls(Some(&authority), None)).await;
    assert!(matches!(literal, Err(SendError::Url(_))), "{literal:?}");
    assert_eq!(network.0.load(Ordering::SeqCst), 0);
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_server_that_reads_nothing_after_the_handshake_keeps_no_connection() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let client = EgressClient::new(OPEN, std::slice::from_ref(&authority.der)).unwrap();
    let target = Target::new(
        Endpoint {
            url,
            ..Endpoint::default()
        },
        client.policy(),
    );
    let post = Post {
        event_id: Uuid::from_u128(7),
        // More than the buffers between them hold.
        body: Bytes::from(vec![b' '; 64 << 20]),
        gap: false,
        unix_seconds: 1_767_694_639,
    };
    let request = client.post(&target.unwrap(), post, 100, Duration::from_secs(20));
    let request = tokio::spawn(request);
    let (tcp, _) = listener.accept().await.unwrap();
    let _peer = acceptor.accept(tcp).await.unwrap();
    tokio::time::pause();
    let late = request.await.unwrap();
    assert!(matches!(late, Err(SendError::Timeout(_))), "{late:?}");
    assert_eq!(client.connections().used, 1, "it is being flushed");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(client.connections().used, 0);
}

#[tokio::test]
async fn a_call_s_question_and_its_events_go_by_the_settings_of_their_webhooks() {
    const FLOW: &str = r#"{"callflow":[{"action":"hangup"}]}"#;
    let (of_receivers, of_clients) = (Authority::new(), Authority::new());
    let receiver = TlsReceiver::start(&of_receivers, Some(&of_clients), FLOW).await;
    let database = Database::new();
    let store = database.open();
    own(&store, OWNER).await;
    let (asking, telling) = (of_clients.sign("asking"), of_clients.sign("telling"));
    for (kind, shown) in [(WebhookType::Vca, &asking), (WebhookType::Vcs, &telling)] {
        hook(&store, OWNER, kind, &receiver.url).await;
        let mut config = tls(Some(&of_receivers), Some(shown));
        for (name, value) in [
            ("x-kind", kind.as_str()),
            // The API takes none of these.
            ("content-type", "text/plain"),
            ("webhook-id", "mine"),
            ("authorization", "mine"),
        ] {
            let headers = &mut config.secrets.headers;
            headers.insert(name.to_owned(), value.to_owned());
        }
        keep(&store, kind, config).await;
    }
    let dispatcher = Dispatcher::start(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&store) as Arc<dyn Deliveries>,
        open_client(),
        DeliveryConfig::default(),
        None,
    );
    let endpoints: Arc<Endpoints> = dispatcher.endpoints();
    let asks = CallActionClient::new(open_client(), endpoints, CallActionClient::DEFAULT_DEADLINE);
    let request = ActionRequest {
        sub_account_id: OWNER.to_owned(),
        event_id: Uuid::from_u128(9),
        body: "{}".to_owned(),
    };
    let answer = asks.ask(request).await;
    assert!(matches!(answer, ActionAnswer::Callflow(_)), "{answer:?}");
    let events = call(OWNER, 1, 1, false);
    commit(&store, &events).await;
    dispatcher.committed(events);
    until("the event is through", || receiver.told().len() == 2).await;
    for (told, (kind, shown)) in receiver
        .told()
        .iter()
        .zip([("vca", &asking), ("vcs", &telling)])
    {
        assert_eq!(told.certificate.as_ref(), Some(&shown.der));
        assert!(
            told.head.contains(&format!("x-kind: {kind}")),
            "{}",
            told.head
        );
        // What is ours stays ours.
        assert!(told.head.contains("content-type: application/json"));
        assert!(told.head.contains("authorization: bearer opensesame"));
        assert!(!told.head.contains("mine"), "{}", told.head);
    }
}

#[test]
fn what_can_not_be_used_is_named_and_not_repeated() {
    let authority = Authority::new();
    let (one, two) = (authority.sign("one"), authority.sign("two"));
    let garbage = pem("CERTIFICATE", b"no certificate at all");
    let long = one.pem().repeat(40);
    for (ca, certificate, key, fault) in [
        (
            Some("nothing"),
            None,
            None,
            "tls.ca: holds no certificates in PEM",
        ),
        (Some(""), None, None, "tls.ca: holds no certificates in PEM"),
        (
            Some(&*garbage),
            None,
            None,
            "tls.ca: holds a certificate that can't be read",
        ),
        (
            Some(&*one.key_pem()),
            None,
            None,
            "tls.ca: holds a private key, which only tls.clientKey may",
        ),
        (Some(&*long), None, None, "tls.ca: is above 16384 bytes"),
        (None, Some(&*one.pem()), None, "tls.clientKey: is missing"),
        (
            None,
            None,
            Some(&*one.key_pem()),
            "tls.clientCertificate: is missing",
        ),
        (
            None,
            Some(&*one.pem()),
            Some(&*two.key_pem()),
            "tls.clientKey: is not the key of the first certificate",
        ),
        (
            None,
            Some(&*one.pem()),
            Some(&*one.pem()),
            "tls.clientKey: holds no private key",
        ),
        (
            None,
            Some(&*one.pem()),
            Some("nothing"),
            "tls.clientKey: holds no private key",
        ),
        (
            None,
            Some(&*garbage),
            Some(&*one.key_pem()),
            "tls.clientCertificate: begins with a certificate that can't be read",
        ),
        (
            None,
            Some(&*(one.pem() + &one.key_pem())),
            Some(&*one.key_pem()),
            "tls.clientCertificate: holds a private key",
        ),
        (
            None,
            Some(&*one.pem()),
            Some(&*pem("PRIVATE KEY", b"no key")),
            "tls.clientKey: is of a kind that can't be used",
        ),
    ] {
        let tls = TlsSettings {
            ca: ca.map(str::to_owned),
            client_certificate: certificate.map(str::to_owned),
        };
        let found = check_tls(&tls, key).expect_err(fault);
        let text = format!("{}: {}", found.field, found.reason);
        assert!(text.starts_with(fault), "{text}, not {fault}");
        assert!(text.len() < 120, "{text}");
    }
    let tls = TlsSettings {
        ca: Some(authority.pem()),
        client_certificate: Some(one.pem() + &authority.pem()),
    };
    assert_eq!(check_tls(&tls, Some(&one.key_pem())), Ok(()));
}
