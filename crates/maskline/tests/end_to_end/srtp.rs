//! Media that are encrypted on one leg (SRTP with keys in SDP, over TLS) and plain on the other: between
//! two baresips, and with SIPp and a key of the test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use maskline_media::srtp::Protection;
use maskline_media::{SrtpKey, SrtpKeys, SrtpSuite};

use crate::support::baresip::{Baresip, PCMA, Talker, in_call};
use crate::support::certificates::Authority;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::media::{A, B, Media, PACKETS, Packet, announced, assert_heard};
use crate::support::ports::Ports;
use crate::support::sipp::Transport;
use crate::support::site::{
    CALLEE, CALLEE_ADDRESS, CALLER_ADDRESS, FROM, Options, SWITCH_ADDRESS, Site,
};
use crate::support::sound;
use crate::support::steps::{Says, Steps};

const COMPLETED: [&str; 7] = [
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
    "A disconnected 200",
    "B disconnected 200",
];
/// How long each side is heard.
const SECONDS: usize = 3;

fn trunk(name: &str, address: SocketAddr, encrypts: bool) -> String {
    let more = if encrypts {
        "transport = \"tls\"\nsrtp = \"required\"\n\
         [trunk.tls]\nserver_name = \"phone.example\"\nca = \"ca.pem\"\n"
    } else {
        "transport = \"udp\"\n"
    };
    // baresip sends from whatever address the route has.
    let from = if encrypts { "127.0.0.1" } else { "127.0.0.9" };
    format!(
        "[[trunk]]\nname = \"{name}\"\naddress = \"{address}\"\nallow = [\"{}\", \"{from}\"]\n\
         media_sources = [\"127.0.0.1\"]\n{more}",
        address.ip()
    )
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A's trunk and B's, of which B's encrypts.
fn callee_encrypts(ports: &Ports, _: Transport) -> String {
    trunk("a", at(CALLER_ADDRESS, ports.caller_sip()), false)
        + &trunk("b", at(CALLEE_ADDRESS, ports.callee_sip() + 1), true)
}

fn caller_encrypts(ports: &Ports, _: Transport) -> String {
    trunk("a", at(CALLER_ADDRESS, ports.caller_sip() + 1), true)
        + &trunk("b", at(CALLEE_ADDRESS, ports.callee_sip()), false)
}

/// The switch speaks TLS, and phones have a certificate.
fn with_certificates(ports: &Ports, folder: &Path, text: String) -> String {
    let authority = Authority::new(folder, "ca");
    authority.sign(folder, "switch", "switch.example");
    authority.sign(folder, "phone", "phone.example");
    let read = |name| fs::read_to_string(folder.join(name)).unwrap();
    let both = read("phone.pem") + &read("phone.key");
    fs::write(folder.join("both.pem"), both).unwrap();
    let tls = format!("listen = [\"tls:{SWITCH_ADDRESS}:{}\", \"udp:", ports.tls());
    text.replace("listen = [\"udp:", &tls).replace(
        "\n[media]\n",
        "\n[sip.tls]\ncertificate = \"switch.pem\"\nkey = \"switch.key\"\n\n[media]\n",
    )
}

/// A call between a phone that encrypts and one that does not.
struct Call {
    site: Site,
    voices: [Vec<i16>; 2],
    a: Baresip,
    b: Baresip,
}

/// Both talk to each other; `caller`: it is A that encrypts.
async fn connect(name: &str, caller: bool) -> Call {
    let options = Options {
        ways: Some(if caller {
            caller_encrypts
        } else {
            callee_encrypts
        }),
        number_trunk: Some("b"),
        edit: with_certificates,
        ..Options::new(Transport::Udp)
    };
    let site = Site::open(name, options).await;
    let voices = [sound::speech(1, SECONDS + 3), sound::speech(4, SECONDS + 3)];
    let talker = |at: usize, encrypts| Talker {
        codec: PCMA,
        says: &voices[at],
        encrypts,
    };
    let (a, b) = in_call(&site, talker(0, caller), talker(1, !caller)).await;
    Call { site, voices, a, b }
}

/// They hear each other, and no key is written anywhere.
async fn hear_each_other(name: &str, caller: bool) {
    let Call {
        mut site,
        voices,
        mut a,
        b,
    } = connect(name, caller).await;
    let at_b = b.hears(SECONDS).await;
    let at_a = a.hears(SECONDS).await;
    a.tell("hangup", "").await;
    b.logs("terminated").await;
    site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());

    for (what, like) in [
        ("A at B", sound::likeness(&voices[0], &at_b)),
        ("B at A", sound::likeness(&voices[1], &at_a)),
    ] {
        assert!(like >= 0.9, "{what}: {like:.3}");
    }
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    let story = told(&received);
    assert!(fits(&story, &COMPLETED), "{story:#?}");
    let encrypted = if caller { a.log() } else { b.log() };
    assert!(
        encrypted.contains(" RTP/SAVP ") && !encrypted.contains(" RTP/AVP "),
        "{encrypted}"
    );
    assert_nowhere(&site, &encrypted);
}

