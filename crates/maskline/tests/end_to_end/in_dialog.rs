//! Changes within a call: re-INVITE and UPDATE of one party, and what the other sees of them.

use std::time::Duration;

use crate::support::eventually;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::media::{Media, Packet, announced};
use crate::support::sipp::{Ended, Message, Run, Transport};
use crate::support::site::{CALLEE, CALLEE_ADDRESS, CALLER, CALLER_ADDRESS, FROM, Options, Site};
use crate::support::steps::{Says, Steps};

const ALLOWS_UPDATE: &str = "Allow: INVITE, ACK, CANCEL, BYE, UPDATE\n";

/// A calls and is answered.
fn caller() -> Steps {
    Steps::default().calls(Some(Says::FIRST), "").acks(1, None)
}

fn callee() -> Steps {
    Steps::default().answers_call(Says::FIRST, "")
}

/// A hangs up.
fn hangs_up(steps: Steps, cseq: u32) -> Steps {
    steps.asks("BYE", cseq, None).hears(200)
}

/// B waits for that.
fn is_left(steps: Steps) -> Steps {
    steps.gets("BYE").answers("200 OK", None)
}

/// Plays a call over UDP, TCP and TLS. `updates` are told between the answer and the end. Returns what
/// A and B heard and said, by transport.
async fn play(name: &str, caller: &Steps, callee: &Steps, updates: &[&str]) -> Vec<(Ended, Ended)> {
    let mut played = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let name = format!("{name}-{}", transport.name());
        let mut site = Site::open(&name, Options::new(transport)).await;
        let callee_run = Run {
            fill: &[("STEPS", callee.text())],
            ..site.callee_run("callee_steps")
        };
        let callee = site.phone(callee_run).await;
        let caller_run = Run {
            fill: &[("STEPS", caller.text())],
            ..site.caller_run("caller_steps", FROM)
        };
        let caller = site.phone(caller_run).await.finish().await;
        let callee = callee.finish().await;
        let summary = site.receiver.summary().await;
        let switch = site.switch.take().unwrap();
        let log = switch.log();
        assert!(switch.drain().await.success(), "{log}");
        let received = site.receiver.received();
        let mut expected = vec![
            "A received",
            "B initiated",
            "?B ringing",
            "B connected",
            "A connected",
        ];
        expected.extend(updates);
        expected.extend(["A disconnected 200", "B disconnected 200"]);
        let story = told(&received);
        assert!(
            fits(&story, &expected) && caller.complaint.is_empty() && callee.complaint.is_empty(),
            "told {story:#?}\nexpected {expected:#?}\ncaller: {}\ncallee: {}\nsee {}\n{log}",
            caller.complaint,
            callee.complaint,
            site.folder.display(),
        );
        check_rules(&received, CALLEE);
        assert_eq!(summed_up(&summary), "COMPLETED A=COMPLETED B=COMPLETED");
        assert_private(&caller, CALLEE_ADDRESS, CALLEE);
        assert_private(&callee, CALLER_ADDRESS, CALLER);
        site.receiver.stop().await;
        played.push((caller, callee));
    }
    played
}

/// Nothing that a party received names the other's address or number.
fn assert_private(ended: &Ended, address: &str, number: &str) {
    for message in ended.messages.iter().filter(|it| it.received) {
        let text = &message.text;
        assert!(!text.contains(address), "{address} in {text}");
        assert!(!text.contains(&number[3..]), "{number} in {text}");
    }
}

/// What was received of this method after the first, or as answer to this CSeq.
fn got<'a>(ended: &'a Ended, start: &str, cseq: &str) -> Vec<&'a Message> {
    let fits = |it: &&Message| {
        it.received && it.first_line().starts_with(start) && it.header("CSeq") == Some(cseq)
    };
    ended.messages.iter().filter(fits).collect()
}

#[track_caller]
fn assert_says(message: Option<&&Message>, what: &str) {
    let message = message.unwrap_or_else(|| panic!("no message that says {what}"));
    assert!(message.text.contains(what), "{what} in {}", message.text);
}

