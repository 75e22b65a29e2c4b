//! Calls whose audio rtpengine carries: heard, hidden, told of, and not lost with the switch.

use std::path::Path;
use std::time::Duration;

use crate::adoption::{BEGIN, Way, connect, story_of};
use crate::support::client;
use crate::support::expect::{fits, summed_up, told};
use crate::support::media::{A, B, Media, Packet, announced};
use crate::support::ports::Ports;
use crate::support::rtpengine::Rtpengine;
use crate::support::sipp::{Sipp, Transport};
use crate::support::site::{FROM, Options, SWITCH_ADDRESS, Site};

/// The configuration with rtpengine, as many as there may be.
fn with(ports: &Ports, configuration: &str, daemons: u16) -> String {
    let instances: Vec<_> = (0..daemons)
        .map(|number| format!("\"{SWITCH_ADDRESS}:{}\"", ports.rtpengine(number)))
        .collect();
    let media = configuration.replace("[media]\n", "[media]\nengine = \"rtpengine\"\n");
    assert_ne!(media, configuration);
    format!(
        "{media}\n[media.rtpengine]\ninstances = [{}]\ndtmf_listen = \"{SWITCH_ADDRESS}:{}\"\n",
        instances.join(", "),
        ports.rtpengine_presses()
    )
}

pub fn with_one(ports: &Ports, _: &Path, configuration: String) -> String {
    with(ports, &configuration, 1)
}

fn with_two(ports: &Ports, _: &Path, configuration: String) -> String {
    with(ports, &configuration, 2)
}

fn with_one_and_little_patience(ports: &Ports, _: &Path, configuration: String) -> String {
    with(ports, &configuration, 1).replace("[media]\n", "[media]\nsilence_seconds = 2\n")
}

async fn open(name: &str, edit: fn(&Ports, &Path, String) -> String) -> Site {
    let mut options = Options::new(Transport::Udp);
    options.edit = edit;
    Site::open(&format!("rtpengine-{name}"), options).await
}

/// Starts one, and waits until the switch knows of it.
pub async fn daemon(site: &Site, number: u16) -> Rtpengine {
    let started = Rtpengine::start(&site.folder, &site.ports, number).await;
    until(site, number, 1).await;
    started
}

