//! TLS with a real neighbour: Kamailio stands between the phones and the switch, and each verifies
//! the other. And what an operator does with certificates while the switch runs.
//!
//! Any row of a table runs over TLS without Kamailio, too: give it `Transport::Tls` (`row!(… on udp,
//! tcp, tls: …)` in [`crate::calls`]). SIPp then talks TCP to a tunnel of the test, which talks TLS
//! to the switch, and the other way round.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::kamailio::Kamailio;
use crate::support::ports::Ports;
use crate::support::proxy::{self, ADDRESS};
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, FROM, Options, Site};

const COMPLETED: [&str; 7] = [
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
    "A disconnected 200",
    "B disconnected 200",
];

/// The trunk is Kamailio: calls go to it by TLS, and what it sends is known by its certificate.
pub fn behind_kamailio(ports: &Ports, folder: &Path, configuration: String) -> String {
    let authority = Authority::new(folder, "ca");
    authority.sign(folder, "switch", "switch.example");
    authority.sign(folder, "proxy", "proxy.example");
    let (tls, neighbour) = (ports.tls(), ports.neighbour_tls());
    let callee = format!("address = \"127.0.0.3:{}\"", ports.callee_sip());
    let proxy = format!("address = \"{ADDRESS}:{neighbour}\"");
    assert!(configuration.contains(&callee), "{configuration}");
    configuration
        .replace(
            "listen = [\"udp:",
            &format!("listen = [\"tls:127.0.0.1:{tls}\", \"udp:"),
        )
        .replace(
            "\n[media]\n",
            "\n[sip.tls]\ncertificate = \"switch.pem\"\nkey = \"switch.key\"\nclient_ca = \"ca.pem\"\n\n[media]\n",
        )
        .replace(&callee, &proxy)
        .replace("transport = \"udp\"", "transport = \"tls\"")
        + "\n[trunk.tls]\nserver_name = \"proxy.example\"\nca = \"ca.pem\"\n\
           certificate = \"switch.pem\"\nkey = \"switch.key\"\nclient_names = [\"proxy.example\"]\n"
}

async fn open_alone(name: &str) -> Site {
    let mut options = Options::new(Transport::Udp);
    options.edit = behind_kamailio;
    Site::open(name, options).await
}

async fn open(name: &str) -> (Site, Kamailio) {
    let site = open_alone(name).await;
    let switch = format!("127.0.0.1:{}", site.ports.tls());
    let phone = site.callee_sip().to_string();
    let kamailio = proxy::start(&site.folder, &site.ports, &switch, &phone).await;
    (site, kamailio)
}

/// A calls `towards` or the switch itself; B is behind Kamailio.
async fn call(mut site: Site, kamailio: Kamailio, towards: Option<String>) {
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_hangs_up", FROM);
    run.towards = towards.or(run.towards);
    let caller = site.phone(run).await.finish().await;
    let callee = callee.finish().await;
    let log = format!(
        "{}\n{}",
        site.switch.as_ref().unwrap().log(),
        kamailio.log()
    );
    assert_eq!(caller.complaint, "", "{log}");
    assert_eq!(callee.complaint, "", "{log}");
    let invite = callee.request("INVITE").unwrap();
    assert!(
        invite.text.contains("Via: SIP/2.0/TLS 127.0.0.1:"),
        "{}",
        invite.text
    );
    assert!(invite.text.contains(";transport=tls>"), "{}", invite.text);
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "COMPLETED A=COMPLETED B=COMPLETED");
    assert!(site.switch.take().unwrap().drain().await.success());
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    let story = told(&received);
    assert!(fits(&story, &COMPLETED), "{story:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_comes_from_kamailio_over_tls_and_goes_back_to_it() {
    let (site, kamailio) = open("tls-both").await;
    let proxy = format!("{ADDRESS}:{}", site.ports.neighbour_udp());
    call(site, kamailio, Some(proxy)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_from_udp_goes_out_to_kamailio_over_tls() {
    let (site, kamailio) = open("tls-out").await;
    call(site, kamailio, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_puts_a_renewed_certificate_to_use_and_keeps_the_earlier_for_a_broken_one() {
    let site = open_alone("tls-renewed").await;
    let log = site.folder.join("switch.log");
    let switch = site.switch.as_ref().unwrap();
    let reload = || {
        let id = switch.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &id])
                .status()
                .unwrap()
                .success()
        );
    };
    let says = |what: &'static str| {
        let log = log.clone();
        eventually(what, Duration::from_secs(10), move || {
            fs::read_to_string(&log)
                .is_ok_and(|log| log.contains(what))
                .then_some(())
        })
    };
    let authority = Authority::new(&site.folder, "other-ca");
    fs::write(site.folder.join("switch.key"), "no key").unwrap();
    reload();
    says("the earlier ones stay in use").await;
    says("switch.key: holds no unencrypted private key in PEM").await;
    authority.sign(&site.folder, "switch", "switch.example");
    reload();
    says("TLS certificates were read again").await;
}
