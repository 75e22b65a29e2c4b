//! A proxy on the way: Kamailio stands in front of the switch (A calls through it) or behind it (B is
//! called through it), records its route, and hides its own side's addresses in some rows (`topoh`).
//!
//! What is shown is that every request of a call takes the recorded route, both ways, and that
//! nothing of the proxy or of what stands behind it reaches the other side.

use std::net::SocketAddr;

use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::kamailio::Kamailio;
use crate::support::ports::Ports;
use crate::support::sipp::{Ended, Run, Transport};
use crate::support::site::{
    CALLEE, CALLEE_ADDRESS, CALLER, CALLER_ADDRESS, FROM, OTHER_ADDRESS, Options, Site,
};
use crate::support::steps::{Says, Steps};

/// Where the proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    InFront,
    Behind,
}

/// A row: what surrounds a call.
#[derive(Clone, Copy, Debug)]
struct Row {
    stands: Stands,
    /// How the switch talks, to the proxy and to the other phone.
    transport: Transport,
    /// How the proxy talks to its phone.
    phone: Transport,
    hides: bool,
}

/// The address that `topoh` writes for what it hides.
const MASK: &str = "127.0.0.8";

fn trunk(address: &str, transport: Transport) -> String {
    let transport = transport.name();
    format!(
        "[[trunk]]\nname = \"carrier\"\naddress = \"{address}\"\ntransport = \"{transport}\"\n\
         allow = [\"{CALLER_ADDRESS}\", \"{CALLEE_ADDRESS}\", \"{OTHER_ADDRESS}\"]\n"
    )
}

fn to_callee(ports: &Ports, transport: Transport) -> String {
    trunk(
        &format!("{CALLEE_ADDRESS}:{}", ports.callee_sip()),
        transport,
    )
}

fn to_proxy(ports: &Ports, transport: Transport) -> String {
    trunk(
        &format!("{OTHER_ADDRESS}:{}", ports.neighbour_udp()),
        transport,
    )
}

async fn proxy(site: &Site, row: Row) -> Kamailio {
    let address: SocketAddr = format!("{OTHER_ADDRESS}:{}", site.ports.neighbour_udp())
        .parse()
        .unwrap();
    let hiding = format!(
        "loadmodule \"topoh.so\"\nmodparam(\"topoh\", \"mask_key\", \"of this test\")\n\
         modparam(\"topoh\", \"mask_ip\", \"{MASK}\")\nmodparam(\"topoh\", \"mask_callid\", 1)"
    );
    let fill = [
        ("ADDRESS", address.to_string()),
        ("IP", address.ip().to_string()),
        ("SWITCH", "127.0.0.1".to_owned()),
        (
            "SWITCH_URI",
            format!(
                "sip:127.0.0.1:{};transport={}",
                site.ports.sip(),
                row.transport.name()
            ),
        ),
        (
            "PHONE",
            format!("sip:{};transport={}", site.callee_sip(), row.phone.name()),
        ),
        ("HIDING", if row.hides { hiding } else { String::new() }),
    ];
    Kamailio::start_with(&site.folder, "kamailio_neighbour.cfg", &fill, address).await
}

/// One call through the proxy, from an empty folder to the end of the switch. Returns what A and B
/// heard, and what the proxy said of the requests within the dialog, `ACK 1 of 127.0.0.2 over udp`.
async fn play(
    name: &str,
    row: Row,
    [caller, callee]: [Scenario<'_>; 2],
    expected: &[&str],
    summary: &str,
) -> (Ended, Ended, Vec<String>) {
    let mut options = Options::new(row.transport);
    options.ways = Some(match row.stands {
        Stands::InFront => to_callee,
        Stands::Behind => to_proxy,
    });
    let mut site = Site::open(name, options).await;
    let kamailio = proxy(&site, row).await;
    let fill = [("STEPS", callee.steps)];
    let mut run = Run {
        fill: &fill,
        ..site.callee_run(callee.name)
    };
    if row.stands == Stands::Behind {
        run.transport = row.phone;
    }
    let callee = site.phone(run).await;
    let fill = [("STEPS", caller.steps)];
    let mut run = Run {
        fill: &fill,
        ..site.caller_run(caller.name, FROM)
    };
    if row.stands == Stands::InFront {
        run.transport = row.phone;
        run.towards = Some(format!("{OTHER_ADDRESS}:{}", site.ports.neighbour_udp()));
    }
    let caller = site.phone(run).await.finish().await;
    let callee = callee.finish().await;
    let summed = site.receiver.summary().await;
    let switch = site.switch.take().unwrap();
    let log = format!("{}\n{}", switch.log(), kamailio.log());
    assert!(switch.drain().await.success(), "{log}");
    let received = site.receiver.received();
    let story = told(&received);
    assert!(
        fits(&story, expected) && caller.complaint.is_empty() && callee.complaint.is_empty(),
        "told {story:#?}\nexpected {expected:#?}\ncaller: {}\ncallee: {}\nsee {}\n{log}",
        caller.complaint,
        callee.complaint,
        site.folder.display(),
    );
    check_rules(&received, CALLEE);
    assert_eq!(summed_up(&summed), summary);
    assert_masked(&caller, &callee, row);
    assert!(!log.contains("unrouted"), "{log}");
    let routed = log.lines().filter_map(|line| line.split_once("routed "));
    let routed = routed.map(|(_, what)| what.to_owned()).collect();
    (caller, callee, routed)
}

/// What a phone runs.
#[derive(Clone, Copy, Debug)]
struct Scenario<'a> {
    name: &'a str,
    steps: &'a str,
}