/// Until the metrics say that it is up (1) or down (0).
async fn until(site: &Site, number: u16, up: u8) {
    let port = site.ports.rtpengine(number);
    let wanted = format!("maskline_rtpengine_up{{instance=\"{SWITCH_ADDRESS}:{port}\"}} {up}");
    for _ in 0..500 {
        let answer = client::request(site.ports.http(), "GET", "/metrics", "", None).await;
        if answer.is_some_and(|answer| answer.body.contains(&wanted)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {wanted}");
}

/// Where a phone was told to send its audio, from its INVITE or the answer to it.
fn towards(phone: &Sipp) -> std::net::SocketAddr {
    let messages = phone.messages().into_iter().filter(|it| it.received);
    let mut with_audio = messages.filter(|it| it.text.contains("m=audio "));
    announced(&with_audio.next().expect("SDP came"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_flows_through_it_a_press_is_told_once_and_the_parties_stay_hidden() {
    let site = open("audio", with_one).await;
    let _daemon = daemon(&site, 0).await;
    let pause = Duration::from_secs(6);
    let call = connect(&site, Way::Direct, pause, "caller_waits", "callee_hangs_up").await;
    let mut secret = Packet::audio(A, 900, 0x11);
    secret.extension = b"\x56PLANTED".to_vec();
    let towards_a = towards(&call.caller);
    // Own reports of A: SR without blocks, then SDES with its CNAME.
    let mut reports = vec![0x80, 200, 0, 6];
    reports.extend(A);
    reports.extend([0; 20]);
    reports.extend([0x81, 202, 0, 5]);
    reports.extend(A);
    reports.extend(b"\x01\x0dalice@PLANTED\0");
    for _ in 0..3 {
        call.caller_media.send(&secret, towards_a).await;
        call.caller_media.send_control(&reports, towards_a).await;
    }
    while let Some(packet) = call.callee_media.receive().await {
        assert!(!packet.windows(7).any(|bytes| bytes == b"PLANTED"));
        assert!(!packet.windows(4).any(|bytes| bytes == A));
    }
    call.speak().await;
    while let Some(report) = call
        .callee_media
        .receive_control(Duration::from_millis(50))
        .await
    {
        assert!(!report.windows(7).any(|bytes| bytes == b"PLANTED"));
    }
    call.finish().await;
    let story = story_of(site).await;
    let end = ["A pressed 5", "B disconnected 200 & A disconnected 200"];
    assert!(fits(&story, &[&BEGIN[..], &end].concat()), "{story:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_flows_while_the_switch_is_gone_and_after_it_came_back() {
    let mut site = open("adoption", with_one).await;
    let _daemon = daemon(&site, 0).await;
    let pause = Duration::from_secs(2);
    let callee = "callee_goes_on_and_hangs_up";
    let call = connect(&site, Way::Direct, pause, "caller_goes_on", callee).await;
    let (towards_a, towards_b) = (towards(&call.caller), towards(&call.callee));
    heard(&call.caller_media, A, towards_a, &call.callee_media).await;
    site.switch.take().unwrap().kill();
    heard(&call.caller_media, A, towards_a, &call.callee_media).await;
    heard(&call.callee_media, B, towards_b, &call.caller_media).await;
    site.restart().await;
    call.speak().await;
    call.finish().await;
    let story = story_of(site).await;
    let end = ["A pressed 5", "B disconnected 200 & A disconnected 200"];
    assert!(fits(&story, &[&BEGIN[..], &end].concat()), "{story:#?}");
}

/// The daemon's own timeouts would free the ports after minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waited_for_too_long_is_deleted_at_its_daemon() {
    let mut options = Options::new(Transport::Udp);
    options.edit = with_one;
    options.adopt_within = Duration::from_secs(1);
    let mut site = Site::open("rtpengine-late", options).await;
    let daemon = daemon(&site, 0).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_waits_through_a_crash", FROM);
    run.fill = &[("FINAL", "500")];
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    assert_eq!(daemon.calls().await.len(), 1);
    site.switch.take().unwrap().kill();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(daemon.calls().await.len(), 1, "nobody deletes it");
    site.restart().await;
    assert_eq!(caller.finish().await.complaint, "", "A gets a BYE");
    assert_eq!(callee.finish().await.complaint, "", "B gets a BYE");
    let port = site.ports.rtpengine(0);
    let lines = [
        format!("maskline_rtpengine_leftovers_total{{instance=\"{SWITCH_ADDRESS}:{port}\"}} 1\n"),
        "maskline_media_presses_discarded_total 0\n".to_owned(),
    ];
    let mut metrics = String::new();
    for _ in 0..500 {
        if daemon.calls().await.is_empty() {
            let answer = client::request(site.ports.http(), "GET", "/metrics", "", None).await;
            metrics = answer.unwrap().body;
            // It is counted once the switch has the daemon's answer.
            if lines.iter().all(|line| metrics.contains(line)) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("its call is still there, or not counted: {lines:?}\n{metrics}");
}

/// One hears the other within a few packets, and has nothing left to hear.
async fn heard(from: &Media, ssrc: [u8; 4], to: std::net::SocketAddr, at: &Media) {
    for index in 0..40 {
        from.send(&Packet::audio(ssrc, 500 + index, 0x33), to).await;
        if at.receive().await.is_some() {
            while at.receive().await.is_some() {}
            return;
        }
    }
    panic!("nothing is heard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_down_gets_no_calls_until_it_is_back() {
    let site = open("failover", with_two).await;
    let first = daemon(&site, 0).await;
    let _second = daemon(&site, 1).await;
    drop(first);
    until(&site, 0, 0).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    caller.acknowledges().await;
    let (low, high) = site.ports.rtpengine_media(1);
    for phone in [&caller, &callee] {
        let port = towards(phone).port();
        assert!((low..=high).contains(&port), "{port}");
    }
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "COMPLETED A=COMPLETED B=COMPLETED");
    let _again = daemon(&site, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_daemon_a_call_is_refused_and_told_of() {
    let site = open("nobody", with_one).await;
    until(&site, 0, 0).await;
    let mut run = site.caller_run("caller_refused", FROM);
    run.fill = &[("FINAL", "500")];
    let caller = site.phone(run).await;
    assert_eq!(caller.finish().await.complaint, "");
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=COMPLETED B=ERROR -2001");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_by_itself_if_its_daemon_does_not_come_back() {
    let mut site = open("gone", with_one_and_little_patience).await;
    let gone = daemon(&site, 0).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_waits", FROM);
    run.pause = Duration::from_secs(20);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    drop(gone);
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=COMPLETED B=COMPLETED -2002");
    assert!(site.switch.take().unwrap().drain().await.success());
    let story = told(&site.receiver.received());
    let end = ["A disconnected 200 -2002 & B disconnected 200 -2002"];
    assert!(fits(&story, &[&BEGIN[..], &end].concat()), "{story:#?}");
}
