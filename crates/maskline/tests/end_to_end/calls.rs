//! The table of calls: what each party does, and what must be told of it. Every row runs over UDP
//! and over TCP, some over TLS, except where the row is about one of them.

use std::time::Duration;

use maskline_events::WebhookType;
use maskline_events::signing::{
    DEFAULT_TOLERANCE_SECONDS, HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, SignedHeaders,
    parse_secret, verify,
};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket};

use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::receiver::{Received, Vca};
use crate::support::sipp::{Ended, Transport};
use crate::support::site::{CALLEE, CALLER, FROM, Options, Site, VIRTUAL, make_call};

/// A row: what happens, and what must come of it.
#[derive(Clone, Debug)]
struct Row {
    caller: &'static str,
    callee: Callee,
    /// A's From header.
    from: &'static str,
    number: &'static str,
    /// The number that the callflow names.
    destination: &'static str,
    caller_pause_ms: u64,
    callee_pause_ms: u64,
    fill: &'static [(&'static str, &'static str)],
    loss: u8,
    vca: Option<Vca>,
    no_answer_seconds: u64,
    max_duration_seconds: u64,
    told: &'static [&'static str],
    /// As [`summed_up`] words it; `None`: there is no session.
    summary: Option<&'static str>,
    last_action: Option<&'static str>,
    hears: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callee {
    /// Runs this scenario.
    Scenario(&'static str),
    /// Takes what comes and says nothing.
    Silent,
    /// Is not there.
    Nobody,
}

/// A call that is answered, and ends well.
const CONNECTED: [&str; 5] = [
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
];

const fn connected_then(first: &'static str, second: &'static str) -> [&'static str; 7] {
    let [a, b, c, d, e] = CONNECTED;
    [a, b, c, d, e, first, second]
}

const A_HANGS_UP: &[&str] = &connected_then("A disconnected 200", "B disconnected 200");
const B_HANGS_UP: &[&str] = &connected_then("B disconnected 200", "A disconnected 200");
const A_NEVER_ACKNOWLEDGES: &[&str] =
    &connected_then("A disconnected 408 -2002", "B disconnected 200 -2002");
const EITHER_HANGS_UP: &[&str] = &{
    let [a, b, c, d, e] = CONNECTED;
    [a, b, c, d, e, "A disconnected 200 & B disconnected 200"]
};

/// Row: the caller hangs up a call that was answered.
const ANSWERED: Row = Row {
    caller: "caller_hangs_up",
    callee: Callee::Scenario("callee_answers"),
    from: FROM,
    number: VIRTUAL,
    destination: CALLEE,
    caller_pause_ms: 1_200,
    callee_pause_ms: 100,
    fill: &[],
    loss: 0,
    vca: None,
    no_answer_seconds: 20,
    max_duration_seconds: 60,
    told: A_HANGS_UP,
    summary: Some("COMPLETED A=COMPLETED B=COMPLETED"),
    last_action: Some("MAKE_CALL"),
    hears: 200,
};

/// Row: B refuses at once.
const REFUSED: Row = Row {
    caller: "caller_refused",
    callee: Callee::Scenario("callee_refuses"),
    ..ANSWERED
};

/// Row: B rings and refuses.
const RUNG: Row = Row {
    callee: Callee::Scenario("callee_rings_and_refuses"),
    ..REFUSED
};

/// Row: the call ends before there is a B.
const NO_CALLEE: Row = Row {
    caller: "caller_refused",
    callee: Callee::Nobody,
    last_action: None,
    ..ANSWERED
};

/// Row: a callflow or a VCA endpoint that cannot be used.
const fn useless_vca(told: &'static [&'static str], summary: &'static str) -> Row {
    Row {
        fill: &[("FINAL", "500")],
        told,
        summary: Some(summary),
        hears: 500,
        ..NO_CALLEE
    }
}

