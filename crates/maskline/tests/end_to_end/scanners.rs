//! The tools that scan the internet for telephone systems, against the switch: SIPVicious finds
//! nothing from an address of no trunk, and numbers can't be told apart by it from one of a trunk's.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::client::request;
use crate::support::eventually;
use crate::support::expect::{check_rules, fits, told};
use crate::support::sipp::{Run, Transport};
use crate::support::site::{CALLEE, CALLER_ADDRESS, FROM, Options, Site};
use crate::support::switch::ADMIN_KEY;

/// An address of no trunk.
const SCANNER_ADDRESS: &str = "127.0.0.66";
/// What each tool says when nothing answered that is of use to it.
const NOTHING: &str = "found nothing";

/// A scanner that runs.
struct Scanner(Child);

impl Drop for Scanner {
    /// A failing test leaves no process behind.
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            let _killed = self.0.kill();
            let _reaped = self.0.wait();
        }
    }
}

/// Runs a tool to its end; what it said.
async fn scan(site: &Site, tool: &str, arguments: &[&str]) -> String {
    // It keeps its sessions at home.
    let home = site.folder.join(format!("home-of-{tool}"));
    fs::create_dir_all(&home).unwrap();
    let said = home.join("said");
    let output = File::create(&said).unwrap();
    let process = Command::new(tool)
        .args(["-p", &site.ports.sip().to_string()])
        .args(arguments)
        .arg("127.0.0.1")
        .env("HOME", &home)
        .current_dir(&home)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap_or_else(|error| panic!("{tool}: {error}; scripts/setup installs it"));
    let mut scanner = Scanner(process);
    eventually(tool, Duration::from_secs(60), || {
        scanner.0.try_wait().unwrap()
    })
    .await;
    String::from_utf8_lossy(&fs::read(&said).unwrap()).into_owned()
}

/// The sum of a counter's lines with this label.
async fn counted(site: &Site, counter: &str, label: &str) -> u64 {
    let metrics = request(site.ports.http(), "GET", "/metrics", ADMIN_KEY, None)
        .await
        .unwrap();
    metrics
        .body
        .lines()
        .filter(|line| line.starts_with(counter) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scanners_from_an_address_of_no_trunk_find_nothing_and_a_live_call_goes_on() {
    let mut site = Site::open("scanners-stranger", Options::new(Transport::Udp)).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let run = Run {
        pause: Duration::from_secs(8),
        ..site.caller_run("caller_hangs_up", FROM)
    };
    let caller = site.phone(run).await;
    caller.acknowledges().await;

    // The last two bind where they like: to 127.0.0.1, which is of no trunk either.
    let (map, extensions, passwords) = tokio::join!(
        scan(&site, "svmap", &["-b", SCANNER_ADDRESS]),
        scan(
            &site,
            "svwar",
            &["-m", "INVITE", "-e", "100-110", "--force"]
        ),
        scan(&site, "svcrack", &["-u", "100", "-r", "100-110"]),
    );
    for (tool, said) in [
        ("svmap", map),
        ("svwar", extensions),
        ("svcrack", passwords),
    ] {
        assert!(said.contains(NOTHING), "{tool}: {said}");
    }
    let dropped = counted(&site, "maskline_sip_discarded_total", "\"stranger\"").await;
    assert!(dropped >= 3, "{dropped} were dropped");

    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
    let received = site.receiver.received();
    let expected = [
        "A received",
        "B initiated",
        "?B ringing",
        "B connected",
        "A connected",
        "A disconnected 200",
        "B disconnected 200",
    ];
    assert!(fits(&told(&received), &expected), "{received:?}");
    check_rules(&received, CALLEE);
}

/// A carrier must be answered, so its address learns that there is a switch, and of a number whether
/// it is assigned; extensions, accounts and names it learns none of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scanners_from_a_trunks_address_learn_that_there_is_a_switch_and_of_no_extension() {
    let mut options = Options::new(Transport::Udp);
    options.trunk_tables =
        "[[trunk]]\nname = \"scanner\"\naddress = \"127.0.0.1:9\"\nallow = [\"127.0.0.1\"]\n";
    let mut site = Site::open("scanners-trunk", options).await;
    let (map, extensions) = tokio::join!(
        scan(&site, "svmap", &["-b", CALLER_ADDRESS]),
        scan(
            &site,
            "svwar",
            &["-m", "INVITE", "-e", "100-110", "--force"]
        ),
    );
    assert!(!map.contains(NOTHING), "{map}");
    assert!(!map.to_lowercase().contains("maskline"), "{map}");
    assert!(extensions.contains(NOTHING), "{extensions}");
    let refused = counted(
        &site,
        "maskline_switch_events_total",
        "\"unassigned_number\"",
    )
    .await;
    assert!(refused >= 11, "{refused} extensions were refused");
    assert!(site.receiver.received().is_empty(), "none of it is a call");
    assert!(site.switch.take().unwrap().drain().await.success());
}
