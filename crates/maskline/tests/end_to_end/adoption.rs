//! The switch is killed in the middle of a call and started again on the same store: the call goes
//! on, and nobody is told that there was a break.

use std::time::Duration;

use crate::audio::{A, B, PACKETS, assert_heard, press_of_five};
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::media::{Media, Packet, announced};
use crate::support::receiver::Received;
use crate::support::sipp::{Sipp, Transport};
use crate::support::site::{CALLEE, CALLEE_ADDRESS, CALLER_ADDRESS, FROM, Options, Site};

/// Both phones, connected, and the sockets of their media.
struct Call {
    caller: Sipp,
    callee: Sipp,
    caller_media: Media,
    callee_media: Media,
}

async fn connect(site: &Site, caller: &str, callee: &str) -> Call {
    let caller_media = Media::open(CALLER_ADDRESS, site.ports.caller_media()).await;
    let callee_media = Media::open(CALLEE_ADDRESS, site.ports.callee_media()).await;
    let mut run = site.callee_run(callee);
    // Time to speak before it hangs up.
    run.pause = Duration::from_secs(2);
    let callee = site.phone(run).await;
    let mut run = site.caller_run(caller, FROM);
    run.pause = Duration::from_secs(2);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let connected = |it: &Received| {
        it.payload("callStatus") == "CALL_CONNECTED" && it.payload("callDirection") == "INBOUND"
    };
    site.receiver.wait_for("A is connected", connected).await;
    Call {
        caller,
        callee,
        caller_media,
        callee_media,
    }
}

impl Call {
    /// Both speak and hear each other, by the ports that they know.
    async fn speak(&self) {
        let answer = self.caller.messages().into_iter();
        let answer = answer
            .filter(|it| it.received)
            .find(|it| it.status() == Some(200));
        let towards_a = announced(&answer.expect("A got its 200"));
        let offer = self.callee.messages().into_iter().find(|it| it.received);
        let towards_b = announced(&offer.expect("B got an INVITE"));
        for index in 0..PACKETS {
            let from_a = Packet::audio(A, index, 0x11);
            let from_b = Packet::audio(B, index, 0x22);
            self.caller_media.send(&from_a, towards_a).await;
            self.callee_media.send(&from_b, towards_b).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_heard(&self.callee_media, 0x11).await;
        assert_heard(&self.caller_media, 0x22).await;
        for packet in press_of_five() {
            self.caller_media.send(&packet, towards_a).await;
        }
    }

    async fn finish(self) {
        assert_eq!(self.caller.finish().await.complaint, "", "A");
        assert_eq!(self.callee.finish().await.complaint, "", "B");
    }
}

async fn kill_and_restart(site: &mut Site) {
    site.switch.take().unwrap().kill();
    site.restart().await;
}

async fn story_of(mut site: Site) -> Vec<String> {
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "COMPLETED A=COMPLETED B=COMPLETED");
    assert!(site.switch.take().unwrap().drain().await.success());
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    told(&received)
}

const BEGIN: [&str; 5] = [
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callee_hangs_up_after_the_restart() {
    let mut site = Site::open("adoption-callee", Options::new(Transport::Udp)).await;
    let call = connect(&site, "caller_goes_on", "callee_goes_on_and_hangs_up").await;
    kill_and_restart(&mut site).await;
    call.speak().await;
    call.finish().await;
    let story = story_of(site).await;
    let end = ["A pressed 5", "B disconnected 200 & A disconnected 200"];
    assert!(fits(&story, &[&BEGIN[..], &end].concat()), "{story:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_holds_takes_back_and_hangs_up_after_the_restart() {
    let mut site = Site::open("adoption-caller", Options::new(Transport::Udp)).await;
    let call = connect(
        &site,
        "caller_goes_on_and_holds",
        "callee_goes_on_and_is_held",
    )
    .await;
    kill_and_restart(&mut site).await;
    call.speak().await;
    call.finish().await;
    let story = story_of(site).await;
    let end = [
        "A pressed 5",
        "A held",
        "A resumed",
        "A disconnected 200 & B disconnected 200",
    ];
    assert!(fits(&story, &[&BEGIN[..], &end].concat()), "{story:#?}");
}
