//! Certificates and keys from files to what a handshake needs.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use maskline_switch::sip::Transport;
use maskline_switch::{Trunk, TrunkAddress};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::clients::Clients;
use super::{TlsConfig, TlsFault, TlsFile, TlsIdentity, TlsServer, TlsTrunk, validity};

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Everything that handshakes need, as it was read at one time.
#[derive(Debug)]
pub(crate) struct Material {
    pub(super) server: Option<Arc<ServerConfig>>,
    pub(super) clients: Option<Arc<Clients>>,
    /// By trunk; `None` where there is nobody to trust.
    pub(super) connectors: Vec<Option<Connector>>,
    /// When each certificate of ours ends, since 1970.
    pub(super) expiry: Vec<(TlsFile, Duration)>,
}

/// How to connect to a trunk.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
    pub(super) trunk: Arc<str>,
}

impl Material {
    pub(super) fn load(config: &TlsConfig, trunks: &[Trunk]) -> Result<Self, TlsFault> {
        let provider = Arc::new(ring::default_provider());
        let mut expiry = Vec::new();
        let (server, clients) = match &config.server {
            Some(server) => {
                let (server, clients) = load_server(server, trunks, &provider, &mut expiry)?;
                (Some(server), Some(clients))
            }
            None => (None, None),
        };
        let speaks = |trunk: &Trunk| trunk.transport == Transport::Tls;
        let mut connectors = Vec::new();
        if server.is_some() || trunks.iter().any(speaks) {
            let ours = TlsTrunk::default();
            let mut system = None;
            for (at, trunk) in trunks.iter().enumerate() {
                let files = config.trunks.get(at).unwrap_or(&ours);
                let connector = load_trunk(files, trunk, &provider, &mut system, &mut expiry)?;
                if connector.is_none() && speaks(trunk) {
                    return Err(TlsFault {
                        key: format!("[[trunk]] {:?} tls.ca", trunk.name),
                        file: None,
                        reason: "must be set: this machine has no root certificates (install \
                                 ca-certificates, or set SSL_CERT_FILE)"
                            .to_owned(),
                    });
                }
                connectors.push(connector);
            }
        }
        Ok(Self {
            server,
            clients,
            connectors,
            expiry,
        })
    }
}

fn load_server(
    files: &TlsServer,
    trunks: &[Trunk],
    provider: &Arc<CryptoProvider>,
    expiry: &mut Vec<(TlsFile, Duration)>,
) -> Result<(Arc<ServerConfig>, Arc<Clients>), TlsFault> {
    let default = identity(&files.identity, provider, expiry)?;
    let hosts = files
        .hosts
        .iter()
        .map(|(name, files)| Ok((name.clone(), identity(files, provider, expiry)?)))
        .collect::<Result<_, TlsFault>>()?;
    let clients = Arc::new(Clients {
        authorities: files.client_ca.as_ref().map(authorities).transpose()?,
        fingerprints: trunks
            .iter()
            .flat_map(|trunk| trunk.tls.client_fingerprints.iter().copied())
            .collect(),
        algorithms: provider.signature_verification_algorithms,
    });
    let config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::of(&files.identity.certificate, error.to_string()))?;
    let mut config = config
        .with_client_cert_verifier(Arc::clone(&clients) as _)
        .with_cert_resolver(Arc::new(ByName { default, hosts }));
    // Connections live long, and a resumed one would not show its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), clients))
}

/// `system` keeps the operating system's roots once they were needed.
fn load_trunk(
    files: &TlsTrunk,
    trunk: &Trunk,
    provider: &Arc<CryptoProvider>,
    system: &mut Option<Arc<RootCertStore>>,
    expiry: &mut Vec<(TlsFile, Duration)>,
) -> Result<Option<Connector>, TlsFault> {
    let roots = match &files.ca {
        Some(file) => Arc::new(authorities(file)?),
        None => Arc::clone(system.get_or_insert_with(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        })),
    };
    if roots.is_empty() {
        return Ok(None);
    }
    let key = |name: &str| format!("[[trunk]] {:?} tls.{name}", trunk.name);
    let server_name = match &files.server_name {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| TlsFault {
            key: key("server_name"),
            file: None,
            reason: format!("{name:?} is neither a host name nor an IP address"),
        })?,
        None => match &trunk.address {
            TrunkAddress::Fixed(addr) => ServerName::from(addr.ip().to_canonical()),
            // The name that is configured, not what DNS makes of it (RFC 5922 §4).
            TrunkAddress::Name { host, .. } => {
                ServerName::try_from(host.clone()).map_err(|_| TlsFault {
                    key: format!("[[trunk]] {:?} address", trunk.name),
                    file: None,
                    reason: format!("{host:?} can't stand in a certificate"),
                })?
            }
        },
    };
    let fault = |error: rustls::Error| TlsFault {
        key: key("certificate"),
        file: None,
        reason: error.to_string(),
    };
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(fault)?
        .with_root_certificates(roots);
    let mut config = match &files.identity {
        Some(files) => {
            let identity = identity(files, provider, expiry)?;
            let shown = SingleCertAndKey::from(Arc::unwrap_or_clone(identity));
            config.with_client_cert_resolver(Arc::new(shown))
        }
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Some(Connector {
        config: Arc::new(config),
        server_name,
        trunk: trunk.name.as_str().into(),
    }))
}

/// A certificate by the host that the client names.
#[derive(Debug)]
struct ByName {
    default: Arc<CertifiedKey>,
    hosts: Vec<(String, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|asked| {
            let mut hosts = self.hosts.iter();
            hosts.find(|(name, _)| name.eq_ignore_ascii_case(asked))
        });
        let identity = named.map_or(&self.default, |(_, identity)| identity);
        Some(Arc::clone(identity))
    }
}

fn identity(
    files: &TlsIdentity,
    provider: &CryptoProvider,
    expiry: &mut Vec<(TlsFile, Duration)>,
) -> Result<Arc<CertifiedKey>, TlsFault> {
    let chain = certificates(&files.certificate)?;
    let ends = chain.first().and_then(|it| validity::not_after(it));
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| TlsFault::of(&files.key, unreadable(&error, "unencrypted private key")))?;
    let identity = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            let certificate = files.certificate.path.display();
            TlsFault::of(
                &files.key,
                format!("is not the key of the certificate {certificate}"),
            )
        } else if matches!(error, rustls::Error::InvalidCertificate(_)) {
            TlsFault::of(&files.certificate, error.to_string())
        } else {
            TlsFault::of(&files.key, format!("can't be used: {error}"))
        }
    })?;
    if let Some(ends) = ends {
        expiry.push((files.certificate.clone(), ends));
    }
    Ok(Arc::new(identity))
}

fn authorities(file: &TlsFile) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| TlsFault::of(file, format!("holds no usable certificate: {error}")))?;
    }
    Ok(roots)
}

fn certificates(file: &TlsFile) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let bytes = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| TlsFault::of(file, unreadable(&error, "certificate")))?;
    if found.is_empty() {
        return Err(TlsFault::of(file, "holds no certificate in PEM"));
    }
    Ok(found)
}

fn unreadable(error: &pem::Error, what: &str) -> String {
    if matches!(error, pem::Error::NoItemsFound) {
        format!("holds no {what} in PEM")
    } else {
        format!("is not PEM: {error}")
    }
}

fn read(file: &TlsFile) -> Result<Vec<u8>, TlsFault> {
    let mut bytes = Vec::new();
    File::open(&file.path)
        .and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| TlsFault::of(file, format!("can't be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsFault::of(file, "is larger than 1 MiB"));
    }
    Ok(bytes)
}
