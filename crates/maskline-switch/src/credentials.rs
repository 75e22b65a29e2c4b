//! Who a trunk must prove to be, and who we are towards it: `[trunk.auth]`.

use std::fmt;

use crate::sip::digest::{self, Algorithm, Challenge, Ha1, Protected, Qop};
use crate::sip::{HeaderName, Request, Response};

/// How often a request is sent again with credentials; once more if only the nonce was stale.
const MOST_TRIES: u8 = 2;
/// Most realms that one far side may ask for: its proxies and itself.
const MOST_REALMS: usize = 4;

/// A password that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps a password.
    #[must_use]
    pub const fn new(password: String) -> Self {
        Self(password)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A trunk's digest credentials, in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrunkAuth {
    /// What a caller of this trunk must prove; `None`: its address is enough.
    pub inbound: Option<InboundAuth>,
    /// What we answer when the trunk asks us; `None`: its challenge ends the call.
    pub outbound: Option<OutboundAuth>,
}

/// What a caller must prove (RFC 3261 §22.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundAuth {
    /// Its user name.
    pub username: String,
    /// The protection space that our challenges name.
    pub realm: String,
    /// For answers by MD5; `None`: MD5 is not offered.
    pub md5: Option<Ha1>,
    /// For answers by SHA-256; `None`: SHA-256 is not offered.
    pub sha256: Option<Ha1>,
}

impl InboundAuth {
    /// By a password, which is not kept.
    #[must_use]
    pub fn with_password(username: &str, realm: &str, password: &str) -> Self {
        let ha1 = |algorithm| Some(Ha1::new(algorithm, username, realm, password));
        Self {
            username: username.to_owned(),
            realm: realm.to_owned(),
            md5: ha1(Algorithm::Md5),
            sha256: ha1(Algorithm::Sha256),
        }
    }

    /// What an answer by this algorithm is compared with; `None`: it is not offered.
    pub(crate) const fn ha1(&self, algorithm: Algorithm) -> Option<&Ha1> {
        match algorithm {
            Algorithm::Md5 => self.md5.as_ref(),
            Algorithm::Sha256 => self.sha256.as_ref(),
            Algorithm::Md5Sess | Algorithm::Sha256Sess => None,
        }
    }
}

/// Who we are towards a trunk that asks (RFC 3261 §22.2, §22.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundAuth {
    /// Our user name.
    pub username: String,
    /// Our password.
    pub password: Password,
    /// The only realm that hears of it; `None`: whichever the trunk names.
    pub realm: Option<String>,
}

/// What a far side has asked us so far, each challenge with how often its nonce has been used: later
/// requests of the same dialog carry credentials at once (RFC 3261 §22.2, RFC 7616 §3.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(Vec<(Challenge, u32)>);

impl Answers {
    /// What a request of ours answered: it is written in the request itself.
    #[must_use]
    pub fn of_request(request: &Request) -> Self {
        Self(Challenge::answered_by(&request.headers))
    }

    /// Whether nobody has asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the challenges of a 401 or 407; this is what the refused request had answered, and that
    /// request had been sent `tries` times before.
    ///
    /// # Errors
    /// Why they can't, or need not, be answered: a counter's reason.
    pub fn take(
        &mut self,
        outbound: &OutboundAuth,
        response: &Response,
        tries: u8,
    ) -> Result<(), &'static str> {
        let read = Challenge::read_all(&response.headers);
        let unreadable = read.iter().any(Option::is_none);
        let realm = outbound.realm.as_ref();
        let (ours, others): (Vec<_>, Vec<_>) = read
            .into_iter()
            .flatten()
            .partition(|challenge| realm.is_none_or(|realm| *realm == challenge.realm));
        let chosen = digest::strongest(ours);
        if chosen.is_empty() {
            return Err(if !others.is_empty() {
                "challenge_of_another_realm"
            } else if unreadable {
                "challenge_unsupported"
            } else {
                "challenge_missing"
            });
        }
        for challenge in &chosen {
            let fresh = self
                .0
                .iter()
                .any(|(known, count)| known.same_realm(challenge) && *count <= 1);
            if fresh && !challenge.stale {
                return Err("credentials_refused");
            }
        }
        let stale = chosen.iter().all(|challenge| challenge.stale);
        if tries >= MOST_TRIES + u8::from(stale) {
            return Err("challenged_too_often");
        }
        for challenge in chosen {
            self.0.retain(|(known, _)| !known.same_realm(&challenge));
            if self.0.len() < MOST_REALMS {
                self.0.push((challenge, 0));
            }
        }
        Ok(())
    }

    /// The headers that answer every challenge once more; `cnonce` is of letters and digits.
    #[must_use]
    pub fn headers(
        &mut self,
        outbound: &OutboundAuth,
        request: &Protected<'_>,
        cnonce: &str,
    ) -> Vec<(HeaderName, String)> {
        // Without a count a nonce is used once: nothing tells its second use from a replay.
        self.0
            .retain(|(challenge, count)| *count == 0 || challenge.qop != Qop::Legacy);
        let OutboundAuth {
            username, password, ..
        } = outbound;
        self.0
            .iter_mut()
            .map(|(challenge, count)| {
                *count = count.saturating_add(1);
                challenge.answer(username, password.reveal(), request, *count, cnonce)
            })
            .collect()
    }
}
