//! Signing and verifying of webhooks by the Standard Webhooks scheme: the symmetric version `v1`,
//! HMAC-SHA256 over `id.timestamp.body`, is here; `v1a` in [`ed25519`], both in one in [`verifier`].
//!
//! What lives elsewhere: which secrets are valid when (`maskline-store`), the clock.

pub mod ed25519;
pub mod verifier;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

pub use ed25519::{PublicKey, SigningKey};
pub use verifier::Verifier;

/// Header with the id of the event: the same on every retry and every replay.
pub const HEADER_ID: &str = "webhook-id";
/// Header with the time of the attempt, in whole seconds since 1970-01-01T00:00:00Z.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// Header with the signatures, separated by spaces.
pub const HEADER_SIGNATURE: &str = "webhook-signature";
/// Header that says that an earlier event of the session is not through yet.
pub const HEADER_GAP: &str = "webhook-gap";
/// What a secret starts with when it is written for people.
pub const SECRET_PREFIX: &str = "whsec_";
/// The tolerance that the scheme recommends, in seconds.
pub const DEFAULT_TOLERANCE_SECONDS: u64 = 300;

/// Most signatures of one header that are compared; two are sent while a secret is rotated.
const MAX_SIGNATURES: usize = 16;
/// HMAC-SHA256's block (RFC 2104 §2).
const BLOCK_BYTES: usize = 64;

/// A text that is no secret. Does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It does not start with `whsec_`.
    #[error("a signing secret starts with whsec_")]
    Prefix,
    /// What follows is not padded base64.
    #[error("after whsec_ a signing secret is base64")]
    Base64,
    /// Fewer than 24 or more than 64 bytes.
    #[error("a signing secret has 24 to 64 bytes, this one has {0}")]
    Length(usize),
}

/// Reads `whsec_` and base64 of 24 to 64 bytes.
///
/// # Errors
/// See [`SecretError`].
pub fn parse_secret(text: &str) -> Result<Vec<u8>, SecretError> {
    let encoded = text
        .strip_prefix(SECRET_PREFIX)
        .ok_or(SecretError::Prefix)?;
    let secret = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
    if !(24..=64).contains(&secret.len()) {
        return Err(SecretError::Length(secret.len()));
    }
    Ok(secret)
}

/// Writes a secret as `whsec_` and base64.
#[must_use]
pub fn format_secret(secret: &[u8]) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret))
}

/// One signature as the header carries it: `v1,` and base64.
#[must_use]
pub fn sign(secret: &[u8], webhook_id: &str, unix_seconds: i64, body: &[u8]) -> String {
    let mac = mac(secret, webhook_id, &unix_seconds.to_string(), body);
    format!("v1,{}", STANDARD.encode(mac))
}

