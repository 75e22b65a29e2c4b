//! Nothing of one party on the other's wire. Each place in which SIP, SDP, RTP and RTCP have room for
//! something about their sender holds a word of its own, and what arrives at the other party is searched for all of them.
//!
//! That the search finds what is there is shown by the same phones without a switch between them.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::support::media::{Media, Packet, announced, told_to_send};
use crate::support::sipp::{Ended, Message, Run, Transport};
use crate::support::site::{CALLEE, CALLEE_ADDRESS, CALLER, CALLER_ADDRESS, FROM, Options, Site};
use crate::support::steps::{Says, Steps};

/// Every word that A's scenarios plant starts so, and every word of B's so.
const OF_A: &str = "Zq7A";
const OF_B: &str = "Zq7B";
/// The identifiers in the o= lines.
const ORIGIN_OF_A: &str = "7700077700071";
const ORIGIN_OF_B: &str = "7700077700072";

/// What must not arrive at the other party.
fn secrets(site: &Site, caller: bool) -> Vec<String> {
    let ports = &site.ports;
    let (word, origin, number, address, sip, media) = if caller {
        (
            OF_A,
            ORIGIN_OF_A,
            CALLER,
            CALLER_ADDRESS,
            ports.caller_sip(),
            ports.caller_media(),
        )
    } else {
        (
            OF_B,
            ORIGIN_OF_B,
            CALLEE,
            CALLEE_ADDRESS,
            ports.callee_sip(),
            ports.callee_media(),
        )
    };
    // The national number too: whatever is put before it.
    let mut secrets: Vec<String> = [word, origin, &number[3..], "9111 0001", address]
        .map(str::to_owned)
        .to_vec();
    for port in [sip, media, media + 1] {
        secrets.push(format!(":{port}"));
        secrets.push(format!(" {port} "));
    }
    secrets.extend(spelled_otherwise(word));
    secrets.extend(spelled_otherwise(&number[3..]));
    secrets
}

/// Hexadecimal and the three alignments of base64.
fn spelled_otherwise(text: &str) -> Vec<String> {
    use base64::Engine as _;
    let base64 = |text: String| base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    // The first and last characters also carry bits of the neighbours.
    let inner = |text: String, skip: usize| {
        let encoded = base64(text);
        encoded[skip..encoded.len() - 1].to_owned()
    };
    vec![
        hex,
        inner(text.to_owned(), 0),
        inner(format!("x{text}"), 2),
        inner(format!("xx{text}"), 3),
    ]
}

fn found<'a>(bytes: &[u8], secrets: &'a [String]) -> Vec<&'a str> {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    secrets
        .iter()
        .map(String::as_str)
        .filter(|it| text.contains(&it.to_lowercase()))
        .collect()
}

fn assert_masked(who: &str, ended: &Ended, secrets: &[String]) {
    assert_eq!(ended.complaint, "", "{who}");
    let arrived: Vec<&Message> = ended.messages.iter().filter(|it| it.received).collect();
    assert!(!arrived.is_empty(), "{who} received nothing");
    for message in arrived {
        let leaks = found(message.text.as_bytes(), secrets);
        assert!(
            leaks.is_empty(),
            "{leaks:?} reached {who} in\n{}",
            message.text
        );
    }
}

const CALL_ID: &str = "Zq7Acallid-%u-%p@Zq7Ahost";

/// Runs two phones through the switch, and searches what each received.
async fn assert_neither_learns_of_the_other(
    name: &str,
    caller: &str,
    callee: &str,
    fill: &[(&str, &str)],
    transport: Transport,
) -> Ended {
    let mut options = Options::new(transport);
    options.early_media = Some("passThrough");
    let mut site = Site::open(name, options).await;
    let callee = site
        .phone(Run {
            fill,
            ..site.callee_run(callee)
        })
        .await;
    let run = Run {
        call_id: CALL_ID,
        fill,
        ..site.caller_run(caller, "")
    };
    let caller = site.phone(run).await.finish().await;
    let callee = callee.finish().await;
    assert_masked("the callee", &callee, &secrets(&site, true));
    assert_masked("the caller", &caller, &secrets(&site, false));
    site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
    caller
}

