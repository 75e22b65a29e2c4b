//! A running API on loopback, with a real store, and a client that checks each answer against the
//! committed OpenAPI document.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use maskline_events::{Msisdn, ReportedEvent, Timestamp, WebhookType};
use maskline_http::{
    ApiConfig, CallEventSink, NotReported, ProvisioningChanged, ReplayedEvents, ServeLimits,
    TlsCheck, TrunkRegistrationStatus, TrunkStatus, TrunkTarget,
};
use maskline_store::{
    EndpointSettings, EventHistory, SettingsDifference, SettingsFault, TakenReport, TlsSettings,
    WebhookSettings,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::schema;
use crate::store::TestStore;

/// How long anything here may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub const ADMIN_KEY: &str = "admin-key-of-the-tests";

/// The webhook target at which the URL check panics.
pub const PANIC_URL: &str = "https://panic.example";

/// The time that the API's clock begins with; each look at it is a second later.
pub const START_MS: i64 = 1_767_694_639_375;

pub static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&maskline_http::openapi_json()).unwrap());

/// Notes each change.
#[derive(Default)]
pub struct Changes {
    noted: Mutex<Vec<String>>,
    /// Whether the switch takes long to hear of parameters.
    pub late: AtomicBool,
}

impl Changes {
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.noted.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl ProvisioningChanged for Changes {
    async fn numbers_changed(&self) {
        self.noted.lock().unwrap().push("numbers".to_owned());
    }

    async fn parameters_set(&self, sub_account_id: &str) -> bool {
        let change = format!("parameters of {sub_account_id}");
        self.noted.lock().unwrap().push(change);
        !self.late.load(Ordering::Relaxed)
    }

    fn webhook_changed(&self, sub_account_id: &str, webhook_type: WebhookType) {
        let change = format!("{webhook_type} of {sub_account_id}");
        self.noted.lock().unwrap().push(change);
    }

    fn settings_changed(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        settings: &EndpointSettings,
        difference: SettingsDifference,
    ) {
        let settings = serde_json::to_string(settings).unwrap();
        let change = format!("{webhook_type} of {sub_account_id}, {difference:?}: {settings}");
        self.noted.lock().unwrap().push(change);
    }
}

/// Takes no update.
struct NoReports;

#[async_trait::async_trait]
impl CallEventSink for NoReports {
    async fn report(
        &self,
        _sub_account_id: String,
        _events: Vec<ReportedEvent>,
    ) -> Result<Vec<TakenReport>, NotReported> {
        Err(NotReported::Busy)
    }
}

#[async_trait::async_trait]
impl ReplayedEvents for Changes {
    async fn replayed(&self, sub_account_id: &str, sessions: Vec<uuid::Uuid>) {
        let mut noted = self.noted.lock().unwrap();
        noted.extend(
            sessions
                .iter()
                .map(|id| format!("{id} of {sub_account_id}")),
        );
    }
}

/// Puts something in front of the store.
pub type InFront<T> = Box<dyn FnOnce(Arc<T>) -> Arc<T>>;

/// What differs from test to test.
pub struct Setup {
    pub admin_key: Option<&'static str>,
    pub failed_authentications_per_minute: u32,
    pub limits: ServeLimits,
    pub traces: Option<maskline_http::Traces>,
    pub call_events: Arc<dyn CallEventSink>,
    pub media_report: fn(uuid::Uuid) -> Option<maskline_media::MediaReport>,
    pub check_webhook_tls: TlsCheck,
    pub history: InFront<dyn EventHistory>,
    pub settings: InFront<dyn WebhookSettings>,
}

/// Certificates go with a key.
pub fn check_tls(tls: &TlsSettings, key: Option<&str>) -> Result<(), SettingsFault> {
    let key_fits = tls.client_certificate.is_none() == key.is_none();
    let fault = || SettingsFault::new("tls.clientKey", "does not fit here");
    key_fits.then_some(()).ok_or_else(fault)
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            admin_key: Some(ADMIN_KEY),
            failed_authentications_per_minute: 1_000,
            limits: ServeLimits::default(),
            traces: None,
            call_events: Arc::new(NoReports),
            media_report: |_| None,
            check_webhook_tls: Arc::new(check_tls),
            history: Box::new(|store| store),
            settings: Box::new(|store| store),
        }
    }
}

pub struct Api {
    pub address: SocketAddr,
    pub store: TestStore,
    pub changes: Arc<Changes>,
    pub draining: Arc<AtomicBool>,
    pub journal_down: Arc<AtomicBool>,
    pub shutdown: Option<oneshot::Sender<()>>,
    pub served: JoinHandle<()>,
}

pub async fn start() -> Api {
    start_with(Setup::default()).await
}

