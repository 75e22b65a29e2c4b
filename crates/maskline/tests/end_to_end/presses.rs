//! Key presses between a party that knows them as telephone-events and one that does not, by INFO,
//! as events and as tones; and comfort noise.

use std::net::SocketAddr;
use std::time::Duration;

use maskline_media::Voice;
use maskline_media::codec::g711::{decode_alaw, encode_alaw};
use maskline_media::dtmf::{TelephoneEvent, code};
use maskline_media::rtp::RtpPacket;
use maskline_media::tone::tone_share;
use maskline_media::tones::{KeyTones, frequencies};

use crate::audio::press_of_five;
use crate::support::expect::{check_rules, fits, told};
use crate::support::media::{A, Media, PCMA, Packet, TELEPHONE_EVENT, announced};
use crate::support::sipp::{Run, Sipp, Transport};
use crate::support::site::{CALLEE, FROM, Options, Site};
use crate::support::steps::{Says, Steps};

/// Silence in A-law.
const SILENCE: u8 = 0xD5;

/// A call that is up for three seconds.
struct Call {
    site: Site,
    caller: Sipp,
    callee: Sipp,
    at_a: Media,
    at_b: Media,
    towards_a: SocketAddr,
    /// Packets that A has sent.
    sent: u16,
}

/// What A and B know, and whether A presses 5 by INFO.
async fn call(
    name: &str,
    trunk_tables: &'static str,
    a: &'static str,
    b: &'static str,
    info: bool,
) -> Call {
    let mut options = Options::new(Transport::Udp);
    options.trunk_tables = trunk_tables;
    let site = Site::open(&format!("presses-{name}"), options).await;
    let (at_a, at_b) = Media::of_both(&site).await;
    let says = |formats| Says {
        formats,
        ..Says::FIRST
    };
    // B's Allow does not name INFO.
    let b = Steps::default()
        .answers_call(says(b), "Allow: INVITE, ACK, CANCEL, BYE\n")
        .gets("BYE")
        .answers("200 OK", None);
    let callee = Run {
        fill: &[("STEPS", b.text())],
        ..site.callee_run("callee_steps")
    };
    let callee = site.phone(callee).await;
    let called = Steps::default().calls(Some(says(a)), "").acks(1, None);
    let (pressed, cseq) = if info {
        (called.waits().presses('5', 2), 3)
    } else {
        (called, 2)
    };
    let a = pressed.waits().asks("BYE", cseq, None).hears(200);
    let mut caller = Run {
        fill: &[("STEPS", a.text())],
        ..site.caller_run("caller_steps", FROM)
    };
    caller.pause = Duration::from_secs(3);
    let caller = site.phone(caller).await;
    caller.acknowledges().await;
    let mut messages = caller.messages().into_iter();
    let answer = messages.find(|it| it.received && it.status() == Some(200));
    let towards_a = announced(&answer.expect("A got its 200"));
    Call {
        site,
        caller,
        callee,
        at_a,
        at_b,
        towards_a,
        sent: 0,
    }
}