/// No key that the phone sent or got is in any file of the switch.
fn assert_nowhere(site: &Site, log: &str) {
    let keys: Vec<&str> = log
        .split("inline:")
        .skip(1)
        .filter_map(|rest| rest.get(..40))
        .collect();
    assert!(keys.len() >= 2, "a key of each side: {log}");
    let mut looked = 0;
    for entry in fs::read_dir(&site.folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("maskline") && name != "switch.log" {
            continue;
        }
        looked += 1;
        let bytes = fs::read(&path).unwrap();
        for key in &keys {
            let found = bytes.windows(key.len()).any(|it| it == key.as_bytes());
            assert!(!found, "a key is in {name}");
        }
        let stars = b"inline:****************************************";
        let traced = bytes.windows(stars.len()).any(|it| it == stars);
        if name == "maskline-trace.db" {
            assert!(traced, "the trace has the messages, with stars for keys");
        }
    }
    assert!(looked >= 4, "configuration, log, database and trace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_caller_and_a_callee_that_encrypts_hear_each_other_and_no_key_is_written() {
    hear_each_other("srtp-callee", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_encrypts_and_a_plain_callee_hear_each_other_and_no_key_is_written() {
    hear_each_other("srtp-caller", true).await;
}

/// Its keys are gone with the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_encrypts_is_ended_and_not_adopted_after_a_crash() {
    let Call { mut site, a, b, .. } = connect("srtp-crash", false).await;
    b.hears(1).await;
    site.switch.take().unwrap().kill();
    site.restart().await;
    a.logs("terminated").await;
    b.logs("terminated").await;
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=COMPLETED B=COMPLETED -2001");
    assert!(site.switch.take().unwrap().drain().await.success());
    assert_nowhere(&site, &b.log());
}

/// A's key: 30 bytes of 0.
const OFFER: &str = "7 AES_CM_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_of_a_wrong_key_and_plain_ones_of_a_caller_that_encrypts_are_never_heard() {
    let options = Options {
        trunk_tables: "srtp = \"accepted\"",
        ..Options::new(Transport::Tls)
    };
    let mut site = Site::open("srtp-wrong", options).await;
    let (caller_media, callee_media) = Media::of_both(&site).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let says = Says {
        crypto: OFFER,
        ..Says::FIRST
    };
    let calls = Steps::default()
        .calls(Some(says), "")
        .acks(1, None)
        .waits()
        .asks("BYE", 2, None)
        .hears(200);
    let fill = [("STEPS", calls.text())];
    let mut run = site.caller_run("caller_steps", FROM);
    run.fill = &fill;
    run.pause = Duration::from_secs(4);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let messages = caller.messages();
    let answer = messages
        .iter()
        .find(|it| it.received && it.status() == Some(200));
    let answer = answer.expect("A got its 200");
    let towards_a = announced(answer);
    let crypto = answer
        .text
        .split("a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:")
        .nth(1);
    let theirs = STANDARD_NO_PAD.decode(&crypto.expect("a key for A")[..40]);
    let theirs = SrtpKey(theirs.unwrap().try_into().unwrap());
    let offer = callee.messages().into_iter().find(|it| it.received);
    let offer = offer.expect("B got an INVITE");
    assert!(offer.text.contains(" RTP/AVP ") && !offer.text.contains("crypto"));
    let towards_b = announced(&offer);

    let phone = |ours| {
        Protection::new(SrtpKeys {
            suite: SrtpSuite::AesCm128Sha1Tag80,
            ours,
            theirs,
        })
    };
    let mut wrong = phone(SrtpKey([1; 30]));
    for index in 0..10 {
        let mut packet = Packet::audio(A, index, 0x33).bytes();
        caller_media.send_bytes(&packet, towards_a).await;
        wrong.protect_rtp(&mut packet).unwrap();
        caller_media.send_bytes(&packet, towards_a).await;
    }
    assert!(callee_media.receive().await.is_none(), "nothing is heard");
    let mut right = phone(SrtpKey([0; 30]));
    for index in 0..PACKETS {
        let mut packet = Packet::audio(A, index, 0x11).bytes();
        right.protect_rtp(&mut packet).unwrap();
        caller_media.send_bytes(&packet, towards_a).await;
        let packet = Packet::audio(B, index, 0x22);
        callee_media.send(&packet, towards_b).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_heard(&callee_media, 0x11).await;
    let mut clear = Vec::new();
    for index in 0..PACKETS {
        let packet = caller_media.receive().await;
        let packet = packet.unwrap_or_else(|| panic!("packet {index} never came"));
        right.open_rtp(&packet, &mut clear).expect("by A's key");
        assert_eq!(clear[12..], [0x22; 160], "packet {index}");
    }
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    assert!(fits(&told(&received), &COMPLETED));
}
