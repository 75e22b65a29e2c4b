//! Reliable provisionals (RFC 3262) and the requests in a dialog that change no media, with SIPp on
//! both sides.

use std::time::Duration;

use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::sipp::{Ended, Transport};
use crate::support::site::{CALLEE, FROM, Options, Site};

/// One call between two scenarios.
pub struct Call {
    /// A's scenario.
    pub caller: &'static str,
    /// B's scenario.
    pub callee: &'static str,
    /// How long either side's pause lasts.
    pub pause_ms: u64,
    /// A's placeholders.
    pub fill: &'static [(&'static str, &'static str)],
    /// B's placeholders.
    pub callee_fill: &'static [(&'static str, &'static str)],
    /// What is told.
    pub told: &'static [&'static str],
    /// As [`summed_up`] words it.
    pub summary: &'static str,
}

/// What came of it.
pub struct Played {
    /// A's messages.
    pub caller: Ended,
    /// B's messages.
    pub callee: Ended,
}

/// Plays a call from an empty folder to the end of the switch.
pub async fn play(name: &str, call: &Call, options: Options) -> Played {
    let mut site = Site::open(name, options).await;
    let pause = Duration::from_millis(call.pause_ms);
    let mut callee = site.callee_run(call.callee);
    callee.pause = pause;
    callee.fill = call.callee_fill;
    let callee = site.phone(callee).await;
    let mut caller = site.caller_run(call.caller, FROM);
    caller.pause = pause;
    caller.fill = call.fill;
    let caller = site.phone(caller).await.finish().await;
    let callee = callee.finish().await;
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
    site.receiver.stop().await;
    Played { caller, callee }
}

/// What is told of a call that the caller hangs up.
pub const TOLD: &[&str] = &[
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
    "A disconnected 200",
    "B disconnected 200",
];
/// Its summary.
pub const COMPLETED: &str = "COMPLETED A=COMPLETED B=COMPLETED";

const PRACKED: Call = Call {
    caller: "caller_pracks",
    callee: "callee_answers",
    pause_ms: 700,
    fill: &[("EXTENSION", "Supported: timer, 100rel")],
    callee_fill: &[],
    told: TOLD,
    summary: COMPLETED,
};

async fn over_all(name: &str, call: &Call) {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let name = format!("{name}-{}", transport.name());
        play(&name, call, Options::new(transport)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_supports_100rel_is_rung_reliably_and_a_second_prack_is_stray() {
    over_all("rung-reliably", &PRACKED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_may_require_100rel() {
    let call = Call {
        fill: &[("EXTENSION", "Require: 100rel")],
        ..PRACKED
    };
    over_all("requires-100rel", &call).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_never_pracks_is_refused_with_500() {
    let call = Call {
        caller: "caller_never_pracks",
        callee: "callee_rings",
        told: &[
            "A received",
            "B initiated",
            "B ringing",
            "B disconnected 487 -2002",
            "A disconnected 500 -2002",
        ],
        summary: "ERROR A=COMPLETED B=ERROR -2002",
        ..PRACKED
    };
    // On a stream SIPp takes no repetition for one.
    play("never-pracks", &call, Options::new(Transport::Udp)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_rings_reliably_gets_a_prack_for_each_provisional() {
    let call = Call {
        caller: "caller_hangs_up",
        callee: "callee_rings_reliably",
        fill: &[],
        ..PRACKED
    };
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let name = format!("rings-reliably-{}", transport.name());
        let played = play(&name, &call, Options::new(transport)).await;
        assert_eq!(played.caller.heard(), Some(200));
        let numbers: Vec<&str> = played
            .callee
            .messages
            .iter()
            .filter(|it| it.received && !it.first_line().starts_with("INVITE"))
            .filter_map(|it| it.header("CSeq"))
            .collect();
        assert_eq!(numbers, ["2 PRACK", "3 PRACK", "1 ACK", "4 BYE"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_may_describe_its_media_in_a_reliable_provisional_alone() {
    let call = Call {
        caller: "caller_hangs_up",
        callee: "callee_answers_early",
        fill: &[],
        ..PRACKED
    };
    over_all("answers-early", &call).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_by_info_are_told_and_passed_on_and_a_transfer_is_declined() {
    let call = Call {
        caller: "caller_presses_by_info",
        callee: "callee_hears_info",
        pause_ms: 300,
        fill: &[],
        callee_fill: &[],
        told: &[
            "A received",
            "B initiated",
            "?B ringing",
            "B connected",
            "A connected",
            "A pressed 5",
            "A pressed #",
            "A disconnected 200",
            "B disconnected 200",
        ],
        summary: COMPLETED,
    };
    over_all("keys-by-info", &call).await;
}
