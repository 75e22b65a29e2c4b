//! What no proper phone sends: each gets its status or is dropped, and the switch goes on.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::support::client::request;
use crate::support::raw::Raw;
use crate::support::sipp::Transport;
use crate::support::site::{CALLER_ADDRESS, Options, STRANGER_ADDRESS, Site};
use crate::support::switch::ADMIN_KEY;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.2\r\ns=-\r\nc=IN IP4 127.0.0.2\r\nt=0 0\r\n\
                   m=audio 40000 RTP/AVP 8\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_odd_request_gets_its_status() {
    let mut site = Site::open("bad-requests", Options::new(Transport::Udp)).await;
    // A refused INVITE is repeated until it is acknowledged, so each has a socket of its own.
    let port = site.ports.sip();
    let raw = Raw::open(CALLER_ADDRESS, port).await;
    let sdp_type = "Content-Type: application/sdp\r\n";
    let text = |method, name, lines: &str, body| raw.request(method, name, lines, body);
    let table = [
        (
            "is asked what it can do",
            text("OPTIONS", "options", "", ""),
            200,
        ),
        ("an unknown method", text("DANCE", "dance", "", ""), 501),
        (
            "a known method that we have no use for",
            text("SUBSCRIBE", "subscribe", "", ""),
            405,
        ),
        (
            "too many hops",
            text(
                "INVITE",
                "hops",
                &format!("Max-Forwards: 0\r\n{sdp_type}"),
                SDP,
            ),
            483,
        ),
        (
            "an extension that we lack",
            text(
                "INVITE",
                "ext",
                &format!("Require: x-foo\r\n{sdp_type}"),
                SDP,
            ),
            420,
        ),
        (
            "a body that is no SDP",
            text("INVITE", "text", "Content-Type: text/plain\r\n", "hello"),
            415,
        ),
        (
            "SDP that is none",
            text("INVITE", "bad-sdp", sdp_type, "v=0\r\nm=what"),
            488,
        ),
        (
            "SDP without a codec of ours",
            text("INVITE", "codec", sdp_type, &SDP.replace("AVP 8", "AVP 34")),
            488,
        ),
        (
            "a dialog that is not",
            text("BYE", "bye", "", "").replace(
                "To: <sip:+6531580001@127.0.0.1>",
                "To: <sip:+6531580001@127.0.0.1>;tag=none",
            ),
            481,
        ),
        ("a call that is not", text("CANCEL", "cancel", "", ""), 481),
        (
            "another version",
            text("INVITE", "version", sdp_type, SDP).replacen("SIP/2.0\r\n", "SIP/3.0\r\n", 1),
            505,
        ),
        (
            "no Contact",
            text("INVITE", "no-contact", sdp_type, SDP)
                .replace("Contact: <sip:", "X-Contact: <sip:"),
            400,
        ),
        (
            "CSeq of another method",
            text("INVITE", "cseq", sdp_type, SDP).replace("1 INVITE", "1 BYE"),
            400,
        ),
    ];
    for (what, request, expected) in table {
        let fresh = Raw::open(CALLER_ADDRESS, port).await;
        let request = request.replace(&raw.local(), &fresh.local());
        let (status, answer) = fresh.status_of(&request).await;
        assert_eq!(status, Some(expected), "{what}: {request}\n{answer}");
    }
    assert!(
        site.receiver.received().is_empty(),
        "none of them is a call"
    );
    assert!(site.switch.take().unwrap().drain().await.success());
}

