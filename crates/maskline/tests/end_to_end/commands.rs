//! The command line as people and scripts use it: the reference file, faults that say where they
//! are, the demo.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn maskline(folder: &str, arguments: &[&str], configuration: &str) -> Output {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("maskline.toml"), configuration).unwrap();
    Command::new(env!("CARGO_BIN_EXE_maskline"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A configuration with which `serve` must not start, and what it has to say about it.
fn assert_refused(folder: &str, configuration: &str, says: &[&str]) {
    let output = maskline(
        folder,
        &["serve", "--config", "maskline.toml"],
        configuration,
    );
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{configuration} was accepted");
    for word in says {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
}

#[test]
fn the_reference_file_is_itself_a_configuration() {
    let output = maskline("reference", &["check-config", "--reference"], "");
    assert!(output.status.success());
    let reference = String::from_utf8(output.stdout).unwrap();
    let check = ["check-config", "--config", "maskline.toml"];
    let output = maskline("reference", &check, &reference);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_fault_names_file_key_and_reason() {
    assert_refused(
        "fault-key",
        "[sip]\nlissten = []\n",
        &["maskline.toml", "sip", "lissten"],
    );
    assert_refused(
        "fault-value",
        "[http]\nlisten = \"here\"\n",
        &["maskline.toml", "listen", "here"],
    );
    let ports = "[media]\nports = \"30000-20000\"\n";
    assert_refused("fault-range", ports, &["maskline.toml", "ports"]);
    assert_refused("fault-syntax", "[http\n", &["maskline.toml"]);
}

#[test]
fn a_source_address_is_one_that_receivers_are_told_and_that_this_machine_has() {
    let quiet = "[http]\nlisten = \"127.0.0.1:0\"\n[sip]\nlisten = [\"udp:127.0.0.1:0\"]\n";
    for (folder, egress, says) in [
        (
            "source-not-told",
            "addresses = [\"203.0.113.0/28\"]\nsource_addresses = [\"203.0.113.77\"]",
            "203.0.113.77 is not among [egress] addresses",
        ),
        (
            "source-not-here",
            "addresses = [\"203.0.113.0/28\"]\nsource_addresses = [\"203.0.113.7\"]",
            "203.0.113.7 is no address of this machine",
        ),
        (
            "source-twice",
            "addresses = [\"127.0.0.0/8\"]\nsource_addresses = [\"127.0.0.1\", \"127.0.0.2\"]",
            "names two addresses of one family",
        ),
        (
            "source-no-address",
            "addresses = [\"127.0.0.0/8\"]\nsource_addresses = [\"127.0.0.0/8\"]",
            "is not an IP address",
        ),
    ] {
        let configuration = format!("{quiet}[egress]\n{egress}\n");
        assert_refused(
            folder,
            &configuration,
            &["maskline.toml", "[egress] source_addresses", says],
        );
    }
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let configuration =
        format!("[http]\nlisten = \"{address}\"\n[sip]\nlisten = [\"udp:127.0.0.1:0\"]\n");
    assert_refused(
        "fault-port",
        &configuration,
        &["maskline.toml", "listen", &address],
    );
}

/// `--json` prints the webhooks of one whole call, a line each, and nothing else.
#[test]
fn the_demo_shows_a_whole_call_as_ndjson() {
    let output = maskline("demo", &["demo", "--json"], "");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let webhooks: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        webhooks.iter().all(|it| it["namespace"] == "VOICE"),
        "{lines}"
    );
    let status = |it: &&Value| it["eventType"] == "CALL_STATUS";
    let sequence: Vec<u64> = webhooks
        .iter()
        .filter(status)
        .map(|it| it["payload"]["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(
        sequence,
        (1..=sequence.len() as u64).collect::<Vec<_>>(),
        "{lines}"
    );
    let last = webhooks.last().unwrap();
    assert_eq!(last["eventType"], "SESSION_SUMMARY", "{lines}");
    assert_eq!(last["payload"]["sessionStatus"], "COMPLETED", "{lines}");
    for leg in ["callA", "callB"] {
        let quality = &last["payload"]["details"][leg]["callQuality"];
        assert!(
            quality["mos"].as_f64().is_some_and(|mos| mos > 3.0),
            "{leg}: {quality}"
        );
    }
}

#[test]
fn the_measurement_of_calls_loses_none_and_hears_of_each_in_order() {
    let arguments = "bench call --rate 10 --seconds 2 --hold-ms 200 --memory-at 0 --alone";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let output = maskline("bench-call", &arguments, "");
    let table = String::from_utf8_lossy(&output.stdout);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{table}{message}");
    let row: Vec<_> = table
        .lines()
        .find_map(|line| line.strip_prefix("maskline   "))
        .map(|row| row.split_whitespace().take(3).collect())
        .unwrap_or_default();
    assert_eq!(row.get(1..), Some(&["20", "0"][..]), "{table}");
    let told = "20 questions, 140 events, 20 summaries, 0 out of order";
    assert!(table.contains(told), "{told:?} is missing in: {table}");
}

#[test]
fn the_measurement_of_webhooks_loses_none_and_finds_each_in_order_with_tls_and_without() {
    let arguments = "bench webhooks --calls 40 --per-post 20,1 --endpoints 2 --seconds 1";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let output = maskline("bench-webhooks", &arguments, "");
    let table = String::from_utf8_lossy(&output.stdout);
    let message = String::from_utf8_lossy(&output.stderr);
    // What is lost, out of order or not signed makes it fail.
    assert!(output.status.success(), "{table}{message}");
    for row in ["maskline   ", "maskline, TLS   "] {
        let rows = table.lines().filter(|line| line.starts_with(row)).count();
        assert_eq!(rows, 3, "{row:?} in: {table}");
    }
    assert!(!table.contains("\n0 signatures"), "{table}");
}
