//! What a webhook's owner sets about how it is sent to, with a receiver that measures it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::support::eventually;
use crate::support::sipp::Transport;
use crate::support::site::{CALLER, Options, SUB_ACCOUNT, Site, VIRTUAL};
use crate::support::switch::ADMIN_KEY;

const PATIENCE: Duration = Duration::from_secs(20);

/// A customer's server that takes 30 ms for each request.
#[derive(Default)]
struct Measuring {
    now: AtomicUsize,
    most: AtomicUsize,
    arrivals: Mutex<Vec<Instant>>,
}

impl Measuring {
    async fn start() -> (Arc<Self>, String) {
        let it = Arc::new(Self::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/vcs", listener.local_addr().unwrap());
        let measuring = Arc::clone(&it);
        let take = move || {
            let it = Arc::clone(&measuring);
            async move {
                it.arrivals.lock().unwrap().push(Instant::now());
                let now = it.now.fetch_add(1, Ordering::SeqCst) + 1;
                it.most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(30)).await;
                it.now.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let app = Router::new().route("/vcs", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (it, url)
    }

    fn count(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }

    /// From the first request to the last.
    fn span(&self) -> Duration {
        let arrivals = self.arrivals.lock().unwrap();
        *arrivals.last().unwrap() - arrivals[0]
    }

    async fn has(&self, count: usize) {
        let what = format!("{count} requests");
        eventually(&what, PATIENCE, || (self.count() >= count).then_some(())).await;
    }
}

async fn api(site: &Site, method: &str, path: &str, body: Option<&Value>) -> Value {
    let path = format!("subaccounts/{SUB_ACCOUNT}/{path}");
    let answer = site.call_api(method, &path, ADMIN_KEY, body).await;
    assert!(answer.status < 300, "{answer:?}");
    answer.json()
}

async fn set(site: &Site, settings: Value) {
    api(site, "PUT", "webhooks/VCS/settings", Some(&settings)).await;
}

/// So many calls of another switch begin.
async fn begin(site: &Site, calls: std::ops::Range<u64>) {
    let events: Vec<Value> = calls
        .map(|call| {
            json!({"sessionId": Uuid::from_u64_pair(1, call).to_string(),
                "callId": Uuid::from_u64_pair(2, call).to_string(), "callStatus": "CALL_RECEIVED",
                "callDirection": "INBOUND", "source": CALLER, "destination": VIRTUAL,
                "idempotencyKey": call.to_string()})
        })
        .collect();
    api(site, "POST", "call-events", Some(&json!(events))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_outlive_a_crash_and_a_receiver_sees_their_cap_their_rate_and_their_change() {
    let mut site = Site::open("settings", Options::new(Transport::Udp)).await;
    let (receiver, url) = Measuring::start().await;
    set(&site, json!({"maxInFlight": 1, "ratePerSecond": 5})).await;
    // Setting the webhook anew keeps them.
    let hook = json!({"type": "VCS", "url": url});
    api(&site, "POST", "webhooks", Some(&hook)).await;
    site.switch.take().unwrap().kill();
    site.restart().await;
    let kept = api(&site, "GET", "webhooks/VCS/settings", None).await;
    assert_eq!(kept["settings"]["maxInFlight"], 1, "{kept}");

    // Five at once after a rest, then five a second, one at a time.
    begin(&site, 0..12).await;
    receiver.has(12).await;
    assert_eq!(receiver.most.load(Ordering::SeqCst), 1);
    let span = receiver.span();
    assert!(span >= Duration::from_millis(1_300), "{span:?}");

    // One in ten seconds, until that is changed.
    set(&site, json!({"ratePerSecond": 0.1})).await;
    begin(&site, 12..20).await;
    receiver.has(13).await;
    set(&site, json!({})).await;
    receiver.has(20).await;
}