/// From an address outside of every allow-list: dropped or refused, counted, and no call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_from_an_unknown_address_gets_nowhere() {
    let mut site = Site::open("stranger", Options::new(Transport::Udp)).await;
    let before = counted(&site).await;
    let stranger = Raw::open(STRANGER_ADDRESS, site.ports.sip()).await;
    let invite = stranger.request(
        "INVITE",
        "stranger",
        "Content-Type: application/sdp\r\n",
        SDP,
    );
    stranger.send(invite.as_bytes()).await;
    let answer = stranger.answer(Duration::from_secs(1)).await;
    assert!(
        answer
            .as_ref()
            .is_none_or(|it| it.starts_with("SIP/2.0 403")),
        "{answer:?}"
    );
    assert_ne!(counted(&site).await, before, "it is counted");

    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(format!("{STRANGER_ADDRESS}:0").parse().unwrap())
        .unwrap();
    let switch = format!("127.0.0.1:{}", site.ports.sip()).parse().unwrap();
    if let Ok(mut stream) = socket.connect(switch).await {
        let _maybe_closed = stream.write_all(invite.as_bytes()).await;
        let mut bytes = [0; 1024];
        let read = timeout(Duration::from_secs(1), stream.read(&mut bytes)).await;
        let answered = matches!(read, Ok(Ok(length)) if length > 0);
        assert!(!answered || bytes.starts_with(b"SIP/2.0 403"), "{bytes:?}");
    }
    assert!(site.receiver.received().is_empty(), "it is no call");
    assert!(site.switch.take().unwrap().drain().await.success());
}

/// The metrics about what came from unknown addresses.
async fn counted(site: &Site) -> Vec<String> {
    let metrics = request(site.ports.http(), "GET", "/metrics", ADMIN_KEY, None)
        .await
        .unwrap();
    let from_strangers = |line: &&str| !line.starts_with('#') && line.contains("stranger");
    metrics
        .body
        .lines()
        .filter(from_strangers)
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_is_dropped_and_the_switch_goes_on() {
    let mut site = Site::open("noise", Options::new(Transport::Udp)).await;
    let raw = Raw::open(CALLER_ADDRESS, site.ports.sip()).await;
    let proper = raw.request("INVITE", "cut", "Content-Type: application/sdp\r\n", SDP);
    for length in (0..proper.len()).step_by(7) {
        raw.send(&proper.as_bytes()[..length]).await;
    }
    for noise in [
        b"\0\0\0\0".as_slice(),
        b"\r\n\r\n",
        b"\xff\xfe\xfd",
        b"INVITE",
        &[b'A'; 60_000],
    ] {
        raw.send(noise).await;
    }
    // Without a Call-ID no answer can name the call.
    let nameless = raw.request(
        "INVITE",
        "nameless",
        "Content-Type: application/sdp\r\n",
        SDP,
    );
    raw.send(nameless.replace("Call-ID: nameless\r\n", "").as_bytes())
        .await;
    let stranger = Raw::open(STRANGER_ADDRESS, site.ports.sip()).await;
    for index in 0..200 {
        stranger
            .send(
                stranger
                    .request("INVITE", &format!("flood-{index}"), "", "")
                    .as_bytes(),
            )
            .await;
    }

    let address = format!("{CALLER_ADDRESS}:0").parse().unwrap();
    for noise in [
        "GET / HTTP/1.1\r\n\r\n",
        "\r\n\r\n\r\n",
        "INVITE sip:x SIP/2.0\r\nContent-Length: 99999999999\r\n\r\n",
    ] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let switch = format!("127.0.0.1:{}", site.ports.sip()).parse().unwrap();
        let mut stream = socket.connect(switch).await.unwrap();
        stream.write_all(noise.as_bytes()).await.unwrap();
        // Whether it is answered or closed is the switch's choice; it must not hold us up.
        let _any = timeout(Duration::from_millis(200), stream.read(&mut [0; 1024])).await;
    }

    let fresh = Raw::open(CALLER_ADDRESS, site.ports.sip()).await;
    let (status, answer) = fresh
        .status_of(&fresh.request("OPTIONS", "alive", "", ""))
        .await;
    assert_eq!(status, Some(200), "{answer}");
    assert!(
        site.receiver.received().is_empty(),
        "none of them is a call"
    );
    assert!(site.switch.take().unwrap().drain().await.success());
}
