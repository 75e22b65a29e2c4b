//! A trunk that registers with its carrier: SIPp is a registrar with wishes, Kamailio a carrier that
//! routes calls to where we registered and asks for our password when we call.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client;
use crate::support::eventually;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::kamailio::Kamailio;
use crate::support::sipp::{Message, Transport};
use crate::support::site::{CALLEE, FROM, Options, STRANGER_ADDRESS, Site};
use crate::support::switch::ADMIN_KEY;

const REGISTERS: &str = "[trunk.auth]\nusername = \"acme\"\npassword = \"ours\"\n\
    [trunk.registration]\nregistrar = \"sip:carrier.example\"\n\
    [trunk.identity]\ncalled_from = [\"request-uri\", \"to\"]";

/// What the API says of the trunk's registration.
async fn registration(site: &Site) -> Value {
    let answer = site.call_api("GET", "admin/trunks", ADMIN_KEY, None).await;
    answer.json()["trunks"][0]["registration"].clone()
}

/// The trunk's state once the API has it so.
async fn registration_when(site: &Site, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let state = registration(site).await;
        if is(&state) {
            return state;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "not {what}: {state}\n{}",
            site.switch.as_ref().unwrap().log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the trunk is registered, as the API has it.
async fn is_registered(site: &Site) {
    let state = registration_when(site, "registered", |it| it["registered"] == json!(true)).await;
    assert_eq!(state, json!({ "registered": true }));
}

/// A site whose switch starts anew once the carrier is there: a REGISTER that nobody hears is
/// followed by the next after half a minute.
async fn without_switch(name: &str, transport: Transport) -> Site {
    let options = Options {
        trunk_tables: REGISTERS,
        ..Options::new(transport)
    };
    let mut site = Site::open(name, options).await;
    site.switch.take().unwrap().kill();
    site
}

async fn registers_with_sipp(transport: Transport) {
    let name = format!("registers-{}", transport.name());
    let mut site = without_switch(&name, transport).await;
    let registrar = site.phone(site.callee_run("registrar")).await;
    site.restart().await;
    is_registered(&site).await;
    let metrics = client::request(site.ports.http(), "GET", "/metrics", "", None).await;
    let metrics = metrics.expect("metrics answer").body;
    assert!(
        metrics.contains("maskline_trunk_registered{trunk=\"carrier\"} 1"),
        "{metrics}"
    );
    assert!(site.switch.take().unwrap().drain().await.success());
    let registrar = registrar.finish().await;
    assert_eq!(registrar.complaint, "");

    let asked: Vec<&Message> = registrar.messages.iter().filter(|it| it.received).collect();
    // What a slow registrar hears twice is one request.
    let mut branches: Vec<_> = asked.iter().map(|it| it.header("Via").unwrap()).collect();
    branches.dedup();
    assert_eq!(branches.len(), 4, "{asked:#?}");
    let mut lines: Vec<_> = asked
        .iter()
        .map(|it| (it.header("CSeq").unwrap(), it.header("Expires").unwrap()))
        .collect();
    lines.dedup();
    assert_eq!(
        lines,
        [
            ("1 REGISTER", "600"),
            ("2 REGISTER", "600"),
            ("3 REGISTER", "1800"),
            ("4 REGISTER", "0"),
        ]
    );
    let first = asked[0];
    assert_eq!(first.first_line(), "REGISTER sip:carrier.example SIP/2.0");
    assert_eq!(first.header("Authorization"), None);
    for message in &asked {
        for kept in ["Call-ID", "From", "To", "Contact"] {
            assert_eq!(message.header(kept), first.header(kept));
        }
    }
    let contact = first.header("Contact").unwrap();
    let expected = format!("<sip:acme@127.0.0.1:{}", site.ports.sip());
    assert!(contact.starts_with(&expected), "{contact}");
    // Credentials are given again without being asked for, with a count that grows.
    for (message, count) in [(asked[1], 1), (asked[asked.len() - 1], 3)] {
        let given = message.header("Authorization").unwrap();
        assert!(given.contains(&format!("nc={count:08x}")), "{given}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trunk_registers_as_the_registrar_wishes_and_leaves_with_the_drain_over_udp() {
    registers_with_sipp(Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trunk_registers_as_the_registrar_wishes_and_leaves_with_the_drain_over_tcp() {
    registers_with_sipp(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trunk_that_is_not_registered_says_why() {
    let mut site = without_switch("registers-nobody", Transport::Tcp).await;
    site.restart().await;
    let log = || {
        let log = site.switch.as_ref().unwrap().log();
        log.contains("not registered").then_some(log)
    };
    let log = eventually("the log tells it", Duration::from_secs(10), log).await;
    assert!(log.contains("no registrar answered"), "{log}");
    // The log is a moment ahead of the API.
    let state = registration_when(&site, "failed", |it| it["failure"].is_string()).await;
    assert_eq!(state["registered"], json!(false));
    let failure = state["failure"].as_str().unwrap();
    assert!(
        failure.contains("[trunk.registration] targets"),
        "{failure}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kamailio_takes_our_registration_routes_a_call_to_it_and_asks_us_when_we_call() {
    let mut site = without_switch("registers-kamailio", Transport::Udp).await;
    let callee_sip: SocketAddr = format!("{STRANGER_ADDRESS}:{}", site.ports.callee_sip())
        .parse()
        .unwrap();
    let _kamailio = Kamailio::start(&site.folder, site.callee_sip(), callee_sip).await;
    site.restart().await;
    is_registered(&site).await;

    let mut run = site.callee_run("callee_answers");
    run.address = STRANGER_ADDRESS;
    let callee = site.phone(run).await;
    let mut run = site.caller_run("caller_hangs_up_by_route", FROM);
    run.towards = Some(site.callee_sip().to_string());
    let caller = site.phone(run).await.finish().await;
    assert_eq!(caller.complaint, "");
    let callee = callee.finish().await;
    assert_eq!(callee.complaint, "");
    // Kamailio takes the credentials of the INVITE out; those of later requests are not asked for.
    let invite = callee.request("INVITE").unwrap();
    assert_eq!(invite.header("CSeq"), Some("2 INVITE"));

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
    assert!(site.switch.take().unwrap().drain().await.success());
}