const RINGS: [(&str, &str); 2] = [
    ("RINGING", "180 Zq7Bringing"),
    ("EARLY", "Content-Length: 0"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_call_over_udp() {
    let (caller, callee) = ("caller_tells_all", "callee_tells_all");
    assert_neither_learns_of_the_other("mask-udp", caller, callee, &RINGS, Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_call_over_tcp() {
    let (caller, callee) = ("caller_tells_all", "callee_tells_all");
    assert_neither_learns_of_the_other("mask-tcp", caller, callee, &RINGS, Transport::Tcp).await;
}

/// B's 183 tells of itself whatever its 200 does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_early_media() {
    let (caller, callee) = ("caller_tells_all", "callee_tells_all");
    let scenario = include_str!("scenarios/callee_tells_all.xml");
    let body = scenario.find("Content-Type: application/sdp").unwrap();
    let (body, _) = scenario[body..].split_once("]]>").unwrap();
    assert!(body.contains("v=0") && body.contains("Zq7Bsessionname"));
    let fill = [("RINGING", "183 Zq7Bprogress"), ("EARLY", body)];
    for transport in [Transport::Udp, Transport::Tcp] {
        let name = format!("mask-early-{}", transport.name());
        let caller =
            assert_neither_learns_of_the_other(&name, caller, callee, &fill, transport).await;
        let early = caller.messages.iter().find(|it| it.status() == Some(183));
        assert!(early.expect("A gets a 183").text.contains("m=audio "));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_the_callee_ends() {
    let (caller, callee) = (
        "caller_tells_all_and_waits",
        "callee_tells_all_and_hangs_up",
    );
    assert_neither_learns_of_the_other("mask-bye", caller, callee, &[], Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_refused() {
    let (caller, callee) = (
        "caller_tells_all_and_is_refused",
        "callee_tells_all_and_refuses",
    );
    let fill = [("FINAL", "486")];
    assert_neither_learns_of_the_other("mask-refused", caller, callee, &fill, Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cancelled() {
    let (caller, callee) = ("caller_tells_all_and_cancels", "callee_rings");
    assert_neither_learns_of_the_other("mask-cancel", caller, callee, &[], Transport::Udp).await;
}

/// RTP with contributing sources and a header extension, RTCP with names and a parting word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_and_its_reports() {
    let mut site = Site::open("mask-media", Options::new(Transport::Udp)).await;
    let (caller_media, callee_media) = Media::of_both(&site).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_hangs_up", FROM);
    run.pause = Duration::from_secs(8);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let (towards_a, towards_b) = told_to_send(&caller, &callee);

    for index in 0..20 {
        caller_media.send(&telling(OF_A, index), towards_a).await;
        callee_media.send(&telling(OF_B, index), towards_b).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    caller_media.send_control(&report(OF_A), towards_a).await;
    callee_media.send_control(&report(OF_B), towards_b).await;

    for (media, secrets) in [
        (&callee_media, secrets(&site, true)),
        (&caller_media, secrets(&site, false)),
    ] {
        let mut packets = 0;
        while let Some(packet) = media.receive().await {
            assert_eq!(found(&packet, &secrets), [""; 0], "RTP {packet:?}");
            packets += 1;
        }
        assert_eq!(packets, 20, "all RTP arrives");
        let control = media.receive_control(Duration::from_secs(6)).await;
        let control = control.expect("the switch reports too");
        assert_eq!(found(&control, &secrets), [""; 0], "RTCP {control:?}");
    }
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
}

/// The same where A has RTP and RTCP on one port, and B on two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_and_its_reports_on_a_shared_port() {
    let mut site = Site::open("mask-mux", Options::new(Transport::Udp)).await;
    let (caller_media, callee_media) = Media::of_both(&site).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let shares = Says {
        shares: true,
        ..Says::FIRST
    };
    let steps = Steps::default()
        .calls(Some(shares), "")
        .acks(1, None)
        .waits()
        .asks("BYE", 2, None)
        .hears(200);
    let run = Run {
        fill: &[("STEPS", steps.text())],
        pause: Duration::from_secs(9),
        ..site.caller_run("caller_steps", FROM)
    };
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let answer = caller
        .messages()
        .into_iter()
        .find(|it| it.received && it.status() == Some(200))
        .expect("A got its 200");
    assert!(answer.text.contains("a=rtcp-mux"), "{}", answer.text);
    let offer = callee.messages().into_iter().find(|it| it.received);
    let offer = offer.expect("B got an INVITE");
    assert!(offer.text.contains("a=rtcp-mux"), "B may share as well");
    let (towards_a, towards_b) = (announced(&answer), announced(&offer));
    for index in 0..20 {
        caller_media.send(&telling(OF_A, index), towards_a).await;
        callee_media.send(&telling(OF_B, index), towards_b).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    caller_media
        .send_control_shared(&report(OF_A), towards_a)
        .await;
    callee_media.send_control(&report(OF_B), towards_b).await;

    let of_b = secrets(&site, false);
    let mut control = 0;
    while control == 0 {
        let packet = caller_media.receive_within(Duration::from_secs(8)).await;
        let packet = packet.expect("the switch reports on the shared port");
        assert_eq!(found(&packet, &of_b), [""; 0], "towards A {packet:?}");
        control += usize::from((192..=223).contains(&packet[1]));
    }
    assert_eq!(
        caller_media.receive_control(Duration::from_millis(1)).await,
        None,
        "nothing comes on the port that A does not have"
    );
    let of_a = secrets(&site, true);
    while let Some(packet) = callee_media.receive().await {
        assert!(!(192..=223).contains(&packet[1]), "B has a port for RTCP");
        assert_eq!(found(&packet, &of_a), [""; 0], "towards B {packet:?}");
    }
    let control = callee_media.receive_control(Duration::from_secs(8)).await;
    let control = control.expect("the switch reports to B too");
    assert_eq!(found(&control, &of_a), [""; 0], "towards B {control:?}");
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
}

/// An audio packet whose SSRC, contributing sources and header extension tell of the sender.
fn telling(word: &str, index: u16) -> Packet {
    let ssrc: [u8; 4] = word.as_bytes().try_into().unwrap();
    // One element with id 1 and seven bytes.
    let extension = [&[0x16], word.as_bytes(), b"ext"].concat();
    Packet {
        csrc: vec![ssrc, ssrc],
        extension,
        ..Packet::audio(ssrc, index, 0x33)
    }
}

/// SR, SDES with CNAME, NAME, PHONE and TOOL, APP, and BYE with a reason (RFC 3550 §6).
fn report(word: &str) -> Vec<u8> {
    let ssrc = word.as_bytes();
    let mut report = control(200, 0, &[ssrc, &[0; 20]].concat());
    let mut items = ssrc.to_vec();
    for (kind, name) in [(1, "cname@host"), (2, "name"), (4, "phone"), (6, "tool")] {
        let text = format!("{word}{name}");
        items.push(kind);
        items.push(u8::try_from(text.len()).unwrap());
        items.extend(text.bytes());
    }
    items.push(0);
    report.extend(control(202, 1, &items));
    report.extend(control(204, 0, &[ssrc, ssrc, ssrc].concat()));
    let reason = format!("{word}reason");
    let length = u8::try_from(reason.len()).unwrap();
    report.extend(control(
        203,
        1,
        &[ssrc, &[length], reason.as_bytes()].concat(),
    ));
    report
}

fn control(kind: u8, count: u8, body: &[u8]) -> Vec<u8> {
    let words = u16::try_from(body.len().div_ceil(4)).unwrap();
    let mut packet = vec![0x80 | count, kind];
    packet.extend(words.to_be_bytes());
    packet.extend(body);
    packet.resize(4 + usize::from(words) * 4, 0);
    packet
}

/// Without a switch, every planted word arrives and is found: the plants are sent, and the search
/// sees them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_switch_every_planted_word_is_found() {
    let site = Site::open("mask-none", Options::new(Transport::Udp)).await;
    let fill = [("FINAL", "486")];
    let callee = site.callee_run("callee_tells_all_and_refuses");
    let callee = site
        .phone(Run {
            fill: &fill,
            ..callee
        })
        .await;
    let run = Run {
        towards: Some(site.callee_sip().to_string()),
        call_id: CALL_ID,
        fill: &fill,
        ..site.caller_run("caller_tells_all_and_is_refused", "")
    };
    let caller = site.phone(run).await.finish().await;
    let callee = callee.finish().await;
    for (scenario, word, ended) in [
        ("caller_tells_all_and_is_refused", OF_A, &callee),
        ("callee_tells_all_and_refuses", OF_B, &caller),
    ] {
        assert_eq!(ended.complaint, "");
        let sent = fs::read_to_string(site.folder.join(format!("{scenario}.xml"))).unwrap();
        let is_word = |it: &&str| it.starts_with(word);
        let planted: BTreeSet<&str> = sent
            .split(|c: char| !c.is_alphanumeric())
            .filter(is_word)
            .collect();
        assert!(planted.len() > 30, "{scenario} plants {}", planted.len());
        let received = ended.messages.iter().filter(|it| it.received);
        let arrived: String = received.map(|it| it.text.as_str()).collect();
        for word in planted {
            assert_eq!(
                found(arrived.as_bytes(), &[word.to_owned()]),
                [word],
                "{scenario}"
            );
        }
        let secrets = secrets(&site, word == OF_A);
        let seen = found(arrived.as_bytes(), &secrets).len();
        assert!(seen >= 4, "of {secrets:?} only {seen} are seen");
    }
}
