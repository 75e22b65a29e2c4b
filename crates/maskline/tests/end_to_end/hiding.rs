//! Endpoints that are shown no numbers, and whose requests are signed so that another program, OpenSSL,
//! checks them with a public key alone.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maskline_events::WebhookType;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::receiver::Received;
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, CALLER, FROM, Options, SUB_ACCOUNT, Site, VIRTUAL};
use crate::support::switch::ADMIN_KEY;

const PATIENCE: Duration = Duration::from_secs(20);

async fn api(site: &Site, method: &str, path: &str, body: Option<&Value>) -> Value {
    let path = format!("subaccounts/{SUB_ACCOUNT}/{path}");
    site.call_api(method, &path, ADMIN_KEY, body).await.json()
}

/// Sets it, and gives the public key.
async fn set(site: &Site, webhook: WebhookType, settings: Value) -> String {
    let path = format!("webhooks/{webhook}/settings");
    let shown = api(site, "PUT", &path, Some(&settings)).await;
    shown["publicKey"].as_str().unwrap().to_owned()
}

/// What was told of calls, the questions left out.
fn told(site: &Site) -> Vec<Received> {
    let mut received = site.receiver.received();
    received.retain(|it| it.webhook != WebhookType::Vca);
    received
}

fn signatures<'a>(event: &'a Received, version: &str) -> Vec<&'a str> {
    let all = event.header("webhook-signature").split(' ');
    all.filter_map(|it| it.split_once(',').filter(|it| it.0 == version))
        .map(|it| it.1)
        .collect()
}

