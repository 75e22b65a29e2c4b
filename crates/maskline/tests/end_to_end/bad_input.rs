//! What no proper phone sends: each gets its status or is dropped, and the switch goes on.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::support::raw::Raw;
use crate::support::sipp::Transport;
use crate::support::site::{CALLER_ADDRESS, Options, STRANGER_ADDRESS, Site};

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.2\r\ns=-\r\nc=IN IP4 127.0.0.2\r\nt=0 0\r\n\
                   m=audio 40000 RTP/AVP 8\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_odd_request_gets_its_status() {
    let mut site = Site::open("bad-requests", Options::new(Transport::Udp)).await;
    let raw = Raw::open(CALLER_ADDRESS, site.ports.sip()).await;
    let sdp_type = "Content-Type: application/sdp\r\n";
    let request = |method, name, lines: &str, body| raw.request(method, name, lines, body);
    let table = [
        (
            "is asked what it can do",
            request("OPTIONS", "options", "", ""),
            200,
        ),
        ("an unknown method", request("DANCE", "dance", "", ""), 501),
        (
            "a known method that we have no use for",
            request("SUBSCRIBE", "subscribe", "", ""),
            405,
        ),
        (
            "too many hops",
            request(
                "INVITE",
                "hops",
                &format!("Max-Forwards: 0\r\n{sdp_type}"),
                SDP,
            ),
            483,
        ),
        (
            "an extension that we lack",
            request(
                "INVITE",
                "ext",
                &format!("Require: x-foo\r\n{sdp_type}"),
                SDP,
            ),
            420,
        ),
        ("no offer", request("INVITE", "no-offer", "", ""), 488),
        (
            "a body that is no SDP",
            request("INVITE", "text", "Content-Type: text/plain\r\n", "hello"),
            415,
        ),
        (
            "SDP that is none",
            request("INVITE", "bad-sdp", sdp_type, "v=0\r\nm=what"),
            488,
        ),
        (
            "SDP without a codec of ours",
            request("INVITE", "codec", sdp_type, &SDP.replace("AVP 8", "AVP 34")),
            488,
        ),
        (
            "a dialog that is not",
            request("BYE", "bye", "", "").replace(
                "To: <sip:+6531580001@127.0.0.1>",
                "To: <sip:+6531580001@127.0.0.1>;tag=none",
            ),
            481,
        ),
        (
            "a call that is not",
            request("CANCEL", "cancel", "", ""),
            481,
        ),
        (
            "another version",
            request("INVITE", "version", sdp_type, SDP).replacen("SIP/2.0\r\n", "SIP/3.0\r\n", 1),
            505,
        ),
        (
            "no Call-ID",
            request("INVITE", "no-id", sdp_type, SDP).replace("Call-ID: no-id\r\n", ""),
            400,
        ),
        (
            "CSeq of another method",
            request("INVITE", "cseq", sdp_type, SDP).replace("1 INVITE", "1 BYE"),
            400,
        ),
    ];
    for (what, request, expected) in table {
        let (status, answer) = raw.status_of(&request).await;
        assert_eq!(status, Some(expected), "{what}: {request}\n{answer}");
    }
    assert!(
        site.receiver.received().is_empty(),
        "none of them is a call"
    );
    assert!(site.switch.take().unwrap().drain().await.success());
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