/// The number behind `o=- <id> `.
fn version(message: &Message) -> u64 {
    let line = message.text.lines().find(|line| line.starts_with("o="));
    let version = line.and_then(|line| line.split(' ').nth(2));
    version.expect("a description").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_and_its_end_reach_the_callee() {
    let a = caller()
        .asks("INVITE", 2, Some(Says::as_version(2, "sendonly")))
        .hears(200)
        .acks(2, None)
        .asks("INVITE", 3, Some(Says::as_version(3, "sendrecv")))
        .hears(200)
        .acks(3, None);
    let b = callee()
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "recvonly")))
        .gets("ACK")
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(3, "sendrecv")))
        .gets("ACK");
    let (a, b) = (hangs_up(a, 4), is_left(b));
    for (a, b) in play("hold", &a, &b, &["A held", "A resumed"]).await {
        assert_says(got(&b, "INVITE", "2 INVITE").first(), "a=sendonly");
        assert_says(got(&a, "SIP/2.0 200", "2 INVITE").first(), "a=recvonly");
        assert_says(got(&b, "INVITE", "3 INVITE").first(), "a=sendrecv");
        assert_says(got(&a, "SIP/2.0 200", "3 INVITE").first(), "a=sendrecv");
        for (ended, start) in [(&b, "INVITE"), (&a, "SIP/2.0 200")] {
            let versions = [1, 2, 3].map(|number| {
                let cseq = format!("{number} INVITE");
                version(got(ended, start, &cseq)[0])
            });
            assert_eq!(versions, [0, 1, 2], "each description is one version on");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_by_the_callee_reaches_the_caller() {
    let a = caller()
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "recvonly")))
        .gets("ACK")
        .waits();
    let b = callee()
        .waits()
        .asks_as_callee("INVITE", 1, Some(Says::as_version(2, "sendonly")))
        .hears(200)
        .asks_as_callee("ACK", 1, None);
    let (a, b) = (hangs_up(a, 2), is_left(b));
    for (a, b) in play("hold-by-b", &a, &b, &["B held"]).await {
        assert_says(got(&a, "INVITE", "1 INVITE").first(), "a=sendonly");
        assert_says(got(&b, "SIP/2.0 200", "1 INVITE").first(), "a=recvonly");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_codec_is_offered_to_the_callee_and_answered_as_it_says() {
    let other = Says {
        version: 2,
        formats: "0 101",
        ..Says::FIRST
    };
    let a = caller()
        .asks("INVITE", 2, Some(other))
        .hears(200)
        .acks(2, None);
    let b = callee()
        .gets("INVITE")
        .answers("200 OK", Some(other))
        .gets("ACK");
    let (a, b) = (hangs_up(a, 3), is_left(b));
    for (a, b) in play("codec", &a, &b, &["A media"]).await {
        assert_says(got(&b, "INVITE", "2 INVITE").first(), "RTP/AVP 0 101");
        assert_says(got(&a, "SIP/2.0 200", "2 INVITE").first(), "RTP/AVP 0 101");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_is_answered_and_the_callee_hears_nothing_of_it() {
    let a = caller()
        .asks("INVITE", 2, Some(Says::FIRST))
        .hears(200)
        .acks(2, None)
        .asks("UPDATE", 3, None)
        .hears(200);
    let b = callee();
    let (a, b) = (hangs_up(a, 4), is_left(b));
    for (a, _) in play("refresh", &a, &b, &[]).await {
        let answers = ["1 INVITE", "2 INVITE"].map(|cseq| got(&a, "SIP/2.0 200", cseq)[0].clone());
        assert_eq!(version(&answers[0]), version(&answers[1]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_reaches_a_callee_that_allows_it_as_an_update() {
    let held = Says::as_version(2, "sendonly");
    let answer = Says::as_version(2, "recvonly");
    let a = caller().asks("UPDATE", 2, Some(held)).hears(200);
    let b = Steps::default()
        .answers_call(Says::FIRST, ALLOWS_UPDATE)
        .gets("UPDATE")
        .answers("200 OK", Some(answer));
    let (a, b) = (hangs_up(a, 3), is_left(b));
    for (a, b) in play("update", &a, &b, &["A held"]).await {
        assert_says(got(&b, "UPDATE", "2 UPDATE").first(), "a=sendonly");
        assert_says(got(&a, "SIP/2.0 200", "2 UPDATE").first(), "a=recvonly");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_reaches_any_other_callee_as_an_invite() {
    let held = Says::as_version(2, "sendonly");
    let answer = Says::as_version(2, "recvonly");
    let a = caller().asks("UPDATE", 2, Some(held)).hears(200);
    let b = callee()
        .gets("INVITE")
        .answers("200 OK", Some(answer))
        .gets("ACK");
    let (a, b) = (hangs_up(a, 3), is_left(b));
    play("update-as-invite", &a, &b, &["A held"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_question_for_an_offer_is_the_callees_to_answer() {
    let answer = Says::as_version(2, "sendrecv");
    let a = caller()
        .asks("INVITE", 2, None)
        .hears(200)
        .acks(2, Some(answer));
    let b = callee()
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "sendrecv")))
        .gets("ACK");
    let (a, b) = (hangs_up(a, 3), is_left(b));
    for (a, b) in play("ask", &a, &b, &[]).await {
        let asked = got(&b, "INVITE", "2 INVITE")[0];
        assert!(!asked.text.contains("v=0"), "{}", asked.text);
        assert_says(got(&a, "SIP/2.0 200", "2 INVITE").first(), "RTP/AVP 8 101");
        assert_says(got(&b, "ACK", "2 ACK").first(), "RTP/AVP 8 101");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_an_offer_is_offered_what_the_callee_takes() {
    let a = Steps::default()
        .calls(None, "")
        .acks(1, Some(Says::FIRST))
        .waits();
    let (a, b) = (hangs_up(a, 2), is_left(callee()));
    for (a, b) in play("no-offer", &a, &b, &[]).await {
        let offer = got(&b, "INVITE", "1 INVITE");
        assert_says(offer.first(), "RTP/AVP 0 8 9 101");
        assert_says(got(&a, "SIP/2.0 200", "1 INVITE").first(), "RTP/AVP 8 101");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_callee_leaves_the_call_up() {
    let a = caller()
        .asks("INVITE", 2, Some(Says::as_version(2, "sendonly")))
        .hears(488)
        .acks_refusal(2)
        .waits();
    let b = callee()
        .gets("INVITE")
        .answers("415 Unsupported Media Type", None)
        .gets("ACK");
    let (a, b) = (hangs_up(a, 3), is_left(b));
    play("refused-change", &a, &b, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_meets_another_is_tried_again() {
    let a = caller()
        .asks("INVITE", 2, Some(Says::as_version(2, "sendonly")))
        .hears(200)
        .acks(2, None);
    let b = callee()
        .gets("INVITE")
        .answers("491 Request Pending", None)
        .gets("ACK")
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "recvonly")))
        .gets("ACK");
    let (a, b) = (hangs_up(a, 3), is_left(b));
    for (_, b) in play("glare", &a, &b, &["A held"]).await {
        assert_says(got(&b, "INVITE", "3 INVITE").first(), "a=sendonly");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_change_is_cancelled_at_the_callee_and_the_call_lives_on() {
    let a = caller()
        .asks("INVITE", 2, Some(Says::as_version(2, "sendonly")))
        .hears(100)
        .waits()
        .cancels(2)
        .hears(200)
        .hears(487)
        .acks_refusal(2)
        .waits();
    let b = callee()
        .gets_and_keeps("INVITE")
        .answers("180 Ringing", None)
        .gets("CANCEL")
        .answers("200 OK", None)
        .refuses_kept("487 Request Terminated")
        .gets("ACK");
    let (a, b) = (hangs_up(a, 3), is_left(b));
    play("cancelled-change", &a, &b, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_during_its_change_gets_487() {
    let a = caller()
        .asks("INVITE", 2, Some(Says::as_version(2, "sendonly")))
        .hears(100)
        .waits()
        .asks("BYE", 3, None)
        .hears(200)
        .hears(487)
        .acks_refusal(2);
    let b = callee()
        .gets_and_keeps("INVITE")
        .answers("180 Ringing", None)
        .gets("BYE")
        .answers("200 OK", None)
        .refuses_kept("487 Request Terminated")
        .gets("ACK");
    play("bye-during-change", &a, &b, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_takes_the_recorded_route_and_a_strict_routers_way() {
    for (name, lr) in [("loose", ";lr"), ("strict", "")] {
        let proxy = format!("sip:proxy@[local_ip]:[local_port];transport=[transport]{lr}");
        let record = format!("Record-Route: <{proxy}>\n");
        let a = caller()
            .asks("INVITE", 2, Some(Says::as_version(2, "sendonly")))
            .hears(200)
            .acks(2, None);
        let b = Steps::default()
            .answers_call(Says::FIRST, &record)
            .gets("INVITE")
            .answers("200 OK", Some(Says::as_version(2, "recvonly")))
            .gets("ACK");
        let (a, b) = (hangs_up(a, 3), is_left(b));
        for (_, b) in play(&format!("route-{name}"), &a, &b, &["A held"]).await {
            for (start, cseq) in [("INVITE", "2 INVITE"), ("ACK", "2 ACK"), ("BYE", "3 BYE")] {
                let request = got(&b, start, cseq)[0];
                let (first, route) = (request.first_line(), request.header("Route").unwrap());
                let (loose, strict) = if lr.is_empty() {
                    (route, first)
                } else {
                    (first, route)
                };
                assert!(loose.contains("sip:callee@"), "{}", request.text);
                assert!(strict.contains("sip:proxy@"), "{}", request.text);
            }
        }
    }
}

/// A says that it wants its audio at another address: what B sends arrives there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_follows_a_caller_that_moves() {
    const ELSEWHERE: &str = "127.0.0.5";
    let moved = Says {
        version: 2,
        address: ELSEWHERE,
        ..Says::FIRST
    };
    let a = caller()
        .asks("INVITE", 2, Some(moved))
        .hears(200)
        .acks(2, None)
        .waits();
    let b = callee()
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "sendrecv")))
        .gets("ACK");
    let (a, b) = (hangs_up(a, 3), is_left(b));
    let mut site = Site::open("moves", Options::new(Transport::Udp)).await;
    let caller_media = Media::open(ELSEWHERE, site.ports.caller_media()).await;
    let callee_media = Media::open(CALLEE_ADDRESS, site.ports.callee_media()).await;
    let callee_run = Run {
        fill: &[("STEPS", b.text())],
        ..site.callee_run("callee_steps")
    };
    let callee = site.phone(callee_run).await;
    let caller_run = Run {
        fill: &[("STEPS", a.text())],
        pause: Duration::from_secs(3),
        ..site.caller_run("caller_steps", FROM)
    };
    let caller = site.phone(caller_run).await;
    eventually("B's second ACK", Duration::from_secs(10), || {
        let messages = callee.messages();
        let acks = messages
            .iter()
            .filter(|it| it.received && it.first_line().starts_with("ACK"));
        (acks.count() >= 2).then_some(())
    })
    .await;
    let offer = callee.messages().into_iter().find(|it| it.received);
    let towards_b = announced(&offer.expect("B got an INVITE"));
    let mut heard = 0;
    for index in 0..20 {
        let packet = Packet::audio(*b"BBBB", index, 0x22);
        callee_media.send(&packet, towards_b).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while let Some(packet) = caller_media.receive().await {
        assert_eq!(packet[12..], [0x22; 160]);
        heard += 1;
    }
    assert!(
        heard > 10,
        "{heard} of 20 packets arrive at the new address"
    );
    let (caller, callee) = (caller.finish().await, callee.finish().await);
    assert_eq!(
        (caller.complaint.as_str(), callee.complaint.as_str()),
        ("", "")
    );
    assert_private(&callee, ELSEWHERE, CALLER);
    site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
    let story = told(&site.receiver.received());
    assert!(story.contains(&"A media".to_owned()), "{story:#?}");
}
