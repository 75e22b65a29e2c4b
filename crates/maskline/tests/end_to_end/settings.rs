//! What a webhook's owner sets about how it is sent to, with a receiver that measures it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use maskline_events::WebhookType;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::sipp::Transport;
use crate::support::site::{CALLER, FROM, Options, SUB_ACCOUNT, Site, VIRTUAL};
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

/// A customer's server that has trouble, and counts.
async fn refusing() -> (Arc<AtomicUsize>, String) {
    let count = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/vcs", listener.local_addr().unwrap());
    let counts = Arc::clone(&count);
    let refuse = move || {
        counts.fetch_add(1, Ordering::SeqCst);
        async { axum::http::StatusCode::SERVICE_UNAVAILABLE }
    };
    let app = Router::new().route("/vcs", post(refuse));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (count, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_in_trouble_is_left_alone_whatever_its_rate_is_set_to_and_asked_for_other_requests()
 {
    let site = Site::open("settings-trouble", Options::new(Transport::Udp)).await;
    let (count, url) = refusing().await;
    let hook = json!({"type": "VCS", "url": url});
    api(&site, "POST", "webhooks", Some(&hook)).await;
    // Each of them is due at once, and again after minutes.
    let settings = |most: u32, value: &str| json!({"maxInFlight": most, "retryDelaysSeconds": [600], "headers": {"x-a": value}});
    set(&site, settings(8, "1")).await;
    begin(&site, 0..200).await;
    let count = || count.load(Ordering::SeqCst);
    eventually("eight have failed", PATIENCE, || {
        (count() >= 8).then_some(())
    })
    .await;
    for round in 0..20 {
        // Other settings, and then the same ones.
        for _ in 0..2 {
            set(&site, settings(8 + round % 2, "1")).await;
        }
    }
    // The first eight, those that were under way, and one after 1, 2, 4 … s.
    let before = count();
    assert!(before <= 20, "{before}");
    set(&site, settings(8, "2")).await;
    eventually("it is asked again", PATIENCE, || {
        (count() >= before + 4).then_some(())
    })
    .await;
}

/// A receiver that demands a client certificate; tells whose it got, with the request's head.
struct Demanding {
    url: String,
    told: Arc<Mutex<Vec<(CertificateDer<'static>, String)>>>,
}

impl Demanding {
    /// Its files, and those of its callers, are in `folder`.
    async fn start(folder: &Path) -> Self {
        let authority = Authority::new(folder, "private-ca");
        authority.sign(folder, "receiver", "127.0.0.1");
        authority.sign(folder, "maskline", "maskline");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate(folder, "private-ca")).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::from_pem_file(folder.join("receiver.key")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate(folder, "receiver")], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let receiver = Self {
            url: format!("https://{}/vcs", listener.local_addr().unwrap()),
            told: Arc::default(),
        };
        let told = Arc::clone(&receiver.told);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                let mut read = Vec::new();
                while !read.ends_with(b"}") && stream.read_buf(&mut read).await.unwrap_or(0) > 0 {}
                let head = String::from_utf8_lossy(&read).to_lowercase();
                told.lock().unwrap().push((shown.into_owned(), head));
                let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                // Whoever went does not read it.
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        receiver
    }
}

fn certificate(folder: &Path, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(folder.join(format!("{name}.pem"))).unwrap()
}

fn pem(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_demands_a_certificate_gets_it_with_the_headers_and_both_outlive_a_crash() {
    let mut site = Site::open("settings-tls", Options::new(Transport::Udp)).await;
    let folder = site.folder.clone();
    let receiver = Demanding::start(&folder).await;
    let hook = json!({"type": "VCS", "url": receiver.url});
    api(&site, "POST", "webhooks", Some(&hook)).await;
    let path = format!("subaccounts/{SUB_ACCOUNT}/webhooks/VCS/settings");
    let mut settings = json!({
        "headers": {"x-tenant": "blue-42"},
        "tls": {"ca": pem(&folder, "private-ca.pem"), "clientCertificate": pem(&folder, "maskline.pem"),
            "clientKey": pem(&folder, "receiver.key")},
    });
    let refused = site
        .call_api("PUT", &path, ADMIN_KEY, Some(&settings))
        .await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused.body.contains("tls.clientKey: is not the key of"),
        "{refused:?}"
    );
    assert!(!refused.body.contains("-----"), "{refused:?}");
    settings["tls"]["clientKey"] = json!(pem(&folder, "maskline.key"));
    set(&site, settings).await;
    site.switch.take().unwrap().kill();
    site.restart().await;

    // Put back as it is shown, it is as it was.
    let shown = site.call_api("GET", &path, ADMIN_KEY, None).await;
    assert!(!shown.body.contains("blue-42"), "{shown:?}");
    assert!(!shown.body.contains("PRIVATE KEY"), "{shown:?}");
    set(&site, shown.json()["settings"].clone()).await;
    begin(&site, 0..2).await;
    let told = eventually("both events", PATIENCE, || {
        let told = receiver.told.lock().unwrap().clone();
        (told.len() >= 2).then_some(told)
    })
    .await;
    for (shown, head) in told {
        assert_eq!(shown, certificate(&folder, "maskline"));
        assert!(head.contains("x-tenant: blue-42\r\n"), "{head}");
    }
    // In no file of the switch in clear.
    for file in ["maskline.db", "maskline.db-wal"] {
        let bytes = fs::read(folder.join(file)).unwrap_or_default();
        for secret in [&b"blue-42"[..], b"PRIVATE KEY"] {
            let found = bytes.windows(secret.len()).any(|it| it == secret);
            assert!(!found, "{file} holds {}", secret.escape_ascii());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_come_from_the_configured_source_address() {
    let mut options = Options::new(Transport::Udp);
    options.edit = |_, _, configuration| {
        configuration.replace(
            "[egress]\n",
            "[egress]\naddresses = [\"127.0.0.0/29\"]\nsource_addresses = [\"127.0.0.6\"]\n",
        )
    };
    let site = Site::open("settings-source", options).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    let received = site.receiver.received();
    // The question and what is told go by clients of their own.
    for kind in [WebhookType::Vca, WebhookType::Vcs, WebhookType::Vss] {
        let mut of_kind = received.iter().filter(|it| it.webhook == kind).peekable();
        assert!(of_kind.peek().is_some(), "{kind}");
        for it in of_kind {
            assert_eq!(it.from, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), "{kind}");
        }
    }
}
