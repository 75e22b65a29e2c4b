//! TLS as an endpoint has set it: whom it trusts and who it says that we are. Read from PEM, checked,
//! and made into what a connection uses.
//!
//! What lives elsewhere: the clients made of it (`profiles`), keeping it (`maskline-store`).

use std::sync::Arc;

use maskline_store::{SettingsFault, TlsSettings};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use crate::client::SendError;

/// Longest PEM of each field, bytes.
pub const MAX_PEM_BYTES: usize = 16 * 1024;

const CA: &str = "tls.ca";
const CERTIFICATE: &str = "tls.clientCertificate";
const KEY: &str = "tls.clientKey";

/// Checks what is to be set: that all of it can be read, and that key and certificate belong together.
///
/// # Errors
/// The field and what is wrong with it. Repeats nothing of the PEM.
pub fn check_tls(tls: &TlsSettings, client_key: Option<&str>) -> Result<(), SettingsFault> {
    let profile = TlsProfile::new(tls.clone(), client_key.map(str::to_owned));
    for (field, pem) in [
        (CA, profile.tls.ca.as_deref()),
        (CERTIFICATE, profile.tls.client_certificate.as_deref()),
        (KEY, profile.client_key.as_deref()),
    ] {
        if pem.is_some_and(|pem| pem.len() > MAX_PEM_BYTES) {
            let reason = format!("is above {MAX_PEM_BYTES} bytes");
            return Err(SettingsFault::new(field, reason));
        }
    }
    profile.config(&Arc::new(RootCertStore::empty())).map(drop)
}

/// The TLS settings of an endpoint. Two that are equal may share connections. No `Debug`: it holds a
/// key.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TlsProfile {
    tls: TlsSettings,
    client_key: Option<String>,
}

impl TlsProfile {
    pub(crate) const fn new(tls: TlsSettings, client_key: Option<String>) -> Self {
        Self { tls, client_key }
    }

    /// What a connection uses. `system`: the roots if none of its own are set.
    pub(crate) fn config(
        &self,
        system: &Arc<RootCertStore>,
    ) -> Result<ClientConfig, SettingsFault> {
        let roots = match &self.tls.ca {
            Some(pem) => Arc::new(roots(pem)?),
            None => Arc::clone(system),
        };
        let verified = builder()
            .map_err(|_| SettingsFault::new("tls", "can't be set up"))?
            .with_root_certificates(roots);
        match (&self.tls.client_certificate, &self.client_key) {
            (None, None) => Ok(verified.with_no_client_auth()),
            (Some(_), None) => Err(SettingsFault::new(
                KEY,
                "is missing: a client certificate needs its key",
            )),
            (None, Some(_)) => Err(SettingsFault::new(
                CERTIFICATE,
                "is missing: a client key needs its certificate",
            )),
            (Some(chain), Some(key)) => {
                let chain = certificates(CERTIFICATE, chain)?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| {
                    SettingsFault::new(
                        KEY,
                        "holds no private key in PEM; one that is encrypted can't be used",
                    )
                })?;
                verified
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| unusable(&error))
            }
        }
    }
}

/// What all connections begin with.
pub(crate) fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, SendError> {
    let provider = rustls::crypto::ring::default_provider();
    ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| SendError::Tls(error.to_string()))
}

fn unusable(error: &rustls::Error) -> SettingsFault {
    // Its own text is for programmers, and may name what the certificate holds.
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        let reason = "is not the key of the first certificate in tls.clientCertificate";
        return SettingsFault::new(KEY, reason);
    }
    if matches!(error, rustls::Error::InvalidCertificate(_)) {
        let reason = "begins with a certificate that can't be read";
        return SettingsFault::new(CERTIFICATE, reason);
    }
    SettingsFault::new(
        KEY,
        "is of a kind that can't be used: take RSA, ECDSA or Ed25519",
    )
}

fn roots(pem: &str) -> Result<RootCertStore, SettingsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA, pem)? {
        roots
            .add(certificate)
            .map_err(|_| SettingsFault::new(CA, "holds a certificate that can't be read"))?;
    }
    Ok(roots)
}

fn certificates(field: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, SettingsFault> {
    // What is set here is shown.
    if pem.contains("PRIVATE KEY-----") {
        let reason = format!("holds a private key, which only {KEY} may");
        return Err(SettingsFault::new(field, reason));
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(SettingsFault::new(
            field,
            "holds no certificates in PEM (-----BEGIN CERTIFICATE-----)",
        )),
    }
}
