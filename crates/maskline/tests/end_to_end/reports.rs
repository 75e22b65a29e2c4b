//! Another switch reports its calls by the API: what the customer's server gets of them, what a
//! killed switch keeps, and what becomes of calls that nobody reports to their end. The example in
//! `docs/examples/kamailio` is run as it is there.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use axum::http::StatusCode;
use maskline_events::WebhookType;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::calls::check_signatures;
use crate::support::expect::summed_up;
use crate::support::kamailio::Kamailio;
use crate::support::receiver::Received;
use crate::support::sipp::{Run, Transport};
use crate::support::site::{
    CALLEE, CALLER, FROM, OTHER_ADDRESS, Options, SUB_ACCOUNT, Site, VIRTUAL,
};
use crate::support::switch::ADMIN_KEY;

/// A call as the other switch names it.
#[derive(Clone, Copy)]
struct Call(u64);

impl Call {
    fn session(self) -> String {
        Uuid::from_u64_pair(0x0196_a1c5_7f00_7000, self.0).to_string()
    }

    /// A step of leg A or B.
    fn step(self, leg: char, status: &str) -> Value {
        let (direction, source, destination) = match leg {
            'A' => ("INBOUND", CALLER, VIRTUAL),
            _ => ("OUTBOUND", VIRTUAL, CALLEE),
        };
        let leg_id = Uuid::from_u64_pair(u64::from(u32::from(leg)), self.0);
        json!({
            "sessionId": self.session(), "callId": leg_id.to_string(), "callStatus": status,
            "callDirection": direction, "source": source, "destination": destination,
            "idempotencyKey": format!("{}-{leg}-{status}", self.0),
        })
    }

    /// A whole call, both hang up.
    fn whole(self) -> Vec<Value> {
        let mut rings = self.step('B', "CALL_UPDATED");
        rings["eventData"] = json!({ "update": "RINGING" });
        vec![
            self.step('A', "CALL_RECEIVED"),
            self.step('B', "CALL_INITIATED"),
            rings,
            self.step('B', "CALL_CONNECTED"),
            self.step('A', "CALL_CONNECTED"),
            self.step('A', "CALL_DISCONNECTED"),
            self.step('B', "CALL_DISCONNECTED"),
        ]
    }
}

async fn open(name: &str) -> Site {
    Site::open(name, Options::new(Transport::Udp)).await
}