/// Row: the VCA endpoint does not answer as it should.
const UNREACHABLE_VCA: Row = useless_vca(
    &["A received", "A disconnected 500 -2002"],
    "ERROR A=ERROR B=none -2002",
);
/// Row: what the VCA endpoint answers is no callflow.
const WRONG_VCA: Row = useless_vca(
    &["A received", "A disconnected 500 -2003"],
    "ERROR A=ERROR B=none -2003",
);

macro_rules! row {
    ($name:ident on $($transport:ident),+ : $row:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "not every row needs everything")]
            use super::*;
            $(row!(@one $transport, $row);)+
        }
    };
    ($name:ident : $row:expr) => { row!($name on udp, tcp: $row); };
    (@one udp, $row:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn over_udp() {
            run(module_path!(), "udp", $row, Transport::Udp).await;
        }
    };
    (@one tcp, $row:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn over_tcp() {
            run(module_path!(), "tcp", $row, Transport::Tcp).await;
        }
    };
    (@one tls, $row:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn over_tls() {
            run(module_path!(), "tls", $row, Transport::Tls).await;
        }
    };
}

row!(answered_and_the_caller_hangs_up on udp, tcp, tls: ANSWERED);

row!(answered_and_the_callee_hangs_up on udp, tcp, tls: Row {
    caller: "caller_waits",
    callee: Callee::Scenario("callee_hangs_up"),
    callee_pause_ms: 1_200,
    told: B_HANGS_UP,
    ..ANSWERED
});

row!(the_callee_hangs_up_right_after_ack: Row {
    caller: "caller_waits",
    callee: Callee::Scenario("callee_hangs_up"),
    callee_pause_ms: 0,
    told: B_HANGS_UP,
    ..ANSWERED
});

row!(both_hang_up_at_once_and_the_caller_is_first: Row {
    callee: Callee::Scenario("callee_crosses_bye"),
    told: EITHER_HANGS_UP,
    ..ANSWERED
});

row!(both_hang_up_at_once_and_the_callee_is_first: Row {
    caller: "caller_crosses_bye",
    callee: Callee::Scenario("callee_hangs_up"),
    callee_pause_ms: 1_200,
    told: EITHER_HANGS_UP,
    ..ANSWERED
});

row!(a_call_ends_at_its_maximum_duration: Row {
    caller: "caller_waits",
    max_duration_seconds: 2,
    told: EITHER_HANGS_UP,
    ..ANSWERED
});

row!(a_second_phone_that_answers_is_ended: Row {
    callee: Callee::Scenario("callee_forks"),
    ..ANSWERED
});

row!(a_caller_may_renegotiate: Row { caller: "caller_renegotiates", ..ANSWERED });

row!(a_withheld_caller_is_anonymous: Row {
    from: "\"Anonymous\" <sip:anonymous@anonymous.invalid>",
    ..ANSWERED
});

row!(busy on udp, tcp, tls: Row {
    fill: &[("STATUS", "486 Busy Here"), ("HEADER", "Allow: INVITE"), ("FINAL", "486")],
    told: &["A received", "B initiated", "B disconnected 486", "A disconnected 486"],
    summary: Some("BUSY A=COMPLETED B=BUSY"),
    hears: 486,
    ..REFUSED
});

row!(busy_everywhere: Row {
    fill: &[("STATUS", "600 Busy Everywhere"), ("HEADER", "Allow: INVITE"), ("FINAL", "486")],
    told: &["A received", "B initiated", "?B ringing", "B disconnected 600", "A disconnected 486"],
    summary: Some("BUSY A=COMPLETED B=BUSY"),
    hears: 486,
    ..RUNG
});

row!(declined: Row {
    fill: &[("STATUS", "603 Decline"), ("HEADER", "Allow: INVITE"), ("FINAL", "603")],
    told: &["A received", "B initiated", "?B ringing", "B disconnected 603", "A disconnected 603"],
    summary: Some("BUSY A=COMPLETED B=BUSY"),
    hears: 603,
    ..RUNG
});

