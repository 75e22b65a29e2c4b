//! Bodies that are no good.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ADMIN_KEY, DEADLINE, start};

const PATH: &str = "/api/v1/admin/subaccounts";

#[tokio::test]
async fn what_is_no_json_object_is_422() {
    let api = start().await;
    for body in [
        &b""[..],
        b" ",
        b"{",
        b"nonsense",
        b"null",
        b"[]",
        b"[\"abc\", []]",
        b"\"abc\"",
        b"{\"subAccountId\": \"abc\"} {}",
        b"{\"subAccountId\": \"a\xffbc\"}",
        b"{\"subAccountId\": \"abc\",}",
        b"{subAccountId: 'abc'}",
        b"subAccountId=abc",
        b"\x1f\x8b\x08\x00\x00",
    ] {
        let body = Some(body.to_vec());
        let reply = api.send("POST", PATH, Some(ADMIN_KEY), body).await;
        reply.expect_fault(422, "1001", "Invalid JSON request body");
    }
    let twice = br#"{"subAccountId": "abc", "subAccountId": "abd"}"#.to_vec();
    let reply = api.send("POST", PATH, Some(ADMIN_KEY), Some(twice)).await;
    assert_eq!(reply.expect(422).json["statusCode"], "1001");
    let deep = [b"{\"x\":".as_slice(), &[b'['; 60_000]].concat();
    let reply = api.send("POST", PATH, Some(ADMIN_KEY), Some(deep)).await;
    reply.expect(422);
    assert_eq!(api.get(PATH, ADMIN_KEY).await.json["count"], 0);
}

#[tokio::test]
async fn a_body_above_64_kb_is_413_declared_or_not() {
    let api = start().await;
    let message = "The request body is above 64 kB";
    let body_of = |bytes: usize| {
        let frame = r#"{"subAccountId": "abc"}"#;
        let mut body = frame.as_bytes().to_vec();
        body.resize(bytes, b' ');
        Some(body)
    };
    let reply = api
        .send("POST", PATH, Some(ADMIN_KEY), body_of(65_537))
        .await;
    reply.expect_fault(413, "413", message);
    let reply = api
        .send("POST", PATH, Some(ADMIN_KEY), body_of(65_536))
        .await;
    reply.expect(201);
    // Declared only: answered before anything of it came.
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-length: 500000000\r\n\r\n"
    );
    let answer = api.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains(message), "{answer}");
    // Chunked, without an end.
    let mut endless = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for _ in 0..20 {
        endless.extend_from_slice(b"2000\r\n");
        endless.extend_from_slice(&[b' '; 0x2000]);
        endless.extend_from_slice(b"\r\n");
    }
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let _ = stream.write_all(&endless).await;
    let mut answer = [0; 12];
    let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_body_is_not_read_before_the_key_is_known() {
    let api = start().await;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n");
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408() {
    // Virtual time: the store answers from a thread of its own, so it is asked before the pause.
    tokio::time::resume();
    let api = start().await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-length: 1000\r\n\r\n{{"
    );
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::pause();
    tokio::time::timeout(Duration::from_secs(18), read)
        .await
        .expect("no answer within the request's deadline")
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("The request took too long"), "{answer}");
}
