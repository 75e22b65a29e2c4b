//! What A hears before the answer: B announces by a 183 with SDP and sends RTP, then answers or
//! refuses.

use std::time::Duration;

use serde_json::json;

use crate::support::eventually;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::media::{A, B, Media, Packet, announced};
use crate::support::sipp::{Ended, Message, Run, Sipp, Transport};
use crate::support::site::{
    CALLEE, CALLEE_ADDRESS, CALLER, CALLER_ADDRESS, FROM, Options, SUB_ACCOUNT, Site, VIRTUAL,
};
use crate::support::steps::{Says, Steps};
use crate::support::switch::ADMIN_KEY;

const PACKETS: u16 = 20;
/// What B announces, what A says before the answer, and what both say behind it.
const ANNOUNCEMENT: u8 = 0x22;
const TOO_EARLY: u8 = 0x33;
const TALK: u8 = 0x11;

const RELIABLE: &str = "Require: 100rel\nRSeq: 77\n";

const ANSWERED: &[&str] = &[
    "A received",
    "B initiated",
    "B connected",
    "A connected",
    "A disconnected 200",
    "B disconnected 200",
];
const COMPLETED: &str = "COMPLETED A=COMPLETED B=COMPLETED";

/// One call.
struct Call {
    policy: Option<&'static str>,
    /// What the number's policy is made before the call, and back again once A heard of a 183.
    changed_to: Option<&'static str>,
    caller: Steps,
    callee: Steps,
    told: &'static [&'static str],
    summary: &'static str,
}

fn dials() -> Steps {
    Steps::default().dials(Some(Says::FIRST), "")
}

/// A talks for a while and hangs up.
fn talks(steps: Steps) -> Steps {
    steps.acks(1, None).waits().asks("BYE", 3, None).hears(200)
}

/// B gets the call and announces.
fn announces() -> Steps {
    Steps::default()
        .gets_and_keeps("INVITE")
        .answers_kept("183 Session Progress", "", Some(Says::FIRST))
        .waits()
}

/// The same, reliably.
fn announces_reliably() -> Steps {
    Steps::default()
        .gets_and_keeps("INVITE")
        .answers_kept("183 Session Progress", RELIABLE, Some(Says::FIRST))
        .gets("PRACK")
        .answers("200 OK", None)
        .waits()
}

/// B answers, and is left.
fn answers(steps: Steps, says: Option<Says>) -> Steps {
    steps
        .answers_kept("200 OK", "", says)
        .gets("ACK")
        .gets("BYE")
        .answers("200 OK", None)
}

fn heard() -> Call {
    Call {
        policy: Some("passThrough"),
        changed_to: None,
        caller: talks(dials().hears_early().gets_answer()),
        callee: answers(announces(), Some(Says::FIRST)),
        told: ANSWERED,
        summary: COMPLETED,
    }
}

/// The number is made otherwise.
fn heard_by_a_change() -> Call {
    Call {
        policy: Some("ringback"),
        changed_to: Some("passThrough"),
        ..heard()
    }
}

fn heard_reliably() -> Call {
    let dials = Steps::default().dials(Some(Says::FIRST), "Supported: 100rel\n");
    Call {
        caller: talks(dials.hears_early_reliably().gets_answer()),
        callee: answers(announces_reliably(), None),
        ..heard()
    }
}

fn refused() -> Call {
    Call {
        caller: dials().hears_early().hears(480).acks_refused_call(),
        callee: announces()
            .answers_kept("404 Not Found", "", None)
            .gets("ACK"),
        told: &[
            "A received",
            "B initiated",
            "B disconnected 404",
            "A disconnected 480",
        ],
        summary: "FAILED A=COMPLETED B=FAILED",
        ..heard()
    }
}

/// A would complain of a 183.
fn unheard(policy: Option<&'static str>) -> Call {
    Call {
        policy,
        caller: talks(Steps::default().calls(Some(Says::FIRST), "")),
        ..heard()
    }
}

const BOTH_LAWS: Says = Says {
    formats: "0 8 101",
    ..Says::FIRST
};
const OTHER_LAW: Says = Says {
    version: 2,
    formats: "0 101",
    ..Says::FIRST
};

/// B announces with PCMA and answers with PCMU.
fn answered_otherwise() -> Call {
    let dials = Steps::default().dials(Some(BOTH_LAWS), "");
    Call {
        caller: talks(dials.hears_early().gets_answer()),
        callee: answers(announces(), Some(OTHER_LAW)),
        ..heard()
    }
}