row!(no_such_number: Row {
    fill: &[("STATUS", "404 Not Found"), ("HEADER", "Allow: INVITE"), ("FINAL", "480")],
    told: &["A received", "B initiated", "B disconnected 404", "A disconnected 480"],
    summary: Some("FAILED A=COMPLETED B=FAILED"),
    hears: 480,
    ..REFUSED
});

row!(switched_off: Row {
    fill: &[("STATUS", "480 Temporarily Unavailable"), ("HEADER", "Allow: INVITE"), ("FINAL", "480")],
    told: &["A received", "B initiated", "B disconnected 480", "A disconnected 480"],
    summary: Some("FAILED A=COMPLETED B=FAILED"),
    hears: 480,
    ..REFUSED
});

row!(the_carrier_fails: Row {
    fill: &[("STATUS", "500 Server Internal Error"), ("HEADER", "Allow: INVITE"), ("FINAL", "480")],
    told: &["A received", "B initiated", "B disconnected 500", "A disconnected 480"],
    summary: Some("FAILED A=COMPLETED B=FAILED"),
    hears: 480,
    ..REFUSED
});

row!(the_network_times_out_without_ringing: Row {
    fill: &[("STATUS", "408 Request Timeout"), ("HEADER", "Allow: INVITE"), ("FINAL", "480")],
    told: &["A received", "B initiated", "B disconnected 408", "A disconnected 480"],
    summary: Some("FAILED A=COMPLETED B=FAILED"),
    hears: 480,
    ..REFUSED
});

row!(the_network_gives_up_after_ringing: Row {
    fill: &[("STATUS", "480 Temporarily Unavailable"), ("HEADER", "Allow: INVITE"), ("FINAL", "480")],
    told: &["A received", "B initiated", "B ringing", "B disconnected 480", "A disconnected 480"],
    summary: Some("NO_ANSWER A=COMPLETED B=NO_ANSWER"),
    hears: 480,
    ..RUNG
});

row!(a_cause_of_busy_outranks_the_status: Row {
    fill: &[
        ("STATUS", "480 Temporarily Unavailable"),
        ("HEADER", "Reason: Q.850;cause=17;text=\"of B alone\""),
        ("FINAL", "486"),
    ],
    told: &["A received", "B initiated", "B disconnected 480", "A disconnected 486"],
    summary: Some("BUSY A=COMPLETED B=BUSY"),
    hears: 486,
    ..REFUSED
});

row!(a_cause_of_no_circuit_is_our_error: Row {
    fill: &[
        ("STATUS", "503 Service Unavailable"),
        ("HEADER", "Reason: Q.850;cause=34"),
        ("FINAL", "500"),
    ],
    told: &["A received", "B initiated", "B disconnected 503 -2002", "A disconnected 500 -2002"],
    summary: Some("ERROR A=COMPLETED B=ERROR -2002"),
    hears: 500,
    ..REFUSED
});

row!(rung_out: Row {
    callee: Callee::Scenario("callee_rings"),
    no_answer_seconds: 2,
    fill: &[("FINAL", "480")],
    told: &["A received", "B initiated", "B ringing", "B disconnected 487", "A disconnected 480"],
    summary: Some("NO_ANSWER A=COMPLETED B=NO_ANSWER"),
    hears: 480,
    ..REFUSED
});

row!(no_reply_at_all on udp, tcp, tls: Row {
    callee: Callee::Silent,
    fill: &[("FINAL", "500")],
    told: &["A received", "B initiated", "B disconnected 408 -2002", "A disconnected 500 -2002"],
    summary: Some("ERROR A=COMPLETED B=ERROR -2002"),
    hears: 500,
    ..REFUSED
});

row!(the_trunk_is_not_there: Row {
    callee: Callee::Nobody,
    fill: &[("FINAL", "500")],
    told: &["A received", "B initiated", "B disconnected 408 -2002", "A disconnected 500 -2002"],
    summary: Some("ERROR A=COMPLETED B=ERROR -2002"),
    hears: 500,
    ..REFUSED
});

