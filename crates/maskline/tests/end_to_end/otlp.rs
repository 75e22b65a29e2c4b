//! What a collector of OpenTelemetry gets of a call: one trace, from the INVITE to the acknowledged
//! webhooks, and no phone number.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::post;
use maskline_events::WebhookType;
use serde_json::Value;

use crate::support::eventually;
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, CALLER, FROM, Options, Site, VIRTUAL};

/// Refuses the first export for a while, as a collector does that is just starting.
#[derive(Clone, Default)]
struct Collector {
    bodies: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<u32>>,
}

impl Collector {
    async fn start(port: u16) -> Self {
        let collector = Self::default();
        let served = collector.clone();
        let take = move |body: String| async move {
            let mut asked = served.asked.lock().unwrap();
            *asked += 1;
            if *asked == 1 {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            served.bodies.lock().unwrap().push(body);
            StatusCode::OK
        };
        let router = axum::Router::new().route("/v1/traces", post(take));
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().flat_map(|body| spans(body)).collect()
    }
}

#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    start: u64,
    end: u64,
    attributes: BTreeMap<String, Value>,
}

fn spans(body: &str) -> Vec<Span> {
    let body: Value = serde_json::from_str(body).unwrap();
    let resource = &body["resourceSpans"][0];
    let service = &resource["resource"]["attributes"][0]["value"]["stringValue"];
    assert_eq!(service, "masks-1");
    let all = resource["scopeSpans"][0]["spans"]
        .as_array()
        .unwrap()
        .iter();
    all.map(|span| {
        let text = |name: &str| span[name].as_str().unwrap().to_owned();
        let attributes = span["attributes"].as_array().unwrap().iter();
        Span {
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            name: text("name"),
            start: text("startTimeUnixNano").parse().unwrap(),
            end: text("endTimeUnixNano").parse().unwrap(),
            attributes: attributes
                .map(|it| (it["key"].as_str().unwrap().to_owned(), it["value"].clone()))
                .collect(),
        }
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_trace_from_the_invite_to_its_acknowledged_webhooks() {
    let options = Options {
        edit: |ports, _, text| {
            let endpoint = format!("http://127.0.0.1:{}", ports.collector());
            format!("{text}\n[otlp]\nendpoint = \"{endpoint}\"\nservice_name = \"masks-1\"\n")
        },
        ..Options::new(Transport::Udp)
    };
    let site = Site::open("otlp", options).await;
    let collector = Collector::start(site.ports.collector()).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    let summary = site.receiver.summary().await;
    let told = site.receiver.received();
    let statuses = told.iter().filter(|it| it.webhook == WebhookType::Vcs);
    let statuses = statuses.count();

    let all = eventually("the whole trace", Duration::from_secs(20), || {
        let spans = collector.spans();
        let has = |name: &str| spans.iter().any(|it| it.name == name);
        (has("masked call") && has("VSS until it was through")).then_some(spans)
    })
    .await;
    let session = summary.payload("sessionId").as_str().unwrap();
    let session = session.replace('-', "");
    assert!(all.iter().all(|it| it.trace == session), "{all:#?}");
    let ids: BTreeMap<&str, &Span> = all.iter().map(|it| (it.id.as_str(), it)).collect();
    assert_eq!(ids.len(), all.len(), "an id is used twice");
    let roots: Vec<_> = all.iter().filter(|it| it.parent.is_empty()).collect();
    assert_eq!(roots.len(), 1);
    assert_eq!(roots[0].name, "masked call");
    let status = &roots[0].attributes["maskline.session_status"]["stringValue"];
    assert_eq!(status, "COMPLETED");
    for span in &all {
        assert!(span.start <= span.end, "{span:?}");
        if !span.parent.is_empty() {
            let parent = ids[span.parent.as_str()];
            // Events are dated in whole milliseconds.
            assert!(
                parent.start <= span.start + 1_000_000,
                "{span:?} in {parent:?}"
            );
        }
    }
    for stage in [
        "admission",
        "commit of CALL_RECEIVED",
        "VCA",
        "B's answer",
        "talking",
    ] {
        assert!(all.iter().any(|it| it.name == stage), "{stage} in {all:#?}");
    }
    // One attempt and one whole way for each webhook.
    let of = |name: &str| all.iter().filter(|it| it.name == name).count();
    assert_eq!((of("POST VCS"), of("POST VSS")), (statuses, 1));
    assert_eq!(of("VCS until it was through"), statuses);
    let bodies = collector.bodies.lock().unwrap().concat();
    for number in [CALLER, CALLEE, VIRTUAL] {
        assert!(!bodies.contains(&number[4..]), "a number is in {bodies}");
    }
}
