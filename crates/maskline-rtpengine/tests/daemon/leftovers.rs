//! Calls at a daemon that nobody has any more are deleted, and nobody else's are.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use maskline_media::{Engine, MediaCommand, MediaEvent};
use maskline_rtpengine::Installation;

use crate::support::*;

/// For orders and presses, which need no port of the range.
fn elsewhere(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 8], port))
}

/// The names of all calls at a daemon.
fn calls_at(daemon: &Daemon) -> Vec<String> {
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    socket.connect(daemon.ng).unwrap();
    let wait = Duration::from_millis(200);
    socket.set_read_timeout(Some(wait)).unwrap();
    let since = Instant::now();
    loop {
        // The daemon answers the same once more to what has the same cookie.
        let cookie: u64 = rand::random();
        let order = format!(r#"{cookie} {{"command":"list","limit":100}}"#);
        let _ = socket.send(order.as_bytes());
        let mut room = vec![0; 65_535];
        if let Ok(length) = socket.recv(&mut room) {
            let text = std::str::from_utf8(&room[..length]).unwrap();
            let (_, names) = text.split_once('[').unwrap();
            let (names, _) = names.split_once(']').unwrap();
            let names = names.split(',').map(|name| name.trim().trim_matches('"'));
            let names = names.filter(|name| !name.is_empty());
            let mut names: Vec<String> = names.map(str::to_owned).collect();
            names.sort();
            return names;
        }
        assert!(since.elapsed() < PATIENCE, "no list");
    }
}

async fn until_at(daemon: &Daemon, wanted: &[String]) {
    let since = Instant::now();
    while calls_at(daemon) != wanted {
        assert!(since.elapsed() < PATIENCE, "{:?}", calls_at(daemon));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn installation(id: u64, found: &[u64]) -> Installation {
    Installation {
        id,
        found: found.to_vec(),
    }
}

fn named(installation: u64, key: u64) -> String {
    format!("maskline-{installation:016x}-{key:016x}")
}

/// Makes a call of this name, or goes on with it; which port the daemon names.
fn plant(daemon: &Daemon, name: &str, command: &str) -> u16 {
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    socket.connect(daemon.ng).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let sdp = "v=0\\r\\no=- 1 1 IN IP4 127.0.0.1\\r\\ns=-\\r\\nc=IN IP4 127.0.0.1\\r\\nt=0 0\\r\\nm=audio 9 RTP/AVP 0\\r\\na=inactive\\r\\n";
    let order = format!(
        r#"{name}-{command} {{"command":"{command}","call-id":"{name}","from-tag":"caller","to-tag":"callee","sdp":"{sdp}","ICE":"remove"}}"#
    );
    socket.send(order.as_bytes()).unwrap();
    let mut room = vec![0; 65_535];
    let length = socket.recv(&mut room).unwrap();
    let text = String::from_utf8_lossy(&room[..length]).into_owned();
    let (_, rest) = text.split_once("m=audio ").expect("a port");
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn after_adoption_only_calls_of_this_installation_without_a_session_are_deleted() {
    // Four ports a call.
    let presses = elsewhere(31_259);
    let daemon = Daemon::start_at(elsewhere(31_258), (31_244, 31_281), presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (caller_port, callee_port) = bench.open(1).await;
    drop(bench);
    // Another of ours, another installation's, another program's, and what an earlier version named: one that
    // this installation knows of, and one that may be anybody's.
    plant(&daemon, &named(INSTALLATION, 2), "offer");
    plant(&daemon, &named(INSTALLATION + 1, 1), "offer");
    plant(&daemon, "maskline-0000000000000003", "offer");
    plant(&daemon, "maskline-0000000000000004", "offer");
    plant(&daemon, "somebody-else", "offer");

    let mut bench = Bench::of(
        installation(INSTALLATION, &[1, 3]),
        vec![daemon.ng],
        elsewhere(31_260),
        PATIENCE,
    )
    .await;
    bench
        .until("it answers", |engine| engine.instances()[0].requests > 1)
        .await;
    assert_eq!(
        calls_at(&daemon).len(),
        6,
        "nothing before adoption is over"
    );
    bench.order(MediaCommand::Resume {
        key: key(1),
        seed: 1,
        caller_port,
        callee_port,
        address: Some(LOOPBACK),
    });
    bench.engine.adopted();
    let left = [
        "maskline-0000000000000004".to_owned(),
        named(INSTALLATION, 1),
        named(INSTALLATION + 1, 1),
        "somebody-else".to_owned(),
    ];
    until_at(&daemon, &left).await;
    bench
        .until("it is counted", |engine| {
            engine.instances()[0].leftovers == 2
        })
        .await;
    assert!(matches!(bench.event().await, MediaEvent::Opened { .. }));
    bench.close(1).await;
}

#[tokio::test]
async fn two_installations_share_a_daemon_and_leave_each_others_calls_alone() {
    let presses = elsewhere(31_279);
    let daemon = Daemon::start_at(elsewhere(31_278), (31_282, 31_293), presses);
    let mut ours = Bench::start(&[&daemon], presses, PATIENCE).await;
    let of_others = installation(INSTALLATION + 1, &[]);
    let mut theirs = Bench::of(of_others, vec![daemon.ng], elsewhere(31_277), PATIENCE).await;
    let (mine, other): (_, (u16, u16)) = (ours.open(5).await, theirs.open(5).await);
    assert_ne!(mine, other);
    ours.engine.adopted();
    theirs.engine.adopted();
    for bench in [&ours, &theirs] {
        // It was pinged, and its list read.
        bench
            .until("looked through", |engine| engine.instances()[0].looks > 0)
            .await;
    }
    let both = [named(INSTALLATION, 5), named(INSTALLATION + 1, 5)];
    assert_eq!(calls_at(&daemon), both);
    ours.close(5).await;
    until_at(&daemon, &both[1..]).await;
    theirs.close(5).await;
}

#[tokio::test]
async fn a_call_that_an_earlier_version_named_is_resumed() {
    let presses = elsewhere(31_299);
    let daemon = Daemon::start_at(elsewhere(31_298), (31_294, 31_299), presses);
    // What it makes of one party's description is meant for the other.
    let callee_port = plant(&daemon, "maskline-0000000000000009", "offer");
    let caller_port = plant(&daemon, "maskline-0000000000000009", "answer");
    let mut bench = Bench::of(
        installation(INSTALLATION, &[9]),
        vec![daemon.ng],
        presses,
        PATIENCE,
    )
    .await;
    bench.order(MediaCommand::Resume {
        key: key(9),
        seed: 1,
        caller_port,
        callee_port,
        address: Some(LOOPBACK),
    });
    bench.engine.adopted();
    let opened = bench.event().await;
    assert!(matches!(opened, MediaEvent::Opened { .. }), "{opened:?}");
    bench
        .until("looked through", |engine| engine.instances()[0].looks > 0)
        .await;
    assert_eq!(calls_at(&daemon), ["maskline-0000000000000009"]);
    bench.close(9).await;
    until_at(&daemon, &[]).await;
}
