//! A made-up authority, what it signs, and a receiver over TLS.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub der: CertificateDer<'static>,
}

/// A certificate and its key.
pub struct Signed {
    pub der: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "the authority of a test");
        params.distinguished_name = name;
        let der = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    pub fn sign(&self, host: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed {
            der: certificate.der().clone(),
            key: key.serialize_der(),
        }
    }

    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    /// A server as `127.0.0.1`, to which whoever connects has to show one of `demanded`.
    pub fn acceptor(&self, demanded: Option<&Self>) -> TlsAcceptor {
        let own = self.sign("127.0.0.1");
        let key = PrivatePkcs8KeyDer::from(own.key.clone()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match demanded {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let config = config.with_single_cert(vec![own.der], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Signed {
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }
}

pub fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN {what}-----\n{lines}\n-----END {what}-----\n")
}

/// A request, and who sent it.
#[derive(Clone, Debug)]
pub struct Told {
    pub head: String,
    pub certificate: Option<CertificateDer<'static>>,
}

/// A receiver on loopback that speaks TLS only.
pub struct TlsReceiver {
    pub url: String,
    pub connections: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl TlsReceiver {
    /// As `127.0.0.1`, with a certificate of `of`; who connects has to show one of `demanded`. Each
    /// request is answered with this body.
    pub async fn start(of: &Authority, demanded: Option<&Authority>, answer: &str) -> Self {
        let acceptor = of.acceptor(demanded);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("https://{}/hook", listener.local_addr().unwrap()),
            connections: Arc::default(),
            told: Arc::default(),
        };
        let (connections, told) = (
            Arc::clone(&receiver.connections),
            Arc::clone(&receiver.told),
        );
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, told, answer) =
                    (acceptor.clone(), Arc::clone(&told), answer.clone());
                tokio::spawn(async move {
                    // Whoever is refused, or goes, ends here.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = serve(stream, &told, &answer).await;
                    }
                });
            }
        });
        receiver
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TlsStream<TcpStream>,
    told: &Mutex<Vec<Told>>,
    answer: &str,
) -> io::Result<()> {
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().map(|chain| chain[0].clone());
    let certificate = shown.map(CertificateDer::into_owned);
    let mut read = Vec::new();
    loop {
        let Some(end) = read.windows(4).position(|it| it == b"\r\n\r\n") else {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|it| it.strip_prefix("content-length: "));
        let whole = end + 4 + length.map_or(0, |it| it.parse().unwrap());
        while read.len() < whole {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        read.drain(..whole);
        told.lock().unwrap().push(Told {
            head,
            certificate: certificate.clone(),
        });
        stream.write_all(answer.as_bytes()).await?;
    }
}
