//! The listener's limits, hostile connections, and the end.

use std::time::Duration;

use maskline_http::ServeLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{ADMIN_KEY, DEADLINE, Setup, start, start_with};

async fn limited(limits: ServeLimits) -> crate::support::Api {
    start_with(Setup {
        limits,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off() {
    let api = limited(ServeLimits {
        head: Duration::from_millis(200),
        ..ServeLimits::default()
    })
    .await;
    for start in [&b""[..], b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: "] {
        api.raw(start).await;
    }
    // So is a kept connection that rests.
    let answer = api.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    api.send("GET", "/healthz", None, None).await.expect(200);
}

#[tokio::test]
async fn garbage_and_oversized_heads_are_refused_and_harm_nobody() {
    let api = start().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000));
    let many = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(100)
    );
    for (bytes, statuses) in [
        (
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            &["400"][..],
        ),
        (b"INVITE sip:x SIP/2.0\r\n\r\n", &["400"]),
        (
            b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            &["400"],
        ),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            &["400"],
        ),
        (long.as_bytes(), &["414", "431", "400"]),
        (many.as_bytes(), &["431"]),
    ] {
        let answer = api.raw(bytes).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{statuses:?}: {answer:?}");
    }
    api.send("GET", "/healthz", None, None).await.expect(200);
}

#[tokio::test]
async fn connections_of_one_address_and_in_all_are_bounded_and_given_back() {
    let api = limited(ServeLimits {
        connections: 4,
        connections_per_address: 2,
        ..ServeLimits::default()
    })
    .await;
    for _ in 0..3 {
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(api.address).await.unwrap();
            ask_health(&mut stream).await;
            kept.push(stream);
        }
        // The third of this address is closed without a word.
        assert_eq!(api.raw(b"").await, "");
        for stream in &mut kept {
            ask_health(stream).await;
        }
        drop(kept);
        // Closing is noticed by the server a moment later.
        let free = async {
            while !api
                .raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 200")
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, free).await.expect("no place came back");
    }
}

#[tokio::test]
async fn a_connection_is_closed_when_it_is_old() {
    let api = limited(ServeLimits {
        connection_age: Duration::from_millis(300),
        ..ServeLimits::default()
    })
    .await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    ask_health(&mut stream).await;
    let mut rest = Vec::new();
    let end = timeout(DEADLINE, stream.read_to_end(&mut rest));
    end.await.expect("not closed").unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn at_shutdown_open_requests_end_and_nothing_new_is_taken() {
    let mut api = start().await;
    let mut resting = TcpStream::connect(api.address).await.unwrap();
    ask_health(&mut resting).await;
    let mut open = TcpStream::connect(api.address).await.unwrap();
    let body = r#"{"subAccountId": "late"}"#;
    let head = format!(
        "POST /api/v1/admin/subaccounts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    open.write_all(head.as_bytes()).await.unwrap();
    // The handler is reading the body: now the request is open.
    let mut interim = [0; 25];
    open.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    api.shutdown.take().unwrap().send(()).unwrap();
    let mut rest = Vec::new();
    let closed = timeout(DEADLINE, resting.read_to_end(&mut rest));
    closed.await.expect("a resting connection stays").unwrap();
    assert!(TcpStream::connect(api.address).await.is_err());
    open.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = timeout(DEADLINE, open.read_to_end(&mut answer));
    end.await.expect("no answer").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    timeout(DEADLINE, api.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn at_shutdown_a_request_that_does_not_end_is_cut() {
    let mut api = limited(ServeLimits {
        closing: Duration::from_millis(200),
        ..ServeLimits::default()
    })
    .await;
    let mut open = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "POST /api/v1/admin/subaccounts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n"
    );
    open.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    open.read_exact(&mut interim).await.unwrap();
    api.shutdown.take().unwrap().send(()).unwrap();
    timeout(DEADLINE, api.served).await.unwrap().unwrap();
}

async fn ask_health(stream: &mut TcpStream) {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"{\"status\":\"ok\"}") {
            let read = stream.read_buf(&mut answer).await.unwrap();
            assert_ne!(read, 0, "closed after {}", answer.escape_ascii());
        }
    };
    timeout(DEADLINE, read).await.expect("no answer");
}