/// Reports, and gives the ids and sequences of the answer.
async fn report(site: &Site, body: &Value) -> Vec<(String, u64)> {
    let path = format!("subaccounts/{SUB_ACCOUNT}/call-events");
    let answer = site.call_api("POST", &path, ADMIN_KEY, Some(body)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let events = answer.json();
    let events = events["events"].as_array().unwrap().iter();
    let event = |it: &Value| {
        let id = it["eventId"].as_str().unwrap().to_owned();
        (id, it["sequence"].as_u64().unwrap())
    };
    events.map(event).collect()
}

async fn summary_of(site: &Site, call: Call) -> Received {
    let what = format!("the summary of call {}", call.0);
    let session = call.session();
    let is_it = |it: &Received| {
        it.webhook == WebhookType::Vss && it.payload("sessionId") == session.as_str()
    };
    site.receiver.wait_for(&what, is_it).await
}

/// Each event's first delivery, by session, in order of arrival.
fn by_session(site: &Site) -> BTreeMap<String, Vec<Received>> {
    let mut sessions: BTreeMap<String, Vec<Received>> = BTreeMap::new();
    for event in site.receiver.received() {
        let session = event.payload("sessionId").as_str().unwrap().to_owned();
        let told = sessions.entry(session).or_default();
        let id = event.header("webhook-id").to_owned();
        if told.iter().all(|it| it.header("webhook-id") != id) {
            told.push(event);
        }
    }
    sessions
}

/// VCS in sequence without a gap, then the one summary.
fn check_order(told: &[Received]) {
    let (summary, steps) = told.split_last().unwrap();
    assert_eq!(summary.webhook, WebhookType::Vss);
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(step.webhook, WebhookType::Vcs, "{step:?}");
        assert_eq!(step.payload("sequence"), index + 1, "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reported_call_is_told_in_order_signed_and_summed_up() {
    let site = open("reports-whole").await;
    let call = Call(1);
    let steps = call.whole();
    let mut answered = report(&site, &steps[0]).await;
    answered.extend(report(&site, &json!(steps[1..4])).await);

    // What does not fit is refused by its place, with all that came with it.
    let mut again = steps[0].clone();
    again["idempotencyKey"] = json!("another");
    let path = format!("subaccounts/{SUB_ACCOUNT}/call-events");
    let body = json!([steps[4], again]);
    let refused = site.call_api("POST", &path, ADMIN_KEY, Some(&body)).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    let fault: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(fault["index"], 1, "{refused:?}");

    answered.extend(report(&site, &json!(steps[4..])).await);
    let summary = summary_of(&site, call).await;
    assert_eq!(summary.payload("sessionStatus"), "COMPLETED");
    assert_eq!(summary.payload("lastAction"), "MAKE_CALL");
    assert_eq!(summary.payload("details")["callB"]["destination"], CALLEE);

    let told = by_session(&site).remove(&call.session()).unwrap();
    check_order(&told);
    check_signatures(&site, &told);
    let sent: Vec<_> = told[..told.len() - 1]
        .iter()
        .map(|it| {
            let id = it.payload("eventId").as_str().unwrap().to_owned();
            (id, it.payload("sequence").as_u64().unwrap())
        })
        .collect();
    assert_eq!(sent, answered);
    let statuses = told.iter().map(|it| it.payload("callStatus").clone());
    let expected = steps.iter().map(|it| it["callStatus"].clone());
    assert!(statuses.take(steps.len()).eq(expected));
    let metrics = crate::support::client::request(site.ports.http(), "GET", "/metrics", "", None);
    let metrics = metrics.await.unwrap().body;
    for line in [
        "maskline_reports_accepted_total 7\n",
        "maskline_reports_waiting 0\n",
        "maskline_reports_refused_total{reason=\"begun_twice\"} 1\n",
        "maskline_delivery_attempts_total{type=\"VCS\",result=\"delivered\"} 7\n",
        "maskline_delivery_attempts_total{type=\"VSS\",result=\"delivered\"} 1\n",
        "maskline_delivery_lag_seconds_count{type=\"VCS\"} 7\n",
        "maskline_delivery_oldest_pending_milliseconds{type=\"VCS\"} 0\n",
        "maskline_egress_lookups 0\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_kill_and_a_repetition_gets_the_same_events() {
    let mut site = open("reports-killed").await;
    site.receiver
        .acknowledge_with(StatusCode::INTERNAL_SERVER_ERROR);
    let call = Call(2);
    let steps = call.whole();
    let first = report(&site, &json!(steps[..4])).await;
    site.switch.take().unwrap().kill();
    site.receiver.acknowledge_with(StatusCode::OK);
    site.restart().await;

    // The reporter never saw the answer: it sends the same again, and what came since.
    let again = report(&site, &json!(steps)).await;
    assert_eq!(again[..4], first);
    let sequences: Vec<_> = again.iter().map(|(_, sequence)| *sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6, 7]);
    let summary = summary_of(&site, call).await;
    assert_eq!(summary.payload("sessionStatus"), "COMPLETED");
    let told = by_session(&site).remove(&call.session()).unwrap();
    assert_eq!(told.len(), 8);
    check_order(&told);
    let sent = told.iter().map(|it| it.header("webhook-id").to_owned());
    let ids = again.into_iter().map(|(id, _)| id);
    assert!(sent.take(7).eq(ids));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_reported_no_more_is_ended_by_the_run_that_follows() {
    let mut site = open("reports-idle").await;
    let call = Call(3);
    let mut steps = call.whole();
    steps.truncate(4);
    // Long enough for the switch to be gone by then.
    steps[3]["sessionIdleSeconds"] = json!(2);
    report(&site, &json!(steps)).await;
    site.switch.take().unwrap().kill();
    site.restart().await;

    let summary = summary_of(&site, call).await;
    assert_eq!(summary.payload("sessionStatus"), "ERROR");
    assert_eq!(summary.payload("errorDetails")["errorCode"], -2001);
    let told = by_session(&site).remove(&call.session()).unwrap();
    check_order(&told);
    let ends: Vec<_> = told
        .iter()
        .filter(|it| it.payload("callStatus") == "CALL_DISCONNECTED")
        .map(|it| {
            (
                it.payload("sipCode").clone(),
                it.payload("errorDetails")["errorCode"].clone(),
            )
        })
        .collect();
    // A was not answered, B was.
    assert_eq!(
        ends,
        [(json!(500), json!(-2001)), (json!(200), json!(-2001))]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_calls_in_mixed_lists_from_four_sides_are_each_told_in_order() {
    let site = open("reports-parallel").await;
    let side = |side: u64| {
        let site = &site;
        let calls: Vec<_> = (0..5).map(|it| Call(100 + side * 5 + it).whole()).collect();
        async move {
            for step in 0..7 {
                // One step of each call in a list, each time with another call first.
                let list: Vec<_> = (0..5)
                    .map(|it| calls[(it + step) % 5][step].clone())
                    .collect();
                let answered = report(site, &json!(list)).await;
                assert!(
                    answered
                        .iter()
                        .all(|(_, sequence)| *sequence == step as u64 + 1)
                );
            }
        }
    };
    tokio::join!(side(0), side(1), side(2), side(3));
    for number in 100..120 {
        let summary = summary_of(&site, Call(number)).await;
        assert_eq!(summary.payload("sessionStatus"), "COMPLETED");
    }
    let sessions = by_session(&site);
    assert_eq!(sessions.len(), 20);
    for told in sessions.values() {
        assert_eq!(told.len(), 8);
        check_order(told);
    }
    check_signatures(&site, &site.receiver.received());
}

/// The example's Kamailio, for this site.
async fn example(site: &Site) -> Kamailio {
    let address: SocketAddr = format!("{OTHER_ADDRESS}:{}", site.ports.neighbour_udp())
        .parse()
        .unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/kamailio");
    let api = format!("127.0.0.1:{}", site.ports.http());
    let mut text = fs::read_to_string(format!("{folder}/site.cfg")).unwrap();
    for (example, here) in [
        ("203.0.113.5:5060", address.to_string()),
        ("198.51.100.7:5060", site.callee_sip().to_string()),
        ("127.0.0.1:8080", api),
        ("subaccounts/market/", format!("subaccounts/{SUB_ACCOUNT}/")),
        ("mk_REPLACE_ME", ADMIN_KEY.to_owned()),
    ] {
        assert!(text.contains(example), "{example} is not in site.cfg");
        text = text.replace(example, &here);
    }
    fs::write(site.folder.join("site.cfg"), text).unwrap();
    let file = "../../../../../docs/examples/kamailio/kamailio.cfg";
    Kamailio::start_with(&site.folder, file, &[], address).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_a_kamailio_routes_are_told_by_its_reports() {
    let site = open("reports-kamailio").await;
    let kamailio = example(&site).await;
    let busy = [
        ("STATUS", "486 Busy Here"),
        ("HEADER", "Allow: INVITE"),
        ("FINAL", "486"),
    ];
    let mut seen = Vec::new();
    for (caller, callee, status, steps) in [
        (
            "caller_hangs_up",
            "callee_answers",
            "COMPLETED A=COMPLETED B=COMPLETED",
            "A RECEIVED, B INITIATED, B UPDATED, B CONNECTED, A CONNECTED, A DISCONNECTED, B DISCONNECTED",
        ),
        (
            "caller_refused",
            "callee_refuses",
            "BUSY A=COMPLETED B=BUSY",
            "A RECEIVED, B INITIATED, B DISCONNECTED, A DISCONNECTED",
        ),
        (
            "caller_cancels_ringing",
            "callee_rings",
            "CANCELED A=CANCELED B=CANCELED",
            "A RECEIVED, B INITIATED, B UPDATED, A DISCONNECTED, B DISCONNECTED",
        ),
    ] {
        let callee = site
            .phone(Run {
                fill: &busy,
                ..site.callee_run(callee)
            })
            .await;
        let caller = site
            .phone(Run {
                fill: &busy,
                towards: Some(format!("{OTHER_ADDRESS}:{}", site.ports.neighbour_udp())),
                ..site.caller_run(caller, FROM)
            })
            .await
            .finish()
            .await;
        let log = kamailio.log();
        assert_eq!(caller.complaint, "", "{log}");
        assert_eq!(callee.finish().await.complaint, "", "{log}");
        let known = seen.clone();
        let summary = site
            .receiver
            .wait_for(status, |it| {
                it.webhook == WebhookType::Vss && !known.contains(it.payload("sessionId"))
            })
            .await;
        assert_eq!(summed_up(&summary), status, "{log}");
        let session = summary.payload("sessionId").as_str().unwrap().to_owned();
        let told = by_session(&site).remove(&session).unwrap();
        check_order(&told);
        let step = |it: &Received| {
            let leg = if it.payload("callDirection") == "INBOUND" {
                "A"
            } else {
                "B"
            };
            let status = it.payload("callStatus").as_str().unwrap();
            format!("{leg} {}", status.strip_prefix("CALL_").unwrap())
        };
        let story: Vec<_> = told[..told.len() - 1].iter().map(step).collect();
        assert_eq!(story.join(", "), steps, "{log}");
        assert_eq!(told[0].payload("source"), CALLER);
        assert_eq!(told[1].payload("destination"), CALLEE);
        seen.push(json!(session));
    }
}