impl Call {
    /// A's next 20 ms.
    async fn says(&mut self, payload: &[u8]) {
        let packet = Packet {
            payload: payload.to_vec(),
            ..Packet::audio(A, self.sent, 0)
        };
        self.at_a.send(&packet, self.towards_a).await;
        self.sent += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    async fn is_silent(&mut self, packets: u16) {
        for _ in 0..packets {
            self.says(&[SILENCE; 160]).await;
        }
    }

    /// What reaches B until nothing more comes: payload type, payload. The sequence has no gap.
    async fn heard(&self) -> Vec<(u8, Vec<u8>)> {
        let mut heard = Vec::new();
        let mut before = None;
        while let Some(datagram) = self.at_b.receive().await {
            let packet = RtpPacket::parse(&datagram).unwrap();
            if let Some(before) = before.replace((packet.sequence, packet.ssrc)) {
                assert_eq!((packet.sequence.wrapping_sub(1), packet.ssrc), before);
            }
            heard.push((packet.payload_type, packet.payload.to_vec()));
        }
        heard
    }

    /// What reaches B next, within ten seconds.
    async fn hears_later(&self) -> Vec<(u8, Vec<u8>)> {
        for _ in 0..20 {
            let heard = self.heard().await;
            if !heard.is_empty() {
                return heard;
            }
        }
        panic!("B hears nothing");
    }

    /// The call ends, and `pressed` is told of A.
    async fn ends(mut self, pressed: &[&str]) {
        assert_eq!(self.caller.finish().await.complaint, "");
        assert_eq!(self.callee.finish().await.complaint, "");
        self.site.receiver.summary().await;
        assert!(self.site.switch.take().unwrap().drain().await.success());
        let received = self.site.receiver.received();
        check_rules(&received, CALLEE);
        let story = told(&received);
        let before = [
            "A received",
            "B initiated",
            "?B ringing",
            "B connected",
            "A connected",
        ];
        let after = ["A disconnected 200", "B disconnected 200"];
        let expected = [&before[..], pressed, &after].concat();
        assert!(fits(&story, &expected), "{story:#?}");
    }
}

/// Checks that 5 is heard as one tone pair of about so many ms, and nothing as an event.
fn assert_tones(heard: &[(u8, Vec<u8>)], lasts: std::ops::RangeInclusive<usize>) {
    assert!(heard.iter().all(|(payload_type, _)| *payload_type == PCMA));
    let samples: Vec<i16> = heard
        .iter()
        .filter(|(_, payload)| payload.iter().any(|octet| *octet != SILENCE))
        .flat_map(|(_, payload)| payload.iter().map(|octet| decode_alaw(*octet)))
        .collect();
    let lasted = samples.len() / 8;
    assert!(lasts.contains(&lasted), "{lasted} ms");
    let (low, high) = frequencies('5').unwrap();
    for frequency in [low, high] {
        let share = tone_share(&samples, frequency, 8_000);
        assert!(share > 0.4, "{share} at {frequency} Hz");
    }
}

/// Checks that 5 is told as one event of about so many ms.
fn assert_events(heard: &[(u8, Vec<u8>)], lasts: std::ops::RangeInclusive<u16>) {
    let events: Vec<TelephoneEvent> = heard
        .iter()
        .filter(|(payload_type, _)| *payload_type == TELEPHONE_EVENT)
        .map(|(_, payload)| TelephoneEvent::from_bytes(payload.as_slice().try_into().unwrap()))
        .collect();
    let is_five = |it: &TelephoneEvent| it.code == code('5').unwrap();
    assert!(events.iter().all(is_five), "{events:?}");
    assert_eq!(events.iter().filter(|it| it.end).count(), 3, "{events:?}");
    let lasted = events.last().unwrap().duration / 8;
    assert!(lasts.contains(&lasted), "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_tones_to_a_party_that_knows_none() {
    let mut call = call("events-to-tones", "", "8 101", "8", false).await;
    call.is_silent(5).await;
    for packet in press_of_five() {
        call.at_a.send(&packet, call.towards_a).await;
    }
    // The press of 80 ms arrived at once, and is played in its length.
    assert_tones(&call.heard().await, 80..=80);
    call.ends(&["A pressed 5"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_by_info_is_an_event_to_a_party_that_takes_no_info() {
    let mut call = call("info-to-events", "", "8 101", "8 101", true).await;
    call.is_silent(5).await;
    call.heard().await;
    let heard = call.hears_later().await;
    assert_events(&heard, 160..=160);
    call.ends(&["A pressed 5"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_by_info_is_a_tone_to_a_party_that_knows_neither() {
    let mut call = call("info-to-tones", "", "8 101", "8", true).await;
    call.is_silent(5).await;
    call.heard().await;
    let heard = call.hears_later().await;
    assert_tones(&heard, 160..=160);
    call.ends(&["A pressed 5"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tones_are_events_to_a_party_that_knows_them_where_the_trunk_listens() {
    for (name, tables, pressed) in [
        (
            "tones",
            "[trunk.dtmf]\ninband = true\n",
            &["A pressed 5"][..],
        ),
        ("no-tones", "", &[]),
    ] {
        let mut call = call(name, tables, "8", "8 101", false).await;
        call.is_silent(5).await;
        let mut tones = KeyTones::new('5', 10).unwrap();
        let mut payload = Vec::new();
        for _ in 0..6 {
            tones.frame(Voice::Pcma, &mut payload);
            call.says(&payload).await;
        }
        call.is_silent(10).await;
        let heard = call.heard().await;
        if pressed.is_empty() {
            assert_tones(&heard, 120..=120);
        } else {
            assert_events(&heard, 80..=180);
        }
        call.ends(pressed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comfort_noise_reaches_a_party_that_knows_it_beside_transcoded_voice() {
    for (name, b, noise) in [("noise", "0 13", 1), ("no-noise", "0", 0)] {
        let mut call = call(name, "", "8 13", b, false).await;
        call.says(&[encode_alaw(1_000); 160]).await;
        let packet = Packet {
            payload_type: 13,
            payload: vec![45],
            ..Packet::audio(A, call.sent, 0)
        };
        call.at_a.send(&packet, call.towards_a).await;
        call.sent += 1;
        call.says(&[encode_alaw(1_000); 160]).await;
        let heard = {
            let mut heard = Vec::new();
            while let Some(datagram) = call.at_b.receive().await {
                heard.push((datagram[1] & 0x7f, datagram.len() - 12, datagram[12]));
            }
            heard
        };
        let of_noise = (13, 1, 45);
        assert_eq!(heard.iter().filter(|it| **it == of_noise).count(), noise);
        let voice = heard
            .iter()
            .filter(|(kind, length, _)| (*kind, *length) == (0, 160));
        assert_eq!((voice.count(), heard.len()), (2, 2 + noise), "{heard:?}");
        call.ends(&[]).await;
    }
}
