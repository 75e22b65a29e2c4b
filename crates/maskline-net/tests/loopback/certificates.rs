//! A made-up authority, what it signs, and TLS phones.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maskline_net::{TlsFile, TlsIdentity};
use maskline_switch::sip::framing::{Frame, StreamFramer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::phone::Phone;
use crate::world::PATIENCE;

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    format!(
        "-----BEGIN {what}-----\n{}\n-----END {what}-----\n",
        lines.join("\n")
    )
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pair {
    pub fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Self {
            certificate: pem("CERTIFICATE", params.self_signed(&key).unwrap().der()),
            key: pem("PRIVATE KEY", &key.serialize_der()),
        }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// Signs certificates.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// For host names or IP addresses.
    pub fn sign(&self, names: &[&str]) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        self.signed(CertificateParams::new(names).unwrap())
    }

    pub fn signed(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: pem(
                "CERTIFICATE",
                params.signed_by(&key, &self.issuer).unwrap().der(),
            ),
            key: pem("PRIVATE KEY", &key.serialize_der()),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(der).unwrap();
        roots
    }
}

/// Files as an operator has them.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str, text: &str) -> TlsFile {
        let path: PathBuf = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        TlsFile {
            key: format!("the key of {name}"),
            path,
        }
    }

    pub fn identity(&self, name: &str, pair: &Pair) -> TlsIdentity {
        TlsIdentity {
            certificate: self.file(&format!("{name}.pem"), &pair.certificate),
            key: self.file(&format!("{name}.key"), &pair.key),
        }
    }
}

/// A phone on TLS, whichever side opened the connection.
pub struct Secured {
    stream: TlsStream<TcpStream>,
    framer: StreamFramer,
}

impl Secured {
    /// Connects from an address, trusting an authority, and showing a certificate if there is one.
    pub async fn open(
        from: IpAddr,
        switch: SocketAddr,
        name: &str,
        authority: &Authority,
        shows: Option<&Pair>,
    ) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let stream = socket.connect(switch).await?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(authority.roots());
        let config = match shows {
            Some(pair) => config
                .with_client_auth_cert(vec![pair.der()], pair.key_der())
                .unwrap(),
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        Ok(Self::over(stream.into()))
    }

    /// Takes a connection; with an authority, a client's certificate is demanded.
    pub async fn take(
        listener: &TcpListener,
        pair: &Pair,
        clients: Option<&Authority>,
    ) -> std::io::Result<Self> {
        let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept())
            .await
            .unwrap()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match clients {
            Some(authority) => config.with_client_cert_verifier(
                rustls::server::WebPkiClientVerifier::builder_with_provider(
                    authority.roots().into(),
                    provider,
                )
                .build()
                .unwrap(),
            ),
            None => config.with_no_client_auth(),
        };
        let config = config
            .with_single_cert(vec![pair.der()], pair.key_der())
            .unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        Ok(Self::over(stream.into()))
    }

    fn over(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            framer: StreamFramer::default(),
        }
    }

    pub fn via(&self) -> String {
        format!("TLS {}", self.local())
    }

    /// The certificate that the other side showed.
    pub fn shown(&self) -> CertificateDer<'static> {
        let shown = self.stream.get_ref().1.peer_certificates().unwrap();
        shown[0].clone().into_owned()
    }

    /// Reads exactly so many bytes.
    pub async fn hear_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        bytes
    }

    /// Says goodbye, and waits for the other side to do so.
    pub async fn close(mut self) {
        self.stream.shutdown().await.unwrap();
        self.is_closed().await;
    }

    /// Waits for the other side to close.
    pub async fn is_closed(&mut self) {
        let mut buffer = [0; 4_096];
        let closing = async { while matches!(self.stream.read(&mut buffer).await, Ok(1..)) {} };
        tokio::time::timeout(PATIENCE, closing).await.unwrap();
    }
}

impl Phone for Secured {
    fn local(&self) -> SocketAddr {
        self.stream.get_ref().0.local_addr().unwrap()
    }

    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn hear(&mut self) -> String {
        let mut chunk = [0; 4_096];
        loop {
            match self.framer.next_frame().unwrap() {
                Some(Frame::Message(message)) => {
                    return String::from_utf8(message.to_vec()).unwrap();
                }
                Some(Frame::Ping | Frame::Pong) => continue,
                None => {}
            }
            let bytes = self.stream.read(&mut chunk).await.unwrap();
            assert!(bytes > 0, "the switch closed the connection");
            self.framer.push(&chunk[..bytes]);
        }
    }
}