/// Whether OpenSSL finds one of the signatures to be by this key over what came.
fn openssl_verifies(folder: &Path, key: &str, event: &Received) -> bool {
    // RFC 8410 §4: a public key of 32 bytes as SubjectPublicKeyInfo.
    let mut key_info = vec![
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let key = key.strip_prefix("whpk_").unwrap();
    key_info.extend(STANDARD.decode(key).unwrap());
    fs::write(folder.join("key.der"), key_info).unwrap();
    let (id, at) = (
        event.header("webhook-id"),
        event.header("webhook-timestamp"),
    );
    let message = [id.as_bytes(), b".", at.as_bytes(), b".", &event.raw].concat();
    fs::write(folder.join("message"), message).unwrap();
    signatures(event, "v1a").into_iter().any(|signature| {
        fs::write(
            folder.join("signature"),
            STANDARD.decode(signature).unwrap(),
        )
        .unwrap();
        let run = Command::new("openssl")
            .current_dir(folder)
            .args([
                "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key.der",
            ])
            .args(["-rawin", "-in", "message", "-sigfile", "signature"])
            .output();
        run.expect("openssl is there").status.success()
    })
}

fn shows_a_number(event: &Received) -> bool {
    let text = str::from_utf8(&event.raw).unwrap();
    // Without the country code, so that no way of writing one is missed.
    [CALLER, CALLEE, VIRTUAL]
        .iter()
        .any(|it| text.contains(&it[3..]))
}

/// A reported call with one leg.
async fn report(site: &Site, name: u32) {
    let step = |status: &str| {
        json!({
            "sessionId": format!("0196a1c5-7f00-7000-8000-{name:012x}"),
            "callId": format!("0196a1c5-7f00-7000-9000-{name:012x}"),
            "callStatus": status, "callDirection": "INBOUND", "source": CALLER,
            "destination": VIRTUAL, "idempotencyKey": format!("{name}-{status}"),
        })
    };
    let steps = json!([step("CALL_RECEIVED"), step("CALL_DISCONNECTED")]);
    let path = format!("subaccounts/{SUB_ACCOUNT}/call-events");
    let answer = site.call_api("POST", &path, ADMIN_KEY, Some(&steps)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// The whole reported call as it arrived.
async fn reported(site: &Site, name: u32) -> Vec<Received> {
    report(site, name).await;
    let session = format!("0196a1c5-7f00-7000-8000-{name:012x}");
    eventually("a reported call is told", PATIENCE, || {
        let mut events = told(site);
        events.retain(|it| it.payload("sessionId") == session.as_str());
        (events.len() >= 3).then_some(events)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_reaches_an_endpoint_that_wants_none_and_openssl_trusts_what_does() {
    let mut site = Site::open("hiding", Options::new(Transport::Udp)).await;
    let both = json!({"signatures": ["v1", "v1a"], "redaction": "token"});
    let vcs = set(&site, WebhookType::Vcs, both).await;
    let one = json!({"signatures": ["v1a"], "redaction": "masked"});
    let vss = set(&site, WebhookType::Vss, one).await;
    let line = json!({"parameters": [{"name": "hotline", "value": VIRTUAL}]});
    api(&site, "PUT", "event-parameters", Some(&line)).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    let summary = site.receiver.summary().await;
    let events = told(&site);
    assert!(events.len() >= 7, "{events:?}");
    for event in &events {
        assert!(!shows_a_number(event), "{event:?}");
        let (key, v1) = match event.webhook {
            WebhookType::Vss => (&vss, 0),
            _ => (&vcs, 1),
        };
        assert_eq!(signatures(event, "v1").len(), v1, "{event:?}");
        assert!(openssl_verifies(&site.folder, key, event), "{event:?}");
        assert!(!openssl_verifies(
            &site.folder,
            if v1 == 0 { &vcs } else { &vss },
            event
        ));
        if v1 == 1 {
            let theirs = standardwebhooks::Webhook::new(&site.secrets[&event.webhook]).unwrap();
            assert!(theirs.verify(&event.raw, &event.headers).is_ok());
        }
    }
    let legs = summary.payload("details");
    assert_eq!(legs["callA"]["source"], "+65••••0001");
    assert_eq!(legs["callB"]["destinationFormat"], "MASKED");
    // The virtual number is the same on both legs, and stays so.
    let a = events
        .iter()
        .find(|it| it.payload("callDirection") == "INBOUND");
    let b = events
        .iter()
        .find(|it| it.payload("callDirection") == "OUTBOUND");
    let token = a.unwrap().payload("destination").clone();
    assert!(token.as_str().unwrap().starts_with("tok_"), "{token}");
    assert_eq!(b.unwrap().payload("source"), &token);
    assert_eq!(b.unwrap().payload("hotline"), &token);
    assert_eq!(a.unwrap().payload("sourceFormat"), "TOKEN");
    // The question has what the answer needs.
    let asked = site.receiver.received();
    let asked = asked.iter().find(|it| it.webhook == WebhookType::Vca);
    assert_eq!(asked.unwrap().payload("source"), CALLER);
    // Looking back shows no more.
    let page = api(&site, "GET", "events?limit=100", None).await;
    let bodies = page["events"].as_array().unwrap().iter();
    let bodies: Vec<_> = bodies.map(|it| it["body"].as_str().unwrap()).collect();
    let sent: Vec<_> = events
        .iter()
        .map(|it| str::from_utf8(&it.raw).unwrap())
        .collect();
    assert_eq!(bodies, sent, "byte for byte");

    // A rotation: both pairs of keys sign.
    api(&site, "POST", "webhooks/VCS/rotate-secret", None).await;
    let shown = api(&site, "GET", "webhooks/VCS/settings", None).await;
    let new = shown["publicKey"].as_str().unwrap();
    let rotated = reported(&site, 1).await;
    let step = rotated
        .iter()
        .find(|it| it.webhook == WebhookType::Vcs)
        .unwrap();
    assert_eq!(
        (signatures(step, "v1").len(), signatures(step, "v1a").len()),
        (2, 2)
    );
    assert!(openssl_verifies(&site.folder, &vcs, step));
    assert!(openssl_verifies(&site.folder, new, step));

    // After a kill all of it is as it was.
    site.switch.take().unwrap().kill();
    site.restart().await;
    let after = reported(&site, 2).await;
    for event in &after {
        assert!(!shows_a_number(event), "{event:?}");
        let key = if event.webhook == WebhookType::Vss {
            &vss
        } else {
            new
        };
        assert!(openssl_verifies(&site.folder, key, event), "{event:?}");
    }
    assert_eq!(after[0].payload("destination"), &token);
    let refused = json!({"redaction": "token"});
    let path = format!("subaccounts/{SUB_ACCOUNT}/webhooks/VCA/settings");
    let refused = site.call_api("PUT", &path, ADMIN_KEY, Some(&refused)).await;
    assert_eq!(refused.status, 422, "{refused:?}");
}
