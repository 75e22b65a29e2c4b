//! One signed POST to a webhook endpoint: kept connections, HTTP/1.1, one deadline from DNS to the
//! last byte of the answer, bounded reading, no redirect, no proxy.
//!
//! What lives elsewhere: which addresses may be asked (`egress`, `connector`), what an answer
//! means (`action`, `delivery`).

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::http::uri::Scheme;
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use maskline_events::redaction::Unreadable;
use maskline_events::signing::SigningKey;
use maskline_events::{Hiding, WebhookType, signing};
use maskline_store::{Endpoint, EndpointConfig, EndpointSettings};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::connections::{self, ConnectionLevels, Owner, Seat};
use crate::connector::{ConnectFault, Deadlined, GuardedConnector};
use crate::egress::{EgressPolicy, UrlFault, check_url};
use crate::network::{Network, SystemNetwork};
use crate::profiles::Profiles;
use crate::tls::{self, TlsProfile};

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Most unused connections that are kept to one host: it may serve many endpoints, and a connection
/// made anew costs several times what its request does. There are never more than were in use at once,
/// and over all hosts they give way to new ones (`connections`).
const IDLE_PER_HOST: usize = 512;
/// Most bytes of an answer's head, and of what is read ahead of its body.
const READ_BUFFER_BYTES: usize = 64 * 1024;

static JSON: HeaderValue = HeaderValue::from_static("application/json");
static AGENT: HeaderValue =
    HeaderValue::from_static(concat!("Maskline/", env!("CARGO_PKG_VERSION")));
static TRUE: HeaderValue = HeaderValue::from_static("true");
static WEBHOOK_ID: HeaderName = HeaderName::from_static(signing::HEADER_ID);
static WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static(signing::HEADER_TIMESTAMP);
static WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static(signing::HEADER_SIGNATURE);
static WEBHOOK_GAP: HeaderName = HeaderName::from_static(signing::HEADER_GAP);

/// Why a request got no whole answer. Its text holds no secret, number or body.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The stored URL is none that may be asked.
    #[error("{0}")]
    Url(#[from] UrlFault),
    /// The stored body can't be read, and numbers in it are to be hidden.
    #[error("{0}")]
    Body(#[from] Unreadable),
    /// The stored `Authorization` value can't be sent.
    #[error("httpAuthHeader holds characters that a header can't")]
    AuthHeader,
    /// A stored header of the endpoint's own can't be sent.
    #[error("a header of the settings can't be sent")]
    Header,
    /// TLS is set for an endpoint that has none.
    #[error("the settings ask for TLS, but the URL is not https")]
    NotTls,
    /// The name has only addresses that the policy refuses.
    #[error("target refused: {0}")]
    Refused(String),
    /// No connection.
    #[error("{0}")]
    Connect(String),
    /// No connection either, for want of one of our own or of a place for its name's lookup: it says
    /// nothing of the endpoint.
    #[error("too many connections or name lookups are under way")]
    Full,
    /// No TLS session: the certificate was not accepted, or the handshake failed.
    #[error("TLS: {0}")]
    Tls(String),
    /// The deadline passed.
    #[error("no whole answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection was closed or reset before an answer had begun.
    #[error("the connection was closed before an answer")]
    Closed,
    /// The connection ended in the middle of the answer.
    #[error("the answer was cut off")]
    CutOff,
    /// What came back is no HTTP/1.1 answer, or its head is above 64 kB.
    #[error("the answer is not HTTP")]
    NotHttp,
}

impl SendError {
    /// Whether the connection failed, not what was said over it: the one case in which a call
    /// action is asked again.
    #[must_use]
    pub const fn is_connection_failure(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Full | Self::Closed => true,
            Self::Url(_)
            | Self::Body(_)
            | Self::AuthHeader
            | Self::Header
            | Self::NotTls
            | Self::Refused(_)
            | Self::Tls(_)
            | Self::Timeout(_)
            | Self::CutOff
            | Self::NotHttp => false,
        }
    }
}

