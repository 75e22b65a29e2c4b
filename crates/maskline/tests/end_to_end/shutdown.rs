//! SIGTERM in the middle of a call: no new calls, the live one goes on to its end, and all of it is
//! told before the switch is gone.

use std::time::Duration;

use crate::support::eventually;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::raw::Raw;
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, CALLER_ADDRESS, FROM, Options, Site};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_call_ends_well_and_a_new_one_is_refused() {
    let mut site = Site::open("shutdown", Options::new(Transport::Udp)).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_hangs_up", FROM);
    run.pause = Duration::from_secs(4);
    let caller = site.phone(run).await;
    site.receiver
        .wait_for("A is connected", |it| {
            it.payload("callStatus") == "CALL_CONNECTED" && it.payload("callDirection") == "INBOUND"
        })
        .await;
    let draining = tokio::spawn(site.switch.take().unwrap().drain());
    let log = site.folder.join("switch.log");
    let said = || {
        std::fs::read_to_string(&log)
            .is_ok_and(|log| log.contains("drain"))
            .then_some(())
    };
    eventually(
        "the switch says that it drains",
        Duration::from_secs(5),
        said,
    )
    .await;
    let raw = Raw::open(CALLER_ADDRESS, site.ports.sip()).await;
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.2\r\ns=-\r\nc=IN IP4 127.0.0.2\r\nt=0 0\r\n\
               m=audio 40000 RTP/AVP 8\r\n";
    let invite = raw.request("INVITE", "late", "Content-Type: application/sdp\r\n", sdp);
    let (status, answer) = raw.status_of(&invite).await;
    assert_eq!(status, Some(503), "{answer}");
    assert!(answer.contains("Retry-After"), "{answer}");

    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    assert!(draining.await.unwrap().success());
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "COMPLETED A=COMPLETED B=COMPLETED");
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