/// Nothing of a party reaches the other; nor does anything of the proxy reach the party that it
/// does not serve. It itself tells the switch who it is in each message.
fn assert_masked(caller: &Ended, callee: &Ended, row: Row) {
    let of_proxy = [OTHER_ADDRESS, MASK, "kamailio", "Neighbour"];
    let (to_caller, to_callee): (&[&str], &[&str]) = match row.stands {
        Stands::InFront => (&[], &of_proxy),
        Stands::Behind => (&of_proxy, &[]),
    };
    let of_caller = [CALLER_ADDRESS, &CALLER[3..], "Alice"];
    let of_callee = [CALLEE_ADDRESS, &CALLEE[3..]];
    for (ended, secrets) in [
        (caller, [&of_callee[..], to_caller].concat()),
        (callee, [&of_caller[..], to_callee].concat()),
    ] {
        for message in ended.messages.iter().filter(|it| it.received) {
            for secret in &secrets {
                let text = &message.text;
                assert!(!text.contains(secret), "{secret} in {text}");
            }
        }
    }
    // It is there to be found.
    let served = match row.stands {
        Stands::InFront => caller,
        Stands::Behind => callee,
    };
    let arrived = |what: &str| {
        let mut received = served.messages.iter().filter(|it| it.received);
        received.any(|it| it.text.contains(what))
    };
    assert!(arrived("X-Neighbour: kamailio"));
    assert_eq!(arrived(MASK), row.hides);
}

/// Whether these are the requests that took the proxy's route, and all of them.
#[track_caller]
fn assert_routed(routed: &[String], row: Row, expected: &[(&str, Sender)]) {
    let phone = match row.stands {
        Stands::InFront => CALLER_ADDRESS,
        Stands::Behind => CALLEE_ADDRESS,
    };
    for (request, sender) in expected {
        let (address, transport) = match sender {
            Sender::Phone => (phone, row.phone),
            Sender::Switch => ("127.0.0.1", row.transport),
        };
        let line = format!("{request} of {address} over {}", transport.name());
        assert!(
            routed.iter().any(|it| it.eq_ignore_ascii_case(&line)),
            "{line} in {routed:#?}"
        );
    }
    let mut requests: Vec<_> = routed.iter().collect();
    requests.sort();
    requests.dedup();
    assert_eq!(requests.len(), expected.len(), "{routed:#?}");
}

/// Who sends a request through the proxy.
#[derive(Clone, Copy, Debug)]
enum Sender {
    /// The phone that it serves.
    Phone,
    /// The switch.
    Switch,
}

const HELD_BY_A: &[&str] = &[
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
    "A held",
    "B disconnected 200",
    "A disconnected 200",
];
const HELD_BY_B: &[&str] = &[
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
    "B held",
    "A disconnected 200",
    "B disconnected 200",
];
const COMPLETED: &str = "COMPLETED A=COMPLETED B=COMPLETED";

fn calls() -> Steps {
    Steps::default().calls(Some(Says::FIRST), "").acks(1, None)
}

fn is_called() -> Steps {
    Steps::default().answers_call(Says::FIRST, "[last_Record-Route:]\n")
}

/// A holds the call and B ends it.
async fn the_caller_holds_and_the_callee_hangs_up(name: &str, row: Row) {
    let a = calls()
        .asks("INVITE", 2, Some(Says::as_version(2, "sendonly")))
        .hears(200)
        .acks(2, None)
        .gets("BYE")
        .answers("200 OK", None);
    let b = is_called()
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "recvonly")))
        .gets("ACK")
        .waits()
        .asks_as_callee("BYE", 1, None)
        .hears(200);
    let (_, _, routed) = play(name, row, steps(&a, &b), HELD_BY_A, COMPLETED).await;
    let expected = match row.stands {
        Stands::InFront => [
            ("ACK 1", Sender::Phone),
            ("INVITE 2", Sender::Phone),
            ("ACK 2", Sender::Phone),
            ("BYE 1", Sender::Switch),
        ],
        Stands::Behind => [
            ("ACK 1", Sender::Switch),
            ("INVITE 2", Sender::Switch),
            ("ACK 2", Sender::Switch),
            ("BYE 1", Sender::Phone),
        ],
    };
    assert_routed(&routed, row, &expected);
}