/// A webhook endpoint, checked and ready to be asked. No `Debug`: it holds secrets.
pub struct Target {
    /// Whose connections it takes; empty if nobody's was said.
    owner: Arc<str>,
    uri: Uri,
    authorization: Option<HeaderValue>,
    secrets: Vec<Vec<u8>>,
    keys: Vec<SigningKey>,
    hiding: Option<Hiding>,
    headers: Vec<(HeaderName, HeaderValue)>,
    tls: Option<Arc<TlsProfile>>,
    settings: EndpointSettings,
    revision: i64,
}

impl Target {
    /// Checks an endpoint as it is stored.
    ///
    /// # Errors
    /// [`SendError::Url`], [`SendError::AuthHeader`], [`SendError::Header`], [`SendError::NotTls`].
    pub fn new(endpoint: Endpoint, policy: &EgressPolicy) -> Result<Self, SendError> {
        let uri = check_url(&endpoint.url, policy)?;
        let authorization = endpoint
            .http_auth_header
            .map(|text| {
                let mut value = HeaderValue::from_str(&text).map_err(|_| SendError::AuthHeader)?;
                value.set_sensitive(true);
                Ok::<_, SendError>(value)
            })
            .transpose()?;
        let EndpointConfig {
            mut settings,
            secrets,
        } = endpoint.config;
        if settings.tls.is_some() && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(SendError::NotTls);
        }
        // Once in memory is enough.
        let tls = settings.tls.take();
        Ok(Self {
            owner: Arc::from(""),
            uri,
            authorization,
            secrets: endpoint.signing_secrets,
            keys: endpoint.signing_keys,
            hiding: endpoint.hiding,
            headers: headers(secrets.headers)?,
            tls: tls.map(|tls| Arc::new(TlsProfile::new(tls, secrets.client_key))),
            settings,
            revision: endpoint.revision,
        })
    }

    /// The same as this webhook of this sub-account.
    pub(crate) fn owned_by(self, sub_account_id: &str, webhook_type: WebhookType) -> Self {
        Self {
            owner: format!("{sub_account_id}/{}", webhook_type.as_str()).into(),
            ..self
        }
    }

    /// How numbers are hidden from it, if they are.
    pub(crate) const fn hiding(&self) -> Option<&Hiding> {
        self.hiding.as_ref()
    }

    /// How it is sent to; of TLS nothing.
    pub(crate) const fn settings(&self) -> &EndpointSettings {
        &self.settings
    }

    /// Which state of its webhook this is.
    pub(crate) const fn revision(&self) -> i64 {
        self.revision
    }
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Post {
    /// The `webhook-id`.
    pub event_id: Uuid,
    /// The body, JSON.
    pub body: Bytes,
    /// Whether an earlier event of the session is not through: `webhook-gap: true`.
    pub gap: bool,
    /// The time of the attempt, which is signed.
    pub unix_seconds: i64,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After` as it was written.
    pub retry_after: Option<String>,
    /// The body, up to the limit that was asked for.
    pub body: Vec<u8>,
    /// Whether the body went on beyond the limit; the rest was not read.
    pub truncated: bool,
}

/// The endpoint's own headers as they are sent.
fn headers(own: BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, SendError> {
    let own = own.into_iter().map(|(name, value)| {
        let name = HeaderName::try_from(name).map_err(|_| SendError::Header)?;
        let mut value = HeaderValue::try_from(value).map_err(|_| SendError::Header)?;
        value.set_sensitive(true);
        Ok((name, value))
    });
    own.collect()
}

/// Connections to many hosts, and what is sent over them.
pub(crate) type Http = Client<Deadlined<HttpsConnector<GuardedConnector>>, Full<Bytes>>;

/// A client that speaks TLS as it is told.
pub(crate) fn http_client(tls: ClientConfig, connector: GuardedConnector) -> Http {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(READ_BUFFER_BYTES)
        .build(Deadlined {
            inner: connector,
            deadline: IDLE,
        })
}

/// The HTTP client of everything that goes to a customer's server. Cheap to clone; clones share
/// connections.
#[derive(Clone)]
pub struct EgressClient {
    http: Http,
    /// Of endpoints that have set TLS for themselves.
    profiles: Arc<Profiles>,
    policy: EgressPolicy,
    connector: GuardedConnector,
    tls: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
}

impl EgressClient {
    /// A client that trusts the operating system's root certificates (`SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name others) and those given in addition.
    ///
    /// The system's and not a built-in list: an operator's own authority works as it does for
    /// every other program, and roots are withdrawn without a new version of this one.
    ///
    /// # Errors
    /// [`SendError::Tls`] if the TLS library can't be set up.
    pub fn new(
        policy: EgressPolicy,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, SendError> {
        Self::over(Arc::new(SystemNetwork::default()), policy, extra_roots)
    }

    /// The same over another network.
    ///
    /// # Errors
    /// [`SendError::Tls`] if the TLS library can't be set up.
    pub fn over(
        network: Arc<dyn Network>,
        policy: EgressPolicy,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, SendError> {
        Self::by(GuardedConnector::new(policy, network), policy, extra_roots)
    }

    fn by(
        connector: GuardedConnector,
        policy: EgressPolicy,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, SendError> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        roots.add_parsable_certificates(extra_roots.iter().cloned());
        if roots.is_empty() {
            tracing::warn!(
                "no root certificates found, so no https webhook can be reached: install \
                 ca-certificates or set SSL_CERT_FILE"
            );
        }
        let roots = Arc::new(roots);
        let tls = tls::builder()?
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        Ok(Self::with(connector, policy, Arc::new(tls), roots))
    }

    fn with(
        connector: GuardedConnector,
        policy: EgressPolicy,
        tls: Arc<ClientConfig>,
        roots: Arc<RootCertStore>,
    ) -> Self {
        Self {
            http: http_client((*tls).clone(), connector.clone()),
            profiles: Arc::new(Profiles::new(connector.clone(), Arc::clone(&roots))),
            policy,
            connector,
            tls,
            roots,
        }
    }

    /// The same over another network, with connections and name lookups of its own, for another
    /// runtime. Connections are never more than there may be together; of lookups it has as many again.
    #[must_use]
    pub fn apart(&self, network: Arc<dyn Network>) -> Self {
        let connector = self.connector.over(network);
        let (tls, roots) = (Arc::clone(&self.tls), Arc::clone(&self.roots));
        Self::with(connector, self.policy, tls, roots)
    }

    /// How many connections there are now, those of clients that were made [`apart`](Self::apart)
    /// included.
    #[must_use]
    pub fn connections(&self) -> ConnectionLevels {
        self.connector.connections().levels()
    }

    /// How many names are being resolved now, those of clients that were made [`apart`](Self::apart)
    /// and those that nobody waits for any more included.
    #[must_use]
    pub fn lookups(&self) -> usize {
        self.connector.lookups().under_way()
    }

    /// One of at most so many connections, to any address.
    #[cfg(test)]
    pub(crate) fn at_most(connections: usize, policy: EgressPolicy) -> Result<Self, SendError> {
        let network = Arc::new(SystemNetwork::default());
        let connector = GuardedConnector::at_most(connections, policy, network);
        Self::by(connector, policy, &[])
    }

    /// What this client may connect to.
    #[must_use]
    pub fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// Sends one POST and reads at most `limit_bytes` of the answer's body. `deadline` covers all
    /// of it: DNS, connect, TLS, head and body. A body beyond the limit is not read on: the
    /// connection is closed.
    ///
    /// # Errors
    /// See [`SendError`]. Every status is an answer, not an error.
    pub fn post(
        &self,
        target: &Target,
        post: Post,
        limit_bytes: usize,
        deadline: Duration,
    ) -> impl Future<Output = Result<Answer, SendError>> + Send + use<> {
        let request = request(target, post);
        let http = match &target.tls {
            None => Ok(self.http.clone()),
            Some(profile) => self.profiles.client(profile),
        };
        let owner = Arc::clone(&target.owner);
        async move {
            let http = http?;
            let exchange = async {
                let response = http.request(request).await.map_err(fault)?;
                let seat = response.extensions().get::<Seat>().cloned();
                let seat = seat.map(|seat| (seat.writes(), seat));
                let answer = read(response, limit_bytes).await?;
                if let Some((writes, seat)) = seat {
                    seat.rest(writes);
                }
                Ok(answer)
            };
            let exchange = connections::owned(Owner::new(owner, deadline), exchange);
            timeout_at(Instant::now() + deadline, Box::pin(exchange))
                .await
                .unwrap_or(Err(SendError::Timeout(deadline)))
        }
    }
}

impl fmt::Debug for EgressClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressClient")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

fn request(target: &Target, post: Post) -> Request<Full<Bytes>> {
    let id = post.event_id.hyphenated().to_string();
    let by_secret = |secret: &Vec<u8>| signing::sign(secret, &id, post.unix_seconds, &post.body);
    let by_key = |key: &SigningKey| key.sign(&id, post.unix_seconds, &post.body);
    let signatures: Vec<String> = target
        .secrets
        .iter()
        .map(by_secret)
        .chain(target.keys.iter().map(by_key))
        .collect();
    let mut request = Request::new(Full::new(post.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.uri.clone();
    let headers = request.headers_mut();
    for (name, value) in &target.headers {
        headers.insert(name.clone(), value.clone());
    }
    headers.insert(CONTENT_TYPE, JSON.clone());
    headers.insert(USER_AGENT, AGENT.clone());
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    insert_text(headers, &WEBHOOK_ID, &id);
    insert_text(headers, &WEBHOOK_TIMESTAMP, &post.unix_seconds.to_string());
    if !signatures.is_empty() {
        insert_text(headers, &WEBHOOK_SIGNATURE, &signatures.join(" "));
    }
    if post.gap {
        headers.insert(WEBHOOK_GAP.clone(), TRUE.clone());
    }
    request
}

/// For texts of our own making, which are ASCII.
fn insert_text(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name.clone(), value);
    }
}

async fn read(response: Response<Incoming>, limit_bytes: usize) -> Result<Answer, SendError> {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    let mut truncated = false;
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_| SendError::CutOff)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = limit_bytes.saturating_sub(body.len());
        truncated = data.len() > room;
        body.extend_from_slice(data.get(..room).unwrap_or(&data));
        if truncated {
            break;
        }
    }
    Ok(Answer {
        status,
        retry_after,
        body,
        truncated,
    })
}