pub async fn start_with(setup: Setup) -> Api {
    let store = TestStore::open();
    let changes = Arc::new(Changes::default());
    let draining = Arc::new(AtomicBool::new(false));
    let journal_down = Arc::new(AtomicBool::new(false));
    let clock = std::sync::atomic::AtomicI64::new(START_MS);
    let router = maskline_http::router(ApiConfig {
        store: store.shared(),
        parameters: store.parameters(),
        history: (setup.history)(store.history()),
        settings: (setup.settings)(store.settings()),
        replayed: changes.clone(),
        admin_key: setup.admin_key.map(str::to_owned),
        trunks: vec!["carrier".to_owned(), "backup".to_owned()],
        trunk_status: Arc::new(|| {
            let trunk = |name: &str, calls, registration| TrunkStatus {
                name: name.to_owned(),
                calls,
                registration,
                targets: vec![TrunkTarget {
                    address: "192.0.2.1:5060".to_owned(),
                    transport: "udp".to_owned(),
                    up: true,
                }],
            };
            let registration = TrunkRegistrationStatus {
                registered: true,
                failure: None,
            };
            vec![
                trunk("carrier", 3, Some(registration)),
                trunk("backup", 0, None),
            ]
        }),
        media_report: Arc::new(setup.media_report),
        call_events: setup.call_events,
        egress_addresses: vec!["203.0.113.5".to_owned(), "198.51.100.0/28".to_owned()],
        check_webhook_url: Arc::new(|url| {
            assert!(url != PANIC_URL, "planted: {url}");
            if url.starts_with("https://") || url.starts_with("http://plain.") {
                Ok(())
            } else {
                Err("must be https here".to_owned())
            }
        }),
        check_webhook_tls: setup.check_webhook_tls,
        on_change: changes.clone(),
        country_of: Arc::new(|number: &Msisdn| {
            number.digits().starts_with("65").then(|| "SG".to_owned())
        }),
        clock: Arc::new(move || Timestamp::from_unix_ms(clock.fetch_add(1_000, Ordering::Relaxed))),
        metrics_text: Arc::new(|| "# TYPE maskline_test counter\nmaskline_test 1\n".to_owned()),
        traces: setup.traces,
        draining: draining.clone(),
        journal_down: journal_down.clone(),
        failed_authentications_per_minute: setup.failed_authentications_per_minute,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, ended) = oneshot::channel::<()>();
    let served = tokio::spawn(maskline_http::serve_with(
        listener,
        router,
        async {
            let _ = ended.await;
        },
        setup.limits,
    ));
    Api {
        address,
        store,
        changes,
        draining,
        journal_down,
        shutdown: Some(shutdown),
        served,
    }
}

/// One answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Fails at the caller's line, with the body, unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// An error in the contract's frame, with this message.
    #[track_caller]
    pub fn expect_fault(self, status: u16, code: &str, message: &str) -> Self {
        let reply = self.expect(status);
        let json = &reply.json;
        assert_eq!(json["statusCode"], code, "{}", reply.text);
        assert_eq!(json["statusMessage"], message, "{}", reply.text);
        assert_eq!(json["errorId"].as_str().unwrap().len(), 36);
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(json.as_object().unwrap().len(), 4, "{}", reply.text);
        reply
    }
}

impl Api {
    pub async fn get(&self, path: &str, key: &str) -> Reply {
        self.send("GET", path, Some(key), None).await
    }

    pub async fn post(&self, path: &str, key: &str, body: Value) -> Reply {
        self.send("POST", path, Some(key), Some(body.to_string().into_bytes()))
            .await
    }

    pub async fn put(&self, path: &str, key: &str, body: Value) -> Reply {
        let body = Some(body.to_string().into_bytes());
        self.send("PUT", path, Some(key), body).await
    }

    pub async fn patch(&self, path: &str, key: &str, body: Value) -> Reply {
        let body = Some(body.to_string().into_bytes());
        self.send("PATCH", path, Some(key), body).await
    }

    pub async fn delete(&self, path: &str, key: &str) -> Reply {
        self.send("DELETE", path, Some(key), None).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.request(request.body(body.unwrap_or_default()).unwrap())
            .await
    }

    /// Sends a request on a connection of its own and checks the answer against the document.
    pub async fn request(&self, request: Request<Vec<u8>>) -> Reply {
        let method = request.method().as_str().to_owned();
        let path = request.uri().path().to_owned();
        let request = tokio::time::timeout(DEADLINE, async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let (mut parts, body) = request.into_parts();
            parts
                .headers
                .insert("host", self.address.to_string().parse().unwrap());
            let request = Request::from_parts(parts, Full::new(Bytes::from(body)));
            let response = sender.send_request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            (parts, body.collect().await.unwrap().to_bytes())
        });
        let (parts, body) = request.await.expect("no answer in time");
        let text = String::from_utf8_lossy(&body).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        let reply = Reply {
            status: parts.status,
            headers: parts.headers,
            text,
            json,
        };
        schema::check_reply(&DOCUMENT, &method, &path, &reply);
        reply
    }

    /// Sends bytes as they are and returns all that comes back until the connection is closed.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        tokio::time::timeout(DEADLINE, async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // The server may have answered and closed before it has read everything.
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        })
        .await
        .expect("the connection was not closed in time")
    }

    /// A sub-account and a key for it.
    pub async fn sub_account(&self, id: &str) -> String {
        let now = Timestamp::from_unix_ms(START_MS);
        let store = self.store.shared();
        let new = maskline_store::NewSubAccount {
            sub_account_id: id.to_owned(),
            countries: Vec::new(),
        };
        store.create_sub_account(new, now).await.unwrap();
        store.create_api_key(id, now).await.unwrap()
    }
}
