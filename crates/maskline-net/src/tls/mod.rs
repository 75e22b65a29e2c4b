//! TLS under SIP (RFC 3261 §26.3.1, RFC 5922): certificates, who a client is, and a new
//! certificate without a restart.
//!
//! A connection keeps what it was made with; after a reload, new handshakes use what is new. What
//! can't be read leaves everything as it was.

mod clients;
mod handshake;
mod load;
mod validity;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maskline_switch::{PeerCertificate, Target, Trunk, TrunkId, TrunkTargets};
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

pub(crate) use handshake::{Handshake, Handshakes, accept, connect};
pub(crate) use load::{Connector, Material};

/// How often the files are looked at for a change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A certificate that ends sooner is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// A file, and the configuration's key that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFile {
    /// The key, as an error names it: `[sip.tls] certificate`.
    pub key: String,
    /// The file, in PEM.
    pub path: PathBuf,
}

/// A certificate with its chain, and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate first, then those that lead to its authority.
    pub certificate: TlsFile,
    /// The key, unencrypted.
    pub key: TlsFile,
}

/// What our TLS listeners show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsServer {
    /// Shown to a client that names no host, or an unknown one.
    pub identity: TlsIdentity,
    /// Shown to a client that names this host (SNI).
    pub hosts: Vec<(String, TlsIdentity)>,
    /// Authorities of clients. With it, a certificate that a client shows must be of one of them,
    /// or known by its fingerprint.
    pub client_ca: Option<TlsFile>,
}

/// How we connect to a trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsTrunk {
    /// The name that the carrier's certificate must hold; without it, that of the trunk, or its IP
    /// address.
    pub server_name: Option<String>,
    /// Authorities of the carrier's certificate; without it, the operating system's.
    pub ca: Option<TlsFile>,
    /// What we show when the carrier asks for a certificate.
    pub identity: Option<TlsIdentity>,
}

/// All that TLS needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// For our listeners; needed as soon as one of them speaks TLS.
    pub server: Option<TlsServer>,
    /// By trunk, in the configuration's order; those that are missing have the defaults.
    pub trunks: Vec<TlsTrunk>,
}

/// What is wrong with a certificate, a key, or a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default())]
pub struct TlsFault {
    /// The configuration's key.
    pub key: String,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub reason: String,
}

impl TlsFault {
    fn of(file: &TlsFile, reason: impl Into<String>) -> Self {
        Self {
            key: file.key.clone(),
            file: Some(file.path.clone()),
            reason: reason.into(),
        }
    }
}

impl TlsConfig {
    /// Reads every file and throws it away again: what [`crate::SipNode::start`] would say.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self, trunks: &[Trunk]) -> Result<(), TlsFault> {
        Material::load(self, trunks).map(drop)
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let server = self.server.iter().flat_map(|server| {
            let hosts = server.hosts.iter().map(|(_, identity)| identity);
            let identities = std::iter::once(&server.identity).chain(hosts);
            identities
                .flat_map(|identity| [&identity.certificate, &identity.key])
                .chain(&server.client_ca)
        });
        let trunks = self.trunks.iter().flat_map(|trunk| {
            let identity = trunk.identity.iter();
            identity
                .flat_map(|identity| [&identity.certificate, &identity.key])
                .chain(&trunk.ca)
        });
        server.chain(trunks).map(|file| file.path.as_path())
    }

    /// What changes when a file does; a file that is gone changes it as well.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        self.files()
            .map(|path| {
                let metadata = std::fs::metadata(path).ok()?;
                Some((metadata.modified().ok()?, metadata.len()))
            })
            .collect()
    }
}

/// The certificates in use.
#[derive(Debug)]
pub(crate) struct Tls {
    config: TlsConfig,
    trunks: Arc<[Trunk]>,
    /// Where those can be reached.
    targets: RwLock<Arc<TrunkTargets>>,
    current: RwLock<Arc<Material>>,
}

impl Tls {
    pub(crate) fn load(config: TlsConfig, trunks: Arc<[Trunk]>) -> Result<Self, TlsFault> {
        let material = Material::load(&config, &trunks)?;
        tell_expiry(&material);
        Ok(Self {
            config,
            targets: RwLock::new(Arc::new(TrunkTargets::configured(&trunks))),
            trunks,
            current: RwLock::new(Arc::new(material)),
        })
    }

