//! The switch is killed in the middle of a call and started again on the same store, where a call
//! that is answered may not go on, and one that is not can't: each party is let go, what was told before is not told otherwise, and what nobody saw is made up.

use std::time::Duration;

use axum::http::StatusCode;

use crate::support::eventually;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::receiver::{Received, Vca};
use crate::support::sipp::{Message, Run, Sipp, Transport};
use crate::support::site::{CALLEE, FROM, Options, Site};

fn is(event: &Received, status: &str, direction: &str) -> bool {
    event.payload("callStatus") == status && event.payload("callDirection") == direction
}

async fn phones(site: &Site, caller: &str, callee: &str) -> (Sipp, Sipp) {
    let callee = site.phone(site.callee_run(callee)).await;
    let caller = site.phone(caller_run(site, caller)).await;
    (caller, callee)
}

fn never(transport: Transport) -> Options {
    Options {
        adopt_within: Duration::ZERO,
        ..Options::new(transport)
    }
}

/// A calls; should it be refused, then with 500.
fn caller_run<'a>(site: &Site, scenario: &'a str) -> Run<'a> {
    Run {
        fill: &[("FINAL", "500")],
        ..site.caller_run(scenario, FROM)
    }
}

/// Ends the switch and gives what the server had got by then and what it has at the end.
async fn end(mut site: Site) -> Vec<Received> {
    assert!(site.switch.take().unwrap().drain().await.success());
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    received
}

const ENDED_BY_THE_CRASH: [&str; 6] = [
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
    "A disconnected 200 -2001 & B disconnected 200 -2001",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_they_talk() {
    let mut site = Site::open("crash-talking", never(Transport::Udp)).await;
    let (caller, callee) = phones(&site, "caller_waits_through_a_crash", "callee_answers").await;
    site.receiver
        .wait_for("A is connected", |it| is(it, "CALL_CONNECTED", "INBOUND"))
        .await;
    caller.acknowledges().await;
    site.switch.take().unwrap().kill();
    site.restart().await;

    let log = site.switch.as_ref().unwrap().log();
    assert_eq!(caller.finish().await.complaint, "", "A gets a BYE\n{log}");
    assert_eq!(callee.finish().await.complaint, "", "B gets a BYE\n{log}");
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=COMPLETED B=COMPLETED -2001");
    let story = told(&end(site).await);
    assert!(fits(&story, &ENDED_BY_THE_CRASH), "{story:#?}");
}

/// The connections died with the switch, and A's cannot be made anew from our side. What is told
/// does not depend on that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_they_talk_over_connections() {
    let mut site = Site::open("crash-connections", never(Transport::Tcp)).await;
    let (caller, callee) = phones(&site, "caller_waits_through_a_crash", "callee_answers").await;
    site.receiver
        .wait_for("A is connected", |it| is(it, "CALL_CONNECTED", "INBOUND"))
        .await;
    caller.acknowledges().await;
    site.switch.take().unwrap().kill();
    site.restart().await;

    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=COMPLETED B=COMPLETED -2001");
    drop((caller, callee));
    let story = told(&end(site).await);
    assert!(fits(&story, &ENDED_BY_THE_CRASH), "{story:#?}");
}

/// Nothing of the call was delivered when the switch dies: all of it is, afterwards, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_anything_was_delivered() {
    let mut site = Site::open("crash-undelivered", never(Transport::Udp)).await;
    site.receiver
        .acknowledge_with(StatusCode::INTERNAL_SERVER_ERROR);
    let (caller, callee) = phones(&site, "caller_waits_through_a_crash", "callee_answers").await;
    caller.acknowledges().await;
    site.switch.take().unwrap().kill();
    site.receiver.acknowledge_with(StatusCode::OK);
    site.restart().await;

    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    let story = told(&end(site).await);
    assert!(fits(&story, &ENDED_BY_THE_CRASH), "{story:#?}");
}

/// Killed while B rings: A is refused, B is cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_rings() {
    let mut site = Site::open("crash-ringing", Options::new(Transport::Udp)).await;
    let (caller, callee) = phones(&site, "caller_refused", "callee_rings").await;
    site.receiver
        .wait_for("B rings", |it| {
            it.payload("eventData")["update"] == "RINGING"
        })
        .await;
    site.switch.take().unwrap().kill();
    site.restart().await;

    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=COMPLETED B=ERROR -2001");
    assert_eq!(caller.finish().await.heard(), Some(500));
    eventually("B is cancelled", Duration::from_secs(5), || {
        let cancel = |it: &Message| it.received && it.first_line().starts_with("CANCEL");
        callee.messages().iter().any(cancel).then_some(())
    })
    .await;
    drop(callee);
    let story = told(&end(site).await);
    let expected = [
        "A received",
        "B initiated",
        "B ringing",
        "A disconnected 500 -2001 & B disconnected 487 -2001",
    ];
    assert!(fits(&story, &expected), "{story:#?}");
}

/// Killed while B rings, and B answers before the CANCEL of the restarted switch reaches it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_rings_and_the_callee_answers() {
    let mut options = Options::new(Transport::Udp);
    // SIPp does not expect its CANCEL twice.
    options.edit = |_, _, text| text.replace("t1_ms = 50", "t1_ms = 500");
    let mut site = Site::open("crash-answered", options).await;
    let (caller, callee) = phones(&site, "caller_refused", "callee_answers_the_cancel").await;
    site.receiver
        .wait_for("B rings", |it| {
            it.payload("eventData")["update"] == "RINGING"
        })
        .await;
    site.switch.take().unwrap().kill();
    site.restart().await;

    site.receiver.summary().await;
    assert_eq!(caller.finish().await.heard(), Some(500));
    assert_eq!(
        callee.finish().await.complaint,
        "",
        "B's 200 is acknowledged, and B gets a BYE"
    );
    end(site).await;
}

/// Killed while the customer's server thinks about what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_there_is_a_callee() {
    let mut options = never(Transport::Udp);
    options.vca = Vca::Late(Duration::from_millis(900));
    let mut site = Site::open("crash-early", options).await;
    let caller = site.phone(caller_run(&site, "caller_refused")).await;
    site.receiver
        .wait_for("A is received", |it| is(it, "CALL_RECEIVED", "INBOUND"))
        .await;
    site.switch.take().unwrap().kill();
    site.restart().await;

    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=ERROR B=none -2001");
    assert_eq!(caller.finish().await.heard(), Some(500));
    let story = told(&end(site).await);
    assert!(
        fits(&story, &["A received", "A disconnected 500 -2001"]),
        "{story:#?}"
    );
}
