//! The guarded client against receivers that misbehave: one deadline, bounded reading, no
//! redirect, no private target, TLS verified.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use maskline_store::Endpoint;
use maskline_webhook::client::{Answer, EgressClient, Post, Target};
use maskline_webhook::{EgressPolicy, Refused, SendError, UrlFault};
use support::{Receiver, Reply, open_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        url: url.to_owned(),
        http_auth_header: Some("Bearer opensesame".to_owned()),
        signing_secrets: vec![vec![1; 32], vec![2; 32]],
        ..Endpoint::default()
    }
}

async fn send(
    client: &EgressClient,
    url: &str,
    limit: usize,
    deadline: Duration,
) -> Result<Answer, SendError> {
    let target = Target::new(endpoint(url), client.policy())?;
    let post = Post {
        event_id: Uuid::from_u128(7),
        body: Bytes::from_static(b"{}"),
        gap: false,
        unix_seconds: 1_767_694_639,
    };
    client.post(&target, post, limit, deadline).await
}

async fn against(reply: Reply, limit: usize, deadline: Duration) -> Result<Answer, SendError> {
    let receiver = Receiver::start(move |_, _| reply.clone()).await;
    send(&open_client(), &receiver.url, limit, deadline).await
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
async fn a_request_carries_the_contract_s_headers() {
    let receiver = Receiver::start(|_, _| Reply::Status(204)).await;
    let answer = send(&open_client(), &receiver.url, 100, SECOND)
        .await
        .unwrap();
    assert_eq!((answer.status, answer.truncated), (204, false));
    let request = receiver.requests().remove(0);
    assert_eq!(request.path, "/hook");
    assert_eq!(request.body, b"{}");
    for (name, value) in [
        ("content-type", "application/json"),
        (
            "user-agent",
            concat!("Maskline/", env!("CARGO_PKG_VERSION")),
        ),
        ("authorization", "Bearer opensesame"),
        ("webhook-id", "00000000-0000-0000-0000-000000000007"),
        ("webhook-timestamp", "1767694639"),
        ("webhook-gap", ""),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    assert_eq!(request.header("webhook-signature").split(' ').count(), 2);
}

#[tokio::test]
async fn connections_are_kept() {
    let receiver = Receiver::start(|_, _| Reply::Body("ok".to_owned())).await;
    let client = open_client();
    for _ in 0..20 {
        send(&client, &receiver.url, 100, SECOND).await.unwrap();
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn one_deadline_covers_the_whole_exchange() {
    for reply in [
        Reply::Stall,
        Reply::StallInBody,
        Reply::Drip,
        Reply::Late(SECOND * 60, 200),
    ] {
        let started = Instant::now();
        let deadline = Duration::from_millis(300);
        let result = against(reply.clone(), 16 * 1024, deadline).await;
        assert!(
            matches!(result, Err(SendError::Timeout(_))),
            "{reply:?}: {result:?}"
        );
        assert!(started.elapsed() < SECOND * 5, "{reply:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_early_is_told_from_one_that_never_was() {
    let cut = against(Reply::CutOff, 100, SECOND).await;
    assert!(matches!(cut, Err(SendError::CutOff)), "{cut:?}");
    let reset = against(Reply::Reset, 100, SECOND).await.unwrap_err();
    assert!(reset.is_connection_failure(), "{reset:?}");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let refused = send(&open_client(), &closed, 100, SECOND)
        .await
        .unwrap_err();
    assert!(matches!(refused, SendError::Connect(_)), "{refused:?}");
    let name = "http://no-such-name.invalid/";
    let unresolved = send(&open_client(), name, 100, SECOND * 10)
        .await
        .unwrap_err();
    assert!(
        matches!(unresolved, SendError::Connect(_) | SendError::Timeout(_)),
        "{unresolved:?}"
    );
}

#[tokio::test]
async fn what_is_not_http_is_refused_with_bounded_reading() {
    for reply in [Reply::Garbage, Reply::EndlessHead] {
        let result = against(reply.clone(), 100, SECOND * 5).await;
        assert!(
            matches!(result, Err(SendError::NotHttp)),
            "{reply:?}: {result:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_of_500_mb_is_read_only_up_to_the_limit() {
    const FLOOD: u64 = 500 * 1_000_000;
    for limit in [16 * 1024, 256 * 1024] {
        let receiver = Receiver::start(|_, _| Reply::Flood(FLOOD)).await;
        let client = open_client();
        let before = resident_bytes();
        let answer = send(&client, &receiver.url, limit, SECOND * 10)
            .await
            .unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, limit));
        assert!(answer.truncated);
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 32 << 20, "{grown} bytes more in memory");
        // The connection was closed, so the receiver gets rid of what socket buffers hold only.
        send(&client, &receiver.url, limit, SECOND * 10)
            .await
            .unwrap();
        assert_eq!(receiver.connections.load(Ordering::SeqCst), 2);
        let written = receiver.written.load(Ordering::SeqCst);
        assert!(written < FLOOD / 5, "{written} bytes were taken");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Receiver::start(|_, _| Reply::Status(200)).await;
    let location = elsewhere.url.clone();
    let receiver =
        Receiver::start(move |_, _| Reply::Header(307, "location", location.clone())).await;
    let answer = send(&open_client(), &receiver.url, 100, SECOND)
        .await
        .unwrap();
    assert_eq!(answer.status, 307);
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_private_target_is_refused_in_every_notation_without_a_connection() {
    let receiver = Receiver::start(|_, _| Reply::Status(200)).await;
    let port = receiver.url.rsplit(':').next().unwrap().to_owned();
    let strict = EgressClient::new(EgressPolicy::default(), &[]).unwrap();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "LOCALHOST.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "0",
        "[::]",
    ] {
        let url = format!("http://{host}:{port}");
        let result = send(&strict, &url, 100, SECOND).await;
        assert!(
            matches!(result, Err(SendError::Url(UrlFault::Address(_)))),
            "{url}: {result:?}"
        );
    }
    let metadata = send(&strict, "http://169.254.169.254/", 100, SECOND).await;
    assert!(matches!(
        metadata,
        Err(SendError::Url(UrlFault::Address(Refused::LinkLocal)))
    ));
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
    // The same notations reach it once the operator allows them.
    for host in ["2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"] {
        let url = format!("http://{host}:{port}");
        let answer = send(&open_client(), &url, 100, SECOND * 5).await;
        assert_eq!(answer.unwrap().status, 200, "{url}");
    }
}

/// A TLS server with a certificate of the test authority for 127.0.0.1.
async fn tls_server() -> u16 {
    let certificate = include_bytes!("tls/server.der").to_vec().into();
    let key = include_bytes!("tls/server-key.der").to_vec();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key).into();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut buffer = vec![0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_certificate_is_verified_against_trusted_roots_and_the_host() {
    let port = tls_server().await;
    let url = format!("https://127.0.0.1:{port}/");
    let untrusted = send(&open_client(), &url, 100, SECOND * 5).await;
    assert!(matches!(untrusted, Err(SendError::Tls(_))), "{untrusted:?}");
    let policy = EgressPolicy {
        allow_private_targets: true,
    };
    let authority = include_bytes!("tls/authority.der").to_vec().into();
    let trusting = EgressClient::new(policy, &[authority]).unwrap();
    let answer = send(&trusting, &url, 100, SECOND * 5).await.unwrap();
    assert_eq!(answer.status, 200);
    let other_name = format!("https://localhost:{port}/");
    let wrong = send(&trusting, &other_name, 100, SECOND * 5).await;
    assert!(matches!(wrong, Err(SendError::Tls(_))), "{wrong:?}");
}
