//! What a start says of the run before it: sessions that it can't read, calls that it ends.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::client::request;
use crate::support::expect::summed_up;
use crate::support::sipp::Transport;
use crate::support::site::{FROM, Options, Site};
use crate::support::switch::ADMIN_KEY;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_cannot_be_read_is_named_in_the_log_and_counted() {
    let mut site = Site::open("restarts-unreadable", Options::new(Transport::Udp)).await;
    assert!(site.switch.take().unwrap().drain().await.success());
    let store = rusqlite::Connection::open(site.folder.join("maskline.db")).unwrap();
    let id = |last: usize| format!("01920000-0000-7000-8000-00000000000{last}");
    let snapshots = ["", "{\"version\":1,", "\"+6591234567\"", "{\"version\":2}"];
    for (at, snapshot) in snapshots.iter().enumerate() {
        store
            .execute(
                "INSERT INTO sessions (session_id, sub_account_id, snapshot, updated) VALUES (?1, 'acme', ?2, 0)",
                (id(at), snapshot.as_bytes()),
            )
            .unwrap();
    }
    drop(store);
    site.restart().await;
    let log = site.switch.as_ref().unwrap().log();
    for at in 0..snapshots.len() {
        let said = log.lines().filter(|line| line.contains(&id(at)));
        let said: Vec<&str> = said.collect();
        assert_eq!(said.len(), 1, "{log}");
        assert!(
            said[0].contains("ERROR") && said[0].contains("acme"),
            "{log}"
        );
    }
    assert!(!log.contains("91234567"), "{log}");
    let metrics = request(site.ports.http(), "GET", "/metrics", ADMIN_KEY, None).await;
    let metrics = metrics.unwrap().body;
    assert!(
        metrics.contains("maskline_sessions_unreadable 4"),
        "{metrics}"
    );
    assert!(site.switch.take().unwrap().drain().await.success());
}

/// A call is connected, the switch killed, its heartbeat file spoiled: the start ends the call, and
/// says why.
async fn ended(name: &str, spoil: fn(&Path), says: &[&str]) {
    let mut site = Site::open(&format!("restarts-{name}"), Options::new(Transport::Udp)).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_waits_through_a_crash", FROM);
    run.fill = &[("FINAL", "500")];
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    site.switch.take().unwrap().kill();
    let file = site.folder.join("maskline.db.alive");
    fs::remove_file(&file).unwrap();
    spoil(&file);
    site.restart().await;
    assert_eq!(caller.finish().await.complaint, "", "A gets a BYE");
    assert_eq!(callee.finish().await.complaint, "", "B gets a BYE");
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "ERROR A=COMPLETED B=COMPLETED -2001");
    let log = site.switch.as_ref().unwrap().log();
    for said in says {
        let lines = log.lines().filter(|line| line.contains(said));
        assert_eq!(lines.count(), 1, "{said}:\n{log}");
    }
    let why = log
        .lines()
        .find(|line| line.contains("calls of the previous run are ended"));
    let why = why.expect("it says why");
    assert!(why.contains("WARN") && why.contains("calls=1"), "{why}");
    assert!(site.switch.take().unwrap().drain().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_end_because_the_heartbeat_is_missing_are_told_with_that_reason() {
    ended("missing", |_| (), &["the heartbeat file is missing"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_end_because_the_heartbeat_is_empty_are_told_with_that_reason() {
    let empty = |file: &Path| fs::write(file, "").unwrap();
    ended(
        "empty",
        empty,
        &["the heartbeat file is empty, cut off or garbled"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_end_because_the_heartbeat_lies_in_the_future_are_told_with_that_reason() {
    let ahead = |file: &Path| fs::write(file, "00000009999999999999 0000000000\n").unwrap();
    ended("future", ahead, &["the last heartbeat lies in the future"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_end_because_of_a_row_of_starts_are_told_with_that_reason() {
    let third = |file: &Path| fs::write(file, "00000001700000000000 0000000003\n").unwrap();
    ended(
        "row",
        third,
        &["3 starts in a row did not live for a minute"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_file_that_is_a_pipe_is_named_and_the_start_goes_on_without() {
    let pipe = |file: &Path| assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
    let says = ["maskline.db.alive", "the heartbeat file can't be used: "];
    ended("pipe", pipe, &says).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_file_that_cannot_be_one_keeps_no_switch_from_its_start() {
    let mut site = Site::open("restarts-heartbeat", Options::new(Transport::Udp)).await;
    let file = site.folder.join("maskline.db.alive");
    let spoils: [fn(&Path); 2] = [
        |file| fs::create_dir(file).unwrap(),
        |file| std::os::unix::fs::symlink("nothing/there", file).unwrap(),
    ];
    for (at, spoil) in spoils.into_iter().enumerate() {
        assert!(site.switch.take().unwrap().drain().await.success());
        fs::remove_file(&file)
            .or_else(|_| fs::remove_dir(&file))
            .unwrap();
        spoil(&file);
        site.restart().await;
        let log = site.switch.as_ref().unwrap().log();
        let errors = log.lines().filter(|line| line.contains("ERROR"));
        let named = errors
            .filter(|line| line.contains("maskline.db.alive"))
            .count();
        assert_eq!(named, at + 1, "{log}");
    }
}
