//! A receiver that was away looks back, and has events sent once more.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use maskline_events::WebhookType;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::receiver::Received;
use crate::support::sipp::Transport;
use crate::support::site::{FROM, Options, SUB_ACCOUNT, Site};
use crate::support::switch::ADMIN_KEY;

/// `maskline replay` of this site's sub-account.
async fn order(site: &Site, key: &'static str, which: &[&str]) -> Output {
    let url = format!("http://127.0.0.1:{}", site.ports.http());
    let mut command = Command::new(env!("CARGO_BIN_EXE_maskline"));
    command
        .args(["replay", SUB_ACCOUNT, "--url", &url])
        .args(which);
    command.env("MASKLINE_ADMIN_KEY", key).stdin(Stdio::null());
    // The receiver goes on meanwhile.
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().unwrap()
}

const PATIENCE: Duration = Duration::from_secs(20);

/// What was told of calls, the questions left out.
fn told(site: &Site) -> Vec<Received> {
    let mut received = site.receiver.received();
    received.retain(|it| it.webhook != WebhookType::Vca);
    received
}

async fn api(site: &Site, method: &str, path: &str, body: Option<&Value>) -> Value {
    let path = format!("subaccounts/{SUB_ACCOUNT}/{path}");
    site.call_api(method, &path, ADMIN_KEY, body).await.json()
}

/// Every event, once each is known to be through.
async fn settled(site: &Site) -> Vec<Value> {
    let started = tokio::time::Instant::now();
    loop {
        let page = api(site, "GET", "events?limit=100", None).await;
        let events = page["events"].as_array().unwrap().clone();
        if events.iter().all(|it| it["state"] == "DELIVERED") {
            return events;
        }
        assert!(started.elapsed() < PATIENCE, "{events:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_call_s_events_are_read_later_and_come_once_more_as_they_were_and_in_order() {
    let mut site = Site::open("replay", Options::new(Transport::Udp)).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    let first = told(&site);
    let session = first[0].payload("sessionId").clone();

    // Looking back.
    let events = settled(&site).await;
    let bodies: Vec<_> = events
        .iter()
        .map(|it| it["body"].as_str().unwrap())
        .collect();
    let sent: Vec<_> = first
        .iter()
        .map(|it| str::from_utf8(&it.raw).unwrap())
        .collect();
    assert_eq!(bodies, sent, "byte for byte");
    let event = events[0]["eventId"].as_str().unwrap();
    let log = api(&site, "GET", &format!("events/{event}/attempts"), None).await;
    assert_eq!(log["attempts"].as_array().unwrap().len(), 1, "{log}");
    assert_eq!(log["attempts"][0]["status"], 200, "{log}");

    // Once more: by the running process, and by one that was killed after its answer.
    for round in 2..=3 {
        settled(&site).await;
        if round == 2 {
            let id = session.as_str().unwrap();
            let said = order(&site, ADMIN_KEY, &["--session", id]).await;
            let text = String::from_utf8_lossy(&said.stdout);
            let count = first.len();
            assert_eq!(
                text,
                format!("{count} events are on their way once more\n"),
                "{said:?}"
            );
        } else {
            let which = json!({ "sessionId": session });
            let answer = api(&site, "POST", "replays", Some(&which)).await;
            assert_eq!(answer["events"], first.len(), "{answer}");
            site.switch.take().unwrap().kill();
            site.restart().await;
        }
        let all = eventually("each event comes once more", PATIENCE, || {
            let all = told(&site);
            (all.len() >= first.len() * round).then_some(all)
        })
        .await;
        let ids = |of: &[Received]| -> Vec<_> {
            let ids = of.iter().map(|it| it.header("webhook-id").to_owned());
            ids.collect()
        };
        let mut again = ids(&all[first.len() * (round - 1)..]);
        let mut in_order = ids(&first);
        if round == 3 {
            // What the killed process had sent may have been sent again.
            again.sort();
            again.dedup();
            in_order.sort();
        }
        assert_eq!(again, in_order);
        assert!(
            all.iter()
                .all(|it| sent.contains(&str::from_utf8(&it.raw).unwrap()))
        );
    }
}

#[tokio::test]
async fn the_command_says_what_keeps_a_replay_from_being_ordered() {
    let site = Site::open("replay-refused", Options::new(Transport::Udp)).await;
    let span = [
        "--type",
        "VCS",
        "--from",
        "yesterday",
        "--to",
        "2026-01-06T12:00:00Z",
    ];
    let event = ["--event", "0196a1c5-7f00-7000-8000-000000000001"];
    for (key, which, reason) in [
        ("some-other-key", &event[..], "401"),
        (ADMIN_KEY, &event, "The event does not exist"),
        (ADMIN_KEY, &span, "422"),
        (ADMIN_KEY, &[], "--event"),
        (ADMIN_KEY, &span[..2], "--from"),
    ] {
        let said = order(&site, key, which).await;
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(
            !said.status.success() && text.contains(reason),
            "{reason}: {text}"
        );
    }
}
