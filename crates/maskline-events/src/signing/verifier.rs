//! Checking webhooks by whichever keys a receiver has: signing secrets, public keys, or both.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ed25519::{PUBLIC_KEY_PREFIX, PublicKey, PublicKeyError, VERSION, message};
use super::{
    DEFAULT_TOLERANCE_SECONDS, SecretError, SignedHeaders, VerifyError, check_time, parse_secret,
    verify,
};

/// Most `v1a` signatures of one header that are looked at; two are sent while keys are rotated.
const MAX_SIGNATURES: usize = 4;

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It begins like a public key.
    #[error(transparent)]
    PublicKey(#[from] PublicKeyError),
    /// It does not.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Checks signatures of both versions. No `Debug`: it may hold secrets.
#[derive(Clone)]
pub struct Verifier {
    secrets: Vec<Vec<u8>>,
    public_keys: Vec<PublicKey>,
    tolerance_seconds: u64,
}

impl Default for Verifier {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            public_keys: Vec::new(),
            tolerance_seconds: DEFAULT_TOLERANCE_SECONDS,
        }
    }
}

impl Verifier {
    /// One that trusts nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts a key too: `whsec_…` or `whpk_…`.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn with_key(mut self, text: &str) -> Result<Self, KeyError> {
        if text.starts_with(PUBLIC_KEY_PREFIX) {
            self.public_keys.push(text.parse()?);
        } else {
            self.secrets.push(parse_secret(text)?);
        }
        Ok(self)
    }

    /// Takes webhooks that were sent so long ago, or in the future, by the receiver's clock;
    /// [`DEFAULT_TOLERANCE_SECONDS`] if nothing else is said.
    #[must_use]
    pub fn with_tolerance(mut self, seconds: u64) -> Self {
        self.tolerance_seconds = seconds;
        self
    }

    /// Checks a webhook over the bytes of its body as they arrived. One key and one signature that fit
    /// are enough, so both sides of a rotation pass; signatures of a version for which there is no key
    /// count for nothing.
    ///
    /// # Errors
    /// See [`VerifyError`]; the timestamp is checked before the signatures.
    pub fn verify(
        &self,
        headers: SignedHeaders<'_>,
        body: &[u8],
        now_unix_seconds: i64,
    ) -> Result<(), VerifyError> {
        let tolerance = self.tolerance_seconds;
        let by_public_key = if self.public_keys.is_empty() {
            Err(VerifyError::NoSignature)
        } else {
            check_time(headers.timestamp, now_unix_seconds, tolerance)?;
            self.by_public_key(headers, body)
        };
        if by_public_key.is_ok() {
            return Ok(());
        }
        match verify(&self.secrets, headers, body, now_unix_seconds, tolerance) {
            // Without a secret nothing was looked for.
            Err(VerifyError::Mismatch) if self.secrets.is_empty() => by_public_key,
            Err(VerifyError::NoSignature) => by_public_key,
            by_secret => by_secret,
        }
    }

    fn by_public_key(&self, headers: SignedHeaders<'_>, body: &[u8]) -> Result<(), VerifyError> {
        let mut seen = false;
        let message = message(headers.id, headers.timestamp, body);
        for encoded in headers
            .signature
            .split(' ')
            .filter_map(|signature| signature.strip_prefix(VERSION))
            .take(MAX_SIGNATURES)
        {
            seen = true;
            let Ok(given) = STANDARD.decode(encoded) else {
                continue;
            };
            if self
                .public_keys
                .iter()
                .any(|key| key.verifies(&message, &given))
            {
                return Ok(());
            }
        }
        Err(if seen {
            VerifyError::Mismatch
        } else {
            VerifyError::NoSignature
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::ed25519::SigningKey;
    use super::super::{format_secret, sign};
    use super::*;

    const ID: &str = "018f0000-0000-7000-8000-000000000001";
    const AT: i64 = 1_767_694_639;
    const BODY: &[u8] = br#"{"test":1}"#;

    fn check(
        verifier: &Verifier,
        signature: &str,
        body: &[u8],
        now: i64,
    ) -> Result<(), VerifyError> {
        let headers = SignedHeaders {
            id: ID,
            timestamp: &AT.to_string(),
            signature,
        };
        verifier.verify(headers, body, now)
    }

    fn trusting(keys: &[String]) -> Verifier {
        let mut keys = keys.iter();
        keys.try_fold(Verifier::new(), |verifier, key| verifier.with_key(key))
            .unwrap()
    }

    #[test]
    fn a_webhook_is_trusted_by_either_kind_of_key_and_only_as_it_was_sent() {
        let (private, secret) = (SigningKey::from_seed(&[1; 32]), [2; 32]);
        let public = trusting(&[private.public_key().to_string()]);
        let shared = trusting(&[format_secret(&secret)]);
        let both = trusting(&[private.public_key().to_string(), format_secret(&secret)]);
        let v1 = sign(&secret, ID, AT, BODY);
        let v1a = private.sign(ID, AT, BODY);
        let sent = format!("{v1} {v1a}");
        for verifier in [&public, &shared, &both] {
            assert_eq!(check(verifier, &sent, BODY, AT), Ok(()));
            assert_eq!(
                check(verifier, &sent, b"{}", AT),
                Err(VerifyError::Mismatch)
            );
            for (now, error) in [
                (AT + 301, VerifyError::TooOld(301)),
                (AT - 301, VerifyError::TooNew(301)),
            ] {
                assert_eq!(check(verifier, &sent, BODY, now), Err(error));
            }
            let longer = verifier.clone().with_tolerance(301);
            assert_eq!(check(&longer, &sent, BODY, AT + 301), Ok(()));
        }
        for (verifier, signature, verdict) in [
            (&public, &*v1a, Ok(())),
            (&public, &*v1, Err(VerifyError::NoSignature)),
            (&shared, &*v1, Ok(())),
            (&shared, &*v1a, Err(VerifyError::NoSignature)),
            (&both, &*v1, Ok(())),
            (&both, &*v1a, Ok(())),
            (&both, "", Err(VerifyError::NoSignature)),
            (&both, "v1a,AAAA", Err(VerifyError::Mismatch)),
            (&both, "v1a,%%%", Err(VerifyError::Mismatch)),
            (&both, "v1,AAAA", Err(VerifyError::Mismatch)),
            (&Verifier::new(), &*sent, Err(VerifyError::NoSignature)),
        ] {
            assert_eq!(check(verifier, signature, BODY, AT), verdict, "{signature}");
        }
    }

    #[test]
    fn both_keys_of_a_rotation_pass_and_a_foreign_one_does_not() {
        let (old, new) = ([1; 32], [2; 32]);
        let keys = [old, new].map(|seed| SigningKey::from_seed(&seed));
        let sent = keys.clone().map(|key| key.sign(ID, AT, BODY)).join(" ");
        for key in &keys {
            let verifier = trusting(&[key.public_key().to_string()]);
            assert_eq!(check(&verifier, &sent, BODY, AT), Ok(()));
        }
        let foreign = SigningKey::from_seed(&[3; 32]).public_key();
        let foreign = trusting(&[foreign.to_string()]);
        let verdict = check(&foreign, &sent, BODY, AT);
        assert_eq!(verdict, Err(VerifyError::Mismatch));
    }

    #[test]
    fn a_flood_of_signatures_is_not_looked_at() {
        let key = SigningKey::from_seed(&[1; 32]);
        let flood = format!("{}{}", "v1a,AAAA ".repeat(4), key.sign(ID, AT, BODY));
        let verifier = trusting(&[key.public_key().to_string()]);
        let verdict = check(&verifier, &flood, BODY, AT);
        assert_eq!(verdict, Err(VerifyError::Mismatch));
    }

    #[test]
    fn a_text_that_is_no_key_is_refused() {
        for text in ["", "key", "whpk_AAAA", "whsec_AAAA"] {
            assert!(Verifier::new().with_key(text).is_err(), "{text}");
        }
    }
}
