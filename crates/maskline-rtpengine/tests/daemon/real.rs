//! Sessions are opened, described, heard, moved, held, failed over, found again and closed.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use maskline_media::{
    CallerMedia, Carriage, Engine, MediaCommand, MediaEvent, OpenFailure, Side, Voice, VoiceCodec,
};

use crate::support::*;

#[tokio::test]
async fn parties_hear_each_other_strangers_are_not_heard_and_a_party_may_move() {
    let presses = at(31_019);
    let daemon = Daemon::start(31_000, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(7).await;
    let (mut a, mut b, mut stranger) = (Phone::new(), Phone::new(), Phone::new());

    stranger.say(towards_a, 8, &[1; 160]);
    bench.program(7, a.media(pcma()), b.media(pcma()));
    stranger.say(towards_a, 8, &[1; 160]);
    assert_eq!(b.until_heard(&mut a, towards_a, 8).await, (8, 0x55));
    assert_eq!(a.until_heard(&mut b, towards_b, 8).await, (8, 0x55));
    for _ in 0..5 {
        stranger.say(towards_a, 8, &[1; 160]);
        stranger.say(towards_b, 8, &[1; 160]);
    }
    b.until_heard(&mut a, towards_a, 8).await;
    a.until_heard(&mut b, towards_b, 8).await;
    let all = [a.heard(), b.heard()].concat();
    assert!(all.iter().all(|heard| heard.1 == 0x55), "{all:?}");
    assert!(stranger.heard().is_empty());

    let mut moved = Phone::new();
    bench.order(MediaCommand::ProgramCaller {
        key: key(7),
        media: CallerMedia(moved.media(pcma())),
    });
    moved.until_heard(&mut b, towards_b, 8).await;
    b.until_heard(&mut moved, towards_a, 8).await;

    let closed = bench.close(7).await;
    let MediaEvent::Closed { caller: None, .. } = closed else {
        panic!("nobody reported anything: {closed:?}");
    };
    assert_eq!(bench.engine.counters().sessions, 0);
    // The ports are free soon, not after the daemon's own half minute.
    let started = Instant::now();
    while UdpSocket::bind((LOOPBACK, towards_a)).is_err() {
        assert!(started.elapsed() < PATIENCE, "not freed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_press_is_told_once_and_only_by_the_daemon() {
    let presses = at(31_039);
    let daemon = Daemon::start(31_020, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, _) = bench.open(8).await;
    let (mut a, b) = (Phone::new(), Phone::new());
    bench.program(8, a.media(pcma()), b.media(pcma()));
    b.until_heard(&mut a, towards_a, 8).await;
    // From another machine, as far as addresses tell.
    let forger = UdpSocket::bind("127.0.0.9:0").unwrap();
    let forged = r#"{"callid":"maskline-000000000000005e-0000000000000008","source_tag":"caller","type":"DTMF","event":1}"#;
    forger.send_to(forged.as_bytes(), presses).unwrap();
    let nearby = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    for nonsense in [
        &b"{"[..],
        b"[]",
        &[b'['; 2_048],
        br#"{"callid":"maskline-000000000000005e-0000000000000008","source_tag":"caller","type":"DTMF","event":99}"#,
    ] {
        nearby.send_to(nonsense, presses).unwrap();
    }
    for (end, duration) in [
        (0, 160_u16),
        (0, 320),
        (0x80, 480),
        (0x80, 480),
        (0x80, 480),
    ] {
        let [high, low] = duration.to_be_bytes();
        // One press has one timestamp.
        a.sequence += 1;
        let mut packet = vec![0x80, 101];
        packet.extend(a.sequence.to_be_bytes());
        packet.extend(90_000_u32.to_be_bytes());
        packet.extend(a.ssrc);
        packet.extend([5, end | 10, high, low]);
        a.socket.send_to(&packet, (LOOPBACK, towards_a)).unwrap();
    }
    let pressed = MediaEvent::Dtmf {
        key: key(8),
        side: Side::Caller,
        digit: '5',
    };
    assert_eq!(bench.event().await, pressed);
    let started = Instant::now();
    while !b.heard().contains(&(101, 5)) {
        assert!(started.elapsed() < PATIENCE, "never passed on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Signalling brings it too, and a key that RTP does not.
    for digit in ['5', '6'] {
        bench.order(MediaCommand::Press {
            key: key(8),
            side: Side::Caller,
            digit,
            play: false,
        });
    }
    let left = MediaEvent::NotInRtp {
        key: key(8),
        side: Side::Caller,
        digit: '6',
    };
    assert_eq!(bench.event().await, left, "RTP brought the other one");
    let MediaEvent::Closed { .. } = bench.close(8).await else {
        panic!("closed");
    };
    assert!(bench.events.try_recv().is_err(), "told once");
    let counters = bench.engine.counters();
    assert_eq!((counters.relay.presses, counters.presses_discarded), (1, 0));
}

#[tokio::test]
async fn a_key_by_signalling_is_played_once_to_who_knows_events_and_as_a_tone_to_who_does_not() {
    let presses = at(31_199);
    let daemon = Daemon::start(31_180, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(4).await;
    let (mut a, mut b) = (Phone::new(), Phone::new());
    let silence = [0xd5; 160];
    let mut of_a = pcma();
    of_a.truncate(1);
    let mut of_b = pcma();
    of_b[1].carriage = Carriage::Anew;
    bench.program(4, a.media(of_a), b.media(of_b));
    b.until_heard(&mut a, towards_a, 8).await;
    a.until_heard(&mut b, towards_b, 8).await;
    for (side, digit) in [(Side::Caller, '7'), (Side::Callee, '8')] {
        bench.order(MediaCommand::Press {
            key: key(4),
            side,
            digit,
            play: true,
        });
    }
    let started = Instant::now();
    let (mut events, mut tone) = (0, 0);
    while events == 0 || tone < 5 {
        assert!(
            started.elapsed() < PATIENCE,
            "{events} events, {tone} of a tone"
        );
        a.say(towards_a, 8, &silence);
        b.say(towards_b, 8, &silence);
        tokio::time::sleep(Duration::from_millis(20)).await;
        events += b.heard().iter().filter(|heard| **heard == (101, 7)).count();
        let at_a = a.heard();
        assert!(
            at_a.iter().all(|heard| heard.0 == 8),
            "A knows no events: {at_a:?}"
        );
        tone += at_a
            .iter()
            .filter(|heard| heard.1 != 0xd5 && heard.1 != 0x55)
            .count();
    }
    bench.close(4).await;
}

#[tokio::test]
async fn who_is_on_hold_hears_the_file_until_the_hold_ends() {
    let presses = at(31_219);
    let daemon = Daemon::start(31_200, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(6).await;
    let (mut a, mut b) = (Phone::new(), Phone::new());
    bench.program(6, a.media(pcma()), b.media(pcma()));
    b.until_heard(&mut a, towards_a, 8).await;
    a.until_heard(&mut b, towards_b, 8).await;
    let (mut of_a, mut of_b) = (a.media(pcma()), b.media(pcma()));
    (of_a.holds, of_a.receives, of_b.sends) = (true, false, false);
    bench.program(6, of_a, of_b);
    let started = Instant::now();
    let mut music = 0;
    // Longer than the file.
    while music < 100 {
        assert!(started.elapsed() < PATIENCE, "{music} packets");
        tokio::time::sleep(Duration::from_millis(20)).await;
        music += b
            .heard()
            .iter()
            .filter(|heard| **heard != (8, 0x55))
            .count();
    }
    bench.program(6, a.media(pcma()), b.media(pcma()));
    let started = Instant::now();
    let mut voice = 0;
    while voice < 10 {
        assert!(started.elapsed() < PATIENCE, "music goes on");
        a.say(towards_a, 8, &[0x55; 160]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        for heard in b.heard() {
            voice = if heard == (8, 0x55) { voice + 1 } else { 0 };
        }
    }
    bench.close(6).await;
}

#[tokio::test]
async fn parties_without_a_common_codec_hear_each_other() {
    let presses = at(31_059);
    let daemon = Daemon::start(31_040, presses);
    let mut bench = Bench::start(&[&daemon], presses, PATIENCE).await;
    let (towards_a, towards_b) = bench.open(9).await;
    let (mut a, mut b) = (Phone::new(), Phone::new());
    let between = |from, to| Carriage::Transcoded { from, to };
    let of_a = voice(8, VoiceCodec::Pcma, between(Voice::Pcma, Voice::Pcmu));
    let of_b = voice(0, VoiceCodec::Pcmu, between(Voice::Pcmu, Voice::Pcma));
    for _ in 0..2 {
        bench.program(9, a.media(vec![of_a]), b.media(vec![of_b]));
        // The least level of one law is the least of the other.
        let started = Instant::now();
        loop {
            a.say(towards_a, 8, &[0xd5; 160]);
            b.say(towards_b, 0, &[0xfe; 160]);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (at_a, at_b) = (a.heard(), b.heard());
            if at_a.contains(&(8, 0xd5)) && at_b.contains(&(0, 0xfe)) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{at_a:?} {at_b:?}");
        }
    }
    bench.close(9).await;
}

#[tokio::test]
async fn who_should_send_and_does_not_is_told_of_once() {
    let presses = at(31_079);
    let mut daemon = Daemon::start(31_060, presses);
    let silence = Duration::from_millis(900);
    let mut bench = Bench::start(&[&daemon], presses, silence).await;
    let (towards_a, _) = bench.open(10).await;
    let (mut a, b) = (Phone::new(), Phone::new());
    let silent = |side| MediaEvent::Silent { key: key(10), side };
    let mut of_b = b.media(pcma());
    of_b.sends = false;
    bench.program(10, a.media(pcma()), of_b);
    b.until_heard(&mut a, towards_a, 8).await;
    let started = Instant::now();
    assert_eq!(bench.event().await, silent(Side::Caller));
    assert!(started.elapsed() >= silence / 2);
    // Several looks later.
    tokio::time::sleep(silence).await;
    assert!(bench.events.try_recv().is_err(), "once");
    for _ in 0..50 {
        // Long enough for a look between.
        b.until_heard(&mut a, towards_a, 8).await;
    }
    assert!(
        bench.events.try_recv().is_err(),
        "who is heard is not told of"
    );
    // A daemon that is gone hears nobody.
    daemon.kill();
    assert_eq!(bench.event().await, silent(Side::Caller));
    let closed = MediaEvent::Closed {
        key: key(10),
        caller: None,
        callee: None,
    };
    assert_eq!(bench.close(10).await, closed);
}

#[tokio::test]
async fn new_sessions_go_to_the_least_busy_daemon_that_answers() {
    let presses = at(31_099);
    let (mut first, second) = (
        Daemon::start(31_080, presses),
        Daemon::start(31_100, presses),
    );
    let mut bench = Bench::start(&[&first, &second], presses, PATIENCE).await;
    let is_first = |ports: (u16, u16)| (31_080..31_100).contains(&ports.0);
    let (one, two) = (bench.open(1).await, bench.open(2).await);
    assert_ne!(is_first(one), is_first(two), "shared");
    first.kill();
    assert!(!is_first(bench.open(3).await));
    bench
        .until("it is known to be down", |engine| !engine.instances()[0].up)
        .await;
    assert!(!is_first(bench.open(4).await));
    let full = MediaEvent::Refused {
        key: key(5),
        reason: OpenFailure::Unavailable,
    };
    let open = MediaCommand::Open {
        key: key(5),
        seed: 1,
    };
    assert_eq!(bench.engine.command(open), Some(full), "four at once");
    let again = Daemon::start_at(first.ng, (31_080, 31_097), presses);
    bench
        .until("it is known to be up", |engine| engine.instances()[0].up)
        .await;
    for id in 1..=4 {
        bench.close(id).await;
    }
    assert_eq!(bench.engine.counters().sessions, 0);
    drop((second, again));
}

#[tokio::test]
async fn without_any_daemon_a_session_is_refused_and_closed_once() {
    let nobody = at(31_238);
    let mut bench = Bench::at(vec![nobody], at(31_239), PATIENCE).await;
    bench.order(MediaCommand::Open {
        key: key(1),
        seed: 1,
    });
    bench.order(MediaCommand::Close { key: key(1) });
    let (refused, closed) = (bench.event().await, bench.event().await);
    assert!(matches!(refused, MediaEvent::Refused { .. }), "{refused:?}");
    assert!(matches!(closed, MediaEvent::Closed { .. }), "{closed:?}");
    assert!(bench.events.try_recv().is_err());
    let unknown = bench.engine.command(MediaCommand::Close { key: key(1) });
    assert!(matches!(unknown, Some(MediaEvent::Closed { .. })));
}

#[tokio::test]
async fn a_session_of_an_earlier_run_is_found_where_it_is_and_flows_on() {
    let presses = at(31_139);
    let (first, second) = (
        Daemon::start(31_120, presses),
        Daemon::start(31_140, presses),
    );
    let mut bench = Bench::start(&[&first, &second], presses, PATIENCE).await;
    bench.open(1).await;
    let (caller_port, callee_port) = bench.open(2).await;
    let (mut a, b) = (Phone::new(), Phone::new());
    bench.program(2, a.media(pcma()), b.media(pcma()));
    b.until_heard(&mut a, caller_port, 8).await;
    drop(bench);
    // Nobody gives orders, and they hear each other.
    b.until_heard(&mut a, caller_port, 8).await;

    let mut bench = Bench::start(&[&first, &second], at(31_159), PATIENCE).await;
    let resume = |id, caller_port| MediaCommand::Resume {
        key: key(id),
        seed: 2,
        caller_port,
        callee_port,
        address: Some(LOOPBACK),
    };
    bench.order(resume(2, caller_port));
    let opened = MediaEvent::Opened {
        key: key(2),
        caller_port,
        callee_port,
        address: Some(LOOPBACK),
    };
    assert_eq!(bench.event().await, opened);
    bench.program(2, a.media(pcma()), b.media(pcma()));
    b.until_heard(&mut a, caller_port, 8).await;
    for (id, port) in [(1, caller_port), (3, caller_port)] {
        bench.order(resume(id, port));
        let lost = MediaEvent::Refused {
            key: key(id),
            reason: OpenFailure::PortsLost,
        };
        assert_eq!(bench.event().await, lost, "another's ports, or nobody's");
    }
    bench.close(2).await;
}
