//! A party that has IPv4 alone and one that has IPv6 alone, with the switch between them: they hear each
//! other, and neither is told an address of the other's family.

use std::time::Duration;

use crate::support::expect::{check_rules, fits, told};
use crate::support::media::{Media, assert_hear_each_other, told_to_send};
use crate::support::ports::Ports;
use crate::support::sipp::{Ended, Message, Run, Transport};
use crate::support::site::{
    CALLEE, CALLEE_ADDRESS, CALLER_ADDRESS, FROM, Options, SWITCH_ADDRESS, Site,
};
use crate::support::steps::{Says, Steps};

const SIX: &str = "::1";

/// Which party is where.
struct Places {
    caller: &'static str,
    callee: &'static str,
    ways: fn(&Ports, Transport) -> String,
}

const FROM_FOUR_TO_SIX: Places = Places {
    caller: CALLER_ADDRESS,
    callee: SIX,
    ways: |ports, _| {
        let to = format!("[{SIX}]:{}", ports.callee_sip());
        trunk("a", &format!("{CALLER_ADDRESS}:5060"), CALLER_ADDRESS) + &trunk("b", &to, SIX)
    },
};

const FROM_SIX_TO_FOUR: Places = Places {
    caller: SIX,
    callee: CALLEE_ADDRESS,
    ways: |ports, _| {
        let to = format!("{CALLEE_ADDRESS}:{}", ports.callee_sip());
        trunk("a", &format!("[{SIX}]:5060"), SIX) + &trunk("b", &to, CALLEE_ADDRESS)
    },
};

fn trunk(name: &str, address: &str, allow: &str) -> String {
    format!(
        "[[trunk]]\nname = \"{name}\"\naddress = \"{address}\"\ntransport = \"udp\"\nallow = [\"{allow}\"]\n"
    )
}

/// Listens in both families; with `media`, has media in both as well.
fn in_both(ports: &Ports, text: &str, media: bool) -> String {
    let sip = ports.sip();
    let text = text.replace(
        "listen = [\"udp:",
        &format!("listen = [\"udp:[{SIX}]:{sip}\", \"udp:"),
    );
    if !media {
        return text;
    }
    text.replace(
        "[media]\n",
        &format!("[media]\nsecond_address = \"{SIX}\"\n"),
    )
}

fn options(ways: fn(&Ports, Transport) -> String) -> Options {
    Options {
        ways: Some(ways),
        number_trunk: Some("b"),
        edit: |ports, _, text| in_both(ports, &text, true),
        ..Options::new(Transport::Udp)
    }
}

fn says_at(address: &'static str) -> Says {
    Says {
        address: if address == SIX { SIX } else { "[local_ip]" },
        ..Says::FIRST
    }
}

fn caller_run<'a>(site: &Site, at: &'a str, fill: &'a [(&'a str, &'a str)]) -> Run<'a> {
    let sip = site.ports.sip();
    Run {
        towards: Some(if at == SIX {
            format!("[{SIX}]:{sip}")
        } else {
            format!("{SWITCH_ADDRESS}:{sip}")
        }),
        address: at,
        pause: Duration::from_secs(2),
        fill,
        ..site.caller_run("caller_steps", FROM)
    }
}

async fn hear_each_other(name: &str, places: Places) {
    if std::net::UdpSocket::bind((SIX, 0)).is_err() {
        return;
    }
    let Places {
        caller: at_a,
        callee: at_b,
        ways,
    } = places;
    let mut site = Site::open(name, options(ways)).await;
    let caller_media = Media::open(at_a, site.ports.caller_media()).await;
    let callee_media = Media::open(at_b, site.ports.callee_media()).await;
    let answers = Steps::default()
        .answers_call(says_at(at_b), "")
        .gets("BYE")
        .answers("200 OK", None);
    let fill = [("STEPS", answers.text())];
    let run = Run {
        address: at_b,
        fill: &fill,
        ..site.callee_run("callee_steps")
    };
    let callee = site.phone(run).await;
    let calls = Steps::default()
        .calls(Some(says_at(at_a)), "")
        .acks(1, None)
        .waits()
        .asks("BYE", 2, None)
        .hears(200);
    let fill = [("STEPS", calls.text())];
    let caller = site.phone(caller_run(&site, at_a, &fill)).await;
    caller.acknowledges().await;
    let (towards_a, towards_b) = told_to_send(&caller, &callee);
    assert_eq!(towards_a.is_ipv6(), at_a == SIX);
    assert_eq!(towards_b.is_ipv6(), at_b == SIX);

    assert_hear_each_other((&caller_media, towards_a), (&callee_media, towards_b)).await;
    for (media, towards) in [(&caller_media, towards_a), (&callee_media, towards_b)] {
        let report = media.receive_control(Duration::from_secs(9)).await;
        assert!(report.is_some(), "no report from {towards}");
    }

    let (caller, callee) = (caller.finish().await, callee.finish().await);
    assert_eq!(caller.complaint, "");
    assert_eq!(callee.complaint, "");
    assert_told_nothing_of(at_b, "A", &caller);
    assert_told_nothing_of(at_a, "B", &callee);
    site.receiver.summary().await;
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
        "A disconnected 200",
        "B disconnected 200",
    ];
    assert!(fits(&story, &expected), "{story:#?}");
}

/// Nothing that a party received has an address of the other party's family, ours included.
fn assert_told_nothing_of(other: &str, who: &str, ended: &Ended) {
    let words: &[&str] = if other == SIX {
        &["::1", "IP6"]
    } else {
        &["127.0.0.", "IP4"]
    };
    let arrived: Vec<&Message> = ended.messages.iter().filter(|it| it.received).collect();
    assert!(!arrived.is_empty(), "{who} received nothing");
    for message in arrived {
        // What A said of itself in From and To comes back to it.
        let told = message.text.lines().filter(|line| {
            let own = line.starts_with("From:") || line.starts_with("To:");
            !(own && who == "A")
        });
        for line in told {
            assert!(
                !words.iter().any(|word| line.contains(word)),
                "{who} got {line}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_of_ipv4_and_a_callee_of_ipv6_hear_each_other() {
    hear_each_other("four-to-six", FROM_FOUR_TO_SIX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_of_ipv6_and_a_callee_of_ipv4_hear_each_other() {
    hear_each_other("six-to-four", FROM_SIX_TO_FOUR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_address_of_its_family_a_caller_hears_488_and_why() {
    if std::net::UdpSocket::bind((SIX, 0)).is_err() {
        return;
    }
    let options = Options {
        edit: |ports, _, text| in_both(ports, &text, false),
        ..options(FROM_SIX_TO_FOUR.ways)
    };
    let mut site = Site::open("six-refused", options).await;
    let calls = Steps::default()
        .dials(Some(says_at(SIX)), "")
        .hears(488)
        .acks_refused_call();
    let fill = [("STEPS", calls.text())];
    let caller = site
        .phone(caller_run(&site, SIX, &fill))
        .await
        .finish()
        .await;
    assert_eq!(caller.complaint, "");
    let refusal = caller
        .messages
        .iter()
        .find(|it| it.status() == Some(488))
        .unwrap();
    let expected = format!(
        "301 [{SIX}]:{} \"Incompatible network address formats\"",
        site.ports.sip()
    );
    assert_eq!(refusal.header("Warning"), Some(expected.as_str()));
    assert!(site.switch.take().unwrap().drain().await.success());
    assert!(site.receiver.received().is_empty(), "nobody is told of it");
}