/// The three headers of a signed webhook, as they arrived.
#[derive(Clone, Copy, Debug)]
pub struct SignedHeaders<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`
    pub timestamp: &'a str,
    /// `webhook-signature`: one signature or several, separated by spaces.
    pub signature: &'a str,
}

impl<'a> SignedHeaders<'a> {
    /// Takes them by their names; an absent one is empty, and nothing verifies by it.
    pub fn read(header: impl Fn(&'static str) -> &'a str) -> Self {
        Self {
            id: header(HEADER_ID),
            timestamp: header(HEADER_TIMESTAMP),
            signature: header(HEADER_SIGNATURE),
        }
    }
}

/// Why a webhook is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// `webhook-timestamp` is not a whole number of seconds.
    #[error("webhook-timestamp is not a whole number of seconds")]
    Timestamp,
    /// It was sent too long ago: a replay, or a wrong clock.
    #[error("webhook-timestamp is {0} s in the past")]
    TooOld(u64),
    /// It is dated in the future.
    #[error("webhook-timestamp is {0} s in the future")]
    TooNew(u64),
    /// No signature in the header that the given keys could check.
    #[error("webhook-signature holds no signature of the version that the keys are for")]
    NoSignature,
    /// No signature fits any of the keys.
    #[error("no signature matches: another key, or the body was changed")]
    Mismatch,
}

/// Checks the `v1` signatures of a webhook over the bytes of its body as they arrived, before they are
/// parsed; [`Verifier`] checks `v1a` too.
///
/// One secret and one signature that fit are enough, so both sides of a rotation pass. How long
/// the comparison takes does not depend on where two signatures differ.
///
/// # Errors
/// See [`VerifyError`]; the timestamp is checked before the signatures.
pub fn verify(
    secrets: &[impl AsRef<[u8]>],
    headers: SignedHeaders<'_>,
    body: &[u8],
    now_unix_seconds: i64,
    tolerance_seconds: u64,
) -> Result<(), VerifyError> {
    check_time(headers.timestamp, now_unix_seconds, tolerance_seconds)?;
    let mut seen = false;
    let mut matches = Choice::from(0);
    let expected: Vec<[u8; 32]> = secrets
        .iter()
        .map(|secret| mac(secret.as_ref(), headers.id, headers.timestamp, body))
        .collect();
    for encoded in headers
        .signature
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .take(MAX_SIGNATURES)
    {
        seen = true;
        let Ok(given) = STANDARD.decode(encoded) else {
            continue;
        };
        for mac in &expected {
            matches |= mac.as_slice().ct_eq(&given);
        }
    }
    match (seen, bool::from(matches)) {
        (false, _) => Err(VerifyError::NoSignature),
        (true, false) => Err(VerifyError::Mismatch),
        (true, true) => Ok(()),
    }
}

fn check_time(timestamp: &str, now: i64, tolerance_seconds: u64) -> Result<(), VerifyError> {
    let sent: i64 = timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
    let distance = sent.abs_diff(now);
    if distance <= tolerance_seconds {
        return Ok(());
    }
    Err(if sent < now {
        VerifyError::TooOld(distance)
    } else {
        VerifyError::TooNew(distance)
    })
}

fn mac(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
    // RFC 2104 §2: a key above one block is hashed, then padded with zeros; done here because a
    // key of exactly one block is the form that can't be refused.
    let mut block = [0_u8; BLOCK_BYTES];
    let hashed;
    let key: &[u8] = if secret.len() > BLOCK_BYTES {
        hashed = Sha256::digest(secret);
        &hashed
    } else {
        secret
    };
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn check(timestamp: &str, signature: &str, body: &[u8], now: i64) -> Result<(), VerifyError> {
        let headers = SignedHeaders {
            id: ID,
            timestamp,
            signature,
        };
        verify(&[parse_secret(SECRET).unwrap()], headers, body, now, 300)
    }

    #[test]
    fn signatures_equal_those_of_an_independent_implementation() {
        let secret = parse_secret(SECRET).unwrap();
        assert_eq!(sign(&secret, ID, AT, BODY), SIGNATURE);
        let secret: Vec<u8> = (0..32).collect();
        assert_eq!(
            sign(
                &secret,
                "018f0000-0000-7000-8000-000000000001",
                1_767_694_639,
                "{\"text\":\"grüße\"}".as_bytes()
            ),
            "v1,LMLSsUnhLdqJWd3MLcZALxWzLqd5Viy30K6wh1fYp2I="
        );
        let above_a_block: Vec<u8> = (0..100).collect();
        assert_eq!(
            sign(&above_a_block, "a", 0, b""),
            "v1,VnDcVhwwLFYEDtVMeZctQtQRp2WAcreBp/rESey02yo="
        );
    }

    #[test]
    fn another_implementation_takes_our_signatures_and_we_take_its() {
        let theirs = standardwebhooks::Webhook::new(SECRET).unwrap();
        let secret = parse_secret(SECRET).unwrap();
        // It looks at the clock.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let now = now.as_secs().cast_signed();
        for body in [BODY, b"", "{\"text\":\"grüße\"}".as_bytes()] {
            let signature = theirs.sign(ID, now, body).unwrap();
            assert_eq!(sign(&secret, ID, now, body), signature);
            let sent = SignedHeaders {
                id: ID,
                timestamp: &now.to_string(),
                signature: &signature,
            };
            assert_eq!(verify(&[&secret], sent, body, now, 300), Ok(()));
            assert_eq!(
                SignedHeaders::read(|name| match name {
                    HEADER_ID => sent.id,
                    HEADER_TIMESTAMP => sent.timestamp,
                    _ => sent.signature,
                })
                .signature,
                signature
            );
        }
    }

    #[test]
    fn a_webhook_is_trusted_only_as_it_was_sent() {
        let at = AT.to_string();
        assert_eq!(check(&at, SIGNATURE, BODY, AT), Ok(()));
        assert_eq!(check(&at, SIGNATURE, BODY, AT + 300), Ok(()));
        for (timestamp, signature, body, now, error) in [
            (&*at, SIGNATURE, &BODY[1..], AT, VerifyError::Mismatch),
            ("1614265331", SIGNATURE, BODY, AT, VerifyError::Mismatch),
            (&*at, "v1,AAAA", BODY, AT, VerifyError::Mismatch),
            (&*at, "v1,%%%", BODY, AT, VerifyError::Mismatch),
            (&*at, "", BODY, AT, VerifyError::NoSignature),
            (&*at, "v1a,AAAA v2,AAAA", BODY, AT, VerifyError::NoSignature),
            (&*at, SIGNATURE, BODY, AT + 301, VerifyError::TooOld(301)),
            (&*at, SIGNATURE, BODY, AT - 301, VerifyError::TooNew(301)),
            ("soon", SIGNATURE, BODY, AT, VerifyError::Timestamp),
            (
                "-9223372036854775808",
                SIGNATURE,
                BODY,
                i64::MAX,
                VerifyError::TooOld(u64::MAX),
            ),
        ] {
            assert_eq!(check(timestamp, signature, body, now), Err(error));
        }
    }

    #[test]
    fn both_secrets_of_a_rotation_pass_and_a_foreign_one_does_not() {
        let (old, new) = ([1_u8; 32], [2_u8; 32]);
        let both = format!("{} {}", sign(&new, ID, AT, BODY), sign(&old, ID, AT, BODY));
        let headers = SignedHeaders {
            id: ID,
            timestamp: &AT.to_string(),
            signature: &both,
        };
        assert_eq!(verify(&[old], headers, BODY, AT, 300), Ok(()));
        assert_eq!(verify(&[[9; 32], new], headers, BODY, AT, 300), Ok(()));
        let foreign = verify(&[[9_u8; 32]], headers, BODY, AT, 300);
        assert_eq!(foreign, Err(VerifyError::Mismatch));
    }

    #[test]
    fn a_flood_of_signatures_is_not_compared() {
        let flood = format!("{}{SIGNATURE}", "v1,AAAA ".repeat(16));
        let verdict = check(&AT.to_string(), &flood, BODY, AT);
        assert_eq!(verdict, Err(VerifyError::Mismatch));
    }

    #[test]
    fn a_secret_reads_back_and_a_wrong_one_is_refused() {
        let secret = [7_u8; 32];
        assert_eq!(parse_secret(&format_secret(&secret)).unwrap(), secret);
        for (text, error) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Prefix),
            ("whsec_%", SecretError::Base64),
            ("whsec_AAAA", SecretError::Length(3)),
        ] {
            assert_eq!(parse_secret(text), Err(error));
        }
    }
}