/// B holds the call and A ends it.
async fn the_callee_holds_and_the_caller_hangs_up(name: &str, row: Row) {
    let a = calls()
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "recvonly")))
        .gets("ACK")
        .waits()
        .asks("BYE", 2, None)
        .hears(200);
    let b = is_called()
        .waits()
        .asks_as_callee("INVITE", 1, Some(Says::as_version(2, "sendonly")))
        .hears(200)
        .asks_as_callee("ACK", 1, None)
        .gets("BYE")
        .answers("200 OK", None);
    let (_, _, routed) = play(name, row, steps(&a, &b), HELD_BY_B, COMPLETED).await;
    let expected = match row.stands {
        Stands::InFront => [
            ("ACK 1", Sender::Phone),
            ("INVITE 1", Sender::Switch),
            ("ACK 1", Sender::Switch),
            ("BYE 2", Sender::Phone),
        ],
        Stands::Behind => [
            ("ACK 1", Sender::Switch),
            ("INVITE 1", Sender::Phone),
            ("ACK 1", Sender::Phone),
            ("BYE 2", Sender::Switch),
        ],
    };
    assert_routed(&routed, row, &expected);
}

/// A gives up while B rings: no request of the call takes the route, for there is no dialog yet.
async fn the_caller_gives_up(name: &str, row: Row) {
    let phones =
        ["caller_cancels_ringing", "callee_rings"].map(|name| Scenario { name, steps: "" });
    let expected = [
        "A received",
        "B initiated",
        "B ringing",
        "A disconnected 487 & B disconnected 487",
    ];
    let summary = "CANCELED A=CANCELED B=CANCELED";
    let (caller, callee, routed) = play(name, row, phones, &expected, summary).await;
    assert_eq!(caller.heard(), Some(487));
    assert!(callee.request("CANCEL").is_some());
    assert_eq!(routed, [""; 0]);
}

fn steps<'a>(caller: &'a Steps, callee: &'a Steps) -> [Scenario<'a>; 2] {
    [("caller_steps", caller), ("callee_steps", callee)].map(|(name, steps)| Scenario {
        name,
        steps: steps.text(),
    })
}

macro_rules! rows {
    ($call:ident: $($name:ident($stands:ident, $transport:ident, $phone:ident, $hides:expr);)+) => {
        mod $call {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let row = Row {
                        stands: Stands::$stands,
                        transport: Transport::$transport,
                        phone: Transport::$phone,
                        hides: $hides,
                    };
                    let name = concat!(stringify!($call), "-", stringify!($name));
                    super::$call(name, row).await;
                }
            )+
        }
    };
}

rows!(the_caller_holds_and_the_callee_hangs_up:
    through_a_proxy_in_front_over_udp(InFront, Udp, Udp, false);
    through_a_proxy_in_front_over_tcp(InFront, Tcp, Tcp, false);
    through_a_proxy_in_front_from_udp_to_tcp(InFront, Tcp, Udp, false);
    through_a_hiding_proxy_in_front_over_udp(InFront, Udp, Udp, true);
    through_a_hiding_proxy_in_front_over_tcp(InFront, Tcp, Tcp, true);
    through_a_proxy_behind_over_udp(Behind, Udp, Udp, false);
    through_a_proxy_behind_over_tcp(Behind, Tcp, Tcp, false);
    through_a_proxy_behind_from_tcp_to_udp(Behind, Tcp, Udp, false);
    through_a_hiding_proxy_behind_over_udp(Behind, Udp, Udp, true);
    through_a_hiding_proxy_behind_over_tcp(Behind, Tcp, Tcp, true);
);

rows!(the_callee_holds_and_the_caller_hangs_up:
    through_a_proxy_in_front_over_udp(InFront, Udp, Udp, false);
    through_a_proxy_in_front_over_tcp(InFront, Tcp, Tcp, false);
    through_a_hiding_proxy_in_front_over_udp(InFront, Udp, Udp, true);
    through_a_hiding_proxy_in_front_over_tcp(InFront, Tcp, Tcp, true);
    through_a_proxy_behind_over_udp(Behind, Udp, Udp, false);
    through_a_proxy_behind_over_tcp(Behind, Tcp, Tcp, false);
    through_a_hiding_proxy_behind_over_udp(Behind, Udp, Udp, true);
    through_a_hiding_proxy_behind_over_tcp(Behind, Tcp, Tcp, true);
);

rows!(the_caller_gives_up:
    through_a_proxy_in_front_over_udp(InFront, Udp, Udp, false);
    through_a_hiding_proxy_in_front_over_tcp(InFront, Tcp, Tcp, true);
    through_a_hiding_proxy_behind_over_udp(Behind, Udp, Udp, true);
    through_a_proxy_behind_over_tcp(Behind, Tcp, Tcp, false);
);
