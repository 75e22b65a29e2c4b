//! The switch is killed in the middle of a call and started again on the same store: the call goes
//! on, and nobody is told that there was a break.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::audio::press_of_five;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::kamailio::Kamailio;
use crate::support::media::{A, B, Media, Packet, assert_hear_each_other, told_to_send};
use crate::support::ports::Ports;
use crate::support::proxy::{self, ADDRESS};
use crate::support::receiver::Received;
use crate::support::sipp::{Sipp, Transport};
use crate::support::site::{CALLEE, CALLEE_ADDRESS, FROM, Options, SWITCH_ADDRESS, Site};
use crate::tls::behind_kamailio;

/// Both phones, connected, and the sockets of their media.
pub struct Call {
    pub caller: Sipp,
    pub callee: Sipp,
    pub caller_media: Media,
    pub callee_media: Media,
}

/// How the switch is reached. SIPp ends a call whose connection breaks, as no carrier does: over
/// connections Kamailio stands between it and the switch.
#[derive(Clone, Copy)]
pub enum Way {
    Direct,
    Tcp,
    Tls,
}

/// The trunk is Kamailio, over TCP.
fn behind_kamailio_over_tcp(ports: &Ports, _folder: &Path, configuration: String) -> String {
    let callee = format!("address = \"{CALLEE_ADDRESS}:{}\"", ports.callee_sip());
    let proxy = format!("address = \"{ADDRESS}:{}\"", ports.neighbour_tls());
    assert!(configuration.contains(&callee), "{configuration}");
    configuration
        .replace(&callee, &proxy)
        .replace("transport = \"udp\"", "transport = \"tcp\"")
        // Its connections to us come from the address that they go to.
        .replace("allow = [", &format!("allow = [\"{SWITCH_ADDRESS}/32\", "))
}

/// Time to speak.
const PAUSE: Duration = Duration::from_secs(2);

async fn open(name: &str, way: Way) -> (Site, Option<Kamailio>) {
    let mut options = Options::new(Transport::Udp);
    match way {
        Way::Direct => {}
        Way::Tcp => options.edit = behind_kamailio_over_tcp,
        Way::Tls => options.edit = behind_kamailio,
    }
    let site = Site::open(&format!("adoption-{name}"), options).await;
    let (folder, ports) = (&site.folder, &site.ports);
    let phone = site.callee_sip().to_string();
    let switch = |port| format!("{SWITCH_ADDRESS}:{port}");
    let proxy = match way {
        Way::Direct => None,
        Way::Tcp => Some(proxy::start_over_tcp(folder, ports, &switch(ports.sip()), &phone).await),
        Way::Tls => Some(proxy::start(folder, ports, &switch(ports.tls()), &phone).await),
    };
    (site, proxy)
}

pub async fn connect(site: &Site, way: Way, pause: Duration, caller: &str, callee: &str) -> Call {
    let (caller_media, callee_media) = Media::of_both(site).await;
    let mut run = site.callee_run(callee);
    // Time to speak before it hangs up.
    run.pause = pause;
    let callee = site.phone(run).await;
    let mut run = site.caller_run(caller, FROM);
    run.pause = pause;
    match way {
        Way::Direct => {}
        Way::Tcp | Way::Tls => {
            run.towards = Some(format!("{ADDRESS}:{}", site.ports.neighbour_udp()));
        }
    }
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
    pub async fn speak(&self) {
        let (towards_a, towards_b) = told_to_send(&self.caller, &self.callee);
        // The node is ready before its relay is.
        until_heard(&self.caller_media, A, towards_a, &self.callee_media).await;
        until_heard(&self.callee_media, B, towards_b, &self.caller_media).await;
        let (a, b) = (&self.caller_media, &self.callee_media);
        assert_hear_each_other((a, towards_a), (b, towards_b)).await;
        for packet in press_of_five() {
            self.caller_media.send(&packet, towards_a).await;
        }
    }

    pub async fn finish(self) {
        assert_eq!(self.caller.finish().await.complaint, "", "A");
        assert_eq!(self.callee.finish().await.complaint, "", "B");
    }
}

/// Sends packets, each when the one before did not arrive, until one does.
async fn until_heard(from: &Media, ssrc: [u8; 4], towards: SocketAddr, to: &Media) {
    for sequence in 0..20 {
        let packet = Packet {
            sequence,
            ..Packet::audio(ssrc, 0, 0x33)
        };
        from.send(&packet, towards).await;
        if to.receive().await.is_some() {
            return;
        }
    }
    panic!("nothing is heard after the restart");
}

async fn kill_and_restart(site: &mut Site) {
    site.switch.take().unwrap().kill();
    site.restart().await;
}

pub async fn story_of(mut site: Site) -> Vec<String> {
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "COMPLETED A=COMPLETED B=COMPLETED");
    assert!(site.switch.take().unwrap().drain().await.success());
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    told(&received)
}

pub const BEGIN: [&str; 5] = [
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
];

async fn the_callee_hangs_up(name: &str, way: Way) {
    let (mut site, _proxy) = open(name, way).await;
    let callee = "callee_goes_on_and_hangs_up";
    let call = connect(&site, way, PAUSE, "caller_goes_on", callee).await;
    kill_and_restart(&mut site).await;
    call.speak().await;
    call.finish().await;
    let story = story_of(site).await;
    let end = ["A pressed 5", "B disconnected 200 & A disconnected 200"];
    assert!(fits(&story, &[&BEGIN[..], &end].concat()), "{story:#?}");
}

async fn the_caller_holds_takes_back_and_hangs_up(name: &str, way: Way) {
    let (mut site, _proxy) = open(name, way).await;
    let callee = "callee_goes_on_and_is_held";
    let call = connect(&site, way, PAUSE, "caller_goes_on_and_holds", callee).await;
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

macro_rules! after_the_restart {
    ($name:ident) => {
        mod $name {
            use super::Way;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_udp() {
                super::$name(concat!(stringify!($name), "-udp"), Way::Direct).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tcp() {
                super::$name(concat!(stringify!($name), "-tcp"), Way::Tcp).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tls() {
                super::$name(concat!(stringify!($name), "-tls"), Way::Tls).await;
            }
        }
    };
}

after_the_restart!(the_callee_hangs_up);
after_the_restart!(the_caller_holds_takes_back_and_hangs_up);

/// The switch is away for longer than calls may wait: both parties are let go, in error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waited_for_too_long_is_ended() {
    let mut options = Options::new(Transport::Udp);
    options.adopt_within = Duration::from_secs(1);
    let mut site = Site::open("adoption-late", options).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_waits_through_a_crash", FROM);
    run.fill = &[("FINAL", "500")];
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    site.switch.take().unwrap().kill();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    site.restart().await;
    assert_eq!(caller.finish().await.complaint, "", "A gets a BYE");
    assert_eq!(callee.finish().await.complaint, "", "B gets a BYE");
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=COMPLETED B=COMPLETED -2001");
    let log = site.switch.as_ref().unwrap().log();
    let why = "the switch was away for longer than [call] adopt_within_seconds calls=1";
    assert!(log.contains(why), "{log}");
    assert!(site.switch.take().unwrap().drain().await.success());
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    let story = told(&received);
    let end = ["A disconnected 200 -2001 & B disconnected 200 -2001"];
    assert!(fits(&story, &[&BEGIN[..], &end].concat()), "{story:#?}");
}
