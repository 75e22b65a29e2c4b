//! The example receiver of `maskline-events` as the customer's server, and another implementation of Standard
//! Webhooks as one that checks what the switch sent.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use maskline_events::WebhookType;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, FROM, Options, SUB_ACCOUNT, Site};
use crate::support::switch::ADMIN_KEY;

const PATIENCE: Duration = Duration::from_secs(20);

/// Ends with its test.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_example_receiver_connects_a_call_and_prints_its_steps_once_and_in_order() {
    let site = Site::open("receiver-example", Options::new(Transport::Udp)).await;
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let secrets: Vec<_> = site.secrets.values().cloned().collect();
    let printed = site.folder.join("printed");
    let built = Path::new(env!("CARGO_BIN_EXE_maskline")).with_file_name("examples");
    let example = Command::new(built.join("receiver"))
        .env("LISTEN", address.to_string())
        .env("CALLEE", CALLEE)
        .env("SECRETS", secrets.join(" "))
        .stdout(File::create(&printed).unwrap())
        .stdin(Stdio::null())
        .spawn();
    let _example = Example(example.expect("the example is built with the tests"));
    let started = tokio::time::Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(started.elapsed() < PATIENCE, "it does not listen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for webhook in [WebhookType::Vca, WebhookType::Vcs, WebhookType::Vss] {
        let body = json!({ "type": webhook, "url": format!("http://{address}/{webhook}") });
        let path = format!("subaccounts/{SUB_ACCOUNT}/webhooks");
        let answer = site.call_api("POST", &path, ADMIN_KEY, Some(&body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    let steps = eventually("both legs' ends are printed", PATIENCE, || {
        let steps = std::fs::read_to_string(&printed).unwrap();
        (steps.matches("CallDisconnected\n").count() == 2).then_some(steps)
    })
    .await;
    let steps: Vec<_> = steps.lines().filter(|it| !it.contains("Updated")).collect();
    let what: Vec<_> = steps.iter().filter_map(|it| it.split(' ').nth(1)).collect();
    assert_eq!(
        what,
        [
            "CallReceived",
            "CallInitiated",
            "CallConnected",
            "CallConnected",
            "CallDisconnected",
            "CallDisconnected"
        ]
    );
    let numbers: Vec<u32> = steps
        .iter()
        .filter_map(|it| it.split(' ').next()?.parse().ok())
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(
        site.receiver.received().is_empty(),
        "the example alone was asked"
    );
}

#[tokio::test]
async fn what_the_switch_sends_is_verified_by_another_implementation_of_standard_webhooks() {
    let site = Site::open("receiver-standard", Options::new(Transport::Udp)).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    let received = site.receiver.received();
    assert!(received.len() >= 8, "{received:?}");
    for webhook in received {
        let theirs = standardwebhooks::Webhook::new(&site.secrets[&webhook.webhook]).unwrap();
        let verified = theirs.verify(&webhook.raw, &webhook.headers);
        assert!(verified.is_ok(), "{webhook:?}: {verified:?}");
        let mut changed = webhook.raw.to_vec();
        changed[20] ^= 1;
        assert!(theirs.verify(&changed, &webhook.headers).is_err());
    }
}
