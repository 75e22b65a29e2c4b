//! Carriers that write numbers in their own ways: the called number is found, the caller is told
//! as it may be told, and the callee's carrier reads what it wants to read. Each row over UDP and TCP.

use std::time::Duration;

use crate::support::expect::{check_rules, fits, told};
use crate::support::sipp::{Message, Run, Transport};
use crate::support::site::{CALLEE, CALLER, Options, Site};

/// A carrier, a call from it, and the call to it.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The trunk's tables.
    rules: &'static str,
    /// What A dials, and its `To`.
    dials: [&'static str; 2],
    from: &'static str,
    headers: &'static str,
    /// The caller as every event has it.
    source: &'static str,
    /// The start of B's request line.
    uri: &'static str,
    /// What is in B's `To`, `From` and `P-Asserted-Identity`; empty: there is no such header.
    to: &'static str,
    shows: &'static str,
    asserts: &'static str,
}

/// A carrier that needs no rules.
const PLAIN: Row = Row {
    rules: "",
    dials: ["sip:+6531580001@127.0.0.1", "sip:+6531580001@127.0.0.1"],
    from: "<sip:+6591110001@127.0.0.2>",
    headers: "Allow: INVITE",
    source: CALLER,
    uri: "INVITE sip:+6598887777@127.0.0.3:",
    to: "<sip:+6598887777@127.0.0.3:",
    shows: "<sip:+6531580001@127.0.0.1:",
    asserts: "",
};

/// The README's carrier: national numbers, and callers in `P-Asserted-Identity`.
const NATIONAL: Row = Row {
    rules: r#"
[trunk.identity]
country_code = "65"
number_format = "national"
caller_id = "from+pai"
user_phone = true
"#,
    dials: [
        "sip:31580001@127.0.0.1;user=phone",
        "sip:31580001@127.0.0.1;user=phone",
    ],
    from: "\"Switchboard\" <sip:62220000@127.0.0.2;user=phone>",
    headers: "P-Asserted-Identity: <sip:91110001@127.0.0.2;user=phone>",
    uri: "INVITE sip:98887777@127.0.0.3:",
    to: "<sip:98887777@127.0.0.3:",
    shows: "<sip:31580001@127.0.0.1:",
    asserts: "<sip:31580001@127.0.0.1:",
    ..PLAIN
};

macro_rules! row {
    ($name:ident : $row:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "not every row needs everything")]
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_udp() {
                run(stringify!($name), $row, Transport::Udp).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tcp() {
                run(stringify!($name), $row, Transport::Tcp).await;
            }
        }
    };
}

row!(a_carrier_that_sends_national_numbers_with_pai: NATIONAL);

row!(a_withheld_number_is_not_told_although_pai_has_it: Row {
    from: "\"Anonymous\" <sip:anonymous@anonymous.invalid>",
    headers: "P-Asserted-Identity: <sip:91110001@127.0.0.2>\n    Privacy: id",
    source: "anonymous",
    ..NATIONAL
});

row!(a_withheld_number_is_told_where_the_operator_says_so: Row {
    rules: "[trunk.identity]\nreveal_withheld = true\n",
    from: "\"Anonymous\" <sip:anonymous@anonymous.invalid>",
    headers: "P-Asserted-Identity: <tel:+65-9111-0001>\n    Privacy: id",
    ..PLAIN
});

row!(a_caller_that_is_no_number_is_anonymous: Row {
    from: "\"Alice\" <sip:alice@127.0.0.2>",
    source: "anonymous",
    ..PLAIN
});

row!(a_carrier_that_speaks_in_tel_uris: Row {
    rules: "[trunk.identity]\ncountry_code = \"65\"\nuri = \"tel\"\ncaller_id = \"from+pai\"\n",
    dials: ["tel:3158-0001;phone-context=+65", "tel:+65-3158-0001"],
    from: "<tel:+65-9111-0001>",
    uri: "INVITE tel:+6598887777 SIP/2.0",
    to: "<tel:+6598887777>",
    asserts: "<tel:+6531580001>",
    ..PLAIN
});

row!(an_account_in_from_behind_an_exchange_with_prefixes: Row {
    rules: r#"
[trunk.identity]
caller_from = ["remote-party-id", "from"]
called_from = ["diversion", "request-uri"]
country_code = "65"
strip = ["9"]
number_format = "international"
add_prefix = "8"
caller_id = "pai"
from_user = "account-7"
from_domain = "carrier.example"
privacy = "none"
"#,
    dials: ["sip:pilot@127.0.0.1", "sip:pilot@127.0.0.1"],
    from: "<sip:62220000@127.0.0.2>",
    headers: "Remote-Party-ID: <sip:991110001@127.0.0.2>;party=calling;privacy=off\n    \
              Diversion: <sip:931580001@127.0.0.2>;reason=unconditional",
    uri: "INVITE sip:8006598887777@127.0.0.3:",
    to: "<sip:8006598887777@127.0.0.3:",
    shows: "<sip:account-7@carrier.example>",
    asserts: "<sip:006531580001@carrier.example>",
    ..PLAIN
});

async fn run(name: &str, row: Row, transport: Transport) {
    let mut options = Options::new(transport);
    options.trunk_tables = row.rules;
    let mut site = Site::open(&format!("identity-{name}-{}", transport.name()), options).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let [uri, to] = row.dials;
    let fill = [("URI", uri), ("TO", to), ("IDENTITY", row.headers)];
    let run = Run {
        pause: Duration::from_millis(300),
        fill: &fill,
        ..site.caller_run("caller_is_named_by_headers", row.from)
    };
    let caller = site.phone(run).await.finish().await;
    let callee = callee.finish().await;
    site.receiver.summary().await;
    let switch = site.switch.take().unwrap();
    let log = switch.log();
    assert!(switch.drain().await.success(), "{log}");
    let received = site.receiver.received();

    assert_eq!(
        (caller.complaint.as_str(), callee.complaint.as_str()),
        ("", ""),
        "{log}"
    );
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
    assert!(fits(&story, &expected), "{story:#?}\n{log}");
    check_rules(&received, CALLEE);
    for event in &received {
        if event.payload("callDirection") == "INBOUND" {
            assert_eq!(event.payload("source"), row.source, "{event:?}");
        }
        let text = String::from_utf8_lossy(&event.raw);
        assert!(
            row.source == CALLER || !text.contains(&CALLER[3..]),
            "a withheld number in {text}"
        );
    }
    check_callee(callee.request("INVITE").expect("B got an INVITE"), &row);
    for message in callee.messages.iter().filter(|it| it.received) {
        for secret in [
            &CALLER[3..],
            "62220000",
            "127.0.0.2",
            "Switchboard",
            "Alice",
        ] {
            assert!(
                !message.text.contains(secret),
                "{secret} in {}",
                message.text
            );
        }
    }
}

fn check_callee(invite: &Message, row: &Row) {
    let text = &invite.text;
    assert!(invite.first_line().starts_with(row.uri), "{text}");
    assert!(invite.header("To").unwrap().starts_with(row.to), "{text}");
    assert!(
        invite.header("From").unwrap().starts_with(row.shows),
        "{text}"
    );
    match (invite.header("P-Asserted-Identity"), row.asserts) {
        (Some(asserted), expected) if !expected.is_empty() => {
            assert!(asserted.starts_with(expected), "{text}");
        }
        (asserted, expected) => assert!(asserted.is_none() && expected.is_empty(), "{text}"),
    }
    let says_none = invite.header("Privacy") == Some("none");
    assert_eq!(says_none, row.rules.contains("privacy"), "{text}");
}
