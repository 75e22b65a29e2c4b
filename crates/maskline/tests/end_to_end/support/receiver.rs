//! The customer's server: answers VCA requests as the test wants, acknowledges and records every
//! webhook in the order of arrival.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use maskline_events::WebhookType;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::eventually;

/// How the VCA endpoint behaves.
#[derive(Clone, Debug)]
pub enum Vca {
    /// Answers 200 with this callflow.
    Callflow(Value),
    /// Answers 200 with this body.
    Says(&'static str),
    /// Answers with this status.
    Status(u16),
    /// Takes this long to answer.
    Late(Duration),
    /// Answers 200 and sends a byte of the body now and then, without an end.
    Trickles,
    /// Answers 200 with a body that goes on as long as somebody reads it.
    Endless,
    /// Does not listen.
    Down,
}

/// One webhook as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// The endpoint that it came to.
    pub webhook: WebhookType,
    /// Where it came from.
    pub from: IpAddr,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub raw: Bytes,
    /// The body.
    pub body: Value,
}

impl Received {
    /// A field of the payload; null when it is absent.
    pub fn payload(&self, field: &str) -> &Value {
        &self.body["payload"][field]
    }

    /// A header's value.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {self:?}"))
            .to_str()
            .unwrap()
    }
}

#[derive(Debug)]
struct Shared {
    vca: Vca,
    received: Mutex<Vec<Received>>,
    /// The status with which VCS and VSS are answered.
    acknowledges_with: Mutex<StatusCode>,
}

/// A running server.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    port: u16,
    vca_port: u16,
    server: tokio::task::JoinHandle<()>,
    odd_vca: Option<tokio::task::JoinHandle<u64>>,
}

impl Receiver {
    /// Starts it. `nobody` is a port on which nothing listens.
    pub async fn start(vca: Vca, nobody: u16) -> Self {
        let shared = Arc::new(Shared {
            vca: vca.clone(),
            received: Mutex::default(),
            acknowledges_with: Mutex::new(StatusCode::OK),
        });
        let app = Router::new()
            .route("/{webhook}", post(receive))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            axum::serve(
                listener,
                app.into_make_service_with_connect_info::<SocketAddr>(),
            )
            .await
            .unwrap();
        });
        let (vca_port, odd_vca) = match vca {
            Vca::Down => (nobody, None),
            Vca::Trickles | Vca::Endless => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                let port = listener.local_addr().unwrap().port();
                (
                    port,
                    Some(tokio::spawn(pour(listener, matches!(vca, Vca::Trickles)))),
                )
            }
            _ => (port, None),
        };
        Self {
            shared,
            port,
            vca_port,
            server,
            odd_vca,
        }
    }

    /// Where webhooks of a kind go.
    pub fn url(&self, webhook: WebhookType) -> String {
        let port = if webhook == WebhookType::Vca {
            self.vca_port
        } else {
            self.port
        };
        format!("http://127.0.0.1:{port}/{webhook}")
    }

    /// From now on, VCS and VSS are answered with this status.
    pub fn acknowledge_with(&self, status: StatusCode) {
        *self.shared.acknowledges_with.lock().unwrap() = status;
    }

    /// Everything so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Waits for a webhook that fits.
    pub async fn wait_for(&self, what: &str, fits: impl Fn(&Received) -> bool) -> Received {
        eventually(what, Duration::from_secs(20), || {
            self.received().into_iter().find(|it| fits(it))
        })
        .await
    }

    /// Waits for the summary of the one session.
    pub async fn summary(&self) -> Received {
        self.wait_for("a session summary", |it| it.webhook == WebhookType::Vss)
            .await
    }

    /// Stops, and says how many bytes an endless VCA answer was read for.
    pub async fn stop(mut self) -> Option<u64> {
        self.server.abort();
        match self.odd_vca.take() {
            Some(task) => Some(task.await.unwrap()),
            None => None,
        }
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Path(webhook): Path<String>,
    headers: HeaderMap,
    raw: Bytes,
) -> Response {
    let webhook = webhook.parse().unwrap();
    let body = serde_json::from_slice(&raw).unwrap();
    shared.received.lock().unwrap().push(Received {
        webhook,
        from: from.ip(),
        headers,
        raw,
        body,
    });
    if webhook != WebhookType::Vca {
        return shared.acknowledges_with.lock().unwrap().into_response();
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    match &shared.vca {
        Vca::Callflow(callflow) => (json, callflow.to_string()).into_response(),
        Vca::Says(body) => (json, *body).into_response(),
        Vca::Status(status) => StatusCode::from_u16(*status).unwrap().into_response(),
        Vca::Late(delay) => {
            tokio::time::sleep(*delay).await;
            (json, r#"{"callflow":[]}"#).into_response()
        }
        Vca::Trickles | Vca::Endless | Vca::Down => unreachable!("these have a port of their own"),
    }
}

/// Answers one request with a body that does not end, and counts what was taken of it.
async fn pour(listener: TcpListener, trickle: bool) -> u64 {
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = if trickle {
        " ".to_owned()
    } else {
        " ".repeat(65_536)
    };
    let mut poured = 0;
    while poured < 500_000_000 && stream.write_all(piece.as_bytes()).await.is_ok() {
        poured += u64::try_from(piece.len()).unwrap();
        if trickle {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    poured
}

async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "the request ends before its head does");
        request.extend_from_slice(&piece[..read]);
    }
}

/// The signing secrets by webhook, as the API showed them once.
pub type Secrets = HashMap<WebhookType, String>;
