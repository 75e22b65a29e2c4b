//! A daemon that hangs, or speaks strangely.

use std::time::Duration;

use maskline_media::{MediaCommand, MediaEvent};

use crate::support::*;

/// A daemon that answers as it is told, or not at all.
struct Fake {
    socket: tokio::net::UdpSocket,
}

impl Fake {
    async fn new(port: u16) -> Self {
        let socket = tokio::net::UdpSocket::bind(at(port)).await.unwrap();
        Self { socket }
    }

    /// Answers requests of some kinds, for so long.
    async fn answers(&self, kinds: &[(&str, &str)], time: Duration) {
        let until = tokio::time::Instant::now() + time;
        let mut room = [0; 4_096];
        loop {
            let request = tokio::time::timeout_at(until, self.socket.recv_from(&mut room));
            let Ok(Ok((length, from))) = request.await else {
                return;
            };
            let text = std::str::from_utf8(&room[..length]).unwrap();
            let (cookie, body) = text.split_once(' ').unwrap();
            let of = |kind: &str| body.contains(&format!("\"command\":\"{kind}\""));
            if let Some((_, answer)) = kinds.iter().find(|(kind, _)| of(kind)) {
                let answer = format!("{cookie} {answer}");
                self.socket.send_to(answer.as_bytes(), from).await.unwrap();
            }
        }
    }
}

const PLACED: &str =
    r#"{"result":"ok","sdp":"v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 40000 RTP/AVP 0\r\n"}"#;
const OK: &str = r#"{"result":"ok"}"#;

#[tokio::test]
async fn a_call_is_not_ended_because_its_daemon_can_not_be_asked() {
    let daemon = Fake::new(31_240).await;
    let silence = Duration::from_secs(1);
    let mut bench = Bench::at(vec![at(31_240)], at(31_241), silence).await;
    bench.order(MediaCommand::Open {
        key: key(1),
        seed: 1,
    });
    let opening = [
        ("ping", r#"{"result":"pong"}"#),
        ("offer", PLACED),
        ("answer", PLACED),
    ];
    daemon.answers(&opening, Duration::from_millis(500)).await;
    assert!(matches!(bench.event().await, MediaEvent::Opened { .. }));
    let (a, b) = (Phone::new(), Phone::new());
    bench.program(1, a.media(pcma()), b.media(pcma()));
    daemon.answers(&opening, Duration::from_millis(300)).await;
    // From here on it hangs, and then speaks of what nobody knows.
    tokio::time::sleep(silence + silence / 2).await;
    let strange = [("query", r#"{"result":[]}"#)];
    daemon.answers(&strange, silence + silence / 2).await;
    assert!(
        bench.events.try_recv().is_err(),
        "nobody is silent as far as is known"
    );
    // It answers again, and nobody was heard.
    let told = tokio::spawn(async move { (bench.event().await, bench) });
    let answers = [("query", OK), ("delete", OK)];
    daemon.answers(&answers, Duration::from_secs(2)).await;
    let (silent, mut bench) = told.await.unwrap();
    assert!(matches!(silent, MediaEvent::Silent { .. }), "{silent:?}");
    bench.order(MediaCommand::Close { key: key(1) });
    daemon.answers(&answers, Duration::from_millis(500)).await;
    while !matches!(bench.event().await, MediaEvent::Closed { .. }) {}
}

#[tokio::test]
async fn a_session_of_an_earlier_run_is_looked_for_until_its_daemon_answers() {
    let daemon = Fake::new(31_242).await;
    let mut bench = Bench::at(vec![at(31_242)], at(31_243), PATIENCE).await;
    bench.order(MediaCommand::Resume {
        key: key(2),
        seed: 1,
        caller_port: 40_000,
        callee_port: 40_002,
        address: Some(LOOPBACK),
    });
    // Longer than one request is waited for.
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    let side = |port| format!(r#"{{"medias":[{{"streams":[{{"local port":{port}}}]}}]}}"#);
    let (caller, callee) = (side(40_000), side(40_002));
    let found = format!(r#"{{"result":"ok","tags":{{"caller":{caller},"callee":{callee}}}}}"#);
    daemon
        .answers(&[("query", &found)], Duration::from_secs(3))
        .await;
    let opened = bench.event().await;
    assert!(matches!(opened, MediaEvent::Opened { .. }), "{opened:?}");
}
