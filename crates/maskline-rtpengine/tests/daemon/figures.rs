//! What parties report is what is told of their legs.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use maskline_media::{Engine as _, MediaEvent, RemoteMedia};

use crate::support::*;

/// The middle of an NTP timestamp, as it stands in an SR (RFC 3550 §6.4.1).
fn last_sr(report: &[u8]) -> Option<[u8; 4]> {
    (report.get(1) == Some(&200)).then(|| report[10..14].try_into().unwrap())
}

/// An SR of a party with one block: a tenth of what came was lost, and the jitter is 10 ms.
fn report_of(by: [u8; 4], about: [u8; 4], last_sr: ([u8; 4], Instant)) -> Vec<u8> {
    let mut report = vec![0x81, 200, 0, 12];
    report.extend(by);
    report.extend([0; 20]);
    report.extend(about);
    report.extend([26, 0, 0, 10]);
    report.extend(100_u32.to_be_bytes());
    report.extend(80_u32.to_be_bytes());
    report.extend(last_sr.0);
    // In units of 1/65536 s.
    let since = last_sr.1.elapsed().as_micros() * 65_536 / 1_000_000;
    report.extend(u32::try_from(since).unwrap().to_be_bytes());
    report
}

/// A party that reports what it hears once the daemon has reported. More than one a second is not read.
struct Reporter {
    phone: Phone,
    control: UdpSocket,
    about: [u8; 4],
    last_sr: Option<([u8; 4], Instant)>,
    /// The other party's SSRC, which is never to be seen.
    other: [u8; 4],
    turns: u32,
    reported: u32,
}

impl Reporter {
    fn new() -> Self {
        let control = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        control.set_nonblocking(true).unwrap();
        Self {
            phone: Phone::new(),
            control,
            about: [0; 4],
            last_sr: None,
            other: [0; 4],
            turns: 0,
            reported: 0,
        }
    }

    fn media(&self) -> RemoteMedia {
        RemoteMedia {
            rtcp: Some(self.control.local_addr().unwrap()),
            ..self.phone.media(pcma())
        }
    }

    /// Once every 20 ms.
    fn turn(&mut self, to: u16) {
        let mut room = [0; 2_048];
        self.turns += 1;
        self.phone.say(to, 8, &[0x55; 160]);
        while self.phone.socket.recv(&mut room).is_ok() {
            self.about = room[8..12].try_into().unwrap();
        }
        while let Ok(length) = self.control.recv(&mut room) {
            assert!(!room[..length].windows(4).any(|bytes| bytes == self.other));
            let last_sr = last_sr(&room[..length]).map(|it| (it, Instant::now()));
            self.last_sr = last_sr.or(self.last_sr);
        }
        if let Some(last_sr) = self.last_sr
            && self.turns.is_multiple_of(55)
        {
            let report = report_of(self.phone.ssrc, self.about, last_sr);
            self.control.send_to(&report, (LOOPBACK, to + 1)).unwrap();
            self.reported += 1;
        }
    }
}

#[tokio::test]
async fn a_leg_s_figures_are_those_that_its_party_reports() {
    let presses = at(31_179);
    let daemon = Daemon::start(31_160, presses);
    let mut bench = Bench::start(&[&daemon], presses, Duration::from_secs(6)).await;
    let (towards_a, towards_b) = bench.open(3).await;
    let (mut a, mut b) = (Reporter::new(), Reporter::new());
    (a.other, b.other) = (b.phone.ssrc, a.phone.ssrc);
    bench.program(3, a.media(), b.media());
    let started = Instant::now();
    while a.reported.min(b.reported) < 4 {
        assert!(started.elapsed() < PATIENCE, "too few reports");
        a.turn(towards_a);
        b.turn(towards_b);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The last reports are on their way.
    b.phone.until_heard(&mut a.phone, towards_a, 8).await;
    // At a look of the engine's, by and by.
    let started = Instant::now();
    let report = loop {
        let report = bench.engine.report(key(3));
        let both = report.filter(|it| it.caller.far.is_some() && it.callee.far.is_some());
        if let Some(report) = both.filter(|it| it.caller.sent_packets > 100) {
            break report;
        }
        assert!(started.elapsed() < PATIENCE, "no figures");
        a.turn(towards_a);
        b.turn(towards_b);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let at = report.carried_by.unwrap();
    assert_eq!(at.instance, daemon.ng);
    assert_eq!(at.call_id, "maskline-000000000000005e-0000000000000003");
    for side in [report.caller, report.callee] {
        let far = side.far.unwrap();
        assert!((0.05..=0.15).contains(&far.loss), "{far:?}");
        assert!((1.0..=4.5).contains(&far.mos.unwrap()), "{far:?}");
        assert!(side.sent_packets > 100, "{side:?}");
        assert_eq!(side.sent_octets, side.sent_packets * 160);
    }
    let MediaEvent::Closed { caller, callee, .. } = bench.close(3).await else {
        panic!("closed");
    };
    for quality in [caller.unwrap(), callee.unwrap()] {
        assert!(quality.packets > 100, "{quality:?}");
        assert!((0.05..=0.15).contains(&quality.loss), "{quality:?}");
        assert!((5.0..=15.0).contains(&quality.jitter_ms), "{quality:?}");
        assert!((1.0..=4.5).contains(&quality.mos), "{quality:?}");
    }
}
