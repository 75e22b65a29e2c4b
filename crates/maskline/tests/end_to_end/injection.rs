//! A third address that guessed the ports: it sends RTP and RTCP to both sides of a call, before either
//! party was heard and after. Nobody hears it, and nobody's audio goes to it. Where it is a party's own,
//! unknown to the switch, an operator is told.

use std::time::Duration;

use maskline_events::WebhookType;

use crate::support::client;
use crate::support::media::{A, B, Media, Packet, told_to_send};
use crate::support::sipp::Transport;
use crate::support::site::{CALLER_ADDRESS, FROM, OTHER_ADDRESS, Options, Site};
use crate::support::switch::ADMIN_KEY;

const MALLORY: [u8; 4] = *b"MMMM";
const FORGED: u8 = 0x66;
const PACKETS: u16 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_address_is_never_heard_and_never_hears_before_the_parties_or_after() {
    let mut site = Site::open("injection", Options::new(Transport::Udp)).await;
    let (caller_media, callee_media) = Media::of_both(&site).await;
    // The third has the callee's ports by number, at an address of its own.
    let third = Media::open(OTHER_ADDRESS, site.ports.callee_media()).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_hangs_up", FROM);
    run.pause = Duration::from_secs(6);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let (towards_a, towards_b) = told_to_send(&caller, &callee);

    // An empty RR: as valid as anybody's.
    let report = [&[0x80, 201, 0, 1], &MALLORY[..]].concat();
    let forge = async |index: u16| {
        for to in [towards_a, towards_b] {
            third.send(&Packet::audio(MALLORY, index, FORGED), to).await;
            third.send_control(&report, to).await;
            third.send_control_shared(&report, to).await;
        }
    };
    for index in 0..PACKETS {
        forge(index).await;
    }
    for media in [&caller_media, &callee_media] {
        assert_eq!(media.receive().await, None, "before anybody latched");
    }
    for index in 0..PACKETS {
        forge(PACKETS + index).await;
        caller_media
            .send(&Packet::audio(A, index, 0x11), towards_a)
            .await;
        callee_media
            .send(&Packet::audio(B, index, 0x22), towards_b)
            .await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (media, octet) in [(&callee_media, 0x11), (&caller_media, 0x22)] {
        for index in 0..PACKETS {
            let packet = media.receive().await;
            let packet = packet.unwrap_or_else(|| panic!("packet {index} never came"));
            assert_eq!(packet[12..], [octet; 160], "packet {index}");
        }
        assert_eq!(media.receive().await, None, "nothing but the other party");
    }
    assert_eq!(third.receive().await, None, "no audio goes to the third");
    assert_eq!(third.receive_control(Duration::from_millis(1)).await, None);

    let metrics = client::request(site.ports.http(), "GET", "/metrics", ADMIN_KEY, None).await;
    let metrics = metrics.expect("metrics answer").body;
    let strangers = metrics
        .lines()
        .find_map(|line| line.strip_prefix("maskline_media_dropped_total{reason=\"stranger\"} "));
    let strangers: u64 = strangers.expect("counted").parse().unwrap();
    // Once a party is heard, the kernel may keep others from its port; before, each one is counted.
    let before_latching = 2 * 2 * u64::from(PACKETS);
    assert!(
        strangers >= before_latching,
        "{strangers} of {before_latching}"
    );
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    let summary = site.receiver.summary().await;
    for leg in ["callA", "callB"] {
        let quality = &summary.payload("details")[leg]["callQuality"];
        assert_eq!(quality["packetLossRate"].as_f64(), Some(0.0), "{leg}");
    }
    assert!(site.switch.take().unwrap().drain().await.success());
}

/// B sends from an address that its description does not name, so that A hears nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_that_goes_one_way_only_is_told_with_the_address_that_the_other_comes_from() {
    let mut site = Site::open("one-way", Options::new(Transport::Udp)).await;
    let caller_media = Media::open(CALLER_ADDRESS, site.ports.caller_media()).await;
    let elsewhere = Media::open(OTHER_ADDRESS, site.ports.callee_media()).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_hangs_up", FROM);
    run.pause = Duration::from_secs(14);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let (towards_a, towards_b) = told_to_send(&caller, &callee);
    let event = site
        .receiver
        .wait_for("an event", |it| it.webhook == WebhookType::Vcs)
        .await;
    let session = event.payload("sessionId").as_str().unwrap().to_owned();
    let path = format!("admin/calls/{session}/media");

    let mut live = serde_json::Value::Null;
    for index in 0..600 {
        caller_media
            .send(&Packet::audio(A, index, 0x11), towards_a)
            .await;
        elsewhere
            .send(&Packet::audio(B, index, 0x22), towards_b)
            .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        if index % 25 == 0 {
            let answer = site.call_api("GET", &path, ADMIN_KEY, None).await;
            if answer.status == 200 {
                live = answer.json();
            }
            if live["callB"]["oneWay"].is_string() {
                break;
            }
        }
    }
    let told = live["callB"]["oneWay"].as_str();
    let told = told.unwrap_or_else(|| panic!("not told within 12 s: {live}"));
    assert!(
        told.contains("never heard") && told.contains(OTHER_ADDRESS),
        "{told}"
    );
    assert!(live["callA"].get("oneWay").is_none(), "{live}");
    assert!(
        live["callA"]["received"]["packets"].as_u64() > Some(100),
        "{live}"
    );
    let log = site.switch.as_ref().unwrap().log();
    assert!(log.contains("one-way audio: B was never heard"), "{log}");
    let trace = format!("sessions/{session}/trace");
    let mut story = String::new();
    for _ in 0..100 {
        story = site.call_api("GET", &trace, ADMIN_KEY, None).await.body;
        if story.contains("one-way audio: B was never heard") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        story.contains("one-way audio: B was never heard"),
        "{story}"
    );
    let metrics = client::request(site.ports.http(), "GET", "/metrics", ADMIN_KEY, None).await;
    let metrics = metrics.expect("metrics answer").body;
    assert!(
        metrics.contains("maskline_media_one_way_total 1\n"),
        "{metrics}"
    );

    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    let gone = site.call_api("GET", &path, ADMIN_KEY, None).await;
    assert_eq!(gone.status, 404, "{}", gone.body);
    assert!(site.switch.take().unwrap().drain().await.success());
}
