//! Packets through the switch: what one party sends arrives at the other, key presses are told
//! once, and the summary says how well it went.

use std::time::Duration;

use maskline_events::WebhookType;

use crate::support::expect::{check_rules, fits, told};
use crate::support::media::{Media, Packet, TELEPHONE_EVENT, announced};
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, CALLEE_ADDRESS, CALLER_ADDRESS, FROM, Options, Site};

pub const A: [u8; 4] = *b"AAAA";
pub const B: [u8; 4] = *b"BBBB";
pub const PACKETS: u16 = 50;

/// Fifty packets each way, and a press of 5 by A.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_flows_both_ways_and_a_key_press_is_told_once() {
    let mut site = Site::open("audio", Options::new(Transport::Udp)).await;
    let caller_media = Media::open(CALLER_ADDRESS, site.ports.caller_media()).await;
    let callee_media = Media::open(CALLEE_ADDRESS, site.ports.callee_media()).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_hangs_up", FROM);
    run.pause = Duration::from_secs(4);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let answer = caller
        .messages()
        .into_iter()
        .find(|it| it.received && it.status() == Some(200));
    let towards_a = announced(&answer.expect("A got its 200"));
    let offer = callee.messages().into_iter().find(|it| it.received);
    let towards_b = announced(&offer.expect("B got an INVITE"));
    assert_ne!(towards_a.port(), towards_b.port(), "a port for each side");

    for index in 0..PACKETS {
        caller_media
            .send(&Packet::audio(A, index, 0x11), towards_a)
            .await;
        callee_media
            .send(&Packet::audio(B, index, 0x22), towards_b)
            .await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_heard(&callee_media, 0x11).await;
    assert_heard(&caller_media, 0x22).await;

    for packet in press_of_five() {
        caller_media.send(&packet, towards_a).await;
    }
    let mut presses = 0;
    while let Some(packet) = callee_media.receive().await {
        assert_eq!(
            packet[1] & 0x7F,
            TELEPHONE_EVENT,
            "nothing but the press is on its way"
        );
        assert_eq!(packet[12], 5, "the key");
        presses += 1;
    }
    assert_eq!(
        presses,
        press_of_five().len(),
        "each packet of the press is passed on"
    );

    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    let summary = site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    let story = told(&received);
    let expected = [
        "A received",
        "B initiated",
        "?B ringing",
        "B connected",
        "A connected",
        "A pressed 5",
        "A disconnected 200",
        "B disconnected 200",
    ];
    assert!(fits(&story, &expected), "{story:#?}");
    for leg in ["callA", "callB"] {
        let quality = &summary.payload("details")[leg]["callQuality"];
        assert!(
            (1.0..=4.5).contains(&quality["mos"].as_f64().unwrap()),
            "{leg}: {quality}"
        );
        assert_eq!(
            quality["packetLossRate"].as_f64(),
            Some(0.0),
            "{leg}: {quality}"
        );
        assert!(
            quality["jitter"].as_u64().unwrap() < 100,
            "{leg}: {quality}"
        );
    }
    assert_eq!(summary.webhook, WebhookType::Vss);
}

pub async fn assert_heard(media: &Media, octet: u8) {
    for index in 0..PACKETS {
        let packet = media
            .receive()
            .await
            .unwrap_or_else(|| panic!("packet {index} never came"));
        assert_eq!(packet.len(), 172, "a header without extras, and 20 ms");
        assert_eq!(packet[12..], [octet; 160], "packet {index}");
        assert_ne!(packet[8..12], A, "the sender's SSRC is not passed on");
        assert_ne!(packet[8..12], B, "the sender's SSRC is not passed on");
    }
}

/// Three packets as the key is held, three with the end bit (RFC 4733 §2.5).
pub fn press_of_five() -> Vec<Packet> {
    let packet = |index: u16| {
        let end = if index >= 3 { 0x80 } else { 0 };
        let duration = (160 * (index.min(3) + 1)).to_be_bytes();
        Packet {
            payload_type: TELEPHONE_EVENT,
            timestamp: 160 * u32::from(PACKETS),
            payload: vec![5, end | 10, duration[0], duration[1]],
            ..Packet::audio(A, PACKETS + index, 0)
        }
    };
    let mut packets: Vec<Packet> = (0..6).map(packet).collect();
    packets[0].marker = true;
    packets
}