    /// Reads the files again. New handshakes use them; on a fault, nothing changes.
    pub(crate) fn reload(&self) -> Result<(), TlsFault> {
        let reloaded = Material::load(&self.config, &self.trunks);
        let result = match &reloaded {
            Ok(_) => "ok",
            Err(_) => "failed",
        };
        metrics::counter!("maskline_sip_tls_reloads_total", "result" => result).increment(1);
        let material = reloaded?;
        tell_expiry(&material);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
        Ok(())
    }

    pub(crate) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.current().server.clone()
    }

    pub(crate) fn current(&self) -> Arc<Material> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// How to connect to an address: as the first TLS trunk there, else as the first trunk that
    /// knows the address. `None`: it is nobody's, or that trunk has nobody to trust.
    pub(crate) fn connector(&self, to: std::net::SocketAddr) -> Option<Connector> {
        use maskline_switch::sip::Transport;
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        let speaks = |target: &Target| target.transport == Transport::Tls;
        let ip = to.ip().to_canonical();
        let ids = || (0..=u16::MAX).map(TrunkId).zip(self.trunks.iter());
        let exactly = |id| targets.of(id).iter().any(|it| speaks(it) && it.addr == to);
        let knows = |id, trunk: &Trunk| targets.has(id, ip) || trunk.allows(ip);
        let (id, _) = ids()
            .find(|(id, _)| exactly(*id))
            .or_else(|| {
                ids().find(|(id, trunk)| {
                    let tls =
                        trunk.transport == Transport::Tls || targets.of(*id).iter().any(speaks);
                    tls && knows(*id, trunk)
                })
            })
            .or_else(|| ids().find(|(id, trunk)| knows(*id, trunk)))?;
        drop(targets);
        self.current().connectors.get(usize::from(id.0))?.clone()
    }

    /// The addresses of trunks changed.
    pub(crate) fn set_targets(&self, targets: Arc<TrunkTargets>) {
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    /// Whether a verified certificate is one that we would accept from the trunk's server.
    pub(crate) fn is_server(&self, trunk: TrunkId, certificate: &PeerCertificate) -> bool {
        let files = self.config.trunks.get(usize::from(trunk.0));
        files
            .and_then(|files| files.server_name.as_deref())
            .is_some_and(|server_name| {
                let is = |name: &String| name.eq_ignore_ascii_case(server_name);
                certificate.names.iter().any(is)
            })
    }

    /// Reloads when a file has changed and rested since, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut loaded = self.config.stamps();
        let mut seen = loaded.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let stamps = self.config.stamps();
            // A certificate and its key are two files: the second may still be on its way.
            if stamps != loaded && stamps == seen {
                loaded.clone_from(&stamps);
                self.reload_and_tell();
            }
            seen = stamps;
        }
    }

    /// [`Self::reload`], and a line in the log of what came of it.
    pub(crate) fn reload_and_tell(&self) {
        match self.reload() {
            Ok(()) => tracing::info!("TLS certificates were read again"),
            Err(fault) => tracing::error!(
                key = fault.key,
                %fault,
                "TLS certificates can't be read again: the earlier ones stay in use"
            ),
        }
    }
}

/// Publishes when each certificate ends, and warns of those that end soon.
fn tell_expiry(material: &Material) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    for (file, not_after) in &material.expiry {
        let name = file.path.display().to_string();
        metrics::gauge!("maskline_sip_tls_certificate_not_after_seconds", "file" => name)
            .set(not_after.as_secs() as f64);
        let left = not_after.saturating_sub(now);
        if left.is_zero() {
            tracing::error!(
                key = file.key,
                file = %file.path.display(),
                "a TLS certificate has expired: peers will refuse it"
            );
        } else if left < WARN_BEFORE {
            tracing::warn!(
                key = file.key,
                file = %file.path.display(),
                days = left.as_secs() / 86_400,
                "a TLS certificate expires soon"
            );
        }
    }
}
