//! What TLS means for a trunk: which certificate makes a connection the carrier's, and how calls
//! are addressed. Files, keys and handshakes are the shell's.

use std::fmt;
use std::str::FromStr;

/// The SHA-256 of a whole certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    /// 64 hexadecimal digits, in pairs with colons between them or without.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits: Vec<char> = text.chars().filter(|digit| *digit != ':').collect();
        if digits.len() != 64 {
            return Err(());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = digit
                    .to_digit(16)
                    .and_then(|value| u8::try_from(value).ok());
                *byte = *byte << 4 | value.ok_or(())?;
            }
        }
        Ok(Self(bytes))
    }
}

/// What a TLS peer showed of itself, and proved to hold the key of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its subject alternative names: DNS names, and hosts of `sip:` URIs (RFC 5922 §7.1). Empty
    /// unless an authority that we trust signed it.
    pub names: Vec<String>,
    /// Its fingerprint; a self-signed one has it as well.
    pub fingerprint: Fingerprint,
}

/// TLS on a trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrunkTls {
    /// Whether calls go out to a `sips:` URI (RFC 5630).
    pub sips: bool,
    /// Names of which a client certificate must hold one for its connection to be this trunk's.
    pub client_names: Vec<String>,
    /// Certificates of which a client must hold one for its connection to be this trunk's.
    pub client_fingerprints: Vec<Fingerprint>,
}

impl TrunkTls {
    /// Whether this trunk is known by certificates.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        !self.client_names.is_empty() || !self.client_fingerprints.is_empty()
    }

    /// Whether a certificate makes its connection this trunk's. Names are compared whole: a
    /// wildcard is no identity of a SIP domain (RFC 5922 §7.2).
    #[must_use]
    pub fn is_client(&self, certificate: &PeerCertificate) -> bool {
        let named = |name: &String| {
            let is = |held: &String| held.eq_ignore_ascii_case(name);
            certificate.names.iter().any(is)
        };
        self.client_names.iter().any(named)
            || self.client_fingerprints.contains(&certificate.fingerprint)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_with_and_without_colons_and_nothing_else() {
        let plain = "0f".repeat(32);
        let colons = vec!["0F"; 32].join(":");
        let read: Fingerprint = plain.parse().unwrap();
        assert_eq!(read, colons.parse().unwrap());
        assert_eq!(read.to_string(), plain);
        for wrong in ["", "0f", &"0g".repeat(32), &"0f".repeat(33)] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_is_a_trunk_s_by_a_whole_name_or_its_fingerprint() {
        let tls = TrunkTls {
            client_names: vec!["sip.carrier.example".to_owned()],
            client_fingerprints: vec![Fingerprint([7; 32])],
            ..TrunkTls::default()
        };
        let certificate = |names: &[&str], byte| PeerCertificate {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            fingerprint: Fingerprint([byte; 32]),
        };
        assert!(tls.is_client(&certificate(&["x.example", "SIP.carrier.example"], 1)));
        assert!(tls.is_client(&certificate(&[], 7)));
        assert!(!tls.is_client(&certificate(&["*.carrier.example", "carrier.example"], 1)));
        assert!(!TrunkTls::default().is_client(&certificate(&["a.example"], 7)));
        assert!(tls.has_clients() && !TrunkTls::default().has_clients());
    }
}
