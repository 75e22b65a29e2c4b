//! A made-up authority; what it signs lies in files as an operator has them.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Signs certificates.
pub struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Writes its certificate to `NAME.pem`.
    pub fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = named("the authority of a test");
        let certificate = params.self_signed(&key).unwrap();
        write(
            folder,
            &format!("{name}.pem"),
            "CERTIFICATE",
            certificate.der(),
        );
        Self(Issuer::new(params, key))
    }

    /// Signs for a host, and writes `NAME.pem` and `NAME.key`.
    pub fn sign(&self, folder: &Path, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name = named(host);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        write(
            folder,
            &format!("{name}.pem"),
            "CERTIFICATE",
            certificate.der(),
        );
        write(
            folder,
            &format!("{name}.key"),
            "PRIVATE KEY",
            &key.serialize_der(),
        );
    }
}

/// OpenSSL takes a certificate of its issuer's name for a self-signed one.
fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn write(folder: &Path, file: &str, what: &str, der: &[u8]) {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let pem = format!(
        "-----BEGIN {what}-----\n{}\n-----END {what}-----\n",
        lines.join("\n")
    );
    fs::write(folder.join(file), pem).unwrap();
}
