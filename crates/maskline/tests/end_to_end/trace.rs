//! How a call went, as `maskline trace` and the API tell it afterwards: no number and no name unless
//! everything is asked for, whoever ended it, and also what a killed node had seen.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::receiver::{Received, Vca};
use crate::support::sipp::{Ended, Run, Transport};
use crate::support::site::{CALLEE, CALLER, FROM, Options, Site, VIRTUAL};
use crate::support::switch::ADMIN_KEY;

/// `maskline trace` in the site's folder.
fn ask(site: &Site, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_maskline"))
        .arg("trace")
        .args(arguments)
        .current_dir(&site.folder)
        .env("MASKLINE_ADMIN_KEY", ADMIN_KEY)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn url(site: &Site) -> String {
    format!("http://127.0.0.1:{}", site.ports.http())
}

/// Both phones of a call, to their ends.
async fn play(site: &Site, caller: Run<'_>, callee: Option<Run<'_>>) -> Vec<Ended> {
    let callee = match callee {
        Some(run) => Some(site.phone(run).await),
        None => None,
    };
    let caller = site.phone(caller).await;
    let mut ended = vec![caller.finish().await];
    if let Some(callee) = callee {
        ended.push(callee.finish().await);
    }
    for phone in &ended {
        assert_eq!(phone.complaint, "");
    }
    ended
}

/// The session's id, once its trace is written to its end.
async fn traced(site: &Site) -> String {
    let summary = site.receiver.summary().await;
    let session = summary.payload("sessionId").as_str().unwrap().to_owned();
    for _ in 0..500 {
        let path = format!("sessions/{session}/trace");
        let answer = site.call_api("GET", &path, ADMIN_KEY, None).await;
        if answer.status == 200 && answer.json()["sessionStatus"].is_string() {
            return session;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the trace of {session} does not end");
}

fn assert_redacted(told: &str) {
    for number in [CALLER, CALLEE, VIRTUAL] {
        let national = &number[3..];
        assert!(!told.contains(national), "{national} in\n{told}");
    }
    assert!(!told.contains("Alice"), "{told}");
    assert!(told.contains("••••"), "{told}");
    for line in told.lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }
}

/// What tshark reads in a capture: method or status of each packet. `None`: there is no tshark.
fn packets(file: &Path, port: u16) -> Option<Vec<String>> {
    let decode = [
        format!("udp.port=={port},sip"),
        format!("tcp.port=={port},sip"),
    ];
    let output = Command::new("tshark")
        .args(["-d", &decode[0], "-d", &decode[1], "-r"])
        .arg(file)
        .args(["-T", "fields", "-e", "sip.Method", "-e", "sip.Status-Code"])
        .args(["-e", "_ws.expert.message"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().map(|line| line.trim().to_owned()).collect())
}

async fn a_completed_call_is_told(name: &str, transport: Transport) {
    let site = Site::open(name, Options::new(transport)).await;
    let caller = site.caller_run("caller_hangs_up", FROM);
    play(&site, caller, Some(site.callee_run("callee_answers"))).await;
    let session = traced(&site).await;

    let told = text(&ask(&site, &[&session, "--url", &url(&site)]));
    assert_redacted(&told);
    for words in [
        " completed  sub-account marketplace  ",
        "A +65••••0001 → +65••••0001 → B +65••••7777",
        " INVITE ",
        "100 Trying",
        "the VCA endpoint is asked",
        "the VCA endpoint says makeCall",
        "200 OK",
        "VCA ",
        "commit of the answer ",
        "B's answer ",
        "end: A hung up (BYE)",
    ] {
        assert!(told.contains(words), "{words:?} is missing in\n{told}");
    }
    // The same from the file, beside the running node.
    let file = text(&ask(&site, &[&session, "--store", "sqlite:maskline.db"]));
    assert_eq!(file, told);

    let full = text(&ask(&site, &[&session, "--full", "--url", &url(&site)]));
    assert!(full.contains(CALLER) && full.contains("Alice"), "{full}");
    let log = site.switch.as_ref().unwrap().log();
    assert!(log.contains("maskline::audit"), "{log}");

    let json = text(&ask(&site, &[&session, "--json", "--url", &url(&site)]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["sessionStatus"], "COMPLETED");
    assert_eq!(json["legs"][0]["sipCode"], 200);
    let messages: Vec<_> = json["ladder"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|rung| rung["message"]["label"].as_str())
        .collect();
    for method in ["INVITE", "ACK", "BYE"] {
        assert_eq!(
            messages.iter().filter(|it| **it == method).count(),
            2,
            "{messages:?}"
        );
    }

    let list = text(&ask(&site, &["--number", CALLEE, "--url", &url(&site)]));
    assert!(list.contains(&session), "{list}");
    assert_redacted(&list);
    let list = text(&ask(
        &site,
        &["--number", "+6580000000", "--url", &url(&site)],
    ));
    assert!(!list.contains(&session), "{list}");
    let list = text(&ask(
        &site,
        &["--last", "5", "--store", "sqlite:maskline.db"],
    ));
    assert!(list.contains(&session), "{list}");

    text(&ask(
        &site,
        &[&session, "--pcap", "call.pcap", "--url", &url(&site)],
    ));
    let capture = site.folder.join("call.pcap");
    let bytes = fs::read(&capture).unwrap();
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    if let Some(packets) = packets(&capture, site.ports.sip()) {
        assert_eq!(packets.len(), messages.len(), "{packets:#?}\n{messages:#?}");
        for method in ["INVITE", "ACK", "BYE"] {
            let of_method = packets.iter().filter(|it| it.starts_with(method));
            assert_eq!(of_method.count(), 2, "{packets:#?}");
        }
        let broken = packets.iter().find(|it| {
            let it = it.to_lowercase();
            it.contains("malformed") || it.contains("checksum") || it.contains("retransmission")
        });
        assert_eq!(broken, None);
    }

    // A sub-account's key has no right to any of it.
    let refused = Command::new(env!("CARGO_BIN_EXE_maskline"))
        .args(["trace", &session, "--url", &url(&site)])
        .env("MASKLINE_ADMIN_KEY", "some-other-key")
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("401"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_call_is_told_over_datagrams() {
    a_completed_call_is_told("trace-udp", Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_call_is_told_over_connections() {
    a_completed_call_is_told("trace-tcp", Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_callee_is_the_reason_of_the_end_and_what_it_wrote_is_only_shown_in_full() {
    let site = Site::open("trace-busy", Options::new(Transport::Udp)).await;
    let fill = [
        ("STATUS", "486 91110002 Bob.Lim@home.example"),
        ("HEADER", "Reason: Q.850;cause=17"),
        ("FINAL", "486"),
    ];
    let caller = Run {
        fill: &fill,
        ..site.caller_run("caller_refused", FROM)
    };
    let callee = Run {
        fill: &fill,
        ..site.callee_run("callee_refuses")
    };
    play(&site, caller, Some(callee)).await;
    let session = traced(&site).await;
    let told = text(&ask(&site, &[&session, "--url", &url(&site)]));
    assert_redacted(&told);
    assert!(
        told.contains("end: B refused: 486 Busy Here, Q.850 17 (user busy)"),
        "{told}"
    );
    assert!(told.contains("A heard 486 Busy Here"), "{told}");
    assert!(!told.contains("Bob") && !told.contains("0002 "), "{told}");
    let told = text(&ask(&site, &[&session, "--full", "--url", &url(&site)]));
    assert!(told.contains("486 91110002 Bob.Lim@home.example"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vca_endpoint_that_fails_is_the_reason_of_the_end() {
    let options = Options {
        vca: Vca::Status(500),
        ..Options::new(Transport::Udp)
    };
    let site = Site::open("trace-vca", options).await;
    let fill = [("FINAL", "500")];
    let caller = Run {
        fill: &fill,
        ..site.caller_run("caller_refused", FROM)
    };
    play(&site, caller, None).await;
    let session = traced(&site).await;
    let told = text(&ask(&site, &[&session, "--url", &url(&site)]));
    assert_redacted(&told);
    assert!(told.contains("the VCA endpoint failed: "), "{told}");
    assert!(
        told.contains("end: Maskline ended it: error -2002, "),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_file_that_is_broken_hurts_no_call() {
    let mut site = Site::open("trace-broken", Options::new(Transport::Udp)).await;
    assert!(site.switch.take().unwrap().drain().await.success());
    fs::write(site.folder.join("maskline-trace.db"), vec![7; 20_000]).unwrap();
    site.restart().await;
    let caller = site.caller_run("caller_hangs_up", FROM);
    play(&site, caller, Some(site.callee_run("callee_answers"))).await;
    let summary = site.receiver.summary().await;
    assert_eq!(summary.payload("sessionStatus"), "COMPLETED");
    let log = site.switch.as_ref().unwrap().log();
    assert!(log.contains("calls are not traced"), "{log}");
    let answer = site.call_api("GET", "sessions", ADMIN_KEY, None).await;
    assert_eq!(answer.status, 404, "{answer:?}");
}

/// Waits until a call is connected and its trace written down; its session.
async fn written(site: &Site) -> String {
    let connected = |it: &Received| {
        it.payload("callStatus") == "CALL_CONNECTED" && it.payload("callDirection") == "INBOUND"
    };
    let event = site.receiver.wait_for("A is connected", connected).await;
    let session = event.payload("sessionId").as_str().unwrap().to_owned();
    // Until the writer has had its turn.
    let path = format!("sessions/{session}/trace");
    let mut written = String::new();
    for _ in 0..500 {
        let answer = site.call_api("GET", &path, ADMIN_KEY, None).await;
        written = answer.body;
        if written.contains("\"label\":\"ACK\"") {
            return session;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no ACK is told: {written}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_had_seen_is_told_and_how_its_restart_ended_the_call() {
    let mut options = Options::new(Transport::Udp);
    options.adopt_within = Duration::ZERO;
    let mut site = Site::open("trace-crash", options).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let fill = [("FINAL", "500")];
    let run = Run {
        fill: &fill,
        ..site.caller_run("caller_waits_through_a_crash", FROM)
    };
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let session = written(&site).await;
    site.switch.take().unwrap().kill();

    let told = text(&ask(&site, &[&session, "--store", "sqlite:maskline.db"]));
    assert!(told.contains(" open "), "{told}");
    assert!(told.contains("end: no end is recorded"), "{told}");
    assert_redacted(&told);

    site.restart().await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    assert_eq!(traced(&site).await, session);
    let told = text(&ask(&site, &[&session, "--url", &url(&site)]));
    assert!(told.contains("taken up after a restart"), "{told}");
    assert!(told.contains("the platform restarted"), "{told}");
    assert!(
        told.contains(" INVITE ") && told.contains(" BYE "),
        "{told}"
    );
    assert_redacted(&told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_of_a_call_that_goes_on_after_a_restart_goes_on() {
    let mut site = Site::open("trace-goes-on", Options::new(Transport::Udp)).await;
    let mut run = site.callee_run("callee_goes_on_and_hangs_up");
    run.pause = Duration::from_secs(1);
    let callee = site.phone(run).await;
    let caller = site.phone(site.caller_run("caller_goes_on", FROM)).await;
    caller.acknowledges().await;
    let session = written(&site).await;
    site.switch.take().unwrap().kill();
    site.restart().await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    assert_eq!(traced(&site).await, session);
    let told = text(&ask(&site, &[&session, "--url", &url(&site)]));
    let steps = [
        " INVITE ",
        " ACK ",
        "taken up after a restart",
        " OPTIONS ",
        " BYE ",
        "end: B hung up (BYE)",
    ];
    let mut rest = told.as_str();
    for step in steps {
        let (_, behind) = rest
            .split_once(step)
            .unwrap_or_else(|| panic!("{step}: {told}"));
        rest = behind;
    }
    assert_redacted(&told);
}
