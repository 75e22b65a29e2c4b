//! The asymmetric version `v1a` of the Standard Webhooks scheme: Ed25519 (RFC 8032) over the same
//! `id.timestamp.body`. Whoever can check such a signature can make none.
//!
//! What lives elsewhere: where the private keys come from (`maskline-store`).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};

/// What a public key starts with when it is written for people.
pub const PUBLIC_KEY_PREFIX: &str = "whpk_";
/// What a signature of this version starts with.
pub(super) const VERSION: &str = "v1a,";

/// A private key. No `Debug`; wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of these 32 random bytes (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// What its signatures are checked with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// One signature as the header carries it: `v1a,` and base64.
    #[must_use]
    pub fn sign(&self, webhook_id: &str, unix_seconds: i64, body: &[u8]) -> String {
        let message = message(webhook_id, &unix_seconds.to_string(), body);
        let signature = self.0.sign(&message).to_bytes();
        format!("{VERSION}{}", STANDARD.encode(signature))
    }
}

/// A public key; written `whpk_` and base64 of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A text that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key is whpk_ and base64 of the 32 bytes of an Ed25519 key")]
pub struct PublicKeyError;

impl PublicKey {
    /// Whether the base64 of a `v1a` signature is one over this message. What RFC 8032 leaves open is
    /// read strictly.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PUBLIC_KEY_PREFIX}{}",
            STANDARD.encode(self.0.as_bytes())
        )
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let encoded = text.strip_prefix(PUBLIC_KEY_PREFIX).ok_or(PublicKeyError)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| PublicKeyError)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| PublicKeyError)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| PublicKeyError)?;
        // One of the few keys for which anybody can sign.
        if key.is_weak() {
            return Err(PublicKeyError);
        }
        Ok(Self(key))
    }
}

/// `id.timestamp.body`
pub(super) fn message(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// RFC 8032 §7.1, tests 1 and 2: seed and public key.
    const VECTORS: [(&str, &str); 2] = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
    ];

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|at| {
            let digits = hex.get(2 * at..2 * at + 2).unwrap();
            u8::from_str_radix(digits, 16).unwrap()
        })
    }

    #[test]
    fn keys_are_those_of_the_rfc() {
        for (seed, public) in VECTORS {
            let key = SigningKey::from_seed(&bytes(seed)).public_key();
            let text = format!("whpk_{}", STANDARD.encode(bytes(public)));
            assert_eq!(key.to_string(), text);
            assert_eq!(text.parse(), Ok(key));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let weak = format!("whpk_{}", STANDARD.encode([0; 32]));
        for text in [
            "",
            "whpk_",
            "whpk_%",
            "whpk_AAAA",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &weak,
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(PublicKeyError), "{text}");
        }
    }
}
