//! Packets through the switch: what one party sends arrives at the other, key presses are told
//! once, and the summary says how well it went.

use std::time::Duration;

use maskline_events::WebhookType;

use crate::support::expect::{check_rules, fits, told};
use crate::support::media::{
    A, Media, PACKETS, Packet, TELEPHONE_EVENT, assert_hear_each_other, told_to_send,
};
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, FROM, Options, Site};

/// Fifty packets each way, and a press of 5 by A.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_flows_both_ways_and_a_key_press_is_told_once() {
    let mut site = Site::open("audio", Options::new(Transport::Udp)).await;
    let (caller_media, callee_media) = Media::of_both(&site).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_hangs_up", FROM);
    run.pause = Duration::from_secs(4);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let (towards_a, towards_b) = told_to_send(&caller, &callee);
    assert_ne!(towards_a.port(), towards_b.port(), "a port for each side");

    assert_hear_each_other((&caller_media, towards_a), (&callee_media, towards_b)).await;

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