row!(cancelled_while_ringing on udp, tcp, tls: Row {
    caller: "caller_cancels_ringing",
    callee: Callee::Scenario("callee_rings"),
    caller_pause_ms: 300,
    told: &["A received", "B initiated", "B ringing", "A disconnected 487", "B disconnected 487"],
    summary: Some("CANCELED A=CANCELED B=CANCELED"),
    hears: 487,
    ..ANSWERED
});

row!(cancelled_before_there_is_a_callee: Row {
    caller: "caller_cancels_early",
    caller_pause_ms: 200,
    vca: Some(Vca::Late(Duration::from_secs(5))),
    told: &["A received", "A disconnected 487"],
    summary: Some("CANCELED A=CANCELED B=none"),
    hears: 487,
    ..NO_CALLEE
});

row!(cancel_crosses_the_callees_200 on udp, tcp, tls: Row {
    caller: "caller_cancels_ringing",
    callee: Callee::Scenario("callee_answers_the_cancel"),
    caller_pause_ms: 300,
    told: &["A received", "B initiated", "B ringing", "A disconnected 487", "B disconnected 487"],
    summary: Some("CANCELED A=CANCELED B=CANCELED"),
    hears: 487,
    ..ANSWERED
});

row!(cancel_crosses_our_200: Row { caller: "caller_cancels_answered", ..ANSWERED });

row!(the_caller_never_acknowledges: Row {
    caller: "caller_never_acks",
    told: A_NEVER_ACKNOWLEDGES,
    summary: Some("ERROR A=COMPLETED B=COMPLETED -2002"),
    ..ANSWERED
});

