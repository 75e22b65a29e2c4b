//! TLS for programs that speak none, as stunnel does it: bytes go through as they are.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A tunnel; it ends when it is dropped.
#[derive(Debug)]
pub struct Tunnel(JoinHandle<()>);

impl Tunnel {
    /// Takes TCP, and connects by TLS from the same address, verifying the name.
    pub async fn into_tls(from: SocketAddr, to: SocketAddr, name: &str, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let listener = TcpListener::bind(from).await.unwrap();
        Self(tokio::spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let (connector, name) = (connector.clone(), name.clone());
                tokio::spawn(async move {
                    let socket = TcpSocket::new_v4()?;
                    socket.bind(SocketAddr::new(from.ip(), 0))?;
                    let stream = socket.connect(to).await?;
                    let mut secured = connector.connect(name, stream).await?;
                    copy_bidirectional(&mut plain, &mut secured).await
                });
            }
        }))
    }

    /// Takes TLS with the certificate in `PATH.pem` and `PATH.key`, and connects by TCP.
    pub async fn out_of_tls(from: SocketAddr, to: SocketAddr, pair: &Path) -> Self {
        let certificate = CertificateDer::from_pem_file(pair.with_extension("pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(pair.with_extension("key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(from).await.unwrap();
        Self(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut secured = acceptor.accept(stream).await?;
                    let mut plain = TcpStream::connect(to).await?;
                    copy_bidirectional(&mut plain, &mut secured).await
                });
            }
        }))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.abort();
    }
}