/// The same to a caller that had its answer before: it is offered the rest.
fn offered_the_rest() -> Call {
    let dials = Steps::default().dials(Some(BOTH_LAWS), "Supported: 100rel\n");
    let answered = dials.hears_early_reliably().gets_answer().acks(1, None);
    let offered = answered
        .gets("INVITE")
        .answers("200 OK", Some(OTHER_LAW))
        .gets("ACK");
    Call {
        caller: offered.waits().asks("BYE", 3, None).hears(200),
        ..answered_otherwise()
    }
}

macro_rules! everywhere {
    ($($name:ident: $check:ident($call:expr);)+) => { $(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_udp() {
                $check(stringify!($name), $call, Transport::Udp).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tcp() {
                $check(stringify!($name), $call, Transport::Tcp).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tls() {
                $check(stringify!($name), $call, Transport::Tls).await;
            }
        }
    )+ };
}

everywhere! {
    an_announcement_is_heard_before_the_answer: listens(heard());
    a_reliable_announcement_is_heard_and_needs_no_answer_again: listens(heard_reliably());
    an_announcement_before_a_refusal_is_heard_and_the_refusal_told: listens(refused());
    an_answer_that_differs_from_an_unreliable_announcement_is_in_the_200: changes(answered_otherwise());
    an_answer_that_differs_from_a_reliable_announcement_is_offered_behind_the_200: changes(offered_the_rest());
    a_changed_policy_counts_for_the_next_call_and_not_for_a_live_one: listens(heard_by_a_change());
    by_default_nothing_is_heard_before_the_answer: hears_nothing(unheard(None));
    with_ringback_nothing_is_heard_before_the_answer: hears_nothing(unheard(Some("ringback")));
}

/// Everything of a call that plays.
struct Playing {
    site: Site,
    caller: Sipp,
    callee: Sipp,
    caller_media: Media,
    callee_media: Media,
}

async fn begin(name: &str, call: &Call, transport: Transport) -> Playing {
    let mut options = Options::new(transport);
    options.early_media = call.policy;
    let site = Site::open(&format!("{name}-{}", transport.name()), options).await;
    if let Some(policy) = call.changed_to {
        change_policy(&site, policy).await;
    }
    let (caller_media, callee_media) = Media::of_both(&site).await;
    let pause = Duration::from_millis(2_500);
    let callee = Run {
        fill: &[("STEPS", call.callee.text())],
        pause,
        ..site.callee_run("callee_steps")
    };
    let callee = site.phone(callee).await;
    let caller = Run {
        fill: &[("STEPS", call.caller.text())],
        pause,
        ..site.caller_run("caller_steps", FROM)
    };
    let caller = site.phone(caller).await;
    Playing {
        site,
        caller,
        callee,
        caller_media,
        callee_media,
    }
}

async fn change_policy(site: &Site, policy: &str) {
    let path = format!("admin/subaccounts/{SUB_ACCOUNT}/numbers/{VIRTUAL}");
    let body = json!({ "earlyMedia": policy });
    let answer = site.call_api("PATCH", &path, ADMIN_KEY, Some(&body)).await;
    assert_eq!(answer.json()["earlyMedia"], policy);
}

/// B announces, and A hears it before anything final; A is not heard. If B answers, both talk.
async fn listens(name: &str, call: Call, transport: Transport) {
    let playing = begin(name, &call, transport).await;
    let early = message(&playing.caller, "A gets a 183", |it| {
        it.status() == Some(183)
    })
    .await;
    if let (Some(before), Some(_)) = (call.policy, call.changed_to) {
        change_policy(&playing.site, before).await;
    }
    let invite = message(&playing.callee, "B gets the call", is_invite).await;
    let (towards_a, towards_b) = (announced(&early), announced(&invite));
    for index in 0..PACKETS {
        let of_a = Packet::audio(A, index, TOO_EARLY);
        playing.caller_media.send(&of_a, towards_a).await;
        let of_b = Packet::audio(B, index, ANNOUNCEMENT);
        playing.callee_media.send(&of_b, towards_b).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hears(&playing.caller_media, ANNOUNCEMENT).await;
    assert!(
        !playing.caller.messages().iter().any(is_final),
        "all of it came before the answer"
    );
    if call.told == ANSWERED {
        playing.caller.acknowledges().await;
        let answer = message(&playing.caller, "A gets its 200", is_answer).await;
        assert_eq!(body(&answer), body(&early), "the 200 says the same");
        for index in PACKETS..2 * PACKETS {
            let of_a = Packet::audio(A, index, TALK);
            playing.caller_media.send(&of_a, towards_a).await;
            let of_b = Packet::audio(B, index, TALK);
            playing.callee_media.send(&of_b, towards_b).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        hears(&playing.caller_media, TALK).await;
        hears(&playing.callee_media, TALK).await;
    } else {
        assert_eq!(playing.callee_media.receive().await, None);
    }
    finish(playing, &call).await;
}

/// A is told of PCMA before the answer and has PCMU in the end.
async fn changes(name: &str, call: Call, transport: Transport) {
    let reliable = call.caller.text().contains("PRACK");
    let playing = begin(name, &call, transport).await;
    let early = message(&playing.caller, "A gets a 183", |it| {
        it.status() == Some(183)
    })
    .await;
    let answer = message(&playing.caller, "A gets its 200", is_answer).await;
    assert!(early.text.contains(" RTP/AVP 8 101"), "{}", early.text);
    let last = if reliable {
        assert_eq!(body(&answer), body(&early), "the 200 says the same");
        message(&playing.caller, "A is offered the rest", is_invite).await
    } else {
        answer
    };
    assert!(last.text.contains(" RTP/AVP 0 101"), "{}", last.text);
    finish(playing, &call).await;
}

/// B announces in vain.
async fn hears_nothing(name: &str, call: Call, transport: Transport) {
    let playing = begin(name, &call, transport).await;
    let invite = message(&playing.callee, "B gets the call", is_invite).await;
    let announcement = |it: &Message| !it.received && it.status() == Some(183);
    message(&playing.callee, "B announces", announcement).await;
    for index in 0..PACKETS {
        let of_b = Packet::audio(B, index, ANNOUNCEMENT);
        playing.callee_media.send(&of_b, announced(&invite)).await;
    }
    assert_eq!(playing.caller_media.receive().await, None);
    finish(playing, &call).await;
}

async fn finish(playing: Playing, call: &Call) {
    let mut site = playing.site;
    let caller = playing.caller.finish().await;
    let callee = playing.callee.finish().await;
    let summary = site.receiver.summary().await;
    let switch = site.switch.take().unwrap();
    let log = switch.log();
    assert!(switch.drain().await.success(), "{log}");
    let received = site.receiver.received();
    let story = told(&received);
    assert!(
        fits(&story, call.told) && caller.complaint.is_empty() && callee.complaint.is_empty(),
        "told {story:#?}\nexpected {:#?}\ncaller: {}\ncallee: {}\nsee {}\n{log}",
        call.told,
        caller.complaint,
        callee.complaint,
        site.folder.display(),
    );
    check_rules(&received, CALLEE);
    assert_eq!(summed_up(&summary), call.summary);
    for (ended, address, number) in [
        (&caller, CALLEE_ADDRESS, CALLEE),
        (&callee, CALLER_ADDRESS, CALLER),
    ] {
        let told = received_text(ended);
        for word in [address, number.trim_start_matches('+')] {
            assert!(!told.contains(word), "{word} in what the other party got");
        }
    }
    site.receiver.stop().await;
}

fn received_text(ended: &Ended) -> String {
    let received = ended.messages.iter().filter(|it| it.received);
    // What a party wrote itself comes back in the heads of answers to it, so bodies count.
    received.map(|it| body(it).to_owned()).collect()
}

fn body(message: &Message) -> &str {
    let (_, body) = message.text.split_once("v=0").unwrap_or_default();
    body.trim_end()
}

fn is_invite(message: &Message) -> bool {
    message.received && message.first_line().starts_with("INVITE")
}

fn is_final(message: &Message) -> bool {
    message.status().is_some_and(|status| status >= 200)
        && message
            .header("CSeq")
            .is_some_and(|cseq| cseq.ends_with("INVITE"))
}

fn is_answer(message: &Message) -> bool {
    message.status() == Some(200) && is_final(message)
}

async fn message(phone: &Sipp, what: &str, is: impl Fn(&Message) -> bool) -> Message {
    eventually(what, Duration::from_secs(20), || {
        phone.messages().into_iter().find(|it| is(it))
    })
    .await
}

async fn hears(media: &Media, octet: u8) {
    for index in 0..PACKETS {
        let packet = media.receive().await;
        let packet = packet.unwrap_or_else(|| panic!("packet {index} never came"));
        assert_eq!(packet.len(), 172, "a header without extras, and 20 ms");
        assert_eq!(packet[12..], [octet; 160], "packet {index}");
        for ssrc in [A, B] {
            assert_ne!(packet[8..12], ssrc, "no party's SSRC is passed on");
        }
    }
}