row!(vca_is_down: Row { vca: Some(Vca::Down), ..UNREACHABLE_VCA });
row!(vca_is_slow: Row { vca: Some(Vca::Late(Duration::from_secs(10))), ..UNREACHABLE_VCA });
row!(vca_trickles: Row { vca: Some(Vca::Trickles), ..UNREACHABLE_VCA });
row!(vca_fails: Row { vca: Some(Vca::Status(500)), ..UNREACHABLE_VCA });
row!(vca_redirects on udp: Row { vca: Some(Vca::Status(302)), ..UNREACHABLE_VCA });
row!(vca_answers_no_json: Row { vca: Some(Vca::Says("<html>")), ..WRONG_VCA });
row!(vca_answers_no_callflow on udp: Row { vca: Some(Vca::Says("{\"callflow\":7}")), ..WRONG_VCA });
row!(vca_answers_an_unknown_action on udp: Row {
    vca: Some(Vca::Says(r#"{"callflow":[{"action":"dance"}]}"#)),
    ..WRONG_VCA
});
row!(vca_leaves_out_a_parameter on udp: Row {
    vca: Some(Vca::Says(r#"{"callflow":[{"action":"makeCall","params":{"source":"+6531580001"}}]}"#)),
    ..WRONG_VCA
});
row!(vca_answers_without_an_end: Row { vca: Some(Vca::Endless), ..WRONG_VCA });

row!(vca_says_hangup: Row {
    vca: Some(Vca::Says(r#"{"callflow":[{"action":"hangup"}]}"#)),
    fill: &[("FINAL", "603")],
    told: &["A received", "A disconnected 603"],
    summary: Some("COMPLETED A=COMPLETED B=none"),
    last_action: Some("HANGUP"),
    hears: 603,
    ..NO_CALLEE
});

row!(an_empty_callflow_is_hangup on udp: Row {
    vca: Some(Vca::Says(r#"{"callflow":[]}"#)),
    fill: &[("FINAL", "603")],
    told: &["A received", "A disconnected 603"],
    summary: Some("COMPLETED A=COMPLETED B=none"),
    last_action: Some("HANGUP"),
    hears: 603,
    ..NO_CALLEE
});

row!(an_unassigned_number: Row {
    number: "+6531589999",
    fill: &[("FINAL", "404")],
    told: &[],
    summary: None,
    hears: 404,
    ..NO_CALLEE
});

row!(every_tenth_message_is_lost on udp: Row { loss: 10, ..ANSWERED });

row!(every_tenth_message_is_lost_and_the_callee_is_busy on udp: Row {
    loss: 10,
    fill: &[("STATUS", "486 Busy Here"), ("HEADER", "Allow: INVITE"), ("FINAL", "486")],
    told: &["A received", "B initiated", "B disconnected 486", "A disconnected 486"],
    summary: Some("BUSY A=COMPLETED B=BUSY"),
    hears: 486,
    ..REFUSED
});

/// A caller id that is not the sub-account's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_caller_id_is_refused() {
    let row = Row {
        vca: Some(Vca::Callflow(make_call("+6531589999", CALLEE))),
        fill: &[("FINAL", "403")],
        told: &["A received", "A disconnected 403 -2008"],
        summary: Some("ERROR A=ERROR B=none -2008"),
        last_action: Some("MAKE_CALL"),
        hears: 403,
        ..NO_CALLEE
    };
    run(module_path!(), "foreign_caller_id", row, Transport::Udp).await;
}

/// A destination in a country that the sub-account may not call, an emergency number, a virtual
/// number: none of them is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_not_allowed_is_not_called() {
    for (name, destination) in [
        ("abroad", "+4915112345678"),
        ("emergency", "+65995"),
        ("virtual", VIRTUAL),
    ] {
        let row = Row {
            vca: Some(Vca::Callflow(make_call(VIRTUAL, destination))),
            fill: &[("FINAL", "403")],
            destination,
            told: &[
                "A received",
                "B initiated",
                "B disconnected 403 -2004",
                "A disconnected 403 -2004",
            ],
            summary: Some("ERROR A=COMPLETED B=ERROR -2004"),
            last_action: Some("MAKE_CALL"),
            hears: 403,
            ..NO_CALLEE
        };
        run(
            module_path!(),
            &format!("not_allowed_{name}"),
            row,
            Transport::Udp,
        )
        .await;
    }
}

/// Runs a row from an empty folder to the end of the switch.
async fn run(module: &str, variant: &str, row: Row, transport: Transport) {
    let mut options = Options::new(transport);
    options.no_answer = Duration::from_secs(row.no_answer_seconds);
    options.max_duration = Duration::from_secs(row.max_duration_seconds);
    options.vca = row.vca.clone().unwrap_or(options.vca);
    let name = module.rsplit("::").next().unwrap_or(module);
    let mut site = Site::open(&format!("{name}-{variant}"), options).await;

    let silent = match row.callee {
        Callee::Silent => Some(be_silent(&site, transport).await),
        Callee::Scenario(_) | Callee::Nobody => None,
    };
    let callee = match row.callee {
        Callee::Scenario(scenario) => {
            let mut run = site.callee_run(scenario);
            run.pause = Duration::from_millis(row.callee_pause_ms);
            run.loss = row.loss;
            run.fill = row.fill;
            Some(site.phone(run).await)
        }
        Callee::Silent | Callee::Nobody => None,
    };
    let mut caller = site.caller_run(row.caller, row.from);
    caller.number = row.number;
    caller.pause = Duration::from_millis(row.caller_pause_ms);
    caller.loss = row.loss;
    caller.fill = row.fill;
    let caller = site.phone(caller).await.finish().await;
    let callee = match callee {
        Some(callee) => Some(callee.finish().await),
        None => None,
    };
    let summary = match row.summary {
        Some(_) => Some(site.receiver.summary().await),
        None => None,
    };
    // What is still on its way arrives before the switch ends.
    let switch = site.switch.take().unwrap();
    let log = switch.log();
    let ended = switch.drain().await;
    if let Some(task) = silent {
        task.abort();
    }
    let received = site.receiver.received();

    let story = told(&received);
    let complaints = [Some(&caller), callee.as_ref()].map(|it| it.map(|it| it.complaint.clone()));
    assert!(
        fits(&story, row.told) && complaints.iter().flatten().all(String::is_empty),
        "told {story:#?}\nexpected {:#?}\ncaller, callee complained: {complaints:#?}\nsee {}\n{log}",
        row.told,
        site.folder.display(),
    );
    assert!(ended.success(), "the switch ended with {ended}\n{log}");
    check_rules(&received, row.destination);
    check_signatures(&site, &received);
    assert_eq!(caller.heard(), Some(row.hears), "what the caller heard");
    assert_eq!(summary.as_ref().map(summed_up).as_deref(), row.summary);
    if let Some(summary) = &summary {
        assert_eq!(
            summary.payload("lastAction"),
            &json!(row.last_action),
            "lastAction"
        );
        check_durations(summary);
    }
    if let Some(callee) = &callee {
        check_caller_id(callee);
    }
    if row.summary.is_none() {
        assert!(received.is_empty(), "no session, yet {received:?}");
    }
    if let Some(poured) = site.receiver.stop().await {
        // What the sockets of both ends hold comes on top of what is read.
        assert!(
            poured < 8_000_000,
            "{poured} bytes of an endless answer were taken"
        );
    }
}

/// Something that takes what is sent to B, and says nothing.
async fn be_silent(site: &Site, transport: Transport) -> tokio::task::JoinHandle<()> {
    let address = site.callee_sip();
    match transport {
        Transport::Udp => {
            let socket = UdpSocket::bind(address).await.unwrap();
            tokio::spawn(async move { while socket.recv(&mut [0; 2048]).await.is_ok() {} })
        }
        Transport::Tcp | Transport::Tls => {
            let listener = TcpListener::bind(address).await.unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                while stream.read(&mut [0; 2048]).await.is_ok_and(|read| read > 0) {}
            })
        }
    }
}

/// Each webhook is signed with its endpoint's secret.
pub(crate) fn check_signatures(site: &Site, received: &[Received]) {
    for event in received {
        let secret = parse_secret(&site.secrets[&event.webhook]).unwrap();
        let headers = SignedHeaders {
            id: event.header(HEADER_ID),
            timestamp: event.header(HEADER_TIMESTAMP),
            signature: event.header(HEADER_SIGNATURE),
        };
        let now = event.header(HEADER_TIMESTAMP).parse().unwrap();
        verify(
            &[secret],
            headers,
            &event.raw,
            now,
            DEFAULT_TOLERANCE_SECONDS,
        )
        .unwrap_or_else(|error| panic!("{error}: {event:?}"));
    }
}

/// The virtual number is what B's phone shows, and A's number is nowhere in the request.
fn check_caller_id(callee: &Ended) {
    let invite = callee.request("INVITE").expect("the callee got an INVITE");
    let from = invite.header("From").unwrap();
    assert!(from.contains(VIRTUAL), "From: {from}");
    assert!(
        invite.first_line().contains(CALLEE),
        "{}",
        invite.first_line()
    );
    assert!(
        !invite.text.contains(&CALLER[3..]),
        "the caller's number in {}",
        invite.text
    );
}

/// A leg that connected has the times and the duration that go with it.
fn check_durations(summary: &Received) {
    let details = summary.payload("details").as_object().unwrap();
    for (leg, of) in details {
        let connected = of.get("connectedTimestamp").and_then(|at| at.as_str());
        let duration = of["callDuration"].as_u64().unwrap();
        if connected.is_none() {
            assert_eq!(duration, 0, "{leg} never connected");
        }
        let ends = of["disconnectedTimestamp"].as_str().unwrap();
        assert!(
            of["initiatedTimestamp"].as_str().unwrap() <= ends,
            "{leg}: {of}"
        );
        assert!(
            summary.payload("endTime").as_str().unwrap() >= ends,
            "{leg}: {of}"
        );
    }
    assert_eq!(summary.webhook, WebhookType::Vss);
}
