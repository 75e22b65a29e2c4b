//! Who a TLS client is: its certificate is asked for, never demanded.
//!
//! With authorities configured, one that is shown must verify. A certificate serves a SIP element
//! as client and as server (RFC 5922 §4, RFC 5924 §3), so that either key usage is accepted.

use std::sync::Arc;

use maskline_switch::{Fingerprint, PeerCertificate};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage};

/// Checks what clients show.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) authorities: Option<RootCertStore>,
    pub(super) fingerprints: Vec<Fingerprint>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Clients {
    /// What a client that passed the handshake is known by.
    pub(super) fn identify(&self, certificate: &CertificateDer<'_>) -> PeerCertificate {
        let fingerprint = fingerprint(certificate);
        // A certificate that is known by its fingerprint was not verified further: what it says of
        // itself means nothing.
        let verified = self.authorities.is_some() && !self.fingerprints.contains(&fingerprint);
        PeerCertificate {
            names: if verified {
                names(certificate)
            } else {
                Vec::new()
            },
            fingerprint,
        }
    }
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.authorities.is_some() || !self.fingerprints.is_empty()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client shows what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.fingerprints.contains(&fingerprint(end_entity)) {
            return Ok(ClientCertVerified::assertion());
        }
        let Some(authorities) = &self.authorities else {
            // It is nobody that we know, as one that shows nothing.
            return Ok(ClientCertVerified::assertion());
        };
        let certificate = EndEntityCert::try_from(end_entity).map_err(why)?;
        let verify = |usage| {
            certificate.verify_for_usage(
                self.algorithms.all,
                &authorities.roots,
                intermediates,
                now,
                usage,
                None,
                None,
            )
        };
        verify(KeyUsage::client_auth())
            .or_else(|_| verify(KeyUsage::server_auth()))
            .map_err(why)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn why(error: webpki::Error) -> Error {
    let reason = if matches!(error, webpki::Error::CertExpired { .. }) {
        CertificateError::Expired
    } else if matches!(error, webpki::Error::UnknownIssuer) {
        CertificateError::UnknownIssuer
    } else {
        CertificateError::Other(OtherError(Arc::new(error)))
    };
    Error::InvalidCertificate(reason)
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Fingerprint(Sha256::digest(certificate).into())
}

/// DNS names, and the hosts of `sip:` URIs that have nothing else (RFC 5922 §7.1).
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let of_uri = |uri: &str| {
        let (scheme, host) = uri.split_once(':')?;
        let plain = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        (scheme.eq_ignore_ascii_case("sip") && plain).then(|| host.to_owned())
    };
    let uris = certificate.valid_uri_names().filter_map(of_uri);
    let dns = certificate.valid_dns_names().map(str::to_owned);
    dns.chain(uris).collect()
}