/// Finds out what a failed request means from the chain of its causes.
fn fault(error: legacy::Error) -> SendError {
    let connecting = error.is_connect();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    let mut kind = None;
    while let Some(current) = cause {
        if let Some(fault) = current.downcast_ref::<ConnectFault>() {
            return match fault {
                ConnectFault::Url(fault) => SendError::Url(*fault),
                ConnectFault::Refused(reason) => {
                    SendError::Refused(format!("the name resolves to a {reason} address only"))
                }
                ConnectFault::Full => SendError::Full,
                ConnectFault::Unresolved | ConnectFault::Io(_) => {
                    SendError::Connect(fault.to_string())
                }
            };
        }
        if let Some(tls) = rustls_error(current) {
            return SendError::Tls(tls.to_string());
        }
        if let Some(hyper) = current.downcast_ref::<hyper::Error>() {
            if hyper.is_parse() {
                return SendError::NotHttp;
            }
            if hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed() {
                return SendError::Closed;
            }
        }
        if let Some(io) = current.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
        }
        cause = current.source();
    }
    match kind {
        Some(kind) if connecting => SendError::Connect(format!("no connection: {kind}")),
        None if connecting => SendError::Connect("no connection".to_owned()),
        Some(_) | None => SendError::Closed,
    }
}

/// An `io::Error` hides the error that it wraps from `source`.
fn rustls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    let mut inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    loop {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        inner = inner.downcast_ref::<io::Error>()?.get_ref()?;
    }
}
